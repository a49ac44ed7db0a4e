//! The input of explaining: a request with its decision (verdict and outcome), and what was looked
//! up for it on this machine.

use std::sync::Arc;

use dio_trace_common::{
    abi::{FileId, Request},
    verdict::{Decision, decide},
};

use crate::{
    cause::wants_extents,
    enrich::Enricher,
    system::{mappings::Memory, stack::Stack},
};

/// A request with user space's decision. The probes decide with the same function; user space runs
/// it once per event and passes the result down.
#[derive(Clone, Copy, Debug)]
pub struct Decided<'a> {
    pub request: &'a Request,
    pub decision: Decision,
}

impl<'a> Decided<'a> {
    /// Decides about a request.
    #[must_use]
    pub fn of(request: &'a Request) -> Self {
        Self { request, decision: decide(&request.facts(), &request.evidence) }
    }

    #[must_use]
    pub fn file(&self) -> FileId {
        self.request.file
    }

    /// Latency from issue to completion, in ns.
    #[must_use]
    pub const fn latency_ns(&self) -> u64 {
        self.request.end_ns.saturating_sub(self.request.begin_ns)
    }
}

/// What explaining a request needs besides its event.
#[derive(Clone, Debug, Default)]
pub struct LookedUp {
    /// OR of the flags of the extents in the request's range; None if explaining does not need
    /// them or they could not be read.
    pub extents: Option<u32>,
    /// How the buffer is mapped; None if the request did not end with EFAULT, or it is unknown.
    pub memory: Option<Memory>,
    /// The program's stack when it issued the request; None if it was not taken.
    pub stack: Option<Arc<Stack>>,
}

impl LookedUp {
    /// Looks it up on this machine.
    pub fn now(decided: &Decided<'_>, enricher: &mut Enricher) -> Self {
        Self {
            extents: extents(decided, enricher),
            memory: enricher.memory(decided.request),
            stack: enricher.stack(decided.request),
        }
    }
}

fn extents(decided: &Decided<'_>, enricher: &mut Enricher) -> Option<u32> {
    let Decided { request, decision } = decided;
    let file = enricher.file(decided.file(), request.task.tgid);
    wants_extents(decision, file.deciding().0).then(|| enricher.extent_flags(request)).flatten()
}
