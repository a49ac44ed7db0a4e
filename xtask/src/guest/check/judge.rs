//! Checks a whole run of dio-trace: each cell, the rejected opens, and the totals of the summary.
use std::collections::BTreeMap;

use crate::guest::{
    check::cell::{Asked, compare},
    contract::{
        json::{Event, RejectedOpen, Report, Summary},
        suite::Score,
    },
    fixtures::{Place, Setup},
    matrix::cells::{Cell, Expect},
    tally::Entry,
};

/// Collects the scores and mismatches of the runs of one suite.
#[derive(Default)]
pub(crate) struct Judge {
    pub(crate) scores: Vec<Score>,
    /// All mismatches, as text.
    pub(crate) complaints: Vec<String>,
}

impl Judge {
    /// Checks every cell of these fixtures. Events that match no cell (unmatched events) count as
    /// extra.
    pub(crate) fn cells(
        &mut self,
        places: &[(Place, Vec<Cell>)],
        tally: &[Entry],
        report: &Report,
        asked: Asked,
    ) {
        let mut owner = owners(&report.events, tally);
        for (place, cells) in places {
            let mut score = Score { name: place.setup.name.to_owned(), ..Score::default() };
            for cell in cells {
                let at = tally
                    .iter()
                    .position(|entry| entry.setup == cell.setup && entry.cell == cell.name());
                let Some(at) = at else {
                    score.missed += 1;
                    self.complain(cell, "the workload has no tally of it");
                    continue;
                };
                let events = owner.remove(&Some(at)).unwrap_or_default();
                self.cell(&mut score, place.setup, cell, &tally[at], &events, asked);
            }
            self.scores.push(score);
        }
        let unmatched: Vec<&Event> = owner.into_values().flatten().collect();
        for event in &unmatched {
            self.complaints.push(format!("unmatched event: {event:?}"));
        }
        if let (Some(score), false) = (self.scores.last_mut(), unmatched.is_empty()) {
            score.extra += unmatched.len() as u64;
        }
    }

    fn cell(
        &mut self,
        score: &mut Score,
        setup: &Setup,
        cell: &Cell,
        entry: &Entry,
        events: &[&Event],
        asked: Asked,
    ) {
        score.cells += 1;
        let faults: Vec<Vec<String>> = cell
            .expect
            .iter()
            .map(|expect| compare(setup, cell, expect, entry, events, asked))
            .collect();
        if faults.iter().any(Vec::is_empty) {
            return;
        }
        let wants = |expect: &Expect| matches!(expect, Expect::Request { .. });
        if events.is_empty() && cell.expect.iter().all(wants) && faults[0].len() == 1 {
            score.missed += 1;
        } else if events.len() > 1 || (!events.is_empty() && !cell.expect.iter().any(wants)) {
            score.extra += 1;
        } else {
            score.wrong += 1;
        }
        self.complain(cell, &faults[0].join("; "));
    }

    fn complain(&mut self, cell: &Cell, what: &str) {
        self.complaints.push(format!("{} {}: {what}", cell.setup, cell.name()));
    }

    /// Checks the rejected opens (EINVAL from open or fcntl): call, process, path and count must be
    /// those of the tally.
    pub(crate) fn rejected_opens(&mut self, tally: &[Entry], report: &Report) {
        let mut counts = BTreeMap::new();
        for entry in tally {
            let stage = entry.stage.as_str();
            if matches!(stage, "open" | "fcntl") && entry.result == -i64::from(libc::EINVAL) {
                let path = entry.path.to_string_lossy().into_owned();
                *counts.entry((stage.to_owned(), entry.pid, path)).or_default() += 1;
            }
        }
        let mut said = report.summary.rejected_opens.clone();
        said.sort();
        let truth: Vec<RejectedOpen> = counts
            .into_iter()
            .map(|((call, pid, path), count)| RejectedOpen {
                call,
                pid,
                path,
                count,
                errno: "EINVAL".to_owned(),
            })
            .collect();
        let extra = said.iter().filter(|rejected_open| !truth.contains(rejected_open));
        let missed = truth.iter().filter(|rejected_open| !said.contains(rejected_open));
        let wrong: Vec<String> = extra
            .map(|rejected_open| format!("not refused as {rejected_open:?}"))
            .chain(missed.map(|rejected_open| format!("not reported: {rejected_open:?}")))
            .collect();
        self.verdict("refusals", truth.len() as u64, wrong);
    }

