//! The HTML page of a recording: one file with its data as JSON and a script that draws it. The
//! page makes no network requests.

mod gather;

use std::io::{self, Write};

use anyhow::Result;
use dio_trace_common::verdict::Verdict;
use serde::Serialize;

use crate::{
    cause,
    flow::{
        group::{By, Group, groups},
        timeline::Slice,
    },
    output::document::Document,
    recording::replay::Replay,
    util::clock::{Clock, Shown},
};

pub use gather::Gather;
use gather::{Caused, Found};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = concat!(include_str!("format.js"), include_str!("page.js"));
/// Hashes of [`STYLE`] and [`SCRIPT`] for the Content-Security-Policy: a browser runs nothing else,
/// whatever the data contains. A test compares them.
const STYLE_HASH: &str = "sha256-cIGDwrjMczvTGXN31hqvsXZ/gBOfkKKXe+KQz/4pvhs=";
const SCRIPT_HASH: &str = "sha256-WB8KN5RYqLoBdAG6IPioBknbv/5kgthrwe6vTITqw9k=";
/// Maximum number of rows of a table. The page says how many are left out.
const MAX_ROWS: usize = 1_000;
const SLICES: usize = 128;

/// The first rows of a table, and how many are left out.
#[derive(Serialize)]
struct Table<T> {
    rows: Vec<T>,
    left_out: usize,
}

impl<T> From<Vec<T>> for Table<T> {
    fn from(mut rows: Vec<T>) -> Self {
        let left_out = rows.len().saturating_sub(MAX_ROWS);
        rows.truncate(MAX_ROWS);
        rows.shrink_to_fit();
        Self { rows, left_out }
    }
}

#[derive(Serialize)]
struct Page<'a> {
    report: Document<'a>,
    /// Number of rows of the summary that are left out.
    rows_left_out: usize,
    /// Begin and duration of the recording, in words.
    when: String,
    /// Time zone of all times on the page.
    zone: PageZone,
    headline: String,
    /// Number of requests with a short count, of all rows.
    short: u64,
    refused_opens: u64,
    verdict_names: Vec<&'static str>,
    times: Times,
    verdicts: Vec<ByVerdict>,
    causes: Vec<CauseRow>,
    findings: Table<Found>,
    /// Number of findings that are in no row.
    findings_left_out: u64,
    files: Table<Group>,
    processes: Table<Group>,
    file_systems: Table<Group>,
}

/// The time zone of the page.
#[derive(Serialize)]
struct PageZone {
    /// Seconds east of UTC.
    offset: i32,
    /// The zone and where it is from, in words.
    text: String,
}

/// Counts over time.
#[derive(Serialize)]
struct Times {
    /// Begin of the first slice: ns since the epoch.
    start: u64,
    /// ns per slice.
    width: u64,
    slices: Vec<OneSlice>,
}

#[derive(Serialize)]
struct OneSlice {
    requests: u64,
    findings: u64,
    verdicts: Vec<u64>,
    latency: Vec<u32>,
}

impl From<&Slice> for OneSlice {
    fn from(slice: &Slice) -> Self {
        let Slice { requests, findings, verdicts, latency } = slice;
        Self {
            requests: *requests,
            findings: *findings,
            verdicts: verdicts.to_vec(),
            latency: latency.powers_of_two().to_vec(),
        }
    }
}

/// Counts and latencies of the requests of one verdict.
#[derive(Serialize)]
struct ByVerdict {
    verdict: String,
    requests: u64,
    findings: u64,
    bytes: u64,
    latency_mean_ns: u64,
    /// 50th, 90th, 99th and 100th percentile in ns, each the upper bound of its bucket.
    percentiles: Vec<u64>,
    latency: Vec<u32>,
}

/// A cause with its texts from the rule table.
#[derive(Serialize)]
struct CauseRow {
    id: &'static str,
    title: &'static str,
    means: &'static str,
    proof: &'static str,
    fix: &'static str,
    #[serde(flatten)]
    sum: Caused,
}

fn times(replayed: &Replay) -> Times {
    let (width, slices) = replayed.timeline.slices(SLICES);
    let clock = Clock::fixed(i128::from(replayed.header.clock));
    Times {
        start: clock.wall(replayed.timeline.start()),
        width,
        slices: slices.iter().map(OneSlice::from).collect(),
    }
}

