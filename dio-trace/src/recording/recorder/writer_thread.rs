//! The writer thread: writes batches to one file, to a sequence of files, or to memory.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Error, Result};

use crate::{
    recording::{
        format::{End, Header, TotalsFact, Writer},
        recorder::{
            Batch, Keep, Message, Options, SYNC_EVERY, Shared,
            reserve::{FOR_END, Reserved, block_signal, reason},
        },
    },
    util::{
        clock::Zone,
        escape, private_file,
        privilege::{CREATING, give_up_but},
    },
};

/// How long a request may wait in memory before it is written to the file.
const WRITE_EVERY: Duration = Duration::from_millis(300);

/// Where blocks go.
enum Out {
    File(Reserved),
    Memory(Vec<u8>),
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Memory(memory) => memory.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Out {
    fn sync(&self) -> io::Result<()> {
        match self {
            Self::File(file) => file.sync(),
            Self::Memory(_) => Ok(()),
        }
    }

    /// Sets the number of bytes to reserve for the end from now on.
    fn keep(&mut self, bytes: u64) {
        if let Self::File(file) = self {
            file.keep(bytes);
        }
    }

    /// Truncates the file to `len` bytes.
    fn cut(&mut self, len: u64) {
        if let Self::File(file) = self {
            let _ = file.cut(len);
        }
    }

    /// Returns the reserved space to the file system; nothing more will be written.
    fn release(&mut self) {
        if let Self::File(file) = self {
            file.release();
        }
    }
}

/// Truncates the file to its last complete block, after a failed write.
fn cut(writer: &mut Writer<Out>) {
    let written = writer.written();
    writer.get_mut().cut(written);
}

/// Creates the next file and writes its header. If that fails, the file is removed.
fn begin(names: &mut Names, header: &Header) -> Result<Writer<Out>> {
    let file = names.create()?;
    Writer::new(Out::File(Reserved::new(file)), header).or_else(|error| {
        names.remove_last();
        Err(error).with_context(|| format!("cannot write {}", escape::path(&names.path)))
    })
}

/// Writes the last block into the reserved space. If there is still no space (not every file system
/// can reserve it), the last block of requests is removed to make room, and `why` says so.
fn end(writer: &mut Writer<Out>, end: &mut End, failed: &mut dyn FnMut(&Error)) -> Result<()> {
    writer.get_mut().keep(0);
    let result = try_end(writer, end);
    let Err(error) = result else { return Ok(()) };
    failed(&error);
    writer.discard();
    writer.give_back();
    cut(writer);
    end.why = reason(&error);
    try_end(writer, end).inspect_err(|_| cut(writer))
}

fn try_end(writer: &mut Writer<Out>, end: &End) -> Result<()> {
    writer.end(end)?;
    Ok(writer.get_ref().sync()?)
}

/// Names of successive files: FILE.1, FILE.2, …, after the highest number that exists.
struct Names {
    path: PathBuf,
    next: u64,
    /// Files that were created and not removed, oldest first.
    made: VecDeque<PathBuf>,
}

impl Names {
    fn new(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let entries =
            fs::read_dir(folder.unwrap_or(Path::new("."))).into_iter().flatten().flatten();
        let number = |entry: fs::DirEntry| {
            let there = entry.file_name();
            let rest = there.as_encoded_bytes().strip_prefix(name)?.strip_prefix(b".")?;
            std::str::from_utf8(rest).ok()?.parse::<u64>().ok()
        };
        let last = entries.filter_map(number).max().unwrap_or(0);
        Self { path: path.to_owned(), next: last.saturating_add(1), made: VecDeque::new() }
    }

    /// Removes the file that was created last.
    fn remove_last(&mut self) {
        if let Some(path) = self.made.pop_back() {
            let _ = fs::remove_file(path);
        }
    }

    fn create(&mut self) -> Result<File> {
        let mut name = OsString::from(&self.path);
        name.push(format!(".{}", self.next));
        let path = PathBuf::from(name);
        let file = private_file::create(&path, false)?;
        self.next += 1;
        self.made.push_back(path);
        Ok(file)
    }

