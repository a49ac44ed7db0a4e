//! Runs SQL with DuckDB, which is fetched from PyPI into its own Python environment.
use std::{path::Path, process::Command};

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::host::{
    cmd::fed,
    pypi::{self, Package},
};

const DUCKDB: Package = Package { name: "duckdb", version: "2.0.1" };
/// Reads SQL from stdin and prints JSON: the seconds that it took and the rows of its last
/// statement.
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

/// Runs SQL. Relative paths in it are relative to `folder`.
pub(crate) fn ask(folder: &Path, sql: &str) -> Result<Answer> {
    let python = pypi::python(&pypi::environment(DUCKDB)?);
    let out = fed(Command::new(python).args(["-c", SCRIPT]).current_dir(folder), sql)?;
    let stderr = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "DuckDB: {}\n{sql}", stderr.lines().last().unwrap_or("failed"));
    let (seconds, rows) = serde_json::from_slice(&out.stdout)?;
    Ok(Answer { seconds, rows })
}
