//! The answer: a run in one sentence, which every output shows. It says how many requests were not
//! direct and why, and never more than was seen: lost events, missing probes and unknown causes are
//! part of it.

use std::collections::HashSet;

use dio_trace_common::{
    abi::{Op, Stat},
    verdict::Verdict,
};

use crate::{
    cause::LOOP_BUFFERED,
    flow::{
        causes::{CauseRow, Causes},
        nothing,
        problem::{ByProblem, Problem},
        summary::{FileRow, Summary},
        unasked::UnaskedRow,
    },
    model::Gap,
    util::figures::{self, count, counted, percent},
};

/// Which requests were counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Included {
    Every,
    /// Only findings: the others are not in the recording.
    Findings,
    /// Findings, and one in so many of the others.
    Sample(u64),
    /// Only requests with the verdicts that were asked for.
    Verdicts,
    /// Only requests with the causes that were asked for.
    Causes,
}

/// What the figures of a summary stand for.
#[derive(Clone, Copy, Debug)]
pub struct Basis {
    pub included: Included,
    /// Filters or times leave out requests.
    pub selected: bool,
    /// The summary is of a recording.
    pub recorded: bool,
    /// The recording is cut or damaged, or requests were dropped from it.
    pub incomplete: bool,
    /// Time that was traced or recorded in ns, if known.
    pub lasted_ns: Option<u64>,
}

impl Basis {
    /// Every request of a live run.
    pub const LIVE: Self = Self {
        included: Included::Every,
        selected: false,
        recorded: false,
        incomplete: false,
        lasted_ns: None,
    };
}

/// Completes a summary: its causes, its duration and its answer.
pub fn conclude(summary: &mut Summary, causes: &Causes, basis: &Basis) {
    summary.causes = causes.rows();
    summary.lasted_ns = basis.lasted_ns;
    summary.answer = answer(summary, basis);
}

fn answer(s: &Summary, basis: &Basis) -> String {
    let refused = match s.refused_opens() {
        0 => String::new(),
        n => format!("O_DIRECT itself was refused {}.", counted(n, "time")),
    };
    let filtered = basis.selected || basis.included == Included::Causes;
    let unasked = not_asked(s);
    let text = match s.ended() {
        0 if !unasked.is_empty() && refused.is_empty() => return unasked,
        0 if filtered && !refused.is_empty() => return refused,
        0 => nothing(s, basis),
        _ => sentence(s, basis),
    };
    let parts = [unasked, text, refused].into_iter().filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join(" ")
}

/// The uses of files of `--expect-direct` that did not ask for direct I/O; empty if there are none.
fn not_asked(s: &Summary) -> String {
    let Some(first) = s.unasked.first() else { return String::new() };
    let uses: u64 = s.unasked.iter().map(UnaskedRow::uses).sum();
    let files: HashSet<&str> = s.unasked.iter().map(|row| &*row.user.path).collect();
    let (uses, user) = (counted(uses, "use"), &first.user);
    let did = "did not ask for direct I/O (not-asked)";
    match files.len() as u64 {
        1 => format!("{uses} of {} {did}: {}/{}.", user.path, user.comm, user.pid),
        n => format!(
            "{uses} of {} {did}, most of all of {} by {}/{}.",
            counted(n, "file"),
            user.path,
            user.comm,
            user.pid
        ),
    }
}

fn nothing(s: &Summary, basis: &Basis) -> String {
    match basis {
        Basis { recorded: true, selected: true, .. } => {
            "Nothing that was recorded fits: without filters and times the report has all of it."
                .to_owned()
        }
        Basis { included: Included::Causes, .. } => {
            "No request with this cause was seen; those without a finding are seen only with --all."
                .to_owned()
        }
        Basis { recorded: false, selected: true, .. } => {
            "No request that ended fits the filters.".to_owned()
        }
        Basis { included: Included::Findings, .. } => {
            "No finding was recorded; requests without a finding were not recorded.".to_owned()
        }
        _ => nothing::seen(s),
    }
}

