//! [`Problem`]: what is wrong with a finding. Every finding has exactly one problem, so that counts
//! by problem add up to all findings.

use dio_trace_common::verdict::{Outcome, Verdict};

/// What is wrong with a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Bytes went through the page cache.
    Cached,
    Refused,
    Failed,
    /// The evidence is not sufficient.
    Unknown,
    /// A request that was not cached moved fewer bytes than were asked for.
    Short,
    /// A request that was not cached had side effects: pages were written back or dropped, or its
    /// buffer changed meanwhile.
    Disturbed,
}

/// Counts by problem, indexed by [`Problem`].
pub type ByProblem = [u64; Problem::ALL.len()];

impl Problem {
    pub const ALL: [Self; 6] =
        [Self::Cached, Self::Refused, Self::Failed, Self::Unknown, Self::Short, Self::Disturbed];

    /// The problem of a finding with this verdict and outcome.
    #[must_use]
    pub fn of(verdict: Verdict, outcome: Option<Outcome>) -> Self {
        match verdict {
            Verdict::Fallback | Verdict::Partial => Self::Cached,
            Verdict::Refused => Self::Refused,
            Verdict::Failed => Self::Failed,
            Verdict::Unknown => Self::Unknown,
            _ if outcome.is_some_and(Outcome::is_short) => Self::Short,
            _ => Self::Disturbed,
        }
    }

    /// True if the data took the direct path all the same.
    #[must_use]
    pub const fn is_minor(self) -> bool {
        matches!(self, Self::Short | Self::Disturbed)
    }
}
