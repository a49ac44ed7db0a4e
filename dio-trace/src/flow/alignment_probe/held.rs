//! [`Held`]: a request that is held back until it is known whether it is a step of a probe.

use dio_trace_common::abi::{Counter, CounterKey, FileId};

use crate::{
    cause::{ALIGNMENT_PROBE, Reason},
    flow::{alignment_probe::step::Step, decided::Decided, explained::ExplainedRequest},
};

/// Process and file of a probe.
pub(super) type Key = (u32, FileId);

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

impl Held {
    pub(super) fn new(step: Step, decided: &Decided<'_>, record: ExplainedRequest) -> Self {
        let Decided { request, decision } = decided;
        let mut counter = Counter::ZERO;
        counter.count(request, decision);
        let counted = (CounterKey::of(request, decision), counter);
        Self { step, end_ns: request.end_ns, counted, record: Box::new(record) }
    }

    /// Turns a finding into a step of a probe, for which there is nothing to do.
    pub(super) fn into_step(self, why: &str) -> ExplainedRequest {
        ExplainedRequest {
            finding: false,
            cause: Some(ALIGNMENT_PROBE),
            why: Some(why.to_owned()),
            fix: None,
            reason: Some(Reason::proven(why).kind()),
            ..*self.record
        }
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
