//! Which requests the probes let through.

use crate::system::cgroup::Cgroup;

/// Which requests are wanted, as the probes know them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestFilter {
    /// Thread that submits; 0: any.
    pub tid: u32,
    pub cgroup: Option<Cgroup>,
    /// A bit for each `OP_*` and `API_*` of the ABI.
    pub ops: u32,
    pub apis: u32,
    /// Kernel `dev_t`; 0: any.
    pub dev: u32,
    pub min_latency_ns: u64,
}

impl Default for RequestFilter {
    fn default() -> Self {
        Self::ALL
    }
}

impl RequestFilter {
    /// Every request.
    pub const ALL: Self =
        Self { tid: 0, cgroup: None, ops: u32::MAX, apis: u32::MAX, dev: 0, min_latency_ns: 0 };

    /// True if not every thread's requests are wanted.
    pub(crate) const fn filters_threads(&self) -> bool {
        self.tid != 0 || self.cgroup.is_some()
    }

    /// True if requests are looked at one by one.
    pub(crate) const fn filters_requests(&self) -> bool {
        self.ops != u32::MAX || self.apis != u32::MAX || self.dev != 0 || self.min_latency_ns != 0
    }
}
