//! Rule for ntfs3 (fs/ntfs3/file.c:ntfs_should_use_dio, 7.0).

use crate::cause::{
    Case, Reason, Rule, Scenario,
    rules::alignment::{SECTOR, needs_blocks},
};

pub(super) const MISALIGNED: Rule = Rule {
    id: "ntfs3-misaligned",
    title: "ntfs3: off the device's sectors, so cached",
    means: "Since 7.0 ntfs3 does not refuse what is off the device's sectors, but serves it through \
            the page cache, saying nothing. It asks the same of offset, length and buffer address.",
    proof: "The request went through the page cache without a direct attempt, and offset, length, \
            buffer address or a segment is off the device's logical block; the sentence names each. \
            Likely where the vector's segments were not read.",
    fix: "use multiples of the logical block size (`blockdev --getss DEV`) for offset, length and \
          buffer address",
    on: "ntfs3 from 7.0 on",
    scenario: Scenario::In(&["ntfs3"]),
    test: misaligned,
};

fn misaligned(case: &Case<'_>) -> Option<Reason> {
    let block = case.attrs.device.logical_block.unwrap_or(SECTOR);
    case.on(&["ntfs3"]).then(|| needs_blocks(case, block)).flatten()
}
