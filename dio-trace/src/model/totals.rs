//! What was counted, lost, and could not be seen.

use dio_trace_common::abi::{Counter, CounterKey, Mixer, STATS, Stat};
use serde::Serialize;

/// How the probes are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    Fentry,
    Kprobe,
}

impl AttachMode {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
        }
    }
}

/// A probe that could not be attached, or that the self-test did not see run, and what that means.
#[derive(Clone, Debug, Serialize)]
pub struct MissingProbe {
    pub probe: String,
    pub why: String,
}

/// What the tracer saw, lost and could not see; complete once it is stopped.
#[derive(Clone, Debug)]
pub struct Totals {
    /// `uname -r`
    pub kernel: String,
    pub attach: AttachMode,
    /// Probe names as `function` (or `function (alternative)`).
    pub attached: Vec<String>,
    pub missing: Vec<MissingProbe>,
    /// Probes the self-test could reach and that stayed dark, with the verdicts they weaken.
    pub dark: Vec<MissingProbe>,
    pub stats: [u64; STATS],
    /// Runs of a program that BPF itself skipped, by program (`recursion_misses`).
    pub skipped: Vec<(String, u64)>,
    pub counters: Vec<(CounterKey, Counter)>,
    /// Pages by who uses a file through the page cache that is used directly.
    pub mixers: Vec<(Mixer, u64)>,
}

impl Totals {
    /// One statistic.
    #[must_use]
    pub const fn stat(&self, stat: Stat) -> u64 {
        self.stats[stat as usize]
    }

    /// Requests begun whose end was not seen by the time the tracer stopped.
    #[must_use]
    pub const fn in_flight(&self) -> u64 {
        self.stat(Stat::Begun)
            .saturating_sub(self.stat(Stat::Ended))
            .saturating_sub(self.stat(Stat::Unmatched))
    }
}
