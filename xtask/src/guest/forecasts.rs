//! `dio-trace check` against the scenarios: what it says of a file before anybody traces must be
//! what becomes of the file's requests.
use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{
    cells::{Cell, Expect, Stage},
    setups::Place,
};

/// Each part of the answer, and the cell that shows it.
const PARTS: &[(&str, &str, &str)] = &[
    ("read", "r_aligned4k", "pread"),
    ("overwrite", "w_over4k", "pwrite"),
    ("extend", "w_extend", "pwrite"),
];

/// Asks about one file of each set-up; the number of answers compared, and what is wrong with them.
pub(super) fn check(tool: &Path, places: &[(Place, Vec<Cell>)]) -> Result<(u64, Vec<String>)> {
    let (mut answers, mut wrong) = (0, Vec::new());
    for (place, cells) in places {
        let Some(first) = cell(cells, PARTS[0]) else { continue };
        let report = ask(tool, &file(place, first))?;
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

/// A device is asked itself.
fn file(place: &Place, cell: &Cell) -> PathBuf {
    if place.path.is_dir() { place.path.join(cell.name()) } else { place.path.clone() }
}

fn ask(tool: &Path, path: &Path) -> Result<Value> {
    let out = Command::new(tool).args(["check", "--json"]).arg(path).output();
    let out = out.context("cannot start dio-trace check")?;
    let text = String::from_utf8_lossy(&out.stdout);
    serde_json::from_str(&text).with_context(|| {
        let talk = String::from_utf8_lossy(&out.stderr);
        format!("check {}: no JSON: {text} {talk}", path.display())
    })
}

/// What is wrong with an answer. One that was not proven may be that nobody can tell.
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
