//! What the probes of `dio-trace cache` have counted.

use dio_trace_common::abi::{CacheUser, FileId, PageSum, PageUse};

/// Pages that came into the page cache and left it since tracing began.
#[derive(Clone, Debug, Default)]
pub struct CacheTotals {
    /// Pages by file, process and flow. Those of [`FileId::NONE`] are of the files that there was no room
    /// for.
    pub uses: Vec<(PageUse, PageSum)>,
    /// Pages that each file has in the page cache.
    pub resident: Vec<(FileId, u64)>,
    /// Processes by thread-group id.
    pub users: Vec<(u32, CacheUser)>,
    /// Pages that are in no sum.
    pub lost_pages: u64,
    /// Files whose names found no room in the ring buffer.
    pub lost_names: u64,
    /// Runs of a program that BPF itself skipped, by program (`recursion_misses`).
    pub skipped: Vec<(String, u64)>,
}
