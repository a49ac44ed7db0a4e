//! `dio-trace report`: shows recordings as text, as JSON, as sums (`--by`) or as an HTML page.

use std::{
    cell::Cell,
    collections::{BTreeSet, HashMap},
    io::{self, BufWriter, IntoInnerError, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Result, bail, ensure};
use clap::Args;

use crate::{
    cause::history::KernelVersion,
    cli::{
        input::Input,
        kernels::{self, Found},
        result_file::ResultFile,
        say,
        selection::SelectionArgs,
        tty,
        values::{SHOW, TO},
    },
    flow::{
        by_record::{ByRecord, by_time},
        explained::ExplainedRequest,
        group::{By, Group, Groups, groups},
        side_events::{MixedAccess, RejectedOpenRow},
        sink::Sink,
        timeline::Timeline,
    },
    output::{
        document::Document,
        html::{self, Gather},
        text::{self, MAX_ROWS, Screen, Style},
    },
    recording::{format::Header, replay::Replay},
    util::{
        clock::{Shown, Zone},
        stdio::{self, Stdout, note},
    },
};

#[derive(Args, Debug)]
pub(super) struct ReportArgs {
    /// Recordings, of one machine or several; - for stdin
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    selection: SelectionArgs,
    /// Show only sums by this, instead of findings and files
    #[arg(long, value_enum, value_name = "WHAT", help_heading = SHOW)]
    by: Option<By>,
    /// Also say what would change on another kernel, such as 7.2 or 6.12.77 (docs/kernels.md)
    #[arg(long, value_name = "VERSION", conflicts_with_all = ["json", "by", "html"],
          help_heading = SHOW)]
    kernel: Option<KernelVersion>,
    /// Show times in UTC instead of the recording host's zone
    #[arg(long, help_heading = SHOW)]
    utc: bool,
    /// Leave out no lines of findings, and no rows
    #[arg(short, long, help_heading = SHOW)]
    verbose: bool,
    /// One JSON object per recording
    #[arg(long, help_heading = TO)]
    json: bool,
    /// Write an HTML page, which needs no network, to this file, or - for stdout; one recording
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "by"], help_heading = TO)]
    html: Option<PathBuf>,
    /// Overwrite the page if it exists
    #[arg(long, requires = "html", help_heading = TO)]
    force: bool,
}

/// Reports on each recording, or sums all of them if `--by` is given.
///
/// If one of several recordings cannot be read, prints its error and reports on the others.
///
/// # Errors
/// If the output cannot be written, or any recording cannot be read.
pub(super) fn run(args: &ReportArgs) -> Result<()> {
    args.selection.check()?;
    if let Some(page) = &args.html {
        let [file] = &args.files[..] else {
            bail!("a page shows one recording: name one, or sum several with --by");
        };
        return to_page(args, file, page);
    }
    let mut sums = Sums::default();
    let mut unread = 0;
    for path in &args.files {
        let (name, mut replayed, sink) = match one(args, path) {
            Ok(replayed) => replayed,
            // Report on the other recordings all the same.
            Err(error) if args.files.len() > 1 => {
                say(&error);
                unread += 1;
                continue;
            }
            Err(error) => return Err(error),
        };
        // The recorded totals are not by time, so the requests are counted.
        replayed.by_requests |= args.by == Some(By::Time);
        match (args.json, args.by) {
            (true, _) => json(&name, replayed, sink, args)?,
            (false, None) => whole(&name, &mut replayed, sink, args)?,
            (false, Some(by)) => {
                let shown = shown(&replayed.header, args.utc);
                stdio::say(&text::recording(&name, &replayed, &shown, style(args.verbose).width));
                sums.lasted_ns = replayed.summary.lasted_ns.filter(|_| args.files.len() == 1);
                sums.add(replayed, sink, by, shown.zone);
            }
        }
    }
    let files = args.files.len();
    if let (false, Some(by)) = (args.json || unread == files, args.by) {
        let (rows, lasted_ns) = (sums.rows(by), sums.lasted_ns);
        stdio::print(&text::groups(&rows, by, style(args.verbose), MAX_ROWS, lasted_ns))?;
    }
    ensure!(unread == 0, "{unread} of {files} recordings could not be read and are not included");
    Ok(())
}

/// Maximum bytes of finding lines to keep until the heading is written.
const MAX_LINES: usize = 24 << 20;
/// Memory limit in bytes for sums over recordings.
const MAX_SUMS: usize = 96 << 20;
/// Bytes that a row takes in addition to its name.
const SUM: usize = 700;

