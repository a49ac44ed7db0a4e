//! Measures what a request costs under each tracer.
use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use clap::Args;

use crate::{
    guest::{
        bench::{
            programs,
            stage::{FOLDER, make},
            tracers::{Running, TRACERS, Tracer},
        },
        contract::bench::Measured,
        harness::Program,
    },
    host::cmd::{say, text},
};

#[derive(Args, Clone, Debug)]
pub(crate) struct BenchArgs {
    /// Path of the dio-trace binary
    #[arg(long)]
    tool: PathBuf,
    /// Measure only these tracers
    #[arg(long)]
    tracer: Vec<String>,
    /// File to append the rows to, one line of JSON per row
    #[arg(long)]
    out: PathBuf,
}

pub(crate) fn main(args: &BenchArgs) -> Result<()> {
    make(Path::new(FOLDER))?;
    let mut rows = File::options().append(true).create(true).open(&args.out)?;
    let wanted = |tracer: &&Tracer| args.tracer.is_empty() || args.tracer.contains(&tracer.id());
    for tracer in TRACERS.iter().filter(wanted) {
        let row = measure(args, tracer).with_context(|| tracer.name.to_owned())?;
        let shown: Vec<String> =
            row.costs.iter().map(|(kind, cost)| format!("{kind} {:.0}", cost.least)).collect();
        say(format!("{}: {}", tracer.name, shown.join(", ")));
        writeln!(rows, "{}", serde_json::to_string(&row)?)?;
        rows.sync_all()?;
    }
    Ok(())
}

fn measure(args: &BenchArgs, tracer: &Tracer) -> Result<Measured> {
    let out = Path::new("/tmp/bench.json");
    let mut load = Command::new(std::env::current_exe().context("xtask cannot find itself")?);
    load.args(["guest", "bench-load", "--folder", FOLDER, "--out", text(out)?]);
    for kind in tracer.kinds {
        load.args(["--kind", kind]);
    }
    let mut load = Program::start(&mut load)?;
    let watch = Running::start(tracer, &args.tool, load.child.id())?;
    load.go()?;
    let programs = match (tracer.programs, watch.pid()) {
        (true, Some(pid)) => programs::look(pid)?,
        _ => Vec::new(),
    };
    watch.stop()?;
    let costs = serde_json::from_slice(&fs::read(out)?)?;
    Ok(Measured { tracer: tracer.id(), costs, programs })
}
