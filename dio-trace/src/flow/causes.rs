//! [`Causes`]: the findings of a run by cause, with the reasons and the files of each.
//!
//! Counters have no cause, so these sums are made from the events. They miss the findings whose
//! events were lost, which the counters still have.

use std::{cmp::Reverse, sync::Arc};

use ahash::{HashMap, HashSet};
use dio_trace_common::abi::FileId;
use serde::Serialize;

use crate::{
    cause::{BUFFER_CHANGED, Certainty, ReasonKind, find},
    flow::{
        explained::ExplainedRequest,
        problem::{ByProblem, Problem},
    },
};

/// Most files of a cause that a row lists.
pub const FILES: usize = 10;
/// Most reasons of a cause that a row lists.
pub const REASONS: usize = 3;
/// Most files that are counted one by one, over all causes.
const MAX_FILES: usize = 16_384;
/// Most bytes of the paths of these files.
const MAX_TEXT: usize = 4 << 20;
/// Most reasons of a cause whose sentences are kept, and most that are told apart.
const MAX_REASONS: usize = 32;
const MAX_KINDS: usize = 1_024;

/// A reason of a cause: one for all reasons that differ only in numbers.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ReasonRow {
    /// The sentence of the first finding; those of the others may have other numbers.
    pub why: String,
    pub fix: String,
    pub requests: u64,
}

/// A file of a cause.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CauseFile {
    pub path: Arc<str>,
    pub requests: u64,
}

/// The findings of one cause.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CauseRow {
    /// The id of the rule.
    pub cause: &'static str,
    pub title: &'static str,
    /// True if the reason of one of these findings is not proven.
    pub likely: bool,
    pub requests: u64,
    /// The most frequent reasons.
    pub reasons: Vec<ReasonRow>,
    /// How many reasons there are.
    pub reason_count: u64,
    /// The files with most of these findings.
    pub files: Vec<CauseFile>,
    /// How many files there are; of more than 16,384 files, those that were told apart.
    pub file_count: u64,
    /// The directory that all of the files are in; None if that is the root or not known.
    pub below: Option<String>,
    #[serde(skip)]
    pub problems: ByProblem,
}

/// Sums of findings by cause.
#[derive(Clone, Debug, Default)]
pub struct Causes {
    sums: HashMap<&'static str, Sum>,
    /// Files of all causes, and bytes of their paths.
    files: usize,
    text: usize,
}

#[derive(Clone, Debug, Default)]
struct Sum {
    requests: u64,
    problems: ByProblem,
    likely: bool,
    reasons: HashMap<ReasonKind, ReasonRow>,
    kinds: HashSet<ReasonKind>,
    files: HashMap<FileId, CauseFile>,
    /// True if there are files for which there was no room.
    more_files: bool,
}

impl Causes {
    /// Counts a request; ignores it if it is not a finding.
    pub fn count(&mut self, record: &ExplainedRequest) {
        let Some(cause) = record.cause.filter(|_| record.finding) else { return };
        let sum = self.sums.entry(cause).or_default();
        sum.requests += 1;
        sum.problems[Problem::of(record.verdict, record.outcome) as usize] += 1;
        sum.likely |= record.certainty == Some(Certainty::Likely);
        sum.reason(record);
        if let Some(file) = sum.files.get_mut(&record.file) {
            file.requests += 1;
            return;
        }
        self.text += record.path.len();
        self.files += 1;
        sum.more_files |= self.files > MAX_FILES || self.text > MAX_TEXT;
        if !sum.more_files {
            let file = CauseFile { path: record.path.clone(), requests: 1 };
            sum.files.insert(record.file, file);
        }
    }

    /// The causes, the most frequent first. Those of short counts and of side effects are last.
    #[must_use]
    pub fn rows(&self) -> Vec<CauseRow> {
        let minor = |row: &CauseRow| {
            // What is on the disk may be wrong.
            row.cause != BUFFER_CHANGED
                && row
                    .problems
                    .iter()
                    .zip(Problem::ALL)
                    .all(|(n, problem)| *n == 0 || problem.is_minor())
        };
        let mut rows: Vec<CauseRow> = self.sums.iter().map(|(id, sum)| sum.row(id)).collect();
        rows.sort_by_key(|row| (minor(row), Reverse(row.requests), row.cause));
        rows
    }
}

