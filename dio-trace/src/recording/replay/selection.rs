//! Selects the part of a recording that a report covers.

use dio_trace_common::abi::Request;

use crate::{flow::filter::Filter, model::RequestFilter};

/// A time window, CLOCK_MONOTONIC in ns.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Inclusive.
    pub since: u64,
    /// Exclusive.
    pub until: u64,
}

impl Window {
    pub const ALL: Self = Self { since: 0, until: u64::MAX };

    pub(super) const fn holds(&self, time: u64) -> bool {
        self.since <= time && time < self.until
    }

    pub(super) const fn is_all(&self) -> bool {
        self.since == 0 && self.until == u64::MAX
    }
}

/// Selects requests of a recording. A request must match all fields.
#[derive(Clone, Debug)]
pub struct Selection {
    pub window: Window,
    /// Process ids; empty: any.
    pub pids: Vec<u32>,
    pub wanted: RequestFilter,
    pub filter: Filter,
    /// The selection in the words of the user; `None` if everything is selected.
    pub only: Option<String>,
}

impl Selection {
    /// Selects everything.
    pub const ALL: Self = Self {
        window: Window::ALL,
        pids: Vec::new(),
        wanted: RequestFilter::ALL,
        filter: Filter::OPEN,
        only: None,
    };

    /// True if the selection needs individual requests, because totals do not have what it selects
    /// by. For causes, only what is shown needs them.
    pub(super) const fn asks_requests(&self) -> bool {
        !self.window.is_all()
            || self.wanted.tid != 0
            || self.wanted.apis != u32::MAX
            || self.wanted.min_latency_ns != 0
    }

    /// True if a request matches, except for its time, names and verdict, which are not checked
    /// here.
    pub(super) fn takes(&self, request: &Request) -> bool {
        let RequestFilter { ops, apis, min_latency_ns, .. } = self.wanted;
        self.takes_process(request.task.tgid)
            && self.takes_thread(request.task.tid)
            && has(ops, request.op)
            && has(apis, request.api)
            && request.end_ns.saturating_sub(request.begin_ns) >= min_latency_ns
    }

    pub(super) fn takes_process(&self, pid: u32) -> bool {
        self.pids.is_empty() || self.pids.contains(&pid)
    }

    pub(super) const fn takes_thread(&self, tid: u32) -> bool {
        self.wanted.tid == 0 || self.wanted.tid == tid
    }
}

/// True if the bit of this `OP_*` or `API_*` is set.
const fn has(bits: u32, number: u8) -> bool {
    bits >> (number & 31) & 1 != 0
}
