//! The traced program of the stress test: threads make thousands of direct requests by every API,
//! with many in flight, and write a tally of the requests and results.
use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, RawFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result};
use clap::Args;
use io_uring::IoUring;
use serde::{Deserialize, Serialize};

use crate::guest::{
    direct_io::{
        flight::{Aio, Engine, Style, Uring, fly},
        memory::Buffer,
        request::{Call, positioned, vectored},
    },
    harness::wait_for_go,
    stress::draw::{Draw, Request},
};

/// The most requests that one thread has in flight.
const DEPTH: usize = 64;
/// Bytes of memory for each request in flight.
const SLOT: usize = 32 << 10;
/// The number of threads that use SQPOLL: a kernel thread polls their submissions.
const POLLED: usize = 2;

#[derive(Args, Clone, Debug)]
pub(crate) struct LoadArgs {
    /// A file or block device, which is not extended
    #[arg(long, required = true)]
    file: Vec<PathBuf>,
    /// Those files whose completions can be polled for (IOPOLL)
    #[arg(long)]
    polled: Vec<PathBuf>,
    #[arg(long, default_value_t = 8)]
    threads: usize,
    /// Approximate number of requests of each thread
    #[arg(long, default_value_t = 1500)]
    requests: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// File to write the tally to
    #[arg(long)]
    tally: Option<PathBuf>,
    /// Run as the bystander: no tally, every other thread buffered, until killed
    #[arg(long)]
    bystander: bool,
}

/// A request and its result.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Line {
    /// The thread that made the request; `None` for io_uring, where a kernel thread may submit it.
    pub(super) tid: Option<u32>,
    pub(super) file: usize,
    pub(super) write: bool,
    /// The `api` that dio-trace reports (docs/json.md).
    pub(super) api: String,
    pub(super) offset: i64,
    pub(super) len: u64,
    pub(super) ret: i64,
}

/// The program's record of all its requests.
#[derive(Deserialize, Serialize)]
pub(super) struct Tally {
    pub(super) pid: u32,
    pub(super) files: Vec<PathBuf>,
    pub(super) lines: Vec<Line>,
}

pub(crate) fn main(args: &LoadArgs) -> Result<()> {
    let mut workers = Vec::new();
    for number in 0..args.threads {
        workers.push(Worker::new(args, number)?);
    }
    wait_for_go()?;
    let done: Vec<Result<Vec<Line>>> = thread::scope(|scope| {
        let run = |mut worker: Worker| scope.spawn(move || worker.run());
        let threads: Vec<_> = workers.into_iter().map(run).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Result<Vec<Line>>>| {
            thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread died")))
        };
        threads.into_iter().map(join).collect()
    });
    let mut lines = Vec::new();
    for part in done {
        lines.extend(part?);
    }
    let Some(path) = &args.tally else { return Ok(()) };
    let tally = Tally { pid: std::process::id(), files: args.file.clone(), lines };
    fs::write(path, serde_json::to_vec(&tally)?).context("cannot write the tally")
}

/// One thread's files, memory and rings. The main thread makes the rings, so that the kernel's
/// threads for them exist before dio-trace attaches.
struct Worker {
    files: Vec<File>,
    polled: Vec<usize>,
    memory: Buffer,
    draw: Draw,
    requests: usize,
    forever: bool,
    aio: Aio,
    ring: Uring,
    by_kernel: Option<Uring>,
    polling: Option<Uring>,
}

// SAFETY: the rings' and iocbs' pointers refer to the worker's own memory, which moves with it.
unsafe impl Send for Worker {}

impl Worker {
    fn new(args: &LoadArgs, number: usize) -> Result<Self> {
        let open = |path: &PathBuf| open(path, !args.bystander || number.is_multiple_of(2));
        let files: Vec<File> = args.file.iter().map(open).collect::<Result<_>>()?;
        let sizes = files.iter().map(size).collect::<Result<Vec<_>>>()?;
        let polled = |path: &PathBuf| args.file.iter().position(|file| file == path);
        let polled: Vec<usize> = args.polled.iter().filter_map(polled).collect();
        let mut memory = Buffer::new(DEPTH * SLOT)?;
        let fds: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
        let mut ring = |ring: io::Result<IoUring>, what: &str| {
            let ring = ring.with_context(|| format!("no io_uring {what}"))?;
            Uring::new(ring, fds.clone(), memory.bytes())
        };
        let entries = DEPTH as u32;
        let by_kernel = number < POLLED && !args.bystander;
        let by_kernel = by_kernel
            .then(|| ring(IoUring::builder().setup_sqpoll(50).build(entries), "with SQPOLL"));
        let polling = (!polled.is_empty())
            .then(|| ring(IoUring::builder().setup_iopoll().build(entries), "with IOPOLL"));
        Ok(Self {
            ring: ring(IoUring::new(entries), "")?,
            by_kernel: by_kernel.transpose()?,
            polling: polling.transpose()?,
            aio: Aio::new(DEPTH)?,
            draw: Draw::new(args.seed * 1000 + number as u64, sizes),
            requests: args.requests,
            forever: args.bystander,
            files,
            polled,
            memory,
        })
    }

