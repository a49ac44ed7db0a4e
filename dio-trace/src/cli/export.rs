//! `dio-trace export`: the requests of a recording for other programs.

use std::{
    cell::OnceCell,
    io::{self, BufWriter, IntoInnerError, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::{
    cli::{input::Input, out::Output, part::PartArgs},
    flow::{
        record::Record,
        side_events::{Mixing, RefusalRow},
    },
    output::export::{csv, folded::Folded, parquet, partition::Partition, perfetto::Perfetto},
    recording::{
        format::Header,
        replay::{Replay, Sink},
    },
    util::{escape, private_file, stdio::note},
};

#[derive(Args, Debug)]
pub(super) struct ExportArgs {
    /// A recording; - for stdin
    file: PathBuf,
    #[arg(long, value_enum)]
    format: Format,
    /// Write to this file instead of stdout; it is there once it is complete
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write over files that are there
    #[arg(long)]
    force: bool,
    /// Write Parquet files below this folder, by host and hour: host=…/hour=…/….parquet
    #[arg(long, value_name = "DIR", conflicts_with = "output")]
    partition: Option<PathBuf>,
    #[command(flatten)]
    part: PartArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// The lines of `--json --all`, the summary included (docs/json.md)
    Jsonl,
    /// A line a request, the same fields
    Csv,
    /// The same fields with types
    Parquet,
    /// A trace for ui.perfetto.dev: files as tracks, requests as slices, findings with their fix
    Perfetto,
    /// Lines for flame graphs: process;file;op/api;verdict;cause count
    Folded,
}

type Out = BufWriter<Output>;

/// Exports a recording.
pub(super) fn run(args: &ExportArgs) -> Result<()> {
    args.part.check()?;
    anyhow::ensure!(
        args.partition.is_none() || matches!(args.format, Format::Parquet),
        "folders by host and hour are for --format parquet"
    );
    let input = Input::open(&args.file)?;
    input.ensure_recording()?;
    match &args.partition {
        Some(folder) => by_hour(args, &input, folder),
        None => to_output(args, &input),
    }
}

fn to_output(args: &ExportArgs, input: &Input) -> Result<()> {
    let out = Output::open(args.output.as_deref(), args.force, &input.file)?;
    let talks = out.is_file() || !io::stdout().is_terminal();
    match args.format {
        Format::Parquet => out.ensure_binary("Parquet")?,
        Format::Perfetto => out.ensure_binary("a trace for Perfetto")?,
        Format::Jsonl | Format::Csv | Format::Folded => {}
    }
    let mut out = BufWriter::with_capacity(1 << 18, out);
    let part = |header: &Header| args.part.part(header);
    let replayed = match args.format {
        Format::Jsonl => {
            let replayed = input.replay(talks, &part, &mut Lines(&mut out))?;
            serde_json::to_writer(&mut out, &replayed.summary)?;
            out.write_all(b"\n")?;
            replayed
        }
        Format::Csv => {
            let mut rows = Rows(csv::Csv::new(&mut out)?);
            input.replay(talks, &part, &mut rows)?
        }
        Format::Parquet => {
            let mut table = Table(parquet::Parquet::new(&mut out)?);
            let replayed = input.replay(talks, &part, &mut table)?;
            table.0.finish()?;
            replayed
        }
        Format::Perfetto => {
            let mut trace = Trace(Perfetto::new(&mut out));
            let replayed = input.replay(talks, &part, &mut trace)?;
            trace.0.finish()?;
            left_out(trace.0.left_out());
            replayed
        }
        Format::Folded => {
            let mut lines = Stacks(Folded::default());
            let replayed = input.replay(talks, &part, &mut lines)?;
            lines.0.finish(&mut out)?;
            replayed
        }
    };
    out.into_inner().map_err(IntoInnerError::into_error)?.finish()?;
    tell(&replayed);
    Ok(())
}

/// Parquet in folders by host and hour.
fn by_hour(args: &ExportArgs, input: &Input, folder: &Path) -> Result<()> {
    private_file::remove_at_signals();
    let header = OnceCell::new();
    let part = |of: &Header| {
        let _ = header.set(of.clone());
        args.part.part(of)
    };
    let mut hours = Hours { folder, input, force: args.force, header: &header, parts: None };
    let replayed = input.replay(true, &part, &mut hours)?;
    let files = hours.parts.map_or(Ok(0), Partition::finish)?;
    note!("{files} files in {}", escape::path(folder));
    tell(&replayed);
    Ok(())
}

/// What was in it, on stderr.
fn tell(replayed: &Replay) {
    let cut = if replayed.cut.end.is_none() { "; it was cut" } else { "" };
    note!("{} requests, {} bytes damaged{cut}", replayed.shown, replayed.cut.damaged_bytes);
}

struct Lines<'a>(&'a mut Out);

impl Sink for Lines<'_> {
    fn record(&mut self, record: &Record) -> Result<()> {
        serde_json::to_writer(&mut self.0, record)?;
        Ok(self.0.write_all(b"\n")?)
    }

    fn wants_all(&self) -> bool {
        true
    }
}

struct Rows<'a>(csv::Csv<&'a mut Out>);

impl Sink for Rows<'_> {
    fn record(&mut self, record: &Record) -> Result<()> {
        Ok(self.0.record(record)?)
    }

    fn wants_all(&self) -> bool {
        true
    }
}

struct Table<'a>(parquet::Parquet<&'a mut Out>);

impl Sink for Table<'_> {
    fn record(&mut self, record: &Record) -> Result<()> {
        self.0.record(record)
    }

    fn wants_all(&self) -> bool {
        true
    }
}

struct Trace<'a>(Perfetto<&'a mut Out>);

impl Sink for Trace<'_> {
    fn record(&mut self, record: &Record) -> Result<()> {
        Ok(self.0.record(record)?)
    }

    fn refusal(&mut self, row: &RefusalRow) -> Result<()> {
        Ok(self.0.refusal(row)?)
    }

    fn mixing(&mut self, mixing: &Mixing) -> Result<()> {
        Ok(self.0.mixing(mixing)?)
    }

    fn wants_all(&self) -> bool {
        true
    }
}

/// Says what is not in the output.
fn left_out(requests: u64) {
    if requests != 0 {
        note!("{requests} requests and findings left out: too many tracks");
    }
}

struct Stacks(Folded);

impl Sink for Stacks {
    fn record(&mut self, record: &Record) -> Result<()> {
        self.0.record(record);
        Ok(())
    }

    fn wants_all(&self) -> bool {
        true
    }
}

/// The folders are made once the recording has said whose it is.
struct Hours<'a> {
    folder: &'a Path,
    input: &'a Input,
    force: bool,
    header: &'a OnceCell<Header>,
    parts: Option<Partition<'a>>,
}

impl Sink for Hours<'_> {
    fn record(&mut self, record: &Record) -> Result<()> {
        if self.parts.is_none()
            && let Some(header) = self.header.get()
        {
            self.parts = Some(Partition::new(
                self.folder,
                header,
                (&self.input.path, &self.input.file),
                self.force,
            )?);
        }
        self.parts.as_mut().map_or(Ok(()), |parts| parts.record(record))
    }

    fn wants_all(&self) -> bool {
        true
    }
}
