//! Rule for direct writes that could not invalidate the page cache first.

use dio_trace_common::evidence::seen;

use crate::cause::{Case, Reason, Rule, Scenario};

pub(super) const CACHE_NOT_INVALIDATED: Rule = Rule {
    id: "cache-not-invalidated",
    title: "cached pages of the range could not be dropped",
    means: "Before a direct write the kernel drops the range's pages from the page cache, so that \
            nobody reads old data. A page that someone is using just then (dirtied anew through a \
            mapping, under write-back, pinned) cannot be dropped; the whole write goes through the \
            page cache instead.",
    proof: "The kernel's attempt to drop pages for this write (invalidate_inode_pages2_range) \
            answered EBUSY, no direct path was entered, and bytes of it went through the cache.",
    fix: "find who else has the file open or mapped (`fuser -v FILE`, `lsof FILE`) and stop mixing \
          buffered, mapped and direct use of one file",
    on: "any",
    scenario: Scenario::Needs("a process that keeps dirtying the mapped range; it is a race"),
    test: not_invalidated,
};

/// In this case fs/iomap/direct-io.c:__iomap_dio_rw returns -ENOTBLK, and
/// mm/filemap.c:generic_file_direct_write returns 0.
fn not_invalidated(case: &Case<'_>) -> Option<Reason> {
    // The kernel also invalidates after a direct write; a failure there says nothing about the
    // path.
    (case.cached_write() && !case.tried() && case.seen(seen::INVALIDATE_FAILED)).then(|| {
        Reason::proven(format!(
            "cached pages of this range were in use and could not be dropped: {} of {} bytes were \
             written through the page cache",
            case.decision.cached_bytes, case.request.len
        ))
    })
}
