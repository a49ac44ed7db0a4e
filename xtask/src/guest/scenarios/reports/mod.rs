//! Causes and fixes that public reports taught. Each module makes what a report describes, checks
//! the cause that dio-trace gives, carries the fix out, and checks that it works.
//!
//! - [`memory`]: buffers that the kernel cannot pin
//! - [`loops`]: a loop device over sectors of 4096 bytes
//! - [`daemon`]: a FUSE daemon whose own request is refused
//! - [`copies`]: a btrfs that keeps its data in copies
//! - [`nowait`]: RWF_NOWAIT that gains nothing
//! - [`waits`]: what a request that must not wait would have waited for
//! - [`flags`]: flags of the call that a file does not take
//! - [`stable`]: a buffer that changes while it is written
//! - [`probing`]: reads that try alignments out
//! - [`segments`]: vectors that are refused for two reasons
mod copies;
mod daemon;
pub(crate) mod flags;
mod loops;
pub(crate) mod memory;
pub(crate) mod nowait;
pub(crate) mod probing;
pub(crate) mod segments;
pub(crate) mod stable;
pub(crate) mod waits;

use std::{
    cell::Cell,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    guest::{
        fixtures::Place,
        harness::{Traces, Tried, requests, stop, wait_until_tracing},
    },
    host::{
        cmd::{say, text},
        paths,
    },
};

/// The number of runs of dio-trace.
pub(crate) const RUNS: u64 = 27;
pub(crate) const SETUPS: &[&str] = &["ext4-512", "ext4-4kn", "btrfs-dup", "xfs-512", "scsi-medium"];

/// One report; returns the mismatches.
type Case = fn(&Trial<'_>, &Path) -> Result<Vec<String>>;

/// Each report with the fixture that it needs.
const CASES: &[(&str, &str, Case)] = &[
    ("buffers that cannot be pinned", "ext4-512", memory::check),
    ("loop device over larger sectors", "ext4-4kn", loops::check),
    ("FUSE daemon refuses", "ext4-512", daemon::check),
    ("btrfs data in copies", "btrfs-dup", copies::check),
    ("RWF_NOWAIT gains nothing", "xfs-512", nowait::check),
    ("time stamps, by --why-eagain", "xfs-512", waits::check_timestamps),
    ("dirty pages and locks, by --why-eagain", "ext4-512", waits::check_ext4),
    ("flags of the call", "ext4-512", flags::check),
    ("atomic writes", "scsi-medium", flags::check_atomic),
    ("a buffer that changes", "ext4-512", stable::check),
    ("alignment probe, sectors of 512 bytes", "ext4-512", probing::check),
    ("alignment probe, sectors of 4096 bytes", "ext4-4kn", probing::check_4kn),
    ("segments refused for two reasons", "ext4-512", segments::check),
];

/// Runs each report; returns the mismatches.
pub(crate) fn check(tried: &Tried, places: &[Place], out: &Path) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let trial = Trial { tried, out, runs: Cell::new(0) };
    let mut left_out = false;
    for (name, setup, case) in CASES {
        say(format!("reports: {name}"));
        let place = places.iter().find(|place| place.setup.name == *setup);
        let Some(place) = place else {
            say(format!("reports: {name}: left out: there is no {setup} here"));
            left_out = true;
            continue;
        };
        let mismatches =
            case(&trial, &place.path).unwrap_or_else(|error| vec![format!("{error:#}")]);
        wrong.extend(mismatches.into_iter().map(|text| format!("{name}: {text}")));
    }
    let runs = trial.runs.get();
    if !left_out && wrong.is_empty() && runs != RUNS {
        wrong.push(format!("{runs} runs of dio-trace, and RUNS says {RUNS}"));
    }
    Ok(wrong)
}

/// Runs dio-trace for a report.
struct Trial<'a> {
    tried: &'a Tried,
    out: &'a Path,
    /// The runs so far.
    runs: Cell<u64>,
}

