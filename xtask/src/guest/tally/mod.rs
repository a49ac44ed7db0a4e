//! The tally: the workload's own record of what each cell's system call did. The checker compares
//! dio-trace's report with it.
pub(crate) mod plain;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The workload's record of one cell.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Entry {
    pub(crate) setup: String,
    pub(crate) cell: String,
    pub(crate) path: PathBuf,
    /// The process that made the request.
    pub(crate) pid: u32,
    /// The last system call made: `open` or `fcntl` if that failed, otherwise `call`.
    pub(crate) stage: String,
    /// The system call's result: bytes, or -errno.
    pub(crate) result: i64,
    /// CLOCK_REALTIME in ns around the call.
    pub(crate) begin: u64,
    pub(crate) end: u64,
    /// Pages of the request's range in the page cache, before and after (mincore).
    pub(crate) before: u64,
    pub(crate) after: u64,
    /// Pages of the request's range, up to the end of the file.
    pub(crate) pages: u64,
    /// Bytes that this process read from storage during the call (/proc/self/io).
    pub(crate) storage: u64,
}

/// Reads a tally.
pub(crate) fn read(path: &Path) -> Result<Vec<Entry>> {
    let text = fs::read(path).with_context(|| format!("no tally at {}", path.display()))?;
    serde_json::from_slice(&text).context("the tally is damaged")
}
