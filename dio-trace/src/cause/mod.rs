//! Why, and what to do: one rule table over what a request left behind and what its file says.

mod rules;

use dio_trace_common::{abi::Request, verdict::Decision};

use crate::enrich::Facts;

pub use rules::RULES;

/// All that a rule may look at.
pub struct Case<'a> {
    pub request: &'a Request,
    pub decision: &'a Decision,
    pub fs: &'a str,
    pub options: &'a str,
    pub facts: &'a Facts,
    /// OR of the flags of the extents in the request's range, if the file system says them.
    pub extents: Option<u32>,
}

/// What a rule says when it fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Stable identifier.
    pub id: &'static str,
    /// One sentence; begins with "likely" where it is not proven for this request.
    pub why: String,
    pub fix: String,
}

/// A row of the table.
pub struct Rule {
    pub id: &'static str,
    /// What to do about it.
    pub fix: &'static str,
    /// The reason, if this rule fits.
    pub test: fn(&Case<'_>) -> Option<String>,
}

/// The first rule that fits; a finding that none explains is said to be so.
#[must_use]
pub fn explain(case: &Case<'_>) -> Option<Explanation> {
    let fits = RULES.iter().find_map(|rule| {
        let why = (rule.test)(case)?;
        Some(Explanation { id: rule.id, why, fix: rule.fix.to_owned() })
    });
    fits.or_else(|| {
        case.decision.finding.then(|| Explanation {
            id: "not-explained",
            why: "no rule explains this one".to_owned(),
            fix:
                "please report it with this line's --json record, `uname -r` and the mount options"
                    .to_owned(),
        })
    })
}

/// Why O_DIRECT itself was refused for a file of this file system.
#[must_use]
pub fn explain_refusal(fs: &str) -> Explanation {
    Explanation {
        id: "no-direct-io",
        why: format!(
            "{fs} offers no direct I/O for this file: its open neither sets FMODE_CAN_ODIRECT nor \
             has it a direct_IO (fs/open.c:do_dentry_open)"
        ),
        fix: "open it without O_DIRECT, or keep the data on a file system that has direct I/O \
              (ext4, xfs, btrfs, f2fs)"
            .to_owned(),
    }
}

/// What it means that a file is used directly by one and through the page cache by another.
#[must_use]
pub fn explain_mixed(writes: bool) -> Explanation {
    let how = if writes { "writes" } else { "reads or maps" };
    Explanation {
        id: "mixed-access",
        why: format!("{how} through the page cache what others use with O_DIRECT"),
        fix: "use one way for one file: mixed access costs flushes and invalidations, and the \
              page cache may show old data"
            .to_owned(),
    }
}

/// True if explaining needs the extents of the file.
#[must_use]
pub fn wants_extents(decision: &Decision, fs: &str) -> bool {
    use dio_trace_common::verdict::Verdict;
    matches!(decision.verdict, Verdict::Fallback | Verdict::Partial)
        && matches!(fs, "btrfs" | "f2fs" | "ext4")
}
