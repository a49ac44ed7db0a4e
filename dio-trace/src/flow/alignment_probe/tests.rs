//! Tests of alignment probes: which reads become a note, and which stay findings.

use std::cell::RefCell;

use anyhow::Result;
use dio_trace_common::abi::{Counter, CounterKey, OP_WRITE, Request};

use super::{AlignmentProbeRow, LIMIT, MAX_HELD, MAX_RUNS, MAX_STEPS, Sight};
use crate::{
    enrich::Enricher,
    flow::{
        decided::Decided,
        explained::{ExplainedRequest, WatchedEffects},
        filter::Filter,
        pipeline::Pipeline,
        sink::Sink,
        summary::{Summary, Sums},
    },
    model::{Event, Totals},
    testing::{fixtures, golden},
    util::clock::Clock,
};

const FINDINGS: Sight = Sight { sees_all: false, shows_all: false };
const ALL: Sight = Sight { sees_all: true, shows_all: true };
const MS: u64 = 1_000_000;

/// A read at offset 0 into a buffer `off` bytes past a page; `works` or ends with EINVAL.
fn read(len: u64, off: u64, works: bool) -> Request {
    let mut request = Request { pos: 0, len, user: 0x10_0000 + off, ..fixtures::request() };
    if works {
        (request.ret, request.evidence.direct_bytes) = (len as i64, len);
    } else {
        (request.ret, request.evidence.direct_bytes) = (-22, 0);
    }
    request
}

const fn of_process(pid: u32, mut request: Request) -> Request {
    request.task.tgid = pid;
    request
}

/// QEMU on a device with sectors of 4096 bytes.
fn qemu() -> Vec<Request> {
    vec![
        read(1, 0, false),
        read(512, 0, false),
        read(1024, 0, false),
        read(2048, 0, false),
        read(4096, 0, true),
        read(4096, 1, false),
        read(4096, 512, true),
    ]
}

/// Keeps what it is given.
#[derive(Default)]
struct Kept(Vec<ExplainedRequest>);

impl Sink for Kept {
    fn request(&mut self, record: &ExplainedRequest) -> Result<()> {
        self.0.push(record.clone());
        Ok(())
    }
}

/// A run of the tracer: its requests, 1 ms after each other, are counted, and have an event if they
/// are findings or all have one.
struct Traced {
    pipeline: Pipeline,
    sight: Sight,
    sink: RefCell<Kept>,
    counters: Vec<(CounterKey, Counter)>,
    now: u64,
}

impl Traced {
    fn new(sight: Sight) -> Self {
        let watched = WatchedEffects::by(&[], 4096);
        let pipeline = Pipeline::new(Enricher::recorded(), Clock::fixed(0), watched, Filter::OPEN)
            .with_sight(sight);
        Self { pipeline, sight, sink: RefCell::default(), counters: Vec::new(), now: 0 }
    }

    fn take(&mut self, mut request: Request) {
        self.now += MS;
        (request.begin_ns, request.end_ns) = (self.now - 1_000, self.now);
        let Decided { decision, .. } = Decided::of(&request);
        let key = CounterKey::of(&request, &decision);
        let at = self.counters.iter().position(|(known, _)| *known == key);
        let at = at.unwrap_or_else(|| {
            self.counters.push((key, Counter::ZERO));
            self.counters.len() - 1
        });
        self.counters[at].1.count(&request, &decision);
        if decision.finding || self.sight.sees_all {
            let event = Event::Request(Box::new(request));
            self.pipeline.event(&event, self.sink.get_mut()).unwrap();
        }
    }

    /// What the live session does now and then; the time is `later` ns after the last request.
    fn flush(&mut self, later: u64) {
        self.now += later;
        if self.pipeline.expire_probes(self.now, self.sink.get_mut()).unwrap() {
            self.pipeline.decide_probes(&self.counters, self.sink.get_mut()).unwrap();
        }
    }

    fn summary(&mut self) -> Summary {
        let counters = self.counters.iter().map(|(key, counter)| (key, counter));
        self.pipeline.finish_probes(counters, self.sink.get_mut()).unwrap();
        let mut totals = Totals { counters: self.counters.clone(), ..golden::totals() };
        self.pipeline.change_counters(&mut totals.counters);
        self.pipeline.summary(&mut totals, &[], u32::MAX)
    }

    /// Lengths and causes of the requests that the sink got.
    fn shown(&self) -> Vec<(u64, bool)> {
        self.sink.borrow().0.iter().map(|record| (record.len, record.finding)).collect()
    }
}

