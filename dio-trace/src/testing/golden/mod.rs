//! Golden files: the exact outputs for a fixed set of requests.
//!
//! To change them on purpose, run `BLESS=1 cargo test -p dio-trace golden` and review the diff.

use std::{collections::BTreeSet, fs, path::PathBuf, sync::Arc};

use dio_trace_common::{
    abi::{
        API_IO_URING, API_LIBAIO, API_READV, BY_OPEN, BufferedUse, BufferedUseEvent, Counter,
        CounterKey, EVENT_BUFFERED_USE, EVENT_REJECTED_OPEN, FileId, MIXED_CACHED, MIXED_DIRTIED,
        OP_WRITE, RejectedOpen, Request, STATS, Stat, Task, UNASKED, UNASKED_WRITE, UnaskedSum,
        ring, rwf, would_block,
    },
    evidence::seen,
    histogram::Histogram,
    verdict::{Decision, magic},
};
use serde_json::Value;

use crate::{
    cause::{RecentKinds, history::Kernels},
    enrich::Enricher,
    flow::{
        alignment_probe::AlignmentProbeRow,
        answer::{Basis, conclude},
        causes::Causes,
        decided::{Decided, LookedUp},
        explained::{ExplainedRequest, WatchedEffects},
        file_user::FileUser,
        group::{By, Groups, groups},
        lost::LostRow,
        page_cache,
        side_events::{MixedAccess, SideEvents},
        sink::Sink,
        summary::{Scope, Summary},
    },
    model::{AttachMode, Gap, MissingProbe, Totals},
    output::{
        metrics::{Form, Metrics},
        text::{Screen, Style},
        top::{About, Command, Model},
    },
    system::{
        container::Container,
        device::{Device, Layer, LayerKind, LoopLimits},
        file_attrs::{FileAttrs, flag},
        stack::{Frame, Stack},
    },
    testing::fixtures,
    util::clock::{Clock, Shown},
};

const ALL_WATCHED: WatchedEffects =
    WatchedEffects { flushes: true, invalidations: true, additions: true, page_size: 4096 };
/// Wall-clock time of the run in ns since the epoch: 2026-01-02 03:04:05 UTC.
const START: i128 = 1_767_323_045_000_000_000;

/// A loop device that reads its backing file through the page cache.
fn on_loop() -> Layer {
    let kind = LayerKind::Loop {
        file: "/srv/disk.img".to_owned(),
        direct: false,
        limits: LoopLimits::default(),
    };
    Layer { name: "loop0".to_owned(), kind }
}

/// A request that must not wait, of a polling io_uring; a probe saw what it would have waited for.
fn nowait(request: &mut Request) {
    request.ret = -11;
    request.rw_flags = rwf::NOWAIT;
    request.ring = ring::IOPOLL;
    request.would_block = would_block::CACHED;
}

/// One request of each common kind, each on a file of its own.
fn requests() -> Vec<(Request, &'static str, &'static str, &'static str, FileAttrs)> {
    let nothing = FileAttrs::default;
    let change = |n: u64, change: &dyn Fn(&mut Request)| {
        let mut request = fixtures::request();
        request.file.inode = n;
        request.file.ino = n;
        request.begin_ns += n * 1_000_000_000;
        request.end_ns += n * 1_000_000_000;
        change(&mut request);
        request
    };
    let cached = |r: &mut Request| {
        r.evidence.direct_bytes = 0;
        r.evidence.cached_bytes = r.len;
        r.evidence.seen = seen::BUFFERED_READ;
        r.evidence.added_pages = 1;
    };
    vec![
        (change(1, &|_| ()), "/data/table.db", "ext4", "rw", nothing()),
        (
            change(2, &|r| cached(r)),
            "/journal/with/a/rather/long/path/to/the/table.db",
            "ext4",
            "rw,data=journal",
            nothing(),
        ),
        (
            change(3, &|r| {
                cached(r);
                r.api = API_IO_URING;
                r.evidence.attempts = 2;
                r.evidence.seen |= seen::IOMAP_DIO;
            }),
            "/btrfs/table.db",
            "btrfs",
            "rw,compress=zstd:3",
            FileAttrs { flags: Some(flag::COMPRESSED), block: Some(4096), ..nothing() },
        ),
        (
            change(4, &|r| {
                r.ret = 1808;
                r.size_begin = 10_000;
                r.size_end = 10_000;
            }),
            "/data/wal.log",
            "xfs",
            "rw",
            nothing(),
        ),
        (
            change(5, &|r| {
                r.ret = -22;
                r.pos = 100;
                r.user = 0x1004;
            }),
            "/data/odd.db",
            "xfs",
            "rw",
            FileAttrs { dio_align: Some((512, 512)), ..nothing() },
        ),
        (
            change(6, &|r| {
                r.magic = magic::TMPFS;
                cached(r);
                r.api = API_READV;
            }),
            "/dev/shm/x",
            "tmpfs",
            "rw",
            nothing(),
        ),
        (
            change(7, &|r| {
                r.op = OP_WRITE;
                r.api = API_LIBAIO;
                r.evidence.flushed_pages = 3;
                r.evidence.invalidated_pages = 2;
            }),
            "/data/mixed.db",
            "ext4",
            "rw",
            nothing(),
        ),
        (change(8, &nowait), "/data/nowait.db", "ext4", "rw", nothing()),
        (change(9, &|r| r.ret = -5), "/data/evil\\x1b[2J name.db", "xfs", "rw", nothing()),
        (
            change(10, &|_| ()),
            "/images/table.db",
            "ext4",
            "rw",
            FileAttrs {
                device: Device { layers: vec![on_loop()], ..Device::default() },
                ..nothing()
            },
        ),
    ]
}

