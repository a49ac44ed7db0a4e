//! Replays a recording: reads it once, and passes to a sink what live tracing would have shown.
//! Nothing is looked up on this machine.

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

/// Damage and truncation of a recording.
#[derive(Clone, Debug, Default)]
pub struct Integrity {
    pub damage: Vec<Damage>,
    pub damaged_bytes: u64,
    /// The end of a recording that was ended cleanly; `None` if the file was cut off.
    pub end: Option<End>,
    /// Latest time in any block, CLOCK_MONOTONIC in ns.
    pub last: u64,
}

/// The result of a replay.
pub struct Replay {
    pub header: Header,
    pub summary: Summary,
    /// When the recording began, and the time until its last block.
    pub span: Span,
    pub timeline: Timeline,
    /// Counters of the summary, for grouping.
    pub counters: Vec<(CounterKey, Counter)>,
    pub enricher: Enricher,
    pub integrity: Integrity,
    /// Number of individual requests in the file.
    pub recorded: u64,
    /// Number of requests that match the selection.
    pub shown: u64,
    /// The summary was computed from individual requests instead of the totals, because the
    /// selection needs it (a time, a thread) or the totals are incomplete (a cut file).
    pub by_requests: bool,
    /// The selection in words; `None` if everything is selected.
    pub only: Option<String>,
    /// Requests that the recorder dropped.
    pub dropped: u64,
    /// Size of the file.
    pub bytes: u64,
    /// What was left out to bound memory.
    pub left_out: LeftOut,
}

/// An open recording whose header was read.
pub struct Recording<R> {
    reader: Reader<R>,
    header: Header,
}

impl<R: Read + Seek> Recording<R> {
    /// Opens a recording and reads its header.
    ///
    /// # Errors
    /// If it is not a recording, has a newer version, or cannot be read.
    pub fn open(input: R) -> Result<Self> {
        let reader = Reader::open(input)?;
        let header = clean(reader.header().clone());
        Ok(Self { reader, header })
    }

    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Reads the recording and passes everything that matches the selection to `sink`.
    ///
    /// # Errors
    /// If the recording cannot be read, and errors of the sink.
    pub fn replay(self, selection: Selection, sink: &mut dyn Sink) -> Result<Replay> {
        let Self { mut reader, header } = self;
        let mut walk = Walk::new(&header, selection, sink);
        let bytes = reader.size();
        while let Some(item) = reader.item()? {
            walk.take(item)?;
        }
        walk.end()?;
        walk.left_out.too_large = reader.too_large();
        drop(reader); // its buffers
        Ok(walk.finish(header, bytes))
    }
}