fn traced(sight: Sight, requests: &[Request]) -> (Traced, Summary) {
    let mut traced = Traced::new(sight);
    requests.iter().for_each(|request| traced.take(*request));
    let summary = traced.summary();
    (traced, summary)
}

/// Requests, shortest, longest and the length that worked.
fn figures(row: &AlignmentProbeRow) -> (u64, u64, u64, Option<u64>) {
    (row.requests, row.shortest, row.longest, row.worked)
}

/// Checks that nothing is a probe: every refusal is a finding that the sink got once, in order.
fn all_are_findings(sight: Sight, requests: &[Request]) {
    let (traced, summary) = traced(sight, requests);
    let refused = requests.iter().filter(|request| request.ret < 0).map(|request| request.len);
    let findings = traced.shown().into_iter().filter(|(_, finding)| *finding);
    let findings: Vec<u64> = findings.map(|(len, _)| len).collect();
    assert_eq!(findings, refused.collect::<Vec<_>>(), "{sight:?}");
    assert_eq!(summary.findings, findings.len() as u64, "{sight:?}");
    assert!(summary.alignment_probes.is_empty(), "{sight:?}: {:?}", summary.alignment_probes);
}

#[test]
fn qemu_s_reads_become_one_note() {
    let (all, summary) = traced(ALL, &qemu());
    let [row] = &summary.alignment_probes[..] else { panic!("{:?}", summary.alignment_probes) };
    assert_eq!(figures(row), (5, 1, 4096, Some(4096)));
    assert_eq!(
        row.why,
        "alignment probe: 5 reads at offset 0 with lengths 1 to 4096 and misaligned buffers were \
         refused with EINVAL, then one of 4096 worked"
    );
    // The sink wants every request: in order, with the note's cause and no remedy.
    let records = &all.sink.borrow().0;
    let lengths: Vec<u64> = records.iter().map(|record| record.len).collect();
    assert_eq!(lengths, qemu().iter().map(|request| request.len).collect::<Vec<_>>());
    for record in records.iter().filter(|record| record.ret < 0) {
        assert_eq!((record.cause, record.finding), (Some("alignment-probe"), false));
        assert!(record.fix.is_none() && record.why.is_some());
    }

    let (findings, summary) = traced(FINDINGS, &qemu());
    assert!(findings.shown().is_empty(), "{:?}", findings.shown());
    let [row] = &summary.alignment_probes[..] else { panic!("{:?}", summary.alignment_probes) };
    assert_eq!(figures(row), (5, 1, 4096, None));
    assert!(row.why.ends_with("EINVAL; other reads of the file worked"), "{}", row.why);
}

#[test]
fn a_probe_s_requests_are_counted_and_are_no_findings() {
    for sight in [ALL, FINDINGS] {
        let (mut traced, summary) = traced(sight, &qemu());
        assert_eq!((summary.findings, summary.requests["refused"], summary.ended()), (0, 5, 7));
        let files: u64 = summary.files.iter().map(|row| row.requests).sum();
        assert_eq!((files, summary.files.iter().map(|row| row.findings).sum::<u64>()), (7, 0));
        let before = Sums::of(&traced.counters);
        traced.pipeline.change_counters(&mut traced.counters);
        let after = Sums::of(&traced.counters);
        assert_eq!((before.findings, after.findings), (5, 0));
        assert_eq!(before.requests, after.requests);
    }
}

#[test]
fn a_live_run_decides_while_it_goes_on() {
    let mut traced = Traced::new(FINDINGS);
    qemu().into_iter().for_each(|request| traced.take(request));
    let held = |traced: &Traced| {
        let mut counters = traced.counters.clone();
        traced.pipeline.change_counters(&mut counters);
        let sums = Sums::of(&counters);
        (sums.findings, sums.requests["refused"])
    };
    assert_eq!(held(&traced), (0, 0), "held back, so not counted yet");
    traced.flush(LIMIT);
    assert_eq!(held(&traced), (0, 5));
    // A read that is refused, and no probe: it is shown after a while.
    traced.take(read(512, 0, false));
    traced.flush(LIMIT / 2);
    assert!(traced.shown().is_empty());
    traced.flush(LIMIT);
    assert_eq!((traced.shown(), held(&traced)), (vec![(512, true)], (1, 6)));
}

#[test]
fn each_opening_of_the_image_is_in_the_same_note() {
    let twice = [qemu(), qemu()].concat();
    for sight in [ALL, FINDINGS] {
        let (_, summary) = traced(sight, &twice);
        assert_eq!((summary.findings, summary.alignment_probes.len()), (0, 1), "{sight:?}");
        assert_eq!(summary.alignment_probes[0].requests, 10);
    }
}