fn enricher() -> Enricher {
    let mut enricher = Enricher::recorded();
    for (request, path, fs, options, facts) in requests() {
        enricher.know(request.file, path, fs, options, facts);
    }
    enricher
}

fn records() -> Vec<ExplainedRequest> {
    let mut enricher = enricher();
    let clock = Clock::fixed(START);
    let mut records: Vec<ExplainedRequest> = requests()
        .iter()
        .map(|(request, ..)| {
            ExplainedRequest::new(
                &Decided::of(request),
                LookedUp::default(),
                &mut enricher,
                &mut RecentKinds::default(),
                &clock,
                ALL_WATCHED,
            )
        })
        .collect();
    records[1].stack = Some(Arc::new(stack()));
    let Container { name, pod, namespace, .. } = container();
    let shared = |text: Option<String>| text.map(Arc::from);
    (records[1].container, records[1].pod) = (shared(name), shared(pod));
    (records[1].namespace, records[1].volume) = (shared(namespace), Some("pvc-17".into()));
    records
}

/// The container of the process 42.
fn container() -> Container {
    let text = |text: &str| Some(text.to_owned());
    Container {
        cgroup: "/kubepods.slice/kubepods-pod1.slice/cri-containerd-3f4a.scope".to_owned(),
        id: text("3f4a"),
        name: text("postgres"),
        pod: text("db-0"),
        namespace: text("prod"),
    }
}

/// A stack with a symbol too long for any screen, and a frame without a symbol.
fn stack() -> Stack {
    let frame = |symbol: &str, module: &str, address| Frame {
        symbol: (!symbol.is_empty()).then(|| symbol.to_owned()),
        offset: 0x1f,
        module: Some(module.to_owned()),
        address,
    };
    let long = "<storage::pages::Pages<storage::disk::Direct> as storage::Reader>::read_page_at";
    let frames = vec![
        frame("pread64", "/usr/lib/x86_64-linux-gnu/libc.so.6", 0x7f00_0010_1234),
        frame(long, "/usr/bin/postgres", 0x5500_0000_1000),
        frame("", "/usr/bin/postgres", 0x5500_0000_2000),
    ];
    Stack { id: 1, frames }
}

fn counter(request: &Request, decision: &Decision) -> (CounterKey, Counter) {
    let key = CounterKey::of(request, decision);
    let mut latency = Histogram::EMPTY;
    latency.count(100_000);
    let value = Counter {
        requests: 1,
        bytes: request.ret.max(0) as u64,
        direct_bytes: decision.direct_bytes,
        cached_bytes: decision.cached_bytes,
        latency_ns: 80_000,
        latency,
    };
    (key, value)
}

/// The file of the first request.
const FILE: FileId = FileId { inode: 1, ino: 1, dev: 8 << 20 | 1, generation: 0 };

/// A process that uses the first file through the page cache.
const fn buffered_use(how: u32) -> BufferedUse {
    BufferedUse { file: FILE, tgid: 77, how }
}

fn mixing() -> BufferedUseEvent {
    BufferedUseEvent {
        kind: EVENT_BUFFERED_USE,
        direct_user: 42,
        time_ns: 1_000,
        buffered_use: buffered_use(MIXED_DIRTIED),
        task: Task { tid: 77, tgid: 77, comm: *b"logger\0\0\0\0\0\0\0\0\0\0" },
    }
}

