//! Which processes are reported for mixed access. Not reported must be: a new file with a deleted
//! file's inode number, the kernel's writeback, and dio-trace's own self-test. Reported must be a
//! program that mixes with itself, but not after the remedies that `mixed-self` and
//! `cache-invalidated` name. A program that reads directly and falls back is not reported either,
//! while dio-trace attaches to it and detaches.
use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::Value;

use crate::{
    guest::{
        direct_io::{
            files::{drop_pages, open_direct},
            memory::Buffer,
        },
        fixtures::Place,
        harness::{Tried, not_ended_with},
    },
    host::cmd::text,
};

/// The number of runs of dio-trace.
pub(crate) const RUNS: u64 = 2;
pub(crate) const SETUPS: &[&str] = &["ext4-512", "ext4-journal"];

const BLOCK: usize = 4096;
/// Bytes of the tail, which is shorter than a block.
const TAIL: usize = 1000;
/// The number of files that are deleted and replaced by a new file.
const REUSED: usize = 3;
/// The file that is read by the program that falls back.
const FALLS_BACK: &str = "falls-back";

#[derive(Args, Clone, Debug)]
pub(crate) struct InnocentArgs {
    /// Folder on a file system where O_DIRECT is direct
    #[arg(long)]
    direct: PathBuf,
    /// Folder on a file system that journals data
    #[arg(long)]
    journal: PathBuf,
    /// Read directly from the second folder, where each read falls back, until killed
    #[arg(long)]
    fall_back: bool,
}

/// The program: uses files in each of these ways.
pub(crate) fn program(args: &InnocentArgs) -> Result<()> {
    let mut buffer = Buffer::new(2 * BLOCK)?;
    if args.fall_back {
        return fall_back(&args.journal.join(FALLS_BACK), &mut buffer);
    }
    new_small_file(&args.direct)?;
    reuse_inodes(&args.direct, &mut buffer)?;
    write_tail_buffered(&args.direct.join("tail-buffered"), &mut buffer)?;
    write_tail_padded(&args.direct.join("tail-padded"), &mut buffer)?;
    read_tail_directly(&args.direct.join("tail-read"), &mut buffer)?;
    make_buffered(&args.direct.join("made-buffered"), false, &mut buffer)?;
    make_buffered(&args.direct.join("made-and-dropped"), true, &mut buffer)?;
    write_back_journal(&args.journal.join("journaled"), &mut buffer)
}

fn create(path: &Path, flags: i32) -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(flags)
        .open(path)
}

/// Makes small files, one of which may get the inode number of the self-test's unnamed file.
fn new_small_file(folder: &Path) -> Result<()> {
    for n in 0..4 {
        fs::write(folder.join(format!("new-{n}")), b"x\n")?;
    }
    Ok(())
}

/// Deletes a log that was written directly, so that a new, buffered file gets its inode number.
fn reuse_inodes(folder: &Path, buffer: &mut Buffer) -> Result<()> {
    let mut same = 0;
    for n in 0..REUSED {
        let old = folder.join(format!("old-{n}.wal"));
        let file = create(&old, libc::O_DIRECT)?;
        file.write_all_at(&buffer.bytes()[..BLOCK], 0)?;
        let ino = file.metadata()?.ino();
        drop(file);
        fs::remove_file(&old)?;
        let new = create(&folder.join(format!("new-{n}.log")), 0)?;
        new.write_all_at(&[b'x'; BLOCK], 0)?;
        same += u32::from(new.metadata()?.ino() == ino);
    }
    ensure!(same != 0, "no inode number was used again: this shows nothing");
    Ok(())
}

/// Writes the tail buffered as dd and nginx do: clears O_DIRECT for the bytes that do not fill a
/// block.
fn write_tail_buffered(path: &Path, buffer: &mut Buffer) -> Result<()> {
    let file = create(path, libc::O_DIRECT)?;
    file.write_all_at(&buffer.bytes()[..BLOCK], 0)?;
    // SAFETY: flags of our own descriptor.
    let cleared = unsafe {
        let flags = libc::fcntl(file.as_raw_fd(), libc::F_GETFL);
        libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags & !libc::O_DIRECT)
    };
    ensure!(cleared == 0, "O_DIRECT cannot be cleared");
    Ok(file.write_all_at(&[b'x'; TAIL], BLOCK as u64)?)
}

