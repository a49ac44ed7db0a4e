//! [`ExplainedRequest`]: a request with everything known about it, as every output takes it.

use std::{ops::BitAnd, sync::Arc};

use dio_trace_common::{
    abi::{Api, FileId, OP_WRITE, Op, Request, ring, rwf, would_block},
    evidence::{Evidence, seen},
    verdict::{Outcome, Verdict},
};
use serde::Serialize;

use crate::{
    cause::{Case, Certainty, Explanation, ReasonKind, RecentKinds, explain},
    enrich::{Enricher, ShownNames, thread},
    flow::decided::{Decided, LookedUp},
    kernel::probes::Effect,
    system::stack::Stack,
    util::{clock::Clock, errno},
};

/// Version of the JSON contract (docs/json.md).
pub const SCHEMA: u32 = 1;

/// Side effects of a request on the page cache.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Effects {
    /// Dirty pages written back before the request; None if unknown.
    pub flushed_pages: Option<u32>,
    /// Pages dropped from the page cache; None if invalidation is not probed.
    pub invalidated_pages: Option<u32>,
    /// Pages added to the page cache of the file, read-ahead included; None if additions are not
    /// probed, or the request did not ask for direct I/O.
    pub readahead_pages: Option<u32>,
    /// Dirty pages that a write left in the page cache; None for a read, or if write-back is not
    /// probed.
    pub dirty_left_pages: Option<u32>,
    /// True if one of the page counts is not exact.
    pub approximate: bool,
}

/// How the program asked for its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Asked {
    /// With O_DIRECT.
    Direct,
    /// Without O_DIRECT, by a call with RWF_DONTCACHE.
    Dontcache,
    /// Without either.
    Cached,
}

impl Asked {
    fn of(evidence: &Evidence) -> Self {
        match (evidence.seen & seen::NOT_ASKED, evidence.seen & seen::UNCACHED) {
            (0, _) => Self::Direct,
            (_, 0) => Self::Cached,
            _ => Self::Dontcache,
        }
    }

    /// The word in every output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Dontcache => "dontcache",
            Self::Cached => "cached",
        }
    }
}

/// One request, with the fields of its JSON object. docs/json.md gives the type, unit and null rule
/// of each.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ExplainedRequest {
    pub v: u32,
    pub kind: &'static str,
    pub time: u64,
    pub pid: u32,
    pub tid: u32,
    pub comm: Arc<str>,
    /// The process's title or command line, if that says more than `comm`.
    pub cmdline: Option<Arc<str>>,
    /// The submitting thread's name, if it has one of its own.
    pub thread: Option<Arc<str>>,
    /// The container's name, or the first digits of its id.
    pub container: Option<Arc<str>>,
    /// The Kubernetes pod, and its namespace.
    pub pod: Option<Arc<str>>,
    pub namespace: Option<Arc<str>>,
    /// The volume of a container or pod that the file is on.
    pub volume: Option<Arc<str>>,
    pub op: Op,
    pub api: Api,
    pub dev: Arc<str>,
    pub ino: u64,
    pub fs: Arc<str>,
    pub path: Arc<str>,
    pub offset: i64,
    pub len: u64,
    pub ret: i64,
    pub latency_ns: u64,
    pub asked: Asked,
    pub verdict: Verdict,
    pub direct_bytes: u64,
    pub cached_bytes: u64,
    /// Bytes of a read that did not ask for direct I/O that had to be read in for it; None for other
    /// requests, or if additions are not probed.
    pub read_in_bytes: Option<u64>,
    pub outcome: Option<Outcome>,
    pub errno: Option<String>,
    pub cause: Option<&'static str>,
    pub why: Option<String>,
    pub fix: Option<String>,
    pub effects: Effects,
    pub attempts: u32,
    /// Flags of the call and of its io_uring, by name.
    pub flags: Vec<&'static str>,
    /// Why an attempt would have had to wait, by name; empty without `--why-eagain`, or if no probe
    /// saw a reason.
    pub would_block: Vec<&'static str>,
    /// True if the request gets a line on the screen without `--all`.
    pub finding: bool,
    /// The program's own stack when it issued the request; None without `--stack` or if there was
    /// none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack: Option<Arc<Stack>>,
    /// Identity of the file, for folding findings and for the summary; not serialized.
    #[serde(skip)]
    pub file: FileId,
    /// Kind of `why`, for folding findings; not serialized.
    #[serde(skip)]
    pub reason: Option<ReasonKind>,
    /// Whether `why` is proven; not serialized.
    #[serde(skip)]
    pub certainty: Option<Certainty>,
}

