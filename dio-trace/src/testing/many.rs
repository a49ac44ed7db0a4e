//! A run of three processes on 2,000 files: what is shown of it stays short, and adds up.

use dio_trace_common::{
    abi::{Counter, CounterKey, Request},
    evidence::seen,
    histogram::Histogram,
    verdict::Verdict,
};

use crate::{
    cause::RecentKinds,
    enrich::Enricher,
    flow::{
        answer::{Basis, conclude},
        causes::Causes,
        decided::{Decided, LookedUp},
        explained::{ExplainedRequest, WatchedEffects},
        group::{By, Groups, groups},
        side_events::SideEvents,
        sink::Sink,
        summary::Summary,
    },
    model::Totals,
    output::text::{Screen, Style},
    system::file_attrs::FileAttrs,
    testing::{fixtures, golden},
    util::clock::{Clock, Shown},
};

const FILES: u64 = 2_000;
const PROCESSES: [(u32, &[u8; 16]); 3] = [
    (42, b"postgres\0\0\0\0\0\0\0\0"),
    (43, b"postgres\0\0\0\0\0\0\0\0"),
    (77, b"backup\0\0\0\0\0\0\0\0\0\0"),
];

/// The file's number, path, file system, options and attributes.
fn file(n: u64) -> (String, &'static str, &'static str, FileAttrs) {
    let odd = FileAttrs { dio_align: Some((512, 512)), ..FileAttrs::default() };
    match n % 4 {
        0 | 1 => (format!("/data/base/16384/{n}"), "ext4", "rw,data=journal", FileAttrs::default()),
        2 => (format!("/srv/odd/{n}.db"), "xfs", "rw", odd),
        _ => (format!("/srv/wal/{n}.log"), "xfs", "rw", FileAttrs::default()),
    }
}

/// A request on the n-th file: a fallback, a misaligned one, or a short one. Its reason has numbers
/// of its own.
fn request(n: u64, (pid, comm): (u32, &[u8; 16])) -> Request {
    let mut r = fixtures::request();
    (r.file.inode, r.file.ino) = (n + 1, n + 1);
    (r.task.tgid, r.task.tid, r.task.comm) = (pid, pid, *comm);
    r.end_ns += n * 1_000_000;
    match n % 4 {
        0 | 1 => {
            r.evidence.direct_bytes = 0;
            r.evidence.cached_bytes = r.len;
            r.evidence.seen = seen::BUFFERED_READ;
        }
        2 => (r.ret, r.pos) = (-22, n as i64 * 512 + 1 + n as i64 % 511),
        _ => {
            r.size_end = 8_192 + 1 + (n % 4_000) as i64;
            (r.size_begin, r.ret) = (r.size_end, 1 + (n % 4_000) as i64);
        }
    }
    r
}

fn requests() -> Vec<Request> {
    (0..FILES).flat_map(|n| PROCESSES.map(|process| request(n, process))).collect()
}

fn totals(requests: &[Request]) -> Totals {
    let counter = |request: &Request| {
        let decision = Decided::of(request).decision;
        let mut counter = Counter { latency: Histogram::EMPTY, ..Counter::ZERO };
        counter.count(request, &decision);
        (CounterKey::of(request, &decision), counter)
    };
    let golden = golden::totals();
    Totals {
        counters: requests.iter().map(counter).collect(),
        stats: [0; _],
        missing: Vec::new(),
        skipped: Vec::new(),
        buffered_uses: Vec::new(),
        unasked: Vec::new(),
        ..golden
    }
}

/// The screen of the run, and its summary.
fn run(verbose: bool) -> (String, Summary) {
    let mut enricher = Enricher::recorded();
    let requests = requests();
    for n in 0..FILES {
        let (path, fs, options, attrs) = file(n);
        enricher.know(request(n, PROCESSES[0]).file, &path, fs, options, attrs);
    }
    let clock = Clock::fixed(1_767_323_045_000_000_000);
    let watched =
        WatchedEffects { flushes: true, invalidations: true, additions: true, page_size: 4096 };
    let style = Style { width: 80, colour: false, cut: true, all: false, verbose };
    let mut screen = Screen::new(Vec::new(), style, Shown::ASKED);
    let mut causes = Causes::default();
    let mut kinds = RecentKinds::default();
    for request in &requests {
        let decided = Decided::of(request);
        let record = ExplainedRequest::new(
            &decided,
            LookedUp::default(),
            &mut enricher,
            &mut kinds,
            &clock,
            watched,
        );
        causes.count(&record);
        screen.request(&record).unwrap();
    }
    let totals = totals(&requests);
    let mut summary = Summary::new(&totals, &SideEvents::default(), &mut enricher);
    conclude(&mut summary, &causes, &Basis { lasted_ns: Some(4_000_000_000), ..Basis::LIVE });
    let rows = groups(&totals.counters, By::File, &mut enricher);
    summary.groups = Some(Groups { by: By::File, asked: false, rows });
    screen.summary(&summary).unwrap();
    (String::from_utf8(screen.get_ref().clone()).unwrap(), summary)
}

#[test]
fn the_screen_of_two_thousand_files_stays_short() {
    let (text, _) = run(false);
    let (lines, closing) = text.split_once("\n\n").unwrap();
    assert!(lines.lines().count() < 60, "{lines}");
    assert!(closing.lines().count() < 60, "{closing}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert_eq!(
        text.matches("  fix: ").count(),
        2 * 3,
        "each once live and once at the end: {text}"
    );
    assert!(text.matches("  why: ").count() <= 40, "{text}");
    assert_eq!(lines.matches("are left out (--verbose has them)").count(), 3, "{lines}");
    let (all, _) = run(true);
    assert!(all.lines().count() > 6_000, "{}", all.lines().count());
}

#[test]
fn its_last_lines_are_the_answer_and_add_up() {
    let (text, summary) = run(false);
    let last: Vec<&str> = text.lines().rev().take(6).collect();
    assert!(last.iter().any(|line| line.starts_with("answer: ")), "{last:#?}");
    let end = "50.0% of the 6,000 reads were not direct: 3,000 fallbacks, because of data-journal \
               (ext4 journals the data of this file), in 1,000 files below /data/base/16384; also \
               1,500 refused, 1,500 short.";
    assert_eq!(summary.answer, end);
    assert_eq!(summary.requests.values().sum::<u64>(), 6_000);
    assert_eq!(summary.requests[Verdict::Fallback.as_str()], 3_000);
    assert_eq!(summary.causes.iter().map(|row| row.requests).sum::<u64>(), summary.findings);
    assert!(text.contains("… 997 more files"), "{text}");
}