/// The remedy of `mixed-self` for a tail that is written: writes a whole block.
fn write_tail_padded(path: &Path, buffer: &mut Buffer) -> Result<()> {
    let file = create(path, libc::O_DIRECT)?;
    file.write_all_at(&buffer.bytes()[..BLOCK], 0)?;
    Ok(file.write_all_at(&buffer.bytes()[..BLOCK], BLOCK as u64)?)
}

/// The remedy of `mixed-self` for a tail that is read: asks for a whole block.
fn read_tail_directly(path: &Path, buffer: &mut Buffer) -> Result<()> {
    let file = create(path, 0)?;
    file.write_all_at(&vec![b'x'; BLOCK + TAIL], 0)?;
    drop_pages(&file)?;
    let direct = open_direct(path)?;
    let got = direct.read_at(&mut buffer.bytes()[..BLOCK], BLOCK as u64)?;
    ensure!(got == TAIL, "the tail has {got} bytes");
    Ok(())
}

/// Makes a file through the page cache and then writes it directly. `dropped`: applies the remedy
/// of `cache-invalidated` in between.
fn make_buffered(path: &Path, dropped: bool, buffer: &mut Buffer) -> Result<()> {
    let file = create(path, 0)?;
    file.write_all_at(&[b'x'; 2 * BLOCK], 0)?;
    file.sync_all()?;
    if dropped {
        drop_pages(&file)?;
    }
    let direct = File::options().write(true).custom_flags(libc::O_DIRECT).open(path)?;
    Ok(direct.write_all_at(&buffer.bytes()[..BLOCK], 0)?)
}

