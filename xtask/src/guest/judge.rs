//! The judge: what dio-trace said against the scenarios, the workload's own tally, mincore and
//! /proc/self/io.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::guest::{
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
    invalidated_pages: Option<u32>,
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
    #[serde(default)]
    skipped_runs: BTreeMap<String, u64>,
    refusals: Vec<Refusal>,
    mixed: Vec<Mixed>,
}

/// One of the summary's `refusals`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Refusal {
    call: String,
    pid: u32,
    path: String,
    count: u64,
    errno: String,
}

/// One of the summary's `mixed`.
#[derive(Clone, Debug, Deserialize)]
struct Mixed {
    path: String,
    direct: Vec<DirectUser>,
    cached: Vec<CacheUser>,
    flushed_pages: u64,
    invalidated_pages: u64,
}

#[derive(Clone, Debug, Deserialize)]
struct DirectUser {
    pid: u32,
    reads: u64,
    writes: u64,
}

#[derive(Clone, Debug, Deserialize)]
struct CacheUser {
    pid: u32,
    pages_cached: u64,
    pages_dirtied: u64,
}

/// A file that is used directly and through the page cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MixedFile {
    pub(super) path: String,
    /// pid, reads, writes
    pub(super) direct: Vec<(u32, u64, u64)>,
    /// pid, pages cached, pages dirtied
    pub(super) cached: Vec<(u32, u64, u64)>,
    pub(super) flushed_pages: u64,
    pub(super) invalidated_pages: u64,
}

/// All that one run of dio-trace wrote.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    pub(super) events: Vec<Event>,
    pub(super) summary: Summary,
}

impl Report {
    /// Runs of a probe that the kernel skipped.
    pub(super) fn skipped(&self, probe: &str) -> u64 {
        self.summary.skipped_runs.get(probe).copied().unwrap_or(0)
    }

    /// What is said of mixed access.
    pub(super) fn mixed(&self) -> Vec<MixedFile> {
        let file = |m: &Mixed| MixedFile {
            path: m.path.clone(),
            direct: m.direct.iter().map(|u| (u.pid, u.reads, u.writes)).collect(),
            cached: m.cached.iter().map(|u| (u.pid, u.pages_cached, u.pages_dirtied)).collect(),
            flushed_pages: m.flushed_pages,
            invalidated_pages: m.invalidated_pages,
        };
        self.summary.mixed.iter().map(file).collect()
    }

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

    /// O_DIRECT itself refused: as often, for whom and what, as the tally has it.
    pub(super) fn refusals(&mut self, tally: &[Entry], report: &Report) {
        let mut counts = BTreeMap::new();
        for entry in tally {
            let stage = entry.stage.as_str();
            if matches!(stage, "open" | "fcntl") && entry.result == -i64::from(libc::EINVAL) {
                let path = entry.path.to_string_lossy().into_owned();
                *counts.entry((stage.to_owned(), entry.pid, path)).or_default() += 1;
            }
        }
        let mut said = report.summary.refusals.clone();
        said.sort();
        let truth: Vec<Refusal> = counts
            .into_iter()
            .map(|((call, pid, path), count)| Refusal {
                call,
                pid,
                path,
                count,
                errno: "EINVAL".to_owned(),
            })
            .collect();
        let extra = said.iter().filter(|refusal| !truth.contains(refusal));
        let missed = truth.iter().filter(|refusal| !said.contains(refusal));
        let wrong: Vec<String> = extra
            .map(|refusal| format!("not refused as {refusal:?}"))
            .chain(missed.map(|refusal| format!("not told: {refusal:?}")))
            .collect();
        self.verdict("refusals", truth.len() as u64, wrong);
    }

