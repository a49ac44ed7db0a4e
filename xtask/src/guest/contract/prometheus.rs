//! What Prometheus has of a run, and what dio-trace's summary says of it.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Totals {
    /// By verdict.
    pub(crate) requests: BTreeMap<String, u64>,
    pub(crate) direct_bytes: u64,
    pub(crate) cached_bytes: u64,
    pub(crate) findings: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Scraped {
    pub(crate) prometheus: Totals,
    pub(crate) summary: Totals,
    /// The time that the queries for the totals took.
    pub(crate) seconds: f64,
}
