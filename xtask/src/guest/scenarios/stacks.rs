//! `--stack`: which function of the program it was.
use std::{
    fs::File,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::{
    guest::{
        direct_io::{
            files::{fill, open_direct},
            memory::Buffer,
        },
        fixtures::Place,
        harness::Tried,
    },
    host::cmd::text,
};

/// Runs of dio-trace.
pub(crate) const RUNS: u64 = 2;
/// How long the program stays after its read.
const LINGER: Duration = Duration::from_secs(5);
const SIZE: usize = 16 << 10;
/// The functions that read, the innermost first.
const FUNCTIONS: [&str; 2] = ["dio_trace_test_system_call", "dio_trace_test_reads"];

#[derive(Debug, Args)]
pub(crate) struct StackReaderArgs {
    file: PathBuf,
}

// With a frame pointer each, whatever the compiler does with those of Rust's functions.
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".globl dio_trace_test_reads",
    ".type dio_trace_test_reads, @function",
    "dio_trace_test_reads:",
    "push rbp",
    "mov rbp, rsp",
    "call dio_trace_test_system_call",
    "pop rbp",
    "ret",
    ".size dio_trace_test_reads, . - dio_trace_test_reads",
    ".globl dio_trace_test_system_call",
    ".type dio_trace_test_system_call, @function",
    "dio_trace_test_system_call:",
    "push rbp",
    "mov rbp, rsp",
    "mov r10, rcx",
    "mov eax, 17", // pread64
    "syscall",
    "pop rbp",
    "ret",
    ".size dio_trace_test_system_call, . - dio_trace_test_system_call",
);

#[cfg(target_arch = "x86_64")]
unsafe extern "C" {
    fn dio_trace_test_reads(fd: i32, buffer: *mut u8, len: usize, offset: i64) -> isize;
}

#[cfg(not(target_arch = "x86_64"))]
use libc::pread64 as dio_trace_test_reads;

/// Reads the begin of the file, from those functions; what pread(2) says.
pub(crate) fn read_known(file: &File, buffer: &mut Buffer, len: usize) -> isize {
    let len = len.min(buffer.bytes().len());
    // SAFETY: the buffer is at least as long as said.
    unsafe { dio_trace_test_reads(file.as_raw_fd(), buffer.at(0).cast(), len, 0) }
}

/// Reads the file directly, from those functions.
pub(crate) fn reader(args: &StackReaderArgs) -> Result<()> {
    let file = open_direct(&args.file)?;
    let mut buffer = Buffer::new(SIZE)?;
    let read = read_known(&file, &mut buffer, SIZE);
    if read != SIZE as isize {
        bail!("read {read} bytes of {SIZE}");
    }
    // Functions are looked up while the process is there.
    thread::sleep(LINGER);
    Ok(())
}

/// What is wrong with the stack of a read that goes through the page cache, live and recorded.
pub(crate) fn check(tried: &Tried, places: &[Place], out: &Path) -> Result<Vec<String>> {
    let attach = &tried.attach;
    let file = places[1].path.join("stack");
    fill(&file, SIZE)?;
    let me = std::env::current_exe().context("xtask cannot find itself")?;
    let reader = [text(&me)?, "guest", "stack-reader", text(&file)?];
    let run = |words: &[&str]| {
        let output =
            Command::new(&tried.tool).args(words).output().context("cannot start dio-trace")?;
        if !output.status.success() {
            bail!("{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let live = ["run", "--stack", "--json", "--attach", attach, "--"];
    let live = run(&[&live, &reader[..]].concat())?;
    let recording = out.join("stacks.dio");
    let record = ["record", "--force", "-o", text(&recording)?, "run", "--stack"];
    run(&[&record[..], &["--attach", attach, "--"], &reader].concat())?;
    let exported = run(&["export", "--format", "jsonl", text(&recording)?])?;
    let mut wrong: Vec<String> = [("live", live), ("recorded", exported)]
        .iter()
        .filter_map(|(what, json)| judge(what, json))
        .collect();
    let by = run(&["report", "--by", "stack", text(&recording)?])?;
    let innermost = by.lines().any(|line| line.ends_with(FUNCTIONS[0]));
    if !innermost || !by.contains(&format!("from {}", FUNCTIONS[1])) {
        wrong.push(format!("report --by stack: {by}"));
    }
    Ok(wrong)
}

/// The finding has the functions on its stack, in their order, and they are of this program.
fn judge(what: &str, json: &str) -> Option<String> {
    let lines = json.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut findings = lines.filter(|line| line["verdict"] == "fallback");
    let (Some(finding), None) = (findings.next(), findings.next()) else {
        return Some(format!("{what}: not one fallback: {json}"));
    };
    let frame = |n: usize| &finding["stack"]["frames"][n];
    let right = (0..FUNCTIONS.len()).all(|n| {
        frame(n)["symbol"] == FUNCTIONS[n]
            && frame(n)["module"].as_str().is_some_and(|module| module.ends_with("/xtask"))
    });
    (!right).then(|| format!("{what}: {finding}"))
}