    /// Adds a score of `cells` cells with these mismatches.
    pub(crate) fn verdict(&mut self, name: &str, cells: u64, wrong: Vec<String>) {
        let wrong_cells = wrong.len() as u64;
        self.scores.push(Score {
            name: name.to_owned(),
            cells,
            wrong: wrong_cells,
            ..Score::default()
        });
        self.complaints.extend(wrong.into_iter().map(|what| format!("{name}: {what}")));
    }

    /// Checks the summary: nothing lost, and as many requests by verdict as expected.
    pub(crate) fn summary(
        &mut self,
        summary: &Summary,
        attach: &str,
        expected: &BTreeMap<String, u64>,
    ) {
        let mut wrong = Vec::new();
        if summary.attach != attach {
            wrong.push(format!("attached by {}, not {attach}", summary.attach));
        }
        for (reason, lost) in summary.lost.iter().filter(|(_, lost)| **lost != 0) {
            wrong.push(format!("lost {lost}: {reason}"));
        }
        if summary.unmatched != 0 || summary.in_flight != 0 {
            let (unmatched, open) = (summary.unmatched, summary.in_flight);
            wrong.push(format!("{unmatched} unmatched, {open} in flight"));
        }
        let counted: BTreeMap<String, u64> = summary
            .requests
            .iter()
            .filter(|(_, count)| **count != 0)
            .map(|(verdict, count)| (verdict.clone(), *count))
            .collect();
        if counted != *expected {
            wrong.push(format!("counted {counted:?}, the tally has {expected:?}"));
        }
        // A separate score: wrong totals belong to no single fixture.
        self.verdict("totals", 0, wrong);
    }
}

