//! Keeps many requests in flight by libaio and io_uring.
use std::{io, os::fd::RawFd};

use anyhow::{Context, Result, bail};
use io_uring::{IoUring, opcode, squeue, types};

use crate::guest::direct_io::request::{Call, Event, Iocb, iocb, plain};

/// The result of a request that io_uring did not start, because an earlier request of its link
/// chain failed or came back short.
const CANCELLED: i64 = -(libc::ECANCELED as i64);

/// An asynchronous API: takes requests and returns their results in any order.
pub(crate) trait Engine {
    /// Whether there is room for this many more requests now.
    fn has_room(&mut self, requests: usize) -> bool;
    /// Queues a request; its result comes back under `slot`. `linked` chains it to the next one.
    fn push(&mut self, slot: usize, call: &Call, linked: bool) -> Result<()>;
    /// Submits what was pushed, waits for at least one result, and collects all that are ready.
    fn wait(&mut self, done: &mut Vec<(usize, i64)>) -> Result<()>;
}

/// Makes `count` requests, up to `depth` at a time, in link chains of `chain`. `next` returns the
/// request for a slot; `record` receives its result. Cancelled requests are not recorded.
pub(crate) fn fly<T>(
    engine: &mut dyn Engine,
    (count, depth, chain): (usize, usize, usize),
    mut next: impl FnMut(usize) -> (T, Call),
    mut record: impl FnMut(&T, i64),
) -> Result<()> {
    let mut free: Vec<usize> = (0..depth).collect();
    let mut flying: Vec<Option<T>> = (0..depth).map(|_| None).collect();
    let mut done = Vec::new();
    let mut left = count.next_multiple_of(chain);
    loop {
        while left > 0 && free.len() >= chain && engine.has_room(chain) {
            for number in 1..=chain {
                let slot = free.pop().context("no free slot")?;
                let (what, call) = next(slot);
                engine.push(slot, &call, number < chain)?;
                flying[slot] = Some(what);
                left -= 1;
            }
        }
        if left == 0 && free.len() == depth {
            return Ok(());
        }
        engine.wait(&mut done)?;
        for (slot, result) in done.drain(..) {
            let what = flying.get_mut(slot).and_then(Option::take);
            let what =
                what.with_context(|| format!("a result for a slot without a request: {result}"))?;
            if result != CANCELLED {
                record(&what, result);
            }
            free.push(slot);
        }
    }
}

pub(crate) struct Aio {
    context: libc::c_ulong,
    iocbs: Box<[Iocb]>,
    pushed: Vec<*mut Iocb>,
}

impl Aio {
    pub(crate) fn new(depth: usize) -> Result<Self> {
        let mut context = 0;
        // SAFETY: io_setup writes the context's handle to the given place.
        let made = unsafe { libc::syscall(libc::SYS_io_setup, depth, &raw mut context) };
        if made < 0 {
            return Err(io::Error::last_os_error()).context("no libaio context");
        }
        Ok(Self { context, iocbs: vec![Iocb::default(); depth].into(), pushed: Vec::new() })
    }
}

impl Engine for Aio {
    fn has_room(&mut self, _: usize) -> bool {
        true
    }

    fn push(&mut self, slot: usize, call: &Call, _: bool) -> Result<()> {
        self.iocbs[slot] = iocb(call, slot as u64);
        self.pushed.push(&raw mut self.iocbs[slot]);
        Ok(())
    }

    fn wait(&mut self, done: &mut Vec<(usize, i64)>) -> Result<()> {
        while !self.pushed.is_empty() {
            let (count, list) = (self.pushed.len(), self.pushed.as_mut_ptr());
            // SAFETY: `count` iocbs, which stay in place until their events have come.
            let sent = unsafe { libc::syscall(libc::SYS_io_submit, self.context, count, list) };
            if sent < 0 {
                return Err(io::Error::last_os_error()).context("io_submit");
            }
            self.pushed.drain(..sent as usize);
        }
        let mut events = [Event::default(); 64];
        let (room, none) = (events.len(), std::ptr::null::<libc::timespec>());
        // SAFETY: `room` events fit in the array.
        let got = unsafe {
            let at = events.as_mut_ptr();
            libc::syscall(libc::SYS_io_getevents, self.context, 1, room, at, none)
        };
        if got < 1 {
            bail!("io_getevents gave {got}");
        }
        let events = &events[..got as usize];
        done.extend(events.iter().map(|event| (event.data as usize, event.result)));
        Ok(())
    }
}

/// How a request is submitted to io_uring.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    /// With IOSQE_ASYNC: straight to io-wq.
    Async,
    /// With registered files and buffers.
    Fixed,
}

pub(crate) struct Uring {
    ring: IoUring,
    style: Style,
    /// Descriptors in the order of registration.
    files: Vec<RawFd>,
}

impl Uring {
    pub(crate) fn new(ring: IoUring, files: Vec<RawFd>, memory: &mut [u8]) -> Result<Self> {
        let whole = libc::iovec { iov_base: memory.as_mut_ptr().cast(), iov_len: memory.len() };
        let submitter = ring.submitter();
        // SAFETY: the caller keeps the memory longer than the ring.
        unsafe { submitter.register_buffers(&[whole]) }.context("cannot register a buffer")?;
        submitter.register_files(&files).context("cannot register files")?;
        Ok(Self { ring, style: Style::Plain, files })
    }

    pub(crate) fn styled(&mut self, style: Style) -> &mut Self {
        self.style = style;
        self
    }

    fn entry(&self, call: &Call) -> Result<squeue::Entry> {
        if self.style != Style::Fixed {
            return Ok(plain(call));
        }
        let index = self.files.iter().position(|fd| *fd == call.fd).context("not registered")?;
        let (file, len, offset) = (types::Fixed(index as u32), call.len as u32, call.offset as u64);
        Ok(if call.write {
            opcode::WriteFixed::new(file, call.buffer, len, 0).offset(offset).build()
        } else {
            opcode::ReadFixed::new(file, call.buffer, len, 0).offset(offset).build()
        })
    }
}

impl Engine for Uring {
    fn has_room(&mut self, requests: usize) -> bool {
        let queue = self.ring.submission();
        queue.capacity() - queue.len() >= requests
    }

    fn push(&mut self, slot: usize, call: &Call, linked: bool) -> Result<()> {
        let mut flags = squeue::Flags::empty();
        flags.set(squeue::Flags::ASYNC, self.style == Style::Async);
        flags.set(squeue::Flags::IO_LINK, linked);
        let entry = self.entry(call)?.flags(flags).user_data(slot as u64);
        // SAFETY: the buffer outlives the request, which `fly` waits for.
        unsafe { self.ring.submission().push(&entry) }.ok().context("the submission queue is full")
    }

    fn wait(&mut self, done: &mut Vec<(usize, i64)>) -> Result<()> {
        match self.ring.submit_and_wait(1) {
            Ok(_) => {}
            // The completion queue is full: results must be taken first.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            Err(error) => return Err(error).context("io_uring_enter"),
        }
        let results = self.ring.completion();
        done.extend(results.map(|cqe| (cqe.user_data() as usize, i64::from(cqe.result()))));
        Ok(())
    }
}
