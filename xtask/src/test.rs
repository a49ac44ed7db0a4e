//! `cargo xtask test`: everything that must hold, with a table at the end.
use std::{
    collections::VecDeque,
    fs,
    path::Path,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Deserialize;

use crate::{
    bpf::{self, Checked},
    build,
    cmd::{self, say, text},
    host, kernels, places,
    vm::{self, Setup, Stream},
};

/// The kernels the scenarios run on, and how dio-trace attaches there. The slowest come first, so
/// that two at once end together.
const SCENARIOS: &[(&str, &str)] = &[
    ("7.3", "fentry"),
    ("6.12", "kprobe"),
    ("6.12", "fentry"),
    ("6.1", "fentry"),
    ("6.18", "fentry"),
];
/// A suite that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// Format, lints, unit tests, the object's check, and the scenarios on real kernels
#[derive(Args)]
pub(crate) struct TestArgs {
    /// Leave the VMs out
    #[arg(long)]
    quick: bool,
    /// Only these steps: format, lint, unit, object, vm, or one VM such as vm-6.12-kprobe
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
    /// VMs at a time; default: 2 where there are 2 CPUs
    #[arg(long, value_name = "N")]
    vms: Option<usize>,
}

/// What the guest's suite writes to /out/suite.json.
#[derive(Deserialize)]
struct Suite {
    cells: u64,
    wrong: u64,
    missed: u64,
    extra: u64,
    #[serde(default)]
    setups: Vec<Scored>,
}

/// One set-up of one run.
#[derive(Deserialize)]
struct Scored {
    name: String,
    cells: u64,
}

enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

struct Step {
    name: String,
    outcome: Outcome,
    took: Duration,
    suite: Option<Suite>,
}

type Run = fn() -> Result<Outcome>;

pub(crate) fn main(args: &TestArgs) -> Result<u8> {
    vm::catch_interrupts();
    let plain: [(&str, Run); 4] =
        [("format", format), ("lint", lint), ("unit", unit), ("object", object)];
    let vms: Vec<(String, &str, &str)> = SCENARIOS
        .iter()
        .map(|(kernel, attach)| (format!("vm-{kernel}-{attach}"), *kernel, *attach))
        .collect();
    for wanted in &args.only {
        let known = wanted == "vm"
            || plain.iter().any(|(name, _)| name == wanted)
            || vms.iter().any(|(name, ..)| name == wanted);
        if !known {
            let names: Vec<&str> = plain
                .iter()
                .map(|(name, _)| *name)
                .chain(vms.iter().map(|(name, ..)| &**name))
                .collect();
            bail!(
                "no step is called `{wanted}`; there are {}, and vm for all VMs",
                names.join(", ")
            );
        }
    }
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    let vms: Vec<_> = vms
        .into_iter()
        .filter(|(name, ..)| !args.quick && (wanted(name) || wanted("vm")))
        .collect();

    let start = Instant::now();
    let mut steps = Vec::new();
    for (name, step) in plain.into_iter().filter(|(name, _)| wanted(name)) {
        steps.push(timed(name, step));
        stop_if_interrupted()?;
    }
    if !vms.is_empty() {
        let ready = timed("vm-build", || prepare(&vms).map(|()| Outcome::Passed));
        let failed = matches!(ready.outcome, Outcome::Failed(_));
        steps.push(ready);
        if !failed {
            let cpus = thread::available_parallelism().map_or(1, usize::from);
            steps.extend(scenarios(vms, args.vms.unwrap_or(cpus.min(2)).max(1))?);
        }
    }
    stop_if_interrupted()?;
    Ok(report(&steps, start.elapsed()))
}

fn stop_if_interrupted() -> Result<()> {
    if vm::interrupted() {
        bail!("interrupted");
    }
    Ok(())
}

fn timed(name: &str, step: impl FnOnce() -> Result<Outcome>) -> Step {
    say(format!("==> {name}"));
    let start = Instant::now();
    let outcome = step().unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
    let took = start.elapsed();
    let word = match &outcome {
        Outcome::Passed => "passed".to_owned(),
        Outcome::Failed(why) => format!("FAILED: {why}"),
        Outcome::Skipped(why) => format!("SKIPPED: {why}"),
    };
    say(format!("<== {name}: {word} ({} s)", took.as_secs()));
    Step { name: name.to_owned(), outcome, took, suite: None }
}

fn cargo(words: &[&str]) -> Result<Outcome> {
    cmd::run(build::cargo()?.args(words))?;
    Ok(Outcome::Passed)
}

fn format() -> Result<Outcome> {
    cargo(&["fmt", "--all", "--check"])
}

fn lint() -> Result<Outcome> {
    cargo(&["clippy", "--locked", "--all-targets", "--", "-D", "warnings"])
}

fn unit() -> Result<Outcome> {
    cargo(&["test", "--locked"])
}

fn object() -> Result<Outcome> {
    Ok(match bpf::check()? {
        Checked::Same => Outcome::Passed,
        Checked::Unable(why) => Outcome::Skipped(format!(
            "THE COMMITTED OBJECT WAS NOT CHECKED AGAINST ITS SOURCE: {why}"
        )),
    })
}

/// Everything that VMs need, before the first boots.
fn prepare(vms: &[(String, &str, &str)]) -> Result<()> {
    host::ensure(&[host::VM, host::SCENARIOS])?;
    for (_, kernel, _) in vms {
        kernels::find(kernel, None)?;
    }
    build::release(&["dio-trace", "xtask"]).map(drop)
}

/// Runs the suites, `at_once` VMs at a time.
fn scenarios(vms: Vec<(String, &str, &str)>, at_once: usize) -> Result<Vec<Step>> {
    let order: Vec<String> = vms.iter().map(|(name, ..)| name.clone()).collect();
    let queue = Mutex::new(VecDeque::from(vms));
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while !vm::interrupted() {
                    let Some((name, kernel, attach)) =
                        queue.lock().ok().and_then(|mut queue| queue.pop_front())
                    else {
                        break;
                    };
                    let mut suite = None;
                    let mut step = timed(&name, || {
                        let (outcome, found) = scenario(&name, kernel, attach)?;
                        suite = found;
                        Ok(outcome)
                    });
                    step.suite = suite;
                    if let Ok(mut done) = done.lock() {
                        done.push(step);
                    }
                }
            });
        }
    });
    let mut steps = done.into_inner().map_err(|_| anyhow::anyhow!("a VM's thread died"))?;
    steps.sort_by_key(|step| order.iter().position(|name| *name == step.name));
    Ok(steps)
}