fn by_verdict(groups: Vec<Group>) -> Vec<ByVerdict> {
    let row = |group: Group| ByVerdict {
        requests: group.requests,
        findings: group.findings,
        bytes: group.bytes.total,
        latency_mean_ns: group.latency_mean_ns(),
        percentiles: [50, 90, 99, 100].map(|p| group.latency().percentile(p)).to_vec(),
        latency: group.latency().powers_of_two().to_vec(),
        verdict: group.name,
    };
    let mut rows: Vec<ByVerdict> = groups.into_iter().map(row).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.requests));
    rows
}

fn causes(gather: &Gather) -> Vec<CauseRow> {
    let row = |(id, sum): (&'static str, Caused)| {
        let rule = cause::find(id);
        let text = |of: fn(&cause::Rule) -> &'static str| rule.map_or("", of);
        CauseRow {
            id,
            title: text(|rule| rule.title),
            means: text(|rule| rule.means),
            proof: text(|rule| rule.proof),
            fix: text(|rule| rule.fix),
            sum,
        }
    };
    let mut rows: Vec<CauseRow> = gather.causes().into_iter().map(row).collect();
    rows.sort_by_key(|row| std::cmp::Reverse((row.sum.requests, row.id)));
    rows
}

/// Writes the page of a recording. `name` is its path, already escaped.
///
/// # Errors
/// Errors of the output.
pub fn page(
    mut out: impl Write,
    name: &str,
    shown: &Shown,
    replayed: &mut Replay,
    gather: Gather,
) -> Result<()> {
    let headline = replayed.summary.headline();
    let summary = &mut replayed.summary;
    let rows_left_out = summary.files.len().saturating_sub(MAX_ROWS);
    let (short, refused_opens) = (summary.short(), summary.refused_opens());
    summary.files.truncate(MAX_ROWS);
    summary.files.shrink_to_fit();
    let mut grouped = |by| groups(&replayed.counters, by, &mut replayed.enricher);
    let (files, processes, file_systems) =
        (grouped(By::File).into(), grouped(By::Process).into(), grouped(By::Fs).into());
    let verdicts = by_verdict(grouped(By::Verdict));
    let (header, cut) = (replayed.header.clone(), replayed.integrity.clone());
    let data = Page {
        report: Document::new(name, replayed, &header, &cut, &replayed.summary),
        rows_left_out,
        when: replayed.span.text(&shown.zone),
        zone: PageZone { offset: shown.zone.offset, text: shown.text() },
        headline,
        short,
        refused_opens,
        verdict_names: Verdict::ALL.iter().map(|verdict| verdict.as_str()).collect(),
        times: times(replayed),
        verdicts,
        causes: causes(&gather),
        findings_left_out: gather.left_out(),
        findings: gather.rows().into(),
        files,
        processes,
        file_systems,
    };
    write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src '{STYLE_HASH}'; script-src '{SCRIPT_HASH}'; base-uri 'none'; \
         form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n\
         <title>dio-trace report</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <noscript>This page draws its data by a script of its own; `dio-trace report` shows the \
         same on a terminal.</noscript>\n\
         <script type=\"application/json\" id=\"data\">"
    )?;
    serde_json::to_writer(Inert(&mut out), &data)?;
    write!(out, "</script>\n<script>{SCRIPT}</script>\n</body>\n</html>\n")?;
    Ok(out.flush()?)
}

/// A writer that makes JSON inert in HTML. `<`, `>` and `&` occur in JSON only inside strings,
/// where this writes them as `\u00NN`.
struct Inert<W>(W);