/// Triggers writeback with data=journal, which dirties pages again, both in the kernel's threads
/// and in the process that asks for it.
fn write_back_journal(path: &Path, buffer: &mut Buffer) -> Result<()> {
    let file = create(path, libc::O_DIRECT)?;
    for _ in 0..3 {
        file.write_all_at(buffer.bytes(), 0)?;
        // SAFETY: no memory is involved.
        let asked = unsafe {
            let all = libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
            libc::sync_file_range(file.as_raw_fd(), 0, 0, all)
        };
        ensure!(asked == 0, "sync_file_range: {}", io::Error::last_os_error());
        // SAFETY: as above.
        unsafe { libc::sync() };
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// Reads a large file of holes directly, over and over: each read brings pages into the cache.
fn fall_back(path: &Path, buffer: &mut Buffer) -> Result<()> {
    const LEN: u64 = 8 << 30;
    create(path, 0)?.set_len(LEN)?;
    let direct = open_direct(path)?;
    loop {
        for block in 0..LEN / (2 * BLOCK) as u64 {
            direct.read_at(buffer.bytes(), block * (2 * BLOCK) as u64)?;
        }
    }
}

/// Runs the program under dio-trace; returns the mismatches.
pub(crate) fn check(tried: &Tried, places: &[Place], out: &Path) -> Result<Vec<String>> {
    let mut wrong = ways(tried, places, out)?;
    wrong.extend(beside(tried, places, out)?);
    Ok(wrong)
}

/// Audits while the program falls back all the time.
fn beside(tried: &Tried, places: &[Place], out: &Path) -> Result<Vec<String>> {
    let me = std::env::current_exe().context("xtask cannot find itself")?;
    let json = out.join("innocent-fallbacks.jsonl");
    let mut program = Command::new(&me)
        .args(["guest", "innocent", "--fall-back", "--direct", text(&places[0].path)?])
        .args(["--journal", text(&places[1].path)?])
        .spawn()
        .context("cannot start the program")?;
    let output = Command::new(&tried.tool)
        .args(["audit", "-d", "2", "--json", "--attach", &tried.attach, "-o", text(&json)?])
        .output();
    program.kill().context("cannot end the program")?;
    program.wait().context("cannot wait for the program")?;
    let mut wrong = Vec::from_iter(not_ended_with(&output.context("cannot start dio-trace")?, 0));
    let lines: Vec<Value> =
        fs::read_to_string(&json)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let path = places[1].path.join(FALLS_BACK);
    let path = text(&path)?;
    if !lines.iter().any(|line| line["path"] == path && line["verdict"] == "fallback") {
        wrong.push("no fallback of the program was reported: this shows nothing".to_owned());
    }
    for line in lines.iter().filter(|line| line["kind"] == "mixed" && line["path"] == path) {
        wrong.push(format!("reported without mixed access: {line}"));
    }
    let Some(summary) = lines.last() else { bail!("dio-trace wrote no JSON") };
    for row in summary["mixed"].as_array().into_iter().flatten().filter(|row| row["path"] == path) {
        wrong.push(format!("reported without mixed access: {row}"));
    }
    Ok(wrong)
}

/// Runs the program that uses files in each of these ways under dio-trace.
fn ways(tried: &Tried, places: &[Place], out: &Path) -> Result<Vec<String>> {
    let me = std::env::current_exe().context("xtask cannot find itself")?;
    let json = out.join("innocents.jsonl");
    let output = Command::new(&tried.tool)
        .args(["run", "--json", "--attach", &tried.attach, "-o", text(&json)?, "--"])
        .args([text(&me)?, "guest", "innocent", "--direct", text(&places[0].path)?])
        .args(["--journal", text(&places[1].path)?])
        .output()
        .context("cannot start dio-trace")?;
    let mut wrong = Vec::from_iter(not_ended_with(&output, 0));
    let lines: Vec<Value> =
        fs::read_to_string(&json)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let Some(summary) = lines.last() else { bail!("dio-trace wrote no JSON") };
    let own = places[0].path.join("tail-buffered");
    wrong.extend(mixed(summary, text(&own)?));
    for (file, expected) in [("made-buffered", true), ("made-and-dropped", false)] {
        let path = places[0].path.join(file);
        wrong.extend(invalidation(&lines, text(&path)?, expected));
    }
    Ok(wrong)
}

/// Checks that only the program that mixes with itself is reported, with the cause `mixed-self`.
fn mixed(summary: &Value, own: &str) -> Vec<String> {
    let rows = summary["mixed"].as_array().cloned().unwrap_or_default();
    let mut wrong = Vec::new();
    for row in rows.iter().filter(|row| row["path"] != own) {
        wrong.push(format!("reported without mixed access: {row}"));
    }
    let of_own: Vec<_> = rows.iter().filter(|row| row["path"] == own).collect();
    match &of_own[..] {
        [row] => {
            let users = [&row["direct"], &row["cached"]].map(|users| users[0]["pid"].as_u64());
            if row["cause"] != "mixed-self" || users[0].is_none() || users[0] != users[1] {
                wrong.push(format!("a program that mixes with itself is reported as {row}"));
            }
            if row["cached"][0]["pages_cached"] != 1 || row["cached"][0]["pages_dirtied"] != 1 {
                wrong.push(format!("the tail is one page, cached and dirtied: {row}"));
            }
        }
        _ => wrong.push(format!("the tail of {own} has {} rows", of_own.len())),
    }
    wrong
}

/// Checks the invalidation of pages that remain from making a file: dio-trace must not name a
/// process for them.
fn invalidation(lines: &[Value], path: &str, expected: bool) -> Vec<String> {
    let found: Vec<_> = lines
        .iter()
        .filter(|line| line["path"] == path && line["cause"] == "cache-invalidated")
        .collect();
    match (&found[..], expected) {
        ([], false) => Vec::new(),
        ([line], true) => {
            let why = line["why"].as_str().unwrap_or_default();
            let right = why.contains("who brought them into the page cache was not seen");
            if right { Vec::new() } else { vec![format!("{path}: {why}")] }
        }
        _ => vec![format!("{path}: {} invalidations reported, {expected}: {found:?}", found.len())],
    }
}
