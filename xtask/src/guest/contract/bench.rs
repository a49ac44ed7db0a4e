//! The rows of `cargo xtask bench`.
use serde::{Deserialize, Serialize};

/// The measurements of one tracer.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Measured {
    pub(crate) tracer: String,
    pub(crate) costs: Vec<(String, Cost)>,
    #[serde(default)]
    pub(crate) programs: Vec<Program>,
}

/// The time that one request of a kind takes, in ns.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Cost {
    /// Per request of the quickest batch: the cost in the traced program's own path.
    pub(crate) least: f64,
    /// Per request over all batches. This includes the tracer's own process and the timer
    /// interrupts, because all share one CPU.
    pub(crate) mean: f64,
}

/// An eBPF program's statistics, as the kernel measures them.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) runs: u64,
    pub(crate) ns: u64,
    /// Instructions that the verifier processed.
    pub(crate) verified: u64,
}

/// What consumes dio-trace's output.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) enum Output {
    /// dio-trace does not run.
    None,
    /// dio-trace does not run, and the reads would be no findings.
    NoneDirect,
    /// A program that reads all output.
    Read,
    /// A pipe that nothing reads until the program has exited.
    Stuck,
    /// A recording of findings.
    Findings,
    /// A recording of every request; the reads are direct.
    Every,
}

impl Output {
    /// In the order in which they are measured.
    pub(crate) const ALL: &[Self] =
        &[Self::None, Self::Read, Self::Stuck, Self::Findings, Self::NoneDirect, Self::Every];

    /// The one without dio-trace that this is compared with.
    pub(crate) const fn base(self) -> Self {
        match self {
            Self::None | Self::Read | Self::Stuck | Self::Findings => Self::None,
            Self::NoneDirect | Self::Every => Self::NoneDirect,
        }
    }
}

/// What the load program did.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Load {
    pub(crate) reads: u64,
    pub(crate) seconds: f64,
    /// User and system time.
    pub(crate) cpu_seconds: f64,
}

/// One point of the curve: the load at one pace.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Rate {
    pub(crate) pace: u64,
    pub(crate) output: Output,
    pub(crate) load: Load,
    /// `None` if dio-trace did not run.
    pub(crate) seen: Option<Seen>,
}

/// What dio-trace saw of the load.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Seen {
    /// Reads in the summary's counters.
    pub(crate) counted: u64,
    /// Reads that have a line, or a place in the recording, of their own.
    pub(crate) told: u64,
    /// Reads that are in a line with others; `None` for a recording, which has none.
    pub(crate) summed: Option<u64>,
    /// Events that dio-trace reports as lost.
    pub(crate) lost: u64,
    /// dio-trace's CPU time since it attached, in seconds.
    pub(crate) cpu_seconds: f64,
    /// dio-trace's peak size, in KiB.
    pub(crate) kib: u64,
}

/// dio-trace's cost at the start and while idle.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Rest {
    pub(crate) way: String,
    /// Seconds from the start until it traces.
    pub(crate) start_seconds: f64,
    /// CPU seconds from the start until it traces.
    pub(crate) start_cpu: f64,
    /// CPU seconds per second while idle.
    pub(crate) cpu: f64,
    /// Waits per second while idle.
    pub(crate) waits: f64,
    pub(crate) kib: u64,
}

/// dio-trace's counts and memory after many requests.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Long {
    pub(crate) files: u64,
    pub(crate) reads: u64,
    pub(crate) counted: u64,
    /// Reads for which dio-trace reports that no counter was left.
    pub(crate) uncounted: u64,
    /// Reads that were emitted as lines.
    pub(crate) told: u64,
    /// Emitted reads without a file name.
    pub(crate) unnamed: u64,
    pub(crate) lost: u64,
    /// Pairs: the number of lines so far, and dio-trace's size in KiB.
    pub(crate) memory: Vec<(u64, u64)>,
    pub(crate) peak_kib: u64,
}
