//! `dio-trace cache`: who fills the page cache.

use std::{
    ffi::OsString,
    io::{IsTerminal as _, Write as _},
    time::Duration,
};

use ahash::HashMap;
use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use ratatui::{
    crossterm::event::{Event as Key, KeyCode, KeyModifiers},
    widgets::Paragraph,
};
use tokio::{
    sync::mpsc::Receiver,
    time::{Instant, Interval, MissedTickBehavior, interval},
};

use crate::{
    cli::{
        filters::{Filters, Place},
        interactive,
        metrics::MetricsArgs,
        session::{give_up_privilege, say_what},
        subject::Subject,
        terminal::{self, Terminal},
        trace::{Common, GateArgs, Named, Processes, Trace},
        tty,
        values::{Mode, duration},
        watch::{EndSignals, Ending, Family, Watch, any_runs, cannot_run, watch},
    },
    enrich::Enricher,
    flow::page_cache::{CacheBy, CacheNames, CacheReport},
    kernel::{line, page_size},
    model::Event,
    output::text::{CachePage, Lately, page_cache},
    tracer::{Options, Tracer},
    util::stdio::{Stdout, or_end},
};

/// Options of `dio-trace cache`, which stand before its verb.
#[derive(Args, Debug)]
pub(super) struct CacheArgs {
    /// Stop after this time: 10, 10s, 500ms, 2m, 1h
    #[arg(short, long, global = true, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    /// Time between two refreshes of the screen
    #[arg(short, long, global = true, value_name = "TIME", default_value = "2s", value_parser = duration)]
    interval: Duration,
    /// What a row of the report is
    #[arg(long, global = true, value_enum, value_name = "WHAT", default_value_t = CacheBy::File)]
    by: CacheBy,
    /// Rows of the report
    #[arg(short = 'n', long, global = true, value_name = "N", default_value_t = 10)]
    rows: usize,
    /// Only the report at the end, also on a terminal
    #[arg(long, global = true)]
    no_screen: bool,
    /// Write the report as one line of JSON, with all files (docs/json.md)
    #[arg(long, global = true)]
    json: bool,
    /// How to attach the probes
    #[arg(long, global = true, value_enum, value_name = "HOW", default_value_t = Mode::Auto)]
    attach: Mode,
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    verb: Option<CacheVerb>,
}

/// Whose pages are counted.
#[derive(Debug, Subcommand)]
enum CacheVerb {
    /// A command and its descendants
    Run {
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Running processes with their descendants
    Attach {
        #[command(flatten)]
        subject: Named,
    },
    /// The whole system, as without a verb
    Audit,
}

impl CacheArgs {
    /// The verb as those that trace requests have it.
    fn trace(&mut self) -> Trace {
        let common = Common::without_requests(
            self.attach,
            false,
            Filters::of(std::mem::take(&mut self.place)),
            MetricsArgs::default(),
        );
        match self.verb.take() {
            Some(CacheVerb::Run { command }) => {
                Trace::Run { command, common, gate: GateArgs::default() }
            }
            Some(CacheVerb::Attach { subject }) => Trace::Attach { subject, common },
            Some(CacheVerb::Audit) | None => {
                Trace::Audit { processes: Processes::default(), common }
            }
        }
    }
}

/// Counts until the end, then writes the report. Returns the exit code.
pub(super) async fn run(mut args: CacheArgs) -> Result<u8> {
    let verb = args.trace();
    if let Trace::Run { command, .. } = &verb
        && let Some(code) = cannot_run(&command[0])
    {
        return Ok(code);
    }
    let subject = Subject::of(&verb)?;
    // The screen of a command is its own.
    let live = !args.json
        && !args.no_screen
        && !matches!(verb, Trace::Run { .. })
        && std::io::stdout().is_terminal()
        && terminal::check().is_ok();
    let wanted = verb.common().filters.wanted()?;
    let options = Options::of_page_cache(subject.scope(), args.attach.wish(), wanted);
    let mut tracer = interactive::with_progress(|progress| Tracer::start(&options, progress))?;
    let family = Family::of(&subject, &tracer)?;
    let started = Instant::now();
    let (watch, text) = watch(&verb, &subject, &family, &mut tracer)?;
    let ends = EndSignals::new()?;
    if !live {
        say_what(&tracer, &format!("the page cache of {text}"), args.duration.is_some());
    }
    let mut enricher = Enricher::default();
    enricher.look_around(&family.all());
    give_up_privilege(&tracer);
    let ending = Ending::new(watch, args.duration, ends);
    let screen = if live { Some(Screen::take()?) } else { None };
    let mut session = Session {
        tracer,
        enricher,
        names: CacheNames::default(),
        subject: text,
        started,
        previous: None,
        screen,
        args,
    };
    let code = session.run(ending).await?;
    session.finish(code)
}

/// The live screen and its keyboard.
struct Screen {
    terminal: Terminal,
    keys: Receiver<Key>,
}

impl Screen {
    fn take() -> Result<Self> {
        Ok(Self { terminal: Terminal::take()?, keys: terminal::keyboard()? })
    }

