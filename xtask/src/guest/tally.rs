//! The tally: what became of each cell, in the workload's own words.
use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// What happened to a cell, in the workload's own words.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Entry {
    pub(crate) setup: String,
    pub(crate) cell: String,
    pub(crate) path: PathBuf,
    /// Who made the request.
    pub(crate) pid: u32,
    /// `open`, `fcntl` or `call`: how far it came.
    pub(crate) stage: String,
    /// Bytes, or -errno.
    pub(crate) result: i64,
    /// CLOCK_REALTIME in ns around the call.
    pub(crate) begin: u64,
    pub(crate) end: u64,
    /// Pages of the request's range in the page cache, before and after (mincore).
    pub(crate) before: u64,
    pub(crate) after: u64,
    /// Pages that the range has, up to the end of the file.
    pub(crate) pages: u64,
    /// Bytes this process read from storage meanwhile (/proc/self/io).
    pub(crate) storage: u64,
}

/// Reads a tally.
pub(crate) fn read(path: &Path) -> Result<Vec<Entry>> {
    let text = fs::read(path).with_context(|| format!("no tally at {}", path.display()))?;
    serde_json::from_slice(&text).context("the tally is damaged")
}
