//! Runs dio-trace while a program runs, and reads the summary.
use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    guest::{
        apps::stage::Stage,
        contract::apps::Ops,
        harness::{Traces, stop, wait_until_tracing},
    },
    host::cmd::text,
};

/// A running dio-trace.
pub(super) struct Watch {
    tool: Child,
    traces: Traces,
}

impl Watch {
    /// Starts dio-trace on the whole system and waits until it traces.
    pub(super) fn audit(stage: &Stage) -> Result<Self> {
        Self::start(stage, &["audit"])
    }

    /// Attaches dio-trace to a running process and its descendants, and waits until it traces.
    pub(super) fn attach(stage: &Stage, pid: u32) -> Result<Self> {
        Self::start(stage, &["attach", "-p", &pid.to_string()])
    }

    fn start(stage: &Stage, words: &[&str]) -> Result<Self> {
        let traces = Traces::new(Path::new("/tmp"), "apps");
        let mut tool = Command::new(&stage.tool)
            .args(words)
            .args(["--json", "-o", text(&traces.json)?])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&traces.talk)?)
            .spawn()
            .context("cannot start dio-trace")?;
        wait_until_tracing(&mut tool, &traces)?;
        Ok(Self { tool, traces })
    }

    /// Stops dio-trace; returns its summary.
    pub(super) fn end(self) -> Result<Seen> {
        stop(self.tool, &self.traces)?;
        Seen::parse(&fs::read_to_string(&self.traces.json)?)
    }
}

/// The `kind: "summary"` line (docs/json.md).
#[derive(Debug, Deserialize)]
pub(super) struct Seen {
    lost: BTreeMap<String, u64>,
    unmatched: u64,
    in_flight: u64,
    files: Vec<FileRow>,
}

#[derive(Debug, Deserialize)]
struct FileRow {
    path: String,
    op: String,
    verdict: String,
    requests: u64,
}

/// dio-trace's counts of some files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) ops: Ops,
    pub(super) verdicts: BTreeMap<String, u64>,
    pub(super) by_path: BTreeMap<String, Ops>,
}

impl Seen {
    fn parse(json: &str) -> Result<Self> {
        let line = json.lines().last().unwrap_or_default();
        let value: Value = serde_json::from_str(line).context("dio-trace's last line")?;
        if value["kind"] != "summary" {
            bail!("dio-trace ended without a summary: {line}");
        }
        serde_json::from_value(value).context("the summary cannot be parsed")
    }

    /// Requests to a file, or to all files below a folder.
    pub(super) fn below(&self, path: &Path) -> Part {
        self.part(|row| Path::new(&row.path).starts_with(path))
    }

    fn part(&self, wanted: impl Fn(&FileRow) -> bool) -> Part {
        let mut part = Part::default();
        for row in self.files.iter().filter(|row| wanted(row)) {
            let ops = match row.op.as_str() {
                "write" => Ops { reads: 0, writes: row.requests },
                _ => Ops { reads: row.requests, writes: 0 },
            };
            part.ops += ops;
            *part.by_path.entry(row.path.clone()).or_default() += ops;
            *part.verdicts.entry(row.verdict.clone()).or_default() += row.requests;
        }
        part
    }

    /// The requests that dio-trace itself reports as lost, incomplete or nameless.
    pub(super) fn missing(&self) -> BTreeMap<String, u64> {
        let lost = self.lost.iter().map(|(why, count)| (format!("lost: {why}"), *count));
        let nameless = self.part(|row| row.path.starts_with('<')).ops;
        let rest = [
            ("unmatched", self.unmatched),
            ("in flight", self.in_flight),
            ("without a name", nameless.reads + nameless.writes),
        ];
        let rest = rest.map(|(what, count)| (what.to_owned(), count));
        lost.chain(rest).filter(|(_, count)| *count != 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUMMARY: &str = r#"{"kind":"summary","lost":{"a":0,"b":2},"unmatched":0,"in_flight":1,
        "files":[{"path":"/x","op":"read","verdict":"direct","requests":3},
        {"path":"/x","op":"write","verdict":"fallback","requests":4},
        {"path":"/y","op":"read","verdict":"direct","requests":5}]}"#;

    #[test]
    fn parts_of_a_summary() {
        let seen = Seen::parse(&SUMMARY.replace('\n', "")).expect("a summary");
        let x = seen.below(Path::new("/x"));
        assert_eq!(x.ops, Ops { reads: 3, writes: 4 });
        assert_eq!(x.verdicts["fallback"], 4);
        assert_eq!(seen.below(Path::new("/")).ops, Ops { reads: 8, writes: 4 });
        let missing: Vec<_> = seen.missing().into_iter().collect();
        assert_eq!(missing, [("in flight".to_owned(), 1), ("lost: b".to_owned(), 2)]);
    }

    #[test]
    fn a_stream_that_was_cut_is_an_error() {
        assert!(Seen::parse("").is_err());
        assert!(Seen::parse(r#"{"kind":"request"}"#).is_err());
    }
}
