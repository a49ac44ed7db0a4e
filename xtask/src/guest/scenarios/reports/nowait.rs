//! RWF_NOWAIT writes of which most end with EAGAIN, because a time stamp must be updated: one by one
//! they are no finding, but that most of a file's do is reported. The fix is to leave the flag out.
use std::{
    fs::File,
    io,
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;

use super::{Trial, on};
use crate::{
    guest::direct_io::{files::fill, memory::Buffer, request::with_flags},
    host::cmd::text,
};

const PAGE: usize = 4096;
const WRITES: usize = 60;
/// Longer than the granularity of time stamps, so that each write must update them.
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Args, Clone, Debug)]
pub(crate) struct ReportsNowaitArgs {
    file: PathBuf,
    /// Leave RWF_NOWAIT out
    #[arg(long)]
    fixed: bool,
}

/// The program: overwrites blocks of the file, and prints how many writes ended with EAGAIN.
pub(crate) fn program(args: &ReportsNowaitArgs) -> Result<()> {
    let file = File::options().write(true).custom_flags(libc::O_DIRECT).open(&args.file);
    let file = file.with_context(|| format!("cannot open {}", args.file.display()))?;
    let mut buffer = Buffer::new(PAGE)?;
    let flags = if args.fixed { 0 } else { libc::RWF_NOWAIT };
    let mut eagain = 0;
    for n in 0..WRITES {
        thread::sleep(PAUSE);
        let iovec = [libc::iovec { iov_base: buffer.at(0).cast(), iov_len: PAGE }];
        let offset = (n * PAGE) as libc::off_t;
        // SAFETY: one iovec, of our own buffer.
        let wrote =
            unsafe { with_flags(libc::SYS_pwritev2, file.as_raw_fd(), &iovec, offset, flags) };
        let again = io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN);
        eagain += u64::from(wrote < 0 && again);
    }
    println!("{eagain}");
    Ok(())
}

pub(super) fn check(trial: &Trial<'_>, folder: &Path) -> Result<Vec<String>> {
    let file = folder.join("nowait");
    fill(&file, WRITES * PAGE)?;
    let mut wrong = Vec::new();
    let (eagain, rows) = write(trial, &file, &[])?;
    let row = rows.iter().find(|row| row["path"] == text(&file).unwrap_or_default());
    match row {
        // At least half of the writes: a row is due.
        None if eagain * 2 >= WRITES as u64 => wrong.push(format!("no row of {eagain} EAGAIN")),
        None => {}
        Some(row) => {
            let right = row["eagain"] == eagain && row["requests"] == WRITES as u64;
            if !right || row["cause"] != "would-block" || row["op"] != "write" {
                wrong.push(format!("not {eagain} of {WRITES} writes: {row}"));
            }
        }
    }
    // fs/inode.c:file_modified_flags is asked by xfs from 6.0 on.
    if trial.tried.series != "5.10" && eagain * 2 < WRITES as u64 {
        wrong.push(format!("the scenario shows nothing: {eagain} of {WRITES} writes with EAGAIN"));
    }
    let (eagain, rows) = write(trial, &file, &["--fixed"])?;
    if eagain != 0 || !rows.is_empty() {
        wrong.push(format!("the fix failed: {eagain} EAGAIN, {rows:?}"));
    }
    Ok(wrong)
}

/// Runs the program under dio-trace; returns the EAGAIN that it counted, and the summary's rows.
fn write(trial: &Trial<'_>, file: &Path, words: &[&str]) -> Result<(u64, Vec<Value>)> {
    let words = [&["reports-nowait", text(file)?], words].concat();
    let (said, seen, summary) = trial.run_guest(&[], &words)?;
    on(&seen, file, WRITES).map_err(anyhow::Error::msg)?;
    let rows = summary["nowait"].as_array().cloned().unwrap_or_default();
    let eagain = said.trim().parse().with_context(|| format!("the program said {said}"))?;
    Ok((eagain, rows))
}
