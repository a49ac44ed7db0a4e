//! fio with each of its I/O engines; fio's own `total_ios` is the reference count.
use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::{
    guest::{
        apps::{
            stage::{Rows, Stage},
            watch::{Seen, Watch},
        },
        contract::apps::{Counted, Ops, Row},
        direct_io::files::fill,
        fixtures::Place,
    },
    host::cmd::{self, text},
};

/// An I/O engine and its options.
struct Engine {
    words: &'static [&'static str],
    /// Whether the engine makes requests; a mapping does not.
    requests: bool,
}

const fn engine(words: &'static [&'static str]) -> Engine {
    Engine { words, requests: true }
}

const ENGINES: &[Engine] = &[
    engine(&["sync"]),
    engine(&["psync"]),
    engine(&["vsync"]),
    engine(&["pvsync"]),
    engine(&["pvsync2"]),
    engine(&["psync", "numjobs=4"]),
    engine(&["psync", "numjobs=4", "thread"]),
    engine(&["libaio"]),
    engine(&["libaio", "iodepth=32"]),
    engine(&["libaio", "iodepth=32", "numjobs=4"]),
    engine(&["io_uring"]),
    engine(&["io_uring", "iodepth=32"]),
    engine(&["io_uring", "iodepth=32", "fixedbufs"]),
    engine(&["io_uring", "iodepth=32", "registerfiles"]),
    engine(&["io_uring", "iodepth=32", "fixedbufs", "registerfiles"]),
    engine(&["io_uring", "iodepth=32", "nonvectored=0"]),
    engine(&["io_uring", "iodepth=32", "force_async=2"]),
    engine(&["io_uring", "iodepth=32", "sqthread_poll", "registerfiles"]),
    engine(&["io_uring", "iodepth=32", "numjobs=4", "thread"]),
    engine(&["posixaio"]),
    engine(&["posixaio", "iodepth=8"]),
    engine(&["splice"]),
    Engine { words: &["mmap"], requests: false },
];

const PATTERNS: &[&str] = &["read", "write", "randrw"];
/// Bytes of each job's file.
const BYTES: usize = 1 << 20;

/// The part of fio's JSON that is used.
#[derive(Deserialize)]
struct FioReport {
    #[serde(rename = "fio version")]
    version: String,
    jobs: Vec<Job>,
}

#[derive(Deserialize)]
struct Job {
    jobname: String,
    error: i64,
    read: Direction,
    write: Direction,
}

#[derive(Deserialize)]
struct Direction {
    total_ios: u64,
    short_ios: u64,
    drop_ios: u64,
}

/// The result of an engine's run. The files of each file system are in a separate folder.
struct Ran<'a> {
    engine: &'a Engine,
    /// File system type and folder.
    folders: Vec<(&'static str, PathBuf)>,
    report: Result<FioReport>,
}

pub(super) fn run(stage: &Stage, rows: &mut Rows) -> Result<()> {
    let mut ready = Vec::new();
    for (number, engine) in ENGINES.iter().enumerate() {
        let folder = |place: &Place| (place.setup.fs, place.path.join(number.to_string()));
        let folders: Vec<_> = stage.places.iter().map(folder).collect();
        for (_, folder) in &folders {
            std::fs::create_dir(folder)?;
            for pattern in PATTERNS {
                fill(&folder.join(pattern), BYTES)?;
            }
        }
        ready.push((engine, folders));
    }
    let watch = Watch::audit(stage)?;
    let ran: Vec<Ran<'_>> = ready
        .into_iter()
        .map(|(engine, folders)| Ran { report: fio(engine, &folders), engine, folders })
        .collect();
    let seen = watch.end()?;
    for ran in &ran {
        for (fs, folder) in &ran.folders {
            for pattern in PATTERNS {
                rows.add(&Row::Counted(row(ran, fs, &folder.join(pattern), pattern, &seen)))?;
            }
        }
    }
    Ok(())
}

fn job_name(fs: &str, pattern: &str) -> String {
    format!("{fs}-{pattern}")
}

/// Runs fio with an engine, one file after another.
fn fio(engine: &Engine, folders: &[(&str, PathBuf)]) -> Result<FioReport> {
    let mut command = Command::new("fio");
    // fio writes state files to the current folder.
    command.current_dir("/tmp").args(["--output-format=json", "--randseed=1"]);
    for (fs, folder) in folders {
        for pattern in PATTERNS {
            command.arg(format!("--name={}", job_name(fs, pattern)));
            command.arg(format!("--filename={}", text(&folder.join(pattern))?));
            command.arg(format!("--rw={pattern}"));
            command.arg(format!("--ioengine={}", engine.words[0]));
            command.args(engine.words[1..].iter().map(|word| format!("--{word}")));
            command.args(["--direct=1", "--bs=4k", "--stonewall"]);
        }
    }
    let out = cmd::output(&mut command)?;
    // fio may print notes before the JSON.
    let json = out.find('{').map_or("", |at| &out[at..]);
    serde_json::from_str(json).with_context(|| format!("no JSON of fio's: {out}"))
}

fn row(ran: &Ran<'_>, fs: &str, file: &Path, pattern: &str, seen: &Seen) -> Counted {
    let part = seen.below(file);
    let mut row = Counted {
        case: ran.engine.words.join(" "),
        part: pattern.to_owned(),
        fs: fs.to_owned(),
        watched: "audit".to_owned(),
        reference: "fio's total_ios".to_owned(),
        seen: part.ops,
        verdicts: part.verdicts,
        missing: seen.missing(),
        ..Counted::default()
    };
    match &ran.report {
        Ok(json) => {
            row.program.clone_from(&json.version);
            let name = job_name(fs, pattern);
            json.jobs.iter().filter(|job| job.jobname == name).for_each(|job| count(job, &mut row));
        }
        Err(error) => row.complaints.push(format!("{error:#}")),
    }
    if !ran.engine.requests {
        row.reference = "a mapping makes none".to_owned();
        row.wanted = Ops::default();
    }
    row
}

/// Adds the counts and errors that fio reports for one job.
fn count(job: &Job, row: &mut Counted) {
    row.wanted += Ops { reads: job.read.total_ios, writes: job.write.total_ios };
    if job.error != 0 {
        row.complaints.push(format!("fio's job ended with error {}", job.error));
    }
    for direction in [&job.read, &job.write] {
        // fio issues the rest of a short request again without counting it.
        if direction.short_ios + direction.drop_ios != 0 {
            row.complaints.push(format!(
                "fio: {} short, {} dropped",
                direction.short_ios, direction.drop_ios
            ));
        }
    }
}
