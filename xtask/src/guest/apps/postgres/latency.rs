//! Measures what dio-trace costs PostgreSQL's transactions: runs pgbench with and without dio-trace
//! in turns, in one guest.
use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::guest::{
    apps::{postgres::cluster::Cluster, stage::Stage, watch::Watch},
    contract::apps::{Latency, Quantiles},
};

const PAIRS: usize = 5;
/// Seconds of each run.
const SECONDS: &str = "6";
const LOG: &str = "/tmp/postgres/latency";

pub(super) fn measure(stage: &Stage, cluster: &Cluster) -> Result<Latency> {
    let folder = stage.places[0].path.join("latency");
    cluster.copy(&folder)?;
    let mut server = cluster.start(&folder, "worker")?;
    let pairs = cluster.fill().and_then(|()| pairs(stage, cluster));
    cluster.stop(&folder)?;
    server.wait()?;
    let case = format!("pgbench -c 2 -T {SECONDS}, ext4, io_method=worker");
    Ok(Latency { program: cluster.version.clone(), case, pairs: pairs? })
}

/// Every other pair starts with dio-trace, so that a drift over time favours neither side.
fn pairs(stage: &Stage, cluster: &Cluster) -> Result<Vec<(Quantiles, Quantiles)>> {
    let without = || transactions(cluster);
    let with = || -> Result<Quantiles> {
        let watch = Watch::audit(stage)?;
        let latencies = transactions(cluster);
        watch.end()?;
        latencies
    };
    without()?; // warms up
    let pair = |number: usize| -> Result<(Quantiles, Quantiles)> {
        if number.is_multiple_of(2) {
            let without = without()?;
            return Ok((without, with()?));
        }
        let with = with()?;
        Ok((without()?, with))
    };
    (0..PAIRS).map(pair).collect()
}

fn transactions(cluster: &Cluster) -> Result<Quantiles> {
    for log in logs()? {
        fs::remove_file(log)?;
    }
    cluster.bench(&["-n", "-c", "2", "-T", SECONDS, "--log", "--log-prefix", LOG])?;
    let mut micros = Vec::new();
    for log in logs()? {
        micros.extend(parse(&fs::read_to_string(log)?)?);
    }
    ensure!(!micros.is_empty(), "pgbench logged no transaction");
    Ok(Quantiles::of(micros))
}

fn logs() -> Result<Vec<PathBuf>> {
    let folder = Path::new(LOG).parent().context("no folder")?;
    let files = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    let files: Vec<PathBuf> = files.collect::<Result<_, _>>()?;
    Ok(files.into_iter().filter(|path| path.to_string_lossy().starts_with(LOG)).collect())
}

/// Parses pgbench's log: the third word of each line is a transaction's latency in µs.
fn parse(log: &str) -> Result<Vec<u64>> {
    let line = |line: &str| line.split(' ').nth(2)?.parse().ok();
    log.lines()
        .map(|text| line(text).with_context(|| format!("not a line of pgbench's log: {text}")))
        .collect()
}
