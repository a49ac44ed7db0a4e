//! The summary at the end of a run: requests by file and verdict, side events, losses, and the
//! probes that were attached.

use std::{collections::BTreeMap, sync::Arc};

use dio_trace_common::{
    abi::{Counter, CounterKey, FileId, Op, Stat},
    verdict::{Outcome, Verdict},
};
use serde::Serialize;

use crate::{
    cause::{WOULD_BLOCK, explain_file},
    enrich::Enricher,
    flow::{
        alignment_probe::AlignmentProbeRow,
        bytes::{Bytes, outcome as outcome_of, verdict},
        causes::CauseRow,
        explained::SCHEMA,
        group::Groups,
        nowait::{self, NowaitRow},
        side_events::{MixedRow, RejectedOpenRow, SideEvents},
        unasked::{self, UnaskedRow},
    },
    model::{MissingProbe, Totals},
    util::figures::{self, count, counted},
};

/// A row of the summary: one process, file, operation, verdict and outcome.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FileRow {
    pub pid: u32,
    pub comm: Arc<str>,
    /// The process's title or command line, if that says more than `comm`.
    pub cmdline: Option<Arc<str>>,
    pub path: Arc<str>,
    pub dev: Arc<str>,
    pub ino: u64,
    pub fs: Arc<str>,
    pub op: Op,
    pub verdict: Verdict,
    pub outcome: Option<Outcome>,
    pub requests: u64,
    pub findings: u64,
    pub bytes: Bytes,
    pub latency_mean_ns: u64,
    /// Upper bound of the bucket that the median falls into.
    pub latency_p50_ns: u64,
    /// Upper bound of the bucket that the 99th percentile falls into.
    pub latency_p99_ns: u64,
    /// Cause of a note that applies to all requests of the row, healthy ones included.
    pub cause: Option<&'static str>,
    pub why: Option<String>,
}

/// The probes of a run.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Probes {
    pub attached: Vec<String>,
    pub missing: Vec<MissingProbe>,
}

/// Whose requests were traced.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Scope {
    /// The scope in words, such as "process 3920 and 7 descendants".
    pub text: String,
    /// Number of child processes left out by `--no-children`.
    pub children_left_out: u64,
}

/// The summary: the last line of `--json` (docs/json.md), and what the closing screen shows.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Summary {
    pub v: u32,
    pub kind: &'static str,
    /// The run in one sentence; empty until [`answer::conclude`] sets it.
    ///
    /// [`answer::conclude`]: crate::flow::answer::conclude
    pub answer: String,
    /// Requests by verdict; every verdict has an entry.
    pub requests: BTreeMap<&'static str, u64>,
    pub findings: u64,
    pub bytes: Bytes,
    /// Time that was traced or recorded in ns; set together with `answer`.
    pub lasted_ns: Option<u64>,
    /// The findings by cause; set together with `answer`.
    pub causes: Vec<CauseRow>,
    /// Losses by reason; every reason has an entry.
    pub lost: BTreeMap<&'static str, u64>,
    pub unmatched: u64,
    pub in_flight: u64,
    /// Probe runs that the kernel skipped, by BPF program.
    pub skipped_runs: BTreeMap<String, u64>,
    pub probes: Probes,
    pub attach: &'static str,
    pub kernel: String,
    /// Empty until the caller sets it.
    pub scope: Scope,
    pub files: Vec<FileRow>,
    /// The rows of the closing table; None unless they are asked for.
    #[cfg_attr(test, schemars(with = "Option<Vec<crate::flow::group::Group>>"))]
    pub groups: Option<Groups>,
    /// Rejected opens: O_DIRECT itself was refused, so no request followed.
    #[serde(rename = "refusals")]
    pub rejected_opens: Vec<RejectedOpenRow>,
    /// Files used directly and through the page cache.
    pub mixed: Vec<MixedRow>,
    /// Files of `--expect-direct` that were used without O_DIRECT.
    #[serde(rename = "not_asked")]
    pub unasked: Vec<UnaskedRow>,
    /// Files on which RWF_NOWAIT gains nothing.
    pub nowait: Vec<NowaitRow>,
    /// Writes whose buffer was compared; 0 without `--verify-stable`.
    pub buffers_compared: u64,
    /// Alignment probes, whose requests are no findings. Empty until the pipeline sets it.
    pub alignment_probes: Vec<AlignmentProbeRow>,
}

