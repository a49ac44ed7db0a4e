//! The columns of the truth report: the results of each kernel, kept in a file, so that a run of some
//! of them leaves the others.
use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{
    bpf,
    guest::contract::suite::Suite,
    host::paths,
    tasks::suites::{Done, Run},
};

/// The kept columns, one line of JSON each, relative to the checkout.
const KEPT: &str = "xtask/bench/truth.jsonl";

/// The number of cells (checked requests) of a fixture: those that agree, and all.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(super) struct Count {
    pub(super) agree: u64,
    pub(super) cells: u64,
}

/// The results of one kernel, with one way of attaching.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Column {
    /// The kernel by its name: `6.12`, `6.12-arm64-16k`.
    pub(super) kernel: String,
    /// fentry or kprobe.
    pub(super) attach: String,
    /// As `uname -r` prints it.
    pub(super) version: String,
    /// The architecture, as `uname -m` prints it.
    pub(super) arch: String,
    /// Bytes in a page; 0 if the run failed before it said so.
    pub(super) page_size: u64,
    /// The begin of the SHA-256 of the eBPF object.
    pub(super) object: String,
    pub(super) cells: u64,
    pub(super) wrong: u64,
    pub(super) missed: u64,
    pub(super) extra: u64,
    /// By fixture.
    pub(super) setups: BTreeMap<String, Count>,
    pub(super) complaints: Vec<String>,
}

impl Column {
    /// The column's heading.
    pub(super) fn name(&self) -> String {
        format!("{} {}", self.kernel, self.attach)
    }

    fn is_of(&self, run: &Run) -> bool {
        self.kernel == run.kernel && self.attach == run.attach
    }

    /// A run that left no result is a column without cells and with one that is wrong.
    fn of(done: &Done) -> Result<Self> {
        let failed = || Suite {
            wrong: 1,
            complaints: vec!["the run ended before it had a result".to_owned()],
            ..Suite::default()
        };
        let suite = done.suite.clone().unwrap_or_else(failed);
        let kernel = done.run.kernel()?;
        let mut setups = BTreeMap::<String, Count>::new();
        // The totals of a run are no fixture, and have no cells.
        for scored in suite.setups.iter().filter(|scored| scored.cells != 0) {
            let count = setups.entry(scored.name.clone()).or_default();
            count.cells += scored.cells;
            count.agree += scored.cells.saturating_sub(scored.wrong + scored.missed + scored.extra);
        }
        Ok(Self {
            kernel: done.run.kernel.to_owned(),
            attach: done.run.attach.to_owned(),
            version: kernel.version,
            arch: kernel.arch.name.to_owned(),
            page_size: suite.page_size,
            object: bpf::digest(kernel.arch)?,
            cells: suite.cells,
            wrong: suite.wrong,
            missed: suite.missed,
            extra: suite.extra,
            setups,
            complaints: suite.complaints,
        })
    }
}

/// The columns of these runs.
pub(super) fn of(done: &[Done]) -> Result<Vec<Column>> {
    done.iter().map(Column::of).collect()
}

/// The kept columns.
pub(super) fn kept() -> Result<Vec<Column>> {
    let path = paths::workspace()?.join(KEPT);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {KEPT}"))?;
    let column = |line| serde_json::from_str(line).with_context(|| format!("a line of {KEPT}"));
    text.lines().map(column).collect()
}

/// Puts the columns of these runs among the kept ones, and returns all of them in the order of `all`.
pub(super) fn merge(new: &[Column], all: &[Run]) -> Result<Vec<Column>> {
    let mut columns = kept()?;
    columns.retain(|column| !new.iter().any(|new| new.name() == column.name()));
    columns.extend(new.iter().cloned());
    columns.sort_by_key(|column| all.iter().position(|run| column.is_of(run)));
    let lines: Vec<String> = columns.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    let path = paths::workspace()?.join(KEPT);
    fs::write(&path, lines.join("\n") + "\n").with_context(|| format!("cannot write {KEPT}"))?;
    Ok(columns)
}
