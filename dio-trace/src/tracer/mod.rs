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

#[cfg(any(test, fuzzing))]
pub(crate) use decode::decode;
pub use load::OBJECT;
pub use run::Tracer;

use crate::model::{AttachMode, RequestFilter};

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
    pub attach: Option<AttachMode>,
    /// An event for every request, not for findings alone.
    pub all: bool,
    /// The program's stack is taken at the begin of each request.
    pub stacks: bool,
    /// The probes' own messages go to stderr.
    pub log: bool,
    pub wanted: RequestFilter,
}