    /// Removes the oldest files, except for the last `keep`.
    fn retain(&mut self, keep: u64) {
        while self.made.len() as u64 > keep {
            if let Some(path) = self.made.pop_front() {
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// The complete segments of an in-memory recording, without the current one.
struct Ring {
    /// Blocks, and the number of requests in them.
    segments: VecDeque<(Vec<u8>, u64)>,
    size: u64,
}

impl Ring {
    fn push(&mut self, segment: Vec<u8>, requests: u64) {
        self.segments.push_back((segment, requests));
        // Leaves room for the segment that is written next.
        let room = self.size - self.size / super::SEGMENTS;
        while self.segments.len() > 1 && self.held() > room {
            self.segments.pop_front();
        }
    }

    fn held(&self) -> u64 {
        self.segments.iter().map(|(segment, _)| segment.len() as u64).sum()
    }
}

/// The state of the writer thread.
pub(super) struct WriterThread {
    writer: Writer<Out>,
    header: Header,
    shared: Arc<Shared>,
    names: Names,
    keep: Keep,
    ring: Ring,
    max_size: u64,
    /// Writing has failed or reached its limit. Only the end is still written.
    dead: bool,
    /// The totals and the end of the current file are written.
    ended: bool,
    /// Requests in earlier files.
    before: u64,
}

impl WriterThread {
    /// Creates the first file, except for an in-memory recording.
    pub(super) fn start(options: &Options, header: &Header, shared: Arc<Shared>) -> Result<Self> {
        let mut names = Names::new(&options.path);
        let writer = match options.keep {
            Keep::Flight { .. } => Writer::bare(Out::Memory(Vec::new())),
            Keep::Rotate { .. } => begin(&mut names, header)?,
            Keep::Whole => {
                let file = private_file::create(&options.path, options.force)?;
                names.made.push_back(options.path.clone());
                Writer::new(Out::File(Reserved::new(file)), header)
                    .with_context(|| format!("cannot write {}", escape::path(&options.path)))?
            }
        };
        let size = if let Keep::Flight { size, .. } = options.keep { size } else { 0 };
        Ok(Self {
            writer,
            header: header.clone(),
            shared,
            names,
            keep: options.keep.clone(),
            ring: Ring { segments: VecDeque::new(), size },
            max_size: options.max_size.unwrap_or(u64::MAX),
            dead: false,
            ended: false,
            before: 0,
        })
    }

    /// Handles messages until the recorder closes the queue. Returns the files that exist at the
    /// end.
    pub(super) fn run(mut self, messages: &Receiver<Message>) -> Vec<PathBuf> {
        // This thread only writes. Errors are ignored: without capabilities there is nothing to drop.
        let creates = !matches!(self.keep, Keep::Whole);
        let _ = give_up_but(if creates { CREATING } else { &[] });
        block_signal();
        let (mut written, mut synced) = (Instant::now(), Instant::now());
        loop {
            let wait = WRITE_EVERY.saturating_sub(written.elapsed());
            let message = match messages.recv_timeout(wait) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return self.names.made.into(),
            };
            if let Some(message) = message {
                let result = self.take(message);
                self.check(result);
            }
            if written.elapsed() >= WRITE_EVERY {
                let result = if self.dead { Ok(()) } else { self.writer.flush() };
                self.check(result.map_err(Error::new));
                written = Instant::now();
            }
            if synced.elapsed() >= SYNC_EVERY {
                let result = if self.dead { Ok(()) } else { self.writer.get_ref().sync() };
                self.check(result.map_err(Error::new));
                synced = Instant::now();
            }
        }
    }

    fn take(&mut self, message: Message) -> Result<()> {
        if let Message::Batch(batch) | Message::Last(batch, ..) = &message {
            self.shared.taken.fetch_add(batch.requests.len() as u64, Ordering::Relaxed);
        }
        match message {
            Message::Last(batch, totals, end) => {
                self.close(batch, totals, end);
                Ok(())
            }
            _ if self.dead => Ok(()),
            Message::Totals(totals) => Ok(self.writer.totals(totals)?),
            Message::Batch(batch) => {
                add(&mut self.writer, &batch)?;
                // Memory is accounted by blocks, which must be small compared to its size.
                let flight = matches!(self.keep, Keep::Flight { .. });
                if flight { Ok(self.writer.flush()?) } else { Ok(()) }
            }
            Message::EndSegment(totals, end) => {
                let time = end.time;
                self.close(Batch::default(), totals, end);
                if self.dead { Ok(()) } else { self.next_file(time) }
            }
            Message::Rotate => self.rotate(),
            Message::Dump(batch, totals, end) => self.dump(&batch, totals, end),
        }
    }

    /// Ends the current file: writes as much as fits, and the reason if that is not everything.
    fn close(&mut self, batch: Batch, totals: TotalsFact, mut last: End) {
        if !self.ended {
            self.rest(batch, totals);
        }
        let why = self.shared.why();
        if self.ended && why.is_none() {
            return;
        }
        last.why = why.unwrap_or(last.why);
        if self.dead {
            self.writer.discard();
        }
        let shared = &self.shared;
        if let Err(error) = end(&mut self.writer, &mut last, &mut |error| shared.fail(error)) {
            self.dead = true;
            self.shared.fail(&error);
            self.shared.unended.store(true, Ordering::Relaxed);
        }
        self.dead |= self.shared.why().is_some();
        self.ended = true;
        if self.dead || !matches!(self.keep, Keep::Rotate { .. }) {
            // If another file follows, the reserve of this one is kept until that one is created:
            // if that fails, the reason is written here.
            self.writer.get_mut().release();
        }
    }

    /// Writes the last batch and the totals. After a failure, only facts and totals are written
    /// into the reserve: requests after a gap would look as if they were all that there were.
    fn rest(&mut self, mut batch: Batch, totals: TotalsFact) {
        if !self.dead {
            let result = add(&mut self.writer, &batch).and_then(|()| self.writer.flush());
            self.check(result.map_err(Error::new));
        }
        if self.dead {
            self.writer.discard();
            self.writer.get_mut().keep(FOR_END);
            batch.requests.clear();
        }
        let facts = if self.dead { add(&mut self.writer, &batch) } else { Ok(()) };
        let result = facts.and_then(|()| self.writer.totals(totals));
        self.check(result.map_err(Error::new));
    }

    /// Continues in the next file.
    fn next_file(&mut self, time: u64) -> Result<()> {
        let started = i128::from(time) + i128::from(self.header.clock);
        let header = Header {
            started: u64::try_from(started).unwrap_or(self.header.started),
            // The UTC offset may have changed since the first file.
            zone: Zone::local().or_else(|| self.header.zone.clone()),
            ..self.header.clone()
        };
        let mut next = begin(&mut self.names, &header)?;
        std::mem::swap(&mut self.writer, &mut next);
        next.get_mut().release();
        self.ended = false;
        self.before += next.recorded();
        self.shared.done.fetch_add(next.written(), Ordering::Relaxed);
        if let Keep::Rotate { keep: Some(keep), .. } = self.keep {
            self.names.retain(keep);
        }
        self.shared.segments.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Continues in a new segment in memory.
    fn rotate(&mut self) -> Result<()> {
        self.writer.flush()?;
        let segment = std::mem::replace(&mut self.writer, Writer::bare(Out::Memory(Vec::new())));
        let requests = segment.recorded();
        if let Out::Memory(blocks) = segment.into_inner() {
            self.ring.push(blocks, requests);
        }
        self.shared.segments.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Writes the segments in memory to a new file.
    fn dump(&mut self, batch: &Batch, totals: TotalsFact, mut last: End) -> Result<()> {
        self.writer.flush()?;
        let unended = || self.shared.unended.store(true, Ordering::Relaxed);
        let mut out = begin(&mut self.names, &self.header).inspect_err(|_| unended())?;
        let result = self.pour(&mut out, batch, totals);
        if let Err(error) = &result {
            self.shared.fail(error);
            out.discard();
            cut(&mut out);
            last.why = reason(error);
        }
        let shared = &self.shared;
        let ended = end(&mut out, &mut last, &mut |error| shared.fail(error));
        if ended.is_err() {
            self.shared.unended.store(true, Ordering::Relaxed);
        }
        out.get_mut().release();
        self.before += out.recorded();
        self.shared.done.fetch_add(out.written(), Ordering::Relaxed);
        result.and(ended)
    }

    /// Writes all segments in memory, the batch and the totals to `out`.
    fn pour(&self, out: &mut Writer<Out>, batch: &Batch, totals: TotalsFact) -> Result<()> {
        for (segment, requests) in &self.ring.segments {
            out.blocks(segment, *requests)?;
        }
        if let Out::Memory(blocks) = self.writer.get_ref() {
            out.blocks(blocks, self.writer.recorded())?;
        }
        add(out, batch)?;
        Ok(out.totals(totals)?)
    }

    /// Handles the result of a write, and publishes the progress in [`Shared`].
    fn check(&mut self, result: Result<()>) {
        if let Err(error) = result {
            cut(&mut self.writer);
            self.dead = true;
            self.shared.fail(&error);
        }
        let written = self.writer.written();
        self.shared.bytes.store(written, Ordering::Relaxed);
        let in_this = if let Keep::Flight { .. } = self.keep { 0 } else { self.writer.recorded() };
        self.shared.requests.store(self.before + in_this, Ordering::Relaxed);
        if written >= self.max_size && !self.dead {
            self.dead = true;
            self.shared.stop("it reached --max-size".to_owned());
        }
    }
}

fn add(writer: &mut Writer<Out>, batch: &Batch) -> io::Result<()> {
    for fact in &batch.facts {
        writer.fact(fact)?;
    }
    for request in &batch.requests {
        writer.request(request)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_continue_after_existing_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.dio");
        for name in ["r.dio.2", "r.dio.07", "r.dio.x", "other.9"] {
            fs::write(folder.path().join(name), "mine").unwrap();
        }
        let mut names = Names::new(&path);
        for _ in 0..3 {
            names.create().unwrap();
        }
        names.retain(1);
        let there = |name: &str| folder.path().join(name).exists();
        assert!(there("r.dio.2") && !there("r.dio.8") && !there("r.dio.9") && there("r.dio.10"));
    }

    #[test]
    fn a_ring_keeps_the_last_and_never_more_than_its_size() {
        let mut ring = Ring { segments: VecDeque::new(), size: 800 };
        for n in 0..50 {
            ring.push(vec![n; 100], 1);
            assert!(ring.held() <= 700);
        }
        assert_eq!(
            ring.segments.iter().map(|(segment, _)| segment[0]).collect::<Vec<_>>(),
            [43, 44, 45, 46, 47, 48, 49]
        );
    }
}
