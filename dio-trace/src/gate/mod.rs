//! `run --fail-on`: findings that fail a build.
//!
//! - [`rule`]: what is counted
//! - [`report`]: the result as JSON, Markdown or JUnit

mod report;
mod rule;

use std::collections::{BTreeMap, HashMap};

use dio_trace_common::abi::Stat;
use serde::Serialize;

pub use report::Form;
pub use rule::Rule;

use crate::{
    flow::{
        explained::ExplainedRequest,
        summary::{Summary, parts},
    },
    util::figures::{self, counted},
};

/// Kinds of offenders kept; the counts are exact beyond.
const MAX_OFFENDERS: usize = 4_096;

/// Requests of one kind that broke a rule, or a refusal, or a mixed file.
#[derive(Clone, Debug, Serialize)]
pub struct Offender {
    /// The rule's word.
    pub what: &'static str,
    pub count: u64,
    pub comm: String,
    /// The operation, or the system call of what is no request.
    pub op: &'static str,
    pub path: String,
    pub cause: Option<String>,
    pub why: Option<String>,
    pub fix: Option<String>,
}

/// A rule and what was counted.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    pub what: &'static str,
    /// Fails from this many on.
    pub min: u64,
    pub count: u64,
    pub failed: bool,
}

/// The end of a gated run (docs/json.md).
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    pub v: u32,
    pub kind: &'static str,
    /// The command, escaped.
    pub command: String,
    /// Its own exit code, once it had ended.
    pub exit_code: Option<u8>,
    pub passed: bool,
    pub rules: Vec<Verdict>,
    /// Why the counts may be too low, if they may.
    pub incomplete: Option<String>,
    pub requests: u64,
    /// Those by verdict; every verdict is there.
    pub verdicts: BTreeMap<&'static str, u64>,
    /// When it ended: ISO 8601, in the zone of the machine.
    pub ended: String,
    pub offenders: Vec<Offender>,
}

impl Outcome {
    /// How many requests there were, and of which verdicts: it adds up.
    #[must_use]
    pub fn headline(&self) -> String {
        let requests = counted(self.requests, "O_DIRECT request");
        match &parts(&self.verdicts)[..] {
            [] => requests,
            some => format!("{requests}: {}", figures::parts(some)),
        }
    }
}

/// What tells offenders apart.
type Kind = (&'static str, u32, String, &'static str, Option<&'static str>);

/// Watches the findings of a run.
pub struct Gate {
    rules: Vec<Rule>,
    seen: HashMap<Kind, Offender>,
}

impl Gate {
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        Self { rules, seen: HashMap::new() }
    }

    /// Takes a finding.
    pub fn take(&mut self, record: &ExplainedRequest) {
        for rule in &self.rules {
            if !rule.fits_record(record) {
                continue;
            }
            let kind: Kind =
                (rule.what(), record.pid, record.path.clone(), record.op.as_str(), record.cause);
            if self.seen.len() >= MAX_OFFENDERS && !self.seen.contains_key(&kind) {
                continue;
            }
            let offender = self.seen.entry(kind).or_insert_with(|| Offender {
                what: rule.what(),
                count: 0,
                comm: record.comm.clone(),
                op: record.op.as_str(),
                path: record.path.clone(),
                cause: record.cause.map(str::to_owned),
                why: record.why.clone(),
                fix: record.fix.clone(),
            });
            offender.count += 1;
        }
    }

    /// Judges the run by its totals, which are exact where single findings may have been lost.
    #[must_use]
    pub fn judge(
        self,
        summary: &Summary,
        command: &str,
        exit_code: Option<u8>,
        ended: &str,
    ) -> Outcome {
        let rules: Vec<Verdict> = self
            .rules
            .iter()
            .map(|rule| {
                let count = rule.count(summary);
                Verdict { what: rule.what(), min: rule.min, count, failed: count >= rule.min }
            })
            .collect();
        let incomplete = incomplete(summary, exit_code.is_some());
        let mut offenders: Vec<Offender> = self.seen.into_values().collect();
        for rule in &self.rules {
            offenders.extend(rule.beside(summary));
        }
        offenders.retain(|o| rules.iter().any(|rule| rule.failed && rule.what == o.what));
        offenders.sort_by(|a, b| (b.count, &a.path, a.what).cmp(&(a.count, &b.path, b.what)));
        Outcome {
            v: crate::flow::explained::SCHEMA,
            kind: "gate",
            command: command.to_owned(),
            exit_code,
            passed: incomplete.is_none() && !rules.iter().any(|rule| rule.failed),
            rules,
            incomplete,
            requests: summary.ended(),
            verdicts: summary.requests.clone(),
            ended: ended.to_owned(),
            offenders,
        }
    }
}

/// What was lost, or had not ended, in words.
fn incomplete(summary: &Summary, ended: bool) -> Option<String> {
    let mut parts: Vec<String> = summary
        .lost
        .iter()
        // Without its stack a finding is one all the same.
        .filter(|(reason, count)| **count != 0 && **reason != Stat::LostStack.as_str())
        .map(|(reason, count)| format!("{count} lost ({reason})"))
        .collect();
    if summary.unmatched != 0 {
        parts.push(format!("{} requests whose end was not seen", summary.unmatched));
    }
    if summary.in_flight != 0 {
        parts.push(format!("{} requests that had not ended", summary.in_flight));
    }
    if !ended {
        parts.push("the command had not ended".to_owned());
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::golden::run;

    fn outcome(rules: &[&str]) -> Outcome {
        let (records, summary) = run();
        let rules = rules.iter().map(|text| text.parse().unwrap()).collect();
        let mut gate = Gate::new(rules);
        records.iter().for_each(|record| gate.take(record));
        gate.judge(&summary, "fio", Some(0), "")
    }

    #[test]
    fn a_rule_fails_from_its_minimum_on() {
        let one = outcome(&["fallback"]);
        assert!(!one.passed && one.rules[0].count > 0);
        assert!(one.offenders.iter().all(|o| o.what == "fallback" && o.cause.is_some()));
        let many = format!("fallback:{}", one.rules[0].count + 1);
        let many = outcome(&[&many]);
        assert!(!many.rules[0].failed && many.offenders.is_empty());
    }

    #[test]
    fn a_loss_is_a_failure() {
        let (_, mut summary) = run();
        summary.lost.clear();
        summary.unmatched = 0;
        let gate = || Gate::new(vec!["mixed:1000".parse().unwrap()]);
        summary.in_flight = 0;
        assert!(gate().judge(&summary, "x", Some(0), "").passed);
        assert!(!gate().judge(&summary, "x", None, "").passed);
        summary.in_flight = 1;
        assert!(!gate().judge(&summary, "x", Some(0), "").passed);
        summary.in_flight = 0;
        summary.lost.insert("ring buffer full", 2);
        let outcome = gate().judge(&summary, "x", Some(0), "");
        assert!(!outcome.passed);
        assert_eq!(outcome.incomplete.as_deref(), Some("2 lost (ring buffer full)"));
    }
}