    /// A score of `cells`, of which these are wrong.
    pub(super) fn verdict(&mut self, name: &str, cells: u64, wrong: Vec<String>) {
        let wrong_cells = wrong.len() as u64;
        self.scores.push(Score {
            name: name.to_owned(),
            cells,
            wrong: wrong_cells,
            ..Score::default()
        });
        self.complaints.extend(wrong.into_iter().map(|what| format!("{name}: {what}")));
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
        self.verdict("totals", 0, wrong);
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

/// Pages left the cache meanwhile.
const fn dropped(entry: &Entry) -> bool {
    entry.after < entry.before
}

/// A finding, as README has it.
fn is_finding(expect: &Expect, entry: &Entry) -> bool {
    let Expect::Request { verdict, result, flush, drop } = expect else { return false };
    let short = matches!(result, Ending::Count(Some(_), _));
    match *verdict {
        "fallback" | "partial" | "failed" | "unknown" => true,
        "refused" => *result != Ending::Errno("EAGAIN"),
        "eof" => *flush,
        "direct" | "client" => short || *flush || (*drop && dropped(entry)),
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
            let wanted = usize::from(asked == Asked::All || is_finding(expect, entry));
            // Pages that came and went within the request, or were there before on a device, make a
            // finding that the scenario does not know; a flush may go uncounted.
            let unsure = asked == Asked::Findings
                && match events {
                    [event] => {
                        event.verdict == "direct" && event.effects.invalidated_pages > Some(0)
                    }
                    _ => {
                        drops_late(setup, cell)
                            || uncounted(setup)
                                && matches!(expect, Expect::Request { flush: true, .. })
                    }
                };
            check(unsure || events.len() == wanted, &|| {
                format!("{} events, not {wanted}", events.len())
            });
            if let [event] = events {
                wrong.extend(about(setup, cell, expect, entry, event));
                wrong.extend(independent(setup, cell, entry, event));
            }
        }
    }
    wrong
}

/// What is wrong with an event.
fn about(setup: &Setup, cell: &Cell, expect: &Expect, entry: &Entry, event: &Event) -> Vec<String> {
    let Expect::Request { verdict, result, flush, drop: drop_expected } = expect else {
        return Vec::new();
    };
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
        // How the bytes divide is the file's layout; that they do, and are all there, is the point.
        "partial" if (1..done).contains(&event.direct_bytes) => {
            (event.direct_bytes, done - event.direct_bytes)
        }
        _ => (0, 0),
    };
    same("verdict", &event.verdict, verdict);
    same("outcome", &event.outcome.as_deref(), &outcome);
    same("errno", &event.errno.as_deref(), &errno);
    same("ret", &event.ret, &entry.result);
    same("offset", &event.offset, &cell.offset);
    same("len", &event.len, &(cell.len as u64));
    same("op", &event.op, &if cell.writes() { "write" } else { "read" });
    same("api", &event.api, &api(cell.api));
    same("fs", &event.fs, &setup.fs);
    same("path", &event.path, &entry.path.to_string_lossy());
    same("pid", &event.pid, &entry.pid);
    same("direct_bytes", &event.direct_bytes, &direct);
    same("cached_bytes", &event.cached_bytes, &cached);
    let flushed = event.effects.flushed_pages.map(|pages| pages != 0);
    // Pages that nobody counted: not known, and said so.
    if flushed.is_some() || !uncounted(setup) {
        same("flushed", &flushed, &Some(*flush));
    }
    // Pages that come and go within the request (inline data, for one) mincore cannot see.
    // A device may have been left with cached pages by the cell before.
    let drop = dropped(entry) && event.op == "write";
    if *verdict == "direct" && *drop_expected && entry.before != 0 {
        same("dropped, by mincore", &drop, &true);
    }
    if *verdict == "direct" && (drop || entry.before != 0) {
        let said = event.effects.invalidated_pages.map(|pages| pages != 0);
        same("invalidated", &said, &Some(drop));
    }
    same("attempts > 0", &(event.attempts > 0), &true);
    let flush = *flush && flushed.is_some();
    if let Some(causes) = causes(setup, cell, expect, (flush, drop)) {
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
        "read" | "pread" | "write" | "pwrite" | "thread" | "child" => "read",
        "readv" | "preadv" | "preadv2" | "writev" | "pwritev" | "pwritev2" => "readv",
        "aio" => "libaio",
        "splice" | "sendfile" => "splice",
        _ => "io_uring",
    }
}

/// The causes that explain a cell; none where nothing is to be explained.
fn causes(
    setup: &Setup,
    cell: &Cell,
    expect: &Expect,
    (flush, drop): (bool, bool),
) -> Option<Vec<&'static str>> {
    const BLOCK: usize = 4096;
    let Expect::Request { verdict, result, .. } = expect else { return None };
    let writes = cell.writes();
    let off = [cell.offset as usize, cell.len, cell.off_by].iter().any(|n| n % BLOCK != 0)
        || ["_iov512", "_iov100"].iter().any(|cut| cell.case.ends_with(cut));
    Some(match (*verdict, *result) {
        (_, Ending::Errno("EINVAL")) if setup.rare => vec!["misaligned", "invalid-request"],
        (_, Ending::Errno("EINVAL")) => vec!["misaligned"],
        (_, Ending::Errno("EOPNOTSUPP")) => vec!["flag-unsupported"],
        (_, Ending::Errno("EAGAIN")) => vec!["would-block"],
        (_, Ending::Errno("EIO" | "ENODATA")) => vec!["io-error"],
        (_, Ending::Errno("ENOSPC")) => vec!["no-space"],
        ("dax", Ending::Full) => vec!["dax"],
        ("memory", _) => vec!["tmpfs"],
        ("fallback", _) if setup.fs == "btrfs" && off => vec!["btrfs-misaligned", "inline-data"],
        ("fallback", _) if setup.fs == "btrfs" && writes => {
            [&["btrfs-checksums", "cache-not-invalidated"][..], setup.causes].concat()
        }
        ("fallback" | "partial", _) if setup.rare && setup.causes.is_empty() => return None,
        ("partial", _) if setup.rare => setup.causes.to_vec(),
        ("fallback", _) => setup.causes.to_vec(),
        _ if flush => vec!["dirty-flush"],
        _ if drop && drops_late(setup, cell) => vec!["cache-invalidated", "server-may-cache"],
        _ if drop => vec!["cache-invalidated"],
        (_, Ending::Count(Some("short:eof"), _)) => vec!["end-of-file"],
        (_, Ending::Count(Some("short:device-end"), _)) => vec!["device-end"],
        (_, Ending::Count(Some("short:server"), _)) => vec!["short-server"],
        ("client", Ending::Full) => vec!["server-may-cache"],
        ("direct", Ending::Full) if setup.name.ends_with("loop-buffered") => vec!["loop-buffered"],
        _ => return None,
    })
}

