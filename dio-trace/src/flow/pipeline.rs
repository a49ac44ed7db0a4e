//! The path that every event takes: decide, filter, look up, explain, pass to the sink.
//!
//! Live tracing feeds a [`Pipeline`] with the events of the ring buffer. Replay feeds it with
//! requests that are already decided and filtered, and with the extents and the stack that were
//! recorded.

use anyhow::Result;
use dio_trace_common::abi::{BufferedUseEvent, Counter, CounterKey, RejectedOpen, Request};

use crate::{
    enrich::Enricher,
    flow::{
        alignment_probe::{AlignmentProbes, Released, Sight},
        decided::{Decided, LookedUp},
        explained::{ExplainedRequest, WatchedEffects},
        filter::{Filter, TotalsFilter},
        side_events::{MixedAccess, SideEvents},
        sink::Sink,
        summary::Summary,
    },
    model::{Event, Totals},
    util::clock::Clock,
};

/// Explains events and passes them to a sink.
pub struct Pipeline {
    pub enricher: Enricher,
    pub clock: Clock,
    watched: WatchedEffects,
    pub filter: Filter,
    side: SideEvents,
    probes: AlignmentProbes,
}

impl Pipeline {
    #[must_use]
    pub fn new(enricher: Enricher, clock: Clock, watched: WatchedEffects, filter: Filter) -> Self {
        let (side, probes) = (SideEvents::default(), AlignmentProbes::default());
        Self { enricher, clock, watched, filter, side, probes }
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
                if !self.takes_names(request) {
                    return Ok(());
                }
                self.observe(request, sink)?;
                if !self.filter.takes_verdict(decided.decision.verdict) {
                    return Ok(());
                }
                let looked_up = LookedUp::now(&decided, &mut self.enricher);
                self.request(&decided, looked_up, sink)
            }
            Event::RejectedOpen(rejected_open) => self.rejected_open(rejected_open, sink),
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
    }

    /// True if the filter takes the process that uses the file directly; false if it is unknown.
    fn takes_direct_user(&mut self, event: &BufferedUseEvent) -> bool {
        event.direct_user != 0
            && self.filter.takes_person(&self.enricher.process(event.direct_user, None))
    }

    /// Takes what a request says about those that are held back. Called before [`Self::request`], and
    /// for requests that are then left out by their verdict or because they are no findings. Returns
    /// the completions (CLOCK_MONOTONIC in ns) of earlier findings that are steps of a probe.
    ///
    /// # Errors
    /// Errors of the sink.
    pub fn observe(&mut self, request: &Request, sink: &mut dyn Sink) -> Result<Vec<u64>> {
        release(self.probes.observe(request), sink)
    }

    /// Passes on what was held back for long enough at `now` (CLOCK_MONOTONIC in ns). Returns true
    /// if [`Self::decide_probes`] is to be called.
    ///
    /// # Errors
    /// Errors of the sink.
    pub fn expire_probes(&mut self, now: u64, sink: &mut dyn Sink) -> Result<bool> {
        release(self.probes.expire(now), sink)?;
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
        let counters = counters.iter().map(|(key, counter)| (key, counter));
        release(self.probes.decide(counters), sink).map(|_| ())
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
    ) -> Result<Vec<u64>> {
        release(self.probes.finish(counters), sink)
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

    /// Explains a request that the filter has taken, and passes it to the sink, or holds it back.
    ///
    /// # Errors
    /// Errors of the sink.
    pub fn request(
        &mut self,
        decided: &Decided<'_>,
        looked_up: LookedUp,
        sink: &mut dyn Sink,
    ) -> Result<()> {
        let record = ExplainedRequest::new(
            decided,
            looked_up,
            &mut self.enricher,
            &self.clock,
            self.watched,
        );
        self.side.request(&record);
        self.probes.hold(decided, record).map_or(Ok(()), |record| sink.request(&record))
    }

    /// Takes a rejected open.
    ///
    /// # Errors
    /// Errors of the sink.
    pub fn rejected_open(&mut self, event: &RejectedOpen, sink: &mut dyn Sink) -> Result<()> {
        let row = self.side.rejected_open(event, &mut self.enricher, &self.clock);
        let filter = &self.filter;
        match row.filter(|row| filter.takes_file(&row.comm, &row.path, &row.fs)) {
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
        let either = direct || cached && filter.takes_person(&access.comm);
        if either && filter.takes_place(&access.path, &access.fs) {
            sink.mixed_access(&access)?;
        }
        Ok(())
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
        let Self { enricher, filter, side, probes, .. } = self;
        let summary = TotalsFilter { filter, pids, ops }.summary(totals, side, enricher);
        Summary { alignment_probes: probes.rows(enricher), ..summary }
    }
}

/// Passes on what was held back; returns the steps of probes.
fn release(released: Released, sink: &mut dyn Sink) -> Result<Vec<u64>> {
    released.records.iter().try_for_each(|record| sink.request(record))?;
    Ok(released.steps)
}
