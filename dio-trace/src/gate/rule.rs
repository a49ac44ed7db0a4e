//! Rules of `--fail-on`: a word for the kind of finding that is counted, and the minimum count at
//! which the gate fails.

use std::str::FromStr;

use dio_trace_common::verdict::{Outcome, Verdict};

use crate::{
    flow::{explained::ExplainedRequest, side_events::NOT_ASKED, summary::Summary},
    gate::Offender,
};

/// The words that `--fail-on` accepts.
const WORDS: &[(&str, What)] = &[
    ("fallback", What::Verdict(Verdict::Fallback)),
    ("partial", What::Verdict(Verdict::Partial)),
    ("refused", What::Verdict(Verdict::Refused)),
    ("failed", What::Verdict(Verdict::Failed)),
    ("unknown", What::Verdict(Verdict::Unknown)),
    ("short", What::Short),
    ("mixed", What::Mixed),
    (NOT_ASKED, What::NotAsked),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Verdict(Verdict),
    /// Requests that moved fewer bytes than asked for, except at the end of a file or device.
    Short,
    /// Files used both directly and through the page cache.
    Mixed,
    /// Files of `--expect-direct` used without O_DIRECT.
    NotAsked,
}

/// A rule, parsed from WORD or WORD:MIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    word: &'static str,
    kind: What,
    /// The gate fails if the count is at least this.
    pub min: u64,
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (word, min) = text.split_once(':').unwrap_or((text, "1"));
        let Some((word, kind)) = WORDS.iter().find(|(known, _)| *known == word) else {
            let known: Vec<&str> = WORDS.iter().map(|(word, _)| *word).collect();
            return Err(format!("the words are {}", known.join(", ")));
        };
        let min = min.parse().ok().filter(|min| *min > 0);
        let min = min.ok_or_else(|| format!("{word}: the minimum is a number of at least 1"))?;
        Ok(Self { word, kind: *kind, min })
    }
}

impl Rule {
    /// The words of all rules.
    pub fn words() -> impl Iterator<Item = &'static str> {
        WORDS.iter().map(|(word, _)| *word)
    }

    /// The rule's word.
    #[must_use]
    pub const fn what(&self) -> &'static str {
        self.word
    }

    /// True if the rule counts this request.
    pub(super) fn fits_record(&self, record: &ExplainedRequest) -> bool {
        match self.kind {
            What::Verdict(wanted) => record.finding && record.verdict == wanted,
            What::Short => record.outcome.is_some_and(is_short),
            What::Mixed | What::NotAsked => false,
        }
    }

    /// The rule's count, from the totals. EAGAIN of a request that must not wait is not a finding.
    pub(super) fn count(&self, summary: &Summary) -> u64 {
        let rows = summary.files.iter();
        match self.kind {
            What::Verdict(verdict) => {
                let matching = rows.filter(|row| row.verdict == verdict);
                let rejected_opens =
                    summary.rejected_opens.iter().filter(|_| verdict == Verdict::Refused);
                matching.map(|row| row.findings).sum::<u64>()
                    + rejected_opens.map(|row| row.count).sum::<u64>()
            }
            What::Short => {
                rows.filter(|row| row.outcome.is_some_and(is_short)).map(|row| row.requests).sum()
            }
            What::Mixed => summary.mixed.len() as u64,
            What::NotAsked => summary.unasked.len() as u64,
        }
    }

    /// Offenders that are not requests: rejected opens and files with mixed access.
    pub(super) fn beside(&self, summary: &Summary) -> Vec<Offender> {
        match self.kind {
            What::Verdict(Verdict::Refused) => {
                let offender = |row: &crate::flow::side_events::RejectedOpenRow| Offender {
                    what: self.word,
                    count: row.count,
                    comm: row.user.comm.clone(),
                    op: row.call,
                    path: row.user.path.clone(),
                    cause: Some(row.cause.to_owned()),
                    why: Some(row.why.clone()),
                    fix: Some(row.fix.clone()),
                };
                summary.rejected_opens.iter().map(offender).collect()
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
            What::NotAsked => {
                let offender = |row: &crate::flow::unasked::UnaskedRow| Offender {
                    what: self.word,
                    count: row.uses(),
                    comm: row.user.comm.clone(),
                    op: match row {
                        _ if row.reads != 0 => "read",
                        _ if row.writes != 0 => "write",
                        _ => "mmap",
                    },
                    path: row.user.path.clone(),
                    cause: Some(row.cause.to_owned()),
                    why: Some(row.why.clone()),
                    fix: Some(row.fix.clone()),
                };
                summary.unasked.iter().map(offender).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// Whether a short request counts. A program has to expect the end of a file or device, so short
/// requests there do not.
fn is_short(outcome: Outcome) -> bool {
    outcome.is_short() && !matches!(outcome, Outcome::Eof | Outcome::DeviceEnd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_parsed() {
        let rule: Rule = "fallback:10".parse().unwrap();
        assert_eq!((rule.what(), rule.min), ("fallback", 10));
        assert_eq!("mixed".parse::<Rule>().unwrap().min, 1);
        for bad in ["", "direct", "fallback:", "fallback:0", "fallback:-1", "fallback:x"] {
            assert!(bad.parse::<Rule>().is_err(), "{bad}");
        }
        assert!(is_short(Outcome::Server) && !is_short(Outcome::Eof) && !is_short(Outcome::Full));
    }
}
