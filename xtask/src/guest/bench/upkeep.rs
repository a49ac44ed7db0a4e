//! Measures dio-trace's own cost: at the start, while idle, and over many requests to many files.
use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::{
    guest::{
        bench::{
            stage::{BLOCK, FOLDER, attach, mount, read_block, run},
            tracers::{Running, TRACERS, Tracer},
            usage::{exact_cpu, resident, wait, waits},
        },
        contract::{
            bench::{Long, Rest},
            json::counted,
        },
        direct_io::{files::open_direct, memory::Buffer},
        harness::{Program, wait_for_go},
    },
    host::cmd::say,
};

const FOLDERS: u64 = 100;
const IN_EACH: u64 = 1_000;
const FILES: u64 = FOLDERS * IN_EACH;
/// Time between attaching and the measurement of the idle cost, so that work after the start does
/// not count.
const SETTLING: Duration = Duration::from_secs(5);
const REST: Duration = Duration::from_secs(60);

/// The rows of the table of tracers that are measured.
const WAYS: &[&str] = &["dio-trace", "dio-trace kprobe", "dio-trace record"];

#[derive(Args, Clone, Debug)]
pub(crate) struct UpkeepArgs {
    /// Path of the dio-trace binary
    #[arg(long)]
    tool: PathBuf,
    /// File to append the rows to, one line of JSON per row
    #[arg(long)]
    out: PathBuf,
    /// How often each file is read; without this option, measure the start and the idle cost
    #[arg(long)]
    rounds: Option<u64>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct UpkeepLoadArgs {
    #[arg(long)]
    folder: PathBuf,
    #[arg(long)]
    rounds: u64,
}

pub(crate) fn main(args: &UpkeepArgs) -> Result<()> {
    let mut rows = File::options().append(true).create(true).open(&args.out)?;
    let mut row = |row: String| -> Result<()> {
        say(&row);
        writeln!(rows, "{row}")?;
        Ok(rows.sync_all()?)
    };
    if let Some(rounds) = args.rounds {
        return row(serde_json::to_string(&long(args, rounds)?)?);
    }
    let ways = TRACERS.iter().filter(|tracer| WAYS.contains(&tracer.name));
    ways.map(|tracer| rest(args, tracer)).try_for_each(|rest| row(serde_json::to_string(&rest?)?))
}

fn rest(args: &UpkeepArgs, tracer: &Tracer) -> Result<Rest> {
    let began = Instant::now();
    let tool = Running::start(tracer, &args.tool, std::process::id())?;
    let pid = tool.pid().context("no process")?;
    let (start_seconds, start_cpu) = (began.elapsed().as_secs_f64(), exact_cpu(pid)?);
    thread::sleep(SETTLING);
    let (now, before, waited) = (Instant::now(), exact_cpu(pid)?, waits(pid)?);
    thread::sleep(REST);
    let passed = now.elapsed().as_secs_f64();
    let row = Rest {
        way: tracer.name.to_owned(),
        start_seconds,
        start_cpu: start_cpu.as_secs_f64(),
        cpu: (exact_cpu(pid)?.saturating_sub(before)).as_secs_f64() / passed,
        waits: (waits(pid)? - waited) as f64 / passed,
        kib: resident(pid)?,
    };
    match tool.stop()? {
        Some(status) if !status.success() => bail!("dio-trace failed ({status})"),
        _ => Ok(row),
    }
}

fn long(args: &UpkeepArgs, rounds: u64) -> Result<Long> {
    let folder = Path::new(FOLDER);
    // One inode per block, because the files are small.
    mount(folder, &["-i", "4096"])?;
    make(folder)?;
    let mut load = Command::new(std::env::current_exe().context("xtask cannot find itself")?);
    load.args(["guest", "upkeep-load", "--folder", FOLDER, "--rounds", &rounds.to_string()]);
    let mut load = Program::start(&mut load)?;
    let (tool, pipe) = attach(&args.tool, load.child.id(), &["--all"])?;
    let pid = tool.id();
    let reads = FILES * rounds;
    let lines = thread::spawn(move || Lines::read(pipe, pid, reads));
    load.go()?;
    let lines = lines.join().unwrap_or_else(|_| bail!("the reader died"))?;
    ended(&tool, &lines, reads)
}

fn ended(tool: &Child, lines: &Lines, reads: u64) -> Result<Long> {
    let (status, usage) = wait(tool.id())?;
    if !status.success() {
        bail!("dio-trace failed ({status})");
    }
    let summary: Value =
        serde_json::from_str(&lines.last).context("the last line is not a summary")?;
    Ok(Long {
        files: FILES,
        reads,
        counted: counted(&summary),
        uncounted: summary["lost"]["counter map full"].as_u64().unwrap_or(0),
        told: lines.emitted,
        unnamed: lines.unnamed,
        lost: summary["lost"]["ring buffer full"].as_u64().unwrap_or(0),
        memory: lines.memory.clone(),
        peak_kib: usage.ru_maxrss as u64,
    })
}

/// Counts of dio-trace's output lines, and samples of its memory.
#[derive(Default)]
struct Lines {
    emitted: u64,
    unnamed: u64,
    memory: Vec<(u64, u64)>,
    last: String,
}

impl Lines {
    /// Reads the output to the end, and samples the process's memory after a hundredth, a tenth and
    /// half of the reads.
    fn read(pipe: ChildStdout, pid: u32, reads: u64) -> Result<Self> {
        let looks = [reads / 100, reads / 10, reads / 2];
        let mut lines = Self::default();
        let mut pipe = BufReader::with_capacity(1 << 20, pipe);
        let mut line = String::new();
        while pipe.read_line(&mut line)? != 0 {
            if line.contains("\"kind\":\"request\"") {
                lines.emitted += 1;
                lines.unnamed += u64::from(line.contains("\"path\":\"<"));
                if looks.contains(&lines.emitted) {
                    lines.memory.push((lines.emitted, resident(pid)?));
                }
            }
            std::mem::swap(&mut lines.last, &mut line);
            line.clear();
        }
        Ok(lines)
    }
}

fn file(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("d{}/f{}", number / IN_EACH, number % IN_EACH))
}

fn make(folder: &Path) -> Result<()> {
    for number in 0..FOLDERS {
        fs::create_dir(folder.join(format!("d{number}")))?;
    }
    for number in 0..FILES {
        fs::write(file(folder, number), [7; BLOCK])?;
    }
    run(&["sync"])
}

/// The program: opens, reads and closes one file after the other.
pub(crate) fn load(args: &UpkeepLoadArgs) -> Result<()> {
    wait_for_go()?;
    let mut buffer = Buffer::new(BLOCK)?;
    for _ in 0..args.rounds {
        for number in 0..FILES {
            read_block(&open_direct(&file(&args.folder, number))?, &mut buffer, 0)?;
        }
    }
    Ok(())
}