    /// True if a key ends the screen: q, Esc and Ctrl-C.
    fn ends(key: Option<&Key>) -> bool {
        let Some(key) = key else { return true }; // the terminal is gone
        key.as_key_event().is_some_and(|key| match key.code {
            KeyCode::Char('q') | KeyCode::Esc => true,
            KeyCode::Char('c') => key.modifiers.contains(KeyModifiers::CONTROL),
            _ => false,
        })
    }
}

struct Session {
    tracer: Tracer,
    enricher: Enricher,
    names: CacheNames,
    subject: String,
    started: Instant,
    /// What had come in of each row at the screen's last refresh, and when that was.
    previous: Option<(HashMap<String, u64>, Instant)>,
    screen: Option<Screen>,
    args: CacheArgs,
}

impl Session {
    /// Takes the names of files until the run ends. Returns the exit code of the command.
    async fn run(&mut self, mut ending: Ending) -> Result<Option<u8>> {
        let mut looks: Interval = interval(self.args.interval);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = self.tracer.next() => self.take(&event?),
                key = key(&mut self.screen) => {
                    if Screen::ends(key.as_ref()) {
                        return Ok(None);
                    }
                }
                _ = looks.tick() => {
                    self.look()?;
                    if matches!(ending.watch, Watch::Descendants)
                        && !any_runs(&self.tracer.processes()?)
                    {
                        return Ok(None);
                    }
                }
                code = ending.reached() => return code,
            }
        }
    }

    fn take(&mut self, event: &Event) {
        if let Event::File(file) = event {
            self.names.add(file, &mut self.enricher);
        }
    }

    fn report(&mut self) -> Result<CacheReport> {
        while let Some(event) = self.tracer.waiting() {
            self.take(&event);
        }
        let totals = self.tracer.page_cache()?;
        let report = self.names.report(&totals, page_size(), &mut self.enricher);
        let (memory, cached) = memory();
        Ok(CacheReport {
            subject: self.subject.clone(),
            seconds: self.started.elapsed().as_secs_f64(),
            memory,
            cached,
            missing: self.tracer.coverage().1.to_vec(),
            ..report
        })
    }

    /// Looks at who the processes are, and refreshes the screen.
    fn look(&mut self) -> Result<()> {
        self.names.look(&self.tracer.cache_users()?);
        if self.screen.is_none() {
            return Ok(());
        }
        let report = self.report()?;
        let (by, most) = (self.args.by, self.args.rows);
        let rows = report.rows(by);
        let now = rows.iter().map(|row| (row.name.clone(), row.bytes.came_in())).collect();
        let lately = lately(&now, self.previous.as_ref());
        let Some(screen) = &mut self.screen else { return Ok(()) };
        screen.terminal.draw(|frame| {
            let area = frame.area();
            let width = area.width.into();
            let page = CachePage { by, lately: Some(&lately), rows: &rows, most, width };
            let text = fitting(&report, page, area.height.into());
            frame.render_widget(Paragraph::new(text), area);
        })?;
        self.previous = Some((now, Instant::now()));
        Ok(())
    }

    /// Writes the report, then detaches the probes.
    fn finish(mut self, code: Option<u8>) -> Result<u8> {
        self.screen = None;
        let report = self.report()?;
        let mut out = Stdout::new();
        let written = if self.args.json {
            serde_json::to_writer(&mut out, &report)
                .map_err(std::io::Error::from)
                .and_then(|()| out.write_all(b"\n"))
        } else {
            let CacheArgs { by, rows: most, .. } = self.args;
            let width = tty::page_width(&std::io::stdout());
            let page = CachePage { by, lately: None, rows: &report.rows(by), most, width };
            out.write_all(page_cache(&report, &page).as_bytes())
        };
        written.and_then(|()| out.flush()).map_err(or_end).context("cannot write the report")?;
        interactive::quit_at_next_signal();
        interactive::say_to_person("detaching…");
        Ok(code.unwrap_or(0))
    }
}

/// The page in at most this many lines, if fewer rows make it so.
fn fitting(report: &CacheReport, page: CachePage<'_>, height: usize) -> String {
    let texts = (1..=page.most).rev().map(|most| page_cache(report, &CachePage { most, ..page }));
    let mut last = String::new();
    for text in texts {
        if text.lines().count() <= height {
            return text;
        }
        last = text;
    }
    last
}

/// Waits for a key; without a screen for ever.
async fn key(screen: &mut Option<Screen>) -> Option<Key> {
    match screen {
        Some(screen) => screen.keys.recv().await,
        None => std::future::pending().await,
    }
}

/// What came in of each row since the previous refresh.
fn lately(
    now: &HashMap<String, u64>,
    previous: Option<&(HashMap<String, u64>, Instant)>,
) -> Lately {
    let Some((before, at)) = previous else { return Lately::default() };
    let since =
        |name: &str, bytes: u64| bytes.saturating_sub(before.get(name).copied().unwrap_or(0));
    let bytes = now.iter().map(|(name, bytes)| (name.clone(), since(name, *bytes))).collect();
    Lately { seconds: at.elapsed().as_secs_f64(), bytes }
}

/// Bytes of memory, and of file pages in it (/proc/meminfo).
fn memory() -> (u64, u64) {
    let text = line("/proc/meminfo");
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let of = |name| of(name).unwrap_or(0) << 10;
    // Cached has tmpfs and lacks the pages of block devices (fs/proc/meminfo.c:meminfo_proc_show).
    let cached = (of("Cached:") + of("Buffers:")).saturating_sub(of("Shmem:"));
    (of("MemTotal:"), cached)
}
