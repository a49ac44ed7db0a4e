//! The path that every event takes: decide, filter, look up, explain, pass to the sink.
//!
//! Live tracing feeds a [`Pipeline`] with the events of the ring buffer. Replay feeds it with
//! requests that are already decided and filtered, and with the extents and the stack that were
//! recorded.

use ahash::HashMap;
use anyhow::Result;
use dio_trace_common::{
    abi::{BufferedUseEvent, Counter, CounterKey, RejectedOpen, Request},
    verdict::{Decision, Verdict},
};

use crate::{
    cause::RecentKinds,
    enrich::Enricher,
    flow::{
        alignment_probe::{AlignmentProbes, Released, Settled, Sight, counted},
        causes::Causes,
        decided::{Decided, LookedUp},
        explained::{ExplainedRequest, WatchedEffects},
        filter::{Filter, TotalsFilter},
        lost::{LostRequests, LostRow},
        side_events::{MixedAccess, SideEvents},
        sink::Sink,
        summary::Summary,
    },
    model::{Event, Totals},
    util::clock::Clock,
};

/// The most keys by which the requests of a filter by cause are counted.
const MAX_COUNTED: usize = 16_384;

/// What was decided about requests that were held back.
#[derive(Default)]
pub struct Settlement {
    /// Completions (CLOCK_MONOTONIC in ns) of requests that are steps of a probe and no findings;
    /// empty if the filter is by cause.
    pub steps: Vec<u64>,
    /// If the filter is by cause: those that it has taken, with completion, latency, verdict, and
    /// whether they are findings.
    pub taken: Vec<(u64, u64, Verdict, bool)>,
}

/// Explains events and passes them to a sink.
pub struct Pipeline {
    pub enricher: Enricher,
    pub clock: Clock,
    watched: WatchedEffects,
    kinds: RecentKinds,
    pub filter: Filter,
    side: SideEvents,
    probes: AlignmentProbes,
    /// The findings by cause.
    pub causes: Causes,
    /// The requests whose own events were lost; `None` if no line tells of them.
    pub lost: Option<LostRequests>,
    /// Requests with a cause that is taken, and how many are left out of it, because there were too
    /// many keys; counted only if the filter is by cause.
    counted: HashMap<CounterKey, Counter>,
    uncounted: u64,
}

impl Pipeline {
    #[must_use]
    pub fn new(enricher: Enricher, clock: Clock, watched: WatchedEffects, filter: Filter) -> Self {
        Self {
            enricher,
            clock,
            watched,
            kinds: RecentKinds::default(),
            filter,
            side: SideEvents::default(),
            probes: AlignmentProbes::default(),
            causes: Causes::default(),
            lost: None,
            counted: HashMap::default(),
            uncounted: 0,
        }
    }

    /// Says which requests have events, and which the sink takes; without it, only findings.
    #[must_use]
    pub fn with_sight(mut self, sight: Sight) -> Self {
        self.probes.set(sight);
        self
    }

    /// Takes an event of the ring buffer.
    ///
    /// # Errors
    /// Errors of the sink.
    pub fn event(&mut self, event: &Event, sink: &mut dyn Sink) -> Result<()> {
        match event {
            Event::File(file) => {
                self.enricher.add(file);
                Ok(())
            }
            Event::Request(request) => {
                let decided = Decided::of(request);
                if let Some(lost) = &mut self.lost {
                    lost.take(&decided);
                }
                if !self.takes_names(request) {
                    return Ok(());
                }
                self.observe(request, sink)?;
                let Decision { verdict, outcome, .. } = decided.decision;
                if !self.filter.takes_decision(verdict, Some(outcome)) {
                    return Ok(());
                }
                let looked_up = LookedUp::now(&decided, &mut self.enricher);
                self.request(&decided, looked_up, true, sink).map(drop)
            }
            Event::RejectedOpen(rejected_open) => self.rejected_open(rejected_open, sink),
            Event::BufferedUse(event) if event.buffered_use.is_unasked() => {
                self.unasked(event, true, sink)
            }
            Event::BufferedUse(event) => {
                let direct = self.takes_direct_user(event);
                self.mixed_access(event, direct, true, sink)
            }
        }
    }

    /// True if the filter takes the names of a request's process and file.
    pub fn takes_names(&mut self, request: &Request) -> bool {
        if self.filter.takes_names() {
            return true;
        }
        let comm =
            self.enricher.process(request.task.tgid, Some((request.task.tid, &request.task.comm)));
        let file = self.enricher.file(request.file, request.task.tgid);
        self.filter.takes_file(&comm, &file.path, &file.fs)
            && self.filter.takes_container(self.enricher.container(request.task.tgid))
    }

    /// True if the filter takes the process that uses the file directly; false if it is unknown.
    fn takes_direct_user(&mut self, event: &BufferedUseEvent) -> bool {
        event.direct_user != 0
            && self.filter.takes_person(&self.enricher.process(event.direct_user, None))
            && self.filter.takes_container(self.enricher.container(event.direct_user))
    }

