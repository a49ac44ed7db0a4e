//! Tests with hostile recordings: whatever a recording contains, its reader stays below 512 MiB
//! (docs/trace-format.md), exits cleanly and says what it left out. An ordinary large recording is
//! reported in full.

use std::{
    fmt::Write as _,
    fs, io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use dio_trace::recording::format::{Header, Recorded, Writer};
use dio_trace_common::{
    abi::{API_READ, Request},
    evidence::{Evidence, seen},
};

const LIMIT: u64 = 512 << 20;
const FACTS: u8 = 2;
const REQUESTS: u8 = 3;
const TOTALS: u8 = 4;

/// A recording that a test puts together.
struct Made(Vec<u8>);

impl Made {
    fn new() -> Self {
        Self::with(&Header { all: true, stacks: true, ..Header::default() })
    }

    fn with(header: &Header) -> Self {
        let mut out = Vec::new();
        Writer::new(&mut out, header).unwrap();
        Self(out)
    }

    /// Adds a block with valid checksums and any content.
    fn block(&mut self, kind: u8, raw: &[u8]) -> &mut Self {
        let stored = zstd::bulk::compress(raw, 1).unwrap();
        let mut head = b"\xd1oB\n".to_vec();
        head.extend([kind, 1, 0, 0]);
        for number in [raw.len() as u32, stored.len() as u32, crc32fast::hash(&stored)] {
            head.extend(number.to_le_bytes());
        }
        head.extend(crc32fast::hash(&head).to_le_bytes());
        self.0.extend(head);
        self.0.extend(stored);
        self
    }

    /// Adds lines of facts, in blocks of about 1 MiB.
    fn facts(&mut self, lines: impl Iterator<Item = String>) -> &mut Self {
        let mut raw = String::new();
        for line in lines {
            raw.push_str(&line);
            raw.push('\n');
            if raw.len() > 1 << 20 {
                self.block(FACTS, raw.as_bytes());
                raw.clear();
            }
        }
        if !raw.is_empty() {
            self.block(FACTS, raw.as_bytes());
        }
        self
    }

    fn requests(&mut self, requests: impl Iterator<Item = Recorded>) -> &mut Self {
        let mut writer = Writer::bare(&mut self.0);
        requests.for_each(|request| writer.request(&request).unwrap());
        writer.flush().unwrap();
        self
    }

    /// Writes the recording to a file, without an end block: its requests are counted.
    fn save(&mut self, folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, &self.0).unwrap();
        path
    }
}

fn file(number: u64, path: usize) -> String {
    let name = format!("{number:08}");
    let path = "p".repeat(path.saturating_sub(name.len()));
    format!(
        "{{\"fact\":\"file\",\"file\":{number},\"ino\":{number},\"dev\":8388609,\"generation\":0,\
         \"info\":{{\"path\":\"/{path}{name}\",\"fs\":\"ext4\",\"options\":\"rw,relatime\",\
         \"dev\":\"8:1\",\"facts\":{{}},\"below\":null}}}}"
    )
}

fn task(number: u32) -> String {
    format!(
        "{{\"fact\":\"task\",\"task\":{number},\"pid\":{number},\"tid\":{number},\"comm\":[102]}}"
    )
}

fn stack(number: u32, name: usize) -> String {
    let name = "s".repeat(name);
    let mut frames = String::new();
    for n in 0..127 {
        let comma = if n == 0 { "" } else { "," };
        let _ = write!(
            frames,
            "{comma}{{\"symbol\":\"{name}{number}\",\"offset\":0,\"module\":\"{name}\",\"address\":{n}}}"
        );
    }
    format!("{{\"fact\":\"stack\",\"id\":{number},\"frames\":[{frames}]}}")
}

/// A finding, or a healthy request.
fn request(n: u64, file: u64, task: u32, finding: bool) -> Recorded {
    let mut evidence = Evidence { attempts: 1, ..Evidence::default() };
    if finding {
        (evidence.cached_bytes, evidence.seen) = (4096, seen::BUFFERED_READ);
    } else {
        (evidence.direct_bytes, evidence.seen) = (4096, seen::IOMAP_DIO);
    }
    let request = Request {
        nr_segs: 1,
        begin_ns: 1_000 * n,
        end_ns: 1_000 * n + 500,
        len: 4096,
        ret: 4096,
        size_begin: 1 << 40,
        size_end: 1 << 40,
        evidence,
        magic: 0xef53,
        api: API_READ,
        ..Request::EMPTY
    };
    Recorded { request, file, task, extents: None, stack: 0 }
}