#[test]
fn qemu_on_xfs_tries_only_buffers() {
    let opened = [read(4096, 1, false), read(4096, 512, true)];
    for sight in [ALL, FINDINGS] {
        let (_, summary) = traced(sight, &[opened, opened, opened].concat());
        assert_eq!((summary.findings, summary.alignment_probes[0].requests), (0, 3), "{sight:?}");
    }
}

#[test]
fn one_length_is_a_probe_if_the_next_is_seen_to_work() {
    let reads = [read(512, 0, false), read(4096, 0, true)];
    let (_, summary) = traced(ALL, &reads);
    assert_eq!(figures(&summary.alignment_probes[0]), (1, 512, 512, Some(4096)));
    // The counters do not say in which order, or where, the other read was.
    all_are_findings(FINDINGS, &reads);
}

#[test]
fn what_does_not_fit_stays_a_finding() {
    let worked = read(4096, 0, true);
    let elsewhere = Request { pos: 4096, ..read(512, 0, false) };
    let misaligned = Request { pos: 100, ..read(4096, 0, false) };
    let write = Request { op: OP_WRITE, ..read(2048, 0, false) };
    for requests in [
        vec![read(1000, 0, false), worked],
        vec![read(512, 0, false)],
        vec![read(1, 0, false), read(512, 0, false)], // and nothing that works
        vec![read(512, 0, false), read(512, 0, false), worked],
        vec![read(4096, 16, false), worked],
        vec![read(4096, 1, false), read(4096, 2, false), worked],
        vec![read(256, 1, false), worked],
        vec![read(131_072, 0, false), read(1 << 18, 0, true)],
        vec![read(1, 0, false), read(512, 0, false), misaligned, worked],
        vec![read(1, 0, false), read(512, 0, false), elsewhere, worked],
        vec![read(1, 0, false), read(512, 0, false), write, worked],
        vec![write, worked],
    ] {
        all_are_findings(ALL, &requests);
        all_are_findings(FINDINGS, &requests);
    }
    // Where all is seen, no step is made twice, and the read that works must be at offset 0 and continue the series.
    let at = Request { pos: 4096, ..worked };
    all_are_findings(ALL, &[read(1, 0, false), read(1, 0, false), worked]);
    for next in [at, read(4096, 512, true), read(256, 0, true)] {
        all_are_findings(ALL, &[read(1, 0, false), read(512, 0, false), next, worked]);
    }
}

#[test]
fn processes_do_not_disturb_each_other() {
    let both =
        qemu().into_iter().flat_map(|request| [of_process(1, request), of_process(2, request)]);
    let misaligned = of_process(3, Request { pos: 100, ..read(4096, 0, false) });
    let requests: Vec<Request> = both.flat_map(|request| [request, misaligned]).collect();
    for sight in [ALL, FINDINGS] {
        let (_, summary) = traced(sight, &requests);
        assert_eq!(summary.findings, 14, "{sight:?}");
        let pids: Vec<u32> = summary.alignment_probes.iter().map(|row| row.user.pid).collect();
        assert_eq!((pids.len(), pids.contains(&1), pids.contains(&2)), (2, true, true));
    }
}

#[test]
fn the_counters_must_have_a_read_for_each_probe() {
    let mut requests = vec![read(4096, 0, true)];
    requests.extend((0..3).map(|_| read(1, 0, false)));
    let (traced, summary) = traced(FINDINGS, &requests);
    assert_eq!((summary.findings, summary.alignment_probes[0].requests), (2, 1));
    assert_eq!(traced.shown(), [(1, true), (1, true)]);
}

#[test]
fn a_read_that_worked_serves_one_probe_however_often_the_counters_are_asked() {
    let mut traced = Traced::new(FINDINGS);
    traced.take(read(4096, 0, true));
    for _ in 0..3 {
        traced.take(read(1, 0, false));
        traced.flush(5_000 * MS);
    }
    assert_eq!(traced.shown(), [(1, true), (1, true)]);
    // Another one that works serves another probe.
    traced.take(read(4096, 0, true));
    traced.take(read(1, 0, false));
    traced.flush(5_000 * MS);
    let summary = traced.summary();
    assert_eq!((summary.findings, summary.alignment_probes[0].requests), (2, 2));
}

