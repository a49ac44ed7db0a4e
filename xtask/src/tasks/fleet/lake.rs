//! Recordings of two hosts, exported to Parquet files by host and hour, in the engines that
//! docs/fleet.md names: each has to give the totals of `report`.
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Compared;
use crate::host::{
    build,
    cmd::{self, output, say, text},
    duckdb, packages, paths,
    pypi::{self, Package},
};

const HOSTS: &[&str] = &["db-17", "db-18"];
/// The folder of Parquet files that docs/fleet.md names.
const LAKE: &str = "lake";

const CHDB: Package = Package { name: "chdb", version: "4.4.0" };
const PYSPARK: Package = Package { name: "pyspark", version: "4.1.4" };

/// Sums of one verdict: requests, findings, direct and cached bytes.
type Sums = [u64; 4];

/// Sums by verdict.
type ByVerdict = BTreeMap<String, Sums>;

/// The exported recordings.
struct Lake {
    folder: PathBuf,
    /// What `report` says of each host.
    reports: Vec<(&'static str, Value)>,
}

/// The lake of this run.
static MADE: OnceLock<Lake> = OnceLock::new();

impl Lake {
    /// The recordings and their export, made when an engine first asks.
    fn get() -> Result<&'static Self> {
        if let Some(lake) = MADE.get() {
            return Ok(lake);
        }
        let lake = Self::make()?;
        Ok(MADE.get_or_init(|| lake))
    }

    fn make() -> Result<Self> {
        let mut build = build::cargo()?;
        build.args(["build", "--locked", "--package", "dio-trace", "--bin", "dio-trace"]);
        cmd::run(build.args(["--example", "sample"]))?;
        let folder = paths::target()?.join("fleet");
        paths::fresh(&folder)?;
        let tool = paths::target()?.join("debug/dio-trace");
        let mut reports = Vec::new();
        for host in HOSTS {
            let recording = format!("{host}.dio");
            let mut sample = Command::new(paths::target()?.join("debug/examples/sample"));
            cmd::run(sample.args([recording.as_str(), host]).current_dir(&folder))?;
            let mut export = Command::new(&tool);
            export.args(["export", &recording, "--format", "parquet", "--partition", LAKE]);
            output(export.current_dir(&folder))?;
            let recording = folder.join(recording);
            let mut report = Command::new(&tool);
            let report = output(report.args(["report", "--json", text(&recording)?]))?;
            reports.push((*host, serde_json::from_str(&report)?));
        }
        Ok(Self { folder, reports })
    }

    /// Asks an engine for the sums of each host, and compares them with the host's report.
    fn compare(
        &self,
        engine: &str,
        ask: impl Fn(&Path, &str) -> Result<ByVerdict>,
    ) -> Result<Vec<Compared>> {
        let mut rows = Vec::new();
        for (host, report) in &self.reports {
            let start = Instant::now();
            let sums = ask(&self.folder, host)?;
            let seconds = start.elapsed().as_secs_f64();
            rows.push(same(engine, host, &sums, &report["summary"], seconds)?);
        }
        Ok(rows)
    }
}

/// Checks that requests by verdict, findings and bytes equal those of the summary.
fn same(
    engine: &str,
    host: &str,
    sums: &ByVerdict,
    summary: &Value,
    seconds: f64,
) -> Result<Compared> {
    for (verdict, requests) in summary["requests"].as_object().context("no requests")? {
        let counted = sums.get(verdict).map_or(0, |sums| sums[0]);
        ensure!(
            Some(counted) == requests.as_u64(),
            "{engine}, {host}: {counted} {verdict}, report has {requests}"
        );
    }
    let sum = |column: usize| sums.values().map(|sums| sums[column]).sum::<u64>();
    let bytes = &summary["bytes"];
    for (column, wanted) in
        [(1, &summary["findings"]), (2, &bytes["direct"]), (3, &bytes["cached"])]
    {
        ensure!(
            Some(sum(column)) == wanted.as_u64(),
            "{engine}, {host}: {} is not report's {wanted}",
            sum(column)
        );
    }
    Ok(Compared {
        engine: engine.to_owned(),
        of: host.to_owned(),
        requests: sum(0),
        findings: sum(1),
        direct_bytes: sum(2),
        cached_bytes: sum(3),
        seconds,
    })
}

/// Rows of verdict, requests, findings, direct and cached bytes.
fn by_verdict(rows: &[Vec<Value>]) -> Result<ByVerdict> {
    rows.iter()
        .map(|row| {
            let number = |at: usize| {
                let value = row.get(at).context("too few columns")?;
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                text.parse::<u64>().with_context(|| format!("`{text}` is not a number"))
            };
            let verdict = row.first().and_then(Value::as_str).context("no verdict")?;
            Ok((verdict.to_owned(), [number(1)?, number(2)?, number(3)?, number(4)?]))
        })
        .collect()
}

