//! The columns of the truth report: the results of each kernel, kept in a file, so that a run of some
//! of them leaves the others.
use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{
    bpf,
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

    /// `None` if the run left no result.
    fn of(done: &Done) -> Result<Option<Self>> {
        let Some(suite) = &done.suite else { return Ok(None) };
        let kernel = done.run.kernel()?;
        let mut setups = BTreeMap::<String, Count>::new();
        // The totals of a run are no fixture, and have no cells.
        for scored in suite.setups.iter().filter(|scored| scored.cells != 0) {
            let count = setups.entry(scored.name.clone()).or_default();
            count.cells += scored.cells;
            count.agree += scored.cells.saturating_sub(scored.wrong + scored.missed + scored.extra);
        }
        Ok(Some(Self {
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
            complaints: suite.complaints.clone(),
        }))
    }
}

/// Puts the results of these runs into the kept columns, and returns all of them in the order of
/// `all`.
pub(super) fn merge(done: &[Done], all: &[Run]) -> Result<Vec<Column>> {
    let path = paths::workspace()?.join(KEPT);
    let text = fs::read_to_string(&path).unwrap_or_default();
    let mut columns: Vec<Column> = text
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("a line of {KEPT}")))
        .collect::<Result<_>>()?;
    columns.retain(|column| !done.iter().any(|done| column.is_of(&done.run)));
    for done in done {
        columns.extend(Column::of(done)?);
    }
    columns.sort_by_key(|column| all.iter().position(|run| column.is_of(run)));
    let lines: Vec<String> = columns.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    fs::write(&path, lines.join("\n") + "\n").with_context(|| format!("cannot write {KEPT}"))?;
    Ok(columns)
}
