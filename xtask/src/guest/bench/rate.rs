//! Four threads on four CPUs read at different paces, and every read is a finding: measures lost
//! events, the cost of tracing, and whether an output that is not read stops the program.
use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Write as _},
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
            stage::{BLOCK, BLOCKS, FOLDER, attach, make, read_block, start},
            usage::{cpu_seconds, seconds, wait},
        },
        contract::{
            bench::{Load, Output, Rate, Seen},
            json::counted,
        },
        direct_io::{files::open_direct, memory::Buffer},
        harness::{Program, wait_for_go},
    },
    host::cmd::{self, say, text},
};

const THREADS: u64 = 4;
/// How long the threads read.
const READING: Duration = Duration::from_secs(5);
/// Target reads per second of all threads together; 0: as many as possible.
const PACES: &[u64] = &[500, 2_000, 8_000, 0];

#[derive(Args, Clone, Debug)]
pub(crate) struct RateArgs {
    /// Path of the dio-trace binary
    #[arg(long)]
    tool: PathBuf,
    /// File to append the rows to, one line of JSON per row
    #[arg(long)]
    out: PathBuf,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct RateLoadArgs {
    #[arg(long)]
    file: PathBuf,
    #[arg(long)]
    pace: u64,
    #[arg(long)]
    out: PathBuf,
}

pub(crate) fn main(args: &RateArgs) -> Result<()> {
    make(Path::new(FOLDER))?;
    let mut rows = File::options().append(true).create(true).open(&args.out)?;
    for output in Output::ALL {
        for pace in PACES {
            let row = measure(args, *output, *pace)?;
            say(format!("{row:?}"));
            writeln!(rows, "{}", serde_json::to_string(&row)?)?;
            rows.sync_all()?;
        }
    }
    Ok(())
}

fn measure(args: &RateArgs, output: Output, pace: u64) -> Result<Rate> {
    let result = Path::new("/tmp/rate.json");
    let mut load = Command::new(std::env::current_exe().context("xtask cannot find itself")?);
    load.args(["guest", "rate-load", "--pace", &pace.to_string(), "--out", text(result)?]);
    // Reads of the journaled file are findings.
    let name = if output.base() == Output::None { "journaled" } else { "plain" };
    load.args(["--file", &format!("{FOLDER}/{name}")]);
    let mut load = Program::start(&mut load)?;
    let traced = output != output.base();
    let watch = traced.then(|| Watch::start(args, output, load.child.id())).transpose()?;
    load.go()?;
    let load = serde_json::from_slice(&fs::read(result)?)?;
    Ok(Rate { pace, output, load, seen: watch.map(Watch::end).transpose()? })
}

/// What dio-trace told.
struct Told {
    /// Requests with a line of their own.
    lines: u64,
    /// Requests in lines with others; `None` for a recording.
    summed: Option<u64>,
    summary: Value,
}

/// dio-trace, attached to the program.
struct Watch {
    tool: Child,
    /// CPU seconds that attaching took.
    before: f64,
    /// Reads the rest of dio-trace's output once it has exited, or before.
    told: Box<dyn FnOnce() -> Result<Told>>,
}

impl Watch {
    fn start(args: &RateArgs, output: Output, pid: u32) -> Result<Self> {
        let (tool, told) = match output {
            Output::Findings | Output::Every => record(&args.tool, pid, output)?,
            _ => lines(&args.tool, pid, output)?,
        };
        Ok(Self { before: cpu_seconds(tool.id())?, tool, told })
    }

    /// Waits until dio-trace exits, which it does when the program has exited.
    fn end(self) -> Result<Seen> {
        let Told { lines, summed, summary } = (self.told)()?;
        let (status, usage) = wait(self.tool.id())?;
        if !status.success() {
            bail!("dio-trace failed ({status})");
        }
        Ok(Seen {
            counted: counted(&summary),
            told: lines,
            summed,
            lost: summary["lost"]["ring buffer full"].as_u64().unwrap_or(0),
            cpu_seconds: seconds(&usage) - self.before,
            kib: usage.ru_maxrss as u64,
        })
    }
}

/// dio-trace, and what gives its output.
type Started = (Child, Box<dyn FnOnce() -> Result<Told>>);

/// Attaches dio-trace with JSON lines.
fn lines(tool: &Path, pid: u32, output: Output) -> Result<Started> {
    let (child, pipe) = attach(tool, pid, &[])?;
    if output == Output::Stuck {
        return Ok((child, Box::new(|| read(pipe))));
    }
    let thread = thread::spawn(|| read(pipe));
    Ok((child, Box::new(|| thread.join().unwrap_or_else(|_| bail!("the reader died")))))
}

fn read(pipe: ChildStdout) -> Result<Told> {
    let (mut lines, mut summed, mut last) = (0, 0, String::new());
    for line in BufReader::new(pipe).lines() {
        last = line?;
        lines += u64::from(last.contains("\"kind\":\"request\""));
        if last.contains("\"kind\":\"lost_requests\"") {
            summed += serde_json::from_str::<Value>(&last)?["requests"].as_u64().unwrap_or(0);
        }
    }
    let summary = serde_json::from_str(&last).context("the last line is not a summary")?;
    Ok(Told { lines, summed: Some(summed), summary })
}

/// Records the program.
fn record(tool: &Path, pid: u32, output: Output) -> Result<Started> {
    const FILE: &str = "/tmp/rate.dio";
    let more: &[&str] = if output == Output::Every { &["--all"] } else { &[] };
    let words = ["record", "-p", &pid.to_string(), "--force", "-o", FILE];
    let (child, pipe) = start(tool, &[&words, more].concat())?;
    let reader = tool.to_owned();
    let told = move || {
        // Until it exits.
        io::copy(&mut BufReader::new(pipe), &mut io::sink())?;
        let report = cmd::output(Command::new(reader).args(["report", "--json", FILE]))?;
        let report: Value = serde_json::from_str(&report)?;
        let lines = report["requests_recorded"].as_u64().unwrap_or(0);
        Ok(Told { lines, summed: None, summary: report["summary"].clone() })
    };
    Ok((child, Box::new(told)))
}

/// The program: its threads read the file's blocks in turn.
pub(crate) fn load(args: &RateLoadArgs) -> Result<()> {
    wait_for_go()?;
    let start = Instant::now();
    let reads = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|_| scope.spawn(|| one_thread(args, start))).collect();
        let ended = threads.into_iter().map(|t| t.join().unwrap_or_else(|_| bail!("it died")));
        ended.sum::<Result<u64>>()
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let load = Load { reads, seconds, cpu_seconds: cpu_seconds(std::process::id())? };
    Ok(fs::write(&args.out, serde_json::to_vec(&load)?)?)
}

fn one_thread(args: &RateLoadArgs, start: Instant) -> Result<u64> {
    let file = open_direct(&args.file)?;
    let mut buffer = Buffer::new(BLOCK)?;
    let mut reads = 0;
    while start.elapsed() < READING {
        if args.pace != 0 {
            let due = Duration::from_secs_f64(reads as f64 * THREADS as f64 / args.pace as f64);
            thread::sleep(due.saturating_sub(start.elapsed()));
        }
        let at = (reads as usize % BLOCKS * BLOCK) as i64;
        read_block(&file, &mut buffer, at)?;
        reads += 1;
    }
    Ok(reads)
}
