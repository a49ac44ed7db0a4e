//! The judge: what dio-trace said against the scenarios, the workload's own tally, mincore and
//! /proc/self/io.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    cells::{Cell, Ending, Expect, Stage},
    setups::{Place, Setup},
    workload::Entry,
};

/// A `kind: "request"` line, as far as the contract promises it (docs/json.md).
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Event {
    time: u64,
    pub(super) pid: u32,
    op: String,
    api: String,
    fs: String,
    path: String,
    offset: i64,
    len: u64,
    ret: i64,
    pub(super) verdict: String,
    direct_bytes: u64,
    cached_bytes: u64,
    outcome: Option<String>,
    errno: Option<String>,
    cause: Option<String>,
    why: Option<String>,
    fix: Option<String>,
    effects: Effects,
    attempts: u32,
}

#[derive(Clone, Debug, Deserialize)]
struct Effects {
    flushed_pages: Option<u32>,
    readahead_pages: Option<u32>,
}

/// The `kind: "summary"` line.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Summary {
    requests: BTreeMap<String, u64>,
    lost: BTreeMap<String, u64>,
    unmatched: u64,
    in_flight: u64,
    attach: String,
}

/// All that one run of dio-trace wrote.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    pub(super) events: Vec<Event>,
    pub(super) summary: Summary,
}

impl Report {
    /// The verdict of the first request to a file.
    pub(super) fn verdict_of(&self, path: &std::path::Path) -> Option<&str> {
        let event = self.events.iter().find(|event| path.to_str() == Some(&event.path));
        event.map(|event| &*event.verdict)
    }
}

/// Reads JSON lines.
pub(super) fn report(text: &str) -> anyhow::Result<Report> {
    use anyhow::{Context as _, bail};
    let mut report = Report::default();
    let mut closed = false;
    for (number, line) in text.lines().enumerate() {
        let at = || format!("line {} of dio-trace's JSON", number + 1);
        let value: Value = serde_json::from_str(line).with_context(at)?;
        match value["kind"].as_str() {
            Some("request") => {
                report.events.push(serde_json::from_value(value).with_context(at)?);
            }
            Some("summary") => {
                report.summary = serde_json::from_value(value).with_context(at)?;
                closed = true;
            }
            kind => bail!("{}: kind {kind:?}", at()),
        }
    }
    if !closed {
        bail!("dio-trace ended without a summary");
    }
    Ok(report)
}

/// How the cells of one set-up came out.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Score {
    pub(super) name: String,
    pub(super) cells: u64,
    pub(super) wrong: u64,
    pub(super) missed: u64,
    pub(super) extra: u64,
}

/// Judges a run.
#[derive(Default)]
pub(super) struct Judge {
    pub(super) scores: Vec<Score>,
    /// What is wrong, in words.
    pub(super) complaints: Vec<String>,
}

/// What the run asked of dio-trace.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// `--all`: every request has an event.
    All,
    /// Findings alone: other requests are in the counters only.
    Findings,
}

