//! `--stack`: dio-trace must report the function of the program that made a request.
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

/// The number of runs of dio-trace.
pub(crate) const RUNS: u64 = 2;
/// How long the program stays after its read, so that dio-trace can look up its functions.
const LINGER: Duration = Duration::from_secs(5);
const SIZE: usize = 16 << 10;
/// The functions that read, the innermost first.
const FUNCTIONS: [&str; 2] = ["dio_trace_test_system_call", "dio_trace_test_reads"];

#[derive(Debug, Args)]
pub(crate) struct StackReaderArgs {
    file: PathBuf,
}

// In assembly, so that both have a frame pointer whatever the compiler does for Rust functions.
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

#[cfg(target_arch = "aarch64")]
std::arch::global_asm!(
    ".globl dio_trace_test_reads",
    ".type dio_trace_test_reads, @function",
    "dio_trace_test_reads:",
    "stp x29, x30, [sp, #-16]!",
    "mov x29, sp",
    "bl dio_trace_test_system_call",
    "ldp x29, x30, [sp], #16",
    "ret",
    ".size dio_trace_test_reads, . - dio_trace_test_reads",
    ".globl dio_trace_test_system_call",
    ".type dio_trace_test_system_call, @function",
    "dio_trace_test_system_call:",
    "stp x29, x30, [sp, #-16]!",
    "mov x29, sp",
    "mov x8, #67", // pread64
    "svc #0",
    "ldp x29, x30, [sp], #16",
    "ret",
    ".size dio_trace_test_system_call, . - dio_trace_test_system_call",
);

unsafe extern "C" {
    fn dio_trace_test_reads(fd: i32, buffer: *mut u8, len: usize, offset: i64) -> isize;
}

/// Reads the start of the file from the known functions; returns pread64's raw result (-errno on
/// failure).
pub(crate) fn read_known(file: &File, buffer: &mut Buffer, len: usize) -> isize {
    let len = len.min(buffer.bytes().len());
    // SAFETY: the buffer is at least as long as said.
    unsafe { dio_trace_test_reads(file.as_raw_fd(), buffer.at(0).cast(), len, 0) }
}

/// The program: reads the file with O_DIRECT from the known functions.
pub(crate) fn reader(args: &StackReaderArgs) -> Result<()> {
    let file = open_direct(&args.file)?;
    let mut buffer = Buffer::new(SIZE)?;
    let read = read_known(&file, &mut buffer, SIZE);
    if read != SIZE as isize {
        bail!("read {read} bytes of {SIZE}");
    }
    // dio-trace looks up functions while the process exists.
    thread::sleep(LINGER);
    Ok(())
}

/// Traces and records an O_DIRECT read that goes through the page cache; returns the mismatches of
/// its stack.
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

/// Checks that the finding's stack starts with the known functions, in order and in this program.
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
