//! Tests that recorded requests are reported: from one file, from several files, and from memory.

use std::{fs::File, os::unix::fs::PermissionsExt as _, path::Path};

use dio_trace_common::{
    abi::{FileId, STATS, Task},
    histogram::Histogram,
};

use crate::{
    flow::{
        explained::ExplainedRequest,
        sink::{Discard, Sink},
    },
    model::AttachMode,
    recording::{
        format::{Item, Reader, VERSION},
        recorder::*,
        replay::{Recording, Replay, Selection},
    },
    system::symbols::Stacks,
    testing::fixtures,
};

pub(super) fn options(path: PathBuf) -> Options {
    Options { path, force: false, sample: 0, max_size: None, keep: Keep::Whole }
}

pub(super) fn totals(requests: u64) -> Totals {
    let request = fixtures::request();
    let key = CounterKey::of(&request, &Decided::of(&request).decision);
    let mut latency = Histogram::EMPTY;
    latency.0[16] = requests as u32;
    let counter = Counter {
        requests,
        bytes: requests * 4096,
        direct_bytes: requests * 4096,
        cached_bytes: 0,
        latency_ns: requests * 80_000,
        latency,
    };
    let mut stats = [0; STATS];
    stats[Stat::Begun as usize] = requests + 2;
    stats[Stat::Ended as usize] = requests;
    Totals {
        kernel: "6.12".to_owned(),
        attach: AttachMode::Kprobe,
        attached: vec!["do_writepages".to_owned()],
        missing: Vec::new(),
        dark: Vec::new(),
        stats,
        skipped: vec![("fe_vfs_read".to_owned(), 3)],
        counters: vec![(key, counter)],
        buffered_uses: Vec::new(),
        unasked: Vec::new(),
    }
}

pub(super) fn replay(path: &Path, sink: &mut dyn Sink) -> Replay {
    Recording::open(File::open(path).unwrap()).unwrap().replay(Selection::ALL, sink).unwrap()
}

fn read(path: &Path) -> Replay {
    replay(path, &mut Discard)
}

fn record(options: &Options, requests: u64) -> Done {
    let mut enricher = Enricher::recorded();
    let header = Header { attach: "kprobe".to_owned(), ..Header::default() };
    let mut recorder = Recorder::start(options, &header).unwrap();
    for n in 0..requests {
        let request = Request { end_ns: 81_000 + n, ..fixtures::request() };
        recorder.take(Event::Request(Box::new(request)), &mut enricher);
    }
    recorder.totals(&totals(requests / 2), &mut enricher);
    recorder.finish(&totals(requests), &mut enricher)
}

#[test]
fn what_was_recorded_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path().join("r.dio"));
    let done = record(&options, 10_000);
    assert_eq!((done.requests + done.dropped, &done.stopped), (10_000, &None));
    let about = std::fs::metadata(&options.path).unwrap();
    assert_eq!((about.permissions().mode() & 0o777, about.len()), (0o600, done.bytes));
    let replayed = read(&options.path);
    let summary = &replayed.summary;
    assert_eq!((replayed.recorded, summary.ended()), (done.requests, 10_000));
    assert_eq!((summary.in_flight, summary.attach), (2, "kprobe"));
    assert_eq!(summary.skipped_runs["fe_vfs_read"], 3);
    assert_eq!(summary.files[0].comm.as_ref(), "postgres");
}

#[test]
fn samples_and_limits() {
    let folder = tempfile::tempdir().unwrap();
    let sampled = Options { sample: 100, ..options(folder.path().join("s.dio")) };
    assert_eq!(record(&sampled, 10_000).requests, 100);
    let limited = Options { max_size: Some(1), ..options(folder.path().join("m.dio")) };
    let mut recorder = Recorder::start(&limited, &Header::default()).unwrap();
    let began = Instant::now();
    while recorder.tick(&mut Enricher::recorded()).is_none()
        && began.elapsed() < Duration::from_secs(10)
    {
        thread::sleep(Duration::from_millis(20));
    }
    let done = recorder.finish(&totals(7), &mut Enricher::recorded());
    assert!(done.stopped.unwrap().contains("--max-size"));
    assert_eq!(read(&limited.path).summary.ended(), 7);
}