/// Replays one recording; returns its name, its totals and its lines or sums.
fn one(args: &ReportArgs, path: &Path) -> Result<(String, Replay, Show)> {
    let input = Input::open(path)?;
    let recording = input.recording(true)?;
    let mut sink = Show::new(args, recording.header(), style(args.verbose));
    let selection = args.selection.selection(recording.header(), args.utc);
    let replayed = input.named(recording.replay(selection, &mut sink))?;
    Ok((input.name, replayed, sink))
}

/// Sums over recordings.
#[derive(Default)]
struct Sums {
    /// Memory that the rows take.
    bytes: usize,
    /// Rows by host and name. The host is empty where a name means the same on every host.
    rows: HashMap<(String, String), Group>,
    hosts: BTreeSet<String>,
    /// Timelines with their start, in ns since the epoch.
    times: Vec<(u64, Timeline)>,
    /// The time zones of the recordings.
    zones: Vec<Zone>,
    /// How long the recording lasted in ns; None of several.
    lasted_ns: Option<u64>,
}

impl Sums {
    fn add(&mut self, replayed: Replay, sink: Show, by: By, zone: Zone) {
        if by == By::Time {
            self.zones.push(zone);
            self.times.push((begin(&replayed), replayed.timeline));
            return;
        }
        if by == By::Stack && !replayed.header.stacks {
            note!("no stacks were recorded: use `record` with --stack");
        }
        let host = replayed.header.host.clone();
        let mut replayed = replayed;
        replayed.summary.files = Vec::new(); // not needed, and as large as the rows
        for row in rows(&mut replayed, sink, by, &zone) {
            // The same pid or path on two hosts is not the same process or file.
            let of = if matches!(by, By::Process | By::File) { &host[..] } else { "" };
            let mut key = (of.to_owned(), row.name.clone());
            let mut row = row;
            if !self.rows.contains_key(&key) {
                self.bytes += SUM + 3 * (key.0.len() + key.1.len());
                if self.bytes > MAX_SUMS {
                    "(others)".clone_into(&mut row.name);
                    key = (String::new(), row.name.clone());
                }
            }
            self.rows.entry(key).and_modify(|sum| sum.join(&row)).or_insert(row);
        }
        self.hosts.insert(host);
    }

    /// The time zone that all recordings have in common, or UTC if they differ.
    fn zone(&self) -> Zone {
        match &self.zones[..] {
            [first, others @ ..] if others.iter().all(|zone| zone.offset == first.offset) => {
                first.clone()
            }
            _ => Zone::UTC,
        }
    }

    /// The rows in order. If there are several hosts, names of processes and files start with the
    /// host.
    fn rows(&mut self, by: By) -> Vec<Group> {
        if by == By::Time {
            let times: Vec<_> = self.times.iter().map(|(begin, times)| (*begin, times)).collect();
            return by_time(&times, &self.zone());
        }
        let named = |((host, _), mut row): ((String, String), Group)| {
            if self.hosts.len() > 1 && !host.is_empty() {
                row.name = format!("{host}:{}", row.name);
            }
            row
        };
        let mut rows: Vec<Group> = std::mem::take(&mut self.rows).into_iter().map(named).collect();
        rows.sort_by(Group::order);
        rows
    }
}

/// Writes a recording's HTML page.
fn to_page(args: &ReportArgs, file: &Path, page: &Path) -> Result<()> {
    let input = Input::open(file)?;
    input.ensure_recording()?;
    let out = ResultFile::open(Some(page), args.force, &input.file)?;
    let show_progress = out.is_file() || !io::stdout().is_terminal();
    let mut out = BufWriter::new(out);
    let mut gather = Gather::default();
    let mut replayed = input.replay(show_progress, (&args.selection, args.utc), &mut gather)?;
    let shown = shown(&replayed.header, args.utc);
    html::page(&mut out, &input.name, &shown, &mut replayed, gather)?;
    out.into_inner().map_err(IntoInnerError::into_error)?.finish()
}

fn shown(header: &Header, utc: bool) -> Shown {
    Shown::recorded(header.zone.as_ref(), utc)
}

fn style(verbose: bool) -> Style {
    tty::style(io::stdout().is_terminal(), false, verbose)
}

/// The sink for a report: collects the lines of findings, or the sums by cause or stack, which the
/// recorded counters do not contain.
struct Show {
    /// Lines of findings, kept until the heading is written; `None` with --by or --json.
    screen: Option<Screen<Lines>>,
    sums: ByRecord,
    found: Found,
}