#[test]
fn taking_notes_out_of_many_counters_takes_a_pass() {
    let mut traced = Traced::new(FINDINGS);
    for pid in 1..=1_000 {
        traced.take(of_process(pid, read(1, 0, false)));
        traced.take(of_process(pid, read(4096, 0, true)));
        traced.flush(5_000 * MS);
    }
    let (key, counter) = traced.counters[0];
    // Others with the same key but their errno, before and after it: the exact one is taken.
    traced.counters.insert(0, (CounterKey { errno: 95, ..key }, counter));
    let other = |n: u32| (CounterKey { tgid: 10_000 + n, ..key }, counter);
    traced.counters.extend((0..100_000).map(other));
    let before = Sums::of(&traced.counters);
    let began = std::time::Instant::now();
    traced.pipeline.change_counters(&mut traced.counters);
    assert!(began.elapsed().as_secs() < 5);
    let after = Sums::of(&traced.counters);
    assert_eq!((before.findings, before.requests), (after.findings + 1_000, after.requests));
    assert!(traced.counters.iter().any(|(key, _)| key.errno == 95 && key.finding != 0));
}

#[test]
fn a_filter_by_verdict_does_not_hide_the_read_that_worked() {
    let mut all = Traced::new(ALL);
    all.pipeline.filter.verdicts = vec![dio_trace_common::verdict::Verdict::Refused];
    qemu().into_iter().for_each(|request| all.take(request));
    let summary = all.summary();
    assert_eq!((summary.findings, summary.ended()), (0, 5));
    assert_eq!(summary.alignment_probes[0].requests, 5);
}

#[test]
fn a_filter_by_cause_takes_what_the_requests_turn_out_to_be() {
    let misaligned = of_process(3, Request { pos: 100, ..read(4096, 0, false) });
    let requests = [qemu(), vec![misaligned]].concat();
    for sight in [ALL, FINDINGS] {
        for (cause, findings, refused, notes) in
            [("alignment-probe", 0, 5, 1), ("misaligned", 1, 1, 0), ("io-error", 0, 0, 0)]
        {
            let mut traced = Traced::new(sight);
            traced.pipeline.filter.causes = vec![cause];
            requests.iter().for_each(|request| traced.take(*request));
            let summary = traced.summary();
            let figures =
                (summary.findings, summary.requests["refused"], summary.alignment_probes.len());
            assert_eq!(figures, (findings, refused, notes), "{cause} {sight:?}");
            assert_eq!(summary.ended(), refused, "{cause} {sight:?}");
            let shown = if cause == "alignment-probe" && !sight.shows_all { 0 } else { refused };
            assert_eq!(traced.shown().len() as u64, shown, "{cause} {sight:?}");
        }
    }
}

#[test]
fn what_a_filter_by_cause_counts_is_bounded() {
    let mut traced = Traced::new(ALL);
    traced.pipeline.filter.causes = vec!["misaligned"];
    let misaligned = Request { pos: 100, ..read(4096, 0, false) };
    for pid in 1..=16_400 {
        let event = Event::Request(Box::new(of_process(pid, misaligned)));
        traced.pipeline.event(&event, traced.sink.get_mut()).unwrap();
    }
    let summary = traced.summary();
    assert_eq!(summary.findings, 16_384);
    assert!(summary.lost.values().any(|lost| *lost >= 16), "{:?}", summary.lost);
}

#[test]
fn memory_is_bounded_and_nothing_is_lost() {
    // More steps than any probe has.
    let many: Vec<Request> = (0..MAX_STEPS as u64 + 3)
        .map(|n| {
            if n <= 16 {
                read(1 << n, 0, false)
            } else {
                read(65_536, 1 << (n - 8) & 0xe00 | 1, false)
            }
        })
        .collect();
    let (over, summary) = traced(FINDINGS, &many);
    let kept = summary.alignment_probes.iter().map(|row| row.requests).sum::<u64>();
    assert_eq!(over.shown().len() as u64 + kept, many.len() as u64);
    assert_eq!(summary.findings, over.shown().len() as u64);
    // More files than are remembered, and more requests: each is shown or in a note, once.
    for (files, rounds) in [(MAX_RUNS as u64 * 3, 1), (40, MAX_HELD as u64 / 40 * 2)] {
        let mut traced = Traced::new(FINDINGS);
        for round in 0..rounds {
            for ino in 1..=files {
                let mut request = read(1, 0, false);
                (request.file.ino, request.file.inode) = (ino, ino);
                traced.take(request);
                assert!(traced.pipeline.probes_held() <= MAX_HELD);
                if round + 1 == rounds {
                    traced.take(Request { ret: 1, evidence: read(1, 0, true).evidence, ..request });
                }
            }
        }
        let summary = traced.summary();
        let noted: u64 = summary.alignment_probes.iter().map(|row| row.requests).sum();
        assert_eq!(summary.requests["refused"], files * rounds);
        assert_eq!(noted + traced.shown().len() as u64, files * rounds);
        assert_eq!(summary.findings + noted, files * rounds);
    }
}
