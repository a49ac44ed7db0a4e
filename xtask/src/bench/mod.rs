//! `cargo xtask bench`: figures of this machine, as ratios in one run.
//!
//! - [`cost`]: instructions per request; [`page`]: its tables
mod cost;
mod page;

pub(crate) use cost::guard;

use std::process::Command;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::{
    build,
    cmd::{self, say},
    places,
};

/// Measure
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
    /// Recordings: how fast they are written and read, bytes per request, memory
    File,
}

pub(crate) fn main(args: &BenchArgs) -> Result<()> {
    match args.what {
        Some(What::File) => file(),
        None => cost::main(&args.cost),
    }
}

fn file() -> Result<()> {
    say("building dio-trace");
    let mut build = build::cargo()?;
    build.args(["build", "--release", "--locked", "--package", "dio-trace"]);
    cmd::run(build.args(["--example", "bench_file"]))?;
    let folder = places::target()?.join("bench");
    places::fresh(&folder)?;
    let result =
        cmd::run(Command::new(places::target()?.join("release/examples/bench_file")).arg(&folder));
    places::remove(&folder)?;
    result
}
