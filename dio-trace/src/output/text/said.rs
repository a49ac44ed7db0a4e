//! [`Said`]: what the lines of findings have said. A reason is shown once for its cause, and the
//! lines of a kind and of a cause are bounded.

use ahash::HashMap;
use dio_trace_common::verdict::Outcome;

use crate::{
    cause::ReasonKind,
    flow::explained::{ExplainedRequest, FindingKey},
};

/// Number of lines shown per kind of finding; further ones are only counted.
const OF_KIND: u64 = 3;
/// Number of lines shown per cause, unless a line has a reason that was not shown yet.
pub(super) const OF_CAUSE: u64 = 10;
/// Number of reasons shown per cause. A sentence may name many processes.
pub(super) const REASONS: usize = 8;
/// Maximum number of kinds remembered; at the limit all are forgotten.
const MAX_KINDS: usize = 65_536;

/// Which lines are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bounds {
    /// Further ones of a kind, and of a cause.
    Few,
    /// Further ones of a kind.
    Kinds,
    /// None.
    None,
}

/// What to write about a finding, after its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The reason is new; the remedy as well if `fix`.
    New { fix: bool },
    /// The reason was shown before lines of another cause.
    AsAbove,
    /// Nothing: the reason was shown just before, or there is none.
    Silent,
}

/// The line that ends the lines of a kind or of a cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Kind,
    Cause,
}

/// What to write about a finding or a side event: its line, then this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lines {
    pub(super) why: Why,
    /// The first line of its kind.
    pub(super) is_first: bool,
    pub(super) end: Option<End>,
}

/// What was said.
#[derive(Default)]
pub(super) struct Said {
    /// Number of findings by kind, whatever their reason.
    kinds: HashMap<FindingKey, u64>,
    causes: HashMap<&'static str, OfCause>,
    /// The cause of the last line.
    last: Option<&'static str>,
}

/// What was said about one cause.
#[derive(Default)]
struct OfCause {
    lines: u64,
    reasons: Vec<ReasonKind>,
    /// The remedy that was shown last: most reasons of a cause have the same.
    fix: String,
}

impl OfCause {
    /// What to write about a reason.
    fn why(&mut self, reason: Option<ReasonKind>, fix: Option<&str>) -> Option<Why> {
        let reason = reason.filter(|_| self.reasons.len() < REASONS)?;
        if self.reasons.contains(&reason) {
            return None;
        }
        self.reasons.push(reason);
        let fix = fix.filter(|fix| *fix != self.fix);
        if let Some(fix) = fix {
            fix.clone_into(&mut self.fix);
        }
        Some(Why::New { fix: fix.is_some() })
    }
}

impl Said {
    /// What to write about a request; None if it has no line.
    pub(super) fn request(&mut self, record: &ExplainedRequest, bounds: Bounds) -> Option<Lines> {
        if self.kinds.len() >= MAX_KINDS {
            self.kinds.clear();
        }
        let times = self.kinds.entry(FindingKey { reason: None, ..record.kind() }).or_default();
        *times += 1;
        // A short read at the end of a file is expected; one line per file is enough.
        let most = if record.outcome == Some(Outcome::Eof) { 1 } else { OF_KIND };
        let (is_first, is_last, is_over) = (*times == 1, *times == most, *times > most);
        let is_bounded = bounds != Bounds::None;
        let of_kind = (is_bounded && is_last && most > 1).then_some(End::Kind);
        let Some(cause) = record.cause else {
            self.last = None;
            let lines = Lines { why: Why::Silent, is_first, end: of_kind };
            return (!is_bounded || !is_over).then_some(lines);
        };
        let sum = self.causes.entry(cause).or_default();
        let new = sum.why(record.reason, record.fix.as_deref());
        if is_bounded && is_over && new.is_none() {
            return None;
        }
        let lines = self.line(cause, new, is_first, bounds)?;
        Some(Lines { is_first, end: lines.end.or(of_kind), ..lines })
    }

