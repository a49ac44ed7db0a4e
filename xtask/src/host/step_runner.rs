//! Runs the steps of a long command, and prints a table of their outcomes and times at the end.
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::host::cmd::say;

pub(crate) enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) outcome: Outcome,
    took: Duration,
}

/// Runs a step, and reports its start and its outcome as progress.
pub(crate) fn timed(name: &str, step: impl FnOnce() -> Result<Outcome>) -> Step {
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
    Step { name: name.to_owned(), outcome, took }
}

/// Prints the table of all steps.
pub(crate) fn table(steps: &[Step], took: Duration) {
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
}

/// Prints how many steps passed, failed and were skipped. Returns the exit code: 1 if any failed.
pub(crate) fn close(steps: &[Step]) -> u8 {
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

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
