//! `dio-trace record`: a recording must have the requests that were made.
use std::{path::Path, process::Command};

use anyhow::{Context, Result};

use crate::{
    guest::{
        fixtures::Place,
        harness::{Tried, not_ended_with},
        scenarios::filters::{self, REQUESTS},
    },
    host::cmd::text,
};

/// Records a command that makes requests in the first folder, and reads the recording; returns the
/// mismatches.
pub(crate) fn check(tried: &Tried, places: &[Place], out: &Path) -> Result<Vec<String>> {
    let (tool, attach, folder) = (&tried.tool, &tried.attach, &places[0].path);
    const CODE: i32 = 7;
    let file = out.join("recording.dio");
    let file = text(&file)?;
    let run =
        |words: &[&str]| Command::new(tool).args(words).output().context("cannot start dio-trace");
    let job = filters::job(folder)? + &format!("exit {CODE}");
    let command = ["run", "--attach", attach, "--", "sh", "-c", &job];
    let record = ["record", "--force", "--all", "-o", file];
    let recorded = run(&[&record[..], &command[..]].concat())?;
    let exported = run(&["export", "--format", "jsonl", file])?;
    let reported = run(&["report", file])?;
    let mut wrong = Vec::new();
    wrong.extend(not_ended_with(&recorded, CODE));
    wrong.extend(not_ended_with(&exported, 0));
    wrong.extend(not_ended_with(&reported, 0));
    let lines = String::from_utf8_lossy(&exported.stdout);
    wrong.extend(filters::compare(&lines, REQUESTS, "record --all, export"));
    let page = String::from_utf8_lossy(&reported.stdout);
    if !page.contains(&format!("{REQUESTS} ended, 0 in flight, 0 unmatched; lost none")) {
        wrong.push(format!("report: not {REQUESTS} requests, or a loss: {page}"));
    }
    wrong.extend(flight(tool, attach, &filters::job(folder)?, out)?);
    Ok(wrong)
}

/// Runs a flight recorder, which writes its file on SIGUSR1 and at the end; returns the mismatches.
fn flight(tool: &Path, attach: &str, job: &str, out: &Path) -> Result<Vec<String>> {
    let base = out.join("flight.dio");
    let dumps = [1, 2].map(|n| out.join(format!("flight.dio.{n}")));
    for dump in &dumps {
        // May exist from an earlier run.
        let _ = std::fs::remove_file(dump);
    }
    let run =
        |words: &[&str]| Command::new(tool).args(words).output().context("cannot start dio-trace");
    let record = ["record", "--all", "--flight-recorder", "1M", "-o", text(&base)?];
    let job = format!("{job}sleep 1; kill -USR1 $PPID; sleep 1");
    let command = ["run", "--attach", attach, "--", "sh", "-c", &job];
    let mut wrong = Vec::new();
    wrong.extend(not_ended_with(&run(&[&record[..], &command[..]].concat())?, 0));
    for dump in &dumps {
        let exported = run(&["export", "--format", "jsonl", text(dump)?])?;
        wrong.extend(not_ended_with(&exported, 0));
        let lines = String::from_utf8_lossy(&exported.stdout);
        wrong.extend(filters::compare(&lines, REQUESTS, "record --flight-recorder, export"));
    }
    Ok(wrong)
}
