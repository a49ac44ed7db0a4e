//! Checks one cell: compares dio-trace's events with the scenario, the tally, mincore and
//! /proc/self/io.
use crate::guest::{
    check::causes::{api, causes, drops_late, uncounted},
    contract::json::Event,
    fixtures::Setup,
    matrix::cells::{Cell, Ending, Expect, Stage},
    tally::Entry,
};

/// Which requests dio-trace was asked to report.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// `--all`: every request has an event.
    All,
    /// Only findings have an event; other requests are only counted.
    Findings,
}

/// Whether pages left the page cache during the call.
const fn dropped(entry: &Entry) -> bool {
    entry.after < entry.before
}

/// Whether the expected request is a finding as README defines it.
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

/// The mismatches of a cell; empty if there are none.
pub(crate) fn compare(
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
            // The scenario cannot predict every finding: pages may come and go within the request,
            // or be cached on a device beforehand. A flush may also not be counted.
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

/// The mismatches between an event and the scenario and the tally.
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
        // The file's layout decides how the bytes divide. Checked is only that both parts are not
        // empty and add up.
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
    // Where the file system does not count flushed pages, dio-trace may report null.
    if flushed.is_some() || !uncounted(setup) {
        same("flushed", &flushed, &Some(*flush));
    }
    // mincore cannot see pages that come and go within the request (inline data, for example).
    // The previous cell may have left cached pages on a device.
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

/// The mismatches between a verdict and what mincore and /proc/self/io measured.
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
            // A hole is not read from storage. erofs and gfs2 may keep the end of a file, or all of
            // it, next to its inode, and have read that before.
            let elsewhere = cell.writes()
                || matches!(cell.case, "r_unwritten" | "r_mix")
                || cell.case.starts_with("r_hole")
                || (matches!(setup.fs, "erofs" | "gfs2") && entry.result % 4096 != 0);
            // The kernel reads whole sectors, so storage may give more than the result.
            if !elsewhere && entry.result > 0 && (entry.storage as i64) < entry.result {
                wrong.push(format!(
                    "direct, but storage gave {} of {} bytes",
                    entry.storage, entry.result
                ));
            }
        }
        // Writes are not checked: their pages may have been written back and dropped.
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

/// The number of an errno by its name.
pub(crate) fn number(name: &str) -> i64 {
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