fn sentence(s: &Summary, basis: &Basis) -> String {
    let missed = missed(s, basis);
    let found = Found::of(&s.files);
    let mut parts = match found.lead() {
        None => vec![healthy(s, basis, missed.is_some())],
        Some(lead) => problem(s, basis, &found, lead, missed.is_some()),
    };
    match s.mixed.len() as u64 {
        0 => {}
        1 => parts.push("1 file is also used through the page cache".to_owned()),
        n => parts.push(format!("{} files are also used through the page cache", count(n))),
    }
    if s.files.iter().any(|row| row.cause == Some(LOOP_BUFFERED)) {
        parts.push("a loop device below uses the page cache (loop-buffered)".to_owned());
    }
    parts.extend(not_counted(basis));
    parts.extend(missed.map(|what| format!("not everything was seen: {what}")));
    parts.join("; ") + "."
}

/// Requests and findings by operation, and findings by problem.
#[derive(Default)]
struct Found {
    /// Reads and writes.
    requests: [u64; 2],
    /// Findings by problem, of reads and of writes.
    by: [ByProblem; 2],
    partial: u64,
}

impl Found {
    fn of(rows: &[FileRow]) -> Self {
        let mut found = Self::default();
        for row in rows {
            let op = usize::from(row.op == Op::Write);
            found.requests[op] += row.requests;
            found.by[op][Problem::of(row.verdict, row.outcome) as usize] += row.findings;
            found.partial += if row.verdict == Verdict::Partial { row.findings } else { 0 };
        }
        found
    }

    fn sum(&self, problem: Problem) -> u64 {
        self.by.iter().map(|by| by[problem as usize]).sum()
    }

    /// The problem that the sentence begins with: the most frequent one; short counts and side
    /// effects only if there is no other. None if there are no findings.
    fn lead(&self) -> Option<Problem> {
        let (minor, major) = Problem::ALL
            .into_iter()
            .filter(|problem| self.sum(*problem) != 0)
            .partition::<Vec<_>, _>(|problem| problem.is_minor());
        let most = |of: Vec<Problem>| of.into_iter().rev().max_by_key(|p| self.sum(*p));
        most(major).or_else(|| most(minor))
    }

    /// The operation of all findings with this problem, in words, and how many requests of that
    /// operation there are.
    fn subject(&self, problem: Problem) -> (&'static str, u64) {
        let [reads, writes] = [0, 1].map(|op: usize| self.by[op][problem as usize]);
        match (reads, writes) {
            (_, 0) => ("read", self.requests[0]),
            (0, _) => ("write", self.requests[1]),
            _ => ("request", self.requests.iter().sum()),
        }
    }
}

/// The sentence for a run without findings.
fn healthy(s: &Summary, basis: &Basis, missed: bool) -> String {
    let (ended, parts) = (s.ended(), s.parts());
    if !matches!(&parts[..], [("direct", _)]) {
        let end =
            if s.nowait_gains_nothing() { "RWF_NOWAIT gains nothing" } else { "nothing to report" };
        return format!("{}: {}; {end}", counted(ended, "request"), figures::parts(&parts));
    }
    let seen = which(basis, missed);
    if ended == 1 && seen.is_empty() {
        return "The one request was direct".to_owned();
    }
    format!("All {} requests{seen} were direct", count(ended))
}

/// Which requests are meant by "all".
const fn which(basis: &Basis, missed: bool) -> &'static str {
    match (basis, missed) {
        (Basis { included: Included::Sample(_), .. }, _) => " that were recorded",
        (Basis { selected: true, .. }, _) => " that were selected",
        (_, true) => " that were seen",
        _ => "",
    }
}

/// The clauses about findings: the most important problem with its causes, then the other problems.
fn problem(s: &Summary, basis: &Basis, found: &Found, lead: Problem, missed: bool) -> Vec<String> {
    let n = found.sum(lead);
    let why = because(&s.causes, lead, n);
    let mut parts = vec![lead_clause(s, basis, found, lead, missed) + &why];
    let known: u64 = s.causes.iter().map(|row| row.problems[lead as usize]).sum();
    if known < n {
        let why = match lost(s, Stat::LostEvent) {
            0 => "those requests are not in the recording",
            _ => "their events were lost",
        };
        parts.push(format!("the causes of {} are not known: {why}", count(n - known)));
    }
    let others: Vec<String> = Problem::ALL
        .into_iter()
        .filter(|other| *other != lead && found.sum(*other) != 0)
        .map(|other| format!("{} {}", count(found.sum(other)), noun(other)))
        .collect();
    if !others.is_empty() {
        parts.push(format!("also {}", others.join(", ")));
    }
    parts
}