impl Show {
    fn new(args: &ReportArgs, header: &Header, style: Style) -> Self {
        let screen = (!args.json && args.by.is_none()).then(|| {
            let mut screen = Screen::new(Lines::default(), style, shown(header, args.utc));
            // The report's heading shows the start time, so the screen does not repeat it.
            screen.begin(header.started);
            screen
        });
        // Times are those of the replay's own timeline.
        let sums = ByRecord::new(args.by.filter(|by| *by != By::Time));
        Self { screen, sums, found: Found::default() }
    }
}

impl Sink for Show {
    fn wants_all(&self) -> bool {
        self.sums.wants_all()
    }

    fn request(&mut self, record: &ExplainedRequest) -> Result<()> {
        self.sums.count(record);
        if let Some(cause) = record.cause {
            self.found.add(cause, &record.fs);
        }
        self.screen.as_mut().map_or(Ok(()), |screen| screen.request(record))
    }

    fn rejected_open(&mut self, row: &RejectedOpenRow) -> Result<()> {
        self.found.add(row.cause, &row.user.fs);
        self.screen.as_mut().map_or(Ok(()), |screen| screen.rejected_open(row))
    }

    fn mixed_access(&mut self, mixing: &MixedAccess) -> Result<()> {
        self.screen.as_mut().map_or(Ok(()), |screen| screen.mixed_access(mixing))
    }
}

/// A buffer for lines that keeps about [`MAX_LINES`] bytes and counts the lines beyond.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    left_out: u64,
    /// Lifts the limit for the lines that follow.
    open: Cell<bool>,
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let whole = self.bytes.last().is_none_or(|byte| *byte == b'\n');
        if self.bytes.len() < MAX_LINES || !whole || self.open.get() {
            self.bytes.extend_from_slice(bytes);
        } else {
            self.left_out += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a whole report: heading, findings, summary, timeline and latencies.
fn whole(name: &str, replayed: &mut Replay, mut sink: Show, args: &ReportArgs) -> Result<()> {
    let rows = groups(&replayed.counters, By::File, &mut replayed.enricher);
    replayed.summary.groups = Some(Groups { by: By::File, asked: false, rows });
    let style = style(args.verbose);
    let mut out = Stdout::new();
    let shown = shown(&replayed.header, args.utc);
    out.write_all(text::recording(name, replayed, &shown, style.width).as_bytes())?;
    let answer = text::answer(&replayed.summary, style.width);
    out.write_all(answer.as_bytes())?;
    if let Some(screen) = &mut sink.screen {
        let left_out = screen.get_ref().left_out;
        screen.get_ref().open.set(true);
        screen.body(&replayed.summary)?;
        out.write_all(&screen.get_ref().bytes)?;
        if left_out != 0 {
            writeln!(out, "left:   {left_out} lines of findings: `dio-trace export` has all")?;
        }
    }
    out.write_all(text::times(replayed, style.width).as_bytes())?;
    out.write_all(answer.as_bytes())?;
    if let Some(kernel) = args.kernel {
        let lines = kernels::lines(replayed, &sink.found, kernel);
        out.write_all(text::labelled("kernel: ", &lines, style.width).as_bytes())?;
    }
    Ok(out.flush()?)
}

/// The start of a recording's timeline, in ns since the epoch.
fn begin(replayed: &Replay) -> u64 {
    let start = i128::from(replayed.timeline.start()) + i128::from(replayed.header.clock);
    u64::try_from(start).unwrap_or(0)
}

fn rows(replayed: &mut Replay, sink: Show, by: By, zone: &Zone) -> Vec<Group> {
    match by {
        By::Time => by_time(&[(begin(replayed), &replayed.timeline)], zone),
        by if by.is_of_records() => sink.sums.rows(zone),
        by => groups(&replayed.counters, by, &mut replayed.enricher),
    }
}

fn json(name: &str, mut replayed: Replay, sink: Show, args: &ReportArgs) -> Result<()> {
    let zone = shown(&replayed.header, args.utc).zone;
    let groups = args.by.map(|by| rows(&mut replayed, sink, by, &zone));
    let (header, cut, summary) = (&replayed.header, &replayed.integrity, &replayed.summary);
    let mut document = Document::new(name, &replayed, header, cut, summary);
    document.groups = groups;
    let mut out = Stdout::new();
    serde_json::to_writer(&mut out, &document)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}