#[test]
fn a_file_that_is_there_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.dio");
    std::fs::write(&path, "mine").unwrap();
    let error = |options: &Options| {
        Recorder::start(options, &Header::default()).err().map(|error| error.to_string())
    };
    let mut options = options(path.clone());
    assert!(error(&options).unwrap().contains("--force"));
    options.force = true;
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let linked = Options { path: link, ..options.clone() };
    assert!(error(&linked).unwrap().contains("symbolic link"));
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    assert_eq!(error(&options), None);
}

/// Waits until the writer thread has handled all messages.
pub(super) fn settle(recorder: &Recorder) {
    let shared = &recorder.shared;
    let taken = || (shared.taken.load(Ordering::Relaxed), shared.segments.load(Ordering::Relaxed));
    let mut before = (u64::MAX, 0, 0);
    loop {
        thread::sleep(Duration::from_millis(40));
        let (requests, segments) = taken();
        let now = (requests, segments, shared.bytes.load(Ordering::Relaxed));
        let settled = segments == recorder.segments || shared.why().is_some();
        if now == before && settled {
            return;
        }
        before = now;
    }
}

/// Records `requests` requests in `steps` steps, and waits for the writer thread after each.
pub(super) fn feed(recorder: &mut Recorder, enricher: &mut Enricher, requests: u64, steps: u64) {
    let each = requests / steps;
    for step in 0..steps {
        for n in step * each..(step + 1) * each {
            let noise = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let pos = (noise >> 40) as i64 * 512;
            let (file, end) = (1 + n % 40, 1_000_000 + n * 1_000);
            let latency = noise % 900_000;
            let request = Request {
                begin_ns: end - latency,
                end_ns: end,
                file: FileId { inode: file, ino: file, ..fixtures::request().file },
                pos,
                ..fixtures::request()
            };
            recorder.take(Event::Request(Box::new(request)), enricher);
        }
        recorder.totals(&totals((step + 1) * each), enricher);
        recorder.tick(enricher);
        settle(recorder);
    }
}

fn parts(done: &Done) -> Vec<Replay> {
    done.files.iter().map(|path| read(path)).collect()
}

#[test]
fn files_that_follow_each_other_are_whole_and_add_up() {
    let folder = tempfile::tempdir().unwrap();
    for keep in [None, Some(2)] {
        let path = folder.path().join(format!("{keep:?}.dio"));
        let rotated =
            Options { keep: Keep::Rotate { size: 10_000, keep }, ..options(path.clone()) };
        let mut enricher = Enricher::recorded();
        let mut recorder = Recorder::start(&rotated, &Header::default()).unwrap();
        feed(&mut recorder, &mut enricher, 20_000, 10);
        let done = recorder.finish(&totals(20_000), &mut enricher);
        assert_eq!((done.requests, &done.stopped), (20_000, &None));
        assert!(!path.exists(), "FILE itself is not made");
        let parts = parts(&done);
        for part in &parts {
            assert!(part.integrity.end.is_some() && part.integrity.damage.is_empty());
            assert!(part.summary.files.iter().all(|row| &*row.comm == "postgres"));
        }
        let ended: u64 = parts.iter().map(|part| part.summary.ended()).sum();
        let recorded: u64 = parts.iter().map(|part| part.recorded).sum();
        match keep {
            None => assert_eq!((parts.len() > 2, ended, recorded), (true, 20_000, 20_000)),
            Some(keep) => assert_eq!((parts.len() as u64, ended), (keep, recorded)),
        }
    }
}