fn lead_clause(s: &Summary, basis: &Basis, found: &Found, lead: Problem, missed: bool) -> String {
    let n = found.sum(lead);
    let (one, all) = found.subject(lead);
    if lead.is_minor()
        && basis.included == Included::Every
        && matches!(&s.parts()[..], [("direct", _)])
    {
        let seen = which(basis, missed);
        let all = counted(s.ended(), "request");
        return format!("All {all}{seen} were direct, but {} {}", count(n), verb(lead, n));
    }
    let selected = if basis.selected { "selected " } else { "" };
    let is_cached = lead == Problem::Cached;
    let text = match all {
        _ if basis.included != Included::Every => {
            format!("{} {}", counted(n, one), verb(lead, n))
        }
        1 => format!("The one {selected}{one} {}", verb(lead, 1)),
        _ if is_cached && n == all => {
            format!("None of the {} {selected}{one}s was direct", count(all))
        }
        _ if is_cached => {
            format!("{} of the {} {selected}{one}s were not direct", percent(n, all), count(all))
        }
        _ => format!("{} of the {} {selected}{one}s {}", count(n), count(all), verb(lead, n)),
    };
    if is_cached { text + &fallbacks(n, found.partial) } else { text }
}

/// How many of the requests were cached as a whole, and how many in part.
fn fallbacks(cached: u64, partial: u64) -> String {
    match (cached.saturating_sub(partial), partial) {
        (whole, 0) => format!(": {}", counted(whole, "fallback")),
        (0, partial) => format!(": {} partial", count(partial)),
        (whole, partial) => {
            format!(": {} and {} partial", counted(whole, "fallback"), count(partial))
        }
    }
}

const fn verb(problem: Problem, n: u64) -> &'static str {
    match (problem, n) {
        (Problem::Cached, 1) => "was not direct",
        (Problem::Cached, _) => "were not direct",
        (Problem::Refused, 1) => "was refused",
        (Problem::Refused, _) => "were refused",
        (Problem::Failed, _) => "failed",
        (Problem::Unknown, 1) => "is unknown: no probe accounts for its bytes",
        (Problem::Unknown, _) => "are unknown: no probe accounts for their bytes",
        (Problem::Short, _) => "came back short",
        (Problem::Disturbed, _) => "had side effects",
    }
}

const fn noun(problem: Problem) -> &'static str {
    match problem {
        Problem::Cached => "not direct",
        Problem::Refused => "refused",
        Problem::Failed => "failed",
        Problem::Unknown => "unknown",
        Problem::Short => "short",
        Problem::Disturbed => "with side effects",
    }
}

/// Why: the causes of the `n` findings with this problem, with their shares; empty if no cause is
/// known.
fn because(causes: &[CauseRow], problem: Problem, n: u64) -> String {
    // More events than counts arrive if counters were lost.
    let of = |row: &CauseRow| row.problems[problem as usize].min(n);
    let mut rows: Vec<&CauseRow> = causes.iter().filter(|row| of(row) != 0).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(of(row)));
    let [first, rest @ ..] = &rows[..] else { return String::new() };
    let share = |row: &CauseRow| percent(of(row), n);
    match of(first) {
        top if top == n => format!(", {}", main_cause(first)),
        top if top.saturating_mul(20) >= n.saturating_mul(19) => {
            format!(", nearly all {}", main_cause(first))
        }
        top if rest.is_empty() || top.saturating_mul(2) > n => {
            let others = match rest {
                [] => String::new(),
                [one] => format!(", {} because of {}", share(one), one.cause),
                [one, ..] => {
                    format!(", {} because of {}, the rest because of others", share(one), one.cause)
                }
            };
            format!(", {} {}{others}", share(first), main_cause(first))
        }
        _ => {
            let text = |row: &&CauseRow| format!("{}{} ({})", likely(row), row.cause, share(row));
            let mut few: Vec<String> = rows.iter().take(3).map(text).collect();
            let last =
                if rows.len() > 3 { "others".to_owned() } else { few.pop().unwrap_or_default() };
            format!(", because of {} and {last}", few.join(", "))
        }
    }
}