/// Runs the program with an address space of [`LIMIT`] bytes.
fn run(words: &[&str], path: &Path, out: Stdio) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dio-trace"));
    command.args(words).arg(path).env("COLUMNS", "100").stdout(out).stderr(Stdio::piped());
    let limit = || {
        let limit = libc::rlimit { rlim_cur: LIMIT, rlim_max: LIMIT };
        // SAFETY: the kernel reads one rlimit.
        match unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec it makes one system call.
    unsafe { command.pre_exec(limit) };
    command.spawn().unwrap().wait_with_output().unwrap()
}

/// Checks that every verb that reads the recording succeeds; returns the text of `report`.
fn all_ways(path: &Path) -> String {
    let page = path.with_extension("html");
    let page = page.to_str().unwrap();
    let ways: &[&[&str]] = &[
        &["inspect"],
        &["report", "--by", "file"],
        &["report", "--by", "stack"],
        &["report", "--json"],
        &["report", "--html", page],
        &["export", "--format", "jsonl"],
        &["export", "--format", "csv"],
        &["export", "--format", "folded"],
        &["export", "--format", "perfetto"],
        &["export", "--format", "parquet"],
    ];
    ways.iter().for_each(|words| succeeds(words, path));
    report(path)
}

fn succeeds(words: &[&str], path: &Path) {
    let out = run(words, path, Stdio::null());
    let error = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{words:?} {path:?}: {:?} {error}", out.status);
}

fn report(path: &Path) -> String {
    let out = run(&["report"], path, Stdio::piped());
    let error = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{path:?}: {:?} {error}", out.status);
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn one_path_of_15_mib_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut made = Made::new();
    // The large path is a block of its own; the other facts are in blocks of the usual size.
    made.block(FACTS, file(1, 15 << 20).as_bytes());
    made.facts([file(2, 900 << 10), file(3, 20)].into_iter().chain((1..=40).map(task)));
    // Each process has a row with each path.
    made.requests((0..120).map(|n| request(n, 1 + n % 3, 1 + (n % 40) as u32, true)));
    let text = all_ways(&made.save(folder.path(), "path.dio"));
    assert!(text.contains("a block of facts is too large"), "{text}");
    assert!(text.contains("1 names or facts larger"), "{text}");
    assert!(text.contains("120 requests") && text.contains("00000003"), "{text}");
}

#[test]
fn repeated_facts_take_no_more_memory() {
    let folder = tempfile::tempdir().unwrap();
    let mut made = Made::new();
    made.facts((0..170_000).map(|n| file(1 + n % 2, 30)));
    made.facts([file(3, 20), task(1)].into_iter());
    made.requests((0..30).map(|n| request(n, 1 + n % 3, 1, true)));
    let text = report(&made.save(folder.path(), "again.dio"));
    assert!(!text.contains("left:"), "{text}");
}

#[test]
fn hostile_lists_and_counts_are_reported_as_damage() {
    let folder = tempfile::tempdir().unwrap();
    let words = vec!["w".to_owned(); 300_000];
    let header = Header {
        all: true,
        scope: dio_trace::recording::format::Scope::Command(words),
        attached: vec!["a".repeat(4_000); 500],
        ..Header::default()
    };
    let mut made = Made::with(&header);
    let zeros = |bytes: usize| "0,".repeat(bytes / 2) + "0";
    // Where serde tells an enum's variants apart by a tag, it reads unknown fields into memory
    // first.
    for _ in 0..3 {
        made.block(
            FACTS,
            format!("{{\"fact\":\"file\",\"x\":[{}]}}", zeros((1 << 20) - 99)).as_bytes(),
        );
        made.block(FACTS, format!("{{\"fact\":\"file\",\"x\":[{}]}}", zeros(15 << 20)).as_bytes());
        made.block(TOTALS, format!("{{\"stats\":[{}]}}", zeros(15 << 20)).as_bytes());
        let pairs = "[\"\",0],".repeat(500_000) + "[\"\",0]";
        let totals = format!(
            "{{\"time\":1,\"stats\":[{pairs}],\"skipped\":[],\"counters\":[],\"mixers\":[],\"dropped\":0}}"
        );
        made.block(TOTALS, totals.as_bytes());
        made.block(REQUESTS, &[0xff, 0xff, 0xff, 0xff, 0x7f, 29]);
        made.block(REQUESTS, &vec![0xff; 16 << 20]);
        made.block(99, &vec![0; 16 << 20]);
    }
    let text = all_ways(&made.save(folder.path(), "lists.dio"));
    assert!(text.contains("bytes at offset") && text.contains("left:"), "{text}");
}

