//! The rows of `cargo xtask stress`.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One run as the guest writes it down.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Row {
    pub(crate) run: u64,
    /// With `--all`.
    pub(crate) all: bool,
    pub(crate) seconds: f32,
    pub(crate) score: Score,
}

/// How a run came out.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Score {
    /// Requests of the tally.
    pub(crate) requests: u64,
    /// Events of dio-trace.
    pub(crate) events: u64,
    /// Of the tally, without an event.
    pub(crate) missed: u64,
    /// Events that the tally has nothing for.
    pub(crate) extra: u64,
    /// Events with a verdict that cannot be.
    pub(crate) wrong: u64,
    pub(crate) unknown: u64,
    pub(crate) lost: u64,
    pub(crate) unmatched: u64,
    pub(crate) in_flight: u64,
    pub(crate) skipped_runs: BTreeMap<String, u64>,
    /// All that is not as it must be, in words.
    pub(crate) complaints: Vec<String>,
}

impl Score {
    pub(crate) fn is_exact(&self) -> bool {
        self.complaints.is_empty()
    }
}