/// Statistics that count losses.
pub(crate) const LOSSES: &[Stat] = &[
    Stat::LostThread,
    Stat::LostKiocb,
    Stat::LostLength,
    Stat::LostChild,
    Stat::LostEvent,
    Stat::LostFile,
    Stat::LostRejectedOpen,
    Stat::LostBufferedUse,
    Stat::LostUnasked,
    Stat::LostCounter,
    Stat::LostStack,
];

impl Summary {
    /// Summarizes totals. Rows with most findings, then most requests, come first.
    #[must_use]
    pub fn new(totals: &Totals, side: &SideEvents, enricher: &mut Enricher) -> Self {
        let mixed = side.mixed(totals, enricher);
        let nowait = nowait::rows(&totals.counters, side.waits(), enricher);
        let unasked = unasked::rows(totals, side, enricher, |_, _| true);
        Self { unasked, ..Self::with(totals, side, mixed, nowait, enricher) }
    }

    /// Summarizes totals, with given rows of mixed files and of RWF_NOWAIT.
    pub(crate) fn with(
        totals: &Totals,
        side: &SideEvents,
        mixed: Vec<MixedRow>,
        nowait: Vec<NowaitRow>,
        enricher: &mut Enricher,
    ) -> Self {
        let Sums { requests, findings, bytes } = Sums::of(&totals.counters);
        let lost = Stat::ALL
            .iter()
            .filter(|(stat, _)| LOSSES.contains(stat))
            .map(|(stat, name)| (*name, totals.stat(*stat)))
            .collect();
        let mut files: Vec<FileRow> =
            merge(&totals.counters).iter().map(|(key, c)| row(key, c, enricher)).collect();
        files.sort_by_key(|row| std::cmp::Reverse((row.findings, row.requests)));
        Self {
            v: SCHEMA,
            kind: "summary",
            answer: String::new(),
            requests,
            findings,
            bytes,
            lasted_ns: None,
            causes: Vec::new(),
            lost,
            unmatched: totals.stat(Stat::Unmatched),
            in_flight: totals.in_flight(),
            skipped_runs: totals.skipped.iter().cloned().collect(),
            probes: Probes {
                attached: totals.attached.clone(),
                missing: totals.missing.iter().chain(&totals.dark).cloned().collect(),
            },
            attach: totals.attach.as_str(),
            kernel: totals.kernel.clone(),
            scope: Scope::default(),
            files,
            groups: None,
            rejected_opens: side.rejected_opens(),
            mixed,
            unasked: Vec::new(),
            nowait,
            buffers_compared: totals.stat(Stat::BuffersCompared),
            alignment_probes: Vec::new(),
        }
    }

    /// Requests by verdict, the most frequent first, without verdicts that did not occur. They add
    /// up to [`Summary::ended`].
    #[must_use]
    pub fn parts(&self) -> Vec<(&'static str, u64)> {
        parts(&self.requests)
    }

    /// The sentence of every heading: how many requests, by verdict, and how many findings.
    #[must_use]
    pub fn headline(&self) -> String {
        let nowait = self.nowait_gains_nothing();
        headline(&self.requests, self.findings, nowait, &self.short_by_verdict())
    }

    /// True if most requests of a file with RWF_NOWAIT ended with EAGAIN.
    #[must_use]
    pub fn nowait_gains_nothing(&self) -> bool {
        self.nowait.iter().any(|row| row.cause == WOULD_BLOCK)
    }

    /// Number of rejected opens.
    #[must_use]
    pub fn refused_opens(&self) -> u64 {
        self.rejected_opens.iter().map(|row| row.count).sum()
    }

    /// Requests with a short count, whatever the reason.
    #[must_use]
    pub fn short(&self) -> u64 {
        let is_short = |row: &&FileRow| row.outcome.is_some_and(Outcome::is_short);
        self.files.iter().filter(is_short).map(|row| row.requests).sum()
    }

