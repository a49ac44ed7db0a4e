//! `dio-trace export`: writes the requests of a recording in formats that other programs read.

use std::{
    io::{self, BufWriter, IntoInnerError, IsTerminal as _},
    path::{Path, PathBuf},
};

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::{
    cli::{input::Input, result_file::ResultFile, selection::SelectionArgs},
    flow::sink::Sink,
    output::{
        export::{
            csv::Csv, folded::Folded, parquet::Parquet, partition::Partition, perfetto::Perfetto,
        },
        json_lines::JsonLines,
    },
    recording::replay::Replay,
    util::{escape, private_file, stdio::note},
};

#[derive(Args, Debug)]
pub(super) struct ExportArgs {
    /// A recording; - for stdin
    file: PathBuf,
    #[arg(long, value_enum)]
    format: Format,
    /// Write to this file instead of stdout; it appears only once it is complete
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Overwrite existing files
    #[arg(long)]
    force: bool,
    /// Write Parquet files below this folder, by host and hour: host=…/hour=…/….parquet
    #[arg(long, value_name = "DIR", conflicts_with = "output")]
    partition: Option<PathBuf>,
    #[command(flatten)]
    selection: SelectionArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// The lines of `--json --all`, the summary included (docs/json.md)
    Jsonl,
    /// One line per request, with the fields of jsonl
    Csv,
    /// The fields of jsonl, typed
    Parquet,
    /// A trace for ui.perfetto.dev: files as tracks, requests as slices, findings with their fix
    Perfetto,
    /// Lines for flame graphs: process;file;op/api;verdict;cause count
    Folded,
}

/// Exports a recording.
pub(super) fn run(args: &ExportArgs) -> Result<()> {
    args.selection.check()?;
    anyhow::ensure!(
        args.partition.is_none() || matches!(args.format, Format::Parquet),
        "--partition needs --format parquet"
    );
    let input = Input::open(&args.file)?;
    input.ensure_recording()?;
    match &args.partition {
        Some(folder) => by_hour(args, &input, folder),
        None => to_output(args, &input),
    }
}

fn to_output(args: &ExportArgs, input: &Input) -> Result<()> {
    let out = ResultFile::open(args.output.as_deref(), args.force, &input.file)?;
    let show_progress = out.is_file() || !io::stdout().is_terminal();
    match args.format {
        Format::Parquet => out.ensure_binary("Parquet")?,
        Format::Perfetto => out.ensure_binary("a trace for Perfetto")?,
        Format::Jsonl | Format::Csv | Format::Folded => {}
    }
    let mut out = BufWriter::with_capacity(1 << 18, out);
    let replay = |sink: &mut dyn Sink| input.replay(show_progress, (&args.selection, false), sink);
    let replayed = match args.format {
        Format::Jsonl => {
            let mut lines = JsonLines::new(&mut out);
            let replayed = replay(&mut lines)?;
            lines.summary(&replayed.summary)?;
            replayed
        }
        Format::Csv => replay(&mut Csv::new(&mut out)?)?,
        Format::Parquet => {
            let mut table = Parquet::new(out)?;
            let replayed = replay(&mut table)?;
            out = table.finish()?;
            replayed
        }
        Format::Perfetto => {
            let mut trace = Perfetto::new(&mut out);
            let replayed = replay(&mut trace)?;
            trace.finish()?;
            left_out(trace.left_out());
            replayed
        }
        Format::Folded => {
            let mut lines = Folded::default();
            let replayed = replay(&mut lines)?;
            lines.finish(&mut out)?;
            replayed
        }
    };
    out.into_inner().map_err(IntoInnerError::into_error)?.finish()?;
    note_counts(&replayed);
    Ok(())
}

/// Writes Parquet files to directories by host and hour.
fn by_hour(args: &ExportArgs, input: &Input, folder: &Path) -> Result<()> {
    private_file::remove_at_signals();
    let recording = input.recording(true)?;
    let header = recording.header();
    let mut hours = Partition::new(folder, header, (&input.path, &input.file), args.force);
    let selection = args.selection.selection(header, false);
    let replayed = input.named(recording.replay(selection, &mut hours))?;
    let files = hours.finish()?;
    note!("{files} files in {}", escape::path(folder));
    note_counts(&replayed);
    Ok(())
}

/// Notes on stderr how many requests were exported, and whether the recording is damaged.
fn note_counts(replayed: &Replay) {
    let cut = if replayed.integrity.end.is_none() { "; the recording has no end" } else { "" };
    note!("{} requests, {} bytes damaged{cut}", replayed.shown, replayed.integrity.damaged_bytes);
}

/// Notes on stderr how many requests are not in the output.
fn left_out(requests: u64) {
    if requests != 0 {
        note!("{requests} requests and findings left out: too many tracks");
    }
}