impl Sum {
    fn reason(&mut self, record: &ExplainedRequest) {
        let (Some(kind), Some(why), Some(fix)) = (record.reason, &record.why, &record.fix) else {
            return;
        };
        if self.kinds.len() < MAX_KINDS {
            self.kinds.insert(kind);
        }
        if let Some(reason) = self.reasons.get_mut(&kind) {
            reason.requests += 1;
        } else if self.reasons.len() < MAX_REASONS {
            let reason = ReasonRow { why: why.clone(), fix: fix.clone(), requests: 1 };
            self.reasons.insert(kind, reason);
        }
    }

    fn row(&self, cause: &'static str) -> CauseRow {
        let mut reasons: Vec<ReasonRow> = self.reasons.values().cloned().collect();
        reasons.sort_by(|a, b| (b.requests, &a.why).cmp(&(a.requests, &b.why)));
        reasons.truncate(REASONS);
        let mut files: Vec<&CauseFile> = self.files.values().collect();
        files.sort_by(|a, b| (b.requests, &a.path).cmp(&(a.requests, &b.path)));
        CauseRow {
            cause,
            title: find(cause).map_or("", |rule| rule.title),
            likely: self.likely,
            requests: self.requests,
            reasons,
            reason_count: self.kinds.len() as u64,
            file_count: files.len() as u64,
            below: if self.more_files { None } else { below(&files) },
            files: files.into_iter().take(FILES).cloned().collect(),
            problems: self.problems,
        }
    }
}

/// The directory that all files are in, unless it is the root.
fn below(files: &[&CauseFile]) -> Option<String> {
    let folder = |file: &&CauseFile| -> Option<Vec<String>> {
        let (folder, _) = file.path.strip_prefix('/')?.rsplit_once('/')?;
        Some(folder.split('/').map(str::to_owned).collect())
    };
    let mut common = folder(files.first()?)?;
    for file in files {
        let other = folder(file)?;
        let same = common.iter().zip(&other).take_while(|(a, b)| a == b).count();
        common.truncate(same);
    }
    (!common.is_empty()).then(|| format!("/{}", common.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::golden::run;

    #[test]
    fn findings_are_summed_by_cause_with_their_reasons_and_files() {
        let mut causes = Causes::default();
        let mut record = run().0.swap_remove(4);
        for n in 0..30 {
            record.file.inode = n % 12;
            record.path = format!("/data/{}/f{}", n % 2, n % 12).into();
            causes.count(&record);
        }
        record.finding = false;
        causes.count(&record);
        let rows = causes.rows();
        let [row] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!((row.cause, row.requests, row.likely), ("misaligned", 30, false));
        assert_eq!((row.problems[Problem::Refused as usize], row.reason_count), (30, 1));
        assert_eq!((row.file_count, row.files.len(), row.files[0].requests), (12, FILES, 3));
        assert_eq!(row.below.as_deref(), Some("/data"));
    }

    #[test]
    fn files_without_a_common_directory_are_below_none() {
        let file = |path: &str| CauseFile { path: path.into(), requests: 1 };
        let said = |paths: &[&str]| {
            let files: Vec<CauseFile> = paths.iter().map(|path| file(path)).collect();
            below(&files.iter().collect::<Vec<_>>())
        };
        assert_eq!(said(&["/data/a/x", "/data/ab/x"]).as_deref(), Some("/data"));
        assert_eq!(said(&["/data/a"]).as_deref(), Some("/data"));
        for none in
            [&["/data/a", "/srv/a"][..], &["/a"], &["?/a", "/data/a"], &["anon_inode:x"], &[]]
        {
            assert_eq!(said(none), None, "{none:?}");
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut causes = Causes::default();
        let mut record = run().0.swap_remove(4);
        for n in 0..MAX_FILES as u64 + 100 {
            record.file.inode = n;
            causes.count(&record);
        }
        let row = &causes.rows()[0];
        assert_eq!((row.requests, row.below.as_deref()), (MAX_FILES as u64 + 100, None));
        assert_eq!(row.file_count, MAX_FILES as u64);
    }
}
