//! The result of the suite, written to suite.json.
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The file next to suite.json with the verified instructions of each program, in the columns of
/// `xtask/bench/verified.tsv`: kernel series, how dio-trace attached, program, instructions.
pub(crate) const VERIFIED: &str = "verified.tsv";

/// The result of one run of the suite.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Suite {
    /// Bytes in a page of the kernel.
    #[serde(default)]
    pub(crate) page_size: u64,
    pub(crate) cells: u64,
    pub(crate) wrong: u64,
    pub(crate) missed: u64,
    pub(crate) extra: u64,
    #[serde(default)]
    pub(crate) setups: Vec<Score>,
    /// Fixtures that could not be made, or were not measured on this kernel.
    #[serde(default)]
    pub(crate) left_out: Vec<String>,
    #[serde(default)]
    pub(crate) complaints: Vec<String>,
}

impl Suite {
    /// The number of fixtures that had cells. `setups` lists each once per run of dio-trace.
    pub(crate) fn setups(&self) -> usize {
        let names = self.setups.iter().filter(|setup| setup.cells != 0).map(|setup| &*setup.name);
        names.collect::<BTreeSet<_>>().len()
    }
}

/// The results of the cells of one fixture in one run of dio-trace; the suite has several runs.
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
