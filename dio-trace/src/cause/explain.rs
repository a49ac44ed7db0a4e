//! Explains a request by the first rule of the table that fits.

use dio_trace_common::{
    evidence::seen,
    verdict::{Decision, Outcome, Verdict},
};

use crate::cause::{Case, Certainty, RULES, Reason, Rule, rules::NOTES};

/// The text of a rule that fits a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The rule's stable identifier.
    pub id: &'static str,
    /// Whether `why` is proven for this request.
    pub certainty: Certainty,
    /// The reason, in one sentence.
    pub why: String,
    pub fix: String,
}

impl Explanation {
    /// The explanation by `rule`, which fits for this reason.
    pub(super) fn new(rule: &Rule, reason: &Reason) -> Self {
        Self {
            id: rule.id,
            certainty: reason.certainty(),
            why: reason.to_string(),
            fix: reason.fix().unwrap_or(rule.fix).to_owned(),
        }
    }

    /// The explanation by `rule`; None if the rule does not fit the request.
    pub(super) fn by(rule: &Rule, case: &Case<'_>) -> Option<Self> {
        (rule.test)(case).map(|reason| Self::new(rule, &reason))
    }
}

/// The first rule that fits. The last rule of the table takes every finding that no other takes.
#[must_use]
pub fn explain(case: &Case<'_>) -> Option<Explanation> {
    if case.request.evidence.seen & seen::NOT_ASKED != 0 {
        return None; // `--cached`: it went where it asked to go
    }
    first(if is_healthy(case.decision) { NOTES } else { RULES }, case)
}

/// The first of `rules` that fits.
pub(super) fn first(rules: &[Rule], case: &Case<'_>) -> Option<Explanation> {
    rules.iter().find_map(|rule| Explanation::by(rule, case))
}

/// True for a request that was served in full past the page cache and is not a finding: no rule but
/// a note fits it. Most requests are healthy, and the whole table takes longer than all else about
/// them.
fn is_healthy(decision: &Decision) -> bool {
    !decision.finding
        && decision.outcome == Outcome::Full
        && matches!(decision.verdict, Verdict::Direct | Verdict::Client)
}

/// True if explaining the request needs the extents of its file. Only file systems that answer from
/// memory or from a local disk are asked.
#[must_use]
pub fn wants_extents(decision: &Decision, fs: &str) -> bool {
    matches!(decision.verdict, Verdict::Fallback | Verdict::Partial)
        && matches!(fs, "btrfs" | "ext4" | "f2fs" | "gfs2" | "ntfs3" | "ntfs" | "ocfs2" | "xfs")
}
