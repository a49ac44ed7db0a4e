//! Three questions that users ask, answered by a recording and its report: docs/questions.md has the
//! first lines of each.
use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command},
};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use crate::{
    guest::{
        apps::postgres::Served,
        contract::questions::Answer,
        direct_io::memory::Buffer,
        fixtures::{self, Place, ROOT},
        harness::{Traces, stop, wait_until_tracing},
    },
    host::{
        cmd::{self, say, text},
        paths,
    },
};

#[derive(Args, Clone, Debug)]
pub(crate) struct QuestionsArgs {
    /// Path of the dio-trace binary
    #[arg(long)]
    tool: PathBuf,
    /// File to write the answer to, as a line of JSON
    #[arg(long)]
    out: PathBuf,
    #[arg(long)]
    question: Question,
    /// The folder that PostgreSQL was fetched to
    #[arg(long)]
    postgres: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Question {
    /// Is my PostgreSQL direct?
    Postgres,
    /// Why did the benchmark drop after the kernel upgrade?
    Upgrade,
    /// Which of 2,000 files fall back, and what do I do?
    Files,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct QuestionsReaderArgs {
    folders: Vec<PathBuf>,
}

impl QuestionsReaderArgs {
    pub(crate) const fn of(folders: Vec<PathBuf>) -> Self {
        Self { folders }
    }
}

/// Lines of a report that are shown: a terminal of 80x24.
const SHOWN: usize = 24;
const PAGE: usize = 4096;
/// Files of the third question, and how many of them are on the file system with compression.
const FILES: usize = 2000;
const COMPRESSED: usize = 340;

/// A recording, and the commands that made it and show it.
struct Recorded {
    file: PathBuf,
    commands: Vec<String>,
}

pub(crate) fn main(args: &QuestionsArgs) -> Result<u8> {
    let recorded = match args.question {
        Question::Postgres => postgres(args)?,
        Question::Upgrade => upgrade(args)?,
        Question::Files => files(args)?,
    };
    let answer = report(&args.tool, recorded)?;
    say(format!("{}\n{}", answer.commands.join("\n"), answer.lines.join("\n")));
    let mut out = File::create(&args.out).context("cannot write the answer")?;
    writeln!(out, "{}", serde_json::to_string(&answer)?)?;
    fixtures::clear(Path::new(ROOT))?;
    Ok(0)
}

/// Shows a recording as a terminal would.
fn report(tool: &Path, recorded: Recorded) -> Result<Answer> {
    let Recorded { file, mut commands } = recorded;
    let name = file.file_name().and_then(|name| name.to_str()).context("a name")?;
    let shown = cmd::output(
        Command::new(tool)
            .arg("report")
            .arg(name)
            .current_dir(file.parent().context("a folder")?)
            .env("COLUMNS", "80"),
    )?;
    commands.push(format!("dio-trace report {name} | head -{SHOWN}"));
    Ok(Answer { commands, lines: shown.lines().take(SHOWN).map(str::to_owned).collect() })
}

/// Starts `record`, which ends with SIGINT or with its command.
fn record(tool: &Path, file: &Path, words: &[&str]) -> Result<(Child, Traces)> {
    let traces = Traces::new(Path::new("/tmp"), "question");
    let child = Command::new(tool)
        .args(["record", "--all", "-o", text(file)?])
        .args(words)
        .stderr(File::create(&traces.talk)?)
        .spawn()
        .context("cannot start dio-trace")?;
    Ok((child, traces))
}

/// Attaches to a server that runs, and gives it work.
fn postgres(args: &QuestionsArgs) -> Result<Recorded> {
    let fetched = args.postgres.as_ref().context("PostgreSQL was not fetched")?;
    let places = fixtures::make_bare(&["ext4-512"])?;
    let server = Served::start(fetched, &places[0].path)?;
    let file = PathBuf::from("/tmp/pg.dio");
    let pid = server.pid()?.to_string();
    let (mut child, traces) = record(&args.tool, &file, &["attach", "-p", &pid])?;
    wait_until_tracing(&mut child, &traces)?;
    server.work()?;
    stop(child, &traces)?;
    server.stop()?;
    let commands = vec![format!("sudo dio-trace record --all -p {pid} -o pg.dio")];
    Ok(Recorded { file, commands })
}

/// Runs a benchmark that writes to a btrfs.
fn upgrade(args: &QuestionsArgs) -> Result<Recorded> {
    let places = fixtures::make_bare(&["btrfs"])?;
    let data = places[0].path.join("bench");
    let file = PathBuf::from("/tmp/bench.dio");
    let path = format!("--filename={}", data.display());
    let job = [
        "fio",
        "--name=bench",
        &path,
        "--size=4M",
        "--rw=randwrite",
        "--bs=16k",
        "--direct=1",
        "--ioengine=libaio",
        "--iodepth=8",
        "--number_ios=500",
    ];
    let (mut child, traces) = record(&args.tool, &file, &[&["run", "--"], &job[..]].concat())?;
    let status = child.wait()?;
    ensure!(status.success(), "{}", fs::read_to_string(&traces.talk)?);
    let commands =
        vec![format!("sudo dio-trace record --all -o bench.dio run -- {}", job.join(" "))];
    Ok(Recorded { file, commands })
}

/// Runs a program that reads many files, of which some are compressed.
fn files(args: &QuestionsArgs) -> Result<Recorded> {
    let places = fixtures::make_bare(&["ext4-512", "btrfs-zstd"])?;
    let folders: Vec<PathBuf> = places.iter().map(|place| place.path.join("vectors")).collect();
    for (folder, numbers) in folders.iter().zip([COMPRESSED..FILES, 0..COMPRESSED]) {
        fs::create_dir(folder)?;
        numbers.into_iter().try_for_each(|number| {
            fs::write(folder.join(format!("{number:04}.seg")), vec![b'.'; 4 * PAGE])
        })?;
    }
    sync(&places)?;
    let program = "/tmp/vectord";
    fs::copy(paths::own_program()?, program)?;
    let file = PathBuf::from("/tmp/vectors.dio");
    let mut words = vec!["run", "--", program, "guest", "questions-reader"];
    words.extend(folders.iter().map(|folder| text(folder)).collect::<Result<Vec<_>>>()?);
    let (mut child, traces) = record(&args.tool, &file, &words)?;
    let status = child.wait()?;
    ensure!(status.success(), "{}", fs::read_to_string(&traces.talk)?);
    let commands = vec!["sudo dio-trace record --all -o vectors.dio run -- vectord".to_owned()];
    Ok(Recorded { file, commands })
}

/// Writes back what was written through the page cache.
fn sync(places: &[Place]) -> Result<()> {
    places.iter().try_for_each(|place| {
        cmd::output(Command::new("sync").arg("-f").arg(&place.path)).map(drop)
    })
}

/// Reads the first pages of every file with O_DIRECT.
pub(crate) fn reader(args: &QuestionsReaderArgs) -> Result<()> {
    let mut buffer = Buffer::new(PAGE)?;
    for folder in &args.folders {
        for entry in fs::read_dir(folder)? {
            let mut file =
                File::options().read(true).custom_flags(libc::O_DIRECT).open(entry?.path())?;
            for _ in 0..3 {
                // SAFETY: a buffer of a page, which lives longer than the slice.
                let page = unsafe { std::slice::from_raw_parts_mut(buffer.at(0), PAGE) };
                file.read_exact(page)?;
            }
        }
    }
    Ok(())
}
