//! The reader: makes reads that come back short, for every cause, and writes their results to a
//! tally.
use std::{
    fs::{self, File},
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::guest::direct_io::{
    files::{fill, open_direct},
    memory::{Buffer, page_size},
    request::{Call, positioned},
};

#[derive(Args, Clone, Debug)]
pub(crate) struct ReaderArgs {
    /// SETUP:PATH: a fixture and its folder, device or file
    #[arg(long, required = true)]
    place: Vec<String>,
    /// File to write the tally to
    #[arg(long)]
    tally: PathBuf,
}

const PAGE: usize = 4096;
/// The number of reads of each race.
const READS: usize = 400;
/// Bytes of the file that is being read when the reader is killed.
pub(super) const LONG: usize = 32 << 20;

/// One read and its result, as the reader recorded it.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Read {
    pub(super) case: String,
    pub(super) path: PathBuf,
    pub(super) pid: u32,
    pub(super) offset: i64,
    pub(super) len: u64,
    /// `None` if the reading process was killed.
    pub(super) ret: Option<i64>,
}

/// Makes the reads, one fixture after the other.
pub(crate) fn main(args: &ReaderArgs) -> Result<()> {
    let mut reader = Reader::default();
    for place in &args.place {
        let (setup, path) = place.split_once(':').context("--place is SETUP:PATH")?;
        let path = Path::new(path);
        match setup {
            "ext4-512" => {
                reader.races(path)?;
                reader.fault(&path.join("fault"), 64 << 10, 32 << 10)?;
                reader.largest(&path.join("largest"))?;
            }
            "xfs-512" | "btrfs" | "f2fs" => {
                reader.races(path)?;
                reader.fault(&path.join("fault"), 64 << 10, 32 << 10)?;
            }
            "vfat" => reader.faults(&path.join("fault"))?,
            "bdev-512" => reader.faults(path)?,
            "ext4-journal" => reader.killed(&path.join("killed"))?,
            "err-ext4" => reader.bad_sector(path)?,
            "fuse-short" => reader.answered_short(&path.join("fault"))?,
            _ => bail!("no reads are defined for {setup}"),
        }
    }
    fs::write(&args.tally, serde_json::to_vec(&reader.reads)?).context("cannot write the tally")
}

#[derive(Default)]
struct Reader {
    reads: Vec<Read>,
}

impl Reader {
    fn read(&mut self, case: &str, path: &Path, call: &Call) -> i64 {
        let ret = positioned(call);
        self.note(case, path, std::process::id(), call, Some(ret));
        ret
    }

    fn note(&mut self, case: &str, path: &Path, pid: u32, call: &Call, ret: Option<i64>) {
        let (case, path) = (case.to_owned(), path.to_owned());
        let (offset, len) = (call.offset, call.len as u64);
        self.reads.push(Read { case, path, pid, offset, len, ret });
    }

    fn races(&mut self, folder: &Path) -> Result<()> {
        self.race("race-blocks", folder, &[2 * PAGE as u64, 5 * PAGE as u64])?;
        self.race("race-odd", folder, &[8704, 10_000, 33_333])
    }

