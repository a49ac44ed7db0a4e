//! [`LostRequests`]: requests whose own lines were lost, because the ring buffer was full. The counters
//! have them nevertheless: where a counter has more requests than there were events, one row says how
//! many.

use ahash::HashMap;
use dio_trace_common::{
    abi::{Counter, CounterKey, Op, Request},
    verdict::{Outcome, Verdict},
};
use serde::Serialize;

use crate::{
    enrich::Enricher,
    flow::{
        bytes::{outcome, verdict},
        decided::Decided,
        explained::SCHEMA,
        file_user::FileUser,
    },
    util::errno,
};

/// Most keys whose events are counted: as many as there can be counters, and keys that found no place
/// among them.
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
        Self {
            v: SCHEMA,
            kind: "lost_requests",
            time,
            user: FileUser::new(key.tgid, None, key.file, enricher),
            op: Op::from_u8(key.op).unwrap_or(Op::Read),
            verdict: verdict(&key),
            outcome: outcome(key.outcome),
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
    /// Events of requests that completed after the snapshot.
    later: u64,
    /// Requests that rows have said to be lost.
    told: u64,
}

/// Counters as they were at a time.
struct Snapshot {
    /// When they had been read, CLOCK_MONOTONIC in ns.
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
        let (request, key) = (decided.request, key(decided));
        self.latest = self.latest.max(request.end_ns);
        if self.known.len() >= MAX_KEYS && !self.known.contains_key(&key) {
            return;
        }
        let known = self.known.entry(key).or_default();
        let is_later = self.snapshot.as_ref().is_some_and(|snapshot| request.end_ns > snapshot.at);
        let count = if is_later { &mut known.later } else { &mut known.events };
        *count += 1;
    }

    /// True if [`Self::compare_with`] is to be called, after `lost` events were lost.
    #[must_use]
    pub const fn wants_counters(&self, lost: u64) -> bool {
        lost > self.lost && self.snapshot.is_none()
    }

    /// Takes counters of requests that have events, which had been read at the time `at`
    /// (CLOCK_MONOTONIC in ns).
    pub fn compare_with(
        &mut self,
        (lost, at): (u64, u64),
        counters: impl Iterator<Item = (CounterKey, u64)>,
    ) {
        self.lost = lost;
        self.snapshot = Some(Snapshot { at, requests: counters.collect() });
    }

    /// What was lost until the last [`Self::compare_with`], once all events of that time were taken.
    /// `idle_at` is when the ring buffer was last seen empty. Each request is in one answer.
    pub fn found(&mut self, idle_at: u64) -> Vec<(CounterKey, u64)> {
        let seen = self.latest.max(idle_at);
        let Some(snapshot) = self.snapshot.take_if(|snapshot| seen > snapshot.at + SLACK) else {
            return Vec::new();
        };
        let rows = self.missing(snapshot.requests.into_iter());
        self.end_snapshot();
        rows
    }

    fn end_snapshot(&mut self) {
        self.snapshot = None;
        for known in self.known.values_mut() {
            known.events += std::mem::take(&mut known.later);
        }
    }

    /// What is not yet told, by the last counters, if `lost` events were lost.
    pub fn rest(
        &mut self,
        lost: u64,
        counters: impl Iterator<Item = (CounterKey, u64)>,
    ) -> Vec<(CounterKey, u64)> {
        self.end_snapshot();
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

/// The key under which the probes have counted the request, even if the evidence changed before its
/// event was sent.
fn key(Decided { request, decision }: &Decided<'_>) -> CounterKey {
    let Request { verdict, outcome, finding, .. } = **request;
    CounterKey { verdict, outcome, finding, ..CounterKey::of(request, decision) }
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
    use super::*;

    /// Takes `count` events, the last at `end_ns`; returns their counter's key.
    fn take(lost: &mut LostRequests, count: u64, end_ns: u64) -> CounterKey {
        let request = Request { end_ns, ..Request::EMPTY };
        let decided = Decided::of(&request);
        for _ in 0..count {
            lost.take(&decided);
        }
        key(&decided)
    }

    #[test]
    fn each_lost_request_is_in_one_row() {
        let mut lost = LostRequests::default();
        let key = take(&mut lost, 10, 1);
        assert!(!lost.wants_counters(0) && lost.wants_counters(5));
        lost.compare_with((5, 2), [(key, 15)].into_iter());
        assert!(!lost.wants_counters(9), "one comparison at a time");
        // Events of that time may be waiting, one of which comes.
        take(&mut lost, 1, 2);
        assert_eq!(lost.found(2 + SLACK), []);
        take(&mut lost, 7, 3 + SLACK);
        assert_eq!(lost.found(0), [(key, 4)]);
        assert_eq!(lost.found(u64::MAX), []);
        // 18 events, and 4 that were told.
        assert_eq!(lost.rest(6, [(key, 24)].into_iter()), [(key, 2)]);
        assert_eq!(lost.rest(6, [(key, 24)].into_iter()), []);
    }

    #[test]
    fn an_empty_ring_buffer_says_that_all_events_were_taken() {
        let mut lost = LostRequests::default();
        let key = take(&mut lost, 1, 1);
        lost.compare_with((1, 5), [(key, 2)].into_iter());
        assert_eq!(lost.found(5 + SLACK), [], "seen empty before an event could arrive");
        assert_eq!(lost.found(6 + SLACK), [(key, 1)]);
    }

    #[test]
    fn without_lost_events_nothing_is_compared() {
        let mut lost = LostRequests::default();
        let key = take(&mut lost, 1, 1);
        // A counter may be ahead of its event.
        assert_eq!(lost.rest(0, [(key, 2)].into_iter()), []);
    }
}
