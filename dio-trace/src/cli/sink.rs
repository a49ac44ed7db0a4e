//! Where records go: the screen, JSON lines, the live screen.

use std::io::{self, BufWriter, IsTerminal, Write};

use anyhow::Result;

use crate::{
    cli::{
        args::Common,
        top::{Live, TopOptions},
    },
    enrich::Enricher,
    flow::{
        record::Record,
        side_events::{Mixing, RefusalRow},
        summary::Summary,
    },
    model::Totals,
    output::text::{Screen, Style},
    tracer::Tracer,
    util::{
        clock::Shown,
        escape,
        private_file::{self, Named},
        stdio::Stdout,
    },
};

pub(super) enum Sink {
    Screen(Screen<Box<dyn Write>>),
    Json(BufWriter<Box<dyn Write>>),
    Top(Box<Live>),
}

/// What a live screen wants.
pub(super) enum Wake {
    /// To be told what was counted.
    Look,
    Quit,
}

impl Sink {
    /// The live screen, on a terminal.
    pub(super) fn top(options: &TopOptions) -> Result<Self> {
        Ok(Self::Top(Box::new(Live::new(options)?)))
    }

    /// The tracer is there.
    pub(super) fn start(&mut self, tracer: &Tracer, subject: &str) -> Result<()> {
        if let Self::Top(live) = self { live.start(tracer, subject) } else { Ok(()) }
    }

    /// Waits for what a live screen wants; others want nothing.
    pub(super) async fn wake(&mut self) -> Wake {
        match self {
            Self::Screen(_) | Self::Json(_) => std::future::pending().await,
            Self::Top(live) => live.wake().await,
        }
    }

    /// Shows what was counted so far.
    pub(super) fn look(&mut self, totals: &Totals, enricher: &mut Enricher) -> io::Result<()> {
        if let Self::Top(live) = self { live.look(totals, enricher) } else { Ok(()) }
    }

    /// Gives the terminal back.
    pub(super) fn stop(&mut self) {
        if let Self::Top(live) = self {
            live.stop();
        }
    }

    /// Opens the output that the options name.
    pub(super) fn open(common: &Common) -> Result<Self> {
        let path = common.output.as_deref().filter(|path| !private_file::is_dash(path));
        let (out, terminal): (Box<dyn Write>, bool) = match path {
            Some(path) => {
                (Box::new(Named::new(escape::path(path), private_file::stream(path)?)), false)
            }
            None => (Box::new(Stdout::new()), io::stdout().is_terminal()),
        };
        if common.json {
            return Ok(Self::Json(BufWriter::new(out)));
        }
        Ok(Self::Screen(Screen::new(out, style(terminal, common.all), Shown::here(common.utc))))
    }

    pub(super) fn record(&mut self, record: &Record) -> io::Result<()> {
        match self {
            Self::Screen(screen) => screen.record(record),
            Self::Json(out) => line(out, record),
            Self::Top(live) => {
                live.model.record(record);
                Ok(())
            }
        }
    }

    /// The first refusal of its kind; JSON has it in its summary.
    pub(super) fn refusal(&mut self, row: &RefusalRow) -> io::Result<()> {
        match self {
            Self::Screen(screen) => screen.refusal(row),
            Self::Json(_) => Ok(()),
            Self::Top(live) => {
                live.model.refusal(row);
                Ok(())
            }
        }
    }

    /// The first sight of a process that mixes; JSON has it in its summary.
    pub(super) fn mixing(&mut self, mixing: &Mixing) -> io::Result<()> {
        match self {
            Self::Screen(screen) => screen.mixing(mixing),
            Self::Json(_) => Ok(()),
            Self::Top(live) => {
                live.model.mixing(mixing);
                Ok(())
            }
        }
    }

    pub(super) fn summary(&mut self, summary: &Summary) -> io::Result<()> {
        match self {
            Self::Screen(screen) => screen.summary(summary),
            Self::Json(out) => {
                line(out, summary)?;
                out.flush()
            }
            Self::Top(live) => {
                let shown = live.model.about.shown.clone();
                Screen::new(Stdout::new(), style(true, false), shown).closing(summary)
            }
        }
    }

    /// Hands on what is buffered; called when there is nothing to read.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Screen(_) | Self::Top(_) => Ok(()),
            Self::Json(out) => out.flush(),
        }
    }
}

/// How to draw lines.
pub(super) fn style(terminal: bool, all: bool) -> Style {
    Style { width: width(terminal), colour: terminal && colours(), cut: terminal, all }
}

/// Colours, as far as NO_COLOR goes (no-color.org).
pub(super) fn colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn line<T: serde::Serialize>(out: &mut impl Write, value: &T) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

/// Columns of a page of text: lines longer than 100 are hard to read.
pub(super) fn page_width(out: &impl IsTerminal) -> usize {
    width(out.is_terminal()).min(100)
}

/// Columns: COLUMNS if set, the terminal's own, else 80.
pub(super) fn width(terminal: bool) -> usize {
    let set = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let asked = || {
        let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the kernel writes one winsize.
        let failed = unsafe { libc::ioctl(1, libc::TIOCGWINSZ, &raw mut size) } != 0;
        (terminal && !failed && size.ws_col > 0).then(|| usize::from(size.ws_col))
    };
    set.or_else(asked).unwrap_or(80).clamp(60, 400)
}
