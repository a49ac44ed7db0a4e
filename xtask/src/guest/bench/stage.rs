//! The environment of the measurements: a disk in memory with its files, and dio-trace attached to
//! a program.
use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd as _,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{
    guest::{
        direct_io::memory::Buffer,
        harness::{Traces, wait_until_tracing},
    },
    host::cmd::{self, text},
};

/// Module and options of a disk in memory, so that only the kernel's and the tracer's time is
/// measured, not a disk's.
const DISK: &[&str] = &["null_blk", "nr_devices=1", "memory_backed=1", "gb=1", "bs=512"];
/// Bytes of a request to a file.
pub(super) const BLOCK: usize = 4096;
/// Blocks of a file that are used in turn.
pub(super) const BLOCKS: usize = 16;
/// The mount point.
pub(super) const FOLDER: &str = "/mnt/bench";

/// Makes the files of [`super::load`]. A read of `journaled` is never direct, because the file's
/// data is journaled.
pub(super) fn make(folder: &Path) -> Result<()> {
    mount(folder, &[])?;
    for name in ["plain", "journaled"] {
        let path = folder.join(name);
        File::create(&path)?;
        if name == "journaled" {
            run(&["chattr", "+j", text(&path)?])?;
        }
        fs::write(&path, vec![7; BLOCKS * BLOCK])?;
    }
    run(&["sync"])
}

/// Makes an ext4 in memory with these options, and mounts it.
pub(super) fn mount(folder: &Path, options: &[&str]) -> Result<()> {
    run(&[&["modprobe"], DISK].concat())?;
    run(&[&["mkfs.ext4", "-q", "-F", "-E", "nodiscard", "/dev/nullb0"], options].concat())?;
    fs::create_dir_all(folder)?;
    // With delayed allocation ext4 ignores chattr +j (fs/ext4/ext4_jbd2.c:ext4_inode_journal_mode).
    run(&["mount", "-o", "nodelalloc", "/dev/nullb0", text(folder)?])
}

/// Attaches dio-trace to a program with the additional arguments `more`, and waits until it traces;
/// returns the process and its stdout.
pub(super) fn attach(tool: &Path, pid: u32, more: &[&str]) -> Result<(Child, ChildStdout)> {
    start(tool, &[&["attach", "-p", &pid.to_string(), "--json"], more].concat())
}

/// Starts dio-trace with these arguments, and waits until it traces; returns the process and its
/// stdout.
pub(super) fn start(tool: &Path, words: &[&str]) -> Result<(Child, ChildStdout)> {
    let traces = Traces::new(Path::new("/tmp"), "bench");
    let mut child = Command::new(tool)
        .args(words)
        .stdout(Stdio::piped())
        .stderr(File::create(&traces.talk)?)
        .spawn()
        .context("cannot start dio-trace")?;
    wait_until_tracing(&mut child, &traces)?;
    let pipe = child.stdout.take().context("dio-trace has no stdout")?;
    Ok((child, pipe))
}

/// Reads a block of a file.
pub(super) fn read_block(file: &File, buffer: &mut Buffer, at: i64) -> Result<()> {
    let room = buffer.bytes().len();
    if room < BLOCK {
        bail!("a buffer of {room} bytes");
    }
    // SAFETY: the buffer has at least BLOCK bytes, as checked above.
    let got = unsafe { libc::pread(file.as_raw_fd(), buffer.at(0).cast(), BLOCK, at) };
    if got != BLOCK as isize {
        bail!("a read returned {got}: {}", io::Error::last_os_error());
    }
    Ok(())
}

/// Runs a command and discards its output.
pub(super) fn run(words: &[&str]) -> Result<()> {
    cmd::output(Command::new(words[0]).args(&words[1..])).map(drop)
}
