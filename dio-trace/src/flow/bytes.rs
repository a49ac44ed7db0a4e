//! [`Bytes`]: bytes moved, and the verdict of a counter.

use dio_trace_common::{
    abi::{Counter, CounterKey},
    verdict::{Outcome, Verdict},
};
use serde::Serialize;

use crate::util::figures::percent;

/// Bytes moved: in total, past the page cache (direct) and through it (cached).
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Bytes {
    pub total: u64,
    pub direct: u64,
    pub cached: u64,
}

impl Bytes {
    /// Percentage of the bytes moved that went past the page cache; None if none were moved.
    #[must_use]
    pub fn direct_share(&self) -> Option<f64> {
        let moved = self.direct + self.cached;
        (moved != 0).then(|| self.direct as f64 * 100.0 / moved as f64)
    }

    /// The direct share as text, such as "74.9%".
    #[must_use]
    pub fn direct_text(&self) -> String {
        percent(self.direct, self.direct.saturating_add(self.cached))
    }

    pub(crate) fn add(&mut self, counter: &Counter) {
        self.total += counter.bytes;
        self.direct += counter.direct_bytes;
        self.cached += counter.cached_bytes;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.total += other.total;
        self.direct += other.direct;
        self.cached += other.cached;
    }
}

/// The outcome of this number; `None` if there is none.
pub(crate) fn outcome(number: u8) -> Option<Outcome> {
    Outcome::from_u8(number).filter(|outcome| *outcome != Outcome::None)
}

/// A counter's verdict; `Unknown` if a recording has a number that this version does not know.
pub(crate) fn verdict(key: &CounterKey) -> Verdict {
    Verdict::from_u8(key.verdict).unwrap_or(Verdict::Unknown)
}
