//! [`Held`]: a request that is held back until it is known whether it is a step of a probe.

use dio_trace_common::abi::{Counter, CounterKey, FileId};

use crate::{
    cause::{ALIGNMENT_PROBE, ReasonKind},
    flow::{alignment_probe::step::Step, decided::Decided, explained::ExplainedRequest},
};

/// Process and file of a probe.
pub(super) type Key = (u32, FileId);

/// Where a request is held back: the run, and the step that it is.
pub(in crate::flow) struct RunStep {
    pub(super) key: Key,
    pub(super) step: Step,
}

/// A request that is held back.
pub(super) struct Held {
    pub(super) step: Step,
    /// Completion, CLOCK_MONOTONIC in ns.
    pub(super) end_ns: u64,
    /// Where the request was counted, and what it added there.
    pub(super) counted: (CounterKey, Counter),
    /// The request as the finding that it is if it belongs to no probe.
    pub(super) record: Box<ExplainedRequest>,
}

/// A request that was held back, and of which it is known now what it is.
pub struct Settled {
    /// Completion, CLOCK_MONOTONIC in ns.
    pub end_ns: u64,
    /// Where it is counted, and what it adds there.
    pub counted: (CounterKey, Counter),
    pub record: ExplainedRequest,
    /// The sink takes it.
    pub is_shown: bool,
}

/// Where a request is counted, and what it adds there.
pub(in crate::flow) fn counted(
    Decided { request, decision }: &Decided<'_>,
) -> (CounterKey, Counter) {
    let mut counter = Counter::ZERO;
    counter.count(request, decision);
    (CounterKey::of(request, decision), counter)
}

impl Held {
    pub(super) fn new(step: Step, decided: &Decided<'_>, record: ExplainedRequest) -> Self {
        let end_ns = decided.request.end_ns;
        Self { step, end_ns, counted: counted(decided), record: Box::new(record) }
    }

    /// The request as the finding that it is.
    pub(super) fn into_finding(self) -> Settled {
        let Self { end_ns, counted, record, .. } = self;
        Settled { end_ns, counted, record: *record, is_shown: true }
    }

    /// Turns a finding into a step of a probe, for which there is nothing to do.
    pub(super) fn into_step(self, why: &str, is_shown: bool) -> Settled {
        let (key, counter) = self.counted;
        let counted = (CounterKey { finding: 0, ..key }, counter);
        let record = ExplainedRequest {
            finding: false,
            cause: Some(ALIGNMENT_PROBE),
            why: Some(why.to_owned()),
            fix: None,
            reason: Some(ReasonKind::of(why)),
            ..*self.record
        };
        Settled { end_ns: self.end_ns, counted, record, is_shown }
    }
}

/// The requests of one process and file that are held back, in order.
pub(super) struct Run {
    pub(super) key: Key,
    pub(super) requests: Vec<Held>,
    pub(super) last: Step,
    /// Completion of the last step, CLOCK_MONOTONIC in ns.
    pub(super) last_ns: u64,
    /// It is no probe: the steps that still come are not held back.
    pub(super) given_up: bool,
}

impl Run {
    pub(super) fn new(key: Key, first: Held) -> Self {
        let (last, last_ns) = (first.step, first.end_ns);
        Self { key, requests: vec![first], last, last_ns, given_up: false }
    }

    pub(super) fn push(&mut self, next: Held) {
        (self.last, self.last_ns) = (next.step, next.end_ns);
        self.requests.push(next);
    }

    /// True if the steps alone say that it is a probe: there are several, or it began with an opening
    /// one. A single step of another kind may be a program's real read.
    pub(super) fn is_clear(&self) -> bool {
        self.requests.len() > 1 || self.requests.iter().any(|held| held.step.is_opening())
    }
}
