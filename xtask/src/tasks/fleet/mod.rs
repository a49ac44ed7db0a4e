//! `cargo xtask fleet`: the engines of docs/fleet.md give dio-trace's own totals, and what is
//! installed on a fleet is valid.
//!
//! - [`lake`]: DuckDB, ClickHouse and Spark over the exported recordings of two hosts
//! - [`prometheus`]: rules, dashboard, and a server that scrapes dio-trace in a VM
//! - [`kubernetes`]: the manifests
mod kubernetes;
mod lake;
mod prometheus;

use std::time::Instant;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::host::step_runner::{self, Outcome, timed};

/// Compare the totals of Prometheus, DuckDB, ClickHouse and Spark with dio-trace's own, and validate
/// what docs/fleet.md installs
#[derive(Args)]
pub(crate) struct FleetArgs {
    /// Only these steps
    #[arg(long, value_enum)]
    only: Vec<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    /// Rules with their tests, and the format of the metrics
    Rules,
    /// The Kubernetes manifests
    Manifests,
    /// A Prometheus server scrapes dio-trace in a VM
    Prometheus,
    /// The queries of docs/fleet.md, and totals in DuckDB
    Duckdb,
    /// Totals in ClickHouse
    Clickhouse,
    /// Totals in Spark
    Spark,
}

/// Totals of one engine over one set of requests.
struct Compared {
    engine: String,
    /// What was compared.
    of: String,
    requests: u64,
    direct_bytes: u64,
    cached_bytes: u64,
    findings: u64,
    seconds: f64,
}

/// Validates something.
type Check = fn() -> Result<Outcome>;

/// Compares, and returns what was equal.
type Compare = fn() -> Result<Vec<Compared>>;

const ENGINES: &[(Step, &str, Compare)] = &[
    (Step::Duckdb, "duckdb", lake::duckdb),
    (Step::Clickhouse, "clickhouse", lake::clickhouse),
    (Step::Spark, "spark", lake::spark),
    (Step::Prometheus, "prometheus", prometheus::scraped),
];
const CHECKS: &[(Step, &str, Check)] = &[
    (Step::Rules, "rules", prometheus::rules),
    (Step::Manifests, "manifests", kubernetes::validate),
];

pub(crate) fn main(args: &FleetArgs) -> Result<u8> {
    let start = Instant::now();
    let is_wanted = |step| args.only.is_empty() || args.only.contains(&step);
    let mut steps = Vec::new();
    let mut rows = Vec::new();
    for (_, name, check) in CHECKS.iter().filter(|(step, ..)| is_wanted(*step)) {
        steps.push(timed(name, check));
    }
    for (_, name, compare) in ENGINES.iter().filter(|(step, ..)| is_wanted(*step)) {
        steps.push(timed(name, || {
            rows.extend(compare()?);
            Ok(Outcome::Passed)
        }));
    }
    table(&rows);
    step_runner::table(&steps, start.elapsed());
    Ok(step_runner::close(&steps))
}

/// Prints the totals, each of which was equal to dio-trace's.
fn table(rows: &[Compared]) {
    println!("\n| engine | of | requests | direct bytes | cached bytes | findings | s |");
    println!("|---|---|---:|---:|---:|---:|---:|");
    for row in rows {
        let Compared { engine, of, requests, direct_bytes, cached_bytes, findings, seconds } = row;
        println!(
            "| {engine} | {of} | {requests} | {direct_bytes} | {cached_bytes} | {findings} | \
             {seconds:.2} |"
        );
    }
}
