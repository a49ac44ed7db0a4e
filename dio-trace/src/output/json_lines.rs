//! JSON lines (docs/json.md): one line per request or number of lost ones, and the summary as the
//! last line.

use std::io::Write;

use anyhow::Result;
use serde::Serialize;

use crate::flow::{explained::ExplainedRequest, lost::LostRow, sink::Sink, summary::Summary};

/// Writes JSON lines. Rejected opens and mixed access are only in the summary.
pub struct JsonLines<W> {
    out: W,
}

impl<W: Write> JsonLines<W> {
    pub const fn new(out: W) -> Self {
        Self { out }
    }

    fn line(&mut self, value: &impl Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.out, value)?;
        Ok(self.out.write_all(b"\n")?)
    }
}

impl<W: Write> Sink for JsonLines<W> {
    fn wants_all(&self) -> bool {
        true
    }

    fn request(&mut self, record: &ExplainedRequest) -> Result<()> {
        self.line(record)
    }

    fn lost_requests(&mut self, row: &LostRow) -> Result<()> {
        self.line(row)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(self.out.flush()?)
    }

    fn summary(&mut self, summary: &Summary) -> Result<()> {
        self.line(summary)?;
        self.flush()
    }
}
