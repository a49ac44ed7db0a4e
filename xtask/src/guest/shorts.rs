//! Short counts: everything that makes a direct read return less than it was asked for, and what
//! dio-trace says of it.
use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    memory::Buffer,
    request::{Call, positioned},
    setups::{self, Place},
};
use crate::cmd::{self, say, text};

#[derive(Args, Clone, Debug)]
pub(crate) struct ShortsArgs {
    /// dio-trace
    #[arg(long)]
    tool: PathBuf,
    /// fentry or kprobe: how dio-trace must attach
    #[arg(long)]
    attach: String,
    /// A folder for what dio-trace writes
    #[arg(long)]
    out: PathBuf,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ReaderArgs {
    /// SETUP:PATH
    #[arg(long, required = true)]
    place: Vec<String>,
    /// Where the tally goes
    #[arg(long)]
    tally: PathBuf,
}

const PAGE: usize = 4096;
/// Reads of each race.
const READS: usize = 400;
/// Of the file that is read until the reader is killed.
const LONG: usize = 32 << 20;

/// One read, by the reader's own account.
#[derive(Debug, Deserialize, Serialize)]
struct Read {
    case: String,
    path: PathBuf,
    pid: u32,
    offset: i64,
    len: u64,
    /// None: it was killed meanwhile.
    ret: Option<i64>,
}

pub(super) fn main(args: &ShortsArgs) -> Result<u8> {
    let root = Path::new("/mnt");
    let names =
        ["ext4-512", "xfs-512", "btrfs", "f2fs", "vfat", "bdev-512", "ext4-journal", "err-ext4"];
    let wanted = names.iter().map(|name| Ok((setups::find(name)?, Vec::new())));
    let places = setups::make(wanted.collect::<Result<_>>()?, root)?;
    let places: Vec<Place> = places.into_iter().map(|(place, _)| place).collect();
    journal_data(&root.join("err-ext4"))?;
    let (json, tally) = (args.out.join("shorts.jsonl"), args.out.join("shorts.tally"));
    let me = std::env::current_exe().context("xtask cannot find itself")?;
    let mut command = Command::new(&args.tool);
    command.args(["run", "--all", "--json", "--attach", &args.attach, "-o", text(&json)?, "--"]);
    command.arg(me).args(["guest", "shorts-reader", "--tally", text(&tally)?]);
    for place in &places {
        command.args(["--place", &format!("{}:{}", place.setup.name, text(&place.path)?)]);
    }
    cmd::run(&mut command)?;
    let reads: Vec<Read> = serde_json::from_slice(&fs::read(&tally)?)?;
    let events = fs::read_to_string(&json)?;
    let events: Vec<Value> = events.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    setups::clear(root)?;
    let wrong = judge(&reads, &events);
    wrong.iter().for_each(say);
    Ok(u8::from(!wrong.is_empty()))
}

/// Mounts a file system with a bad sector anew, so that its reads go through the page cache.
fn journal_data(folder: &Path) -> Result<()> {
    let folder = text(folder)?;
    cmd::output(Command::new("umount").arg(folder))?;
    let words = ["-t", "ext4", "-o", "data=journal", "/dev/mapper/err-ext4", folder];
    cmd::output(Command::new("mount").args(words)).map(drop)
}

/// The reader: makes the reads, and writes down what it got.
pub(super) fn reader(args: &ReaderArgs) -> Result<()> {
    let mut reader = Reader::default();
    for place in &args.place {
        let (setup, path) = place.split_once(':').context("--place is SETUP:PATH")?;
        let path = Path::new(path);
        match setup {
            "ext4-512" => {
                reader.races(path)?;
                reader.fault(&path.join("fault"), 64 << 10, 32 << 10)?;
                reader.largest(&path.join("largest"))?;
            }
            "xfs-512" | "btrfs" | "f2fs" => {
                reader.races(path)?;
                reader.fault(&path.join("fault"), 64 << 10, 32 << 10)?;
            }
            "vfat" => reader.faults(&path.join("fault"))?,
            "bdev-512" => reader.faults(path)?,
            "ext4-journal" => reader.killed(&path.join("killed"))?,
            "err-ext4" => reader.bad_sector(path)?,
            _ => bail!("nothing is known of {setup}"),
        }
    }
    fs::write(&args.tally, serde_json::to_vec(&reader.reads)?).context("cannot write the tally")
}

#[derive(Default)]
struct Reader {
    reads: Vec<Read>,
}

impl Reader {
    fn read(&mut self, case: &str, path: &Path, call: &Call) -> i64 {
        let ret = positioned(call);
        self.note(case, path, std::process::id(), call, Some(ret));
        ret
    }