/// The cause that most findings have, with its title. Its files are named if all its findings
/// have one problem.
fn main_cause(row: &CauseRow) -> String {
    let title = row.title.strip_prefix("short: ").unwrap_or(row.title);
    let place = match (&row.files[..], &row.below) {
        _ if row.problems.iter().filter(|n| **n != 0).count() != 1 => String::new(),
        ([one], _) if row.file_count == 1 => format!(", in {}", one.path),
        (_, Some(folder)) => format!(", in {} below {folder}", counted(row.file_count, "file")),
        _ => String::new(),
    };
    format!("{}because of {} ({title}){place}", likely(row), row.cause)
}

const fn likely(row: &CauseRow) -> &'static str {
    if row.likely { "likely " } else { "" }
}

/// Which requests the figures leave out; None if they are of every request.
fn not_counted(basis: &Basis) -> Option<String> {
    Some(match basis.included {
        Included::Every => return None,
        Included::Findings => "requests without a finding were not recorded".to_owned(),
        Included::Sample(n) => {
            format!("of the requests without a finding 1 in {} was recorded", count(n))
        }
        Included::Verdicts => "requests with other verdicts are left out".to_owned(),
        Included::Causes => "requests with other causes are left out".to_owned(),
    })
}

/// What may have hidden requests, in words; None if nothing has.
fn missed(s: &Summary, basis: &Basis) -> Option<String> {
    const UNCOUNTED: [Stat; 4] =
        [Stat::LostThread, Stat::LostKiocb, Stat::LostLength, Stat::LostCounter];
    let uncounted: u64 = UNCOUNTED.iter().map(|stat| lost(s, *stat)).sum();
    // Which cause a request has only its event says.
    let events = if basis.included == Included::Causes { lost(s, Stat::LostEvent) } else { 0 };
    let what = [
        (uncounted + events, "request not counted", "requests not counted"),
        (lost(s, Stat::LostChild), "child process not followed", "child processes not followed"),
        (s.in_flight, "request had not completed", "requests had not completed"),
        (s.unmatched, "completion not seen", "completions not seen"),
        (s.skipped_runs.values().sum(), "probe run skipped", "probe runs skipped"),
        (gaps(s, &[Gap::Missing, Gap::Weak]), "probe missing", "probes missing"),
    ];
    let mut said: Vec<String> = what
        .into_iter()
        .filter(|(n, ..)| *n != 0)
        .map(|(n, one, many)| format!("{} {}", count(n), if n == 1 { one } else { many }))
        .collect();
    if gaps(s, &[Gap::Blind]) != 0 {
        said.insert(0, nothing::blind(s));
    }
    if basis.incomplete {
        said.push("the recording is not complete".to_owned());
    }
    (!said.is_empty()).then(|| said.join(", "))
}

/// The number of gaps in the coverage that are of one of these kinds.
fn gaps(s: &Summary, kinds: &[Gap]) -> u64 {
    s.probes.missing.iter().filter(|missing| kinds.contains(&missing.gap)).count() as u64
}