/// Findings with the same key are folded into one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FindingKey {
    pub pid: u32,
    pub file: FileId,
    pub op: Op,
    pub verdict: Verdict,
    pub outcome: Option<Outcome>,
    pub cause: Option<&'static str>,
    pub reason: Option<ReasonKind>,
    /// Id of the stack.
    pub stack: Option<u32>,
}

/// The side effects whose probes are attached.
#[derive(Clone, Copy, Debug)]
pub struct WatchedEffects {
    pub flushes: bool,
    pub invalidations: bool,
    pub additions: bool,
    /// Bytes in a page of the kernel that the requests were made on.
    pub page_size: u64,
}

impl WatchedEffects {
    /// Derives the effects from the names of the attached probes.
    #[must_use]
    pub fn by(attached: &[String], page_size: u64) -> Self {
        Self {
            flushes: Effect::Flushed.is_observed_by(attached),
            invalidations: Effect::Invalidated.is_observed_by(attached),
            additions: Effect::ReadAhead.is_observed_by(attached),
            page_size,
        }
    }
}

impl ExplainedRequest {
    /// The key by which findings are folded.
    #[must_use]
    pub fn kind(&self) -> FindingKey {
        FindingKey {
            pid: self.pid,
            file: self.file,
            op: self.op,
            verdict: self.verdict,
            outcome: self.outcome,
            cause: self.cause,
            reason: self.reason,
            stack: self.stack.as_ref().map(|stack| stack.id),
        }
    }

    /// Explains a request.
    #[must_use]
    pub fn new(
        decided: &Decided<'_>,
        looked_up: LookedUp,
        enricher: &mut Enricher,
        kinds: &mut RecentKinds,
        clock: &Clock,
        watched: WatchedEffects,
    ) -> Self {
        let Decided { request, decision } = *decided;
        let LookedUp { extents, memory, stack } = looked_up;
        let key = decided.file();
        let ShownNames { comm, title, container } = enricher.shown_names(&request.task);
        let thread = thread(request.task.tgid, request.task.tid, &request.task.comm, &comm);
        let file = enricher.file(key, request.task.tgid);
        let (fs, options) = file.deciding();
        let explanation = explain(&Case {
            request,
            decision: &decision,
            fs,
            options,
            attrs: &file.attrs,
            page_size: watched.page_size,
            extents,
            memory: memory.as_ref(),
            buffered_users: &file.buffered_users,
        });
        let cause = explanation.as_ref().map(|explanation| explanation.id);
        let certainty = explanation.as_ref().map(|explanation| explanation.certainty);
        let (why, fix) = explanation.map(|Explanation { why, fix, .. }| (why, fix)).unzip();
        let reason = cause.zip(why.as_ref()).map(|(rule, why)| kinds.of(rule, why));
        Self {
            v: SCHEMA,
            kind: "request",
            time: clock.wall(request.end_ns),
            pid: request.task.tgid,
            tid: request.task.tid,
            comm,
            cmdline: title,
            thread,
            container: container.name,
            pod: container.pod,
            namespace: container.namespace,
            volume: file.volume.clone(),
            op: request.op(),
            api: request.api(),
            dev: file.dev.clone(),
            ino: request.file.ino,
            fs: file.fs.clone(),
            path: file.path.clone(),
            offset: request.pos,
            len: request.len,
            ret: request.ret,
            latency_ns: decided.latency_ns(),
            asked: Asked::of(&request.evidence),
            verdict: decision.verdict,
            direct_bytes: decision.direct_bytes,
            cached_bytes: decision.cached_bytes,
            read_in_bytes: read_in(request, decision.cached_bytes, watched),
            outcome: (decision.outcome != Outcome::None).then_some(decision.outcome),
            errno: (request.ret < 0).then(|| errno::name(-request.ret)),
            cause,
            why,
            fix,
            effects: Effects {
                flushed_pages: flushed(request, &file.fs, watched),
                ..effects(request, decision.cached_bytes, decision.direct_bytes, watched)
            },
            attempts: request.evidence.attempts,
            flags: flags(request),
            would_block: named(request.would_block, would_block::ALL).collect(),
            finding: decision.finding,
            stack,
            file: key,
            reason,
            certainty,
        }
    }
}