    fn note(&mut self, case: &str, path: &Path, pid: u32, call: &Call, ret: Option<i64>) {
        let (case, path) = (case.to_owned(), path.to_owned());
        let (offset, len) = (call.offset, call.len as u64);
        self.reads.push(Read { case, path, pid, offset, len, ret });
    }

    fn races(&mut self, folder: &Path) -> Result<()> {
        self.race("race-blocks", folder, &[2 * PAGE as u64, 5 * PAGE as u64])?;
        self.race("race-odd", folder, &[8704, 10_000, 33_333])
    }

    /// Reads whole blocks while the file is cut to these sizes and grows again.
    fn race(&mut self, case: &str, folder: &Path, sizes: &[u64]) -> Result<()> {
        const BLOCKS: u64 = 16;
        let path = folder.join(case);
        make(&path, BLOCKS as usize * PAGE)?;
        let (file, other) = (direct(&path)?, File::options().write(true).open(&path)?);
        let mut memory = Buffer::new(PAGE)?;
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let racer = scope.spawn(|| -> Result<()> {
                for size in sizes.iter().cycle().take_while(|_| !done.load(Ordering::Relaxed)) {
                    other.set_len(*size)?;
                    other.write_all_at(&[b'x'; PAGE], *size)?;
                    other.set_len(BLOCKS * PAGE as u64)?;
                }
                Ok(())
            });
            for number in 0..READS as u64 {
                let offset = (number * 7 % BLOCKS) as i64 * PAGE as i64;
                self.read(case, &path, &call(&file, memory.at(0), PAGE, offset));
            }
            done.store(true, Ordering::Relaxed);
            racer.join().map_err(|_| anyhow::anyhow!("the racer died"))?
        })
    }

    fn faults(&mut self, path: &Path) -> Result<()> {
        self.fault(path, PAGE, 3584)?;
        self.fault(path, PAGE, 2048)?;
        self.fault(path, 64 << 10, 32 << 10)
    }

    /// Into a buffer of which only the first bytes can be accessed.
    fn fault(&mut self, path: &Path, len: usize, good: usize) -> Result<()> {
        if !path.exists() {
            make(path, 64 << 10)?;
        }
        let file = direct(path)?;
        let mapped = good.next_multiple_of(PAGE);
        let mut memory = Buffer::new(mapped + len)?;
        let none = memory.at(mapped).cast();
        // SAFETY: whole pages of our own mapping, which nobody refers to.
        if unsafe { libc::mprotect(none, len, libc::PROT_NONE) } < 0 {
            bail!("mprotect");
        }
        let call = call(&file, memory.at(mapped - good), len, 0);
        self.read(&format!("fault-{good}"), path, &call);
        Ok(())
    }

    /// More than one request may ask for.
    fn largest(&mut self, path: &Path) -> Result<()> {
        const PIECE: usize = 4 << 20;
        const PIECES: usize = 513;
        File::create(path)?.set_len(4 << 30)?; // a hole: nothing to read from the disk
        let file = direct(path)?;
        let mut memory = Buffer::new(PIECE)?;
        let piece = libc::iovec { iov_base: memory.at(0).cast(), iov_len: PIECE };
        let pieces = [piece; PIECES];
        // SAFETY: each of the pieces lies in the buffer.
        let ret = unsafe { libc::preadv(file.as_raw_fd(), pieces.as_ptr(), PIECES as i32, 0) };
        let call = call(&file, memory.at(0), PIECE * PIECES, 0);
        self.note("largest", path, std::process::id(), &call, Some(ret as i64));
        Ok(())
    }

    /// Children read for long, through the page cache, and are killed half-way.
    fn killed(&mut self, path: &Path) -> Result<()> {
        make(path, LONG)?;
        let file = direct(path)?;
        let mut memory = Buffer::new(LONG)?;
        let call = call(&file, memory.at(0), LONG, 0);
        for wait in [5, 20, 40, 80, 160] {
            fs::write("/proc/sys/vm/drop_caches", "3").context("cannot drop the page cache")?;
            // SAFETY: the child calls only pread and _exit, which are async-signal-safe.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                positioned(&call);
                // SAFETY: ends this process.
                unsafe { libc::_exit(0) };
            }
            thread::sleep(Duration::from_millis(wait));
            let mut status = 0;
            // SAFETY: our own child, and room for its status.
            unsafe {
                libc::kill(pid, libc::SIGKILL);
                libc::waitpid(pid, &raw mut status, 0);
            }
            let ret = if libc::WIFSIGNALED(status) { None } else { Some(LONG as i64) };
            self.note("killed", path, pid as u32, &call, ret);
        }
        Ok(())
    }

    /// Across a sector that cannot be read, through the page cache.
    fn bad_sector(&mut self, path: &Path) -> Result<()> {
        let file = direct(path)?;
        let mut memory = Buffer::new(64 << 10)?;
        self.read("bad-sector", path, &call(&file, memory.at(0), 64 << 10, (1 << 20) - (32 << 10)));
        Ok(())
    }
}

