//! RocksDB's own benchmark (db_bench), with flushes, compaction and reads by O_DIRECT.
use anyhow::{Context, Result};

use crate::{
    guest::{
        apps::{
            reference,
            stage::{Rows, Stage},
            watch::Watch,
        },
        contract::apps::{Counted, Row},
    },
    host::cmd::text,
};

/// db_bench's benchmarks and options.
const CASES: &[(&str, &[&str])] = &[
    ("fillrandom,compact,readrandom", &["--threads=1", "--num=10000"]),
    ("fillrandom,flush,readrandom,multireadrandom", &["--threads=4", "--num=2500"]),
];
const DIRECT: &[&str] = &["--use_direct_reads=1", "--use_direct_io_for_flush_and_compaction=1"];
/// Small tables and a small cache. No log: it is buffered, and slow under strace.
const SIZES: &[&str] = &[
    "--disable_wal=1",
    "--reads=500",
    "--value_size=400",
    "--compression_type=none",
    "--write_buffer_size=1000000",
    "--target_file_size_base=1000000",
    "--cache_size=100000",
    "--open_files=20",
];

pub(super) fn run(stage: &Stage, rows: &mut Rows) -> Result<()> {
    let mut folders = Vec::new();
    for (number, (benchmarks, more)) in CASES.iter().enumerate() {
        for place in &stage.places {
            folders.push((place.setup.fs, benchmarks, more, place.path.join(number.to_string())));
        }
    }
    let watch = Watch::audit(stage)?;
    let mut counted = Vec::new();
    for (_, benchmarks, more, folder) in &folders {
        let benchmarks = format!("--benchmarks={benchmarks}");
        let db = format!("--db={}", text(folder)?);
        let command = [&["db_bench", &benchmarks, &db], DIRECT, SIZES, more].concat();
        counted.push(reference::run(&command));
    }
    let version = version().context("db_bench did not say its version")?;
    let seen = watch.end()?;
    for ((fs, benchmarks, more, folder), counted) in folders.iter().zip(&counted) {
        let mut row = Counted {
            program: version.clone(),
            case: format!("{benchmarks} {}", more.join(" ")),
            fs: (*fs).to_owned(),
            watched: "audit".to_owned(),
            ..Counted::default()
        };
        reference::compare(&mut row, counted, &seen, folder);
        rows.add(&Row::Counted(row))?;
    }
    Ok(())
}

fn version() -> Option<String> {
    let talk = std::fs::read_to_string(reference::TALK).ok()?;
    let line = talk.lines().find(|line| line.contains("version"))?;
    Some(format!("RocksDB {}", line.rsplit(' ').next()?))
}
