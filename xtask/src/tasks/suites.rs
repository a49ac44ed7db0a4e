//! Runs the guest's suite (all its scenarios, `xtask guest suite`) on several kernels, each in its
//! own VM, and collects the results.
use std::{collections::VecDeque, fs, path::Path, sync::Mutex, thread, time::Duration};

use anyhow::{Context, Result};

use crate::{
    cross,
    guest::contract::suite::Suite,
    host::{
        arch::Arch,
        cmd::text,
        packages::{self, Need},
        paths,
        step_runner::{Outcome, Step, timed},
    },
    vm::{
        boot::Setup,
        interrupts,
        kernels::{self, Kernel},
        platform::Platform,
        running::Stream,
        userland,
    },
};

/// The most mismatches to print for one run. Its suite.json has all of them.
const QUOTED: usize = 20;

/// The file next to a result that holds the dio-trace binary that it is of.
const TOOL: &str = "dio-trace";
/// The file next to a result that holds the arguments of the run: which fixtures it is of.
const WORDS: &str = "words";

/// One suite on one kernel.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// A kernel by its name: `6.12`, `6.12-arm64-16k`.
    pub(crate) kernel: &'static str,
    /// The kernel itself, if it is not one of Debian's archive.
    pub(crate) given: Option<Kernel>,
    /// fentry or kprobe: how dio-trace attaches.
    pub(crate) attach: &'static str,
    /// Further arguments for the guest's suite, which choose the fixtures.
    pub(crate) words: Vec<String>,
    /// How long the suite may take. After that it counts as hung.
    pub(crate) limit: Duration,
}

impl Run {
    /// The kernel, fetched if it is not in the cache.
    pub(crate) fn kernel(&self) -> Result<Kernel> {
        self.given.clone().map_or_else(|| kernels::find(self.kernel, None), Ok)
    }

    /// The name of the step and of its result's folder: `vm-6.12-fentry`.
    pub(crate) fn name(&self) -> String {
        format!("vm-{}-{}", self.kernel, self.attach)
    }
}

/// A finished run, passed or failed.
pub(crate) struct Done {
    pub(crate) run: Run,
    pub(crate) step: Step,
    /// `None` if the run failed before the suite wrote its result.
    pub(crate) suite: Option<Suite>,
}

/// The number of VMs to run in parallel: `wanted`, or else two if there are two CPUs.
pub(crate) fn at_once(wanted: Option<usize>) -> usize {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    wanted.unwrap_or(cpus.min(2)).max(1)
}

/// Gets everything that the runs need before the first VM boots: these tools, the kernels and the
/// binaries.
pub(crate) fn prepare(runs: &[Run], tools: &[&[Need]]) -> Result<()> {
    packages::ensure(tools)?;
    let mut arches: Vec<&Arch> = Vec::new();
    for run in runs {
        let arch = run.kernel()?.arch;
        if !arches.iter().any(|known| known.name == arch.name) {
            arches.push(arch);
        }
    }
    for arch in arches {
        packages::ensure(&[Platform::of(arch)?.needs])?;
        userland::root(arch)?;
        cross::programs(arch)?;
    }
    Ok(())
}

/// The result of an earlier run with the same arguments and the dio-trace binary of the current
/// build, if it passed.
pub(crate) fn kept(run: &Run) -> Option<Done> {
    let target = paths::target().ok()?;
    let out = target.join("vm-test").join(run.name());
    let read_both = |a, b| Some((fs::read(a).ok()?, fs::read(b).ok()?));
    let arch = kernels::cached(run.kernel).ok()??.arch;
    let (then, now) = read_both(out.join(TOOL), cross::folder(arch).ok()?.join("dio-trace"))?;
    let words = fs::read_to_string(out.join(WORDS)).ok()?;
    let suite = read(&out.join("suite.json"));
    let passed = matches!(evaluate(&suite, 0, &out), Outcome::Passed);
    (then == now && words == run.words.join(" ") && passed).then(|| {
        let step = timed(&format!("{} (before)", run.name()), || Ok(Outcome::Passed));
        Done { run: run.clone(), step, suite: suite.ok() }
    })
}