/// Assigns each event to an entry of the tally (its index; `None` for unmatched events). Matching
/// uses only file and time, so that a wrong offset or process is a wrong event, not a missed one.
fn owners<'a>(events: &'a [Event], tally: &[Entry]) -> BTreeMap<Option<usize>, Vec<&'a Event>> {
    /// Tolerance in ns: dio-trace uses another clock than the tally, and aligns them only at start.
    const SLACK: u64 = 5_000_000;
    let mut owners: BTreeMap<Option<usize>, Vec<&Event>> = BTreeMap::new();
    for event in events {
        let near = |entry: &Entry| {
            event.time + SLACK >= entry.begin && event.time <= entry.end.saturating_add(SLACK)
        };
        let same = |entry: &Entry| entry.path.to_str() == Some(&event.path);
        let at = tally
            .iter()
            .position(|entry| same(entry) && entry.begin <= event.time && event.time <= entry.end)
            .or_else(|| tally.iter().position(|entry| same(entry) && near(entry)));
        owners.entry(at).or_default().push(event);
    }
    owners
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::{Value, json};

    use super::*;
    use crate::guest::{
        check::{
            causes::{api, causes},
            cell::number,
        },
        fixtures,
        matrix::cells::{self, Ending},
    };

    /// A request that one cell of a scenario file expects, as a correct dio-trace would report it.
    fn reported(setup: &str, name: &str) -> (Place, Cell, Entry, Value) {
        let setup = fixtures::find(setup).unwrap();
        let cells = cells::load(setup.name, setup.rows, "6.12").unwrap();
        let cell = cells.into_iter().find(|cell| cell.name() == name).unwrap();
        let path = PathBuf::from("/mnt").join(setup.name).join(name);
        let Expect::Request { verdict, result, flush, drop } = &cell.expect[0] else { panic!() };
        let (ret, outcome, errno) = match *result {
            Ending::Full => (cell.len as i64, Some("full"), None),
            Ending::Count(outcome, count) => (count, outcome, None),
            Ending::Errno(errno) => (-number(errno), None, Some(errno)),
        };
        let done = ret.max(0) as u64;
        let direct = if *verdict == "direct" { done } else { 0 };
        let cached = if *verdict == "fallback" { done } else { 0 };
        let causes = causes(setup, &cell, &cell.expect[0], (*flush, *drop));
        let pages = if cached != 0 { 1 } else { 0 };
        let entry = Entry {
            setup: setup.name.to_owned(),
            cell: name.to_owned(),
            path: path.clone(),
            pid: 7,
            stage: "call".to_owned(),
            result: ret,
            begin: 1_000_000_000,
            end: 1_000_100_000,
            before: u64::from(*drop),
            after: pages,
            pages: 1,
            storage: cell.len as u64,
        };
        let cause = causes.map(|causes| causes[0]);
        let op = if name.starts_with('w') { "write" } else { "read" };
        let event = json!({
            "v": 1, "kind": "request", "time": 1_000_050_000_u64, "pid": 7, "tid": 7,
            "comm": "workload", "op": op, "api": api(cell.api), "dev": "254:1", "ino": 12,
            "fs": setup.fs, "path": path, "offset": cell.offset, "len": cell.len, "ret": ret,
            "latency_ns": 50_000, "verdict": verdict, "direct_bytes": direct,
            "cached_bytes": cached, "outcome": outcome, "errno": errno, "cause": cause,
            "why": cause.map(|_| "because"), "fix": cause.map(|_| "do"),
            "effects": {
                "flushed_pages": u32::from(*flush), "invalidated_pages": u32::from(*drop),
                "readahead_pages": pages, "dirty_left_pages": null, "approximate": false,
            },
            "attempts": 1, "finding": true,
        });
        let place = Place { setup, path: path.parent().unwrap().to_owned() };
        (place, cell, entry, event)
    }

    fn judged(place: &Place, cell: &Cell, entry: &Entry, events: &[Value]) -> Judge {
        let events =
            events.iter().map(|event| serde_json::from_value(event.clone()).unwrap()).collect();
        let report = Report { events, summary: Summary::default() };
        let mut judge = Judge::default();
        judge.cells(
            &[(place.clone(), vec![cell.clone()])],
            std::slice::from_ref(entry),
            &report,
            Asked::All,
        );
        judge
    }

    const REPORTED: &[(&str, &str)] = &[
        ("ext4-512", "r_aligned4k.pread"),
        ("ext4-512", "r_off100.aio"),
        ("ext4-512", "r_tail_4k.uring"),
        ("ext4-512", "r_dirty.pread"),
        ("ext4-512", "r_eof_at.pread"),
        ("ext4-journal", "r_aligned4k.preadv2"),
        ("ext4-512", "r_dirty_nowait.preadv2"),
        ("ext4-512", "w_cached.pwrite"),
        ("ext4-512", "w_dirty.aio"),
    ];

    #[test]
    fn a_correct_report_passes() {
        for (setup, name) in REPORTED {
            let (place, cell, entry, event) = reported(setup, name);
            let judge = judged(&place, &cell, &entry, &[event]);
            assert!(judge.complaints.is_empty(), "{name}: {:?}", judge.complaints);
            assert_eq!(judge.scores[0].cells, 1);
        }
    }

    #[test]
    fn every_flipped_field_is_noticed() {
        let flips = [
            ("verdict", json!("unknown")),
            ("outcome", json!("short:other")),
            ("errno", json!("EIO")),
            ("ret", json!(1)),
            ("offset", json!(1)),
            ("len", json!(1)),
            ("op", json!("erase")),
            ("api", json!("splice")),
            ("fs", json!("vfat")),
            ("pid", json!(8)),
            ("direct_bytes", json!(1)),
            ("cached_bytes", json!(1)),
            ("attempts", json!(0)),
            (
                "effects",
                json!({"flushed_pages": null, "invalidated_pages": null, "readahead_pages": 0}),
            ),
        ];
        for (setup, name) in REPORTED {
            for (field, value) in &flips {
                let (place, cell, entry, mut event) = reported(setup, name);
                event[*field] = value.clone();
                let judge = judged(&place, &cell, &entry, &[event]);
                assert_eq!(judge.scores[0].wrong, 1, "{name}: {field} went unnoticed");
            }
        }
    }

    #[test]
    fn a_wrong_cause_is_noticed() {
        let (place, cell, entry, mut event) = reported("ext4-journal", "r_aligned4k.preadv2");
        event["cause"] = json!("inline-data");
        assert_eq!(judged(&place, &cell, &entry, &[event]).scores[0].wrong, 1);
    }

    #[test]
    fn missed_and_extra_requests_are_noticed() {
        let (place, cell, entry, event) = reported("ext4-512", "r_aligned4k.pread");
        assert_eq!(judged(&place, &cell, &entry, &[]).scores[0].missed, 1);
        let twice = [event.clone(), event.clone()];
        assert_eq!(judged(&place, &cell, &entry, &twice).scores[0].extra, 1);
        // A request of another process, on a file that belongs to no cell.
        let mut other = event.clone();
        other["path"] = json!("/mnt/ext4-512/bystander");
        assert_eq!(judged(&place, &cell, &entry, &[event, other]).scores[0].extra, 1);
    }

    #[test]
    fn mincore_and_proc_io_outweigh_a_consistent_report() {
        let (place, cell, mut entry, event) = reported("ext4-512", "r_aligned4k.pread");
        entry.after = 1;
        let events = std::slice::from_ref(&event);
        assert_eq!(judged(&place, &cell, &entry, events).scores[0].wrong, 1, "mincore");
        (entry.after, entry.storage) = (0, 0);
        assert_eq!(judged(&place, &cell, &entry, events).scores[0].wrong, 1, "/proc/self/io");
    }

    #[test]
    fn losses_and_counts_are_checked() {
        let right = || Summary {
            requests: [("direct".to_owned(), 2), ("unknown".to_owned(), 0)].into(),
            lost: [("ring buffer full".to_owned(), 0)].into(),
            attach: "fentry".to_owned(),
            ..Summary::default()
        };
        let wrong = |summary: Summary| {
            let mut judge = Judge::default();
            judge.summary(&summary, "fentry", &[("direct".to_owned(), 2)].into());
            judge.complaints.len()
        };
        assert_eq!(wrong(right()), 0);
        assert_eq!(wrong(Summary { attach: "kprobe".to_owned(), ..right() }), 1);
        assert_eq!(wrong(Summary { unmatched: 1, ..right() }), 1);
        assert_eq!(wrong(Summary { in_flight: 1, ..right() }), 1);
        let lost = [("ring buffer full".to_owned(), 1)].into();
        assert_eq!(wrong(Summary { lost, ..right() }), 1);
        let requests = [("direct".to_owned(), 1)].into();
        assert_eq!(wrong(Summary { requests, ..right() }), 1);
    }

    #[test]
    fn refusals_are_compared_with_the_tally() {
        let (_, _, mut entry, _) = reported("ext4-512", "r_aligned4k.pread");
        "open".clone_into(&mut entry.stage);
        entry.result = -22;
        let wrong = |rejected_opens: Vec<RejectedOpen>| {
            let report = Report {
                summary: Summary { rejected_opens, ..Summary::default() },
                ..Report::default()
            };
            let mut judge = Judge::default();
            judge.rejected_opens(std::slice::from_ref(&entry), &report);
            judge.complaints.len()
        };
        let right = || RejectedOpen {
            call: "open".to_owned(),
            pid: 7,
            path: entry.path.to_string_lossy().into_owned(),
            count: 1,
            errno: "EINVAL".to_owned(),
        };
        assert_eq!(wrong(vec![right()]), 0);
        assert_eq!(wrong(vec![]), 1);
        assert_eq!(wrong(vec![RejectedOpen { pid: 8, ..right() }]), 2);
        assert_eq!(wrong(vec![right(), RejectedOpen { call: "fcntl".to_owned(), ..right() }]), 1);
    }
}
