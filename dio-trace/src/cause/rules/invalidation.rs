//! Direct writes that could not clear the page cache first.

use dio_trace_common::{evidence::seen, verdict::Verdict};

use crate::cause::{Case, Rule, Scenario};

pub(super) const CACHE_NOT_INVALIDATED: Rule = Rule {
    id: "cache-not-invalidated",
    title: "cached pages of the range could not be dropped",
    means: "Before a direct write the kernel drops the range's pages from the page cache, so that \
            nobody reads old data. A page that someone is using just then (dirtied anew through a \
            mapping, under write-back, pinned) cannot be dropped; the whole write goes through the \
            page cache instead.",
    proof: "The kernel began to drop pages for this write, entered no direct path afterwards, and \
            all bytes went through the page cache. Certain on ext4, xfs, btrfs, gfs2 and block \
            devices; likely elsewhere, where a direct path may decline without a trace.",
    fix: "find who else has the file open or mapped (`fuser -v FILE`, `lsof FILE`) and stop mixing \
          buffered, mapped and direct use of one file",
    on: "any",
    scenario: Scenario::Needs("a process that keeps dirtying the mapped range; it is a race"),
    test: not_invalidated,
};

/// fs/iomap/direct-io.c:__iomap_dio_rw gives -ENOTBLK, mm/filemap.c:generic_file_direct_write 0.
fn not_invalidated(case: &Case<'_>) -> Option<String> {
    let gave_up = case.is_write() && case.verdict(Verdict::Fallback) && !case.tried();
    if !gave_up || !case.seen(seen::INVALIDATED) || case.is_client() {
        return None;
    }
    let certain = case.on(&["bdev", "btrfs", "ext4", "gfs2", "xfs"]);
    // fat and its like decline to extend a file without a trace.
    if !certain && case.past_end() {
        return None;
    }
    let likely = if certain { "" } else { "likely " };
    Some(format!(
        "{likely}cached pages of this range were in use and could not be dropped: all {} bytes \
         were written through the page cache",
        case.request.len
    ))
}
