//! PostgreSQL with debug_io_direct and each io_method, traced from its start and while it runs.
//!
//! - [`cluster`]: the server and its clients
//! - [`latency`]: measures what dio-trace costs its transactions
mod cluster;
mod latency;

use std::{
    path::{Path, PathBuf},
    process::Child,
};

use anyhow::{Context, Result};

use crate::guest::{
    apps::{
        reference::{self, Reference},
        stage::{Rows, Stage},
        watch::{Seen, Watch},
    },
    contract::apps::{Counted, Row},
};
use cluster::Cluster;

/// Values of io_method.
const METHODS: &[&str] = &["sync", "worker", "io_uring"];

/// A server without strace, with I/O workers and tables.
pub(in crate::guest) struct Served {
    cluster: Cluster,
    folder: PathBuf,
    server: Child,
}

impl Served {
    /// Starts a server with the fetched programs, its data below `place`.
    pub(in crate::guest) fn start(fetched: &Path, place: &Path) -> Result<Self> {
        let cluster = Cluster::new(fetched, &place.join("first"))?;
        let folder = place.join("data");
        cluster.copy(&folder)?;
        let server = cluster.start(&folder, "worker")?;
        cluster.fill()?;
        Ok(Self { cluster, folder, server })
    }

    /// The process id of the postmaster.
    pub(in crate::guest) fn pid(&self) -> Result<u32> {
        self.cluster.pid(&self.folder)
    }

    /// Runs transactions, a scan, an index build, and a checkpoint.
    pub(in crate::guest) fn work(&self) -> Result<()> {
        self.cluster.work()
    }

    pub(in crate::guest) fn stop(mut self) -> Result<()> {
        self.cluster.stop(&self.folder)?;
        self.server.wait().map(drop).context("the server did not end")
    }
}

fn cluster(stage: &Stage) -> Result<Cluster> {
    let fetched = stage.fetched.as_ref().context("PostgreSQL was not fetched")?;
    Cluster::new(fetched, &stage.places[0].path.join("first"))
}

/// Traces servers from their start to their exit, one after another.
pub(super) fn audited(stage: &Stage, rows: &mut Rows) -> Result<()> {
    let cluster = &cluster(stage)?;
    let mut methods = Vec::new();
    for method in METHODS {
        match cluster.takes(method) {
            Ok(()) => methods.push(*method),
            Err(error) => {
                let app = format!("{}, io_method={method}", cluster.version);
                rows.add(&Row::LeftOut { app, why: format!("{error:#}") })?;
            }
        }
    }
    let mut cases: Vec<(&str, &str, PathBuf)> = Vec::new();
    for place in &stage.places {
        for method in &methods {
            let folder = place.path.join(method);
            cluster.copy(&folder)?;
            cases.push((place.setup.fs, method, folder));
        }
    }
    let watch = Watch::audit(stage)?;
    let counted: Vec<Result<Reference>> =
        cases.iter().map(|(_, method, folder)| whole(cluster, method, folder)).collect();
    let seen = watch.end()?;
    for ((fs, method, folder), counted) in cases.iter().zip(&counted) {
        let row = row(cluster, method, fs, "audit", counted, &seen, folder);
        rows.add(&Row::Counted(row))?;
    }
    Ok(())
}

fn row(
    cluster: &Cluster,
    method: &str,
    fs: &str,
    watched: &str,
    counted: &Result<Reference>,
    seen: &Seen,
    folder: &Path,
) -> Counted {
    let mut row = Counted {
        program: cluster.version.clone(),
        case: format!("debug_io_direct=data,wal io_method={method}"),
        fs: fs.to_owned(),
        watched: watched.to_owned(),
        ..Counted::default()
    };
    reference::compare(&mut row, counted, seen, folder);
    row
}

fn whole(cluster: &Cluster, method: &str, folder: &Path) -> Result<Reference> {
    let server = cluster.start_traced(folder, method)?;
    cluster.fill()?;
    cluster.work()?;
    cluster.stop(folder)?;
    server.end()
}

/// Attaches to a server that already runs. Its I/O workers read and its checkpointer writes, and
/// neither is a process that starts after dio-trace has attached.
pub(super) fn attached(stage: &Stage, rows: &mut Rows) -> Result<()> {
    let cluster = &cluster(stage)?;
    let place = &stage.places[0];
    let folder = place.path.join("attached");
    cluster.copy(&folder)?;
    let mut server = cluster.start_traced(&folder, "worker")?;
    cluster.fill()?;
    server.settle()?;
    let watch = Watch::attach(stage, cluster.pid(&folder)?)?;
    server.settle()?;
    server.mark()?;
    let worked = cluster.work();
    server.settle()?;
    let counted = worked.and_then(|()| server.so_far());
    let seen = watch.end()?;
    cluster.stop(&folder)?;
    server.end()?;
    let (fs, how) = (place.setup.fs, "attach -p POSTMASTER");
    rows.add(&Row::Counted(row(cluster, "worker", fs, how, &counted, &seen, &folder)))
}

/// Measures what dio-trace costs the transactions.
pub(super) fn latency(stage: &Stage, rows: &mut Rows) -> Result<()> {
    rows.add(&Row::Latency(latency::measure(stage, &cluster(stage)?)?))
}
