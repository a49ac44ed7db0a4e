//! Rule for xfs (fs/xfs/xfs_file.c, xfs_iomap.c).

use crate::{
    cause::{Case, Reason, Rule, Scenario, rules::alignment::past},
    system::extents::extent,
};

pub(super) const UNALIGNED_COW: Rule = Rule {
    id: "xfs-unaligned-cow",
    title: "xfs: part of a shared block is written cached",
    means: "A file that shares extents (cp --reflink, snapshots of VM images, deduplication) is \
            copied on write, block by block. A write that covers part of a block needs the rest of \
            it, which xfs brings together in the page cache; the pages stay dirty there. On a \
            zoned xfs (6.15 on) every write is such a copy, without shared extents. Other files \
            take writes in sectors directly.",
    proof: "A write through the page cache that is off the file system's block, and an extent in \
            its range is shared (FIEMAP). Likely where FIEMAP no longer shows it, because the copy \
            has been made, and on a zoned xfs.",
    fix: "write whole file-system blocks (`xfs_info DIR`: bsize), or unshare the file first: \
          `xfs_io -c 'funshare 0 SIZE' FILE`",
    on: "xfs with reflink (the default)",
    scenario: Scenario::In(&["xfs-reflink"]),
    test: unaligned_cow,
};

fn unaligned_cow(case: &Case<'_>) -> Option<Reason> {
    let block = case.block();
    let length = case.request.len;
    let unaligned = past(case.start(), block) != 0 || past(length, block) != 0;
    if !case.on(&["xfs"]) || !case.cached_write() || !unaligned {
        return None;
    }
    if is_zoned(case) {
        let text = format!(
            "this xfs is zoned: it never overwrites in place, and completes parts of its \
             {block}-byte blocks in the page cache"
        );
        return Some(Reason::likely(text).with_fix(format!("write whole blocks of {block} bytes")));
    }
    let text = format!(
        "the file shares extents (reflink), and {length} bytes at {} are no whole {block}-byte \
         blocks: xfs copies such blocks through the page cache",
        case.start()
    );
    Some(if case.extent(extent::SHARED) { Reason::proven(text) } else { Reason::likely(text) })
}

/// A zoned xfs writes each block anew (fs/xfs/xfs_file.c:xfs_file_dio_write). Its mount shows
/// `max_open_zones` (fs/xfs/xfs_super.c:xfs_fs_show_options).
fn is_zoned(case: &Case<'_>) -> bool {
    case.attrs.device.zoned == Some(true) || case.option_begins("max_open_zones=")
}