/// Runs the suites, up to `at_once` VMs in parallel. The results are in the order of `runs`.
pub(crate) fn run_all(runs: Vec<Run>, at_once: usize) -> Result<Vec<Done>> {
    let order: Vec<String> = runs.iter().map(Run::name).collect();
    let queue = Mutex::new(VecDeque::from(runs));
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while !interrupts::interrupted() {
                    let Some(run) = queue.lock().ok().and_then(|mut queue| queue.pop_front())
                    else {
                        break;
                    };
                    let mut suite = None;
                    let step = timed(&run.name(), || {
                        let (outcome, found) = one(&run)?;
                        suite = found;
                        Ok(outcome)
                    });
                    if let Ok(mut done) = done.lock() {
                        done.push(Done { run, step, suite });
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().map_err(|_| anyhow::anyhow!("a VM's thread died"))?;
    done.sort_by_key(|done| order.iter().position(|name| *name == done.step.name));
    Ok(done)
}

fn one(run: &Run) -> Result<(Outcome, Option<Suite>)> {
    let name = run.name();
    let kernel = run.kernel()?;
    let binaries = cross::folder(kernel.arch)?;
    let series = kernel.series.clone();
    let out = paths::target()?.join("vm-test").join(&name);
    paths::fresh(&out)?;
    let mut setup = Setup::new(kernel);
    setup.out = Some(out.clone());
    let (xtask, tool) = (binaries.join("xtask"), binaries.join("dio-trace"));
    let mut command = [
        text(&xtask)?,
        "guest",
        "suite",
        "--tool",
        text(&tool)?,
        "--attach",
        run.attach,
        "--series",
        &series,
        "--out",
        "/out/suite.json",
    ]
    .map(str::to_owned)
    .to_vec();
    command.extend(run.words.iter().cloned());
    let prefix = name.strip_prefix("vm-").unwrap_or(&name);
    let mut lines = [Lines::new(prefix), Lines::new(prefix)];
    let code = setup.once(&command, Some(run.limit), &mut |stream, bytes| {
        lines[usize::from(stream == Stream::Err)].add(bytes);
    });
    for rest in &mut lines {
        rest.end();
    }
    let code = code?;
    fs::copy(&tool, out.join(TOOL)).context("cannot copy dio-trace next to its result")?;
    fs::write(out.join(WORDS), run.words.join(" "))?;
    let suite = read(&out.join("suite.json"));
    Ok((evaluate(&suite, code, &out), suite.ok()))
}

fn evaluate(suite: &Result<Suite>, code: u8, out: &Path) -> Outcome {
    match (suite, code) {
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
    }
}

fn read(path: &Path) -> Result<Suite> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("the suite left no summary at {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not a summary", path.display()))
}

/// Prints only whole lines, each with a prefix, so that the output of two VMs can be mixed.
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

/// The mismatches of all runs, one per line, prefixed by the run's name; at most [`QUOTED`] per
/// run.
fn complaints(done: &[Done]) -> Vec<String> {
    let of = |done: &Done| {
        let all = done.suite.as_ref().map_or(&[][..], |suite| &suite.complaints);
        let more = all.len().saturating_sub(QUOTED);
        let rest = (more > 0).then(|| format!("and {more} more"));
        let name = done.run.name();
        let lines = all.iter().take(QUOTED).cloned().chain(rest);
        lines.map(|line| format!("{name}: {line}")).collect::<Vec<_>>()
    };
    done.iter().flat_map(of).collect()
}

/// Prints the table of the suites, and then the mismatches, so that they are at the end of a log.
pub(crate) fn table(done: &[Done]) {
    let suites: Vec<_> =
        done.iter().filter_map(|done| done.suite.as_ref().map(|suite| (done, suite))).collect();
    if suites.is_empty() {
        return;
    }
    println!();
    println!(
        "{:<21} {:>7} {:>6} {:>6} {:>7} {:>6}",
        "scenarios", "set-ups", "cells", "wrong", "missed", "extra"
    );
    for (done, suite) in suites {
        let name = done.step.name.trim_start_matches("vm-");
        println!(
            "{name:<21} {:>7} {:>6} {:>6} {:>7} {:>6}",
            suite.setups(),
            suite.cells,
            suite.wrong,
            suite.missed,
            suite.extra
        );
    }
    let wrong = complaints(done);
    if !wrong.is_empty() {
        println!();
        wrong.iter().for_each(|line| println!("{line}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_summary() {
        let path = std::env::temp_dir().join(format!("suite-{}", std::process::id()));
        fs::write(&path, r#"{"cells":3,"wrong":0,"missed":1,"extra":0,"setups":[{"name":"xfs","cells":2},{"name":"xfs","cells":1},{"name":"totals","cells":0}],"more":1}"#)
            .unwrap();
        let suite = read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!((suite.cells, suite.missed, suite.setups()), (3, 1, 1));
    }

    #[test]
    fn a_suite_passes_only_without_mismatches() {
        let out = Path::new("/out");
        let suite = |cells, missed| Ok(Suite { cells, missed, ..Suite::default() });
        assert!(matches!(evaluate(&suite(3, 0), 0, out), Outcome::Passed));
        assert!(matches!(evaluate(&suite(0, 0), 0, out), Outcome::Failed(_)));
        assert!(matches!(evaluate(&suite(3, 1), 0, out), Outcome::Failed(_)));
        assert!(matches!(evaluate(&suite(3, 0), 1, out), Outcome::Failed(_)));
        assert!(matches!(evaluate(&Err(anyhow::anyhow!("none")), 0, out), Outcome::Failed(_)));
    }
}
