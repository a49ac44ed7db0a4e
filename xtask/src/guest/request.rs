//! Making one request by any API. The result is the count, or -errno.
use std::{io, os::fd::RawFd, thread};

use anyhow::{Context, Result, bail};
use io_uring::{IoUring, opcode, squeue, types};

/// What to read, and where to.
#[derive(Clone, Copy)]
pub(super) struct Read {
    pub(super) fd: RawFd,
    pub(super) buffer: *mut u8,
    pub(super) len: usize,
    pub(super) offset: i64,
    /// Bytes in the first of two segments; 0 or all: one segment.
    pub(super) cut: usize,
    /// RWF_*
    pub(super) flags: i32,
}

// SAFETY: the pointer is handed to the kernel alone; whoever makes the request waits for its end.
unsafe impl Send for Read {}

/// Who made the request, and what came of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made {
    pub(super) pid: u32,
    pub(super) result: i64,
}

/// The rings and contexts that asynchronous APIs need, made once.
pub(super) struct Apis {
    ring: IoUring,
    polled: IoUring,
    aio: libc::c_ulong,
}

impl Apis {
    pub(super) fn new() -> Result<Self> {
        let ring = IoUring::new(8).context("no io_uring")?;
        let polled =
            IoUring::builder().setup_sqpoll(50).build(8).context("no io_uring with SQPOLL")?;
        let mut aio = 0;
        // SAFETY: io_setup writes the context's handle to the given place.
        let made = unsafe { libc::syscall(libc::SYS_io_setup, 8, &raw mut aio) };
        if made < 0 {
            return Err(io::Error::last_os_error()).context("no libaio context");
        }
        Ok(Self { ring, polled, aio })
    }

    /// Makes the request by the API of that name.
    pub(super) fn make(&mut self, api: &str, read: &Read) -> Result<Made> {
        let mine = |result| Made { pid: std::process::id(), result };
        Ok(match api {
            "read" => mine(seek_and_read(read)),
            "pread" => mine(pread(read)),
            "readv" | "preadv" | "preadv2" => mine(vectored(api, read)),
            "aio" => mine(self.libaio(read)?),
            "uring" => mine(submit(&mut self.ring, &plain(read))?),
            "uring_async" => {
                mine(submit(&mut self.ring, &plain(read).flags(squeue::Flags::ASYNC))?)
            }
            "uring_sqpoll" => mine(submit(&mut self.polled, &plain(read))?),
            "uring_fixed" => mine(fixed(&mut self.ring, read)?),
            "thread" => {
                let read = *read;
                let made = thread::spawn(move || {
                    let read = read;
                    pread(&read)
                });
                mine(made.join().ok().context("the reading thread died")?)
            }
            "child" => child(read)?,
            _ => bail!("no API is called {api}"),
        })
    }

    fn libaio(&self, read: &Read) -> Result<i64> {
        /// struct iocb (include/uapi/linux/aio_abi.h), little-endian.
        #[repr(C)]
        struct Iocb {
            data: u64,
            key: u32,
            flags: i32,
            opcode: u16,
            priority: i16,
            fd: u32,
            buffer: u64,
            len: u64,
            offset: i64,
            reserved: u64,
            event_flags: u32,
            event_fd: u32,
        }
        /// struct io_event of the same header.
        #[repr(C)]
        #[derive(Default)]
        struct Event {
            data: u64,
            iocb: u64,
            result: i64,
            result2: i64,
        }
        let mut iocb = Iocb {
            data: 0,
            key: 0,
            flags: read.flags,
            opcode: 0, // IOCB_CMD_PREAD
            priority: 0,
            fd: read.fd as u32,
            buffer: read.buffer as u64,
            len: read.len as u64,
            offset: read.offset,
            reserved: 0,
            event_flags: 0,
            event_fd: 0,
        };
        let mut list = [&raw mut iocb];
        // SAFETY: one iocb, which lives until its event has come; the buffer does too.
        let sent = unsafe { libc::syscall(libc::SYS_io_submit, self.aio, 1, list.as_mut_ptr()) };
        if sent != 1 {
            return Ok(last_error());
        }
        let mut event = Event::default();
        // SAFETY: room for one event.
        let got = unsafe {
            libc::syscall(
                libc::SYS_io_getevents,
                self.aio,
                1,
                1,
                &raw mut event,
                std::ptr::null::<libc::timespec>(),
            )
        };
        if got != 1 {
            bail!("io_getevents gave {got}");
        }
        Ok(event.result)
    }
}

