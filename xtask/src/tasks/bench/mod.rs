//! `cargo xtask bench`: measures the cost of tracing. Times depend on the machine; the ratios
//! within one run carry over.
//!
//! - [`cost`]: instructions per request; [`costs`]: the measured values; [`page`]: their tables
//! - [`rate`]: CPU time and lost events under load
//! - [`upkeep`]: start-up, idle cost and memory
mod cost;
mod costs;
mod page;
mod rate;
mod upkeep;

pub(crate) use cost::guard;

use std::{path::Path, process::Command, time::Instant};

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::host::{
    build,
    cmd::{self, say},
    duckdb, paths,
};

/// Measure the cost of tracing; without a subcommand, instructions per request
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    cost: cost::CostArgs,
}

#[derive(Subcommand)]
enum What {
    /// Measure recordings: speed of writing and reading, bytes per request, memory
    File,
    /// Measure lost events and the program's CPU time under load, by rate of requests
    Load(rate::LoadArgs),
    Upkeep(upkeep::UpkeepArgs),
}

pub(crate) fn main(args: &BenchArgs) -> Result<()> {
    match &args.what {
        Some(What::File) => file(),
        Some(What::Load(args)) => rate::main(args),
        Some(What::Upkeep(args)) => upkeep::main(args),
        None => cost::main(&args.cost),
    }
}

fn file() -> Result<()> {
    say("building dio-trace");
    let mut build = build::cargo()?;
    build.args(["build", "--release", "--locked", "--package", "dio-trace", "--bin", "dio-trace"]);
    cmd::run(build.args(["--example", "bench_file"]))?;
    let folder = paths::target()?.join("bench");
    paths::fresh(&folder)?;
    let result =
        cmd::run(Command::new(paths::target()?.join("release/examples/bench_file")).arg(&folder));
    let result = result.and_then(|()| compare_with_duckdb(&folder));
    paths::remove(&folder)?;
    result
}

/// Times the same query by `report` on the recording and by DuckDB on the same requests as Parquet.
fn compare_with_duckdb(folder: &Path) -> Result<()> {
    let tool = paths::target()?.join("release/dio-trace");
    let start = Instant::now();
    cmd::output(
        Command::new(tool).args(["report", "--by", "verdict"]).arg(folder.join("bench.dio")),
    )?;
    let ours = start.elapsed().as_secs_f64();
    let sql = "select verdict, count(*), sum(len) from 'bench.parquet' group by 1";
    let theirs = duckdb::ask(folder, sql)?;
    println!("by verdict, 2 M requests: report {ours:.2} s, DuckDB {:.2} s", theirs.seconds);
    let sql = "select path, quantile_cont(latency_ns, 0.999) from 'bench.parquet' group by 1";
    let theirs = duckdb::ask(folder, sql)?;
    println!("p99.9 by file: DuckDB {:.2} s; report has upper bounds alone", theirs.seconds);
    Ok(())
}
