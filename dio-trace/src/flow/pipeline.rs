//! The one way of an event: decide, filter, look up, explain, hand on.
//!
//! Live tracing gives a [`Pipeline`] the events of the ring; a recording gives it requests that it
//! has decided and filtered already, with the extents and the stack that were recorded.

use anyhow::Result;
use dio_trace_common::abi::{FileId, MixerEvent, Refusal, Request};

use crate::{
    enrich::Enricher,
    flow::{
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

/// From events to a sink.
pub struct Pipeline {
    pub enricher: Enricher,
    pub clock: Clock,
    watched: WatchedEffects,
    pub filter: Filter,
    side: SideEvents,
}

impl Pipeline {
    #[must_use]
    pub fn new(enricher: Enricher, clock: Clock, watched: WatchedEffects, filter: Filter) -> Self {
        Self { enricher, clock, watched, filter, side: SideEvents::default() }
    }

    /// Takes an event of the ring.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn event(&mut self, event: &Event, sink: &mut dyn Sink) -> Result<()> {
        match event {
            Event::File(file) => {
                self.enricher.add(file);
                Ok(())
            }
            Event::Request(request) => {
                let decided = Decided::of(request);
                if !self.takes(&decided) {
                    return Ok(());
                }
                let looked_up = LookedUp::now(&decided, &mut self.enricher);
                self.request(&decided, looked_up, sink)
            }
            Event::Refusal(refusal) => self.rejected_open(refusal, sink),
            Event::Mixer(event) => {
                let direct = self.takes_direct_user(event);
                self.mixed_access(event, direct, true, sink)
            }
        }
    }

    /// True if the filter takes a request.
    fn takes(&mut self, decided: &Decided<'_>) -> bool {
        self.filter.takes_verdict(decided.decision.verdict) && self.takes_names(decided.request)
    }

    /// True if the filter takes the names of a request's process and file.
    pub fn takes_names(&mut self, request: &Request) -> bool {
        if self.filter.takes_names() {
            return true;
        }
        let comm = self.enricher.process(request.tgid, Some((request.tid, &request.comm)));
        let file = self.enricher.file(FileId::from(request), request.tgid);
        self.filter.takes_file(&comm, &file.path, &file.fs)
    }

    /// True if the filter takes who uses the file directly, as far as that is known.
    fn takes_direct_user(&mut self, event: &MixerEvent) -> bool {
        event.direct_user != 0
            && self.filter.takes_person(&self.enricher.process(event.direct_user, None))
    }

    /// Explains a request that the filter has taken, and hands it on.
    ///
    /// # Errors
    /// Those of the sink.
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
        sink.request(&record)
    }

    /// Takes a rejected open.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn rejected_open(&mut self, event: &Refusal, sink: &mut dyn Sink) -> Result<()> {
        let row = self.side.rejected_open(event, &mut self.enricher, &self.clock);
        let filter = &self.filter;
        match row.filter(|row| filter.takes_file(&row.comm, &row.path, &row.fs)) {
            Some(row) => sink.rejected_open(row),
            None => Ok(()),
        }
    }

    /// Takes a process that uses a file through the page cache. It is handed on if the filter takes
    /// either side: `direct` says so of who uses the file directly, and `cached` whether who uses
    /// the page cache may be taken at all.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn mixed_access(
        &mut self,
        event: &MixerEvent,
        direct: bool,
        cached: bool,
        sink: &mut dyn Sink,
    ) -> Result<()> {
        let mixing = MixedAccess::new(event, &mut self.enricher, &self.clock);
        let filter = &self.filter;
        let either = direct || cached && filter.takes_person(&mixing.comm);
        if either && filter.takes_place(&mixing.path, &mixing.fs) {
            sink.mixed_access(&mixing)?;
        }
        Ok(())
    }

    /// Rejected opens for which there was no row.
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.side.left_out()
    }

    /// Sums up what the filter takes of the totals, which keep only that. Of a recording only some
    /// processes and operations may be wanted: `pids` (none: any) and `ops`, a bit of each [`Op`].
    ///
    /// [`Op`]: dio_trace_common::abi::Op
    pub fn summary(&mut self, totals: &mut Totals, pids: &[u32], ops: u32) -> Summary {
        let Self { enricher, filter, side, .. } = self;
        TotalsFilter { filter, pids, ops }.summary(totals, side, enricher)
    }
}