    /// Requests with a short count by verdict, without verdicts that had none.
    fn short_by_verdict(&self) -> BTreeMap<&'static str, u64> {
        let mut short = BTreeMap::new();
        for row in &self.files {
            if row.outcome.is_some_and(Outcome::is_short) {
                *short.entry(row.verdict.as_str()).or_default() += row.requests;
            }
        }
        short
    }

    /// Requests whose completion was seen.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.requests.values().sum()
    }

    /// Sum of all losses.
    #[must_use]
    pub fn lost_total(&self) -> u64 {
        self.lost.values().sum()
    }
}

/// Sums of counters, which the summary and the live screen share.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    /// Requests by verdict; every verdict has an entry.
    pub requests: BTreeMap<&'static str, u64>,
    pub findings: u64,
    pub bytes: Bytes,
}

impl Sums {
    #[must_use]
    pub fn of(counters: &[(CounterKey, Counter)]) -> Self {
        let requests = Verdict::ALL.iter().map(|verdict| (verdict.as_str(), 0)).collect();
        let mut sums = Self { requests, ..Self::default() };
        for (key, counter) in counters {
            *sums.requests.entry(verdict(key).as_str()).or_default() += counter.requests;
            sums.bytes.add(counter);
            sums.findings += if key.finding != 0 { counter.requests } else { 0 };
        }
        sums
    }

    /// Requests by verdict, ordered as in [`Summary::parts`].
    #[must_use]
    pub fn parts(&self) -> Vec<(&'static str, u64)> {
        parts(&self.requests)
    }
}

/// Requests by verdict, ordered as in [`Summary::parts`].
pub(crate) fn parts(requests: &BTreeMap<&'static str, u64>) -> Vec<(&'static str, u64)> {
    let mut parts: Vec<_> =
        requests.iter().filter(|(_, n)| **n != 0).map(|(verdict, n)| (*verdict, *n)).collect();
    parts.sort_by_key(|(verdict, n)| (std::cmp::Reverse(*n), *verdict));
    parts
}

fn headline(
    requests: &BTreeMap<&'static str, u64>,
    findings: u64,
    nowait: bool,
    short: &BTreeMap<&'static str, u64>,
) -> String {
    let (ended, parts) = (requests.values().sum(), parts(requests));
    match (&parts[..], findings) {
        ([], _) => "No O_DIRECT request ended.".to_owned(),
        ([("direct", _)], 0) if ended == 1 => "The one request was direct.".to_owned(),
        ([("direct", _)], 0) => format!("All {} requests were direct.", count(ended)),
        (_, 0) => {
            let report = if nowait { "RWF_NOWAIT gains nothing" } else { "nothing to report" };
            format!("{}: {}; {report}.", counted(ended, "request"), figures::parts(&parts))
        }
        _ => format!(
            "{} of {} {} a finding. By verdict: {}.",
            count(findings),
            counted(ended, "request"),
            if findings == 1 { "has" } else { "have" },
            parts_with_short(&parts, short)
        ),
    }
}