    /// Takes what a request says about those that are held back. Called before [`Self::request`], and
    /// for requests that are then left out by their verdict or because they are no findings. Returns
    /// what was decided about earlier ones.
    ///
    /// # Errors
    /// Errors of the sink.
    pub fn observe(&mut self, request: &Request, sink: &mut dyn Sink) -> Result<Settlement> {
        let released = self.probes.observe(request);
        if released.is_empty() {
            return Ok(Settlement::default()); // as for most requests
        }
        self.release(released, sink)
    }

    /// Passes on what was held back for long enough at `now` (CLOCK_MONOTONIC in ns). Returns true
    /// if [`Self::decide_probes`] is to be called.
    ///
    /// # Errors
    /// Errors of the sink.
    pub fn expire_probes(&mut self, now: u64, sink: &mut dyn Sink) -> Result<bool> {
        let released = self.probes.expire(now);
        self.release(released, sink)?;
        Ok(self.probes.wants_counters(now))
    }

    /// Decides by the counters, which no filter has changed, about what was held back.
    ///
    /// # Errors
    /// Errors of the sink.
    pub fn decide_probes(
        &mut self,
        counters: &[(CounterKey, Counter)],
        sink: &mut dyn Sink,
    ) -> Result<()> {
        let released = self.probes.decide(counters.iter().map(|(key, counter)| (key, counter)));
        self.release(released, sink).map(drop)
    }

