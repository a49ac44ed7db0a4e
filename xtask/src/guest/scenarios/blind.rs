//! A tracer that does not see its own test requests: it says so and ends, and with `--force-blind`
//! it does not blame the program.
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context, Result};
use serde_json::Value;

use super::filters::job;
use crate::guest::{
    fixtures::{Place, mount},
    harness::{Tried, not_ended_with},
};

/// The number of runs of dio-trace.
pub(crate) const RUNS: u64 = 2;

/// Runs dio-trace twice by kprobes while no kprobe of this kernel fires; returns the mismatches.
pub(crate) fn check(tried: &Tried, places: &[Place], _: &Path) -> Result<Vec<String>> {
    let folder = &places[0].path;
    let marker = folder.join("was-run");
    let job = format!("{}: > {}", job(folder)?, marker.display());
    let run = |options: &[&str]| -> Result<Output> {
        Command::new(&tried.tool)
            .args(["run", "--json", "--attach", "kprobe"])
            .args(options)
            .args(["--", "sh", "-c", &job])
            .output()
            .context("cannot start dio-trace")
    };
    let disarmed = Disarmed::new()?;
    let refused = run(&[])?;
    let was_run = marker.exists();
    let forced = run(&["--force-blind"])?;
    drop(disarmed);

    let mut wrong: Vec<String> = not_ended_with(&refused, 1).into_iter().collect();
    let talk = String::from_utf8_lossy(&refused.stderr);
    for part in ["blind to requests by read, readv", "--attach fentry", "--force-blind"] {
        if !talk.contains(part) {
            wrong.push(format!("a blind tracer does not say `{part}`: {talk}"));
        }
    }
    if was_run {
        wrong.push("a blind tracer ran the command".to_owned());
    }
    wrong.extend(not_ended_with(&forced, 0));
    let json = String::from_utf8_lossy(&forced.stdout);
    let summary: Value = serde_json::from_str(json.lines().last().unwrap_or_default())
        .with_context(|| format!("no summary: {json}"))?;
    let answer = summary["answer"].as_str().unwrap_or_default();
    if !answer.contains("the tracer was blind to requests by read") || answer.contains("fdinfo") {
        wrong.push(format!("the answer is: {answer}"));
    }
    let gaps = summary["probes"]["missing"].as_array().into_iter().flatten();
    if !gaps.into_iter().any(|gap| gap["probe"] == "read" && gap["gap"] == "blind") {
        wrong.push(format!("no gap is blind: {}", summary["probes"]));
    }
    Ok(wrong)
}

/// No kprobe fires as long as this lives (Documentation/trace/kprobes.rst).
struct Disarmed(PathBuf);

impl Disarmed {
    fn new() -> Result<Self> {
        let debug = Path::new("/sys/kernel/debug");
        let switch = debug.join("kprobes/enabled");
        if !switch.exists() {
            mount(&["-t", "debugfs", "none"], debug)?;
        }
        fs::write(&switch, "0").with_context(|| format!("cannot write {}", switch.display()))?;
        Ok(Self(switch))
    }
}

impl Drop for Disarmed {
    fn drop(&mut self) {
        let _ = fs::write(&self.0, "1");
    }
}
