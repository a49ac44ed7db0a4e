//! `dio-trace top`: its options, and the live screen with its keyboard and its refresh timer.

use std::{
    io,
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::{
    Args, ValueEnum as _,
    builder::{PossibleValuesParser, TypedValueParser as _},
};
use ratatui::crossterm::event::Event;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc::Receiver,
    time::{Interval, MissedTickBehavior, interval_at},
};

use crate::{
    cli::{
        filters::Filters,
        metrics::MetricsArgs,
        terminal::{self, Terminal},
        trace::{Common, Processes, Trace},
        tty::{colours, style},
        values::{Mode, duration},
    },
    enrich::Enricher,
    flow::{
        explained::ExplainedRequest,
        group::By,
        side_events::{MixedAccess, RejectedOpenRow},
        sink::Sink,
        summary::Summary,
    },
    model::Totals,
    output::{
        text::Screen,
        top::{About, Bys, Model, Step, Theme, command, draw_top},
    },
    tracer::Tracer,
    util::{clock::Shown, stdio::Stdout},
};

#[derive(Args, Debug)]
pub(super) struct TopArgs {
    #[command(flatten)]
    processes: Processes,
    /// Time between two refreshes: 1s, 500ms
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = every)]
    interval: Duration,
    /// What a row is; Tab changes it
    #[arg(long, default_value = "process", value_parser = by())]
    by: By,
    /// Print the rows of one interval and end; needs no terminal
    #[arg(long, conflicts_with = "duration")]
    once: bool,
    /// With --once: write the summary of docs/json.md, with the rows in `groups`
    #[arg(long, requires = "once")]
    json: bool,
    /// Quit after this time
    #[arg(short, long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    /// Show times in UTC instead of this machine's zone
    #[arg(long)]
    utc: bool,
    /// How to attach the probes
    #[arg(long, value_enum, default_value_t = Mode::Auto)]
    attach: Mode,
    /// Trace even if the tracer does not see its own test requests
    #[arg(long)]
    force_blind: bool,
    #[command(flatten)]
    filters: Filters,
    #[command(flatten)]
    metrics: MetricsArgs,
}

/// Options of the live screen.
pub(super) struct TopOptions {
    interval: Duration,
    by: By,
    utc: bool,
}

impl TopArgs {
    /// True if one interval is printed, without the live screen.
    pub(super) const fn is_once(&self) -> bool {
        self.once
    }

    /// Splits the options into those for tracing and those for the screen.
    pub(super) fn split(self) -> (Trace, TopOptions) {
        let common = Common {
            duration: if self.once { Some(self.interval) } else { self.duration },
            json: self.json,
            by: self.once.then_some(self.by),
            utc: self.utc,
            ..Common::without_requests(self.attach, self.force_blind, self.filters, self.metrics)
        };
        let trace = Trace::Audit { processes: self.processes, common };
        (trace, TopOptions { interval: self.interval, by: self.by, utc: self.utc })
    }
}

/// Parses a grouping from its name.
fn by() -> impl clap::builder::TypedValueParser<Value = By> {
    PossibleValuesParser::new(Bys::ALL.map(Bys::word)).try_map(|word| By::from_str(&word, false))
}

/// Parses the refresh interval. The minimum leaves time to read all counters.
fn every(text: &str) -> Result<Duration, String> {
    let least = Duration::from_millis(100);
    duration(text).and_then(|time| {
        if time < least { Err("must be at least 100ms".to_owned()) } else { Ok(time) }
    })
}

/// A request of the live screen.
pub(super) enum Wake {
    /// The screen needs the current counters.
    Look,
    Quit,
}

/// The live screen, its keyboard and its refresh timer.
pub(super) struct Live {
    pub(super) model: Model,
    theme: Theme,
    /// `None` before the tracer is attached, and after the end.
    terminal: Option<Terminal>,
    keys: Option<Receiver<Event>>,
    hangup: Signal,
    looks: Interval,
    /// Start of the current interval.
    since: Instant,
    /// True once the first counters were read.
    begun: bool,
}

