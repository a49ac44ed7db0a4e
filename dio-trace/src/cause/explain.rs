//! Explains a request by the first rule of the table that fits.

use dio_trace_common::verdict::{Decision, Verdict};

use crate::cause::{Case, RULES};

/// The text of a rule that fits a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The rule's stable identifier.
    pub id: &'static str,
    /// One sentence; begins with "likely" if it is not proven for this request.
    pub why: String,
    pub fix: String,
}

/// The first rule that fits. The last rule of the table takes every finding that no other takes.
#[must_use]
pub fn explain(case: &Case<'_>) -> Option<Explanation> {
    RULES.iter().find_map(|rule| {
        let why = (rule.test)(case)?;
        Some(Explanation { id: rule.id, why, fix: rule.fix.to_owned() })
    })
}

/// True if explaining the request needs the extents of its file. Only file systems that answer from
/// memory or from a local disk are asked.
#[must_use]
pub fn wants_extents(decision: &Decision, fs: &str) -> bool {
    matches!(decision.verdict, Verdict::Fallback | Verdict::Partial)
        && matches!(fs, "btrfs" | "ext4" | "f2fs" | "gfs2" | "ntfs3" | "ntfs" | "ocfs2" | "xfs")
}
