//! The rows of `cargo xtask bench`.
use serde::{Deserialize, Serialize};

/// One tracer's row.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Measured {
    pub(crate) tracer: String,
    pub(crate) costs: Vec<(String, Cost)>,
    #[serde(default)]
    pub(crate) programs: Vec<Program>,
}

/// What one request of a kind takes, in ns.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Cost {
    /// Of the quickest batch: what lies in the program's own way.
    pub(crate) least: f64,
    /// Of all batches: the tracer's own process and the timer's interrupts are in it, one CPU
    /// being there for all.
    pub(crate) mean: f64,
}

/// An eBPF program, as the kernel measures it.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) runs: u64,
    pub(crate) ns: u64,
    /// Instructions that the verifier walked.
    pub(crate) verified: u64,
}

/// Who takes what dio-trace writes.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) enum Output {
    /// There is no dio-trace.
    None,
    /// A program that reads all of it.
    Read,
    /// A pipe that nobody reads until the program has ended.
    Stuck,
}

/// What the program did.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Load {
    pub(crate) reads: u64,
    pub(crate) seconds: f64,
    /// User and system.
    pub(crate) cpu_seconds: f64,
}

/// One point of the curve.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Rate {
    pub(crate) pace: u64,
    pub(crate) output: Output,
    pub(crate) load: Load,
    /// If there is a dio-trace.
    pub(crate) seen: Option<Seen>,
}

/// What dio-trace saw of it.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Seen {
    /// Reads that it counted; those it told one by one; those it says it could not tell.
    pub(crate) counted: u64,
    pub(crate) told: u64,
    pub(crate) lost: u64,
    /// Its seconds of CPU since it was attached, and its largest size in KiB.
    pub(crate) cpu_seconds: f64,
    pub(crate) kib: u64,
}

/// How it starts and rests.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Rest {
    pub(crate) way: String,
    /// Until it traces, and how much of that is its own CPU time.
    pub(crate) start_seconds: f64,
    pub(crate) start_cpu: f64,
    /// While nothing happens: CPU seconds and waits, each second.
    pub(crate) cpu: f64,
    pub(crate) waits: f64,
    pub(crate) kib: u64,
}

/// What many requests leave behind.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Long {
    pub(crate) files: u64,
    pub(crate) reads: u64,
    pub(crate) counted: u64,
    /// Reads that it says no counter was left for.
    pub(crate) uncounted: u64,
    /// Reads with a line, and how many of those have no name of a file.
    pub(crate) told: u64,
    pub(crate) unnamed: u64,
    pub(crate) lost: u64,
    /// After so many lines, so many KiB.
    pub(crate) memory: Vec<(u64, u64)>,
    pub(crate) peak_kib: u64,
}