impl Judge {
    /// Compares every cell of these places.
    pub(super) fn cells(
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
        let strangers: Vec<&Event> = owner.into_values().flatten().collect();
        for event in &strangers {
            self.complaints.push(format!("about no cell: {event:?}"));
        }
        if let (Some(score), false) = (self.scores.last_mut(), strangers.is_empty()) {
            score.extra += strangers.len() as u64;
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

    /// Checks the closing line: nothing lost, and as many requests as the tally has.
    pub(super) fn summary(
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
        // A score of its own: the totals are no set-up's fault.
        self.scores.push(Score {
            name: "totals".to_owned(),
            wrong: wrong.len() as u64,
            ..Score::default()
        });
        self.complaints.extend(wrong.into_iter().map(|what| format!("summary: {what}")));
    }
}

/// Which event is about which entry of the tally: by file and time, so that a wrong offset or
/// process is a wrong event and not a missed one.
fn owners<'a>(events: &'a [Event], tally: &[Entry]) -> BTreeMap<Option<usize>, Vec<&'a Event>> {
    /// The tool's clock is another than the tally's, joined at its start.
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

/// A finding, as README has it.
fn is_finding(expect: &Expect) -> bool {
    let Expect::Request { verdict, result, flush } = expect else { return false };
    let short = matches!(result, Ending::Count(Some(_), _));
    match *verdict {
        "fallback" | "partial" | "failed" | "unknown" => true,
        "refused" => *result != Ending::Errno("EAGAIN"),
        "eof" => *flush,
        "direct" | "client" => short || *flush,
        _ => short,
    }
}

/// All that is wrong with a cell; nothing if it is right.
fn compare(
    setup: &Setup,
    cell: &Cell,
    expect: &Expect,
    entry: &Entry,
    events: &[&Event],
    asked: Asked,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut check = |right: bool, what: &dyn Fn() -> String| {
        if !right {
            wrong.push(what());
        }
    };
    match expect {
        Expect::NoRequest { at, errno } => {
            let stage = match at {
                Stage::Open => "open",
                Stage::Fcntl => "fcntl",
                Stage::Call => "call",
            };
            check(entry.stage == stage, &|| format!("refused at {}, not {stage}", entry.stage));
            let right = errno.map_or(entry.result >= 0, |errno| entry.result == -number(errno));
            check(right, &|| format!("the program got {}, not {errno:?}", entry.result));
            check(events.is_empty(), &|| format!("there was no request, but {events:?}"));
        }
        Expect::Request { result, .. } => {
            let ret = match result {
                Ending::Full => cell.len as i64,
                Ending::Count(_, count) => *count,
                Ending::Errno(errno) => -number(errno),
            };
            check(entry.stage == "call", &|| format!("refused at {}", entry.stage));
            check(entry.result == ret, &|| format!("the program got {}, not {ret}", entry.result));
            let wanted = usize::from(asked == Asked::All || is_finding(expect));
            check(events.len() == wanted, &|| format!("{} events, not {wanted}", events.len()));
            if let [event] = events {
                wrong.extend(about(setup, cell, expect, entry, event));
                wrong.extend(independent(cell, entry, event));
            }
        }
    }
    wrong
}

/// What is wrong with an event.
fn about(setup: &Setup, cell: &Cell, expect: &Expect, entry: &Entry, event: &Event) -> Vec<String> {
    let Expect::Request { verdict, result, flush } = expect else { return Vec::new() };
    let mut wrong = Vec::new();
    let mut same = |what: &str, said: &dyn std::fmt::Debug, truth: &dyn std::fmt::Debug| {
        let (said, truth) = (format!("{said:?}"), format!("{truth:?}"));
        if said != truth {
            wrong.push(format!("{what} is {said}, not {truth}"));
        }
    };
    let (outcome, errno) = match *result {
        Ending::Full => (Some("full"), None),
        Ending::Count(outcome, _) => (outcome, None),
        Ending::Errno(errno) => (None, Some(errno)),
    };
    let done = entry.result.max(0) as u64;
    let (direct, cached) = match *verdict {
        "direct" | "client" => (done, 0),
        "fallback" | "memory" => (0, done),
        _ => (0, 0),
    };
    same("verdict", &event.verdict, verdict);
    same("outcome", &event.outcome.as_deref(), &outcome);
    same("errno", &event.errno.as_deref(), &errno);
    same("ret", &event.ret, &entry.result);
    same("offset", &event.offset, &cell.offset);
    same("len", &event.len, &(cell.len as u64));
    same("op", &event.op, &"read");
    same("api", &event.api, &api(cell.api));
    same("fs", &event.fs, &setup.fs);
    same("path", &event.path, &entry.path.to_string_lossy());
    same("pid", &event.pid, &entry.pid);
    same("direct_bytes", &event.direct_bytes, &direct);
    same("cached_bytes", &event.cached_bytes, &cached);
    same("flushed", &event.effects.flushed_pages.map(|pages| pages != 0), &Some(*flush));
    same("attempts > 0", &(event.attempts > 0), &true);
    if let Some(causes) = causes(setup, cell, expect) {
        let cause = event.cause.as_deref();
        let explained = event.why.is_some() && event.fix.is_some();
        if !cause.is_some_and(|cause| causes.contains(&cause)) || !explained {
            wrong.push(format!("cause is {cause:?}, not one of {causes:?}"));
        }
    }
    wrong
}

/// The word of the contract for an API of the workload.
fn api(name: &str) -> &'static str {
    match name {
        "read" | "pread" | "thread" | "child" => "read",
        "readv" | "preadv" | "preadv2" => "readv",
        "aio" => "libaio",
        _ => "io_uring",
    }
}