#[test]
fn memory_keeps_the_last_requests_and_all_that_explains_them() {
    const SIZE: u64 = 40_000;
    let folder = tempfile::tempdir().unwrap();
    let keep = Keep::Flight { size: SIZE, on: vec![Verdict::Direct] };
    let flight = Options { keep, ..options(folder.path().join("f.dio")) };
    let mut enricher = Enricher::recorded();
    let mut recorder = Recorder::start(&flight, &Header::default()).unwrap();
    feed(&mut recorder, &mut enricher, 20_000, 20);
    assert!(!recorder.wants_dump(), "healthy requests are no findings");
    let short = Request { ret: 100, size_end: 8292, size_begin: 8292, ..fixtures::request() };
    recorder.take(Event::Request(Box::new(short)), &mut enricher);
    assert!(recorder.wants_dump());
    recorder.dump(&totals(20_001), &mut enricher, "a finding");
    assert!(!recorder.wants_dump(), "once");
    feed(&mut recorder, &mut enricher, 4_000, 4);
    let done = recorder.finish(&totals(24_001), &mut enricher);
    assert_eq!((done.files.len(), &done.stopped), (2, &None));
    for (part, ended) in parts(&done).iter().zip([20_001, 24_001]) {
        assert!(part.bytes < SIZE + 10_000, "{}", part.bytes);
        assert_eq!((part.integrity.damage.len(), part.summary.ended()), (0, ended));
        assert!((2_000..20_000).contains(&part.recorded), "{}", part.recorded);
        let known = |row: &crate::flow::summary::FileRow| &*row.comm == "postgres" && row.ino != 0;
        assert!(part.summary.files.iter().all(known));
    }
    let first = &parts(&done)[0];
    assert_eq!(
        (first.integrity.end.as_ref().unwrap().why.as_str(), first.summary.files.len()),
        ("a finding", 1)
    );
}

/// Keeps the stacks of findings, folded.
#[derive(Default)]
struct Folded(Vec<(u32, String)>);

impl Sink for Folded {
    fn request(&mut self, record: &ExplainedRequest) -> Result<()> {
        let stack = record.stack.as_ref().map(|stack| (stack.id, stack.folded()));
        self.0.extend(stack);
        Ok(())
    }
}

#[test]
fn stacks_are_emitted_once_and_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path().join("r.dio"));
    // The process does not exist, so only the addresses are known.
    let addresses = |number| if number == 6 { vec![0x10, 0x20] } else { Vec::new() };
    let mut enricher = Enricher::with_stacks(Some(Stacks::new(Box::new(addresses))));
    let header = Header { stacks: true, ..Header::default() };
    let mut recorder = Recorder::start(&options, &header).unwrap();
    for stack in [7, 0, 7, 9] {
        let request = Request {
            stack,
            ret: -22,
            task: Task { tgid: u32::MAX >> 1, ..fixtures::request().task },
            ..fixtures::request()
        };
        recorder.take(Event::Request(Box::new(request)), &mut enricher);
    }
    recorder.finish(&totals(4), &mut enricher);
    let mut seen = Folded::default();
    let replayed = replay(&options.path, &mut seen);
    assert_eq!(replayed.recorded, 4);
    let stack = (1, "[unknown];[unknown]".to_owned());
    assert_eq!(seen.0, [stack.clone(), stack]);
    let mut reader = Reader::open(File::open(&options.path).unwrap()).unwrap();
    assert_eq!(reader.version(), VERSION);
    let mut emitted = 0;
    while let Some(item) = reader.item().unwrap() {
        if let Item::Facts(facts) = item {
            emitted += facts.iter().filter(|fact| matches!(fact, Fact::Stack(_))).count();
        }
    }
    assert_eq!(emitted, 1);
}

#[test]
fn a_disk_that_hangs_does_not_fill_the_memory() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path().join("r.dio"));
    let mut enricher = Enricher::recorded();
    let mut recorder = Recorder::start(&options, &Header::default()).unwrap();
    // A queue without a receiver that reads it.
    let (queue, _waiting) = sync_channel(0);
    recorder.queue = queue;
    recorder.totals(&totals(1), &mut enricher);
    for n in 0..120_000u64 {
        let request = Request {
            file: FileId { inode: n, ino: n, ..fixtures::request().file },
            task: Task { tid: n as u32, ..fixtures::request().task },
            ..fixtures::request()
        };
        recorder.take(Event::Request(Box::new(request)), &mut enricher);
        assert!(recorder.batch.facts.len() <= MAX_WAITING + 3 * BATCH);
    }
    recorder.tick(&mut enricher);
    assert_eq!(recorder.dropped, 120_000);
    // The facts of files with counters are still emitted.
    let counted = |fact: &Fact| matches!(fact, Fact::File(file) if file.file == 1);
    assert!(recorder.batch.facts.iter().any(counted));
    // The bound on waiting requests that docs/trace-format.md states.
    assert!(QUEUE * BATCH * size_of::<Recorded>() <= 72 << 20, "{}", size_of::<Recorded>());
}
