//! Groups the findings of a recording for the HTML page, while it is replayed.

use std::{collections::HashMap, sync::Arc};

use anyhow::Result;
use dio_trace_common::{
    abi::{FileId, Op},
    verdict::{Outcome, Verdict},
};
use serde::Serialize;

use crate::{
    cause::ReasonKind,
    flow::{explained::ExplainedRequest, sink::Sink},
};

/// Maximum number of rows. Findings that would need more are counted as left out.
const MAX_KEPT: usize = 8_192;
/// Maximum bytes of text in the rows.
const MAX_TEXT: usize = 16 << 20;

/// Findings of one process, file, operation, verdict, outcome, cause and kind of reason.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Found {
    pid: u32,
    comm: Arc<str>,
    path: Arc<str>,
    fs: Arc<str>,
    op: Op,
    verdict: Verdict,
    outcome: Option<Outcome>,
    errno: Option<String>,
    cause: Option<&'static str>,
    /// Reason of the first finding of the row; those of the others differ in numbers.
    why: Option<String>,
    fix: Option<String>,
    requests: u64,
    bytes: u64,
    latency_max_ns: u64,
    flushed_pages: u64,
    invalidated_pages: u64,
    /// Time of the first finding: ns since the epoch.
    first: u64,
    /// Time of the last finding: ns since the epoch.
    last: u64,
}

impl Found {
    fn new(record: &ExplainedRequest) -> Self {
        Self {
            pid: record.pid,
            comm: record.comm.clone(),
            path: record.path.clone(),
            fs: record.fs.clone(),
            op: record.op,
            verdict: record.verdict,
            outcome: record.outcome,
            errno: record.errno.clone(),
            cause: record.cause,
            why: record.why.clone(),
            fix: record.fix.clone(),
            requests: 0,
            bytes: 0,
            latency_max_ns: 0,
            flushed_pages: 0,
            invalidated_pages: 0,
            first: record.time,
            last: record.time,
        }
    }

    fn add(&mut self, record: &ExplainedRequest) {
        self.requests += 1;
        self.bytes = self.bytes.saturating_add(record.ret.max(0).unsigned_abs());
        self.latency_max_ns = self.latency_max_ns.max(record.latency_ns);
        self.flushed_pages += u64::from(record.effects.flushed_pages.unwrap_or(0));
        self.invalidated_pages += u64::from(record.effects.invalidated_pages.unwrap_or(0));
        (self.first, self.last) = (self.first.min(record.time), self.last.max(record.time));
    }
}

/// Sums of all findings of one cause.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Caused {
    pub(super) requests: u64,
    bytes: u64,
}

/// Key of a row: process, file, operation, verdict, outcome, cause, kind of reason.
type Key = (u32, FileId, Op, Verdict, Option<Outcome>, Option<&'static str>, Option<ReasonKind>);

/// A sink that groups findings.
#[derive(Default)]
pub struct Gather {
    rows: HashMap<Key, Found>,
    causes: HashMap<&'static str, Caused>,
    left_out: u64,
    text: usize,
}

impl Gather {
    pub(super) fn causes(&self) -> HashMap<&'static str, Caused> {
        self.causes.clone()
    }

    pub(super) const fn left_out(&self) -> u64 {
        self.left_out
    }

    /// The rows, the most frequent first.
    pub(super) fn rows(self) -> Vec<Found> {
        let mut rows: Vec<Found> = self.rows.into_values().collect();
        rows.sort_by(|a, b| (b.requests, a.first, &a.path).cmp(&(a.requests, b.first, &b.path)));
        rows
    }
}

impl Sink for Gather {
    fn request(&mut self, r: &ExplainedRequest) -> Result<()> {
        if !r.finding {
            return Ok(());
        }
        if let Some(cause) = r.cause {
            let sum = self.causes.entry(cause).or_default();
            sum.requests += 1;
            sum.bytes = sum.bytes.saturating_add(r.ret.max(0).unsigned_abs());
        }
        let key = (r.pid, r.file, r.op, r.verdict, r.outcome, r.cause, r.reason);
        let full = self.rows.len() >= MAX_KEPT || self.text >= MAX_TEXT;
        if full && !self.rows.contains_key(&key) {
            self.left_out += 1;
            return Ok(());
        }
        let found = self.rows.entry(key).or_insert_with(|| {
            let why = r.why.as_ref().map_or(0, String::len);
            self.text += r.path.len() + r.fs.len() + r.comm.len() + why;
            Found::new(r)
        });
        found.add(r);
        Ok(())
    }
}
