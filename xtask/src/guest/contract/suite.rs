//! The result of the suite, in suite.json.
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The file next to suite.json with the verified instructions of each program: a name and a number
/// on each line, with a tab between.
pub(crate) const VERIFIED: &str = "verified.tsv";

/// All that one run of the suite found.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Suite {
    pub(crate) cells: u64,
    pub(crate) wrong: u64,
    pub(crate) missed: u64,
    pub(crate) extra: u64,
    #[serde(default)]
    pub(crate) setups: Vec<Score>,
    /// Set-ups that could not be made, or were not measured on this kernel.
    #[serde(default)]
    pub(crate) left_out: Vec<String>,
    #[serde(default)]
    pub(crate) complaints: Vec<String>,
}

impl Suite {
    /// Set-ups that had cells; each is there once for every run of dio-trace.
    pub(crate) fn setups(&self) -> usize {
        let names = self.setups.iter().filter(|setup| setup.cells != 0).map(|setup| &*setup.name);
        names.collect::<BTreeSet<_>>().len()
    }
}

/// How the cells of one set-up came out in one run of dio-trace; the suite has several.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Score {
    pub(crate) name: String,
    pub(crate) cells: u64,
    #[serde(default)]
    pub(crate) wrong: u64,
    #[serde(default)]
    pub(crate) missed: u64,
    #[serde(default)]
    pub(crate) extra: u64,
}
