//! [`LostRequests`]: requests whose own lines were lost, because the ring buffer was full. The counters
//! have them nevertheless: where a counter has more requests than there were events, one row says how
//! many.

use ahash::HashMap;
use dio_trace_common::{
    abi::{Counter, CounterKey, OP_WRITE, Op},
    verdict::{Outcome, Verdict},
};
use serde::Serialize;

use crate::{
    enrich::Enricher,
    flow::{decided::Decided, explained::SCHEMA, file_user::FileUser},
    util::errno,
};

/// Most counters whose events are counted: as many as there can be counters, and some that have lost
/// their place to others.
const MAX_KEYS: usize = 32_768;
/// How long an event may take from its counter to the ring buffer, on a CPU that does other work
/// meanwhile, in ns.
const SLACK: u64 = 100_000_000;

/// Requests of one process, file, operation and verdict that have no line of their own (docs/json.md).
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LostRow {
    pub v: u32,
    pub kind: &'static str,
    /// When they were found to be lost: ns since the epoch.
    pub time: u64,
    #[serde(flatten)]
    pub user: FileUser,
    pub op: Op,
    pub verdict: Verdict,
    pub outcome: Option<Outcome>,
    pub errno: Option<String>,
    /// True if such requests are findings.
    pub finding: bool,
    /// Number of requests since the last such line.
    pub requests: u64,
}

impl LostRow {
    /// Looks the names up.
    #[must_use]
    pub fn new((key, requests): (CounterKey, u64), time: u64, enricher: &mut Enricher) -> Self {
        let outcome = Outcome::from_u8(key.outcome).filter(|outcome| *outcome != Outcome::None);
        Self {
            v: SCHEMA,
            kind: "lost_requests",
            time,
            user: FileUser::new(key.tgid, None, key.file, enricher),
            op: if key.op == OP_WRITE { Op::Write } else { Op::Read },
            verdict: Verdict::from_u8(key.verdict).unwrap_or(Verdict::Unknown),
            outcome,
            errno: (key.errno != 0).then(|| errno::name(key.errno.into())),
            finding: key.finding != 0,
            requests,
        }
    }
}

/// What is known of a counter.
#[derive(Clone, Copy, Default)]
struct Known {
    events: u64,
    /// Requests that rows have said to be lost.
    told: u64,
}

/// Counters as they were at a time.
struct Snapshot {
    /// CLOCK_MONOTONIC in ns.
    at: u64,
    requests: Vec<(CounterKey, u64)>,
}

/// Compares counters with events.
#[derive(Default)]
pub struct LostRequests {
    known: HashMap<CounterKey, Known>,
    /// Completion of the last event, CLOCK_MONOTONIC in ns.
    latest: u64,
    /// Number of lost events at the last snapshot.
    lost: u64,
    snapshot: Option<Snapshot>,
}

impl LostRequests {
    /// Takes an event.
    pub fn take(&mut self, decided: &Decided<'_>) {
        let key = CounterKey::of(decided.request, &decided.decision);
        self.latest = self.latest.max(decided.request.end_ns);
        if let Some(known) = self.known.get_mut(&key) {
            known.events += 1;
        } else if self.known.len() < MAX_KEYS {
            self.known.insert(key, Known { events: 1, told: 0 });
        }
    }

    /// True if [`Self::compare_with`] is to be called, after `lost` events were lost.
    #[must_use]
    pub const fn wants_counters(&self, lost: u64) -> bool {
        lost > self.lost && self.snapshot.is_none()
    }

    /// Takes the counters of this moment, of requests that have events.
    pub fn compare_with(
        &mut self,
        (lost, at): (u64, u64),
        counters: impl Iterator<Item = (CounterKey, u64)>,
    ) {
        self.lost = lost;
        self.snapshot = Some(Snapshot { at, requests: counters.collect() });
    }

    /// What was lost until the last [`Self::compare_with`], once all events of that time were taken:
    /// `is_idle` if none is waiting. Each request is in one answer.
    pub fn found(&mut self, is_idle: bool) -> Vec<(CounterKey, u64)> {
        let latest = self.latest;
        let all_taken = |snapshot: &mut Snapshot| is_idle || latest > snapshot.at + SLACK;
        let snapshot = self.snapshot.take_if(all_taken);
        snapshot.map_or_else(Vec::new, |snapshot| self.missing(snapshot.requests.into_iter()))
    }

    /// What is not yet told, by the last counters, if `lost` events were lost.
    pub fn rest(
        &mut self,
        lost: u64,
        counters: impl Iterator<Item = (CounterKey, u64)>,
    ) -> Vec<(CounterKey, u64)> {
        if lost == 0 { Vec::new() } else { self.missing(counters) }
    }

    fn missing(
        &mut self,
        counters: impl Iterator<Item = (CounterKey, u64)>,
    ) -> Vec<(CounterKey, u64)> {
        let mut rows = Vec::new();
        for (key, requests) in counters {
            let known = self.known.entry(key).or_default();
            let missing = requests.saturating_sub(known.events + known.told);
            known.told += missing;
            if missing != 0 {
                rows.push((key, missing));
            }
        }
        rows.sort_by_key(|(key, _)| (key.file.inode, key.tgid, key.op, key.verdict));
        rows
    }
}

/// Keys and numbers of the counters of requests that have events: of findings, or of all requests.
pub fn with_events(
    counters: &[(CounterKey, Counter)],
    all: bool,
) -> impl Iterator<Item = (CounterKey, u64)> {
    let sent = counters.iter().filter(move |(key, _)| all || key.finding != 0);
    sent.map(|(key, counter)| (*key, counter.requests))
}

#[cfg(test)]
mod tests {
    use dio_trace_common::abi::Request;

    use super::*;

    /// Takes `count` events, the last at `end_ns`; returns their counter's key.
    fn take(lost: &mut LostRequests, count: u64, end_ns: u64) -> CounterKey {
        let request = Request { end_ns, ..Request::EMPTY };
        let decided = Decided::of(&request);
        for _ in 0..count {
            lost.take(&decided);
        }
        CounterKey::of(&request, &decided.decision)
    }

    #[test]
    fn each_lost_request_is_in_one_row() {
        let mut lost = LostRequests::default();
        let key = take(&mut lost, 10, 1);
        assert!(!lost.wants_counters(0) && lost.wants_counters(5));
        lost.compare_with((5, 2), [(key, 15)].into_iter());
        assert!(!lost.wants_counters(9), "one comparison at a time");
        // Events of that time may be waiting.
        assert_eq!(lost.found(false), []);
        take(&mut lost, 1, 2 + SLACK);
        assert_eq!(lost.found(false), []);
        take(&mut lost, 1, 3 + SLACK);
        assert_eq!(lost.found(false), [(key, 3)]);
        assert_eq!(lost.found(true), []);
        assert_eq!(lost.rest(6, [(key, 17)].into_iter()), [(key, 2)]);
        assert_eq!(lost.rest(6, [(key, 17)].into_iter()), []);
    }

    #[test]
    fn without_lost_events_nothing_is_compared() {
        let mut lost = LostRequests::default();
        let key = take(&mut lost, 1, 1);
        // A counter may be ahead of its event.
        assert_eq!(lost.rest(0, [(key, 2)].into_iter()), []);
    }
}
