//! What a request costs with no tracer, with dio-trace, and with its peers.
//!
//! - [`load`]: the program that is measured
//! - [`tracers`]: who watches it
//! - [`rate`]: how it fares under load
//! - [`upkeep`]: what dio-trace takes by itself
pub(crate) mod load;
mod programs;
pub(crate) mod rate;
pub(crate) mod tracers;
pub(crate) mod upkeep;
mod usage;

use std::{
    fs::{self, File},
    io::{self, Write},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::{
    guest::{
        memory::Buffer,
        suite::{Program, Traces, wait_until_tracing},
    },
    host::cmd::{self, say, text},
};
use load::Cost;
use tracers::{Running, TRACERS, Tracer};

#[derive(Args, Clone, Debug)]
pub(crate) struct BenchArgs {
    /// dio-trace
    #[arg(long)]
    pub(super) tool: PathBuf,
    /// These tracers alone
    #[arg(long)]
    tracer: Vec<String>,
    /// Where rows go, a line of JSON each
    #[arg(long)]
    out: PathBuf,
}

/// One tracer's row.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Measured {
    pub(crate) tracer: String,
    pub(crate) costs: Vec<(String, Cost)>,
    #[serde(default)]
    pub(crate) programs: Vec<programs::Program>,
}

/// Memory for a disk: what is measured is the kernel's way and the tracer's, no disk's.
const DISK: &[&str] = &["null_blk", "nr_devices=1", "memory_backed=1", "gb=1", "bs=512"];
/// Bytes of a request to a file.
const BLOCK: usize = 4096;
/// Blocks of a file that are used in turn.
const BLOCKS: usize = 16;
const FOLDER: &str = "/mnt/bench";

pub(super) fn main(args: &BenchArgs) -> Result<()> {
    make(Path::new(FOLDER))?;
    let mut rows = File::options().append(true).create(true).open(&args.out)?;
    let wanted = |tracer: &&Tracer| args.tracer.is_empty() || args.tracer.contains(&tracer.id());
    for tracer in TRACERS.iter().filter(wanted) {
        let row = measure(args, tracer).with_context(|| tracer.name.to_owned())?;
        let shown: Vec<String> =
            row.costs.iter().map(|(kind, cost)| format!("{kind} {:.0}", cost.least)).collect();
        say(format!("{}: {}", tracer.name, shown.join(", ")));
        writeln!(rows, "{}", serde_json::to_string(&row)?)?;
        rows.sync_all()?;
    }
    Ok(())
}

/// The files of [`load`]; what is journaled with its data is never read directly.
fn make(folder: &Path) -> Result<()> {
    mount(folder, &[])?;
    for name in ["plain", "journaled"] {
        let path = folder.join(name);
        File::create(&path)?;
        if name == "journaled" {
            run(&["chattr", "+j", text(&path)?])?;
        }
        fs::write(&path, vec![7; BLOCKS * BLOCK])?;
    }
    run(&["sync"])
}

/// An ext4 in memory, made with these options.
fn mount(folder: &Path, options: &[&str]) -> Result<()> {
    run(&[&["modprobe"], DISK].concat())?;
    run(&[&["mkfs.ext4", "-q", "-F", "-E", "nodiscard", "/dev/nullb0"], options].concat())?;
    fs::create_dir_all(folder)?;
    // With delayed allocation ext4 journals no data (fs/ext4/ext4_jbd2.c:ext4_inode_journal_mode).
    run(&["mount", "-o", "nodelalloc", "/dev/nullb0", text(folder)?])
}

/// dio-trace on a program, with these words more; it traces already. Its lines are for us to read.
fn attach(tool: &Path, pid: u32, more: &[&str]) -> Result<(Child, ChildStdout)> {
    let traces = Traces::new(Path::new("/tmp"), "bench");
    let mut child = Command::new(tool)
        .args(["attach", "-p", &pid.to_string(), "--json"])
        .args(more)
        .stdout(Stdio::piped())
        .stderr(File::create(&traces.talk)?)
        .spawn()
        .context("cannot start dio-trace")?;
    wait_until_tracing(&mut child, &traces)?;
    let pipe = child.stdout.take().context("dio-trace has no stdout")?;
    Ok((child, pipe))
}

/// Reads a block of a file.
fn read_block(file: &File, buffer: &mut Buffer, at: i64) -> Result<()> {
    let room = buffer.bytes().len();
    if room < BLOCK {
        bail!("a buffer of {room} bytes");
    }
    // SAFETY: a buffer of that size, as just asked.
    let got = unsafe { libc::pread(file.as_raw_fd(), buffer.at(0).cast(), BLOCK, at) };
    if got != BLOCK as isize {
        bail!("a read returned {got}: {}", io::Error::last_os_error());
    }
    Ok(())
}

fn run(words: &[&str]) -> Result<()> {
    cmd::output(Command::new(words[0]).args(&words[1..])).map(drop)
}

fn measure(args: &BenchArgs, tracer: &Tracer) -> Result<Measured> {
    let out = Path::new("/tmp/bench.json");
    let mut load = Command::new(std::env::current_exe().context("xtask cannot find itself")?);
    load.args(["guest", "bench-load", "--folder", FOLDER, "--out", text(out)?]);
    for kind in tracer.kinds {
        load.args(["--kind", kind]);
    }
    let mut load = Program::start(&mut load)?;
    let watch = Running::start(tracer, &args.tool, load.child.id())?;
    load.go()?;
    let programs = match (tracer.programs, watch.pid()) {
        (true, Some(pid)) => programs::look(pid)?,
        _ => Vec::new(),
    };
    watch.stop()?;
    let costs = serde_json::from_slice(&fs::read(out)?)?;
    Ok(Measured { tracer: tracer.id(), costs, programs })
}