    /// Decides about all requests that are held back, by the last counters. Called when no more
    /// events come. Returns the same as [`Self::observe`].
    ///
    /// # Errors
    /// Errors of the sink.
    pub fn finish_probes<'a>(
        &mut self,
        counters: impl Iterator<Item = (&'a CounterKey, &'a Counter)>,
        sink: &mut dyn Sink,
    ) -> Result<Settlement> {
        let released = self.probes.finish(counters);
        self.release(released, sink)
    }

    /// Passes on what was held back; returns the steps of probes.
    fn release(&mut self, released: Released, sink: &mut dyn Sink) -> Result<Settlement> {
        let Released { records, steps } = released;
        let by_cause = !self.filter.causes.is_empty();
        let mut settlement = Settlement::default();
        for Settled { end_ns, counted, record, is_shown } in records {
            let ExplainedRequest { latency_ns, verdict, finding, .. } = record;
            if self.show(&record, || counted, is_shown, sink)? && by_cause {
                settlement.taken.push((end_ns, latency_ns, verdict, finding));
            }
        }
        if !by_cause {
            settlement.steps = steps;
        }
        Ok(settlement)
    }

    /// Changes counters to what was decided: steps of probes are no findings, and what is still held
    /// back is not counted yet. Called once for each reading of the counters.
    pub fn change_counters(&self, counters: &mut Vec<(CounterKey, Counter)>) {
        self.probes.change(counters);
    }

    /// Number of requests that are held back.
    #[cfg(test)]
    pub(crate) fn probes_held(&self) -> usize {
        self.probes.held()
    }

    /// The counters of the requests that a filter by cause has taken, and the number of requests that
    /// are not in them; None without such a filter.
    fn counted(&mut self) -> Option<(Vec<(CounterKey, Counter)>, u64)> {
        let counted = std::mem::take(&mut self.counted);
        let is_by_cause = !self.filter.causes.is_empty();
        let mut rows: Vec<_> = counted.into_iter().collect();
        rows.sort_by_key(|(k, _)| (k.file.inode, k.tgid, k.op, k.verdict, k.outcome, k.errno));
        is_by_cause.then(|| (rows, std::mem::take(&mut self.uncounted)))
    }

    /// Reduces the counters of the requests that a filter by cause has taken, as `fit` reduces those
    /// of totals; returns what it returns.
    pub(crate) fn fit_counted(
        &mut self,
        totals: &mut Totals,
        fit: impl FnOnce(&mut Totals, &mut Enricher) -> u64,
    ) -> u64 {
        let counted = std::mem::take(&mut self.counted).into_iter().collect();
        let whole = std::mem::replace(&mut totals.counters, counted);
        let uses = std::mem::take(&mut totals.buffered_uses);
        let left_out = fit(totals, &mut self.enricher);
        for (key, counter) in std::mem::replace(&mut totals.counters, whole) {
            self.counted.entry(key).or_insert(Counter::ZERO).merge(&counter);
        }
        totals.buffered_uses = uses;
        left_out
    }

    /// Explains a request that the filter has taken as far as that does not depend on its cause,
    /// and holds it back, or passes it to the sink if `is_shown` and the filter takes the cause.
    /// Returns whether the filter has taken it.
    ///
    /// # Errors
    /// Errors of the sink.
    pub fn request(
        &mut self,
        decided: &Decided<'_>,
        looked_up: LookedUp,
        is_shown: bool,
        sink: &mut dyn Sink,
    ) -> Result<bool> {
        let record = self.explain(decided, looked_up);
        self.side.waited(decided.request);
        if is_shown {
            self.side.request(&record);
        }
        if let Some(run_step) = self.probes.run_step(decided.request) {
            self.probes.hold(run_step, decided, record);
            return Ok(false);
        }
        self.show(&record, || counted(decided), is_shown, sink)
    }

    /// Explains a request.
    fn explain(&mut self, decided: &Decided<'_>, looked_up: LookedUp) -> ExplainedRequest {
        let Self { enricher, kinds, clock, watched, .. } = self;
        ExplainedRequest::new(decided, looked_up, enricher, kinds, clock, *watched)
    }

    /// Takes a request that is not passed to the sink: only what it would have had to wait for.
    pub fn unseen(&mut self, decided: &Decided<'_>) {
        self.side.waited(decided.request);
    }

    /// Counts a request, and passes it to the sink, if the filter takes its cause; returns whether it
    /// does. `counted` says where it is counted; asked only if the filter is by cause.
    fn show(
        &mut self,
        record: &ExplainedRequest,
        counted: impl FnOnce() -> (CounterKey, Counter),
        is_shown: bool,
        sink: &mut dyn Sink,
    ) -> Result<bool> {
        if !self.filter.takes_cause(record.cause) {
            return Ok(false);
        }
        if !self.filter.causes.is_empty() {
            let (key, counter) = counted();
            if self.counted.len() < MAX_COUNTED || self.counted.contains_key(&key) {
                self.counted.entry(key).or_insert(Counter::ZERO).merge(&counter);
            } else {
                self.uncounted += counter.requests;
            }
        }
        if is_shown {
            self.causes.count(record);
            sink.request(record)?;
        }
        Ok(true)
    }

    /// Passes on requests whose own lines were lost, as far as the filter takes them.
    ///
    /// # Errors
    /// Errors of the sink.
    pub fn lost_requests(
        &mut self,
        rows: Vec<(CounterKey, u64)>,
        sink: &mut dyn Sink,
    ) -> Result<()> {
        let time = self.clock.wall(Clock::monotonic());
        for row in rows {
            if self.filter.takes_counter(&row.0, &mut self.enricher) {
                sink.lost_requests(&LostRow::new(row, time, &mut self.enricher))?;
            }
        }
        Ok(())
    }

    /// Takes a rejected open.
    ///
    /// # Errors
    /// Errors of the sink.
    pub fn rejected_open(&mut self, event: &RejectedOpen, sink: &mut dyn Sink) -> Result<()> {
        let row = self.side.rejected_open(event, &mut self.enricher, &self.clock);
        let filter = &self.filter;
        let container = self.enricher.container(event.task.tgid);
        let taken = filter.takes_container(container);
        match row.filter(|row| taken && filter.takes_rejected_open(row)) {
            Some(row) => sink.rejected_open(row),
            None => Ok(()),
        }
    }

    /// Takes an event that a process uses a file through the page cache. It is passed on if either
    /// side is taken: `direct` is true if the filter takes the file's direct user, and `cached` is
    /// true if the buffered user may be taken, which then depends on its name.
    ///
    /// # Errors
    /// Errors of the sink.
    pub fn mixed_access(
        &mut self,
        event: &BufferedUseEvent,
        direct: bool,
        cached: bool,
        sink: &mut dyn Sink,
    ) -> Result<()> {
        let access = MixedAccess::new(event, &mut self.enricher, &self.clock);
        let filter = &self.filter;
        let container = self.enricher.container(event.buffered_use.tgid);
        let either = direct
            || cached && filter.takes_person(&access.comm) && filter.takes_container(container);
        let either = either && filter.takes_cause(Some(access.cause));
        if either && filter.takes_place(&access.path, &access.fs) {
            sink.mixed_access(&access)?;
        }
        Ok(())
    }

    /// Takes an event that a process uses a file without O_DIRECT that is expected to be used directly.
    /// `may_be_taken` is false if its process is not selected.
    ///
    /// # Errors
    /// Errors of the sink.
    pub fn unasked(
        &mut self,
        event: &BufferedUseEvent,
        may_be_taken: bool,
        sink: &mut dyn Sink,
    ) -> Result<()> {
        self.side.unasked(event);
        let access = MixedAccess::unasked(event, &mut self.enricher, &self.clock);
        let filter = &self.filter;
        let container = self.enricher.container(access.pid);
        let taken = may_be_taken
            && filter.takes_cause(Some(access.cause))
            && filter.takes_file(&access.comm, &access.path, &access.fs)
            && filter.takes_container(container);
        if taken { sink.mixed_access(&access) } else { Ok(()) }
    }

    /// Number of rejected opens that are in no row, because there were too many rows.
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.side.left_out()
    }

    /// Removes from the totals what the filter does not take, and summarizes the rest. A report may
    /// select process ids with `pids` (empty for any) and operations with `ops`, a bit mask of
    /// [`Op`].
    ///
    /// [`Op`]: dio_trace_common::abi::Op
    pub fn summary(&mut self, totals: &mut Totals, pids: &[u32], ops: u32) -> Summary {
        let by_cause = self.counted();
        let Self { enricher, filter, side, probes, .. } = self;
        let narrow = TotalsFilter { filter, pids, ops };
        let mut alignment_probes = probes.rows(enricher);
        alignment_probes.retain(|row| filter.takes_cause(Some(row.cause)));
        let summary = narrow.summary(totals, by_cause, side, enricher);
        Summary { alignment_probes, ..summary }
    }
}
