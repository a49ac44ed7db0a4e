//! The filter on requests that the probes apply.

use crate::system::cgroup::Cgroup;

/// Selects requests by properties that the probes know. A request must match all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestFilter {
    /// Id of the thread that submits the request; 0: any.
    pub tid: u32,
    /// The submitting thread is in this cgroup or in a descendant of it; `None`: any.
    pub cgroup: Option<Cgroup>,
    /// A bit for each accepted `OP_*` of the ABI.
    pub ops: u32,
    /// A bit for each accepted `API_*` of the ABI.
    pub apis: u32,
    /// Kernel `dev_t` of the file system or block device; 0: any.
    pub dev: u32,
    /// Shortest latency in ns; 0: any.
    pub min_latency_ns: u64,
}

impl Default for RequestFilter {
    fn default() -> Self {
        Self::ALL
    }
}

impl RequestFilter {
    /// Accepts every request.
    pub const ALL: Self =
        Self { tid: 0, cgroup: None, ops: u32::MAX, apis: u32::MAX, dev: 0, min_latency_ns: 0 };

    /// True if the filter excludes requests by thread or cgroup.
    pub(crate) const fn filters_threads(&self) -> bool {
        self.tid != 0 || self.cgroup.is_some()
    }

    /// True if the filter excludes requests by operation, API, device or latency.
    pub(crate) const fn filters_requests(&self) -> bool {
        self.ops != u32::MAX || self.apis != u32::MAX || self.dev != 0 || self.min_latency_ns != 0
    }
}
