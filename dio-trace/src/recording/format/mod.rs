//! The file format of a recording: writing, reading, and recovering from damage. It is specified in
//! docs/trace-format.md.
//!
//! A file is a prefix (magic, version, checksum) followed by blocks. Each block is compressed and
//! checked separately, so that damage affects only the block that it hits.

mod block;
pub mod bounds;
mod columns;
mod facts;
#[cfg(any(test, fuzzing))]
mod framing;
mod reader;
mod varint;
mod writer;

#[cfg(test)]
mod tests;

pub use block::{BlockInfo, Damage};
pub use columns::{Columns, Recorded};
pub use facts::{
    BufferedUseFact, CounterFact, End, Fact, FileFact, Header, ProcessFact, RejectedOpenFact,
    Scope, TaskFact, TotalsFact, UNASKED_CALLS,
};
#[cfg(any(test, fuzzing))]
pub(crate) use framing::framed;
#[cfg(test)]
pub(crate) use framing::unframed;
pub use reader::{Item, Reader};
pub use writer::Writer;

/// Newest version of the format that is supported; files of a newer one are rejected.
pub const VERSION: u32 = 4;
/// First bytes of a file. They contain a newline, so that a text-mode copy that changes line
/// endings is detected at once.
const MAGIC: [u8; 8] = *b"dio\x89rec\n";

/// True if `bytes` may be the beginning of a recording. Fewer bytes than the magic has are compared
/// as far as they go.
#[must_use]
pub fn begins_as_one(bytes: &[u8]) -> bool {
    MAGIC.iter().zip(bytes).all(|(wanted, byte)| wanted == byte)
}
/// Bytes of magic, version, and the CRC of both.
const PREFIX: usize = 16;

/// The contents of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// JSON: a [`Header`]; the first block.
    Header = 1,
    /// JSON, one object per line: [`Fact`]s.
    Facts = 2,
    /// [`Columns`] of requests.
    Requests = 3,
    /// JSON: a [`TotalsFact`].
    Totals = 4,
    /// JSON: an [`End`]; the last block of a recording that was ended cleanly.
    End = 5,
}

impl Kind {
    const fn from_u8(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Header,
            2 => Self::Facts,
            3 => Self::Requests,
            4 => Self::Totals,
            5 => Self::End,
            _ => return None,
        })
    }

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Facts => "facts",
            Self::Requests => "requests",
            Self::Totals => "totals",
            Self::End => "end",
        }
    }
}
