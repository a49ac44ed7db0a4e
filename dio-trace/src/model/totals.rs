//! Counters and statistics of a trace, and the probes that are missing or silent.

use dio_trace_common::abi::{BufferedUse, Counter, CounterKey, STATS, Stat};
use serde::Serialize;

/// How the probes are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    Fentry,
    Kprobe,
}

impl AttachMode {
    /// The mode that a recording names; fentry if this version does not know the word.
    #[must_use]
    pub fn recorded(word: &str) -> Self {
        let known = [Self::Fentry, Self::Kprobe];
        known.into_iter().find(|mode| mode.as_str() == word).unwrap_or(Self::Fentry)
    }

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
        }
    }
}

/// A probe that could not be attached, or that did not fire in the self-test.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MissingProbe {
    pub probe: String,
    /// The reason, and what it means for the results.
    pub why: String,
}

/// Everything that the tracer counted and lost, and its coverage; complete once the tracer has
/// stopped.
#[derive(Clone, Debug)]
pub struct Totals {
    /// `uname -r`
    pub kernel: String,
    pub attach: AttachMode,
    /// Probe names as `function` (or `function (alternative)`).
    pub attached: Vec<String>,
    pub missing: Vec<MissingProbe>,
    /// Silent probes: they did not fire for the requests of the self-test. Each names the verdicts
    /// that it weakens.
    pub dark: Vec<MissingProbe>,
    /// Indexed by [`Stat`].
    pub stats: [u64; STATS],
    /// Runs of a program that BPF itself skipped, by program (`recursion_misses`).
    pub skipped: Vec<(String, u64)>,
    pub counters: Vec<(CounterKey, Counter)>,
    /// Pages that processes cached or dirtied of files that are used directly, see [`BufferedUse`].
    pub buffered_uses: Vec<(BufferedUse, u64)>,
}

impl Totals {
    /// One statistic.
    #[must_use]
    pub const fn stat(&self, stat: Stat) -> u64 {
        self.stats[stat as usize]
    }

    /// Requests issued whose completion was not seen by the time the tracer stopped.
    #[must_use]
    pub const fn in_flight(&self) -> u64 {
        self.stat(Stat::Begun)
            .saturating_sub(self.stat(Stat::Ended))
            .saturating_sub(self.stat(Stat::Unmatched))
    }
}