/// File systems that do not count all that they write back.
fn uncounted(setup: &Setup) -> bool {
    matches!(setup.fs, "f2fs" | "nilfs2")
}

/// nfs drops pages once an asynchronous write is on its way, and may have its answer by then.
fn drops_late(setup: &Setup, cell: &Cell) -> bool {
    setup.fs == "nfs4" && cell.writes() && api(cell.api) != "read"
}

/// What mincore and /proc/self/io have against a verdict.
fn independent(setup: &Setup, cell: &Cell, entry: &Entry, event: &Event) -> Vec<String> {
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
            // A hole is read from nowhere. erofs and gfs2 may keep the end of a file, or all of it,
            // beside its inode, and have read that before.
            let elsewhere = cell.writes()
                || matches!(cell.case, "r_unwritten" | "r_mix")
                || cell.case.starts_with("r_hole")
                || (matches!(setup.fs, "erofs" | "gfs2") && entry.result % 4096 != 0);
            // The kernel reads whole sectors.
            if !elsewhere && entry.result > 0 && (entry.storage as i64) < entry.result {
                wrong.push(format!(
                    "direct, but storage gave {} of {} bytes",
                    entry.storage, entry.result
                ));
            }
        }
        // What a write put there may have been written back and dropped.
        "fallback" if !cell.writes() && cell.case != "r_dontcache" => {
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
        "ENODEV" => libc::ENODEV,
        "ENOSPC" => libc::ENOSPC,
        "EFAULT" => libc::EFAULT,
        _ => i32::MAX,
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::json;

    use super::*;
    use crate::guest::{cells, setups};

    /// A request that one cell of a scenario file expects, as a right tool would report it.
    fn told(setup: &str, name: &str) -> (Place, Cell, Entry, Value) {
        let setup = setups::find(setup).unwrap();
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

    const TOLD: &[(&str, &str)] = &[
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
    fn a_right_tool_passes() {
        for (setup, name) in TOLD {
            let (place, cell, entry, event) = told(setup, name);
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
        for (setup, name) in TOLD {
            for (field, value) in &flips {
                let (place, cell, entry, mut event) = told(setup, name);
                event[*field] = value.clone();
                let judge = judged(&place, &cell, &entry, &[event]);
                assert_eq!(judge.scores[0].wrong, 1, "{name}: {field} went unnoticed");
            }
        }
    }

    #[test]
    fn a_wrong_cause_is_noticed() {
        let (place, cell, entry, mut event) = told("ext4-journal", "r_aligned4k.preadv2");
        event["cause"] = json!("inline-data");
        assert_eq!(judged(&place, &cell, &entry, &[event]).scores[0].wrong, 1);
    }

    #[test]
    fn missed_and_extra_requests_are_noticed() {
        let (place, cell, entry, event) = told("ext4-512", "r_aligned4k.pread");
        assert_eq!(judged(&place, &cell, &entry, &[]).scores[0].missed, 1);
        let twice = [event.clone(), event.clone()];
        assert_eq!(judged(&place, &cell, &entry, &twice).scores[0].extra, 1);
        // Somebody else's request, on a file of no cell.
        let mut other = event.clone();
        other["path"] = json!("/mnt/ext4-512/bystander");
        assert_eq!(judged(&place, &cell, &entry, &[event, other]).scores[0].extra, 1);
    }

    #[test]
    fn the_kernels_own_word_outweighs_a_consistent_story() {
        let (place, cell, mut entry, event) = told("ext4-512", "r_aligned4k.pread");
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
        let (_, _, mut entry, _) = told("ext4-512", "r_aligned4k.pread");
        "open".clone_into(&mut entry.stage);
        entry.result = -22;
        let wrong = |refusals: Vec<Refusal>| {
            let report =
                Report { summary: Summary { refusals, ..Summary::default() }, ..Report::default() };
            let mut judge = Judge::default();
            judge.refusals(std::slice::from_ref(&entry), &report);
            judge.complaints.len()
        };
        let right = || Refusal {
            call: "open".to_owned(),
            pid: 7,
            path: entry.path.to_string_lossy().into_owned(),
            count: 1,
            errno: "EINVAL".to_owned(),
        };
        assert_eq!(wrong(vec![right()]), 0);
        assert_eq!(wrong(vec![]), 1);
        assert_eq!(wrong(vec![Refusal { pid: 8, ..right() }]), 2);
        assert_eq!(wrong(vec![right(), Refusal { call: "fcntl".to_owned(), ..right() }]), 1);
    }

    #[test]
    fn a_cut_report_is_an_error() {
        assert!(report("").is_err());
        assert!(report("{\"kind\":\"request\"}").is_err());
        assert!(report("{\"kind\":\"what\"}").is_err());
        assert!(report("not json").is_err());
    }
}