const fn rejected_open() -> RejectedOpen {
    RejectedOpen {
        kind: EVENT_REJECTED_OPEN,
        by: BY_OPEN,
        proven: 1,
        time_ns: 1_000,
        file: FILE,
        task: Task { tid: 42, tgid: 42, comm: *b"postgres\0\0\0\0\0\0\0\0" },
    }
}

pub(crate) fn totals() -> Totals {
    let counters: Vec<_> = requests()
        .iter()
        .map(|(request, ..)| counter(request, &Decided::of(request).decision))
        .collect();
    let mut stats = [0; STATS];
    stats[Stat::Begun as usize] = 13;
    stats[Stat::Ended as usize] = 10;
    stats[Stat::Unmatched as usize] = 1;
    stats[Stat::LostEvent as usize] = 4;
    Totals {
        kernel: "6.12.117".to_owned(),
        attach: AttachMode::Fentry,
        attached: vec!["vfs_read".to_owned(), "filemap_read".to_owned()],
        missing: vec![MissingProbe {
            gap: Gap::Missing,
            probe: "io_uring_complete".to_owned(),
            why: "not in this kernel; io_uring requests may be missed".to_owned(),
        }],
        dark: Vec::new(),
        stats,
        skipped: vec![("fe_vfs_read".to_owned(), 2)],
        counters,
        buffered_uses: vec![(buffered_use(MIXED_CACHED), 3), (buffered_use(MIXED_DIRTIED), 2)],
        unasked: vec![
            (buffered_use(UNASKED), UnaskedSum { calls: 2, bytes: 8192 }),
            (buffered_use(UNASKED | UNASKED_WRITE), UnaskedSum { calls: 1, bytes: 4096 }),
        ],
    }
}

/// QEMU's probe of an image. Its requests are not among the [`totals`].
fn alignment_probe() -> AlignmentProbeRow {
    AlignmentProbeRow {
        user: FileUser {
            pid: 99,
            comm: "qemu-img".into(),
            path: "/images/disk.img".into(),
            dev: "8:1".into(),
            ino: 11,
            fs: "xfs".into(),
        },
        requests: 4,
        shortest: 1,
        longest: 2048,
        worked: Some(4096),
        cause: "alignment-probe",
        why:
            "alignment probe: 4 reads at offset 0 with lengths 1 to 2048 were refused with EINVAL, \
              then one of 4096 worked"
                .to_owned(),
    }
}

fn summary() -> Summary {
    let mut enricher = enricher();
    let mut side = SideEvents::default();
    for _ in 0..2 {
        side.rejected_open(&rejected_open(), &mut enricher, &Clock::fixed(START));
    }
    enricher.process(77, Some((77, &mixing().task.comm)));
    let scope = Scope { text: "process 42 and 2 descendants".to_owned(), children_left_out: 0 };
    let alignment_probes = vec![alignment_probe()];
    let mut summary =
        Summary { scope, alignment_probes, ..Summary::new(&totals(), &side, &mut enricher) };
    let mut causes = Causes::default();
    records().iter().for_each(|record| causes.count(record));
    let rows = groups(&totals().counters, By::File, &mut enricher);
    summary.groups = Some(Groups { by: By::File, asked: false, rows });
    conclude(&mut summary, &causes, &Basis { lasted_ns: Some(4_000_000_000), ..Basis::LIVE });
    summary
}

/// The totals, with the names of all processes in them, for other tests.
pub(crate) fn named() -> (Totals, Enricher) {
    let mut enricher = enricher();
    enricher.process(42, Some((42, b"postgres\0\0\0\0\0\0\0\0")));
    enricher.process(77, Some((77, &mixing().task.comm)));
    enricher.contain(42, container());
    (totals(), enricher)
}

/// The records and the summary, for other tests.
pub(crate) fn run() -> (Vec<ExplainedRequest>, Summary) {
    (records(), summary())
}

/// The live screen after two intervals, for other tests.
pub(crate) fn top_model() -> Model {
    let about = About {
        subject: "the whole system".to_owned(),
        interval: 1.0,
        probes: "2 attached by fentry, kernel 6.12.117".to_owned(),
        missing: Vec::new(),
        shown: Shown::recorded(None, false),
    };
    let mut enricher = enricher();
    let mut totals = totals();
    enricher.process(42, Some((42, b"postgres\0\0\0\0\0\0\0\0")));
    let mut model = Model::new(about, By::Process);
    for record in records() {
        model.record(&record);
    }
    let clock = Clock::fixed(START);
    model.mixed_access(&MixedAccess::new(&mixing(), &mut enricher, &clock));
    for times in 1..=2 {
        for (_, counter) in &mut totals.counters {
            counter.merge(&Counter { requests: 100 * times, ..*counter });
        }
        model.poll(&totals, 1.0, &mut enricher);
    }
    model
}

