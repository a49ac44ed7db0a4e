//! The program that is measured: makes requests of one kind after the other, and times them.
//!
//! Under QEMU's `-icount` one instruction is one nanosecond of the guest's clock.
use std::{
    fs::{self, File},
    io::{self, Write},
    os::{
        fd::AsRawFd,
        unix::{fs::OpenOptionsExt, net::UnixStream},
    },
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use io_uring::IoUring;

use crate::guest::{
    bench::stage::{BLOCK, BLOCKS},
    contract::bench::Cost,
    direct_io::{
        files::{drop_pages, open_direct},
        flight::{Aio, Engine, Uring, fly},
        memory::Buffer,
        request::{Call, positioned},
    },
    harness::wait_for_go,
};

/// Bytes of a read from a pipe or socket.
const MESSAGE: usize = 64;
/// Requests in flight by libaio and io_uring.
const DEPTH: usize = 32;
/// Requests before the measurement, which warm up the caches and let the tracer look up the file.
const WARM: usize = 2000;
/// The least number of requests that are timed together; with fewer, reading the clock would show.
const BATCH: usize = 96;
const BATCHES: usize = 40;

#[derive(Args, Clone, Debug)]
pub(crate) struct BenchLoadArgs {
    /// A folder with the files `plain` and `journaled`
    #[arg(long)]
    folder: PathBuf,
    /// Measure only these kinds
    #[arg(long)]
    kind: Vec<String>,
    #[arg(long)]
    out: PathBuf,
}

/// A kind of request: its name, and a function that prepares the load.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    start: fn(&Path) -> Result<Box<dyn Load>>,
}

/// All kinds, in the order of the table.
pub(crate) const KINDS: &[Kind] = &[
    Kind { name: "direct-read", start: |folder| InFile::start(folder, "plain", true, false) },
    Kind { name: "buffered-read", start: |folder| InFile::start(folder, "plain", false, false) },
    Kind { name: "pipe-read", start: |_| Stream::pipe() },
    Kind { name: "socket-read", start: |_| Stream::socket() },
    Kind { name: "direct-write", start: |folder| InFile::start(folder, "plain", true, true) },
    Kind { name: "fallback-read", start: |folder| InFile::start(folder, "journaled", true, false) },
    Kind { name: "libaio-32", start: |folder| Queued::libaio(folder) },
    Kind { name: "io_uring-32", start: |folder| Queued::io_uring(folder) },
];

pub(crate) fn main(args: &BenchLoadArgs) -> Result<()> {
    let wanted = |kind: &Kind| args.kind.is_empty() || args.kind.iter().any(|k| k == kind.name);
    wait_for_go()?;
    let mut costs = Vec::new();
    for kind in KINDS.iter().filter(|kind| wanted(kind)) {
        let mut load = (kind.start)(&args.folder).with_context(|| kind.name.to_owned())?;
        costs.push((kind.name, measure(load.as_mut()).with_context(|| kind.name.to_owned())?));
    }
    fs::write(&args.out, serde_json::to_vec(&costs)?).context("cannot write the costs")
}

/// A load that makes requests of one kind.
trait Load {
    /// Makes one request, or one group that goes together; returns the number of requests.
    fn once(&mut self) -> Result<usize>;

    /// Prepares this many requests; its time is not measured.
    fn prepare(&mut self, _requests: usize) -> Result<()> {
        Ok(())
    }
}

fn measure(load: &mut dyn Load) -> Result<Cost> {
    let mut warm = 0;
    while warm < WARM {
        warm += batch(load)?.0;
    }
    let (mut least, mut all, mut requests) = (f64::MAX, 0.0, 0);
    for _ in 0..BATCHES {
        let (count, ns) = batch(load)?;
        least = least.min(ns / count as f64);
        all += ns;
        requests += count;
    }
    Ok(Cost { least, mean: all / requests as f64 })
}

/// Makes a batch; returns the number of requests and their total time in ns.
fn batch(load: &mut dyn Load) -> Result<(usize, f64)> {
    load.prepare(BATCH)?;
    let mut made = 0;
    let start = Instant::now();
    while made < BATCH {
        made += load.once()?;
    }
    Ok((made, start.elapsed().as_nanos() as f64))
}

/// pread or pwrite, block after block. Direct loads start with nothing cached, because cached pages
/// of the file make each direct read more expensive, with a tracer and without.
struct InFile {
    file: File,
    buffer: Buffer,
    write: bool,
    next: usize,
}

