//! Compares the stress tally with dio-trace's report, both each request and the totals.
use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::guest::{
    contract::stress::Score,
    stress::load::{Line, Tally},
};

/// A `kind: "request"` line (docs/json.md).
#[derive(Clone, Debug, Deserialize)]
struct Event {
    pid: u32,
    tid: u32,
    op: String,
    api: String,
    path: String,
    offset: i64,
    len: u64,
    ret: i64,
    verdict: String,
    direct_bytes: u64,
    cached_bytes: u64,
    finding: bool,
}

/// The `kind: "summary"` line.
#[derive(Clone, Debug, Default, Deserialize)]
struct Summary {
    requests: BTreeMap<String, u64>,
    findings: u64,
    lost: BTreeMap<String, u64>,
    unmatched: u64,
    in_flight: u64,
    skipped_runs: BTreeMap<String, u64>,
    files: Vec<Row>,
}

#[derive(Clone, Debug, Deserialize)]
struct Row {
    pid: u32,
    path: String,
    op: String,
    requests: u64,
}

/// dio-trace's parsed output.
#[derive(Clone, Default)]
pub(super) struct Report {
    events: Vec<Event>,
    summary: Summary,
}

impl Report {
    pub(super) fn read(text: &str) -> Result<Self> {
        let mut report = Self::default();
        let mut closed = false;
        for (number, line) in text.lines().enumerate() {
            let at = || format!("line {} of dio-trace's JSON", number + 1);
            let value: serde_json::Value = serde_json::from_str(line).with_context(at)?;
            match value["kind"].as_str() {
                Some("request") => report.events.push(Event::deserialize(value).with_context(at)?),
                Some("summary") => {
                    report.summary = Summary::deserialize(value).with_context(at)?;
                    closed = true;
                }
                _ => {}
            }
        }
        if !closed {
            bail!("dio-trace ended without a summary");
        }
        Ok(report)
    }
}

/// What distinguishes requests: path, op, api, offset, len, result, thread. Requests with equal
/// keys are interchangeable.
type Key<'a> = (&'a str, &'a str, &'a str, i64, u64, i64, Option<u32>);

fn key_of_event(event: &Event) -> Key<'_> {
    let tid = (event.api != "io_uring").then_some(event.tid);
    (&event.path, &event.op, &event.api, event.offset, event.len, event.ret, tid)
}

fn op(line: &Line) -> &'static str {
    if line.write { "write" } else { "read" }
}

/// Whether dio-trace shows a request without `--all`, as far as its result determines that.
fn shows(ret: i64, len: u64) -> bool {
    (ret < 0 && ret != -i64::from(libc::EAGAIN)) || (ret > 0 && (ret as u64) < len)
}

/// Compares the tally with the report. `fs` is the file system of each of the tally's files; `all`
/// means that every request must have an event.
pub(super) fn judge(tally: &Tally, fs: &[&str], report: &Report, all: bool) -> Score {
    let mut score = Score {
        requests: tally.lines.len() as u64,
        events: report.events.len() as u64,
        ..Score::default()
    };
    events(tally, report, all, &mut score);
    verdicts(tally, fs, report, &mut score);
    sums(tally, report, all, &mut score);
    score
}

fn events(tally: &Tally, report: &Report, all: bool, score: &mut Score) {
    const SHOWN: usize = 8;
    let paths: Vec<_> = tally.files.iter().map(|path| path.to_string_lossy()).collect();
    let mut balance: BTreeMap<Key<'_>, i64> = BTreeMap::new();
    for line in tally.lines.iter().filter(|line| all || shows(line.ret, line.len)) {
        let path: &str = &paths[line.file];
        let key = (path, op(line), &*line.api, line.offset, line.len, line.ret, line.tid);
        *balance.entry(key).or_default() += 1;
    }
    for event in report.events.iter().filter(|event| all || shows(event.ret, event.len)) {
        *balance.entry(key_of_event(event)).or_default() -= 1;
    }
    for (key, count) in balance.iter().filter(|(_, count)| **count != 0) {
        let (word, part) =
            if *count > 0 { ("missed", &mut score.missed) } else { ("extra", &mut score.extra) };
        *part += count.unsigned_abs();
        if score.complaints.len() < SHOWN {
            score.complaints.push(format!("{word} {}: {key:?}", count.unsigned_abs()));
        }
    }
    if score.missed + score.extra != 0 {
        score.complaints.push(format!("{} missed, {} extra", score.missed, score.extra));
    }
}

