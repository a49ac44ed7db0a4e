//! A request and the decision about it.

use dio_trace_common::{
    abi::{FileId, Request},
    verdict::{Decision, decide},
};

/// A request with what user space decides about it. The probes decided with the same function; here
/// it runs once for each event, and the result is handed down.
#[derive(Clone, Copy, Debug)]
pub struct Decided<'a> {
    pub request: &'a Request,
    pub decision: Decision,
}

impl<'a> Decided<'a> {
    #[must_use]
    pub fn of(request: &'a Request) -> Self {
        Self { request, decision: decide(&request.facts(true), &request.evidence) }
    }

    #[must_use]
    pub fn file(&self) -> FileId {
        FileId::from(self.request)
    }

    /// From issue to completion, in ns.
    #[must_use]
    pub const fn latency_ns(&self) -> u64 {
        self.request.end_ns.saturating_sub(self.request.begin_ns)
    }
}
