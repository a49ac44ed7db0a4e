//! Flags of a call: they are in the record, a flag that is not supported is named, and an atomic
//! write is told which rule it breaks. The fix is to leave the flag out, or to keep to the rule.
use std::{
    fs::File,
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::Args;
use io_uring::IoUring;

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
const RWF_ATOMIC: i32 = 0x40;
const RWF_DONTCACHE: i32 = 0x80;

/// The writes of the program, in this order, each at the offset that is its number times
/// [`STEP`]: the flags and the length.
const WRITES: &[(i32, usize)] = &[
    (libc::RWF_DSYNC, PAGE),
    (RWF_DONTCACHE, PAGE),
    (RWF_ATOMIC, 3 * PAGE),
    (RWF_ATOMIC, PAGE),
    (0, 3 * PAGE),
];
const STEP: usize = 4 * PAGE;

#[derive(Args, Clone, Debug)]
pub(crate) struct ReportsFlagsArgs {
    file: PathBuf,
}

/// The program: [`WRITES`], then a read by a ring with a submission thread and one by a ring that
/// polls. Prints the results.
pub(crate) fn program(args: &ReportsFlagsArgs) -> Result<()> {
    // O_DSYNC of the file is not a flag of the call, though the kernel keeps both in one word.
    let open = libc::O_DIRECT | libc::O_DSYNC;
    let file = File::options().read(true).write(true).custom_flags(open).open(&args.file);
    let file = file.with_context(|| format!("cannot open {}", args.file.display()))?;
    let mut buffer = Buffer::new(STEP)?;
    // Linux 7.3.4 crashes there (mm/filemap.c:filemap_dontcache_kick_writeback).
    let crashes = if file.metadata()?.file_type().is_block_device() { RWF_DONTCACHE } else { 0 };
    for (n, (flags, len)) in WRITES.iter().enumerate() {
        let flags = flags & !crashes;
        let call = Call {
            write: true,
            fd: file.as_raw_fd(),
            buffer: buffer.at(0),
            len: *len,
            offset: (n * STEP) as i64,
            cut: 0,
            flags,
        };
        println!("{}", vectored("pwritev2", &call));
    }
    let call = Call {
        write: false,
        fd: file.as_raw_fd(),
        buffer: buffer.at(0),
        len: PAGE,
        offset: 0,
        cut: 0,
        flags: 0,
    };
    for mut ring in
        [IoUring::builder().setup_sqpoll(50).build(8)?, IoUring::builder().setup_iopoll().build(8)?]
    {
        println!("{}", submit(&mut ring, &plain(&call))?);
    }
    Ok(())
}

/// Runs the program; returns its results, and the requests on the file in the order of the calls.
fn run(trial: &Trial<'_>, file: &Path) -> Result<(Vec<i64>, Vec<Seen>)> {
    let (said, seen, _) = trial.run_guest(&[], &["reports-flags", text(file)?])?;
    let results = results(&said)?;
    let count = WRITES.len() + 2;
    let seen = on(&seen, file, count).map_err(anyhow::Error::msg)?;
    Ok((results, seen.into_iter().cloned().collect()))
}

pub(super) fn check(trial: &Trial<'_>, folder: &Path) -> Result<Vec<String>> {
    let file = folder.join("flags");
    fill(&file, WRITES.len() * STEP)?;
    let (results, seen) = run(trial, &file)?;
    let mut wrong = Vec::new();
    let expected: [&[&str]; 7] = [
        &["RWF_DSYNC"],
        &["RWF_DONTCACHE"],
        &["RWF_ATOMIC"],
        &["RWF_ATOMIC"],
        &[],
        &["SQPOLL"],
        &["IOPOLL"],
    ];
    for ((result, seen), flags) in results.iter().zip(&seen).zip(expected) {
        // A worker thread makes what a polling ring could not.
        let named = seen.flags.iter().map(String::as_str).filter(|name| *name != "io-wq");
        if seen.ret != *result || !named.eq(flags.iter().copied()) {
            wrong.push(format!("not {result} with {flags:?}: {seen:?}"));
        }
        if *result == -i64::from(libc::EOPNOTSUPP) {
            let name = if flags == ["IOPOLL"] { "IORING_SETUP_IOPOLL" } else { flags[0] };
            wrong.extend(seen.explained("flag-unsupported", name, "leave that flag out"));
            let named = format!("{name} is not supported here: likely");
            let is_named = seen.why.as_deref().unwrap_or_default().starts_with(&named);
            if is_named == (flags == ["IOPOLL"]) {
                wrong.push(format!("what is proven is not said so: {seen:?}"));
            }
        }
    }
    // The fix, carried out: the first write and the last but two have no flag that needs support.
    if results[0] != PAGE as i64 || results[4] != 3 * PAGE as i64 {
        wrong.push(format!("the fix failed: {results:?}"));
    }
    Ok(wrong)
}

/// The same on a device that takes atomic writes of a page, from 6.11 on.
pub(super) fn check_atomic(trial: &Trial<'_>, device: &Path) -> Result<Vec<String>> {
    let (results, seen) = run(trial, device)?;
    let mut wrong = Vec::new();
    if results[2] == -i64::from(libc::EINVAL) {
        wrong.extend(seen[2].explained(
            "atomic-write",
            "length 12288 is not a power of two (limits of this file: ",
            "write a power of two",
        ));
        // The fix, carried out.
        if results[3] != PAGE as i64 || seen[3].verdict != "direct" {
            wrong.push(format!("the fix failed: {results:?}, {:?}", seen[3]));
        }
    }
    let late = !matches!(trial.tried.series.as_str(), "5.10" | "6.1");
    if late && results[2] != -i64::from(libc::EINVAL) {
        wrong.push(format!("the scenario shows nothing: {results:?}"));
    }
    Ok(wrong)
}