/// Compares with a committed file; with BLESS set, writes it first.
pub(crate) fn compare(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/testing/golden").join(name);
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == text, "{} differs; is now:\n{text}", path.display());
}

/// The run as JSON lines.
pub(crate) fn lines() -> Vec<String> {
    let mut lines: Vec<String> =
        records().iter().map(|record| serde_json::to_string(record).unwrap()).collect();
    lines.push(serde_json::to_string(&lost_requests()).unwrap());
    lines.push(serde_json::to_string(&summary()).unwrap());
    lines
}

#[test]
fn golden_json() {
    compare("all.jsonl", &(lines().join("\n") + "\n"));
}

fn screen(all: bool) -> String {
    screen_of(80, all)
}

fn screen_of(width: usize, all: bool) -> String {
    let mut out = Vec::new();
    let style = Style { width, colour: false, cut: true, all, verbose: false };
    let mut screen = Screen::new(&mut out, style, Shown::recorded(None, false));
    for record in records() {
        screen.request(&record).unwrap();
    }
    let clock = Clock::fixed(START);
    let mut enricher = enricher();
    let row = SideEvents::default().rejected_open(&rejected_open(), &mut enricher, &clock).cloned();
    screen.rejected_open(&row.unwrap()).unwrap();
    screen.mixed_access(&MixedAccess::new(&mixing(), &mut enricher, &clock)).unwrap();
    screen.summary(&summary()).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_title_and_a_thread_s_name_have_a_line_of_their_own() {
    let mut record = records().swap_remove(1);
    record.cmdline = Some(format!("postgres: {}", "x".repeat(54)).into());
    record.thread = Some("a name of a thread".into());
    let mut out = Vec::new();
    let style = Style { width: 80, colour: false, cut: true, all: false, verbose: false };
    let mut screen = Screen::new(&mut out, style, Shown::ASKED);
    (0..2).for_each(|_| screen.request(&record).unwrap());
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.matches("  by:  postgres: xxx").count(), 1, "{text}");
    let words: Vec<&str> = text.split_whitespace().collect();
    assert!(words.join(" ").contains("x, thread a name of a thread"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn golden_screens_fit_80_columns() {
    for (name, all) in [("findings.txt", false), ("every-request.txt", true)] {
        let text = screen(all);
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{name}: {line}");
            assert!(!line.chars().any(char::is_control), "{name}: {line:?}");
        }
        compare(name, &text);
    }
}

#[test]
fn a_narrow_screen_keeps_paths_in_one_piece() {
    let text = screen_of(60, false);
    let lines: Vec<&str> = text.lines().collect();
    for name in ["/data/wal.log", "/data/odd.db", "/btrfs/table.db"] {
        assert!(lines.contains(&format!("  {name}").as_str()), "{name}: {text}");
    }
    for line in lines {
        // A symbol of a stack and a word of a remedy may be longer.
        assert!(line.chars().count() <= 61, "{line}");
    }
}

#[test]
fn golden_live_screens_fit_80x24() {
    let mut model = top_model();
    let mut pages = Vec::new();
    for commands in [&[][..], &[Command::By(0), Command::Enter], &[Command::Help]] {
        for command in commands {
            model.obey(*command);
        }
        let lines = crate::output::top::drawn_top(&model, 80, 24);
        pages.push(lines.join("\n"));
    }
    let text = pages.join(&format!("\n{}\n", "=".repeat(80))) + "\n";
    compare("top.txt", &text);
}

#[test]
fn golden_metrics_are_documented() {
    let (totals, mut enricher) = named();
    let mut metrics = Metrics::new(Vec::new(), vec![("version", "0.1.0".to_owned())]);
    records().iter().for_each(|record| metrics.count(record));
    let text = metrics.text(Form::OpenMetrics, &totals, &mut enricher).unwrap();
    compare("metrics.txt", &text);
    let older = metrics.text(Form::Prometheus, &totals, &mut enricher).unwrap();
    assert!(older.contains("# TYPE dio_trace_requests_total counter"), "{older}");
    let of = |word: &str| -> BTreeSet<String> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(word));
        lines.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    };
    let page = include_str!("../../../../docs/metrics.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `dio_trace_")?.split_once('`'));
    let documented: BTreeSet<String> =
        rows.map(|(name, _)| format!("dio_trace_{}", name.trim_end_matches("_total"))).collect();
    assert_eq!(documented, of("# TYPE "), "docs/metrics.md");
}

