//! Taking the first rule that fits.

use dio_trace_common::verdict::{Decision, Verdict};

use crate::cause::{Case, RULES};

/// What a rule says when it fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Stable identifier.
    pub id: &'static str,
    /// One sentence; begins with "likely" where it is not proven for this request.
    pub why: String,
    pub fix: String,
}

/// The first rule that fits; the last one takes every finding that is left.
#[must_use]
pub fn explain(case: &Case<'_>) -> Option<Explanation> {
    RULES.iter().find_map(|rule| {
        let why = (rule.test)(case)?;
        Some(Explanation { id: rule.id, why, fix: rule.fix.to_owned() })
    })
}

/// True if explaining needs the extents of the file. Only file systems that answer from memory or
/// their own disk are asked.
#[must_use]
pub fn wants_extents(decision: &Decision, fs: &str) -> bool {
    matches!(decision.verdict, Verdict::Fallback | Verdict::Partial)
        && matches!(fs, "btrfs" | "ext4" | "f2fs" | "gfs2" | "ntfs3" | "ntfs" | "ocfs2" | "xfs")
}
