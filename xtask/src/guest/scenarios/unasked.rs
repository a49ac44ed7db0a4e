//! `--expect-direct`: calls without O_DIRECT, by every API, on a file that has to be used directly;
//! and `--cached`, which tells of each such request.
//!
//! The program's own results are the expectation. It then follows the fix (it sets O_DIRECT by
//! fcntl), after which nothing is to be reported.
use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    guest::{
        direct_io::{
            files::{drop_pages, fill},
            memory::Buffer,
            request::{Apis, Call},
        },
        fixtures::Place,
        harness::{Tried, not_ended_with},
    },
    host::cmd::text,
};

/// The fixtures of the scenario.
pub(crate) const SETUPS: &[&str] = &["ext4-512"];
/// The number of runs of dio-trace.
pub(crate) const RUNS: u64 = 3;
const BLOCK: usize = 4096;
/// Bytes of each file. The end lies inside a block.
const BYTES: usize = 4 * BLOCK + 1000;
/// The interfaces by which each request is made, those of reads and those of writes.
const READS: &[&str] =
    &["read", "pread", "preadv", "preadv2", "aio", "uring", "uring_sqpoll", "thread", "splice"];
/// (Not splice after io_uring, whose completion may interrupt it before it begins: it is then restarted,
/// and `--expect-direct` counts it twice.)
const WRITES: &[&str] = &["write", "pwrite", "pwritev", "pwritev2", "splice", "aio", "uring"];

/// Arguments of the program
#[derive(Args, Clone, Debug)]
pub(crate) struct UnaskedUserArgs {
    /// A file to use
    #[arg(long, required = true)]
    file: Vec<PathBuf>,
    /// Drop the file's pages before each read
    #[arg(long)]
    cold: bool,
    /// File to write the expectation to
    #[arg(long)]
    tally: PathBuf,
}

/// What was done with a file, as the summary has it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
struct Done {
    path: String,
    reads: u64,
    read_bytes: u64,
    writes: u64,
    write_bytes: u64,
    mappings: u64,
    mapped_bytes: u64,
}

/// Uses each file without O_DIRECT, then sets O_DIRECT and reads once more.
pub(crate) fn user(args: &UnaskedUserArgs) -> Result<()> {
    let mut apis = Apis::new()?;
    let mut memory = Buffer::new(BLOCK)?;
    let buffer = memory.at(0);
    let mut tally = Vec::new();
    for path in &args.file {
        let file = File::options().read(true).write(true).open(path)?;
        let mut done = Done { path: text(path)?.to_owned(), ..Done::default() };
        let call = |write, offset| Call {
            write,
            fd: file.as_raw_fd(),
            buffer,
            len: BLOCK,
            offset,
            cut: BLOCK / 2,
            flags: 0,
        };
        for (api, block) in READS.iter().flat_map(|api| [(api, 1), (api, 4)]) {
            if args.cold {
                file.sync_data()?;
                drop_pages(&file)?;
            }
            let made = apis.make(api, &call(false, (block * BLOCK) as i64))?;
            done.reads += 1;
            done.read_bytes += u64::try_from(made.result).with_context(|| (*api).to_owned())?;
        }
        for api in WRITES {
            let made = apis.make(api, &call(true, BLOCK as i64))?;
            done.writes += 1;
            done.write_bytes += u64::try_from(made.result).with_context(|| (*api).to_owned())?;
        }
        // A mapping counts with O_DIRECT as well.
        for direct in [false, true] {
            if direct {
                set_direct(&file)?;
            }
            let made = apis.make("mmap", &call(false, 0))?;
            done.mappings += 1;
            done.mapped_bytes += u64::try_from(made.result).context("mmap")?;
        }
        let made = apis.make("pread", &call(false, 0))?;
        if made.result != BLOCK as i64 {
            bail!("a read with O_DIRECT gave {}", made.result);
        }
        tally.push(done);
    }
    fs::write(&args.tally, serde_json::to_vec(&tally)?).context("cannot write the tally")
}

/// Sets O_DIRECT on an open file, as the fix says.
fn set_direct(file: &File) -> Result<()> {
    // SAFETY: passes no pointers.
    let set = unsafe {
        let flags = libc::fcntl(file.as_raw_fd(), libc::F_GETFL);
        libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags | libc::O_DIRECT)
    };
    if set < 0 { Err(io::Error::last_os_error()).context("F_SETFL") } else { Ok(()) }
}

