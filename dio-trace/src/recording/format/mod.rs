//! The recording: write, read, recover. docs/trace-format.md is the contract.

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
    CounterFact, End, Fact, FileFact, Header, MixerFact, ProcessFact, RefusalFact, Scope, TaskFact,
    TotalsFact, mixer,
};
#[cfg(any(test, fuzzing))]
pub(crate) use framing::framed;
#[cfg(test)]
pub(crate) use framing::unframed;
pub use reader::{Item, Reader};
pub use writer::Writer;

/// Newest version of the format; a newer one is refused.
pub const VERSION: u32 = 2;
/// What a file begins with; a text-mode copy that changes line ends breaks it at once.
const MAGIC: [u8; 8] = *b"dio\x89rec\n";

/// True of the first bytes of a recording, as many as there are.
#[must_use]
pub fn begins_as_one(bytes: &[u8]) -> bool {
    MAGIC.iter().zip(bytes).all(|(wanted, byte)| wanted == byte)
}
/// Magic, version, and the CRC of both.
const PREFIX: usize = 16;

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// JSON: a [`Header`]; the first block.
    Header = 1,
    /// JSON, an object a line: [`Fact`]s.
    Facts = 2,
    /// [`Columns`] of requests.
    Requests = 3,
    /// JSON: a [`TotalsFact`].
    Totals = 4,
    /// JSON: an [`End`]; the last block of a recording that was ended in good order.
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