fn plain(read: &Read) -> squeue::Entry {
    opcode::Read::new(types::Fd(read.fd), read.buffer, read.len as u32)
        .offset(read.offset as u64)
        .build()
}

/// With a registered buffer and a registered file.
fn fixed(ring: &mut IoUring, read: &Read) -> Result<i64> {
    let buffer = libc::iovec { iov_base: read.buffer.cast(), iov_len: read.len };
    // SAFETY: the buffer is unregistered below, before the caller can free it.
    unsafe { ring.submitter().register_buffers(&[buffer]) }.context("cannot register a buffer")?;
    ring.submitter().register_files(&[read.fd]).context("cannot register a file")?;
    let entry = opcode::ReadFixed::new(types::Fixed(0), read.buffer, read.len as u32, 0)
        .offset(read.offset as u64)
        .build();
    let result = submit(ring, &entry);
    ring.submitter().unregister_files().context("cannot unregister the file")?;
    ring.submitter().unregister_buffers().context("cannot unregister the buffer")?;
    result
}

fn submit(ring: &mut IoUring, entry: &squeue::Entry) -> Result<i64> {
    // SAFETY: the buffer outlives the request, which is waited for below.
    unsafe { ring.submission().push(entry) }.ok().context("the submission queue is full")?;
    ring.submit_and_wait(1).context("io_uring_enter")?;
    loop {
        if let Some(done) = ring.completion().next() {
            return Ok(i64::from(done.result()));
        }
        // With SQPOLL the wait above may end early.
        ring.submit_and_wait(1).context("io_uring_enter")?;
    }
}

fn last_error() -> i64 {
    -i64::from(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

fn count(result: isize) -> i64 {
    if result < 0 { last_error() } else { result as i64 }
}

fn seek_and_read(read: &Read) -> i64 {
    // SAFETY: no memory is involved.
    if unsafe { libc::lseek(read.fd, read.offset, libc::SEEK_SET) } < 0 {
        return last_error();
    }
    // SAFETY: the buffer has room for len bytes.
    count(unsafe { libc::read(read.fd, read.buffer.cast(), read.len) })
}

fn pread(read: &Read) -> i64 {
    // SAFETY: the buffer has room for len bytes.
    count(unsafe { libc::pread(read.fd, read.buffer.cast(), read.len, read.offset) })
}

fn vectored(api: &str, read: &Read) -> i64 {
    let first = if read.cut == 0 { read.len } else { read.cut };
    let part = |at: usize, len: usize| libc::iovec {
        // wrapping_add: at is within the buffer, or its end.
        iov_base: read.buffer.wrapping_add(at).cast(),
        iov_len: len,
    };
    let parts = [part(0, first), part(first, read.len - first)];
    let parts = if first == read.len { &parts[..1] } else { &parts[..] };
    let (list, segments) = (parts.as_ptr(), parts.len() as i32);
    // SAFETY: both segments lie in the buffer, which has room for len bytes.
    count(unsafe {
        match api {
            "readv" => {
                libc::lseek(read.fd, read.offset, libc::SEEK_SET);
                libc::readv(read.fd, list, segments)
            }
            "preadv" => libc::preadv(read.fd, list, segments, read.offset),
            _ => libc::preadv2(read.fd, list, segments, read.offset, read.flags),
        }
    })
}

/// pread in a child process.
fn child(read: &Read) -> Result<Made> {
    let mut ends = [0; 2];
    // SAFETY: pipe writes two descriptors.
    if unsafe { libc::pipe(ends.as_mut_ptr()) } < 0 {
        bail!("no pipe");
    }
    // SAFETY: the child calls only pread, write and _exit, which are async-signal-safe.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let result = pread(read);
        // SAFETY: eight bytes of our own stack, and the end of this process.
        unsafe {
            libc::write(ends[1], (&raw const result).cast(), 8);
            libc::_exit(0);
        }
    }
    let mut result = 0_i64;
    let mut status = 0;
    // SAFETY: room for eight bytes and a status; the descriptors are ours.
    let got = unsafe {
        libc::close(ends[1]);
        let got = libc::read(ends[0], (&raw mut result).cast(), 8);
        libc::close(ends[0]);
        libc::waitpid(pid, &raw mut status, 0);
        got
    };
    if got != 8 {
        bail!("the child died");
    }
    Ok(Made { pid: pid as u32, result })
}