impl Trial<'_> {
    /// Traces a command with `run --all`; returns the requests.
    fn run(&self, command: &[&str]) -> Result<Vec<Seen>> {
        self.run_with_summary(command).map(|(_, seen, _)| seen)
    }

    /// Traces a command with `run --all`; returns what it wrote to stdout, the requests, and the
    /// summary.
    fn run_with_summary(&self, command: &[&str]) -> Result<(String, Vec<Seen>, Value)> {
        self.run_with(&[], command)
    }

    /// [`Trial::run_with_summary`] with further options.
    fn run_with(&self, options: &[&str], command: &[&str]) -> Result<(String, Vec<Seen>, Value)> {
        let traces = Traces::new(self.out, "reports");
        let mut tool = self.tool("run", &traces)?;
        let output = tool
            .args(options)
            .arg("--")
            .args(command)
            .output()
            .context("cannot start dio-trace")?;
        let json = fs::read_to_string(&traces.json).context("dio-trace wrote no JSON")?;
        let summary = json.lines().last().context("dio-trace wrote nothing")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok((said, requests(&json)?, serde_json::from_str(summary)?))
    }

    /// [`Trial::run_with`] for a guest word of this program.
    fn run_guest(&self, options: &[&str], words: &[&str]) -> Result<(String, Vec<Seen>, Value)> {
        let me = paths::own_program()?;
        self.run_with(options, &[&[text(&me)?, "guest"], words].concat())
    }

    /// Traces all processes with `audit --all` while a command runs; returns the requests.
    fn audit(&self, command: &[&str]) -> Result<Vec<Seen>> {
        let traces = Traces::new(self.out, "reports");
        let mut tool = self.tool("audit", &traces)?;
        let mut tool = tool.stderr(File::create(&traces.talk)?).spawn()?;
        wait_until_tracing(&mut tool, &traces)?;
        // Its exit code is not compared: a request of it may be refused.
        Command::new(command[0]).args(&command[1..]).output()?;
        stop(tool, &traces)?;
        read(&traces)
    }

    /// dio-trace, with JSON lines of every request.
    fn tool(&self, verb: &str, traces: &Traces) -> Result<Command> {
        let mut tool = self.plain_tool(verb, traces)?;
        tool.args(["--all", "--json"]);
        Ok(tool)
    }

    /// dio-trace, with its output in a file.
    fn plain_tool(&self, verb: &str, traces: &Traces) -> Result<Command> {
        self.runs.set(self.runs.get() + 1);
        let mut tool = Command::new(&self.tried.tool);
        tool.args([verb, "--attach", &self.tried.attach, "-o", text(&traces.json)?]);
        Ok(tool)
    }
}

/// The numbers that a program printed, one a line.
fn results(said: &str) -> Result<Vec<i64>> {
    let results: Result<Vec<i64>, _> = said.lines().map(str::parse).collect();
    results.with_context(|| format!("the program said {said}"))
}

fn read(traces: &Traces) -> Result<Vec<Seen>> {
    requests(&fs::read_to_string(&traces.json).context("dio-trace wrote no JSON")?)
}

/// What a record says of a request.
#[derive(Clone, Debug, Deserialize)]
struct Seen {
    op: String,
    path: PathBuf,
    ret: i64,
    verdict: String,
    cause: Option<String>,
    why: Option<String>,
    fix: Option<String>,
    flags: Vec<String>,
    would_block: Vec<String>,
    finding: bool,
}

impl Seen {
    /// The mismatch of a request that is not explained by this cause, with these words in the
    /// reason and in the fix.
    fn explained(&self, cause: &str, why: &str, fix: &str) -> Option<String> {
        let has =
            |text: &Option<String>, part: &str| text.as_deref().unwrap_or_default().contains(part);
        let right =
            self.cause.as_deref() == Some(cause) && has(&self.why, why) && has(&self.fix, fix);
        (!right).then(|| format!("not {cause} with \"{why}\" and \"{fix}\": {self:?}"))
    }
}

/// The requests on a file; a mismatch if their number is another.
fn on<'a>(seen: &'a [Seen], path: &Path, wanted: usize) -> Result<Vec<&'a Seen>, String> {
    let found: Vec<&Seen> = seen.iter().filter(|seen| seen.path == path).collect();
    if found.len() == wanted {
        return Ok(found);
    }
    Err(format!("{} requests on {}, not {wanted}: {seen:?}", found.len(), path.display()))
}
