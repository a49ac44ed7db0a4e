//! The rows of `cargo xtask apps`, and the mismatches of each.
use std::{
    collections::BTreeMap,
    fmt,
    ops::{AddAssign, Sub},
};

use serde::{Deserialize, Serialize};

/// The number of requests by operation.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Ops {
    pub(crate) reads: u64,
    pub(crate) writes: u64,
}

impl AddAssign for Ops {
    fn add_assign(&mut self, other: Self) {
        self.reads += other.reads;
        self.writes += other.writes;
    }
}

impl Sub for Ops {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { reads: self.reads - other.reads, writes: self.writes - other.writes }
    }
}

impl fmt::Display for Ops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} reads, {} writes", self.reads, self.writes)
    }
}

/// One workload, counted by dio-trace and by a reference.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Counted {
    /// The program and its version, as it prints them.
    pub(crate) program: String,
    /// What the program did. Rows of one program and case make one line of the page.
    pub(crate) case: String,
    /// The part of the workload, if its parts are counted separately; otherwise empty.
    pub(crate) part: String,
    /// The file system type.
    pub(crate) fs: String,
    /// How dio-trace traced the program.
    pub(crate) watched: String,
    /// The reference that counted the requests independently.
    pub(crate) reference: String,
    pub(crate) wanted: Ops,
    pub(crate) seen: Ops,
    /// Requests by verdict.
    pub(crate) verdicts: BTreeMap<String, u64>,
    /// Losses of dio-trace's whole run, by the summary's names; only those that are not 0.
    pub(crate) missing: BTreeMap<String, u64>,
    /// Other mismatches.
    pub(crate) complaints: Vec<String>,
}

/// Quantiles of latencies, in µs.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) count: u64,
    pub(crate) p50: u64,
    pub(crate) p99: u64,
}

impl Quantiles {
    /// Computes the quantiles; all are 0 if there are no latencies.
    pub(crate) fn of(mut micros: Vec<u64>) -> Self {
        micros.sort_unstable();
        let at = |percent: usize| {
            let last = micros.len().saturating_sub(1);
            micros.get(last * percent / 100).copied().unwrap_or_default()
        };
        Self { count: micros.len() as u64, p50: at(50), p99: at(99) }
    }
}

/// Latencies without dio-trace and with it, in pairs.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Latency {
    pub(crate) program: String,
    pub(crate) case: String,
    pub(crate) pairs: Vec<(Quantiles, Quantiles)>,
}

/// One row of the result.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum Row {
    Counted(Counted),
    Latency(Latency),
    /// A program that is not installed here, or lacks the feature.
    LeftOut {
        app: String,
        why: String,
    },
    /// The program could not be run, or did not finish.
    Failed {
        app: String,
        why: String,
    },
}

impl Row {
    pub(crate) fn failed(app: &str, why: &str) -> Self {
        Self::Failed { app: app.to_owned(), why: why.to_owned() }
    }

    pub(crate) fn wrong(&self) -> Vec<String> {
        match self {
            Self::Counted(counted) => counted.wrong(),
            Self::Latency(_) | Self::LeftOut { .. } => Vec::new(),
            Self::Failed { app, why } => vec![format!("{app}: {why}")],
        }
    }
}

impl Counted {
    pub(crate) fn unknown(&self) -> u64 {
        self.verdicts.get("unknown").copied().unwrap_or_default()
    }

    fn name(&self) -> String {
        [self.case.as_str(), &self.part].join(" ").trim().to_owned()
    }

    /// The mismatches of the row, each with the row's name.
    pub(crate) fn wrong(&self) -> Vec<String> {
        let mut wrong = self.complaints.clone();
        if self.seen != self.wanted {
            wrong.push(format!("dio-trace: {}; {}: {}", self.seen, self.reference, self.wanted));
        }
        if self.unknown() != 0 {
            wrong.push(format!("unknown: {}", self.unknown()));
        }
        wrong.extend(self.missing.iter().map(|(what, count)| format!("{what}: {count}")));
        let name = format!("{} {}, {}, {}", self.program, self.name(), self.fs, self.watched);
        wrong.iter().map(|what| format!("{name}: {what}")).collect()
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Counted(row) => {
                let word = if row.wrong().is_empty() { "exact" } else { "NOT EXACT" };
                write!(f, "{}, {}: {}: {word}", row.name(), row.fs, row.seen)
            }
            Self::Latency(latency) => write!(f, "{}: {:?}", latency.case, latency.pairs),
            Self::LeftOut { app, why } => write!(f, "{app} was left out: {why}"),
            Self::Failed { why, .. } => write!(f, "failed: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Counted {
        let ops = Ops { reads: 7, writes: 3 };
        let verdicts = BTreeMap::from([("direct".to_owned(), 10), ("unknown".to_owned(), 0)]);
        Counted { wanted: ops, seen: ops, verdicts, ..Counted::default() }
    }

    #[test]
    fn a_count_that_is_off_is_wrong() {
        assert_eq!(row().wrong(), [""; 0]);
        let less = Counted { seen: Ops { reads: 6, writes: 3 }, ..row() };
        let more = Counted { seen: Ops { reads: 7, writes: 4 }, ..row() };
        let other = Counted { seen: Ops { reads: 3, writes: 7 }, ..row() };
        for spoilt in [less, more, other] {
            assert_eq!(spoilt.wrong().len(), 1, "{spoilt:?}");
        }
    }

    #[test]
    fn quantiles_of_latencies() {
        let hundred = Quantiles::of((1..=101).rev().collect());
        assert_eq!(hundred, Quantiles { count: 101, p50: 51, p99: 100 });
        assert_eq!(Quantiles::of(vec![7]), Quantiles { count: 1, p50: 7, p99: 7 });
    }

    #[test]
    fn what_is_unknown_or_missing_is_wrong() {
        let unknown = BTreeMap::from([("unknown".to_owned(), 1)]);
        assert_eq!(Counted { verdicts: unknown, ..row() }.wrong().len(), 1);
        let missing = BTreeMap::from([("lost: ring buffer full".to_owned(), 1)]);
        assert_eq!(Counted { missing, ..row() }.wrong().len(), 1);
        let complaints = vec!["the program failed".to_owned()];
        assert_eq!(Counted { complaints, ..row() }.wrong().len(), 1);
    }
}