/// Bytes of a read without O_DIRECT whose pages came into the page cache for it. Those at its ends are
/// counted as a whole, as far as it has as many bytes.
fn read_in(request: &Request, cached: u64, watched: WatchedEffects) -> Option<u64> {
    let evidence = &request.evidence;
    let asked = evidence.seen & seen::NOT_ASKED != 0 && request.op != OP_WRITE;
    let pages = (asked && watched.additions).then_some(evidence.added_pages)?;
    Some(cached.min(u64::from(pages) * watched.page_size))
}

/// The flags of the call and of its io_uring, by name.
fn flags(request: &Request) -> Vec<&'static str> {
    named(request.rw_flags, rwf::ALL).chain(named(request.ring, ring::ALL)).collect()
}

/// The names of the bits that are set.
fn named<T>(bits: T, names: &'static [(T, &'static str)]) -> impl Iterator<Item = &'static str>
where
    T: Copy + BitAnd<Output = T> + Default + PartialEq,
{
    let none = T::default();
    let names = if bits == none { &[] } else { names }; // as of most requests
    names.iter().filter(move |(bit, _)| bits & *bit != none).map(|(_, name)| *name)
}

fn effects(request: &Request, cached: u64, direct: u64, watched: WatchedEffects) -> Effects {
    let evidence = &request.evidence;
    let not_asked = evidence.seen & seen::NOT_ASKED != 0;
    let seen = |watched: bool, pages: u32| watched.then_some(pages);
    Effects {
        flushed_pages: seen(watched.flushes, evidence.flushed_pages),
        invalidated_pages: seen(watched.invalidations, evidence.invalidated_pages),
        readahead_pages: seen(watched.additions && !not_asked, evidence.added_pages),
        dirty_left_pages: dirty_left(request, cached, direct, watched),
        approximate: evidence.flushed_pages != 0 || evidence.invalidated_pages != 0,
    }
}

/// Pages flushed; None if unknown. f2fs does not count in `nr_to_write` what it writes in place
/// (fs/f2fs/data.c), and nilfs2 does not count what it puts into a segment
/// (fs/nilfs2/inode.c:nilfs_writepages), so on these 0 counted does not mean 0 written.
fn flushed(request: &Request, fs: &str, watched: WatchedEffects) -> Option<u32> {
    let pages = request.evidence.flushed_pages;
    (watched.flushes && (pages != 0 || !matches!(fs, "f2fs" | "nilfs2"))).then_some(pages)
}

/// Pages of the buffered part of a write that were not written back before it returned; None for a
/// read, or if write-back is not probed.
fn dirty_left(request: &Request, cached: u64, direct: u64, watched: WatchedEffects) -> Option<u32> {
    if request.op != OP_WRITE || !watched.flushes || request.pos < 0 {
        return None;
    }
    if cached == 0 || request.evidence.seen & seen::WRITTEN_BACK != 0 {
        return Some(0);
    }
    let start = request.pos as u64 + direct;
    let pages = (start + cached - 1) / watched.page_size - start / watched.page_size + 1;
    Some(u32::try_from(pages).unwrap_or(u32::MAX))
}