/// Runs the queries of docs/fleet.md, and compares the totals.
pub(super) fn duckdb() -> Result<Vec<Compared>> {
    let lake = Lake::get()?;
    let document = paths::workspace()?.join("docs/fleet.md");
    let document = fs::read_to_string(&document)
        .with_context(|| format!("cannot read {}", document.display()))?;
    let mut queries = 0;
    for block in document.split("```sql\n").skip(1) {
        let sql = block.split("```").next().unwrap_or_default();
        let answer = duckdb::ask(&lake.folder, sql)?;
        ensure!(!answer.rows.is_empty(), "docs/fleet.md: a query returns no rows\n{sql}");
        queries += 1;
    }
    ensure!(queries > 0, "docs/fleet.md has no queries");
    say(format!("{queries} queries of docs/fleet.md return rows"));
    lake.compare("DuckDB", |folder, host| {
        let sql = format!(
            "select verdict, count(*), sum(finding::int)::bigint, \
             sum(direct_bytes)::bigint, sum(cached_bytes)::bigint \
             from read_parquet('{LAKE}/**/*.parquet', hive_partitioning = true) \
             where host = '{host}' group by 1"
        );
        by_verdict(&duckdb::ask(folder, &sql)?.rows)
    })
}

/// Asks ClickHouse, as chdb runs it in a process.
pub(super) fn clickhouse() -> Result<Vec<Compared>> {
    const SCRIPT: &str = "\
import chdb, sys
print(chdb.query(sys.stdin.read(), 'JSONCompact'))
";
    let python = pypi::python(&pypi::environment(CHDB)?);
    let lake = Lake::get()?;
    lake.compare("ClickHouse", |folder, host| {
        let files = folder.join(LAKE).join("*/*/*.parquet");
        let sql = format!(
            "select verdict, count(), sum(toUInt64(finding)), sum(direct_bytes), sum(cached_bytes) \
             from file('{}', Parquet) where _path like '%/host={host}/%' group by verdict",
            files.display()
        );
        let answer: Value = serde_json::from_str(&script(&python, SCRIPT, &sql)?)?;
        let rows: Vec<Vec<Value>> = serde_json::from_value(answer["data"].clone())?;
        by_verdict(&rows)
    })
}

/// Asks Spark, in one process of this machine.
pub(super) fn spark() -> Result<Vec<Compared>> {
    // Spark's timestamps have microseconds; those of the files have nanoseconds.
    const SCRIPT: &str = "\
import json, sys
from pyspark.sql import SparkSession
folder, sql = json.load(sys.stdin)
spark = (SparkSession.builder.master('local[2]')
    .config('spark.sql.legacy.parquet.nanosAsLong', 'true')
    .config('spark.ui.enabled', 'false')
    .config('spark.driver.bindAddress', '127.0.0.1')
    .config('spark.driver.host', '127.0.0.1')
    .getOrCreate())
spark.read.parquet(folder).createOrReplaceTempView('requests')
rows = [[str(value) for value in row] for row in spark.sql(sql).collect()]
print('ANSWER ' + json.dumps(rows))
";
    packages::ensure(&[packages::JAVA])?;
    let python = pypi::python(&pypi::environment(PYSPARK)?);
    let lake = Lake::get()?;
    lake.compare("Spark", |folder, host| {
        let sql = format!(
            "select verdict, count(*), sum(cast(finding as bigint)), \
             cast(sum(direct_bytes) as decimal(38,0)), cast(sum(cached_bytes) as decimal(38,0)) \
             from requests where host = '{host}' group by verdict"
        );
        let input = serde_json::to_string(&(text(&folder.join(LAKE))?, sql))?;
        let talk = script(&python, SCRIPT, &input)?;
        let answer = talk.lines().find_map(|line| line.strip_prefix("ANSWER "));
        let rows: Vec<Vec<Value>> = serde_json::from_str(answer.context("Spark gave no answer")?)?;
        by_verdict(&rows)
    })
}

/// Runs a script of Python with this input, and returns its output.
fn script(python: &Path, script: &str, input: &str) -> Result<String> {
    let out = cmd::fed(Command::new(python).args(["-c", script]), input)?;
    let stderr = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "{}\n{input}", stderr.lines().last().unwrap_or("failed"));
    String::from_utf8(out.stdout).context("Python printed invalid UTF-8")
}
