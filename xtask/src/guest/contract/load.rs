//! What came of loading the eBPF programs on a kernel.
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Loaded {
    /// fentry or kprobe.
    pub(crate) attach: String,
    /// The number of programs.
    pub(crate) count: usize,
    /// The programs, with the instructions that the verifier walked; none before 5.16.
    pub(crate) programs: Vec<(String, u32)>,
    /// The probes that are not attached, and what the self-test did not see, each with its reason.
    pub(crate) gaps: Vec<(String, String)>,
    /// Why dio-trace did not get as far as tracing.
    pub(crate) refused: Option<String>,
}