    fn run(&mut self) -> Result<Vec<Line>> {
        let mut lines = Vec::new();
        while lines.len() < self.requests {
            self.batch(&mut lines)?;
            if self.forever {
                lines.clear();
            }
        }
        Ok(lines)
    }

    /// Makes some requests by one API.
    fn batch(&mut self, lines: &mut Vec<Line>) -> Result<()> {
        match self.draw.below(9) {
            0 => self.one_by_one("read", lines),
            1 => self.one_by_one("readv", lines),
            2 => self.in_flight(Api::Aio, lines),
            3 => self.in_flight(Api::Ring(Style::Async, 1), lines),
            4 => self.in_flight(Api::Ring(Style::Fixed, 1), lines),
            5 => self.in_flight(Api::Ring(Style::Plain, 4), lines),
            6 if self.by_kernel.is_some() => self.in_flight(Api::ByKernel, lines),
            7 if self.polling.is_some() => self.in_flight(Api::Polling, lines),
            _ => self.in_flight(Api::Ring(Style::Plain, 1), lines),
        }
    }

    fn one_by_one(&mut self, api: &'static str, lines: &mut Vec<Line>) -> Result<()> {
        let tid = thread_id();
        for _ in 0..4 + self.draw.below(28) {
            let request = self.draw.request();
            let mut call = call(&self.files, self.memory.at(0), &request);
            let ret = if api == "read" {
                positioned(&call)
            } else {
                call.cut = if self.draw.below(2) == 0 { 0 } else { request.len / 2 };
                vectored(if request.write { "pwritev2" } else { "preadv2" }, &call)
            };
            lines.push(line(&request, api, Some(tid), ret));
        }
        Ok(())
    }

    fn in_flight(&mut self, api: Api, lines: &mut Vec<Line>) -> Result<()> {
        let depth = 1 << self.draw.below(DEPTH.ilog2() as usize + 1);
        let depth = depth.max(api.chain());
        let count = depth + self.draw.below(3 * DEPTH);
        let Self { files, polled, memory, draw, aio, ring, by_kernel, polling, .. } = self;
        let missing = || anyhow::anyhow!("no such ring");
        let engine: &mut dyn Engine = match api {
            Api::Aio => aio,
            Api::Ring(style, _) => ring.styled(style),
            Api::ByKernel => by_kernel.as_mut().ok_or_else(missing)?,
            Api::Polling => polling.as_mut().ok_or_else(missing)?,
        };
        let (word, tid) = match api {
            Api::Aio => ("libaio", Some(thread_id())),
            _ => ("io_uring", None),
        };
        let next = |slot: usize| {
            let mut request = draw.request();
            if matches!(api, Api::Polling) {
                request = draw.request_to(polled);
            }
            let call = call(files, memory.at(slot * SLOT), &request);
            (request, call)
        };
        let record = |request: &Request, ret: i64| lines.push(line(request, word, tid, ret));
        fly(engine, (count, depth, api.chain()), next, record)
    }
}

/// The asynchronous APIs that keep requests in flight.
#[derive(Clone, Copy)]
enum Api {
    Aio,
    /// io_uring, in link chains of this length.
    Ring(Style, usize),
    ByKernel,
    Polling,
}

impl Api {
    const fn chain(self) -> usize {
        if let Self::Ring(_, chain) = self { chain } else { 1 }
    }
}

fn open(path: &Path, direct: bool) -> Result<File> {
    let flags = if direct || path.starts_with("/dev") { libc::O_DIRECT } else { 0 };
    let file = File::options().read(true).write(true).custom_flags(flags).open(path);
    file.with_context(|| format!("cannot open {}", path.display()))
}

/// The size of a file or a device, in bytes.
fn size(file: &File) -> Result<u64> {
    use std::io::{Seek, SeekFrom};
    let mut file = file;
    file.seek(SeekFrom::End(0)).context("cannot seek")
}

fn call(files: &[File], memory: *mut u8, request: &Request) -> Call {
    Call {
        write: request.write,
        fd: files[request.file].as_raw_fd(),
        buffer: memory.wrapping_add(request.skew),
        len: request.len,
        offset: request.offset,
        cut: 0,
        flags: 0,
    }
}

fn line(request: &Request, api: &str, tid: Option<u32>, ret: i64) -> Line {
    Line {
        tid,
        file: request.file,
        write: request.write,
        api: api.to_owned(),
        offset: request.offset,
        len: request.len as u64,
        ret,
    }
}

fn thread_id() -> u32 {
    // SAFETY: no preconditions.
    unsafe { libc::gettid() as u32 }
}
