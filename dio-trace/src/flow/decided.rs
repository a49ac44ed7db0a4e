//! A request, the decision about it, and what was looked up for it.

use std::sync::Arc;

use dio_trace_common::{
    abi::{FileId, Request},
    verdict::{Decision, decide},
};

use crate::{cause::wants_extents, enrich::Enricher, system::stack::Stack};

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

/// What belongs to a request and is not in its event.
#[derive(Clone, Debug, Default)]
pub struct LookedUp {
    /// OR of the flags of the extents in its range, if explaining it needs them.
    pub extents: Option<u32>,
    /// The program's stack when it made the request.
    pub stack: Option<Arc<Stack>>,
}

impl LookedUp {
    /// Asks this machine.
    pub fn now(decided: &Decided<'_>, enricher: &mut Enricher) -> Self {
        Self { extents: extents(decided, enricher), stack: enricher.stack(decided.request) }
    }
}

fn extents(decided: &Decided<'_>, enricher: &mut Enricher) -> Option<u32> {
    let Decided { request, decision } = decided;
    let file = enricher.file(decided.file(), request.tgid);
    wants_extents(decision, file.deciding().0).then(|| enricher.extent_flags(request)).flatten()
}
