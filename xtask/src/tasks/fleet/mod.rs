//! `cargo xtask fleet`: runs the queries of docs/fleet.md in DuckDB, over made-up recordings of two
//! hosts.
use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};

use crate::host::{
    build,
    cmd::{self, output, say, text},
    duckdb, paths,
};

/// Run the queries of docs/fleet.md in DuckDB, and compare totals with `report`
#[derive(Args)]
pub(crate) struct FleetArgs {}

const HOSTS: &[&str] = &["db-17", "db-18"];
/// The folder of Parquet files that docs/fleet.md names.
const LAKE: &str = "lake";

pub(crate) fn main(_: &FleetArgs) -> Result<()> {
    let mut build = build::cargo()?;
    build.args(["build", "--locked", "--package", "dio-trace", "--bin", "dio-trace"]);
    cmd::run(build.args(["--example", "sample"]))?;
    let folder = paths::target()?.join("fleet");
    paths::fresh(&folder)?;
    let tool = paths::target()?.join("debug/dio-trace");
    for host in HOSTS {
        let recording = format!("{host}.dio");
        let mut sample = Command::new(paths::target()?.join("debug/examples/sample"));
        cmd::run(sample.args([recording.as_str(), host]).current_dir(&folder))?;
        let mut export = Command::new(&tool);
        export.args(["export", &recording, "--format", "parquet", "--partition", LAKE]);
        output(export.current_dir(&folder))?;
        totals(&tool, &folder, host)?;
    }
    let document = paths::workspace()?.join("docs/fleet.md");
    let document = fs::read_to_string(&document)
        .with_context(|| format!("cannot read {}", document.display()))?;
    let mut queries = 0;
    for block in document.split("```sql\n").skip(1) {
        let sql = block.split("```").next().unwrap_or_default();
        let answer = duckdb::ask(&folder, sql)?;
        ensure!(!answer.rows.is_empty(), "docs/fleet.md: a query returns no rows\n{sql}");
        queries += 1;
    }
    ensure!(queries > 0, "docs/fleet.md has no queries");
    say(format!(
        "{queries} queries of docs/fleet.md return rows; the totals equal those of report"
    ));
    Ok(())
}

/// Checks that requests by verdict, findings and bytes in the Parquet files equal those of
/// `report`.
fn totals(tool: &Path, folder: &Path, host: &str) -> Result<()> {
    let recording = folder.join(format!("{host}.dio"));
    let report = output(Command::new(tool).args(["report", "--json", text(&recording)?]))?;
    let report: Value = serde_json::from_str(&report)?;
    let summary = &report["summary"];
    let sql = format!(
        "select verdict, count(*), sum(finding::int)::bigint, \
         sum(direct_bytes)::bigint, sum(cached_bytes)::bigint \
         from read_parquet('{LAKE}/**/*.parquet', hive_partitioning = true) \
         where host = '{host}' group by 1"
    );
    let rows = duckdb::ask(folder, &sql)?.rows;
    let by_verdict: BTreeMap<&str, &Value> =
        rows.iter().filter_map(|row| Some((row[0].as_str()?, &row[1]))).collect();
    for (verdict, requests) in summary["requests"].as_object().context("no requests")? {
        let counted = by_verdict.get(verdict.as_str()).copied().cloned().unwrap_or(json!(0));
        ensure!(counted == *requests, "{host}: {counted} {verdict}, report has {requests}");
    }
    let sum = |column: usize| rows.iter().filter_map(|row| row[column].as_u64()).sum::<u64>();
    let bytes = &summary["bytes"];
    for (column, wanted) in
        [(2, &summary["findings"]), (3, &bytes["direct"]), (4, &bytes["cached"])]
    {
        ensure!(json!(sum(column)) == *wanted, "{host}: {} is not report's {wanted}", sum(column));
    }
    Ok(())
}
