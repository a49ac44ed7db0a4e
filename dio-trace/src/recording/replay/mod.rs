//! Reads a recording once and hands on what live tracing would have shown. Nothing of this machine
//! is asked.

mod budget;
mod fit;
mod header;
mod selection;
mod sums;
mod tables;
mod walk;

pub use budget::LeftOut;
pub use selection::{Selection, Window};

use std::io::{Read, Seek};

use anyhow::Result;
use dio_trace_common::abi::{Counter, CounterKey};

use crate::{
    enrich::Enricher,
    flow::{sink::Sink, summary::Summary, timeline::Timeline},
    recording::{
        format::{Damage, End, Header, Reader},
        replay::{header::clean, walk::Walk},
    },
    util::figures::Span,
};

/// What is not whole about a recording.
#[derive(Clone, Debug, Default)]
pub struct Integrity {
    pub damage: Vec<Damage>,
    pub damaged_bytes: u64,
    /// How it ended in good order; `None`: it was cut.
    pub end: Option<End>,
    /// When its last block was written, as far as they say: ns of CLOCK_MONOTONIC.
    pub last: u64,
}

/// All that was in it.
pub struct Replay {
    pub header: Header,
    pub summary: Summary,
    /// The recording's own: when it began, and how long until its last block.
    pub span: Span,
    pub timeline: Timeline,
    /// Counters of the summary, for grouping.
    pub counters: Vec<(CounterKey, Counter)>,
    pub enricher: Enricher,
    pub integrity: Integrity,
    /// Requests in the file one by one, and those of them that are looked at.
    pub recorded: u64,
    pub shown: u64,
    /// The summary was made from these requests, for the counters do not say (a time, a thread, a cut).
    pub by_requests: bool,
    /// In words, what of the recording was looked at; `None`: all.
    pub only: Option<String>,
    pub dropped: u64,
    pub bytes: u64,
    /// For want of memory.
    pub left_out: LeftOut,
}

impl Replay {
    /// What a heading says of what is looked at.
    #[must_use]
    pub fn headline(&self) -> String {
        if self.summary.ended() == 0 && self.only.is_some() {
            return "Nothing that was recorded fits: without filters and times the report has all of \
                    it."
                .to_owned();
        }
        self.summary.headline()
    }
}

/// An open recording whose header was read.
pub struct Recording<R> {
    reader: Reader<R>,
    header: Header,
}

impl<R: Read + Seek> Recording<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// If it is not a recording, or of a newer version, or cannot be read.
    pub fn open(input: R) -> Result<Self> {
        let reader = Reader::open(input)?;
        let header = clean(reader.header().clone());
        Ok(Self { reader, header })
    }

    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Hands all that is wanted of it to a sink.
    ///
    /// # Errors
    /// If it cannot be read, or holds more than a reader can keep; those of the sink.
    pub fn replay(self, selection: Selection, sink: &mut dyn Sink) -> Result<Replay> {
        let Self { mut reader, header } = self;
        let mut walk = Walk::new(&header, selection, sink);
        let bytes = reader.size();
        while let Some(item) = reader.item()? {
            walk.take(item)?;
        }
        walk.left_out.too_large = reader.too_large();
        drop(reader); // its buffers
        Ok(walk.finish(header, bytes))
    }
}
