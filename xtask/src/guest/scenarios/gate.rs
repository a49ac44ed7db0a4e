//! `dio-trace run --fail-on`: the exit code and the reports that a CI job uses.
use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    guest::{
        direct_io::files::fill,
        fixtures::Place,
        harness::{Tried, not_ended_with},
    },
    host::cmd::text,
};

/// The number of runs of dio-trace.
pub(crate) const RUNS: u64 = 2;
/// Bytes of each file.
const SIZE: usize = 16 << 10;

/// Runs dio-trace twice on a command that reads a file of each folder with O_DIRECT; returns the
/// mismatches. On the second folder's file system, such reads go through the page cache.
pub(crate) fn check(tried: &Tried, places: &[Place], out: &Path) -> Result<Vec<String>> {
    let (tool, attach) = (&tried.tool, &tried.attach);
    let files = [0, 1].map(|n: usize| places[n].path.join("gate"));
    files.iter().try_for_each(|file| fill(file, SIZE))?;
    let [direct, cached] = [text(&files[0])?, text(&files[1])?];
    let run = |rules: &str, report: &Path, command: &str| {
        Command::new(tool)
            .args(["run", "--attach", attach, "--fail-on", rules, "--report", text(report)?])
            .args(["--", "sh", "-c", command])
            .output()
            .context("cannot start dio-trace")
    };
    let read =
        |file: &str, bytes: u32| format!("dd if={file} of=/dev/null iflag=direct bs={bytes}");
    let mut wrong = Vec::new();

    // Four reads through the page cache, and one that is refused.
    let report = out.join("gate.json");
    let command = format!("{}; {}", read(cached, 4096), read(direct, 100));
    let output = run("fallback,refused,partial", &report, &command)?;
    wrong.extend(not_ended_with(&output, 3));
    let json: Value = serde_json::from_slice(&fs::read(&report)?)?;
    let counts: Vec<Option<u64>> = (0..3).map(|n| json["rules"][n]["count"].as_u64()).collect();
    if counts != [Some(4), Some(1), Some(0)] || json["passed"] != false {
        wrong.push(format!("fallback, refused, partial: {counts:?}, not 4, 1, 0: {json}"));
    }
    for (path, cause) in [(cached, "data-journal"), (direct, "misaligned")] {
        let offenders = json["offenders"].as_array().into_iter().flatten();
        let mut of_file = offenders.filter(|offender| offender["path"] == path);
        if !of_file.any(|offender| offender["cause"] == cause) {
            wrong.push(format!("no offender {path} for {cause}: {json}"));
        }
    }

    // Fewer findings than the rule's minimum: dio-trace returns the command's own exit code.
    let report = out.join("gate.xml");
    let command = format!("{}; exit 7", read(cached, 4096));
    let output = run("fallback:5,short", &report, &command)?;
    wrong.extend(not_ended_with(&output, 7));
    let xml = fs::read_to_string(&report)?;
    if !xml.contains("tests=\"3\" failures=\"0\"") {
        wrong.push(format!("the report says a failure: {xml}"));
    }
    Ok(wrong)
}
