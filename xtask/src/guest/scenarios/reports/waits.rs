//! `--why-eagain`: what requests that must not wait would have waited for, and why io_uring hands
//! requests to its workers.
use std::{
    fs::File,
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use io_uring::IoUring;
use serde_json::Value;

use super::{Seen, Trial, on, results};
use crate::{
    guest::direct_io::{
        files::fill,
        memory::Buffer,
        request::{Call, plain, submit, vectored},
    },
    host::cmd::text,
};

const PAGE: usize = 4096;
const COUNT: usize = 30;
/// Longer than the granularity of time stamps, so that each write must update them.
const PAUSE: Duration = Duration::from_millis(20);
const OPTIONS: &[&str] = &["--why-eagain"];

/// What the program does.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// Writes with RWF_NOWAIT
    Nowait,
    /// Writes by io_uring
    Ring,
    /// Reads with RWF_NOWAIT of pages that are dirty in the page cache
    Dirty,
    /// Reads with RWF_NOWAIT while another thread holds the lock of the inode
    Locked,
}

impl What {
    fn word(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ReportsWaitsArgs {
    what: What,
    file: PathBuf,
}

/// The program; prints the result of each request.
pub(crate) fn program(args: &ReportsWaitsArgs) -> Result<()> {
    let open = |flags| {
        let file = File::options().read(true).write(true).custom_flags(flags).open(&args.file);
        file.with_context(|| format!("cannot open {}", args.file.display()))
    };
    let (file, cached) = (open(libc::O_DIRECT)?, open(0)?);
    let mut buffer = Buffer::new(PAGE)?;
    let call = |write: bool, n: usize, buffer: *mut u8| Call {
        write,
        fd: file.as_raw_fd(),
        buffer,
        len: PAGE,
        offset: (n * PAGE) as i64,
        cut: 0,
        flags: libc::RWF_NOWAIT,
    };
    let mut results = Vec::new();
    match args.what {
        What::Nowait => {
            for n in 0..COUNT {
                thread::sleep(PAUSE);
                results.push(nowait(&call(true, n, buffer.at(0))));
            }
        }
        What::Ring => {
            let mut ring = IoUring::new(8).context("no io_uring")?;
            for n in 0..COUNT {
                thread::sleep(PAUSE);
                results.push(submit(&mut ring, &plain(&call(true, n, buffer.at(0))))?);
            }
        }
        What::Dirty => {
            for n in 0..COUNT {
                cached.write_at(&[1; PAGE], (n * PAGE) as u64)?;
                results.push(nowait(&call(false, n, buffer.at(0))));
            }
        }
        What::Locked => {
            results =
                while_locked(&cached, &mut |n| nowait(&call(false, n % COUNT, buffer.at(0))))?;
        }
    }
    for result in results {
        println!("{result}");
    }
    Ok(())
}

/// Makes requests while a thread writes 32 MiB, behind the range of the requests, to the page cache
/// in one call, which holds the lock of the inode.
fn while_locked(cached: &File, request: &mut dyn FnMut(usize) -> i64) -> Result<Vec<i64>> {
    const BULK: usize = 32 << 20;
    let (begun, done) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let bulk = vec![1; BULK];
            begun.store(true, Ordering::Relaxed);
            let wrote = cached.write_at(&bulk, (COUNT * PAGE) as u64);
            done.store(true, Ordering::Relaxed);
            wrote
        });
        while !begun.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        let mut results = Vec::new();
        while !done.load(Ordering::Relaxed) && results.len() < 1000 {
            results.push(request(results.len()));
            thread::yield_now();
        }
        writer.join().ok().context("the writing thread died")??;
        Ok(results)
    })
}

fn nowait(call: &Call) -> i64 {
    vectored(if call.write { "pwritev2" } else { "preadv2" }, call)
}

/// Runs the program; returns its results, the requests, and the summary's rows.
fn run(trial: &Trial<'_>, what: What, file: &Path) -> Result<(Vec<i64>, Vec<Seen>, Vec<Value>)> {
    let words = ["reports-waits", &what.word(), text(file)?];
    let (said, seen, summary) = trial.run_guest(OPTIONS, &words)?;
    let results = results(&said)?;
    let seen = on(&seen, file, results.len()).map_err(anyhow::Error::msg)?;
    let rows = summary["nowait"].as_array().cloned().unwrap_or_default();
    Ok((results, seen.into_iter().cloned().collect(), rows))
}

