//! A program that tries alignments out, as QEMU does: its refused reads are one note, and no findings.
//! A program that reads 1000 bytes, or that never reads anything that works, does not try out.
use std::{
    fs::{self, File},
    io,
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::Trial;
use crate::{
    guest::{
        direct_io::{files::fill, memory::Buffer},
        harness::{Traces, not_ended_with},
    },
    host::{cmd::text, paths},
};

const PAGE: usize = 4096;
/// The steps of QEMU (block/file-posix.c:raw_probe_alignment).
const STEPS: [usize; 5] = [1, 512, 1024, 2048, 4096];
/// Exit code of `run --fail-on` if a rule failed.
const FAILED: i32 = 3;

/// How the program reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Way {
    /// Lengths until one works, then buffer addresses until one works, and then the file.
    Probe,
    /// Only buffer addresses, as QEMU does where it is told the length (xfs, block devices).
    Buffers,
    /// 1000 bytes, and then the file.
    Odd,
    /// Lengths that are refused, and nothing that works.
    Never,
}

impl Way {
    const fn word(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Buffers => "buffers",
            Self::Odd => "odd",
            Self::Never => "never",
        }
    }

    const fn is_probe(self) -> bool {
        matches!(self, Self::Probe | Self::Buffers)
    }
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ReportsProbingArgs {
    file: PathBuf,
    #[arg(long, value_enum)]
    way: Way,
}

/// The program: prints how many of its reads ended with EINVAL.
pub(crate) fn program(args: &ReportsProbingArgs) -> Result<()> {
    let file = File::options().read(true).custom_flags(libc::O_DIRECT).open(&args.file);
    let file = file.with_context(|| format!("cannot open {}", args.file.display()))?;
    let mut buffer = Buffer::new(4 * PAGE)?;
    let mut refused = 0;
    // True if the read works; counts it otherwise.
    let mut works = |past: usize, len: usize, offset: usize| {
        let works = pread(&file, buffer.at(past), len, offset);
        refused += u32::from(!works);
        works
    };
    match args.way {
        Way::Probe => {
            STEPS.iter().any(|len| works(0, *len, 0));
            STEPS.iter().any(|past| works(*past, PAGE, 0));
        }
        Way::Buffers => _ = STEPS.iter().any(|past| works(*past, PAGE, 0)),
        Way::Odd => _ = works(0, 1000, 0),
        Way::Never => [1, 256].iter().for_each(|len| _ = works(0, *len, 0)),
    }
    if args.way != Way::Never {
        (0..4).for_each(|n| _ = works(0, PAGE, n * PAGE));
    }
    println!("{refused}");
    Ok(())
}

/// True unless the read ends with EINVAL.
fn pread(file: &File, buffer: *mut u8, len: usize, offset: usize) -> bool {
    // SAFETY: the kernel writes at most `len` bytes into our own mapping of four pages.
    let read = unsafe { libc::pread(file.as_raw_fd(), buffer.cast(), len, offset as libc::off_t) };
    read >= 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL)
}

/// Each way, with and without `--all`.
pub(super) fn check(trial: &Trial<'_>, folder: &Path) -> Result<Vec<String>> {
    tried(
        trial,
        folder,
        &[
            (Way::Probe, true),
            (Way::Probe, false),
            (Way::Buffers, true),
            (Way::Buffers, false),
            (Way::Odd, true),
            (Way::Odd, false),
            (Way::Never, false),
        ],
    )
}

/// The same where a file needs 4096 bytes, so that more steps are refused.
pub(super) fn check_4kn(trial: &Trial<'_>, folder: &Path) -> Result<Vec<String>> {
    tried(trial, folder, &[(Way::Probe, true), (Way::Probe, false)])
}

fn tried(trial: &Trial<'_>, folder: &Path, ways: &[(Way, bool)]) -> Result<Vec<String>> {
    let file = folder.join("probed");
    fill(&file, 4 * PAGE)?;
    let mut wrong = Vec::new();
    for &(way, all) in ways {
        let mismatches = Traced::run(trial, &file, way, all)?.mismatches(way, all);
        let name = format!("{} {}", way.word(), if all { "with --all" } else { "" });
        wrong.extend(mismatches.into_iter().map(|text| format!("{name}: {text}")));
    }
    fs::remove_file(&file)?;
    Ok(wrong)
}

/// What the program counted, and what dio-trace wrote about it.
struct Traced {
    /// Reads that ended with EINVAL, as the program counted them.
    refused: u64,
    /// The requests on the file.
    lines: Vec<Value>,
    summary: Value,
    /// The mismatch if dio-trace ended with another code than `--fail-on refused` asks for.
    code: Option<String>,
}

impl Traced {
    /// Runs the program under dio-trace.
    fn run(trial: &Trial<'_>, file: &Path, way: Way, all: bool) -> Result<Self> {
        let traces = Traces::new(trial.out, "reports");
        let me = paths::own_program()?;
        let mut tool = trial.plain_tool("run", &traces)?;
        tool.args(["--json", "--fail-on", "refused"]).args(all.then_some("--all"));
        tool.args(["--", text(&me)?]);
        tool.args(["guest", "reports-probing", text(file)?, "--way", way.word()]);
        let output = tool.output().context("cannot start dio-trace")?;
        let json = fs::read_to_string(&traces.json).context("dio-trace wrote no JSON")?;
        let lines: Result<Vec<Value>, _> = json.lines().map(serde_json::from_str).collect();
        let mut lines = lines?;
        let summary = lines.pop().context("dio-trace wrote nothing")?;
        lines.retain(|line| line["path"] == text(file).unwrap_or_default());
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let refused = said.trim().parse().with_context(|| format!("the program said {said}"))?;
        let code = not_ended_with(&output, if way.is_probe() { 0 } else { FAILED });
        Ok(Self { refused, lines, summary, code })
    }

    fn mismatches(&self, way: Way, all: bool) -> Vec<String> {
        let mut wrong: Vec<String> = self.code.iter().cloned().collect();
        let is_refused = |line: &&Value| line["errno"] == "EINVAL";
        let refused: Vec<&Value> = self.lines.iter().filter(is_refused).collect();
        let (notes, found) = if way.is_probe() { (self.refused, 0) } else { (0, self.refused) };
        let shown = if all { self.refused } else { found };
        let rows = self.summary["alignment_probes"].as_array().cloned().unwrap_or_default();
        let noted: u64 = rows.iter().filter_map(|row| row["requests"].as_u64()).sum();
        for (what, is, wanted) in [
            ("refused reads of the program", self.refused.min(1), 1),
            ("refused", self.summary["requests"]["refused"].as_u64().unwrap_or(0), self.refused),
            ("findings", self.summary["findings"].as_u64().unwrap_or(u64::MAX), found),
            ("rows of probes", rows.len() as u64, notes.min(1)),
            ("requests of probes", noted, notes),
            ("lines of refused reads", refused.len() as u64, shown),
        ] {
            if is != wanted {
                wrong.push(format!("{is} {what}, not {wanted}: {}", self.summary));
            }
        }
        wrong.extend(refused.iter().filter(|line| !is_right(line, way)).map(|l| l.to_string()));
        wrong
    }
}

/// True if a refused read has the cause of its kind, and a fix only if something is wrong.
fn is_right(line: &Value, way: Way) -> bool {
    if way.is_probe() {
        line["cause"] == "alignment-probe" && line["fix"].is_null() && line["finding"] == false
    } else {
        line["cause"] == "misaligned" && line["fix"].is_string() && line["finding"] == true
    }
}