impl Live {
    /// Checks the terminal and makes the screen, without taking the terminal yet. Called before the
    /// probes are attached, so that a pipe as stdout is rejected at once.
    ///
    /// # Errors
    /// If a live screen cannot be shown here.
    pub(super) fn new(options: &TopOptions) -> Result<Self> {
        terminal::check()?;
        let about = About {
            interval: options.interval.as_secs_f64(),
            shown: Shown::here(options.utc),
            ..About::default()
        };
        let mut looks = interval_at(tokio::time::Instant::now(), options.interval);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            model: Model::new(about, options.by),
            theme: Theme { colour: colours(true) },
            terminal: None,
            keys: None,
            hangup: signal(SignalKind::hangup())?,
            looks,
            since: Instant::now(),
            begun: false,
        })
    }

    /// Takes the terminal.
    pub(super) fn start(&mut self, tracer: &Tracer, subject: &str) -> Result<()> {
        let (attached, missing) = tracer.coverage();
        let kernel = crate::kernel::release();
        let about = &mut self.model.about;
        subject.clone_into(&mut about.subject);
        let attach = tracer.attach().as_str();
        about.probes = format!("{} attached by {attach}, kernel {kernel}", attached.len());
        let gap = |gap: &crate::model::MissingProbe| format!("{}: {}", gap.probe, gap.why);
        about.missing = missing.iter().chain(tracer.dark()).map(gap).collect();
        self.terminal = Some(Terminal::take()?);
        self.keys = Some(terminal::keyboard()?);
        Ok(())
    }

    /// Waits until the screen needs the counters or the user quits; handles other keys meanwhile.
    pub(super) async fn wake(&mut self) -> Wake {
        loop {
            let Some(keys) = &mut self.keys else { return std::future::pending().await };
            let event = tokio::select! {
                event = keys.recv() => event,
                _ = self.looks.tick() => return Wake::Look,
                _ = self.hangup.recv() => return Wake::Quit,
            };
            // A closed keyboard or a failed draw means that the terminal is gone.
            let goes_on = event.is_some_and(|event| self.event(&event).unwrap_or(false));
            if !goes_on {
                return Wake::Quit;
            }
        }
    }

    /// Handles a terminal event; returns false if the user quits.
    fn event(&mut self, event: &Event) -> io::Result<bool> {
        let Some(key) = event.as_key_event() else {
            return self.draw().map(|()| true);
        };
        let Some(command) = command(key, self.model.typing) else { return Ok(true) };
        let step = self.model.obey(command);
        if let Some(terminal) = &mut self.terminal {
            match step {
                Step::Quit => return Ok(false),
                Step::Suspend => terminal.suspend()?,
                Step::Redraw => terminal.clear()?,
                Step::Stay => {}
            }
        }
        self.draw().map(|()| true)
    }

    /// Updates the screen from the current totals.
    pub(super) fn look(&mut self, totals: &Totals, enricher: &mut Enricher) -> io::Result<()> {
        let now = Instant::now();
        if self.begun {
            let seconds = now.duration_since(self.since).as_secs_f64();
            if self.model.poll(totals, seconds, enricher) {
                self.since = now;
            }
        } else {
            // Counts from the time of attaching have no known interval, so no rates.
            self.model.begin(totals, enricher);
            (self.begun, self.since) = (true, now);
        }
        self.draw()
    }

    fn draw(&mut self) -> io::Result<()> {
        let Self { model, theme, terminal, .. } = self;
        let Some(terminal) = terminal else { return Ok(()) };
        terminal.draw(|frame| draw_top(frame, model, *theme))
    }

    /// Restores the terminal.
    pub(super) fn stop(&mut self) {
        self.terminal = None;
        self.keys = None;
    }
}

impl Sink for Live {
    fn request(&mut self, record: &ExplainedRequest) -> Result<()> {
        self.model.record(record);
        Ok(())
    }

    fn rejected_open(&mut self, row: &RejectedOpenRow) -> Result<()> {
        self.model.rejected_open(row);
        Ok(())
    }

    fn mixed_access(&mut self, mixing: &MixedAccess) -> Result<()> {
        self.model.mixed_access(mixing);
        Ok(())
    }

    /// Prints the closing part of the summary to stdout; the rows were already on the screen.
    fn summary(&mut self, summary: &Summary) -> Result<()> {
        let shown = self.model.about.shown.clone();
        Ok(Screen::new(Stdout::new(), style(true, false, false), shown).closing(summary)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_not_too_short() {
        assert_eq!(every("2"), Ok(Duration::from_secs(2)));
        assert_eq!(every("100ms"), Ok(Duration::from_millis(100)));
        assert!(every("50ms").is_err() && every("x").is_err());
    }
}
