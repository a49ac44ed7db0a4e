//! `run --fail-on`: sets the exit code, prints the table on stderr and writes the report for a CI
//! system.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::mpsc::{Sender, channel},
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{
    cli::{
        trace::{GateArgs, Trace},
        tty::page_width,
        values::ReportFile,
    },
    flow::{explained::ExplainedRequest, side_events::NOT_ASKED, summary::Summary},
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

/// Exit code if a rule failed, or if findings may have been missed.
const GATE: u8 = 3;

/// A gate and the destination of its result.
pub(super) struct Gating {
    gate: Gate,
    command: String,
    zone: Zone,
    report: Option<(Form, Report)>,
}

impl Gating {
    /// Opens the gate that the command line asks for; `None` if there is no `--fail-on`.
    ///
    /// # Errors
    /// If the report's file cannot be created. This is checked before the command is started.
    pub(super) fn open(verb: &Trace) -> Result<Option<Self>> {
        let Trace::Run { gate: GateArgs { fail_on, report }, command, common } = verb else {
            return Ok(None);
        };
        if fail_on.is_empty() {
            return Ok(None);
        }
        if fail_on.iter().any(|rule| rule.what() == NOT_ASKED) && common.expect_direct.is_empty() {
            bail!(
                "--fail-on {NOT_ASKED} needs --expect-direct GLOB: the files to be used directly"
            );
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

    /// Prints and writes the result, and returns the exit code. `code` is the command's exit code;
    /// `None` if the command had not ended.
    pub(super) fn end(self, summary: &Summary, code: Option<u8>) -> Result<u8> {
        let now = self.zone.iso(Clock::realtime());
        let outcome = self.gate.judge(summary, &self.command, code, &now);
        stdio::say(&text::gate_page(&outcome, page_width(&std::io::stderr())));
        if let Some((form, report)) = self.report {
            report.write(form.text(&outcome))?;
        }
        // A command that had not ended has not passed.
        Ok(code.filter(|_| outcome.passed).unwrap_or(GATE))
    }
}

/// The thread that writes the report at the end. Under sudo, a CI job's directory belongs to
/// another user: this thread keeps the capabilities to create a file there, while the other threads
/// have dropped them by then.
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
            // Best effort: without capabilities there is nothing to drop.
            let _ = give_up_but(CREATING);
            // If the run failed, no text arrives and an existing file is kept.
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
        // A send fails only if the thread has ended; `join` then returns its error.
        let _ = self.text.send(text);
        self.writer.join().unwrap_or_else(|_| Err(anyhow!("the thread for the report failed")))
    }
}
