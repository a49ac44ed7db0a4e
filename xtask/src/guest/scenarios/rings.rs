//! io_uring's rarer features: buffers that the kernel selects, writes without a completion event,
//! vectors in registered buffers. Each request must be reported once, with its real length.
use std::{
    fs::{self, File},
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    path::Path,
};

use anyhow::{Context, Result, bail};
use io_uring::{IoUring, Probe, opcode, squeue, squeue::Flags, types::Fd};

use crate::{
    guest::{
        direct_io::memory::Buffer,
        fixtures::Place,
        harness::Tried,
        tally::plain::{Line, Traced, UserArgs, traced},
    },
    host::cmd::text,
};

/// The fixtures of the scenario: one where reads are direct, and one where they go through the page
/// cache, so that io_uring retries a request that must not wait.
pub(crate) const SETUPS: &[&str] = &["ext4-512", "ext4-journal"];
/// The number of runs of dio-trace.
pub(crate) const RUNS: u64 = 1;
const BLOCK: usize = 4096;
const BLOCKS: usize = 4;
/// Bytes of each file. The end lies inside a block.
const BYTES: usize = BLOCKS * BLOCK + 1808;
/// The number of writes of the same block from the same memory.
const SILENT: usize = 16;
const GROUP: u16 = 1;

pub(crate) fn user(args: &UserArgs) -> Result<()> {
    let mut tally = Vec::new();
    for path in &args.file {
        let file = File::options().read(true).write(true).custom_flags(libc::O_DIRECT).open(path);
        let file = file.with_context(|| format!("cannot open {}", path.display()))?;
        let mut user = User::new(&file, text(path)?)?;
        user.chosen()?;
        user.silent()?;
        user.vectors()?;
        tally.append(&mut user.lines);
    }
    args.write(&tally)
}

/// A file, a ring, and the requests made so far.
struct User<'a> {
    file: Fd,
    path: &'a str,
    ring: IoUring,
    memory: Buffer,
    lines: Vec<Line>,
}

impl<'a> User<'a> {
    fn new(file: &File, path: &'a str) -> Result<Self> {
        let ring = IoUring::new(32).context("no io_uring")?;
        let memory = Buffer::new((BLOCKS + 1) * BLOCK)?;
        Ok(Self { file: Fd(file.as_raw_fd()), path, ring, memory, lines: Vec::new() })
    }

    fn note(&mut self, op: &str, offset: usize, len: usize, ret: i32) {
        let (path, op) = (self.path.to_owned(), op.to_owned());
        let (offset, len, ret) = (offset as i64, len as u64, i64::from(ret));
        self.lines.push(Line { path, op, offset, len, ret });
    }

    /// Submits these entries, waits for `results` completions, and returns the user_data and result
    /// of each.
    fn make(&mut self, entries: &[squeue::Entry], results: usize) -> Result<Vec<(u64, i32)>> {
        for entry in entries {
            // SAFETY: the memory outlives the requests, which are waited for here.
            unsafe { self.ring.submission().push(entry) }.ok().context("the ring is full")?;
        }
        self.ring.submit_and_wait(results).context("io_uring_enter")?;
        Ok(self.ring.completion().map(|cqe| (cqe.user_data(), cqe.result())).collect())
    }

    /// Reads the whole uncached file, including the part of its last block, into buffers that the
    /// kernel selects, which are smaller than the requested length.
    fn chosen(&mut self) -> Result<()> {
        fs::write("/proc/sys/vm/drop_caches", "3").context("cannot drop the page cache")?;
        let count = BLOCKS as u16 + 1;
        let give = opcode::ProvideBuffers::new(self.memory.at(0), BLOCK as i32, count, GROUP, 0);
        match self.make(&[give.build()], 1)?[..] {
            [(_, result)] if result >= 0 => {}
            ref other => bail!("the kernel takes no buffers: {other:?}"),
        }
        for block in 0..=BLOCKS {
            let read = opcode::Read::new(self.file, std::ptr::null_mut(), 2 * BLOCK as u32);
            let read = read.offset((block * BLOCK) as u64).buf_group(GROUP).build();
            for (_, result) in self.make(&[read.flags(Flags::BUFFER_SELECT)], 1)? {
                self.note("read", block * BLOCK, BLOCK, result);
            }
        }
        Ok(())
    }

    /// Makes writes that post a completion only if they fail (since 5.17). The sync linked to each
    /// write completes after it.
    fn silent(&mut self) -> Result<()> {
        if !self.ring.params().is_feature_skip_cqe_on_success() {
            return Ok(());
        }
        for _ in 0..SILENT {
            let write = opcode::Write::new(self.file, self.memory.at(0), BLOCK as u32).offset(0);
            let write = write.build().user_data(1).flags(Flags::IO_LINK | Flags::SKIP_SUCCESS);
            let sync = opcode::Fsync::new(self.file).build().user_data(2);
            match self.make(&[write, sync], 1)?[..] {
                [(2, 0)] => self.note("write", 0, BLOCK, BLOCK as i32),
                ref other => bail!("a write and a sync ended with {other:?}"),
            }
        }
        Ok(())
    }

    /// Makes reads with vectors in a registered buffer (since 6.15).
    fn vectors(&mut self) -> Result<()> {
        const IORING_OP_READV_FIXED: u8 = 60; // include/uapi/linux/io_uring.h
        let mut probe = Probe::new();
        self.ring.submitter().register_probe(&mut probe).context("no probe")?;
        if !probe.is_supported(IORING_OP_READV_FIXED) {
            return Ok(());
        }
        let (start, len) = (self.memory.at(0), self.memory.bytes().len());
        let whole = libc::iovec { iov_base: start.cast(), iov_len: len };
        // SAFETY: the memory outlives the ring.
        unsafe { self.ring.submitter().register_buffers(&[whole]) }.context("no buffers")?;
        let part =
            |at: usize| libc::iovec { iov_base: start.wrapping_add(at).cast(), iov_len: BLOCK / 2 };
        let parts = [part(0), part(BLOCK)];
        for block in 0..=BLOCKS {
            let read = opcode::Readv::new(self.file, parts.as_ptr(), parts.len() as u32);
            let mut read = read.offset((block * BLOCK) as u64).build();
            // SAFETY: the first byte of an entry is its opcode. The index of the registered buffer
            // is already 0.
            unsafe { (&raw mut read).cast::<u8>().write(IORING_OP_READV_FIXED) };
            for (_, result) in self.make(&[read], 1)? {
                self.note("read", block * BLOCK, BLOCK, result);
            }
        }
        Ok(())
    }
}

/// Runs the program under dio-trace; returns the mismatches.
pub(crate) fn check(tried: &Tried, places: &[Place], out: &Path) -> Result<Vec<String>> {
    let Traced { talk, mut wrong, .. } = traced(tried, places, out, "rings", BYTES)?;
    for summary in talk.lines().filter(|line| line.contains("\"kind\":\"summary\"")) {
        let summary: serde_json::Value = serde_json::from_str(summary)?;
        let (unmatched, in_flight) = (&summary["unmatched"], &summary["in_flight"]);
        if *unmatched != 0 || *in_flight != 0 {
            wrong.push(format!("{unmatched} unmatched, {in_flight} in flight"));
        }
    }
    Ok(wrong)
}
