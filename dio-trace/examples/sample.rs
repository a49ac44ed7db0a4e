//! Writes a sample recording: twenty minutes of a realistic database host, the same in each run.
//! The name of one file is an attempt at script injection, which an HTML page must escape.

mod draw;

use std::{collections::HashMap, fs::File, path::Path};

use anyhow::{Result, bail};
use dio_trace::{
    recording::format::{
        BufferedUseFact, CounterFact, End, Fact, FileFact, Header, Recorded, RejectedOpenFact,
        TaskFact, TotalsFact, Writer,
    },
    util::clock::Zone,
};
use dio_trace_common::{
    abi::{
        API_IO_URING, API_LIBAIO, API_READ, BY_OPEN, Counter, CounterKey, MIXED_CACHED,
        MIXED_DIRTIED, OP_WRITE, Request, Stat,
    },
    evidence::{Evidence, seen},
    verdict::{decide, magic},
};
use draw::Draw;
use serde_json::{Value, json};

const SECOND: u64 = 1_000_000_000;
const LASTS: u64 = 1_200 * SECOND;
const HOST: &str = "db-17";
const REQUESTS: u64 = 240_000;
const PROBES: &[&str] = &[
    "vfs_read",
    "vfs_write",
    "rw_verify_area",
    "aio_read",
    "io_read",
    "filemap_read",
    "iomap_dio_rw",
    "__blockdev_direct_IO",
    "do_writepages",
    "invalidate_inode_pages2_range",
    "mm_filemap_add_to_page_cache",
];

/// A latency of about `typical` ns; one in 60 is far longer.
const fn latency(draw: &mut Draw, typical: u64) -> u64 {
    let half = typical / 2;
    let near = half + draw.below(half) + draw.below(half) + draw.below(half);
    if draw.below(60) == 0 { near * (2 + draw.below(30)) } else { near }
}

/// The way in which a kind of request is served or fails.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Direct,
    Cached,
    Misaligned,
    Tail,
    Flushes,
    Memory,
    Broken,
}

/// A kind of request.
struct Kind {
    /// Share of all requests, relative to the sum of all weights.
    weight: u64,
    task: u32,
    file: u64,
    way: Way,
    write: bool,
    api: u8,
    /// Typical latency in ns.
    typical: u64,
    /// The part of the recording in which the kind occurs, in percent of its time.
    span: (u64, u64),
}

const fn kind(weight: u64, task: u32, file: u64, way: Way, typical: u64) -> Kind {
    Kind { weight, task, file, way, write: false, api: API_READ, typical, span: (0, 100) }
}

fn kinds() -> Vec<Kind> {
    let mut kinds = vec![
        Kind { api: API_IO_URING, ..kind(300, 1, 1, Way::Direct, 90_000) },
        Kind { api: API_IO_URING, ..kind(220, 2, 2, Way::Direct, 95_000) },
        Kind { write: true, api: API_IO_URING, ..kind(110, 1, 3, Way::Direct, 40_000) },
        Kind { api: API_LIBAIO, ..kind(90, 3, 4, Way::Cached, 16_000) },
        Kind { api: API_LIBAIO, ..kind(80, 3, 5, Way::Direct, 130_000) },
        Kind { api: API_LIBAIO, write: true, ..kind(70, 4, 6, Way::Direct, 220_000) },
        Kind { span: (30, 46), ..kind(60, 4, 6, Way::Misaligned, 3_000) },
        Kind { span: (55, 80), ..kind(60, 5, 7, Way::Cached, 20_000) },
        Kind { write: true, span: (60, 75), ..kind(24, 1, 1, Way::Flushes, 2_400_000) },
        kind(6, 2, 3, Way::Tail, 70_000),
        kind(16, 6, 8, Way::Memory, 2_000),
        Kind { span: (81, 83), ..kind(4, 5, 9, Way::Broken, 30_000_000) },
        Kind { span: (20, 90), ..kind(3, 6, 10, Way::Cached, 60_000) },
    ];
    kinds.extend((11..=22).map(|file| kind(2, 6, file, Way::Direct, 80_000)));
    kinds
}

/// The files of a vector store: enough for tables that are too long to be shown as a whole.
macro_rules! segments {
    ($($n:literal)*) => {
        [$((concat!("/srv/vectors/segment-", $n, ".idx"), "ext4", "rw", json!({}))),*]
    };
}

