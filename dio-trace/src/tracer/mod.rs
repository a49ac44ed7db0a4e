//! The live tracer: loads and attaches the eBPF programs, maintains the set of traced processes,
//! reads events from the ring buffer, and sums up counters, losses and coverage.

mod attach;
mod cache;
mod decode;
mod info;
mod kfunc;
mod load;
mod run;
mod selftest;
mod targets;
mod totals;
mod unasked;

#[cfg(any(test, fuzzing))]
pub(crate) use decode::decode;
pub use load::OBJECT;
pub use run::Tracer;

use crate::{
    kernel::{
        cache_probes::PAGE_CACHE,
        probes::{DIRECT_IO, Switch, Table},
    },
    model::{AttachMode, RequestFilter},
};

/// The processes whose requests are traced.
#[derive(Clone, Debug)]
pub enum Scope {
    /// Every process.
    System,
    /// These processes (thread-group ids) with all their threads; if `children`, also their present
    /// and future descendants.
    Processes { pids: Vec<u32>, children: bool },
}

/// What is found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// What became of direct requests.
    DirectIo,
    /// Who fills the page cache.
    PageCache,
}

/// What to trace and how.
#[derive(Clone, Debug)]
pub struct Options {
    pub purpose: Purpose,
    pub scope: Scope,
    /// `None`: fentry if the kernel supports it, else kprobe.
    pub attach: Option<AttachMode>,
    /// Emit an event for every request instead of only for findings.
    pub all: bool,
    /// Also trace requests on files that are open without O_DIRECT.
    pub cached: bool,
    /// Probe why requests that must not wait end with EAGAIN.
    pub why_eagain: bool,
    /// Compare the buffer of a write at its completion with what it was at its issue.
    pub verify_stable: bool,
    /// Count the uses of files without O_DIRECT.
    pub expect_direct: bool,
    /// Capture the user stack when a request is issued.
    pub stacks: bool,
    /// Bytes of the ring buffer, at least; `None`: by the numbers of CPUs and pages.
    pub ring: Option<u32>,
    /// Print the probes' own messages to stderr.
    pub log: bool,
    pub wanted: RequestFilter,
}

impl Options {
    /// Those of `dio-trace cache`.
    #[must_use]
    pub const fn of_page_cache(
        scope: Scope,
        attach: Option<AttachMode>,
        wanted: RequestFilter,
    ) -> Self {
        Self {
            purpose: Purpose::PageCache,
            scope,
            attach,
            all: false,
            cached: false,
            why_eagain: false,
            verify_stable: false,
            expect_direct: false,
            stacks: false,
            ring: None,
            log: false,
            wanted,
        }
    }

    /// The probes to attach.
    const fn table(&self) -> Table {
        match self.purpose {
            Purpose::DirectIo => DIRECT_IO,
            Purpose::PageCache => PAGE_CACHE,
        }
    }

    /// True if the option is given.
    const fn has(&self, switch: Switch) -> bool {
        match switch {
            Switch::WhyEagain => self.why_eagain,
            Switch::ExpectDirect => self.expect_direct,
        }
    }

    /// True if only some processes are traced.
    const fn is_filtered(&self) -> bool {
        !matches!(self.scope, Scope::System)
    }
}
