//! A buffer that another thread changes while it is written: `--verify-stable` finds it. The fix is
//! to write from a copy.
use std::{
    fs::File,
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::{Trial, on};
use crate::{
    guest::direct_io::{files::fill, memory::Buffer},
    host::cmd::text,
};

const LEN: usize = 1 << 20;
const WRITES: usize = 40;

#[derive(Args, Clone, Debug)]
pub(crate) struct ReportsStableArgs {
    file: PathBuf,
    /// Write from a copy that nobody changes
    #[arg(long)]
    fixed: bool,
}

/// The program: a thread counts in the first word of a page that another one writes.
pub(crate) fn program(args: &ReportsStableArgs) -> Result<()> {
    let file = File::options().write(true).custom_flags(libc::O_DIRECT).open(&args.file);
    let file = file.with_context(|| format!("cannot open {}", args.file.display()))?;
    let (mut shared, mut copy) = (Buffer::new(LEN)?, Buffer::new(LEN)?);
    // SAFETY: the first word of a page-aligned buffer, which outlives the scope below and is only
    // accessed through this atomic there.
    let word = unsafe { AtomicU64::from_ptr(shared.at(0).cast()) };
    let source = if args.fixed { copy.at(0) } else { shared.at(0) };
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                word.fetch_add(1, Ordering::Relaxed);
            }
        });
        for _ in 0..WRITES {
            // SAFETY: our own buffer of that length.
            let wrote = unsafe { libc::pwrite(file.as_raw_fd(), source.cast(), LEN, 0) };
            if wrote != LEN as isize {
                done.store(true, Ordering::Relaxed);
                bail!("a write returned {wrote}");
            }
        }
        done.store(true, Ordering::Relaxed);
        Ok(())
    })
}

pub(super) fn check(trial: &Trial<'_>, folder: &Path) -> Result<Vec<String>> {
    let file = folder.join("stable");
    fill(&file, LEN)?;
    let mut wrong = Vec::new();
    let (changed, compared) = write(trial, &file, &[], &mut wrong)?;
    // How many is a matter of scheduling.
    if changed == 0 || compared != WRITES as u64 {
        wrong.push(format!("{changed} of {compared} compared buffers had changed"));
    }
    let (changed, compared) = write(trial, &file, &["--fixed"], &mut wrong)?;
    if changed != 0 || compared != WRITES as u64 {
        wrong.push(format!("the fix failed: {changed} of {compared} buffers had changed"));
    }
    Ok(wrong)
}

/// Runs the program; returns the findings, and the number of buffers that were compared.
fn write(
    trial: &Trial<'_>,
    file: &Path,
    words: &[&str],
    wrong: &mut Vec<String>,
) -> Result<(usize, u64)> {
    let words = [&["reports-stable", text(file)?], words].concat();
    let (_, seen, summary) = trial.run_guest(&["--verify-stable"], &words)?;
    let seen = on(&seen, file, WRITES).map_err(anyhow::Error::msg)?;
    let findings: Vec<_> = seen.iter().filter(|seen| seen.finding).collect();
    for finding in &findings {
        wrong.extend(finding.explained("buffer-changed", "was changed", "write from a copy"));
    }
    Ok((findings.len(), summary["buffers_compared"].as_u64().unwrap_or(0)))
}