fn make(path: &Path, len: usize) -> Result<()> {
    fs::write(path, vec![b'.'; len])?;
    Ok(File::open(path)?.sync_all()?)
}

fn direct(path: &Path) -> Result<File> {
    let file = File::options().read(true).custom_flags(libc::O_DIRECT).open(path);
    file.with_context(|| format!("cannot open {}", path.display()))
}

fn call(file: &File, buffer: *mut u8, len: usize, offset: i64) -> Call {
    Call { write: false, fd: file.as_raw_fd(), buffer, len, offset, cut: 0, flags: 0 }
}

/// All that is wrong; says how often each case came out how.
fn judge(reads: &[Read], events: &[Value]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut taken = vec![false; events.len()];
    for read in reads {
        let about = |event: &Value| {
            event["op"] == "read"
                && event["pid"] == read.pid
                && event["path"] == read.path.to_string_lossy().as_ref()
                && event["offset"] == read.offset
                && event["len"] == read.len
                && read.ret.is_none_or(|ret| event["ret"] == ret)
        };
        let found = (0..events.len()).find(|at| !taken[*at] && about(&events[*at]));
        let Some(at) = found else {
            // A reader that is killed early never came to read.
            if read.ret.is_some() {
                wrong.push(format!("no event: {read:?}"));
            }
            continue;
        };
        taken[at] = true;
        let event = &events[at];
        let said = said(event);
        if !allowed(read, event).contains(&said) {
            wrong.push(format!("{read:?}: {said}: {event}"));
        }
        let fs = event["fs"].as_str().unwrap_or_default();
        *counts.entry(format!("{:<12} {fs:<5} {said}", read.case)).or_default() += 1;
    }
    counts.iter().for_each(|(case, count)| say(format!("{count:>5} {case}")));
    let killed = counts.keys().any(|case| case.starts_with("killed") && case.contains(" short:"));
    if !killed {
        wrong.push("no reader was killed half-way".to_owned());
    }
    wrong
}

/// Result, verdict, outcome, and the bytes by path.
fn said(event: &Value) -> String {
    let word = |name: &str| event[name].as_str().unwrap_or("-").to_owned();
    let (ret, errno) = (&event["ret"], word("errno"));
    let ret = if errno == "-" { ret.to_string() } else { errno };
    let (direct, cached) = (&event["direct_bytes"], &event["cached_bytes"]);
    format!("{ret} {} {} {direct}+{cached}", word("verdict"), word("outcome"))
}

/// What may be said of a read, by what came of it.
fn allowed(read: &Read, event: &Value) -> Vec<String> {
    let fs = event["fs"].as_str().unwrap_or_default();
    let ret = event["ret"].as_i64().unwrap_or_default();
    let one = |text: &str| vec![text.to_owned()];
    let direct = |outcome: &str| format!("{ret} direct {outcome} {ret}+0");
    let cached = |outcome: &str| format!("{ret} fallback {outcome} 0+{ret}");
    match (&*read.case, ret) {
        ("race-blocks" | "race-odd", 0) => one("0 eof - 0+0"),
        ("race-blocks" | "race-odd", 4096) => {
            // btrfs and f2fs read through the cache what is dirty in it.
            vec![direct("full"), cached("full"), "4096 partial full".to_owned()]
        }
        ("race-odd", 1..) => ["short:eof", "short:race"]
            .iter()
            .flat_map(|outcome| [direct(outcome), cached(outcome)])
            .collect(),
        ("fault-32768", _) if matches!(fs, "ext4" | "xfs" | "f2fs") => one("EFAULT failed - 0+0"),
        (case, 1..) if case == format!("fault-{ret}") => {
            vec![direct("short:fault"), cached("short:fault")]
        }
        ("largest", 0x7fff_f000) => one(&direct("short:max-rw")),
        ("bad-sector", 32_768) => one(&cached("short:other")),
        ("killed", 1..) if ret < LONG as i64 => one(&cached("short:signal")),
        ("killed", 1..) => one(&cached("full")),
        ("killed", _) => one("EINTR failed - 0+0"),
        _ => Vec::new(),
    }
}
