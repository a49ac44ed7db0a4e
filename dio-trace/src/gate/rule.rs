//! What is counted: a word and a minimum.

use std::str::FromStr;

use dio_trace_common::verdict::{Outcome, Verdict};

use crate::{
    flow::{explained::ExplainedRequest, summary::Summary},
    gate::Offender,
};

/// The words of `--fail-on`.
const WORDS: &[(&str, What)] = &[
    ("fallback", What::Verdict(Verdict::Fallback)),
    ("partial", What::Verdict(Verdict::Partial)),
    ("refused", What::Verdict(Verdict::Refused)),
    ("failed", What::Verdict(Verdict::Failed)),
    ("unknown", What::Verdict(Verdict::Unknown)),
    ("short", What::Short),
    ("mixed", What::Mixed),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Verdict(Verdict),
    /// Fewer bytes than asked for, other than at the end of a file or device.
    Short,
    /// Files used directly and through the page cache.
    Mixed,
}

/// WORD or WORD:MIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    word: &'static str,
    kind: What,
    /// Fails from this many on.
    pub min: u64,
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (word, min) = text.split_once(':').unwrap_or((text, "1"));
        let Some((word, kind)) = WORDS.iter().find(|(known, _)| *known == word) else {
            let known: Vec<&str> = WORDS.iter().map(|(word, _)| *word).collect();
            return Err(format!("there are {}", known.join(", ")));
        };
        let min = min.parse().ok().filter(|min| *min > 0);
        let min = min.ok_or_else(|| format!("{word}: the minimum is a number from 1 on"))?;
        Ok(Self { word, kind: *kind, min })
    }
}

impl Rule {
    /// Its word.
    #[must_use]
    pub const fn what(&self) -> &'static str {
        self.word
    }

    /// True of a finding that it counts.
    pub(super) fn fits_record(&self, record: &ExplainedRequest) -> bool {
        match self.kind {
            What::Verdict(wanted) => record.finding && record.verdict == wanted,
            What::Short => record.outcome.is_some_and(is_short),
            What::Mixed => false,
        }
    }

    /// How often it was met, by the totals. EAGAIN of a request that must not wait is no finding.
    pub(super) fn count(&self, summary: &Summary) -> u64 {
        let rows = summary.files.iter();
        match self.kind {
            What::Verdict(verdict) => {
                let of_it = rows.filter(|row| row.verdict == verdict);
                let refusals = summary.refusals.iter().filter(|_| verdict == Verdict::Refused);
                of_it.map(|row| row.findings).sum::<u64>()
                    + refusals.map(|row| row.count).sum::<u64>()
            }
            What::Short => {
                rows.filter(|row| row.outcome.is_some_and(is_short)).map(|row| row.requests).sum()
            }
            What::Mixed => summary.mixed.len() as u64,
        }
    }

    /// What it counts that is no request.
    pub(super) fn beside(&self, summary: &Summary) -> Vec<Offender> {
        match self.kind {
            What::Verdict(Verdict::Refused) => {
                let offender = |row: &crate::flow::side_events::RejectedOpenRow| Offender {
                    what: self.word,
                    count: row.count,
                    comm: row.comm.clone(),
                    op: row.call,
                    path: row.path.clone(),
                    cause: Some(row.cause.to_owned()),
                    why: Some(row.why.clone()),
                    fix: Some(row.fix.clone()),
                };
                summary.refusals.iter().map(offender).collect()
            }
            What::Mixed => {
                let offender = |row: &crate::flow::side_events::MixedRow| Offender {
                    what: self.word,
                    count: 1,
                    comm: row.cached.first().map(|user| user.comm.clone()).unwrap_or_default(),
                    op: "mixed",
                    path: row.path.clone(),
                    cause: Some(row.cause.to_owned()),
                    why: None,
                    fix: None,
                };
                summary.mixed.iter().map(offender).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// The end of a file or device is in their nature: a program has to expect it.
fn is_short(outcome: Outcome) -> bool {
    outcome.is_short() && !matches!(outcome, Outcome::Eof | Outcome::DeviceEnd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_minimums() {
        let rule: Rule = "fallback:10".parse().unwrap();
        assert_eq!((rule.what(), rule.min), ("fallback", 10));
        assert_eq!("mixed".parse::<Rule>().unwrap().min, 1);
        for bad in ["", "direct", "fallback:", "fallback:0", "fallback:-1", "fallback:x"] {
            assert!(bad.parse::<Rule>().is_err(), "{bad}");
        }
        assert!(is_short(Outcome::Server) && !is_short(Outcome::Eof) && !is_short(Outcome::Full));
    }
}
