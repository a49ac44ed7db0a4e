//! ntfs3 (fs/ntfs3/file.c:ntfs_should_use_dio, 7.x).

use super::alignment::off_block;
use crate::cause::{Case, Rule, Scenario};

/// What most devices address.
const SECTOR: u32 = 512;

pub(super) const MISALIGNED: Rule = Rule {
    id: "ntfs3-misaligned",
    title: "ntfs3: off the device's sectors, so cached",
    means: "Since 7.x ntfs3 does not refuse what is off the device's sectors, but serves it through \
            the page cache, saying nothing. It asks the same of offset, length and buffer address.",
    proof: "The request went through the page cache without a direct attempt, and offset, length, \
            buffer address or a segment is off the device's logical block; the sentence names each.",
    fix: "use multiples of the logical block size (`blockdev --getss DEV`) for offset, length and \
          buffer address",
    on: "ntfs3",
    scenario: Scenario::In(&["ntfs3"]),
    test: misaligned,
};

fn misaligned(case: &Case<'_>) -> Option<String> {
    if !case.on(&["ntfs3"]) || !case.cached() || case.tried() {
        return None;
    }
    let block = case.facts.device.logical_block.unwrap_or(SECTOR);
    let wrong = off_block(case, block);
    (!wrong.is_empty())
        .then(|| format!("{}, a sector of its device: ntfs3 takes it cached", wrong.join(", ")))
}
