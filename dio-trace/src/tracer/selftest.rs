//! The self-test: the tracer issues small direct reads through each API and checks that the probes
//! count them.
//!
//! It only reads: one block of its own executable if that is on a disk file system, else of an
//! unnamed temporary file on one that consists of a hole. Nothing is written to disk.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd as _, RawFd},
        unix::{
            ffi::OsStringExt as _,
            fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
        },
    },
    path::{Path, PathBuf},
};

use anyhow::Result;
use dio_trace_common::verdict::Verdict;

use crate::{
    model::{Gap, MissingProbe, SELF_TEST},
    system::mounts::{self, Mount},
};

/// Length of a test read and alignment of its buffer, in bytes.
const BLOCK: usize = 4096;

/// Counts for this process so far: (requests, requests with an unknown verdict).
pub(super) type Seen = (u64, u64);

#[repr(C, align(4096))]
struct Block([u8; BLOCK]);

/// Test reads of an API of which one has to be seen: the kernel may skip a probe for a single one.
const TRIES: usize = 3;

/// Issues the requests, and checks by `seen` after each one that it was counted.
///
/// Returns what was not seen, and what that weakens. Errors are those of `seen`.
pub(super) fn run(mut seen: impl FnMut() -> Result<Seen>) -> Result<Vec<MissingProbe>> {
    let Some(file) = test_file() else {
        return Ok(vec![MissingProbe {
            probe: SELF_TEST.to_owned(),
            gap: Gap::Untested,
            why: "no ext4, xfs, btrfs or f2fs file can be read here with O_DIRECT: not proven \
                  that the probes see this kernel's requests"
                .to_owned(),
        }]);
    };
    let mut block = Box::new(Block([0; BLOCK]));
    let mut gaps = Vec::new();
    for (api, read) in APIS {
        let gap = tried(&mut seen, || read(file.as_raw_fd(), &mut block))?;
        let why = match gap {
            Some(Gap::Blind) => format!("test reads were not seen: {api} requests are missed"),
            Some(_) => format!("no evidence for a test read: {api} verdicts may be `unknown`"),
            None => continue,
        };
        gaps.extend(gap.map(|gap| MissingProbe { probe: (*api).to_owned(), gap, why }));
    }
    Ok(gaps)
}

/// Issues test reads through one API until one is seen. None if it was, with its evidence, or if the
/// API is not available here (seccomp, io_uring_disabled, no such syscall).
fn tried(
    seen: &mut impl FnMut() -> Result<Seen>,
    mut read: impl FnMut() -> io::Result<()>,
) -> Result<Option<Gap>> {
    for _ in 0..TRIES {
        let before = seen()?;
        if read().is_err() {
            return Ok(None);
        }
        let after = seen()?;
        if after.0 != before.0 {
            return Ok((after.1 != before.1).then_some(Gap::Weak));
        }
    }
    Ok(Some(Gap::Blind))
}

/// True if a counter's verdict byte is [`Verdict::Unknown`].
pub(super) fn is_unknown(verdict: u8) -> bool {
    Verdict::from_u8(verdict) == Some(Verdict::Unknown)
}

type Read = fn(RawFd, &mut Block) -> io::Result<()>;

const APIS: &[(&str, Read)] =
    &[("read", pread), ("readv", preadv), ("libaio", libaio), ("io_uring", io_uring)];

/// Opens a file of at least one block with O_DIRECT, on a file system with a direct path.
fn test_file() -> Option<File> {
    let own = open_direct(Path::new("/proc/self/exe")).ok().filter(on_disk);
    own.or_else(|| disk_mounts().iter().find_map(|mount| temporary(mount).ok()))
        .filter(|file| file.read_at(&mut Box::new(Block([0; BLOCK])).0, 0).is_ok())
}

fn open_direct(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECT | libc::O_CLOEXEC).open(path)
}

/// Creates an unnamed file that consists of a hole of one block.
fn temporary(dir: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_TMPFILE | libc::O_DIRECT | libc::O_CLOEXEC)
        .mode(0o600)
        .open(dir)?;
    file.set_len(BLOCK as u64)?;
    Ok(file)
}

/// True if the file is on a mounted disk file system. This does not use statfs, because 9p returns
/// its server's answer (fs/9p/vfs_super.c:v9fs_statfs).
fn on_disk(file: &File) -> bool {
    let Ok(dev) = file.metadata().map(|meta| meta.dev()) else { return false };
    let dev = format!("{}:{}", libc::major(dev), libc::minor(dev));
    own_mounts().iter().any(|mount| mount.dev == dev && is_disk(&mount.fs))
}