/// Runs the program live and into a recording, with one of its two files expected to be used
/// directly; returns the mismatches.
pub(crate) fn check(tried: &Tried, places: &[Place], out: &Path) -> Result<Vec<String>> {
    let files = ["expected.db", "other.db"].map(|name| places[0].path.join(name));
    files.iter().try_for_each(|file| fill(file, BYTES))?;
    let tally = out.join("unasked.tally");
    let recording = out.join("unasked.dio");
    let me = std::env::current_exe().context("xtask cannot find itself")?;
    // Elsewhere a request of io_uring that waits for a page is counted twice (docs/expect-direct.md).
    let cold = tried.attach == "fentry" && tried.series != "5.10";
    let traced = |before: &[&str], options: &[&str], cold: bool| {
        let mut command = Command::new(&tried.tool);
        command.args(before).args(["run", "--attach", &tried.attach]).args(options);
        command.arg("--").arg(&me).args(["guest", "unasked-user", "--tally", text(&tally)?]);
        if cold {
            command.arg("--cold");
        }
        for file in &files {
            command.args(["--file", text(file)?]);
        }
        command.output().context("cannot start dio-trace")
    };
    let mut wrong = Vec::new();
    const EXPECT: [&str; 2] = ["--expect-direct", "*/expected.*"];
    let live = traced(&[], &[&EXPECT[..], &["--json", "--fail-on", "not-asked"]].concat(), cold)?;
    wrong.extend(not_ended_with(&live, 3));
    let lines = String::from_utf8_lossy(&live.stdout);
    let summary = lines.lines().last().context("no summary")?;
    wrong.extend(compare("live", summary, &tally)?);

    let recorded = traced(&["record", "--force", "-o", text(&recording)?], &EXPECT, cold)?;
    wrong.extend(not_ended_with(&recorded, 0));
    let report =
        Command::new(&tried.tool).args(["report", "--json", text(&recording)?]).output()?;
    wrong.extend(not_ended_with(&report, 0));
    wrong.extend(compare("recorded", &String::from_utf8_lossy(&report.stdout), &tally)?);

    let cached = traced(&[], &["--cached", "--all", "--json"], true)?;
    fs::write(out.join("cached.json"), &cached.stdout)?;
    wrong.extend(not_ended_with(&cached, 0));
    wrong.extend(compare_lines(&String::from_utf8_lossy(&cached.stdout), &tally)?);
    Ok(wrong)
}

/// The mismatches between the lines of `--cached` and what the program did with its files. Each read
/// began with no page of the file in the page cache.
fn compare_lines(lines: &str, tally: &Path) -> Result<Vec<String>> {
    let wanted: Vec<Done> = serde_json::from_slice(&fs::read(tally)?)?;
    let lines: Vec<Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let mut wrong = Vec::new();
    for mut done in wanted {
        let mut found = Done { path: done.path.clone(), ..Done::default() };
        let mut read_in = 0;
        for line in lines.iter().filter(|line| line["path"] == done.path.as_str()) {
            let words =
                ["asked", "verdict", "cause"].map(|name| line[name].as_str().unwrap_or("-"));
            if words == ["direct", "direct", "-"] {
                continue; // after the fix
            }
            if words != ["cached", "cached", "-"] || line["finding"] != false {
                wrong.push(format!("--cached: {line}"));
            }
            let bytes = line["cached_bytes"].as_u64().unwrap_or(0);
            if line["op"] == "read" {
                (found.reads, found.read_bytes) = (found.reads + 1, found.read_bytes + bytes);
                read_in += line["read_in_bytes"].as_u64().unwrap_or(0);
            } else {
                (found.writes, found.write_bytes) = (found.writes + 1, found.write_bytes + bytes);
            }
        }
        (done.mappings, done.mapped_bytes) = (0, 0);
        if found != done {
            wrong.push(format!("--cached: {found:?}, not {done:?}"));
        }
        if read_in != done.read_bytes {
            wrong.push(format!("--cached: {read_in} bytes read in, not {}", done.read_bytes));
        }
    }
    Ok(wrong)
}

/// The mismatches between a summary and what the program did with the first file. (The second one is
/// not expected to be used directly.)
fn compare(way: &str, summary: &str, tally: &Path) -> Result<Vec<String>> {
    let wanted: Vec<Done> = serde_json::from_slice(&fs::read(tally)?)?;
    let json: Value = serde_json::from_str(summary).context("the summary is not JSON")?;
    let summary = json.get("summary").unwrap_or(&json);
    let rows: Vec<Done> = serde_json::from_value(summary["not_asked"].clone())?;
    let mut wrong = Vec::new();
    if rows != wanted[..1] {
        wrong.push(format!("{way}: not_asked is {rows:?}, not {:?}", &wanted[..1]));
    }
    let direct = summary["requests"]["direct"].as_u64();
    if direct != Some(2) {
        wrong.push(format!("{way}: {direct:?} direct reads after the fix, not 2"));
    }
    Ok(wrong)
}
