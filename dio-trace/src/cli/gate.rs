//! `run --fail-on`: the exit code, the table on stderr, the report for a CI system.

use std::{fs::File, io::Write as _};

use anyhow::{Context as _, Result};

use super::{
    args::{GateArgs, ReportFile, Trace},
    sink::page_width,
};
use crate::{
    clock::{Clock, Shown, Zone},
    escape::{self, escape},
    gate::Gate,
    record::Record,
    summary::Summary,
    ui,
};

/// Findings matched, or some may be missing.
const GATE: u8 = 3;

/// A gate and where its result goes.
pub(super) struct Gating {
    gate: Gate,
    command: String,
    zone: Zone,
    report: Option<(ReportFile, File)>,
}

impl Gating {
    /// The gate of a command line, if it has one. Its file is made before anything runs.
    pub(super) fn open(verb: &Trace) -> Result<Option<Self>> {
        let Trace::Run { gate: GateArgs { fail_on, report }, command, common } = verb else {
            return Ok(None);
        };
        if fail_on.is_empty() {
            return Ok(None);
        }
        let report = report.as_ref().map(|report| {
            let file = File::create(&report.path)
                .with_context(|| format!("cannot write {}", escape::path(&report.path)))?;
            Ok::<_, anyhow::Error>((report.clone(), file))
        });
        let words: Vec<String> =
            command.iter().map(|word| escape(word.as_encoded_bytes())).collect();
        Ok(Some(Self {
            gate: Gate::new(fail_on.clone()),
            command: words.join(" "),
            zone: Shown::here(common.utc).zone,
            report: report.transpose()?,
        }))
    }

    pub(super) fn take(&mut self, record: &Record) {
        self.gate.take(record);
    }

    /// Says what failed, if anything; the exit code. `code` is the command's, once it had ended.
    pub(super) fn end(self, summary: &Summary, code: Option<u8>) -> Result<u8> {
        let now = self.zone.iso(Clock::realtime());
        let outcome = self.gate.judge(summary, &self.command, code, &now);
        if let Some((ReportFile { path, form }, mut file)) = self.report {
            file.write_all(form.text(&outcome).as_bytes())
                .with_context(|| format!("cannot write {}", escape::path(path)))?;
        }
        eprint!("{}", ui::gate_page(&outcome, page_width(&std::io::stderr())));
        // One that had not ended has not passed.
        Ok(code.filter(|_| outcome.passed).unwrap_or(GATE))
    }
}