/// True for disk file systems with a direct path.
fn is_disk(fs: &str) -> bool {
    matches!(fs, "ext4" | "xfs" | "btrfs" | "f2fs")
}

/// Mount points of writable disk file systems, oldest mount first.
fn disk_mounts() -> Vec<PathBuf> {
    own_mounts()
        .into_iter()
        .filter(|mount| is_disk(&mount.fs) && mount.options.split(',').any(|o| o == "rw"))
        .map(|mount| PathBuf::from(OsString::from_vec(mount.point)))
        .collect()
}

fn own_mounts() -> Vec<Mount> {
    let mut mounts: Vec<_> = mounts::of_process(std::process::id()).into_iter().collect();
    mounts.sort_by_key(|(id, _)| *id);
    mounts.into_iter().map(|(_, mount)| mount).collect()
}

fn check(result: libc::ssize_t) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn pread(fd: RawFd, block: &mut Block) -> io::Result<()> {
    // SAFETY: the buffer has BLOCK bytes.
    check(unsafe { libc::pread(fd, block.0.as_mut_ptr().cast(), BLOCK, 0) })
}

fn preadv(fd: RawFd, block: &mut Block) -> io::Result<()> {
    let iov = libc::iovec { iov_base: block.0.as_mut_ptr().cast(), iov_len: BLOCK };
    // SAFETY: one iovec over a buffer of BLOCK bytes.
    check(unsafe { libc::preadv(fd, &raw const iov, 1, 0) })
}

/// include/uapi/linux/aio_abi.h
#[repr(C)]
#[derive(Default)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: i32,
    opcode: u16,
    reqprio: i16,
    fildes: u32,
    buf: u64,
    nbytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    resfd: u32,
}

fn libaio(fd: RawFd, block: &mut Block) -> io::Result<()> {
    let mut context: u64 = 0;
    // SAFETY: the kernel writes one handle.
    check(unsafe { libc::syscall(libc::SYS_io_setup, 1, &raw mut context) } as _)?;
    let mut iocb = Iocb {
        fildes: fd as u32,
        buf: block.0.as_mut_ptr() as u64,
        nbytes: BLOCK as u64,
        ..Iocb::default()
    };
    let mut list = [&raw mut iocb];
    let mut event = [0u64; 4]; // struct io_event
    // SAFETY: one iocb over a buffer of BLOCK bytes. All of them live until the event is fetched,
    // or until the context is destroyed, which waits for the request.
    let result = unsafe {
        check(libc::syscall(libc::SYS_io_submit, context, 1, list.as_mut_ptr()) as _).and_then(
            |()| {
                let none = std::ptr::null::<libc::timespec>();
                check(
                    libc::syscall(libc::SYS_io_getevents, context, 1, 1, event.as_mut_ptr(), none)
                        as _,
                )
            },
        )
    };
    // SAFETY: the context was created above.
    unsafe { libc::syscall(libc::SYS_io_destroy, context) };
    result
}

fn io_uring(fd: RawFd, block: &mut Block) -> io::Result<()> {
    let mut ring = io_uring::IoUring::new(1)?;
    let read =
        io_uring::opcode::Read::new(io_uring::types::Fd(fd), block.0.as_mut_ptr(), BLOCK as u32)
            .build();
    // SAFETY: the buffer and the descriptor live longer than the wait below.
    unsafe { ring.submission().push(&read) }.map_err(io::Error::other)?;
    ring.submit_and_wait(1)?;
    match ring.completion().next() {
        Some(cqe) if cqe.result() < 0 => Err(io::Error::from_raw_os_error(-cqe.result())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found if the probes see these of the reads, with an unknown verdict or not.
    fn found(reads: &[Option<bool>]) -> (Option<Gap>, usize) {
        let counts = std::cell::Cell::new((0, 0));
        let mut made = 0;
        let read = || {
            let (all, unknown) = counts.get();
            if let Some(is_unknown) = reads[made] {
                counts.set((all + 1, unknown + u64::from(is_unknown)));
            }
            made += 1;
            Ok(())
        };
        let gap = tried(&mut || Ok(counts.get()), read).unwrap();
        (gap, made)
    }

    #[test]
    fn one_read_that_is_seen_is_enough() {
        assert_eq!(found(&[Some(false)]), (None, 1));
        assert_eq!(found(&[None, Some(false)]), (None, 2), "the kernel skipped a probe");
        assert_eq!(found(&[Some(true)]), (Some(Gap::Weak), 1));
        assert_eq!(found(&[None, None, None]), (Some(Gap::Blind), 3));
        let refused = || Err(io::Error::from_raw_os_error(libc::ENOSYS));
        assert_eq!(tried(&mut || Ok((0, 0)), refused).unwrap(), None);
    }
}
