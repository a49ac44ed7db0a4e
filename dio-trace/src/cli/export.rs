//! `dio-trace export`: the requests of a recording for other programs.

use std::{
    cell::OnceCell,
    io::{self, BufWriter, IsTerminal as _, Write},
    path::{Path, PathBuf},
};

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::{
    part::PartArgs,
    report::{ensure_recording, read},
};
use crate::{
    beside::{Mixing, RefusalRow},
    escape,
    export::{csv, folded::Folded, parquet, partition::Partition, perfetto::Perfetto},
    output::{self, Named},
    record::Record,
    report::{Replay, Sink},
    trace_file::Header,
};

#[derive(Args, Debug)]
pub(super) struct ExportArgs {
    /// A recording
    file: PathBuf,
    #[arg(long, value_enum)]
    format: Format,
    /// Write to this file instead of stdout
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

type Out = Box<dyn Write + Send>;

/// Exports a recording.
pub(super) fn run(args: &ExportArgs) -> Result<()> {
    args.part.check()?;
    anyhow::ensure!(
        args.partition.is_none() || matches!(args.format, Format::Parquet),
        "folders by host and hour are for --format parquet"
    );
    ensure_recording(&args.file)?;
    match &args.partition {
        Some(folder) => by_hour(args, folder),
        None => to_output(args),
    }
}

fn to_output(args: &ExportArgs) -> Result<()> {
    let out: Out = match &args.output {
        Some(path) => Box::new(output::create_from(&args.file, path, args.force)?),
        None => Box::new(Named::new("stdout".to_owned(), io::stdout())),
    };
    let mut out = BufWriter::with_capacity(1 << 18, out);
    let part = |header: &Header| args.part.part(header);
    let talks = args.output.is_some() || !io::stdout().is_terminal();
    let replayed = match args.format {
        Format::Jsonl => {
            let replayed = read(&args.file, talks, &part, &mut Lines(&mut out))?;
            serde_json::to_writer(&mut out, &replayed.summary)?;
            out.write_all(b"\n")?;
            replayed
        }
        Format::Csv => {
            let mut rows = Rows(csv::Csv::new(&mut out)?);
            read(&args.file, talks, &part, &mut rows)?
        }
        Format::Parquet => {
            let mut table = Table(parquet::Parquet::new(&mut out)?);
            let replayed = read(&args.file, talks, &part, &mut table)?;
            table.0.finish()?;
            replayed
        }
        Format::Perfetto => {
            let mut trace = Trace(Perfetto::new(&mut out));
            let replayed = read(&args.file, talks, &part, &mut trace)?;
            trace.0.finish()?;
            left_out(trace.0.left_out());
            replayed
        }
        Format::Folded => {
            let mut lines = Stacks(Folded::default());
            let replayed = read(&args.file, talks, &part, &mut lines)?;
            lines.0.finish(&mut out)?;
            replayed
        }
    };
    out.flush()?;
    tell(&replayed);
    Ok(())
}

/// Parquet in folders by host and hour.
fn by_hour(args: &ExportArgs, folder: &Path) -> Result<()> {
    let header = OnceCell::new();
    let part = |of: &Header| {
        let _ = header.set(of.clone());
        args.part.part(of)
    };
    let mut hours =
        Hours { folder, file: &args.file, force: args.force, header: &header, parts: None };
    let replayed = read(&args.file, true, &part, &mut hours)?;
    let files = hours.parts.as_mut().map_or(Ok(0), Partition::finish)?;
    eprintln!("dio-trace: {files} files in {}", escape::path(folder));
    tell(&replayed);
    Ok(())
}

/// What was in it, on stderr.
fn tell(replayed: &Replay) {
    let cut = if replayed.cut.end.is_none() { "; it was cut" } else { "" };
    eprintln!(
        "dio-trace: {} requests, {} bytes damaged{cut}",
        replayed.shown, replayed.cut.damaged_bytes
    );
}

struct Lines<'a>(&'a mut BufWriter<Out>);

impl Sink for Lines<'_> {
    fn record(&mut self, record: &Record) -> Result<()> {
        serde_json::to_writer(&mut self.0, record)?;
        Ok(self.0.write_all(b"\n")?)
    }

    fn wants_all(&self) -> bool {
        true
    }
}

struct Rows<'a>(csv::Csv<&'a mut BufWriter<Out>>);

impl Sink for Rows<'_> {
    fn record(&mut self, record: &Record) -> Result<()> {
        Ok(self.0.record(record)?)
    }

    fn wants_all(&self) -> bool {
        true
    }
}

struct Table<'a>(parquet::Parquet<&'a mut BufWriter<Out>>);

impl Sink for Table<'_> {
    fn record(&mut self, record: &Record) -> Result<()> {
        self.0.record(record)
    }

    fn wants_all(&self) -> bool {
        true
    }
}

struct Trace<'a>(Perfetto<&'a mut BufWriter<Out>>);

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
        eprintln!("dio-trace: {requests} requests and findings left out: too many tracks");
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
    /// The recording.
    file: &'a Path,
    force: bool,
    header: &'a OnceCell<Header>,
    parts: Option<Partition>,
}

impl Sink for Hours<'_> {
    fn record(&mut self, record: &Record) -> Result<()> {
        if self.parts.is_none()
            && let Some(header) = self.header.get()
        {
            self.parts = Some(Partition::new(self.folder, header, self.file, self.force)?);
        }
        self.parts.as_mut().map_or(Ok(()), |parts| parts.record(record))
    }

    fn wants_all(&self) -> bool {
        true
    }
}
