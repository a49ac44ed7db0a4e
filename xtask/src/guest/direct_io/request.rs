//! Makes one request by any API. The result is the byte count, or -errno.
use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, RawFd},
    thread,
};

use anyhow::{Context, Result, bail};
use io_uring::{IoUring, opcode, squeue, types};

/// One request: what to read or write.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    pub(crate) write: bool,
    pub(crate) fd: RawFd,
    pub(crate) buffer: *mut u8,
    pub(crate) len: usize,
    pub(crate) offset: i64,
    /// Bytes in the first of two segments; 0 or all: one segment.
    pub(crate) cut: usize,
    /// RWF_*
    pub(crate) flags: i32,
}

// SAFETY: only the kernel uses the pointer, and the code that makes the request waits until it
// completes.
unsafe impl Send for Call {}

/// The process that made the request, and the result: the byte count, or -errno.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Made {
    pub(crate) pid: u32,
    pub(crate) result: i64,
}

/// The io_uring rings and the libaio context that the asynchronous APIs need, made once.
pub(crate) struct Apis {
    ring: IoUring,
    polled: IoUring,
    aio: libc::c_ulong,
}

impl Apis {
    pub(crate) fn new() -> Result<Self> {
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

    /// Makes the request by the API of this name and waits for its result.
    pub(crate) fn make(&mut self, api: &str, call: &Call) -> Result<Made> {
        let mine = |result| Made { pid: std::process::id(), result };
        Ok(match api {
            "read" | "write" => mine(at_position(call)),
            "pread" | "pwrite" => mine(positioned(call)),
            "readv" | "writev" | "preadv" | "pwritev" | "preadv2" | "pwritev2" => {
                mine(vectored(api, call))
            }
            "aio" => mine(self.libaio(call)?),
            "uring" => mine(submit(&mut self.ring, &plain(call))?),
            "uring_async" => {
                mine(submit(&mut self.ring, &plain(call).flags(squeue::Flags::ASYNC))?)
            }
            "uring_sqpoll" => mine(submit(&mut self.polled, &plain(call))?),
            "uring_fixed" => mine(fixed(&mut self.ring, call)?),
            "thread" => {
                let call = *call;
                let made = thread::spawn(move || {
                    let call = call;
                    positioned(&call)
                });
                mine(made.join().ok().context("the reading thread died")?)
            }
            "child" => child(call)?,
            "mmap" => mine(mapped(call)),
            "splice" => mine(spliced(call)?),
            "sendfile" => mine(sent(call)?),
            _ => bail!("no API is called {api}"),
        })
    }

    fn libaio(&self, call: &Call) -> Result<i64> {
        let mut iocb = iocb(call, 0);
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

/// struct iocb (include/uapi/linux/aio_abi.h), little-endian.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Iocb {
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

/// struct io_event (include/uapi/linux/aio_abi.h).
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Event {
    pub(crate) data: u64,
    iocb: u64,
    pub(crate) result: i64,
    result2: i64,
}

/// The iocb of a request for io_submit(2); its event returns `data`.
pub(crate) fn iocb(call: &Call, data: u64) -> Iocb {
    Iocb {
        data,
        flags: call.flags,
        opcode: u16::from(call.write), // IOCB_CMD_PREAD, IOCB_CMD_PWRITE
        fd: call.fd as u32,
        buffer: call.buffer as u64,
        len: call.len as u64,
        offset: call.offset,
        ..Iocb::default()
    }
}

/// The io_uring submission entry of a request.
pub(crate) fn plain(call: &Call) -> squeue::Entry {
    let (fd, len, offset) = (types::Fd(call.fd), call.len as u32, call.offset as u64);
    if call.write {
        opcode::Write::new(fd, call.buffer, len).offset(offset).build()
    } else {
        opcode::Read::new(fd, call.buffer, len).offset(offset).build()
    }
}

/// Makes the request by io_uring with a registered buffer and a registered file.
fn fixed(ring: &mut IoUring, call: &Call) -> Result<i64> {
    let buffer = libc::iovec { iov_base: call.buffer.cast(), iov_len: call.len };
    // SAFETY: the buffer is unregistered below, before the caller can free it.
    unsafe { ring.submitter().register_buffers(&[buffer]) }.context("cannot register a buffer")?;
    ring.submitter().register_files(&[call.fd]).context("cannot register a file")?;
    let (file, len, offset) = (types::Fixed(0), call.len as u32, call.offset as u64);
    let entry = if call.write {
        opcode::WriteFixed::new(file, call.buffer, len, 0).offset(offset).build()
    } else {
        opcode::ReadFixed::new(file, call.buffer, len, 0).offset(offset).build()
    };
    let result = submit(ring, &entry);
    ring.submitter().unregister_files().context("cannot unregister the file")?;
    ring.submitter().unregister_buffers().context("cannot unregister the buffer")?;
    result
}

/// Submits an entry and waits for its result.
pub(crate) fn submit(ring: &mut IoUring, entry: &squeue::Entry) -> Result<i64> {
    // SAFETY: the buffer outlives the request, which is waited for below.
    unsafe { ring.submission().push(entry) }.ok().context("the submission queue is full")?;
    ring.submit_and_wait(1).context("io_uring_enter")?;
    loop {
        if let Some(done) = ring.completion().next() {
            return Ok(i64::from(done.result()));
        }
        // With SQPOLL the wait above may return early.
        ring.submit_and_wait(1).context("io_uring_enter")?;
    }
}

/// The calling thread's last error as -errno.
fn last_error() -> i64 {
    -i64::from(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

fn count(result: isize) -> i64 {
    if result < 0 { last_error() } else { result as i64 }
}

/// Makes the request by read or write at the descriptor's position.
fn at_position(call: &Call) -> i64 {
    // SAFETY: no memory is involved.
    if unsafe { libc::lseek(call.fd, call.offset, libc::SEEK_SET) } < 0 {
        return last_error();
    }
    let (fd, buffer, len) = (call.fd, call.buffer.cast(), call.len);
    // SAFETY: the buffer has len bytes.
    count(unsafe {
        if call.write { libc::write(fd, buffer, len) } else { libc::read(fd, buffer, len) }
    })
}

/// Makes the request by pread or pwrite.
pub(crate) fn positioned(call: &Call) -> i64 {
    let (fd, buffer, len) = (call.fd, call.buffer.cast(), call.len);
    // SAFETY: the buffer has len bytes.
    count(unsafe {
        if call.write {
            libc::pwrite(fd, buffer, len, call.offset)
        } else {
            libc::pread(fd, buffer, len, call.offset)
        }
    })
}

/// Makes the request by readv, preadv, preadv2 or their write counterparts.
pub(crate) fn vectored(api: &str, call: &Call) -> i64 {
    let first = if call.cut == 0 { call.len } else { call.cut };
    let part = |at: usize, len: usize| libc::iovec {
        // wrapping_add: `at` is within the buffer, or at its end.
        iov_base: call.buffer.wrapping_add(at).cast(),
        iov_len: len,
    };
    let parts = [part(0, first), part(first, call.len - first)];
    let parts = if first == call.len { &parts[..1] } else { &parts[..] };
    let (fd, list, segments) = (call.fd, parts.as_ptr(), parts.len() as i32);
    let (offset, flags) = (call.offset, call.flags);
    // SAFETY: both segments lie in the buffer, which has len bytes.
    count(unsafe {
        if matches!(api, "readv" | "writev") {
            libc::lseek(fd, offset, libc::SEEK_SET);
        }
        match api {
            "readv" => libc::readv(fd, list, segments),
            "writev" => libc::writev(fd, list, segments),
            "preadv" => libc::preadv(fd, list, segments, offset),
            "pwritev" => libc::pwritev(fd, list, segments, offset),
            "pwritev2" => with_flags(libc::SYS_pwritev2, fd, parts, offset, flags) as isize,
            _ => with_flags(libc::SYS_preadv2, fd, parts, offset, flags) as isize,
        }
    })
}

/// preadv2(2) or pwritev2(2), which musl has only from 1.2.5 on. The kernel takes the offset in two
/// halves, of which the first holds all 64 bits here (fs/read_write.c:pos_from_hilo).
///
/// # Safety
///
/// The iovecs describe memory of the caller.
pub(crate) unsafe fn with_flags(
    number: libc::c_long,
    fd: i32,
    parts: &[libc::iovec],
    offset: i64,
    flags: i32,
) -> libc::c_long {
    // SAFETY: the caller's.
    unsafe { libc::syscall(number, fd, parts.as_ptr(), parts.len(), offset, 0, flags) }
}

/// Makes the request by splice, from the file into a pipe or from a pipe into the file.
fn spliced(call: &Call) -> Result<i64> {
    let mut ends = [0; 2];
    // SAFETY: pipe writes two descriptors.
    if unsafe { libc::pipe(ends.as_mut_ptr()) } < 0 {
        bail!("no pipe");
    }
    let ([out, into], mut at, none) = (ends, call.offset, std::ptr::null_mut());
    // SAFETY: the buffer has len bytes, which a pipe has room for; the descriptors are ours.
    unsafe {
        let made = count(if call.write {
            libc::write(into, call.buffer.cast(), call.len);
            libc::splice(out, none, call.fd, &raw mut at, call.len, 0)
        } else {
            libc::splice(call.fd, &raw mut at, into, none, call.len, 0)
        });
        libc::close(out);
        libc::close(into);
        Ok(made)
    }
}

/// Makes the request by sendfile, from the file to /dev/null.
fn sent(call: &Call) -> Result<i64> {
    let nowhere = File::options().write(true).open("/dev/null").context("no /dev/null")?;
    let mut at = call.offset;
    // SAFETY: no memory but the offset is involved.
    Ok(count(unsafe { libc::sendfile(nowhere.as_raw_fd(), call.fd, &raw mut at, call.len) }))
}

/// Loads or stores through a shared mapping. This is not a request, even with an O_DIRECT
/// descriptor.
fn mapped(call: &Call) -> i64 {
    let access = if call.write { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
    let (shared, none) = (libc::MAP_SHARED, std::ptr::null_mut());
    // SAFETY: a new mapping.
    let map = unsafe { libc::mmap(none, call.len, access, shared, call.fd, call.offset) };
    if map == libc::MAP_FAILED {
        return last_error();
    }
    // SAFETY: our own mapping, within the file, synced and unmapped here.
    unsafe {
        if call.write {
            map.cast::<u8>().write_volatile(b'm');
            libc::msync(map, call.len, libc::MS_SYNC);
        } else {
            map.cast::<u8>().read_volatile();
        }
        libc::munmap(map, call.len);
    }
    call.len as i64
}

/// Makes the request by pread or pwrite in a child process.
fn child(call: &Call) -> Result<Made> {
    let mut ends = [0; 2];
    // SAFETY: pipe writes two descriptors.
    if unsafe { libc::pipe(ends.as_mut_ptr()) } < 0 {
        bail!("no pipe");
    }
    // SAFETY: the child calls only pread or pwrite, write and _exit, which are async-signal-safe.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let result = positioned(call);
        // SAFETY: eight bytes of our own stack, and then this process exits.
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
