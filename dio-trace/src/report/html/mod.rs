//! A recording as one page: its data as JSON, and a script that draws it. It asks no network.

mod gather;

use std::io::{self, Write};

use anyhow::Result;
use dio_trace_common::{
    abi::{Counter, CounterKey, LATENCY_BUCKETS},
    verdict::Verdict,
};
use serde::Serialize;

use super::{By, Document, Group, Replay, Slice, groups};
use crate::{
    cause,
    clock::Clock,
    summary::{Row, percentile},
};

pub use gather::Gather;
use gather::{Caused, Found};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// Hashes of the two above: a browser runs nothing else, whatever a name in the data says. A test
/// compares.
const STYLE_HASH: &str = "sha256-CLtiVXLuKbTt4ddZBDXEBhww812seKBD4AImdyHMXDA=";
const SCRIPT_HASH: &str = "sha256-HGFfOvOy+gZrv/g5TOFH7jpwRQtx1nvpIcumTbX+id8=";
/// Rows of one table; what is left out is said.
const MAX_ROWS: usize = 1_000;
const SLICES: usize = 128;

/// A table as far as it goes.
#[derive(Serialize)]
struct Table<T> {
    rows: Vec<T>,
    left_out: usize,
}

impl<T> From<Vec<T>> for Table<T> {
    fn from(mut rows: Vec<T>) -> Self {
        let left_out = rows.len().saturating_sub(MAX_ROWS);
        rows.truncate(MAX_ROWS);
        Self { rows, left_out }
    }
}

#[derive(Serialize)]
struct Page<'a> {
    report: Document<'a>,
    /// Rows of the summary that the page has not.
    rows_left_out: usize,
    /// Requests of all rows that came back short.
    short: u64,
    verdict_names: Vec<&'static str>,
    times: Times,
    verdicts: Vec<ByVerdict>,
    causes: Vec<CauseRow>,
    findings: Table<Found>,
    /// Findings that are counted in no row.
    findings_left_out: u64,
    files: Table<Group>,
    processes: Table<Group>,
    file_systems: Table<Group>,
}

/// When: ns since the epoch, ns a slice.
#[derive(Serialize)]
struct Times {
    start: u64,
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
            latency: latency.to_vec(),
        }
    }
}

/// How long requests of a verdict took.
#[derive(Serialize)]
struct ByVerdict {
    verdict: &'static str,
    requests: u64,
    findings: u64,
    bytes: u64,
    latency_mean_ns: u64,
    /// Upper bounds of the buckets of the 50th, 90th, 99th and last request in a hundred.
    percentiles: Vec<u64>,
    latency: Vec<u32>,
}

/// A cause with what the rule table says of it.
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

fn by_verdict(counters: &[(CounterKey, Counter)]) -> Vec<ByVerdict> {
    let row = |verdict: &Verdict| {
        let (mut sum, mut findings) = (Counter::ZERO, 0);
        for (key, counter) in counters.iter().filter(|(key, _)| key.verdict == *verdict as u8) {
            sum.merge(counter);
            findings += if key.finding != 0 { counter.requests } else { 0 };
        }
        (sum.requests != 0).then(|| ByVerdict {
            verdict: verdict.as_str(),
            requests: sum.requests,
            findings,
            bytes: sum.bytes,
            latency_mean_ns: sum.latency_ns / sum.requests,
            percentiles: [50, 90, 99, 100].map(|p| percentile(&sum.latency, p)).to_vec(),
            latency: sum.latency[..LATENCY_BUCKETS].to_vec(),
        })
    };
    let mut rows: Vec<ByVerdict> = Verdict::ALL.iter().filter_map(row).collect();
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

/// Writes the page of a recording of that name, which is escaped.
///
/// # Errors
/// Those of the output.
pub fn page(mut out: impl Write, name: &str, replayed: &mut Replay, gather: Gather) -> Result<()> {
    let mut grouped = |by| groups(&replayed.counters, by, &mut replayed.enricher).into();
    let (files, processes, file_systems) =
        (grouped(By::File), grouped(By::Process), grouped(By::Fs));
    let mut summary = replayed.summary.clone();
    let rows_left_out = summary.files.len().saturating_sub(MAX_ROWS);
    let short = |row: &&Row| row.outcome.is_some_and(|outcome| outcome.starts_with("short"));
    let short = summary.files.iter().filter(short).map(|row| row.requests).sum();
    summary.files.truncate(MAX_ROWS);
    let (header, cut) = (replayed.header.clone(), replayed.cut.clone());
    let data = Page {
        report: Document::new(name, replayed, &header, &cut, &summary),
        rows_left_out,
        short,
        verdict_names: Verdict::ALL.iter().map(|verdict| verdict.as_str()).collect(),
        times: times(replayed),
        verdicts: by_verdict(&replayed.counters),
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

/// JSON that HTML sees nothing in: outside strings JSON has no `<`, `>` or `&`, and inside them they
/// are written as `\u00NN`.
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
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    use sha2::{Digest as _, Sha256};

    use super::*;

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
