//! The output of a live trace: text (the screen), JSON lines, or the live screen of `top`.

use std::{
    io::{self, BufWriter, IsTerminal as _, Write},
    path::Path,
};

use anyhow::Result;

use crate::{
    cli::{
        top::{Live, TopOptions, Wake},
        trace::Common,
        tty::style,
    },
    enrich::Enricher,
    flow::{explained::ExplainedRequest, sink::Sink, summary::Summary},
    model::Totals,
    output::{json_lines::JsonLines, text::Screen},
    tracer::Tracer,
    util::{
        clock::Shown,
        escape,
        private_file::{self, Named},
        stdio::Stdout,
    },
};

/// Flushed whenever no event is waiting, or every 200 ms.
type Buffered = BufWriter<Box<dyn Write>>;

pub(super) enum Output {
    Screen(Box<Screen<Buffered>>),
    Json(JsonLines<Buffered>),
    /// One of these without its requests.
    Sums(SumsOnly),
    Nothing(Nothing),
    Top(Box<Live>),
}

/// Shows nothing.
pub(super) struct Nothing;

impl Sink for Nothing {
    fn request(&mut self, _: &ExplainedRequest) -> Result<()> {
        Ok(())
    }
}

/// Passes only the summary on.
pub(super) struct SumsOnly(Box<dyn Sink>);

impl Sink for SumsOnly {
    fn request(&mut self, _: &ExplainedRequest) -> Result<()> {
        Ok(())
    }

    fn summary(&mut self, summary: &Summary) -> Result<()> {
        self.0.summary(summary)
    }
}

impl Output {
    /// Opens the live screen of `top`.
    ///
    /// # Errors
    /// If there is no suitable terminal.
    pub(super) fn top(options: &TopOptions) -> Result<Self> {
        Ok(Self::Top(Box::new(Live::new(options)?)))
    }

    /// Opens the output that the options select, in a file or on stdout.
    ///
    /// # Errors
    /// If the file cannot be opened for writing.
    pub(super) fn open(common: &Common, file: Option<&Path>) -> Result<Self> {
        let path = file.filter(|path| !private_file::is_dash(path));
        let (out, terminal): (Box<dyn Write>, bool) = match path {
            Some(path) => {
                (Box::new(Named::new(escape::path(path), private_file::stream(path)?)), false)
            }
            None => (Box::new(Stdout::new()), io::stdout().is_terminal()),
        };
        let out = BufWriter::new(out);
        if common.json {
            return Ok(Self::Json(JsonLines::new(out)));
        }
        let style = style(terminal, common.all, common.verbose > 0);
        Ok(Self::Screen(Box::new(Screen::new(out, style, Shown::here(common.utc)))))
    }

    /// Leaves out everything but the summary.
    pub(super) fn without_requests(self) -> Self {
        match self {
            Self::Screen(screen) => Self::Sums(SumsOnly(screen)),
            Self::Json(lines) => Self::Sums(SumsOnly(Box::new(lines))),
            other => other,
        }
    }

    /// True if every request that has an event has a line.
    pub(super) const fn has_every_line(&self) -> bool {
        match self {
            Self::Screen(screen) => screen.has_every_line(),
            Self::Json(_) => true,
            Self::Sums(_) | Self::Nothing(_) | Self::Top(_) => false,
        }
    }

    /// The sink that receives the events.
    pub(super) fn sink(&mut self) -> &mut dyn Sink {
        match self {
            Self::Screen(screen) => screen.as_mut(),
            Self::Json(lines) => lines,
            Self::Sums(sums) => sums,
            Self::Nothing(nothing) => nothing,
            Self::Top(live) => live.as_mut(),
        }
    }

    /// Called once the tracer is attached: a live screen takes the terminal.
    pub(super) fn start(&mut self, tracer: &Tracer, subject: &str) -> Result<()> {
        if let Self::Top(live) = self { live.start(tracer, subject) } else { Ok(()) }
    }

    /// Waits for a request of the live screen. Other outputs make none and wait for ever.
    pub(super) async fn wake(&mut self) -> Wake {
        match self {
            Self::Screen(_) | Self::Json(_) | Self::Sums(_) | Self::Nothing(_) => {
                std::future::pending().await
            }
            Self::Top(live) => live.wake().await,
        }
    }

    /// Shows the current totals on a live screen.
    pub(super) fn look(&mut self, totals: &Totals, enricher: &mut Enricher) -> io::Result<()> {
        if let Self::Top(live) = self { live.look(totals, enricher) } else { Ok(()) }
    }

    /// Restores the terminal if a live screen has it.
    pub(super) fn stop(&mut self) {
        if let Self::Top(live) = self {
            live.stop();
        }
    }
}