impl<W: Write> Write for Inert<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for piece in bytes.split_inclusive(|byte| matches!(byte, b'<' | b'>' | b'&')) {
            match piece.split_last() {
                Some((last @ (b'<' | b'>' | b'&'), plain)) => {
                    self.0.write_all(plain)?;
                    write!(self.0, "\\u{last:04x}")?;
                }
                _ => self.0.write_all(piece)?,
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use base64::{Engine as _, prelude::BASE64_STANDARD};
    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::util::{
        clock::Zone,
        figures::{about, count, duration, percent},
    };

    #[test]
    fn the_policy_lets_this_script_and_style_run_and_nothing_else() {
        for (text, hash) in [(STYLE, STYLE_HASH), (SCRIPT, SCRIPT_HASH)] {
            let now = format!("sha256-{}", BASE64_STANDARD.encode(Sha256::digest(text)));
            assert_eq!(now, hash, "the left one belongs into the constant");
            assert!(!text.contains("</"), "it would end its own element");
        }
        for word in ["http:", "https:", "//cdn", "fetch(", "XMLHttp", "innerHTML", "eval("] {
            assert!(!SCRIPT.replace("http://www.w3.org/2000/svg", "").contains(word), "{word}");
            assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
        }
    }

    /// Output of `program` after format.js, run by node; None if node is not installed.
    fn by_node(program: &str) -> Option<String> {
        let script = format!("{}\n{program}", include_str!("format.js"));
        let Ok(out) = Command::new("node").args(["-e", &script]).output() else {
            eprintln!("no node here: format.js is not compared");
            return None;
        };
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        Some(String::from_utf8(out.stdout).unwrap())
    }

    /// Numbers around every unit and every change of rounding, and powers of two, which JSON.parse
    /// keeps exact at any size.
    fn numbers() -> Vec<u64> {
        let mut out = vec![0, 1, 9, 10, 42, 99, 100, 998, 9_007_199_254_740_991];
        for unit in [1_000, 1 << 10, 1_000_000, 1 << 20, 1_000_000_000, 60_000_000_000] {
            for tenths in [9, 10, 11, 15, 94, 95, 99, 100, 105, 115, 999, 1_000, 9_995, 10_239] {
                out.extend([-1, 0, 1].map(|by| (unit * tenths / 10_u64).saturating_add_signed(by)));
                out.push(unit * tenths / 10 + unit / 20);
            }
        }
        out.extend((0..53).map(|bit| 1_u64 << bit));
        out.extend((53..63).map(|bit| 1_u64 << bit));
        out
    }

    #[test]
    fn the_page_says_numbers_as_the_text_does() {
        let numbers = numbers();
        let json = serde_json::to_string(&numbers).unwrap();
        let program = format!(
            "for (const n of JSON.parse('{json}')) \
             console.log([count(n), bytes(n), duration(n), percent(Math.min(n, 9973), 9973), \
             percent(n > 2**52 ? 1 : n, 2**53)].join(' '))"
        );
        let Some(page) = by_node(&program) else { return };
        let text: String = numbers
            .iter()
            .map(|n| {
                let small = if *n > 1 << 52 { 1 } else { *n };
                let shares = (percent((*n).min(9_973), 9_973), percent(small, 1 << 53));
                let exact = if *n < 1 << 53 { count(*n) } else { "big".to_owned() };
                format!("{exact} {} {} {} {}\n", about(*n), duration(*n), shares.0, shares.1)
            })
            .collect();
        for ((page, text), n) in page.lines().zip(text.lines()).zip(&numbers) {
            // From 2^53 on, JavaScript prints rounded digits.
            let page = if *n < 1 << 53 {
                page
            } else {
                &format!("big {}", page.split_once(' ').unwrap().1)
            };
            assert_eq!(page, text, "{n}");
        }
        assert_eq!(page.lines().count(), numbers.len());
    }

    #[test]
    fn the_page_says_times_as_the_text_does() {
        const SECOND: u64 = 1_000_000_000;
        let times =
            [0, 951_782_399, 1_767_323_045, 4_107_542_400, 253_402_300].map(|at| at * SECOND);
        for offset in [0, 3_600, -12_600, 45_900, 1_172] {
            let zone = Zone { offset, name: None };
            for time in times.map(|time| time + 678_000_000) {
                let program = format!(
                    "console.log(dayAt({time}, {offset}) + 'T' + clockAt({time}, {offset}, true))"
                );
                let Some(page) = by_node(&program) else { return };
                assert_eq!(page.trim_end().to_owned() + &zone.suffix(), zone.iso_fine(time));
            }
        }
    }

    #[test]
    fn names_are_inert() {
        let mut out = Vec::new();
        let text = "</script><script>alert(1)</script><!-- &lt;";
        serde_json::to_writer(Inert(&mut out), text).unwrap();
        let json = String::from_utf8(out).unwrap();
        assert!(!json.contains(['<', '>', '&']), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}