fn scenario(name: &str, series: &str, attach: &str) -> Result<(Outcome, Option<Suite>)> {
    let binaries = places::target()?.join("release");
    let out = places::target()?.join("vm-test").join(name);
    places::fresh(&out)?;
    let mut setup = Setup::new(kernels::find(series, None)?);
    setup.out = Some(out.clone());
    let (xtask, tool) = (binaries.join("xtask"), binaries.join("dio-trace"));
    let command = [
        text(&xtask)?,
        "guest",
        "suite",
        "--tool",
        text(&tool)?,
        "--attach",
        attach,
        "--series",
        series,
        "--out",
        "/out/suite.json",
    ]
    .map(str::to_owned);
    let prefix = name.strip_prefix("vm-").unwrap_or(name);
    let mut lines = [Lines::new(prefix), Lines::new(prefix)];
    let code = setup.once(&command, Some(LIMIT), &mut |stream, bytes| {
        lines[usize::from(stream == Stream::Err)].add(bytes);
    });
    for rest in &mut lines {
        rest.end();
    }
    let code = code?;
    let suite = read_suite(&out.join("suite.json"));
    let outcome = match (&suite, code) {
        (Err(error), _) => Outcome::Failed(format!("exit code {code}; {error:#}")),
        (Ok(suite), 0) if suite.cells == 0 => Outcome::Failed("no cell was checked".to_owned()),
        (Ok(suite), 0) if suite.wrong + suite.missed + suite.extra == 0 => Outcome::Passed,
        (Ok(suite), _) => Outcome::Failed(format!(
            "{} wrong, {} missed, {} extra of {} cells (exit code {code}); see {}",
            suite.wrong,
            suite.missed,
            suite.extra,
            suite.cells,
            out.display()
        )),
    };
    Ok((outcome, suite.ok()))
}