    /// What to write about a side event; None if it has no line.
    pub(super) fn side_event(
        &mut self,
        cause: &'static str,
        (why, fix): (&str, &str),
        bounds: Bounds,
    ) -> Option<Lines> {
        let sum = self.causes.entry(cause).or_default();
        let new = sum.why(Some(ReasonKind::of(why)), Some(fix));
        self.line(cause, new, true, bounds)
    }

    fn line(
        &mut self,
        cause: &'static str,
        new: Option<Why>,
        is_first: bool,
        bounds: Bounds,
    ) -> Option<Lines> {
        let sum = self.causes.entry(cause).or_default();
        if bounds == Bounds::Few && sum.lines >= OF_CAUSE && new.is_none() {
            return None;
        }
        sum.lines += 1;
        let end = (bounds == Bounds::Few && sum.lines == OF_CAUSE).then_some(End::Cause);
        let above = is_first && self.last != Some(cause) && !sum.reasons.is_empty();
        self.last = Some(cause);
        let why = new.unwrap_or(if above { Why::AsAbove } else { Why::Silent });
        Some(Lines { why, is_first, end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::golden::run;

    /// A finding of a cause on the n-th file.
    fn finding(at: usize, n: u64) -> ExplainedRequest {
        let mut record = run().0.swap_remove(at);
        record.file.inode = n;
        record
    }

    const JOURNAL: usize = 1;
    const ODD: usize = 4;

    #[test]
    fn a_reason_is_shown_once_for_all_files_and_named_after_another_cause() {
        let mut said = Said::default();
        let mut why = |at, n| said.request(&finding(at, n), Bounds::Few).unwrap().why;
        assert_eq!(why(JOURNAL, 1), Why::New { fix: true });
        assert_eq!(why(JOURNAL, 2), Why::Silent);
        assert_eq!(why(ODD, 3), Why::New { fix: true });
        assert_eq!(why(JOURNAL, 4), Why::AsAbove);
        assert_eq!(why(JOURNAL, 4), Why::Silent);
    }

    #[test]
    fn the_lines_of_a_cause_are_bounded_and_the_last_one_says_so() {
        for (bounds, lines) in [(Bounds::Few, 10), (Bounds::Kinds, 100), (Bounds::None, 100)] {
            let mut said = Said::default();
            let all: Vec<Lines> =
                (0..100).filter_map(|n| said.request(&finding(JOURNAL, n), bounds)).collect();
            let ends = all.iter().filter(|lines| lines.end == Some(End::Cause)).count();
            let last = all.last().unwrap().end == Some(End::Cause);
            assert_eq!((all.len(), ends, last), (lines, usize::from(lines == 10), lines == 10));
        }
    }

    #[test]
    fn the_lines_of_a_kind_are_bounded() {
        let mut said = Said::default();
        let all: Vec<_> =
            (0..9).filter_map(|_| said.request(&finding(JOURNAL, 1), Bounds::Kinds)).collect();
        let ends: Vec<_> = all.iter().map(|lines| lines.end).collect();
        assert_eq!(ends, [None, None, Some(End::Kind)]);
        let mut said = Said::default();
        let all = (0..9).filter_map(|_| said.request(&finding(JOURNAL, 1), Bounds::None));
        assert_eq!(all.filter(|lines| lines.end.is_none()).count(), 9);
    }

    #[test]
    fn side_events_are_bounded_as_well() {
        let mut said = Said::default();
        let all: Vec<_> = (0..2_000)
            .filter_map(|n| {
                let why = format!("used by postgres/{n}");
                said.side_event("mixed-access", (&why, "stop it"), Bounds::Few)
            })
            .collect();
        assert_eq!((all.len(), all[0].why), (OF_CAUSE as usize, Why::New { fix: true }));
        assert!(all[1..].iter().all(|lines| lines.why == Why::Silent));
    }
}