fn files() -> Vec<(&'static str, &'static str, &'static str, Value)> {
    let mut files = vec![
        ("/var/lib/postgresql/16/main/base/16384/24576", "ext4", "rw", json!({})),
        ("/var/lib/postgresql/16/main/base/16384/24581", "ext4", "rw", json!({})),
        ("/var/lib/postgresql/16/main/pg_wal/0000000100000007", "ext4", "rw", json!({})),
        (
            "/srv/mysql/shop/orders.ibd",
            "btrfs",
            "rw,compress=zstd:3",
            json!({"flags": 4, "block": 4096}),
        ),
        (
            "/srv/mysql/ib_logfile0",
            "btrfs",
            "rw,compress=zstd:3",
            json!({"flags": 8_388_608, "block": 4096}),
        ),
        ("/srv/images/windows-11.raw", "xfs", "rw", json!({"dio_align": [512, 512]})),
        ("/mnt/journal/ledger.db", "ext4", "rw,data=journal", json!({})),
        ("/dev/shm/scratch", "tmpfs", "rw", json!({})),
        ("/mnt/old-disk/archive.tar", "ext4", "rw", json!({})),
        (
            "/home/eve/</script><script>document.title='owned'</script><img src=x onerror=alert(1)>.db",
            "btrfs",
            "rw,compress=zstd:3",
            json!({"flags": 4, "block": 4096}),
        ),
    ];
    files.extend(segments!("00" "01" "02" "03" "04" "05" "06" "07" "08" "09" "10" "11"));
    files
}

const TASKS: &[(u32, &str)] = &[
    (2101, "postgres"),
    (2188, "postgres"),
    (3307, "mysqld"),
    (4120, "qemu-system-x86"),
    (5009, "ledgerd"),
    (6001, "python3"),
    (7001, "backup-agent"),
];

struct Host {
    draw: Draw,
    /// Files by number.
    facts: HashMap<u64, FileFact>,
    counters: HashMap<CounterKey, Counter>,
}

impl Host {
    fn request(&mut self, kind: &Kind, end: u64) -> Recorded {
        let draw = &mut self.draw;
        let size: i64 = if kind.way == Way::Tail { 10_000 } else { 6 << 30 };
        let len = [4096, 8192, 8192, 16384][draw.below(4) as usize];
        let mut request = Request {
            nr_segs: 1,
            end_ns: end,
            begin_ns: end - latency(draw, kind.typical),
            user: draw.below(16) << 12,
            pos: (draw.below(size as u64 / 4096 - 1) * 4096) as i64,
            len,
            ret: len as i64,
            size_begin: size,
            size_end: size,
            magic: 0xef53,
            op: if kind.write { OP_WRITE } else { 0 },
            api: kind.api,
            evidence: Evidence {
                attempts: 1,
                direct_bytes: len,
                seen: seen::IOMAP_DIO,
                ..Evidence::default()
            },
            ..Request::EMPTY
        };
        shape(&mut request, kind.way, draw);
        self.count(request, kind);
        Recorded { request, file: kind.file, task: kind.task, extents: None, stack: 0 }
    }

    fn count(&mut self, mut request: Request, kind: &Kind) {
        let FileFact { ino, dev, .. } = self.facts[&kind.file];
        (request.file.inode, request.file.ino, request.file.dev) = (kind.file, ino, dev);
        request.task.tgid = TASKS[kind.task as usize - 1].0;
        let decision = decide(&request.facts(), &request.evidence);
        let key = CounterKey::of(&request, &decision);
        let counter = self.counters.entry(key).or_insert(Counter::ZERO);
        counter.count(&request, &decision);
    }
}

fn shape(request: &mut Request, way: Way, draw: &mut Draw) {
    let evidence = &mut request.evidence;
    match way {
        Way::Direct => {}
        Way::Cached | Way::Memory => {
            (evidence.direct_bytes, evidence.cached_bytes) = (0, request.len);
            evidence.seen = seen::BUFFERED_READ;
            evidence.added_pages = 1;
            if way == Way::Memory {
                request.magic = magic::TMPFS;
            }
        }
        Way::Misaligned => {
            (request.ret, evidence.direct_bytes) = (-22, 0);
            request.user += 4;
        }
        Way::Tail => {
            (request.pos, request.len, request.ret) = (8192, 4096, 1808);
            evidence.direct_bytes = 1808;
        }
        Way::Flushes => evidence.flushed_pages = 1 + draw.below(40) as u32,
        Way::Broken => (request.ret, evidence.direct_bytes) = (-5, 0),
    }
}

