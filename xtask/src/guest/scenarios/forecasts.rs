//! Compares `dio-trace check` with the scenarios: what it predicts for a file must be what the
//! kernel does with the file's requests.
use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::guest::{
    fixtures::Place,
    matrix::cells::{Cell, Expect, Stage},
};

/// Each part of the JSON answer, with the case and the API of the cell that it must agree with.
const PARTS: &[(&str, &str, &str)] = &[
    ("read", "r_aligned4k", "pread"),
    ("overwrite", "w_over4k", "pwrite"),
    ("extend", "w_extend", "pwrite"),
];

/// Runs `dio-trace check` on one file of each fixture; returns the number of answers compared and
/// the mismatches.
pub(crate) fn check(tool: &Path, places: &[(Place, Vec<Cell>)]) -> Result<(u64, Vec<String>)> {
    let (mut answers, mut wrong) = (0, Vec::new());
    for (place, cells) in places {
        let Some(first) = cell(cells, PARTS[0]) else { continue };
        let path = file(place, first);
        let (report, code) = ask(tool, &["--json"], &path)?;
        let (asked, untried) = ask(tool, &["--json", "--no-probe"], &path)?;
        let broken = contract(&report, code).into_iter().chain(contract(&asked, untried));
        wrong.extend(broken.map(|why| format!("check: {}: {why}", place.setup.name)));
        for part in PARTS {
            let Some(cell) = cell(cells, *part) else { continue };
            answers += 1;
            wrong.extend(judge(&report[part.0], cell).map(|why| {
                format!("check: {} {}: {why}: {}", place.setup.name, part.0, report[part.0])
            }));
        }
    }
    Ok((answers, wrong))
}

fn cell<'a>(cells: &'a [Cell], (_, case, api): (&str, &str, &str)) -> Option<&'a Cell> {
    cells.iter().find(|cell| cell.case == case && cell.api == api)
}

/// The file of a cell; for a fixture that is a device or a single file, that one.
fn file(place: &Place, cell: &Cell) -> PathBuf {
    if place.path.is_dir() { place.path.join(cell.name()) } else { place.path.clone() }
}

/// Runs `dio-trace check`; returns its JSON report and the exit code.
fn ask(tool: &Path, words: &[&str], path: &Path) -> Result<(Value, Option<i32>)> {
    let out = Command::new(tool).arg("check").args(words).arg(path).output();
    let out = out.context("cannot start dio-trace check")?;
    let text = String::from_utf8_lossy(&out.stdout);
    let report = serde_json::from_str(&text).with_context(|| {
        let talk = String::from_utf8_lossy(&out.stderr);
        format!("check {}: no JSON: {text} {talk}", path.display())
    })?;
    Ok((report, out.status.code()))
}

/// The mismatch of a report that claims more than was proven: only a proven report may say `direct`
/// and exit with 0.
fn contract(report: &Value, code: Option<i32>) -> Option<String> {
    let answers: Vec<&Value> =
        PARTS.iter().map(|part| &report[part.0]).filter(|answer| !answer.is_null()).collect();
    let proven = answers.iter().all(|answer| answer["proof"].is_string());
    let right = match report["overall"].as_str() {
        Some("direct") => code == Some(0) && proven && report["proven"] == true,
        Some("not") => code == Some(1),
        Some("unknown") => code == Some(2) && report["proven"] == false,
        _ => false,
    };
    (!right).then(|| format!("ended with {code:?}: {report}"))
}

/// The mismatch between an answer and a cell. An answer that was not proven may be `unknown`.
fn judge(answer: &Value, cell: &Cell) -> Option<String> {
    let said = answer["verdict"].as_str().unwrap_or("nothing");
    let open = answer["proof"].is_null() && said == "unknown";
    let fits = |expect: &Expect| match expect {
        Expect::Request { verdict, .. } => said == *verdict,
        Expect::NoRequest { at: Stage::Open, .. } => said == "refused" || said == "nothing",
        Expect::NoRequest { .. } => false,
    };
    (!open && !cell.expect.iter().any(fits)).then(|| {
        let expected: Vec<String> = cell.expect.iter().map(|e| format!("{e:?}")).collect();
        format!("says {said}, not {}", expected.join(" or "))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_forecast_is_not_a_success() {
        let proven = json!({ "verdict": "direct", "proof": "seen" });
        let forecast = json!({ "verdict": "direct", "proof": null });
        let report = |overall: &str, proof: bool, read: &Value| json!({ "overall": overall, "proven": proof, "read": read, "overwrite": null });
        assert_eq!(contract(&report("direct", true, &proven), Some(0)), None);
        assert_eq!(contract(&report("unknown", false, &forecast), Some(2)), None);
        assert_eq!(contract(&report("not", false, &forecast), Some(1)), None);
        assert!(contract(&report("direct", true, &forecast), Some(0)).is_some());
        assert!(contract(&report("unknown", false, &forecast), Some(0)).is_some());
        assert!(contract(&report("direct", true, &proven), Some(2)).is_some());
        assert!(contract(&json!({}), Some(2)).is_some());
    }
}