/// A recording with large numbers of everything at once.
#[test]
fn everything_at_once_fits() {
    let folder = tempfile::tempdir().unwrap();
    let mut made = Made::new();
    made.facts((1..30).map(|n| stack(n, 2_000)));
    made.facts((1..1_200).map(|n| file(n, 30 << 10)));
    made.facts((1_200..60_000).map(|n| file(n, 30)));
    made.facts((1..12_000).map(task));
    let refusal = |n: u64| {
        format!(
            "{{\"fact\":\"refusal\",\"time\":1,\"file\":{},\"task\":{n},\"by\":1,\"proven\":1}}",
            n % 2_999
        )
    };
    made.facts((1..12_000).map(refusal));
    let mixer = |n: u64| {
        format!(
            "{{\"fact\":\"mixer\",\"time\":1,\"file\":{n},\"task\":{},\"how\":{}}}",
            n % 999,
            1 + n % 2
        )
    };
    made.facts((1..40_000).map(mixer));
    // Requests of many files and processes, of files without a fact, and with stacks.
    made.requests(
        (0..120_000).map(|n| request(n, 1 + n % 60_000, 1 + (n % 11_999) as u32, n % 9 == 0)),
    );
    made.requests((0..100_000).map(|n| request(n, 1_000_000 + n, 1 + (n % 7) as u32, n % 9 == 0)));
    made.requests(
        (0..60).map(|n| Recorded { stack: 1 + n as u32 % 30, ..request(n, 5_000, 1, true) }),
    );
    for block in 0..6u64 {
        let mut counters = String::new();
        for n in 0..4_096 {
            let comma = if n == 0 { "" } else { "," };
            let file = 1 + block * 4_096 + n;
            let _ = write!(
                counters,
                "{comma}{{\"file\":{file},\"pid\":1,\"what\":[0,1,0,0,0],\"requests\":9,\
                 \"bytes\":[9,9,0],\"latency_ns\":9,\"latency\":[3,[9]]}}"
            );
        }
        let mut mixers = String::new();
        for n in 0..4_096 {
            let comma = if n == 0 { "" } else { "," };
            let _ = write!(mixers, "{comma}[{},{block},1,7]", 1 + n % 1_199);
        }
        made.block(
            TOTALS,
            format!(
                "{{\"time\":1,\"stats\":[],\"skipped\":[],\"counters\":[{counters}],\
                 \"mixers\":[{mixers}],\"dropped\":0}}"
            )
            .as_bytes(),
        );
    }
    let path = made.save(folder.path(), "all.dio");
    let page = folder.path().join("all.html");
    succeeds(&["report", "--html", page.to_str().unwrap()], &path);
    succeeds(&["report", "--by", "file"], &path);
    succeeds(&["export", "--format", "folded"], &path);
    succeeds(&["export", "--format", "parquet"], &path);
    let text = report(&path);
    assert!(text.contains("left:") && text.contains("(others)"), "{text}");
}

/// The number of files that docs/performance-upkeep.md describes, with two requests each.
#[test]
fn an_ordinary_large_recording_is_reported_in_full() {
    const FILES: u64 = 100_000;
    let folder = tempfile::tempdir().unwrap();
    let mut made = Made::with(&Header { all: true, ..Header::default() });
    made.facts((1..=FILES).map(|n| file(n, 70)));
    made.facts((1..=64).map(task));
    made.requests(
        (0..2 * FILES)
            .map(|n| request(n, 1 + n % FILES, 1 + (n % 64) as u32 % 2, n % 100_003 == 0)),
    );
    let path = made.save(folder.path(), "large.dio");
    let text = report(&path);
    assert!(!text.contains("left:"), "{text}");
    succeeds(&["report", "--html", folder.path().join("p.html").to_str().unwrap()], &path);
    let out = run(&["report", "--json", "--by", "file"], &path, Stdio::piped());
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let groups = report["groups"].as_array().unwrap();
    assert_eq!(groups.len() as u64, FILES);
    let sum: u64 = groups.iter().map(|group| group["requests"].as_u64().unwrap()).sum();
    assert_eq!((sum, &report["left_out"]), (2 * FILES, &serde_json::Value::Null));
}

/// A small file that unpacks to a million requests.
#[test]
fn highly_compressed_blocks_take_no_more_memory() {
    let folder = tempfile::tempdir().unwrap();
    let mut made = Made::new();
    let mut block = Made(Vec::new());
    block.requests((0..32_768).map(|_| request(1, 1, 1, false)));
    for _ in 0..30 {
        made.0.extend(&block.0);
    }
    let text = report(&made.save(folder.path(), "packed.dio"));
    assert!(text.contains("983,040 requests") && !text.contains("left:"), "{text}");
}
