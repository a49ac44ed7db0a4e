//! Writes a recording by appending blocks; it never seeks.

use std::io::{self, Write};

use serde::Serialize;

use crate::recording::format::{
    Columns, End, Fact, Header, Kind, Recorded, TotalsFact, VERSION,
    block::{encode, prefix},
};

/// Most rows in one totals block.
const TOTALS_ROWS: usize = 4_096;
/// Approximate size of a facts block in bytes, uncompressed.
const FACTS: usize = 256 << 10;

/// Writes a recording. Facts and requests are buffered until [`Writer::flush`].
pub struct Writer<W> {
    out: W,
    /// Bytes of complete blocks in the file.
    written: u64,
    /// Requests in complete blocks.
    recorded: u64,
    facts: Vec<u8>,
    requests: Columns,
    /// Offset of the last block of requests, and the number of requests before it.
    last: Option<(u64, u64)>,
}

impl<W: Write> Writer<W> {
    /// Begins a file: writes the prefix and the header.
    ///
    /// # Errors
    /// Those of the output.
    pub fn new(mut out: W, header: &Header) -> io::Result<Self> {
        let prefix = prefix(VERSION);
        out.write_all(&prefix)?;
        let written = prefix.len() as u64;
        let mut writer = Self { written, ..Self::bare(out) };
        // Nothing can be read without the header, so there are two copies.
        writer.json(Kind::Header, header)?;
        writer.json(Kind::Header, header)?;
        Ok(writer)
    }

    /// Writes only blocks: a part of a file that gets its header elsewhere.
    pub fn bare(out: W) -> Self {
        let (facts, requests) = (Vec::new(), Columns::default());
        Self { out, written: 0, recorded: 0, facts, requests, last: None }
    }

    /// Adds blocks that a bare writer has written, with `requests` requests in them.
    ///
    /// # Errors
    /// Those of the output.
    pub fn blocks(&mut self, blocks: &[u8], requests: u64) -> io::Result<()> {
        self.flush()?;
        self.out.write_all(blocks)?;
        self.written += blocks.len() as u64;
        self.recorded += requests;
        Ok(())
    }

    /// Discards the buffered facts and requests.
    pub fn discard(&mut self) {
        self.facts.clear();
        self.requests = Columns::default();
    }

    /// Gives up the last block of requests and everything after it. The caller must truncate the
    /// output to [`Writer::written`] bytes afterwards.
    pub fn give_back(&mut self) {
        if let Some(before) = self.last.take() {
            (self.written, self.recorded) = before;
        }
    }

    pub fn into_inner(self) -> W {
        self.out
    }

    /// Bytes of complete blocks: up to this offset the file is valid, even after a failed write.
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Number of requests in complete blocks.
    pub const fn recorded(&self) -> u64 {
        self.recorded
    }

    pub const fn get_ref(&self) -> &W {
        &self.out
    }

    pub const fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// Adds a fact. It precedes every request that is added after it.
    ///
    /// # Errors
    /// Those of the output.
    pub fn fact(&mut self, fact: &Fact) -> io::Result<()> {
        // Mixed access is part of the reason of later requests, but not of earlier ones.
        if matches!(fact, Fact::BufferedUse(_)) {
            self.requests()?;
        }
        serde_json::to_writer(&mut self.facts, fact)?;
        self.facts.push(b'\n');
        if self.facts.len() >= FACTS { self.facts() } else { Ok(()) }
    }

    /// Adds a request.
    ///
    /// # Errors
    /// Those of the output.
    pub fn request(&mut self, recorded: &Recorded) -> io::Result<()> {
        self.requests.push(recorded);
        if self.requests.is_full() { self.flush() } else { Ok(()) }
    }

    /// Adds totals, in as many blocks as are needed.
    ///
    /// # Errors
    /// Those of the output.
    pub fn totals(&mut self, mut totals: TotalsFact) -> io::Result<()> {
        self.flush()?;
        let counters = std::mem::take(&mut totals.counters);
        let buffered_uses = std::mem::take(&mut totals.buffered_uses);
        for rows in buffered_uses.chunks(TOTALS_ROWS) {
            self.json(
                Kind::Totals,
                &TotalsFact { buffered_uses: rows.to_vec(), ..totals.clone() },
            )?;
        }
        for rows in counters.chunks(TOTALS_ROWS) {
            self.json(Kind::Totals, &TotalsFact { counters: rows.to_vec(), ..totals.clone() })?;
        }
        if counters.is_empty() && buffered_uses.is_empty() {
            self.json(Kind::Totals, &totals)?;
        }
        Ok(())
    }

    /// Writes the end of the recording.
    ///
    /// # Errors
    /// Those of the output.
    pub fn end(&mut self, end: &End) -> io::Result<()> {
        self.flush()?;
        self.json(Kind::End, end)
    }

    /// Writes the buffered facts and requests to the output.
    ///
    /// # Errors
    /// Those of the output.
    pub fn flush(&mut self) -> io::Result<()> {
        self.facts()?;
        self.requests()
    }

    fn facts(&mut self) -> io::Result<()> {
        if self.facts.is_empty() {
            return Ok(());
        }
        let facts = std::mem::take(&mut self.facts);
        self.block(Kind::Facts, &facts)
    }

    fn requests(&mut self) -> io::Result<()> {
        if self.requests.is_empty() {
            return Ok(());
        }
        // The facts that the requests refer to come first.
        self.facts()?;
        let rows = self.requests.len() as u64;
        let before = (self.written, self.recorded);
        let raw = self.requests.encode();
        self.block(Kind::Requests, &raw)?;
        self.recorded += rows;
        self.last = Some(before);
        Ok(())
    }

    fn json<T: Serialize>(&mut self, kind: Kind, value: &T) -> io::Result<()> {
        let raw = serde_json::to_vec(value)?;
        self.block(kind, &raw)
    }

    fn block(&mut self, kind: Kind, raw: &[u8]) -> io::Result<()> {
        let block = encode(kind, raw)?;
        self.out.write_all(&block)?;
        self.written += block.len() as u64;
        Ok(())
    }
}