/// The names in the first column of the table in the section of docs/json.md that `heading` starts.
fn documented(heading: &str) -> BTreeSet<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/json.md");
    let text = fs::read_to_string(path).unwrap();
    let section = text.split(heading).nth(1).unwrap_or_else(|| panic!("no `{heading}`"));
    let rows = section.lines().skip_while(|line| !line.starts_with("|---"));
    rows.skip(1)
        .take_while(|line| line.starts_with('|'))
        .flat_map(|line| {
            let cell = line.split('|').nth(1).unwrap_or_default();
            cell.split(',').map(|word| word.trim().trim_matches('`').to_owned()).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn golden_causes_are_documented() {
    compare("../../../../docs/causes.md", &crate::output::text::cause_document());
}

#[test]
fn golden_kernels_are_documented() {
    compare("../../../../docs/kernels.md", &crate::output::text::kernel_document());
}

/// A row of requests whose own lines were lost.
fn lost_requests() -> LostRow {
    let (totals, mut enricher) = named();
    LostRow::new((totals.counters[0].0, 12), Clock::fixed(START).wall(0), &mut enricher)
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn every_field_is_documented_and_every_documented_field_is_there() {
    let record = serde_json::to_value(&records()[1]).unwrap();
    let summary = serde_json::to_value(summary()).unwrap();
    assert_eq!(documented("\n## request\n"), keys(&record));
    assert_eq!(documented("\n`effects`:\n"), keys(&record["effects"]));
    let stack = &record["stack"];
    assert_eq!(documented("\n`stack`:\n"), keys(stack));
    assert_eq!(documented("\nEach of `frames`:\n"), keys(&stack["frames"][0]));
    assert_eq!(
        documented("\n## lost_requests\n"),
        keys(&serde_json::to_value(lost_requests()).unwrap())
    );
    let cache = serde_json::to_value(page_cache::tests::report()).unwrap();
    let file = &cache["files"][0];
    assert_eq!(documented("\n## page_cache\n"), keys(&cache));
    assert_eq!(documented("\nEach of `files` of a page cache:\n"), keys(file));
    assert_eq!(documented("\nEach of `uses`:\n"), keys(&file["uses"][0]));
    assert_eq!(documented("\n## summary\n"), keys(&summary));
    assert_eq!(documented("\nEach of `files`:\n"), keys(&summary["files"][0]));
    assert_eq!(documented("\nEach of `causes`."), keys(&summary["causes"][0]));
    assert_eq!(documented("\nEach of `refusals`:\n"), keys(&summary["refusals"][0]));
    assert_eq!(documented("\nEach of `mixed`:\n"), keys(&summary["mixed"][0]));
    assert_eq!(documented("\nEach of `not_asked`, a process"), keys(&summary["not_asked"][0]));
    let probe = &summary["alignment_probes"][0];
    assert_eq!(documented("\nEach of `alignment_probes`"), keys(probe));
    let kernels = Kernels::new("7.3", None, "5.10".parse().unwrap()).unwrap();
    let mut check = crate::check::Checker::new(false)
        .comparing(Some(kernels.clone()))
        .check(&std::env::temp_dir())
        .unwrap();
    check.kernel_changes = Some(kernels.compare(|_| true));
    let check = serde_json::to_value(check).unwrap();
    assert_eq!(documented("\n## check\n"), keys(&check));
    assert_eq!(documented("\nEach of `kernel_changes`:\n"), keys(&check["kernel_changes"][0]));
    assert_eq!(documented("\nAn answer:\n"), keys(&check["read"]));
    let doctor = crate::doctor::Report {
        v: 1,
        kind: "doctor",
        works: true,
        kernel: String::new(),
        lines: Vec::new(),
        probes: Vec::new(),
    };
    assert_eq!(documented("\n## doctor\n"), keys(&serde_json::to_value(doctor).unwrap()));
    let gate = crate::gate::Gate::new(vec!["refused".parse().unwrap(), "mixed".parse().unwrap()]);
    let gate = serde_json::to_value(gate.judge(&run().1, "fio", Some(0), "")).unwrap();
    assert_eq!(documented("\n## gate\n"), keys(&gate));
    assert_eq!(documented("\nEach of `rules`:\n"), keys(&gate["rules"][0]));
    assert_eq!(documented("\nEach of `offenders`:\n"), keys(&gate["offenders"][0]));
}