/// The number of requests that ended with EAGAIN, and the mismatches of those for which another
/// reason than this one is given.
fn eagain(seen: &[Seen], reason: &str, words: &str) -> (usize, Vec<String>) {
    let ended: Vec<&Seen> =
        seen.iter().filter(|seen| seen.ret == -i64::from(libc::EAGAIN)).collect();
    let wrong = ended.iter().flat_map(|seen| {
        let other = (seen.would_block != [reason]).then(|| format!("not {reason} alone: {seen:?}"));
        let likely = seen.why.as_deref().unwrap_or_default().contains("likely");
        let guess = likely.then(|| format!("a guess: {seen:?}"));
        other.into_iter().chain(guess).chain(seen.explained("would-block", words, "RWF_NOWAIT"))
    });
    (ended.len(), wrong.collect())
}

/// Time stamps that each write must update: RWF_NOWAIT gains nothing, and io_uring uses its workers.
pub(super) fn check_timestamps(trial: &Trial<'_>, folder: &Path) -> Result<Vec<String>> {
    let file = folder.join("stamps");
    fill(&file, COUNT * PAGE)?;
    let (_, seen, rows) = run(trial, What::Nowait, &file)?;
    let (count, mut wrong) = eagain(&seen, "timestamp", "a time stamp or the version of the file");
    let row = rows.iter().find(|row| row["cause"] == "would-block");
    let why = row.and_then(|row| row["why"].as_str()).unwrap_or_default();
    let told = why.ends_with(&format!("or setuid bits to remove ({count})"));
    if count * 2 >= COUNT && !told {
        wrong.push(format!("{count} EAGAIN, and the rows are {rows:?}"));
    }
    let (_, seen, rows) = run(trial, What::Ring, &file)?;
    let punted = seen.iter().filter(|seen| seen.flags == ["io-wq"]);
    let punted: Vec<&Seen> = punted.collect();
    for seen in &punted {
        let noted = seen.cause.as_deref() == Some("punted");
        if seen.verdict != "direct" || seen.would_block != ["timestamp"] || !noted {
            wrong.push(format!("not a punted direct write: {seen:?}"));
        }
    }
    let row = rows.iter().find(|row| row["cause"] == "punted");
    if punted.len() * 2 >= COUNT && row.is_none_or(|row| row["punted"] != punted.len() as u64) {
        wrong.push(format!("{} punted, and the rows are {rows:?}", punted.len()));
    }
    // fs/inode.c:kiocb_modified is asked by xfs from 6.0 on.
    if trial.tried.series != "5.10" && (count * 2 < COUNT || punted.len() * 2 < COUNT) {
        wrong.push(format!("the scenario shows nothing: {count}, {}", punted.len()));
    }
    Ok(wrong)
}

/// Dirty pages in the range, and a lock that another thread holds.
pub(super) fn check_ext4(trial: &Trial<'_>, folder: &Path) -> Result<Vec<String>> {
    let file = folder.join("waits");
    fill(&file, COUNT * PAGE)?;
    let (_, seen, _) = run(trial, What::Dirty, &file)?;
    // 5.10 asks for any page (fs/iomap/direct-io.c:__iomap_dio_rw, mm/filemap.c).
    let (reason, words) = if trial.tried.series == "5.10" {
        ("cached-pages", "its range had pages in the page cache")
    } else {
        ("dirty-pages", "had to be written back")
    };
    let (count, mut wrong) = eagain(&seen, reason, words);
    if count * 2 < COUNT {
        wrong.push(format!("the scenario shows nothing: {count} EAGAIN by dirty pages"));
    }
    // Another file: the pages of the first one may still be dirty.
    let file = folder.join("locked");
    fill(&file, COUNT * PAGE)?;
    let (_, seen, _) = run(trial, What::Locked, &file)?;
    // Only fentry can tell which lock a function tried.
    if trial.tried.attach == "fentry" {
        let (count, mismatches) =
            eagain(&seen, "inode-lock", "another thread held the lock of the inode");
        wrong.extend(mismatches);
        if count == 0 {
            wrong.push("the scenario shows nothing: no EAGAIN by a lock".to_owned());
        }
    }
    Ok(wrong)
}
