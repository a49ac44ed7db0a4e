//! Counters and statistics of a trace, and the probes that are missing or silent.

use dio_trace_common::abi::{BufferedUse, Counter, CounterKey, STATS, Stat, UnaskedSum};
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

/// What a gap in the coverage means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Gap {
    /// The probe could not be attached.
    Missing,
    /// The self-test saw its requests through this API, but not how they were served.
    Weak,
    /// The self-test saw none of its own requests through this API.
    Blind,
    /// The self-test could not run.
    Untested,
}

/// [`MissingProbe::probe`] where the self-test could not run.
pub const SELF_TEST: &str = "self-test";

/// A probe that could not be attached, or what the self-test did not see.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MissingProbe {
    /// The probe, or the API of a test request.
    pub probe: String,
    pub gap: Gap,
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
    /// What the self-test did not see. Each names the verdicts that it weakens.
    pub dark: Vec<MissingProbe>,
    /// Indexed by [`Stat`].
    pub stats: [u64; STATS],
    /// Runs of a program that BPF itself skipped, by program (`recursion_misses`).
    pub skipped: Vec<(String, u64)>,
    pub counters: Vec<(CounterKey, Counter)>,
    /// Pages that processes cached or dirtied of files that are used directly, see [`BufferedUse`].
    pub buffered_uses: Vec<(BufferedUse, u64)>,
    /// Uses of files of `--expect-direct` that did not ask for direct I/O.
    pub unasked: Vec<(BufferedUse, UnaskedSum)>,
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
        in_flight(&self.stats)
    }
}

/// Requests issued whose completion was not seen.
#[must_use]
pub const fn in_flight(stats: &[u64; STATS]) -> u64 {
    stats[Stat::Begun as usize]
        .saturating_sub(stats[Stat::Ended as usize])
        .saturating_sub(stats[Stat::Unmatched as usize])
}