/// `257 direct (78 short), 78 refused`: requests by verdict, and how many of each came back short.
fn parts_with_short(parts: &[(&str, u64)], short: &BTreeMap<&'static str, u64>) -> String {
    let text = |(verdict, n): &(&str, u64)| match short.get(verdict) {
        Some(short) => format!("{} {verdict} ({} short)", count(*n), count(*short)),
        None => format!("{} {verdict}", count(*n)),
    };
    parts.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// Key of a row: process, file, operation, verdict and outcome; errno and finding are merged.
type RowKey = (u32, FileId, u8, u8, u8);

/// A row's summed counter, and how many of its requests are findings.
type RowCounter = (Counter, u64);

fn merge(counters: &[(CounterKey, Counter)]) -> Vec<(RowKey, RowCounter)> {
    // Reserved in full: a vector that grows needs the old and the new allocation at once.
    let mut rows: Vec<(RowKey, RowCounter)> = Vec::with_capacity(counters.len());
    let mut index = std::collections::HashMap::with_capacity(counters.len());
    for (key, counter) in counters {
        let row_key = (key.tgid, key.file, key.op, key.verdict, key.outcome);
        let findings = if key.finding != 0 { counter.requests } else { 0 };
        let at = *index.entry(row_key).or_insert_with(|| {
            rows.push((row_key, (Counter::ZERO, 0)));
            rows.len() - 1
        });
        let (sum, found) = &mut rows[at].1;
        sum.merge(counter);
        *found += findings;
    }
    rows
}

fn row(key: &RowKey, (counter, findings): &RowCounter, enricher: &mut Enricher) -> FileRow {
    let (tgid, file_key, op, verdict, outcome) = *key;
    let comm = enricher.process(tgid, None);
    let cmdline = enricher.title(tgid);
    let file = enricher.file(file_key, tgid);
    let mut bytes = Bytes::default();
    bytes.add(counter);
    let direct = verdict == Verdict::Direct as u8;
    let note = explain_file(&file.attrs).filter(|_| direct);
    FileRow {
        pid: tgid,
        comm,
        cmdline,
        path: file.path.clone(),
        dev: file.dev.clone(),
        ino: file_key.ino,
        fs: file.fs.clone(),
        op: Op::from_u8(op).unwrap_or(Op::Read),
        verdict: Verdict::from_u8(verdict).unwrap_or(Verdict::Unknown),
        outcome: outcome_of(outcome),
        requests: counter.requests,
        findings: *findings,
        bytes,
        latency_mean_ns: counter.latency_ns / counter.requests.max(1),
        latency_p50_ns: counter.latency.percentile(50),
        latency_p99_ns: counter.latency.percentile(99),
        cause: note.as_ref().map(|note| note.id),
        why: note.map(|note| note.why),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The numbers in a text, commas removed.
    fn numbers(text: &str) -> Vec<u64> {
        let text = text.replace(',', "");
        let words = text.split(|c: char| !c.is_ascii_digit());
        words.filter(|word| !word.is_empty()).map(|word| word.parse().unwrap()).collect()
    }

    proptest! {
        #[test]
        fn a_headline_adds_up(
            by in proptest::collection::vec(
                prop_oneof![Just(0_u64), 1..5_000_u64, 0..1_u64 << 50], Verdict::ALL.len()
            ),
            findings in 0..2_000_u64,
        ) {
            let requests: BTreeMap<_, _> =
                Verdict::ALL.iter().map(|verdict| verdict.as_str()).zip(by.iter().copied()).collect();
            let ended: u64 = by.iter().sum();
            let findings = findings.min(ended);
            let text = headline(&requests, findings, false, &BTreeMap::new());
            let mut said = numbers(&text);
            if findings != 0 {
                prop_assert_eq!(said.remove(0), findings);
            }
            let total = if ended == 0 || text == "The one request was direct." {
                ended
            } else {
                said.remove(0)
            };
            prop_assert_eq!(total, ended, "{}", &text);
            // A single verdict may be named without its number, which is the total.
            prop_assert!(said.is_empty() && text.contains("direct") || ended == said.iter().sum::<u64>(), "{}", text);
        }
    }

    #[test]
    fn a_headline_counts_reads_at_the_end_of_the_file() {
        let none = BTreeMap::new();
        let requests = BTreeMap::from([("direct", 112), ("eof", 12), ("fallback", 0)]);
        assert_eq!(
            headline(&requests, 0, false, &none),
            "124 requests: 112 direct, 12 eof; nothing to report."
        );
        let text = "16 of 124 requests have a finding. By verdict: 112 direct, 12 eof.";
        assert_eq!(headline(&requests, 16, false, &none), text);
        let text = "16 of 124 requests have a finding. By verdict: 112 direct (9 short), 12 eof.";
        assert_eq!(headline(&requests, 16, false, &BTreeMap::from([("direct", 9)])), text);
        let all = headline(&BTreeMap::from([("direct", 5)]), 0, false, &none);
        assert_eq!(all, "All 5 requests were direct.");
    }

    #[test]
    fn a_verdict_that_is_not_known_is_counted_everywhere() {
        let mut totals = crate::testing::golden::totals();
        totals.counters[0].0.verdict = 200;
        let all: u64 = totals.counters.iter().map(|(_, counter)| counter.requests).sum();
        let mut enricher = Enricher::recorded();
        let summary = Summary::new(&totals, &SideEvents::default(), &mut enricher);
        assert_eq!((summary.ended(), summary.requests["unknown"]), (all, 1));
    }
}
