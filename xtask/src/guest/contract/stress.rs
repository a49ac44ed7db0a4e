//! The rows of `cargo xtask stress`.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The result of one run.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Row {
    pub(crate) run: u64,
    /// Whether dio-trace ran with `--all`.
    pub(crate) all: bool,
    pub(crate) seconds: f32,
    pub(crate) score: Score,
}

/// The counts and mismatches of a run.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Score {
    /// Requests in the tally.
    pub(crate) requests: u64,
    /// Events that dio-trace reported.
    pub(crate) events: u64,
    /// Requests in the tally without an event.
    pub(crate) missed: u64,
    /// Unmatched events: no request in the tally fits.
    pub(crate) extra: u64,
    /// Events with an impossible verdict.
    pub(crate) wrong: u64,
    pub(crate) unknown: u64,
    pub(crate) lost: u64,
    pub(crate) unmatched: u64,
    pub(crate) in_flight: u64,
    pub(crate) skipped_runs: BTreeMap<String, u64>,
    /// All mismatches, as text.
    pub(crate) complaints: Vec<String>,
}

impl Score {
    pub(crate) fn is_exact(&self) -> bool {
        self.complaints.is_empty()
    }
}
