//! `dio-trace export`: the requests of a recording for other programs.

use std::{
    io::{self, BufWriter, Write},
    path::PathBuf,
};

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::report::read;
use crate::{
    beside::{Mixing, RefusalRow},
    export::{csv, folded::Folded, parquet, perfetto::Perfetto},
    output,
    record::Record,
    report::{Sink, Window},
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
    /// Write over that file if it is there
    #[arg(long, requires = "output")]
    force: bool,
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
    let out: Out = match &args.output {
        Some(path) => Box::new(output::create_from(&args.file, path, args.force)?),
        None => Box::new(io::stdout()),
    };
    let mut out = BufWriter::with_capacity(1 << 18, out);
    let whole = |_: &_| Window::ALL;
    let replayed = match args.format {
        Format::Jsonl => {
            let replayed = read(&args.file, &whole, &mut Lines(&mut out))?;
            serde_json::to_writer(&mut out, &replayed.summary)?;
            out.write_all(b"\n")?;
            replayed
        }
        Format::Csv => {
            let mut rows = Rows(csv::Csv::new(&mut out)?);
            read(&args.file, &whole, &mut rows)?
        }
        Format::Parquet => {
            let mut table = Table(parquet::Parquet::new(&mut out)?);
            let replayed = read(&args.file, &whole, &mut table)?;
            table.0.finish()?;
            replayed
        }
        Format::Perfetto => {
            let mut trace = Trace(Perfetto::new(&mut out));
            let replayed = read(&args.file, &whole, &mut trace)?;
            trace.0.finish()?;
            left_out(trace.0.left_out());
            replayed
        }
        Format::Folded => {
            let mut lines = Stacks(Folded::default());
            let replayed = read(&args.file, &whole, &mut lines)?;
            lines.0.finish(&mut out)?;
            replayed
        }
    };
    out.flush()?;
    let cut = if replayed.cut.end.is_none() { "; it was cut" } else { "" };
    eprintln!(
        "dio-trace: {} requests, {} bytes damaged{cut}",
        replayed.shown, replayed.cut.damaged_bytes
    );
    Ok(())
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
