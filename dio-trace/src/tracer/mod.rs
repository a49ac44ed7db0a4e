//! Load, attach, filter, read the ring; counters, loss, coverage.

mod attach;
mod decode;
mod info;
mod kfunc;
mod load;
mod run;
mod selftest;
mod targets;
mod totals;

use crate::cgroup::Cgroup;

use dio_trace_common::abi::{
    Counter, CounterKey, FileEvent, Mixer, MixerEvent, Refusal, Request, STATS, Stat,
};

#[cfg(any(test, fuzzing))]
pub(crate) use decode::decode;
pub use load::OBJECT;
pub use run::Tracer;

/// How the probes are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    Fentry,
    Kprobe,
}

impl Attach {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
        }
    }
}

/// Whose requests are traced.
#[derive(Clone, Debug)]
pub enum Scope {
    /// Every process.
    System,
    /// These processes (thread-group ids), with all their threads; if `children`, with the
    /// descendants that they have and will have.
    Processes { pids: Vec<u32>, children: bool },
}

/// What to trace and how.
#[derive(Clone, Debug)]
pub struct Options {
    pub scope: Scope,
    /// `None`: fentry where BTF allows, else kprobe.
    pub attach: Option<Attach>,
    /// An event for every request, not for findings alone.
    pub all: bool,
    /// The program's stack is taken at the begin of each request.
    pub stacks: bool,
    /// The probes' own messages go to stderr.
    pub log: bool,
    pub wanted: Wanted,
}

/// Which requests are wanted, as the probes know them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Thread that submits; 0: any.
    pub tid: u32,
    pub cgroup: Option<Cgroup>,
    /// A bit for each `OP_*` and `API_*` of the ABI.
    pub ops: u32,
    pub apis: u32,
    /// Kernel `dev_t`; 0: any.
    pub dev: u32,
    pub min_latency_ns: u64,
}

impl Default for Wanted {
    fn default() -> Self {
        Self::ALL
    }
}

impl Wanted {
    /// Every request.
    pub const ALL: Self =
        Self { tid: 0, cgroup: None, ops: u32::MAX, apis: u32::MAX, dev: 0, min_latency_ns: 0 };

    /// True if not every thread's requests are wanted.
    const fn filters_threads(&self) -> bool {
        self.tid != 0 || self.cgroup.is_some()
    }

    /// True if requests are looked at one by one.
    const fn filters_requests(&self) -> bool {
        self.ops != u32::MAX || self.apis != u32::MAX || self.dev != 0 || self.min_latency_ns != 0
    }
}

/// One record from the ring buffer.
pub enum Event {
    Request(Box<Request>),
    File(Box<FileEvent>),
    Refusal(Refusal),
    Mixer(MixerEvent),
}

/// A probe that could not be attached, and what that means.
#[derive(Clone, Debug)]
pub struct Missing {
    pub probe: String,
    pub why: String,
}

/// What the tracer saw, lost and could not see; complete once it is stopped.
#[derive(Clone, Debug)]
pub struct Totals {
    /// `uname -r`
    pub kernel: String,
    pub attach: Attach,
    /// Probe names as `function` (or `function (alternative)`).
    pub attached: Vec<String>,
    pub missing: Vec<Missing>,
    /// Probes the self-test could reach and that stayed dark, with the verdicts they weaken.
    pub dark: Vec<Missing>,
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