fn header(host: &str) -> Header {
    Header {
        tool: "dio-trace".to_owned(),
        host: host.to_owned(),
        kernel: "6.12.117+deb12-amd64".to_owned(),
        started: 1_767_323_045 * SECOND,
        clock: (1_767_323_045 * SECOND) as i64,
        zone: Some(Zone { offset: 3_600, name: Some("Europe/Berlin".to_owned()) }),
        all: true,
        attach: "fentry".to_owned(),
        attached: PROBES.iter().map(|probe| (*probe).to_owned()).collect(),
        missing: vec![("f2fs_map_blocks".to_owned(), "f2fs is not loaded".to_owned())],
        ..Header::default()
    }
}

/// Writes the recording. The tests use this function too.
pub(crate) fn write(path: &Path, host_name: &str, requests: u64) -> Result<()> {
    let mut writer = Writer::new(File::create(path)?, &header(host_name))?;
    let mut host = Host { draw: Draw::new(), facts: HashMap::new(), counters: HashMap::new() };
    for (number, (path, fs, options, facts)) in (1..).zip(files()) {
        let info = json!({
            "path": path, "fs": fs, "options": options, "dev": "8:1", "facts": facts, "below": null,
        });
        let info = serde_json::from_value(info)?;
        let fact =
            FileFact { file: number, ino: 1_000 + number, dev: 8 << 20 | 1, generation: 0, info };
        writer.fact(&Fact::File(Box::new(fact.clone())))?;
        host.facts.insert(number, fact);
    }
    for (task, (pid, comm)) in (1..).zip(TASKS) {
        let comm = comm.as_bytes().to_vec();
        writer.fact(&Fact::Task(TaskFact { task, pid: *pid, tid: *pid, comm }))?;
    }
    // Only the default host has a broken disk.
    let healthy = |kind: &Kind| host_name == HOST || kind.way != Way::Broken;
    let kinds: Vec<Kind> = kinds().into_iter().filter(healthy).collect();
    let all: u64 = kinds.iter().map(|kind| kind.weight).sum();
    for n in 0..requests {
        let end = SECOND + n * (LASTS / requests) + host.draw.below(LASTS / requests);
        if n == requests * 6 / 10 {
            for how in [MIXED_CACHED, MIXED_DIRTIED] {
                writer.fact(&Fact::BufferedUse(BufferedUseFact {
                    time: end,
                    file: 1,
                    task: 7,
                    how,
                    direct_user: 0,
                }))?;
            }
            writer.fact(&Fact::RejectedOpen(RejectedOpenFact {
                time: end,
                file: 8,
                task: 6,
                by: BY_OPEN,
                proven: 1,
            }))?;
        }
        let mut drawn = host.draw.below(all);
        let kind = kinds.iter().find(|kind| {
            let here = drawn < kind.weight;
            drawn = drawn.saturating_sub(kind.weight);
            here
        });
        let Some(kind) = kind else { continue };
        let percent = n * 100 / requests;
        // The rate varies: there are fewer requests around 20 % of the time.
        let quiet = percent.abs_diff(20).min(30);
        if (kind.span.0..kind.span.1).contains(&percent) && host.draw.below(40) > 30 - quiet {
            writer.request(&host.request(kind, end))?;
        }
    }
    writer.totals(totals(&host))?;
    writer.end(&End { time: SECOND + LASTS, why: End::DONE.to_owned() })?;
    Ok(())
}

fn totals(host: &Host) -> TotalsFact {
    let mut counters: Vec<CounterFact> = host
        .counters
        .iter()
        .map(|(key, counter)| CounterFact::new(key.file.inode, key, counter))
        .collect();
    counters.sort_by_key(|row| (row.file, row.pid, row.what));
    let ended: u64 = counters.iter().map(|row| row.requests).sum();
    let stat = |(stat, name): &(Stat, &str)| {
        let n = match stat {
            Stat::Begun | Stat::Ended => ended,
            _ => 0,
        };
        ((*name).to_owned(), n)
    };
    TotalsFact {
        time: SECOND + LASTS,
        stats: Stat::ALL.iter().map(stat).collect(),
        counters,
        buffered_uses: vec![(1, 7001, MIXED_CACHED, 9_120), (1, 7001, MIXED_DIRTIED, 411)],
        ..TotalsFact::default()
    }
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match &args[..] {
        [path] => write(Path::new(path), HOST, REQUESTS),
        [path, host] => write(Path::new(path), host, REQUESTS),
        _ => bail!("usage: sample FILE [HOST]"),
    }
}