/// How many were lost for this reason.
fn lost(s: &Summary, stat: Stat) -> u64 {
    s.lost.get(stat.as_str()).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use dio_trace_common::verdict::Outcome;

    use super::*;
    use crate::testing::golden::run;

    /// A summary of these rows (operation, verdict, outcome, requests, findings), without losses.
    fn summary(rows: &[(Op, Verdict, Option<Outcome>, u64, u64)]) -> Summary {
        let mut s = run().1;
        s.requests.values_mut().for_each(|n| *n = 0);
        s.lost.values_mut().for_each(|n| *n = 0);
        (s.unmatched, s.in_flight, s.findings) = (0, 0, 0);
        s.skipped_runs.clear();
        s.probes.missing.clear();
        s.mixed.clear();
        s.unasked.clear();
        s.rejected_opens.clear();
        let one = s.files[0].clone();
        s.files.clear();
        for &(op, verdict, outcome, requests, findings) in rows {
            *s.requests.entry(verdict.as_str()).or_default() += requests;
            s.findings += findings;
            s.files.push(FileRow { op, verdict, outcome, requests, findings, ..one.clone() });
        }
        s.causes.clear();
        s
    }

    fn cause(id: &'static str, problem: Problem, n: u64) -> CauseRow {
        let mut problems = ByProblem::default();
        problems[problem as usize] = n;
        CauseRow {
            cause: id,
            title: crate::cause::find(id).unwrap().title,
            likely: false,
            requests: n,
            reasons: Vec::new(),
            reason_count: 1,
            files: Vec::new(),
            file_count: 57,
            below: Some("/data".to_owned()),
            problems,
        }
    }

    fn said(s: &Summary) -> String {
        answer(s, &Basis::LIVE)
    }

    const READ: Op = Op::Read;

    #[test]
    fn a_run_without_findings_is_said_to_be_direct_only_if_all_of_it_was_seen() {
        let mut s = summary(&[(READ, Verdict::Direct, None, 12_345, 0)]);
        assert_eq!(said(&s), "All 12,345 requests were direct.");
        let selected = Basis { selected: true, ..Basis::LIVE };
        assert_eq!(answer(&s, &selected), "All 12,345 requests that were selected were direct.");
        s.unmatched = 1;
        assert_eq!(
            said(&s),
            "All 12,345 requests that were seen were direct; not everything was seen: 1 completion \
             not seen."
        );
        let mut s =
            summary(&[(READ, Verdict::Direct, None, 112, 0), (READ, Verdict::Eof, None, 12, 0)]);
        assert_eq!(said(&s), "124 requests: 112 direct, 12 eof; nothing to report.");
        s.lost.insert(Stat::LostEvent.as_str(), 5);
        assert!(said(&s).ends_with("nothing to report."), "lost events do not change the counts");
        assert_eq!(
            said(&summary(&[(READ, Verdict::Direct, None, 1, 0)])),
            "The one request was direct."
        );
    }

    #[test]
    fn fallbacks_are_a_share_of_their_operation_with_the_main_cause() {
        let mut s = summary(&[
            (READ, Verdict::Direct, None, 6_570, 0),
            (READ, Verdict::Fallback, None, 16_090, 16_090),
            (Op::Write, Verdict::Direct, None, 1_000, 0),
        ]);
        s.causes = vec![cause("data-journal", Problem::Cached, 16_090)];
        let all = "71.0% of the 22,660 reads were not direct: 16,090 fallbacks, because of \
                   data-journal (ext4 journals the data of this file), in 57 files below /data.";
        assert_eq!(said(&s), all);
        s.causes = vec![cause("data-journal", Problem::Cached, 16_000)];
        let text = said(&s);
        assert!(text.contains("fallbacks, nearly all because of data-journal"), "{text}");
        assert!(
            text.contains("; the causes of 90 are not known: those requests are not"),
            "{text}"
        );
        s.lost.insert(Stat::LostEvent.as_str(), 90);
        let text = said(&s);
        assert!(
            text.contains("; the causes of 90 are not known: their events were lost"),
            "{text}"
        );
        s.causes[0].likely = true;
        assert!(said(&s).contains("nearly all likely because of data-journal"));
        s.causes = vec![
            cause("data-journal", Problem::Cached, 10_000),
            cause("btrfs-compressed", Problem::Cached, 6_090),
        ];
        let text = said(&s);
        assert!(text.contains("fallbacks, 62.2% because of data-journal (ext4"), "{text}");
        assert!(text.ends_with(", 37.8% because of btrfs-compressed."), "{text}");
        s.causes = vec![cause("data-journal", Problem::Cached, 20_000)];
        assert_eq!(said(&s), all, "counters were lost");
        s.causes.clear();
        assert!(said(&s).contains("; the causes of 16,090 are not known: their events were lost"));
    }

    #[test]
    fn several_causes_share_and_other_problems_are_counted() {
        let mut s = summary(&[
            (READ, Verdict::Fallback, None, 50, 50),
            (Op::Write, Verdict::Partial, None, 50, 50),
            (READ, Verdict::Refused, None, 40, 30),
            (READ, Verdict::Direct, Some(Outcome::Eof), 7, 7),
        ]);
        s.causes = vec![
            cause("data-journal", Problem::Cached, 40),
            cause("misaligned", Problem::Refused, 30),
            cause("btrfs-compressed", Problem::Cached, 30),
            cause("btrfs-checksums", Problem::Cached, 30),
        ];
        assert_eq!(
            said(&s),
            "68.0% of the 147 requests were not direct: 50 fallbacks and 50 partial, because of \
             data-journal (40.0%), btrfs-compressed (30.0%) and btrfs-checksums (30.0%); also 30 \
             refused, 7 short."
        );
    }

    #[test]
    fn short_counts_and_side_effects_leave_requests_direct() {
        let mut s = summary(&[
            (READ, Verdict::Direct, None, 90, 0),
            (READ, Verdict::Direct, Some(Outcome::Eof), 10, 10),
        ]);
        s.causes = vec![cause("end-of-file", Problem::Short, 10)];
        assert_eq!(
            said(&s),
            "All 100 requests were direct, but 10 came back short, because of end-of-file (the file \
             ends here), in 57 files below /data."
        );
    }

    #[test]
    fn files_that_were_not_asked_to_be_direct_come_first() {
        let mut s = summary(&[(READ, Verdict::Direct, None, 5, 0)]);
        s.unasked = run().1.unasked;
        let file = "3 uses of /data/table.db did not ask for direct I/O (not-asked): logger/77.";
        assert_eq!(said(&s), format!("{file} All 5 requests were direct."));
        let mut other = s.unasked[0].clone();
        (other.user.path, other.reads) = ("/data/wal.log".into(), 1);
        s.unasked.push(other);
        let text = said(&s);
        assert!(
            text.starts_with("5 uses of 2 files did not ask for direct I/O (not-asked), most"),
            "{text}"
        );
        s.files.clear();
        s.requests.clear();
        assert!(said(&s).ends_with("most of all of /data/table.db by logger/77."));
    }

    #[test]
    fn a_share_is_only_given_if_every_request_was_counted() {
        let mut s = summary(&[(READ, Verdict::Fallback, None, 9, 9)]);
        s.causes = vec![cause("data-journal", Problem::Cached, 9)];
        assert!(said(&s).starts_with("None of the 9 reads was direct: 9 fallbacks, because"));
        for (included, end) in [
            (Included::Findings, "; requests without a finding were not recorded."),
            (Included::Sample(100), "; of the requests without a finding 1 in 100 was recorded."),
            (Included::Verdicts, "; requests with other verdicts are left out."),
            (Included::Causes, "; requests with other causes are left out."),
        ] {
            let text = answer(&s, &Basis { included, ..Basis::LIVE });
            assert!(text.starts_with("9 reads were not direct: 9 fallbacks"), "{text}");
            assert!(text.ends_with(end) && !text.contains('%'), "{text}");
        }
    }

    #[test]
    fn nothing_is_claimed_that_was_not_seen() {
        let mut s = summary(&[]);
        let selected = Basis { selected: true, ..Basis::LIVE };
        assert_eq!(answer(&s, &selected), "No request that ended fits the filters.");
        s.rejected_opens.clone_from(&run().1.rejected_opens);
        assert_eq!(answer(&s, &selected), "O_DIRECT itself was refused 2 times.");
        let mut s = summary(&[(READ, Verdict::Direct, None, 100, 0)]);
        s.in_flight = 500;
        let text = said(&s);
        assert!(text.starts_with("All 100 requests that were seen were direct"), "{text}");
        assert!(text.ends_with("500 requests had not completed."), "{text}");
        let mut s = summary(&[(READ, Verdict::Direct, None, 100, 0)]);
        s.files[0].cause = Some("loop-buffered");
        assert!(said(&s).ends_with("; a loop device below uses the page cache (loop-buffered)."));
        s.files[0].cause = None;
        let cut = Basis { incomplete: true, recorded: true, ..Basis::LIVE };
        assert!(answer(&s, &cut).contains("that were seen were direct; not everything was seen"));
    }

    #[test]
    fn all_problems_add_up_to_the_findings() {
        let (_, s) = run();
        let found = Found::of(&s.files);
        let sum: u64 = Problem::ALL.into_iter().map(|problem| found.sum(problem)).sum();
        assert_eq!(sum, s.findings);
        assert_eq!(found.requests.iter().sum::<u64>(), s.ended());
    }
}