/// The verdicts that are possible for an event's result and file system.
fn possible(event: &Event, fs: &str) -> &'static [&'static str] {
    match event.ret {
        ret if [libc::EINVAL, libc::EAGAIN, libc::EOPNOTSUPP].contains(&(-ret as i32)) => {
            &["refused"]
        }
        ret if ret < 0 => &["failed"],
        0 => &["eof"],
        _ => match fs {
            "tmpfs" => &["memory"],
            // Never through the page cache as long as nothing else uses the file.
            "ext4" | "xfs" | "bdev" => &["direct"],
            _ => &["direct", "partial", "fallback"],
        },
    }
}

fn verdicts(tally: &Tally, fs: &[&str], report: &Report, score: &mut Score) {
    const SHOWN: u64 = 8;
    for event in &report.events {
        let at = tally.files.iter().position(|path| path.to_str() == Some(&event.path));
        let possible = at.map_or(&[][..], |at| possible(event, fs[at]));
        let bytes = event.direct_bytes + event.cached_bytes;
        let right = possible.contains(&&*event.verdict)
            && bytes == event.ret.max(0) as u64
            && event.pid == tally.pid;
        score.unknown += u64::from(event.verdict == "unknown");
        score.wrong += u64::from(!right);
        if !right && score.wrong <= SHOWN {
            score.complaints.push(format!("not one of {possible:?}: {event:?}"));
        }
    }
}

fn sums(tally: &Tally, report: &Report, all: bool, score: &mut Score) {
    let Summary { requests, findings, lost, unmatched, in_flight, skipped_runs, files } =
        &report.summary;
    score.skipped_runs.clone_from(skipped_runs);
    score.lost = lost.values().sum();
    (score.unmatched, score.in_flight) = (*unmatched, *in_flight);
    let mut check = |what: &str, said: u64, truth: u64| {
        if said != truth {
            score.complaints.push(format!("{what}: {said}, not {truth}"));
        }
    };
    check("requests of the summary", requests.values().sum(), tally.lines.len() as u64);
    check("unknown", requests.get("unknown").copied().unwrap_or_default(), 0);
    check("lost", lost.values().sum(), 0);
    check("unmatched", *unmatched, 0);
    check("in flight", *in_flight, 0);
    let shown = report.events.iter().filter(|event| all || event.finding).count() as u64;
    check("events that are findings, or all", shown, report.events.len() as u64);
    let found = report.events.iter().filter(|event| event.finding).count() as u64;
    check("findings of the summary", *findings, found);
    let mut rows: BTreeMap<(u32, &str, &str), (u64, u64)> = BTreeMap::new();
    for row in files {
        rows.entry((row.pid, &row.path, &row.op)).or_default().0 += row.requests;
    }
    let paths: Vec<_> = tally.files.iter().map(|path| path.to_string_lossy()).collect();
    for line in &tally.lines {
        rows.entry((tally.pid, &paths[line.file], op(line))).or_default().1 += 1;
    }
    for (row, (said, truth)) in rows {
        check(&format!("{row:?} of the summary"), said, truth);
    }
}

/// Verifies that the comparison can fail: it must find a missing event, an extra one, and a changed
/// one.
pub(super) fn can_fail(tally: &Tally, fs: &[&str], report: &Report) -> Result<()> {
    let spoilt = |spoil: fn(&mut Vec<Event>)| {
        let mut report = report.clone();
        spoil(&mut report.events);
        let score = judge(tally, fs, &report, true);
        (score.missed, score.extra)
    };
    let less = spoilt(|events| drop(events.pop()));
    let more = spoilt(|events| events.extend(events.last().cloned()));
    let changed = spoilt(|events| events.iter_mut().take(1).for_each(|event| event.offset += 1));
    let found = (less, more, changed);
    if found != ((1, 0), (0, 1), (1, 1)) {
        bail!("the checker does not see a missing, an extra and a changed event: {found:?}");
    }
    Ok(())
}
