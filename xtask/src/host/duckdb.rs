//! DuckDB, from PyPI, in a Python environment of its own.
use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::host::pypi::{self, Package};

const DUCKDB: Package = Package { name: "duckdb", version: "2.0.1" };
/// Reads SQL, prints the rows of its last statement as JSON, and the seconds that it took.
const SCRIPT: &str = "\
import duckdb, json, sys, time
sql = sys.stdin.read()
start = time.monotonic()
rows = duckdb.sql(sql).fetchall()
took = time.monotonic() - start
print(json.dumps([took, rows], default=str))
";

pub(crate) struct Answer {
    pub(crate) seconds: f64,
    pub(crate) rows: Vec<Vec<Value>>,
}

/// Asks DuckDB, where relative paths are those of `folder`.
pub(crate) fn ask(folder: &Path, sql: &str) -> Result<Answer> {
    let python = pypi::python(&pypi::environment(DUCKDB)?);
    let mut child = Command::new(python)
        .args(["-c", SCRIPT])
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start Python")?;
    child.stdin.take().context("Python has no input")?.write_all(sql.as_bytes())?;
    let out = child.wait_with_output()?;
    let talk = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "DuckDB: {}\n{sql}", talk.lines().last().unwrap_or("failed"));
    let (seconds, rows) = serde_json::from_slice(&out.stdout)?;
    Ok(Answer { seconds, rows })
}
