//! The gate of `run --fail-on`: fails a build if the command's requests have too many findings. A
//! rule names a kind of finding and the count at which the gate fails.
//!
//! - [`rule`]: the rules and what they count
//! - [`report`]: the result as JSON, Markdown or JUnit

mod report;
mod rule;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

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

/// Maximum number of offenders to list. The counts of the rules are exact even if there are more.
const MAX_OFFENDERS: usize = 4_096;

/// Requests of one kind that a rule counts, or a rejected open, or a file with mixed access.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Offender {
    /// The rule's word.
    pub what: &'static str,
    pub count: u64,
    pub comm: Arc<str>,
    /// The operation; for a rejected open, the system call.
    pub op: &'static str,
    pub path: Arc<str>,
    pub cause: Option<String>,
    pub why: Option<String>,
    pub fix: Option<String>,
}

/// A rule and its count.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "GateRule"))]
pub struct Verdict {
    pub what: &'static str,
    /// The rule fails if `count` is at least this.
    pub min: u64,
    pub count: u64,
    pub failed: bool,
}

/// The result of a gated run (docs/json.md).
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Gate"))]
pub struct Outcome {
    pub v: u32,
    pub kind: &'static str,
    /// The command, escaped.
    pub command: String,
    /// The command's exit code; `None` if it had not ended.
    pub exit_code: Option<u8>,
    pub passed: bool,
    pub rules: Vec<Verdict>,
    /// Why the counts may be too low; `None` if everything was seen.
    pub incomplete: Option<String>,
    pub requests: u64,
    /// Requests by verdict; has an entry for every verdict.
    pub verdicts: BTreeMap<&'static str, u64>,
    /// When the run ended: ISO 8601, in the machine's time zone.
    pub ended: String,
    pub offenders: Vec<Offender>,
}

impl Outcome {
    /// The number of requests in total and by verdict, in words. The parts add up to the total.
    #[must_use]
    pub fn headline(&self) -> String {
        let requests = counted(self.requests, "O_DIRECT request");
        match &parts(&self.verdicts)[..] {
            [] => requests,
            some => format!("{requests}: {}", figures::parts(some)),
        }
    }
}

/// Identifies an offender: the rule's word, process id, path, operation and cause.
type Kind = (&'static str, u32, Arc<str>, &'static str, Option<&'static str>);

/// Collects the findings of a run that its rules count.
pub struct Gate {
    rules: Vec<Rule>,
    seen: HashMap<Kind, Offender>,
}

impl Gate {
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        Self { rules, seen: HashMap::new() }
    }

    /// Adds a request to the offenders if a rule counts it.
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

    /// Decides the result from the totals of the run, which are exact even if the events of single
    /// findings were lost.
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

/// The lost events and the unfinished requests, in words; `None` if there are none.
fn incomplete(summary: &Summary, ended: bool) -> Option<String> {
    let mut parts: Vec<String> = summary
        .lost
        .iter()
        // A finding without its stack still counts.
        .filter(|(reason, count)| **count != 0 && **reason != Stat::LostStack.as_str())
        .map(|(reason, count)| format!("{count} lost ({reason})"))
        .collect();
    if summary.unmatched != 0 {
        parts.push(format!("{} requests whose completion was not seen", summary.unmatched));
    }
    if summary.in_flight != 0 {
        parts.push(format!("{} requests that had not completed", summary.in_flight));
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
    fn a_rule_fails_at_its_minimum() {
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