impl InFile {
    fn start(folder: &Path, name: &str, direct: bool, write: bool) -> Result<Box<dyn Load>> {
        let mut options = File::options();
        options.read(true).write(write);
        if direct {
            options.custom_flags(libc::O_DIRECT);
        } else {
            // Reads the file into the page cache: direct writes may have dropped its pages.
            fs::read(folder.join(name))?;
        }
        let file = options.open(folder.join(name))?;
        if direct {
            drop_pages(&file)?;
        }
        Ok(Box::new(Self { file, buffer: Buffer::new(BLOCK)?, write, next: 0 }))
    }
}

impl Load for InFile {
    fn once(&mut self) -> Result<usize> {
        self.next = (self.next + 1) % BLOCKS;
        let call = Call {
            write: self.write,
            fd: self.file.as_raw_fd(),
            buffer: self.buffer.at(0),
            len: BLOCK,
            offset: (self.next * BLOCK) as i64,
            cut: 0,
            flags: 0,
        };
        match positioned(&call) {
            done if done == BLOCK as i64 => Ok(1),
            other => bail!("a request gave {other}"),
        }
    }
}

/// Reads of small messages that have been written before.
struct Stream<R, W> {
    from: R,
    into: W,
}

impl Stream<io::PipeReader, io::PipeWriter> {
    fn pipe() -> Result<Box<dyn Load>> {
        let (from, into) = io::pipe()?;
        Ok(Box::new(Self { from, into }))
    }
}

impl Stream<UnixStream, UnixStream> {
    fn socket() -> Result<Box<dyn Load>> {
        let (from, into) = UnixStream::pair()?;
        Ok(Box::new(Self { from, into }))
    }
}

impl<R: AsRawFd, W: Write> Load for Stream<R, W> {
    fn once(&mut self) -> Result<usize> {
        let mut message = [0_u8; MESSAGE];
        // read(2): for a socket the standard library uses recv(2), which is not a file read.
        // SAFETY: the buffer has MESSAGE bytes.
        let got =
            unsafe { libc::read(self.from.as_raw_fd(), message.as_mut_ptr().cast(), MESSAGE) };
        if got != MESSAGE as isize {
            bail!("a read gave {got}");
        }
        Ok(1)
    }

    fn prepare(&mut self, requests: usize) -> Result<()> {
        for _ in 0..requests {
            self.into.write_all(&[1; MESSAGE])?;
        }
        Ok(())
    }
}

/// Direct reads with many in flight.
struct Queued {
    engine: Box<dyn Engine>,
    file: File,
    buffer: Buffer,
}

impl Queued {
    fn libaio(folder: &Path) -> Result<Box<dyn Load>> {
        let (file, buffer) = Self::parts(folder)?;
        Ok(Box::new(Self { engine: Box::new(Aio::new(DEPTH)?), file, buffer }))
    }

    fn io_uring(folder: &Path) -> Result<Box<dyn Load>> {
        let (file, mut buffer) = Self::parts(folder)?;
        let ring = IoUring::new(DEPTH as u32).context("no io_uring")?;
        let engine = Uring::new(ring, vec![file.as_raw_fd()], buffer.bytes())?;
        Ok(Box::new(Self { engine: Box::new(engine), file, buffer }))
    }

    fn parts(folder: &Path) -> Result<(File, Buffer)> {
        let file = open_direct(&folder.join("plain"))?;
        drop_pages(&file)?;
        Ok((file, Buffer::new(DEPTH * BLOCK)?))
    }
}

impl Load for Queued {
    fn once(&mut self) -> Result<usize> {
        let mut bad = None;
        let (fd, buffer) = (self.file.as_raw_fd(), &mut self.buffer);
        let next = |slot: usize| {
            let offset = (slot % BLOCKS * BLOCK) as i64;
            let buffer = buffer.at(slot * BLOCK);
            ((), Call { write: false, fd, buffer, len: BLOCK, offset, cut: 0, flags: 0 })
        };
        fly(self.engine.as_mut(), (DEPTH, DEPTH, 1), next, |(), result| {
            if result != BLOCK as i64 {
                bad = Some(result);
            }
        })?;
        match bad {
            Some(result) => bail!("a request gave {result}"),
            None => Ok(DEPTH),
        }
    }
}