    /// Reads whole blocks while another thread truncates the file to these sizes and extends it
    /// again.
    fn race(&mut self, case: &str, folder: &Path, sizes: &[u64]) -> Result<()> {
        const BLOCKS: u64 = 16;
        let path = folder.join(case);
        fill(&path, BLOCKS as usize * PAGE)?;
        let (file, other) = (open_direct(&path)?, File::options().write(true).open(&path)?);
        let mut memory = Buffer::new(PAGE)?;
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let racer = scope.spawn(|| -> Result<()> {
                for size in sizes.iter().cycle().take_while(|_| !done.load(Ordering::Relaxed)) {
                    other.set_len(*size)?;
                    other.write_all_at(&[b'x'; PAGE], *size)?;
                    other.set_len(BLOCKS * PAGE as u64)?;
                }
                Ok(())
            });
            for number in 0..READS as u64 {
                let offset = (number * 7 % BLOCKS) as i64 * PAGE as i64;
                self.read(case, &path, &call(&file, memory.at(0), PAGE, offset));
            }
            done.store(true, Ordering::Relaxed);
            racer.join().map_err(|_| anyhow::anyhow!("the racer died"))?
        })
    }

    fn faults(&mut self, path: &Path) -> Result<()> {
        self.fault(path, PAGE, 3584)?;
        self.fault(path, PAGE, 2048)?;
        self.fault(path, 64 << 10, 32 << 10)
    }

    /// Reads into a buffer of which only the first `good` bytes can be accessed.
    fn fault(&mut self, path: &Path, len: usize, good: usize) -> Result<()> {
        if !path.exists() {
            fill(path, 64 << 10)?;
        }
        let file = open_direct(path)?;
        let mapped = good.next_multiple_of(page_size());
        let mut memory = Buffer::new(mapped + len)?;
        let none = memory.at(mapped).cast();
        // SAFETY: whole pages of our own mapping, to which there is no reference.
        if unsafe { libc::mprotect(none, len, libc::PROT_NONE) } < 0 {
            bail!("mprotect");
        }
        let call = call(&file, memory.at(mapped - good), len, 0);
        self.read(&format!("fault-{good}"), path, &call);
        Ok(())
    }

    /// Reads more than the limit of one request (MAX_RW_COUNT).
    fn largest(&mut self, path: &Path) -> Result<()> {
        const PIECE: usize = 4 << 20;
        const PIECES: usize = 513;
        File::create(path)?.set_len(4 << 30)?; // a hole, so that nothing is read from the disk
        let file = open_direct(path)?;
        let mut memory = Buffer::new(PIECE)?;
        let piece = libc::iovec { iov_base: memory.at(0).cast(), iov_len: PIECE };
        let pieces = [piece; PIECES];
        // SAFETY: each of the pieces lies in the buffer.
        let ret = unsafe { libc::preadv(file.as_raw_fd(), pieces.as_ptr(), PIECES as i32, 0) };
        let call = call(&file, memory.at(0), PIECE * PIECES, 0);
        self.note("largest", path, std::process::id(), &call, Some(ret as i64));
        Ok(())
    }

    /// Starts children that make a long read through the page cache, and kills them half-way.
    fn killed(&mut self, path: &Path) -> Result<()> {
        fill(path, LONG)?;
        let file = open_direct(path)?;
        let mut memory = Buffer::new(LONG)?;
        let call = call(&file, memory.at(0), LONG, 0);
        for wait in [5, 20, 40, 80, 160] {
            fs::write("/proc/sys/vm/drop_caches", "3").context("cannot drop the page cache")?;
            // SAFETY: the child calls only pread and _exit, which are async-signal-safe.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                positioned(&call);
                // SAFETY: exits this process.
                unsafe { libc::_exit(0) };
            }
            thread::sleep(Duration::from_millis(wait));
            let mut status = 0;
            // SAFETY: our own child, and room for its status.
            unsafe {
                libc::kill(pid, libc::SIGKILL);
                libc::waitpid(pid, &raw mut status, 0);
            }
            let ret = if libc::WIFSIGNALED(status) { None } else { Some(LONG as i64) };
            self.note("killed", path, pid as u32, &call, ret);
        }
        Ok(())
    }

    /// Reads from a FUSE server that answers with fewer bytes than requested.
    fn answered_short(&mut self, path: &Path) -> Result<()> {
        let file = open_direct(path)?;
        let mut memory = Buffer::new(PAGE)?;
        self.read("server", path, &call(&file, memory.at(0), PAGE, 0));
        Ok(())
    }

    /// Reads across a sector that cannot be read, through the page cache.
    fn bad_sector(&mut self, path: &Path) -> Result<()> {
        let file = open_direct(path)?;
        let mut memory = Buffer::new(64 << 10)?;
        self.read("bad-sector", path, &call(&file, memory.at(0), 64 << 10, (1 << 20) - (32 << 10)));
        Ok(())
    }
}

fn call(file: &File, buffer: *mut u8, len: usize, offset: i64) -> Call {
    Call { write: false, fd: file.as_raw_fd(), buffer, len, offset, cut: 0, flags: 0 }
}