/// The causes that explain a cell; none where nothing is to be explained.
fn causes(setup: &Setup, cell: &Cell, expect: &Expect) -> Option<Vec<&'static str>> {
    const BLOCK: usize = 4096;
    let Expect::Request { verdict, result, flush } = expect else { return None };
    let off = [cell.offset as usize, cell.len, cell.off_by].iter().any(|n| n % BLOCK != 0)
        || cell.case.starts_with("r_iov");
    Some(match (*verdict, *result) {
        (_, Ending::Errno("EINVAL")) => vec!["misaligned"],
        (_, Ending::Errno("EOPNOTSUPP")) => vec!["flag-unsupported"],
        (_, Ending::Errno("EAGAIN")) => vec!["would-block"],
        ("memory", _) => vec!["tmpfs"],
        ("fallback", _) if setup.fs == "btrfs" && off => {
            [&["btrfs-misaligned"][..], setup.causes].concat()
        }
        ("fallback", _) => setup.causes.to_vec(),
        _ if *flush => vec!["dirty-flush"],
        (_, Ending::Count(Some("short:eof"), _)) => vec!["end-of-file"],
        _ => return None,
    })
}

/// What mincore and /proc/self/io have against a verdict.
fn independent(cell: &Cell, entry: &Entry, event: &Event) -> Vec<String> {
    let mut wrong = Vec::new();
    let (before, after, pages) = (entry.before, entry.after, entry.pages);
    match &*event.verdict {
        "direct" => {
            if after > before {
                wrong.push(format!("direct, but mincore saw {before} -> {after} pages"));
            }
            if event.effects.readahead_pages != Some(0) {
                let pages = event.effects.readahead_pages;
                wrong.push(format!("direct, but {pages:?} pages were added to the cache"));
            }
            // What was written: a hole is read from nowhere. The kernel reads whole sectors.
            let stored =
                !matches!(cell.case, "r_unwritten" | "r_mix") && !cell.case.starts_with("r_hole");
            if stored && entry.result > 0 && (entry.storage as i64) < entry.result {
                wrong.push(format!(
                    "direct, but storage gave {} of {} bytes",
                    entry.storage, entry.result
                ));
            }
        }
        "fallback" if cell.case != "r_dontcache" => {
            if after != pages {
                wrong.push(format!("fallback, but mincore saw {after} of {pages} pages"));
            }
            if before == pages
                && event.effects.readahead_pages.is_some_and(|added| added > pages as u32)
            {
                wrong.push("all pages were cached, but more were read ahead".to_owned());
            }
        }
        _ => {}
    }
    wrong
}

/// The number behind an errno's name.
fn number(name: &str) -> i64 {
    i64::from(match name {
        "EINVAL" => libc::EINVAL,
        "EOPNOTSUPP" => libc::EOPNOTSUPP,
        "EAGAIN" => libc::EAGAIN,
        "EIO" => libc::EIO,
        "ENODATA" => libc::ENODATA,
        "ENOSPC" => libc::ENOSPC,
        "EFAULT" => libc::EFAULT,
        _ => i32::MAX,
    })
}
