//! What dio-trace takes by itself: to start, at rest, and over many requests of many files.
use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    BLOCK, FOLDER, attach, mount, read_block, run,
    usage::{exact_cpu, resident, seconds, wait, waits},
};
use crate::{
    cmd::say,
    guest::{
        files::open_direct,
        filters::counted,
        memory::Buffer,
        suite::{Program, Traces, wait_for_go, wait_until_tracing},
    },
};

const FOLDERS: u64 = 100;
const IN_EACH: u64 = 1_000;
/// Between attaching and the rest that is measured: first pages, first ticks.
const SETTLING: Duration = Duration::from_secs(5);
const REST: Duration = Duration::from_secs(60);

/// Ways to run it.
const WAYS: &[(&str, &[&str])] = &[
    ("audit", &["audit", "--attach", "fentry"]),
    ("audit, by kprobes", &["audit", "--attach", "kprobe"]),
    ("record", &["record", "-o", "/tmp/rest.dio", "audit", "--all", "--attach", "fentry"]),
];

#[derive(Args, Clone, Debug)]
pub(crate) struct UpkeepArgs {
    /// dio-trace
    #[arg(long)]
    tool: PathBuf,
    /// Where rows go, a line of JSON each
    #[arg(long)]
    out: PathBuf,
    /// How often each file is read; 0: how it starts and rests instead
    #[arg(long)]
    rounds: u64,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct UpkeepLoadArgs {
    #[arg(long)]
    folder: PathBuf,
    #[arg(long)]
    rounds: u64,
}

/// How it starts and rests.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Rest {
    pub(crate) way: String,
    /// Until it traces, and how much of that is its own CPU time.
    pub(crate) start_seconds: f64,
    pub(crate) start_cpu: f64,
    /// While nothing happens: CPU seconds and waits, each second.
    pub(crate) cpu: f64,
    pub(crate) waits: f64,
    pub(crate) kib: u64,
}

/// What many requests leave behind.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Long {
    pub(crate) files: u64,
    pub(crate) reads: u64,
    pub(crate) counted: u64,
    /// Reads with a line, and how many of those have no name of a file.
    pub(crate) told: u64,
    pub(crate) unnamed: u64,
    pub(crate) lost: u64,
    /// After so many lines, so many KiB.
    pub(crate) memory: Vec<(u64, u64)>,
    pub(crate) peak_kib: u64,
    pub(crate) cpu_seconds: f64,
}

pub(crate) fn main(args: &UpkeepArgs) -> Result<()> {
    let mut rows = File::options().append(true).create(true).open(&args.out)?;
    let mut row = |row: String| -> Result<()> {
        say(&row);
        writeln!(rows, "{row}")?;
        Ok(rows.sync_all()?)
    };
    if args.rounds != 0 {
        return row(serde_json::to_string(&long(args)?)?);
    }
    WAYS.iter().try_for_each(|way| row(serde_json::to_string(&rest(args, way)?)?))
}

fn rest(args: &UpkeepArgs, (way, words): &(&str, &[&str])) -> Result<Rest> {
    let began = Instant::now();
    let traces = Traces::new(Path::new("/tmp"), "upkeep");
    let mut tool = Command::new(&args.tool)
        .args(*words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&traces.talk)?)
        .spawn()
        .context("cannot start dio-trace")?;
    wait_until_tracing(&mut tool, &traces)?;
    let pid = tool.id();
    let (start_seconds, start_cpu) = (began.elapsed().as_secs_f64(), exact_cpu(pid)?);
    thread::sleep(SETTLING);
    let (now, before, waited) = (Instant::now(), exact_cpu(pid)?, waits(pid)?);
    thread::sleep(REST);
    let passed = now.elapsed().as_secs_f64();
    let row = Rest {
        way: (*way).to_owned(),
        start_seconds,
        start_cpu: start_cpu.as_secs_f64(),
        cpu: (exact_cpu(pid)?.saturating_sub(before)).as_secs_f64() / passed,
        waits: (waits(pid)? - waited) as f64 / passed,
        kib: resident(pid)?,
    };
    // SAFETY: our own child, not waited for yet.
    unsafe { libc::kill(pid as i32, libc::SIGINT) };
    let status = tool.wait()?;
    if !status.success() {
        bail!("dio-trace failed ({status})");
    }
    Ok(row)
}

fn long(args: &UpkeepArgs) -> Result<Long> {
    let folder = Path::new(FOLDER);
    // An inode for each block: the files are small.
    mount(folder, &["-i", "4096"])?;
    make(folder)?;
    let mut load = Command::new(std::env::current_exe().context("xtask cannot find itself")?);
    load.args(["guest", "upkeep-load", "--folder", FOLDER, "--rounds", &args.rounds.to_string()]);
    let mut load = Program::start(&mut load)?;
    let (tool, pipe) = attach(&args.tool, load.child.id(), &["--all"])?;
    let pid = tool.id();
    let reads = FOLDERS * IN_EACH * args.rounds;
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
        serde_json::from_str(&lines.last).context("the last line is no summary")?;
    Ok(Long {
        files: FOLDERS * IN_EACH,
        reads,
        counted: counted(&summary),
        told: lines.told,
        unnamed: lines.unnamed,
        lost: summary["lost"]["ring buffer full"].as_u64().unwrap_or(0),
        memory: lines.memory.clone(),
        peak_kib: usage.ru_maxrss as u64,
        cpu_seconds: seconds(&usage),
    })
}

/// What dio-trace wrote.
#[derive(Default)]
struct Lines {
    told: u64,
    unnamed: u64,
    memory: Vec<(u64, u64)>,
    last: String,
}

impl Lines {
    /// Reads to the end; now and then it asks for the memory of the process.
    fn read(pipe: ChildStdout, pid: u32, reads: u64) -> Result<Self> {
        let looks = [reads / 100, reads / 10, reads / 2];
        let mut lines = Self::default();
        let mut pipe = BufReader::with_capacity(1 << 20, pipe);
        let mut line = String::new();
        while pipe.read_line(&mut line)? != 0 {
            if line.contains("\"kind\":\"request\"") {
                lines.told += 1;
                lines.unnamed += u64::from(line.contains("\"path\":\"<"));
                if looks.contains(&lines.told) {
                    lines.memory.push((lines.told, resident(pid)?));
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
    for number in 0..FOLDERS * IN_EACH {
        fs::write(file(folder, number), [7; BLOCK])?;
    }
    run(&["sync"])
}

/// The program: opens file after file, reads it, closes it.
pub(crate) fn load(args: &UpkeepLoadArgs) -> Result<()> {
    wait_for_go()?;
    let mut buffer = Buffer::new(BLOCK)?;
    for _ in 0..args.rounds {
        for number in 0..FOLDERS * IN_EACH {
            read_block(&open_direct(&file(&args.folder, number))?, &mut buffer, 0)?;
        }
    }
    Ok(())
}
