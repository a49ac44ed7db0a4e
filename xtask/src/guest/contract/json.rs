//! Parses dio-trace's JSON output, as far as docs/json.md promises it.
use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

/// A `kind: "request"` line (docs/json.md).
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Event {
    pub(crate) time: u64,
    pub(crate) pid: u32,
    pub(crate) op: String,
    pub(crate) api: String,
    pub(crate) fs: String,
    pub(crate) path: String,
    pub(crate) offset: i64,
    pub(crate) len: u64,
    pub(crate) ret: i64,
    pub(crate) verdict: String,
    pub(crate) direct_bytes: u64,
    pub(crate) cached_bytes: u64,
    pub(crate) outcome: Option<String>,
    pub(crate) errno: Option<String>,
    pub(crate) cause: Option<String>,
    pub(crate) why: Option<String>,
    pub(crate) fix: Option<String>,
    pub(crate) effects: Effects,
    pub(crate) attempts: u32,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Effects {
    pub(crate) flushed_pages: Option<u32>,
    pub(crate) invalidated_pages: Option<u32>,
    pub(crate) readahead_pages: Option<u32>,
}

/// The `kind: "summary"` line.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Summary {
    pub(crate) requests: BTreeMap<String, u64>,
    pub(crate) lost: BTreeMap<String, u64>,
    pub(crate) unmatched: u64,
    pub(crate) in_flight: u64,
    pub(crate) attach: String,
    #[serde(default)]
    pub(crate) skipped_runs: BTreeMap<String, u64>,
    #[serde(rename = "refusals")]
    pub(crate) rejected_opens: Vec<RejectedOpen>,
    pub(crate) mixed: Vec<Mixed>,
}

/// One of the summary's `refusals`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RejectedOpen {
    pub(crate) call: String,
    pub(crate) pid: u32,
    pub(crate) path: String,
    pub(crate) count: u64,
    pub(crate) errno: String,
}

/// One of the summary's `mixed`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Mixed {
    pub(crate) path: String,
    pub(crate) direct: Vec<DirectUser>,
    pub(crate) cached: Vec<CacheUser>,
    pub(crate) flushed_pages: u64,
    pub(crate) invalidated_pages: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct DirectUser {
    pub(crate) pid: u32,
    pub(crate) reads: u64,
    pub(crate) writes: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct CacheUser {
    pub(crate) pid: u32,
    pub(crate) pages_cached: u64,
    pub(crate) pages_dirtied: u64,
}

/// A file with mixed access: used directly and through the page cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MixedFile {
    pub(crate) path: String,
    /// pid, reads, writes
    pub(crate) direct: Vec<(u32, u64, u64)>,
    /// pid, pages cached, pages dirtied
    pub(crate) cached: Vec<(u32, u64, u64)>,
    pub(crate) flushed_pages: u64,
    pub(crate) invalidated_pages: u64,
}

/// The parsed output of one run of dio-trace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) events: Vec<Event>,
    pub(crate) summary: Summary,
}

impl Report {
    /// Runs of a probe that the kernel skipped.
    pub(crate) fn skipped(&self, probe: &str) -> u64 {
        self.summary.skipped_runs.get(probe).copied().unwrap_or(0)
    }

    /// The reported mixed access, in a form that can be compared.
    pub(crate) fn mixed(&self) -> Vec<MixedFile> {
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
    pub(crate) fn verdict_of(&self, path: &Path) -> Option<&str> {
        let event = self.events.iter().find(|event| path.to_str() == Some(&event.path));
        event.map(|event| &*event.verdict)
    }
}

/// Parses dio-trace's JSON lines. A missing summary is an error.
pub(crate) fn report(text: &str) -> Result<Report> {
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
            // Requests whose events were lost, which the summary counts.
            Some("lost_requests") => {}
            kind => bail!("{}: kind {kind:?}", at()),
        }
    }
    if !closed {
        bail!("dio-trace ended without a summary");
    }
    Ok(report)
}

/// The number of requests that a summary counts, over all verdicts.
pub(crate) fn counted(summary: &Value) -> u64 {
    let verdicts = summary["requests"].as_object().into_iter().flatten();
    verdicts.filter_map(|(_, count)| count.as_u64()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_report_is_an_error() {
        assert!(report("").is_err());
        assert!(report("{\"kind\":\"request\"}").is_err());
        assert!(report("{\"kind\":\"what\"}").is_err());
        assert!(report("not json").is_err());
    }
}