fn read_suite(path: &Path) -> Result<Suite> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("the suite left no summary at {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no summary", path.display()))
}

/// Prints whole lines with a prefix, so that two VMs can talk at once.
struct Lines {
    prefix: String,
    half: Vec<u8>,
}

impl Lines {
    fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), half: Vec::new() }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.half.extend_from_slice(bytes);
        while let Some(at) = self.half.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.half.drain(..=at).collect();
            eprintln!("{} | {}", self.prefix, String::from_utf8_lossy(&line).trim_end());
        }
    }

    fn end(&mut self) {
        if !self.half.is_empty() {
            self.add(b"\n");
        }
    }
}

/// The tables, and the line that closes a test run.
fn report(steps: &[Step], took: Duration) -> u8 {
    println!();
    println!("{:<18} {:>6}  result", "step", "s");
    for step in steps {
        let word = match &step.outcome {
            Outcome::Passed => "passed",
            Outcome::Failed(why) => &format!("FAILED: {}", first_line(why)),
            Outcome::Skipped(why) => &format!("SKIPPED: {}", first_line(why)),
        };
        println!("{:<18} {:>6}  {word}", step.name, step.took.as_secs());
    }
    println!("{:<18} {:>6}", "all", took.as_secs());
    let suites: Vec<_> =
        steps.iter().filter_map(|step| step.suite.as_ref().map(|suite| (step, suite))).collect();
    if !suites.is_empty() {
        println!();
        println!(
            "{:<18} {:>7} {:>6} {:>6} {:>7} {:>6}",
            "scenarios", "set-ups", "cells", "wrong", "missed", "extra"
        );
        for (step, suite) in suites {
            let name = step.name.trim_start_matches("vm-");
            println!(
                "{name:<18} {:>7} {:>6} {:>6} {:>7} {:>6}",
                setups(suite),
                suite.cells,
                suite.wrong,
                suite.missed,
                suite.extra
            );
        }
    }
    let count = |is: fn(&Outcome) -> bool| steps.iter().filter(|step| is(&step.outcome)).count();
    let passed = count(|outcome| matches!(outcome, Outcome::Passed));
    let failed = count(|outcome| matches!(outcome, Outcome::Failed(_)));
    let skipped = count(|outcome| matches!(outcome, Outcome::Skipped(_)));
    println!();
    if skipped > 0 {
        println!("{passed} passed, {failed} failed, {skipped} skipped");
    } else {
        println!("{passed} passed, {failed} failed");
    }
    u8::from(failed > 0)
}

/// Set-ups that had cells; each is there once for every run of the suite.
fn setups(suite: &Suite) -> usize {
    let names = suite.setups.iter().filter(|setup| setup.cells != 0).map(|setup| &*setup.name);
    names.collect::<std::collections::BTreeSet<_>>().len()
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_summary() {
        let path = std::env::temp_dir().join(format!("suite-{}", std::process::id()));
        fs::write(&path, r#"{"cells":3,"wrong":0,"missed":1,"extra":0,"setups":[{"name":"xfs","cells":2},{"name":"xfs","cells":1},{"name":"totals","cells":0}],"more":1}"#)
            .unwrap();
        let suite = read_suite(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!((suite.cells, suite.missed, setups(&suite)), (3, 1, 1));
    }
}
