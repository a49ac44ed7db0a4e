//! `run --fail-on`: the exit code, the table on stderr, the report for a CI system.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::mpsc::{Sender, channel},
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result, anyhow};

use crate::{
    cli::{
        trace::{GateArgs, Trace},
        tty::page_width,
        values::ReportFile,
    },
    flow::{explained::ExplainedRequest, summary::Summary},
    gate::{Form, Gate},
    output::text,
    util::{
        clock::{Clock, Shown, Zone},
        escape::escape,
        private_file::Whole,
        privilege::{CREATING, give_up_but},
        stdio,
    },
};

/// Findings matched, or some may be missing.
const GATE: u8 = 3;

/// A gate and where its result goes.
pub(super) struct Gating {
    gate: Gate,
    command: String,
    zone: Zone,
    report: Option<(Form, Report)>,
}

impl Gating {
    /// The gate of a command line, if it has one. That its file can be made is tried before anything
    /// runs.
    pub(super) fn open(verb: &Trace) -> Result<Option<Self>> {
        let Trace::Run { gate: GateArgs { fail_on, report }, command, common } = verb else {
            return Ok(None);
        };
        if fail_on.is_empty() {
            return Ok(None);
        }
        let report = match report {
            Some(ReportFile { path, form }) => Some((*form, Report::start(path)?)),
            None => None,
        };
        let words: Vec<String> =
            command.iter().map(|word| escape(word.as_encoded_bytes())).collect();
        Ok(Some(Self {
            gate: Gate::new(fail_on.clone()),
            command: words.join(" "),
            zone: Shown::here(common.utc).zone,
            report,
        }))
    }

    pub(super) fn take(&mut self, record: &ExplainedRequest) {
        self.gate.take(record);
    }

    /// Says what failed, if anything; the exit code. `code` is the command's, once it had ended.
    pub(super) fn end(self, summary: &Summary, code: Option<u8>) -> Result<u8> {
        let now = self.zone.iso(Clock::realtime());
        let outcome = self.gate.judge(summary, &self.command, code, &now);
        stdio::say(&text::gate_page(&outcome, page_width(&std::io::stderr())));
        if let Some((form, report)) = self.report {
            report.write(form.text(&outcome))?;
        }
        // One that had not ended has not passed.
        Ok(code.filter(|_| outcome.passed).unwrap_or(GATE))
    }
}

/// The thread that writes the report at the end. It keeps what making a file in a folder of somebody
/// else takes, which the others have given up by then; a CI job's folder is one, under sudo.
struct Report {
    text: Sender<String>,
    writer: JoinHandle<Result<()>>,
}

impl Report {
    fn start(path: &Path) -> Result<Self> {
        drop(Whole::shared(path)?);
        let (text, texts) = channel::<String>();
        let path = PathBuf::from(path);
        let write = move || {
            // Without capabilities to give up there is no harm.
            let _ = give_up_but(CREATING);
            // None comes where the run failed: what is there stays.
            let Ok(text) = texts.recv() else { return Ok(()) };
            let mut out = Whole::shared(&path)?;
            out.write_all(text.as_bytes())?;
            out.finish()
        };
        let writer = thread::Builder::new()
            .name("dio-trace-report".to_owned())
            .spawn(write)
            .context("cannot start a thread for the report")?;
        Ok(Self { text, writer })
    }

    fn write(self, text: String) -> Result<()> {
        // One that ended already says why.
        let _ = self.text.send(text);
        self.writer.join().unwrap_or_else(|_| Err(anyhow!("the thread for the report failed")))
    }
}
