//! The harness: starts a program and dio-trace on it, waits for both, and reads what dio-trace
//! wrote.
use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use aya::programs::loaded_programs;
use clap::Args;
use serde::de::DeserializeOwned;

use crate::guest::contract::json::{self, Report};

/// The dio-trace binary under test, and how it must attach.
#[derive(Args, Clone, Debug)]
pub(crate) struct Tried {
    /// Path of the dio-trace binary
    #[arg(long)]
    pub(crate) tool: PathBuf,
    /// fentry or kprobe: how dio-trace must attach
    #[arg(long)]
    pub(crate) attach: String,
    /// The kernel series, which chooses the scenarios' column
    #[arg(long)]
    pub(crate) series: String,
}

/// Files that one run of dio-trace leaves in the result's folder: the program's tally, dio-trace's
/// JSON, and dio-trace's stderr (`talk`).
pub(crate) struct Traces {
    pub(crate) tally: PathBuf,
    pub(crate) json: PathBuf,
    pub(crate) talk: PathBuf,
}

impl Traces {
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let file = |end: &str| folder.join(format!("{name}.{end}"));
        Self { tally: file("tally"), json: file("jsonl"), talk: file("talk") }
    }

    /// Parses dio-trace's JSON output.
    pub(crate) fn report(&self) -> Result<Report> {
        let json = fs::read_to_string(&self.json).context("dio-trace wrote no JSON")?;
        json::report(&json)
    }
}

/// A process that prints `ready` and then waits for a line on stdin.
pub(crate) struct Program {
    pub(crate) child: Child,
    talk: BufReader<ChildStdout>,
}

impl Program {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the workload")?;
        let mut talk = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut line = String::new();
        talk.read_line(&mut line)?;
        if line.trim() != "ready" {
            let status = child.wait()?;
            bail!("the workload did not get ready ({status}): {line}");
        }
        Ok(Self { child, talk })
    }

    /// Lets the program make its requests, and waits until it exits.
    pub(crate) fn go(&mut self) -> Result<()> {
        let mut stdin = self.child.stdin.take().context("no stdin")?;
        stdin.write_all(b"go\n")?;
        drop(stdin);
        let mut rest = String::new();
        self.talk.read_line(&mut rest)?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the workload failed ({status}) {rest}");
        }
        Ok(())
    }
}

/// The program's side of [`Program`]: prints `ready` and waits for the line on stdin.
pub(crate) fn wait_for_go() -> Result<()> {
    println!("ready");
    io::stdin().lock().read_line(&mut String::new()).map(drop).context("cannot read stdin")
}

/// Limit for attaching, which can take minutes on a loaded machine that emulates the CPU.
const ATTACHING: Duration = Duration::from_secs(300);

/// Waits until dio-trace reports on stderr that it traces.
pub(crate) fn wait_until_tracing(tool: &mut Child, traces: &Traces) -> Result<()> {
    let start = Instant::now();
    loop {
        let talk = fs::read_to_string(&traces.talk).unwrap_or_default();
        if talk.contains("dio-trace: tracing") {
            return Ok(());
        }
        if let Some(status) = tool.try_wait()? {
            bail!("dio-trace ended ({status}): {}", talk.trim());
        }
        if start.elapsed() > ATTACHING {
            bail!("dio-trace did not attach within {} s: {}", ATTACHING.as_secs(), talk.trim());
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// The instructions that the verifier walked for each eBPF program that is loaded now; none on
/// kernels before 5.16. Names are cut to 15 characters by the kernel; of programs whose names are
/// then the same the largest number counts.
pub(crate) fn verified_instructions() -> Result<BTreeMap<String, u32>> {
    let mut programs: BTreeMap<String, u32> = BTreeMap::new();
    for program in loaded_programs() {
        let program = program.context("cannot list the loaded programs")?;
        let (Some(name), Some(verified)) =
            (program.name_as_str(), program.verified_instruction_count())
        else {
            continue;
        };
        let most = programs.entry(name.to_owned()).or_default();
        *most = verified.max(*most);
    }
    Ok(programs)
}

/// Parses the request lines of dio-trace's JSON output.
pub(crate) fn requests<T: DeserializeOwned>(json: &str) -> Result<Vec<T>> {
    let lines = json.lines().filter(|line| line.contains("\"kind\":\"request\""));
    lines.map(|line| serde_json::from_str(line).context("cannot parse a request line")).collect()
}

/// A mismatch message when a program did not exit with this code; `None` when it did.
pub(crate) fn not_ended_with(output: &Output, code: i32) -> Option<String> {
    let talk = String::from_utf8_lossy(&output.stderr);
    (output.status.code() != Some(code))
        .then(|| format!("ended with {}, not {code}: {}", output.status, talk.trim()))
}

/// Stops dio-trace as Ctrl-C does, and waits as [`end`].
pub(crate) fn stop(tool: Child, traces: &Traces) -> Result<()> {
    // SAFETY: our own child, which has not been waited for.
    unsafe { libc::kill(tool.id() as libc::pid_t, libc::SIGINT) };
    end(tool, traces)
}

/// Waits until dio-trace exits, and fails unless it exits with 0.
pub(crate) fn end(mut tool: Child, traces: &Traces) -> Result<()> {
    let status = tool.wait()?;
    if !status.success() {
        let talk = fs::read_to_string(&traces.talk).unwrap_or_default();
        bail!("dio-trace failed ({status}): {}", talk.trim());
    }
    Ok(())
}
