//! The thread that writes: into one file, one after the other, or memory.

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

use anyhow::{Context as _, Result};

use super::{Keep, Message, Options, Parcel, SYNC_EVERY, Shared};
use crate::{
    clock::Zone,
    escape, output,
    privilege::{CREATING, give_up_but},
    trace_file::{Header, Writer},
};

/// How long a request may wait before it is in the file.
const WRITE_EVERY: Duration = Duration::from_millis(300);

/// Where blocks go.
enum Out {
    File(File),
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
            Self::File(file) => file.sync_data(),
            Self::Memory(_) => Ok(()),
        }
    }

    /// After a failure a file ends with its last whole block.
    fn cut(&self, len: u64) {
        if let Self::File(file) = self {
            let _ = file.set_len(len);
        }
    }
}

/// FILE.1, FILE.2, …, behind those that are there.
struct Names {
    path: PathBuf,
    next: u64,
    /// Those made and not removed.
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

    fn create(&mut self) -> Result<File> {
        let mut name = OsString::from(&self.path);
        name.push(format!(".{}", self.next));
        let path = PathBuf::from(name);
        let file = output::create(&path, false)?;
        self.next += 1;
        self.made.push_back(path);
        Ok(file)
    }

    /// Removes the oldest but for `keep`.
    fn retain(&mut self, keep: u64) {
        while self.made.len() as u64 > keep {
            if let Some(path) = self.made.pop_front() {
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// Blocks of the last requests. Each part tells all that its requests refer to.
struct Ring {
    parts: VecDeque<Vec<u8>>,
    size: u64,
}

impl Ring {
    fn push(&mut self, part: Vec<u8>) {
        self.parts.push_back(part);
        // The part that comes next has its place, too.
        let room = self.size - self.size / super::PARTS;
        let held =
            |parts: &VecDeque<Vec<u8>>| parts.iter().map(|part| part.len() as u64).sum::<u64>();
        while self.parts.len() > 1 && held(&self.parts) > room {
            self.parts.pop_front();
        }
    }
}

/// The thread's side.
pub(super) struct Side {
    writer: Writer<Out>,
    header: Header,
    shared: Arc<Shared>,
    names: Names,
    keep: Keep,
    ring: Ring,
    max_size: u64,
    /// The disk took no more.
    dead: bool,
}

impl Side {
    /// Creates the first file, if there is one from the start.
    pub(super) fn start(options: &Options, header: &Header, shared: Arc<Shared>) -> Result<Self> {
        let mut names = Names::new(&options.path);
        let writer = match options.keep {
            Keep::Flight { .. } => Writer::bare(Out::Memory(Vec::new())),
            Keep::Rotate { .. } => Writer::new(Out::File(names.create()?), header)
                .with_context(|| format!("cannot write {}", escape::path(&options.path)))?,
            Keep::Whole => {
                let file = output::create(&options.path, options.force)?;
                names.made.push_back(options.path.clone());
                Writer::new(Out::File(file), header)
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
            ring: Ring { parts: VecDeque::new(), size },
            max_size: options.max_size.unwrap_or(u64::MAX),
            dead: false,
        })
    }

    /// Works until the other side is done; the files that are left.
    pub(super) fn run(mut self, messages: &Receiver<Message>) -> Vec<PathBuf> {
        // This thread writes and nothing else; without capabilities to give up there is no harm.
        let creates = !matches!(self.keep, Keep::Whole);
        let _ = give_up_but(if creates { CREATING } else { &[] });
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
                self.check(result);
                written = Instant::now();
            }
            if synced.elapsed() >= SYNC_EVERY {
                let result = if self.dead { Ok(()) } else { self.writer.get_ref().sync() };
                self.check(result);
                synced = Instant::now();
            }
        }
    }

    fn take(&mut self, message: Message) -> io::Result<()> {
        match message {
            Message::Last(totals, end) => {
                // Little: it may fit where a block did not.
                self.writer.totals(totals)?;
                self.writer.end(&end)?;
                self.writer.get_ref().sync()
            }
            _ if self.dead => Ok(()),
            Message::Totals(totals) => self.writer.totals(totals),
            Message::Parcel(parcel) => {
                self.shared.requests.fetch_add(parcel.requests.len() as u64, Ordering::Relaxed);
                add(&mut self.writer, &parcel)?;
                // Memory has its size by blocks, which should be small beside it.
                if let Keep::Flight { .. } = self.keep { self.writer.flush() } else { Ok(()) }
            }
            Message::Part(totals, end) => {
                self.writer.totals(totals)?;
                self.writer.end(&end)?;
                self.writer.get_ref().sync()?;
                self.next_file(end.time)
            }
            Message::Turn => self.turn(),
            Message::Dump(parcel, totals, end) => self.dump(&parcel, totals, &end),
        }
    }

    /// Goes on in the next file.
    fn next_file(&mut self, time: u64) -> io::Result<()> {
        let started = i128::from(time) + i128::from(self.header.clock);
        let header = Header {
            started: u64::try_from(started).unwrap_or(self.header.started),
            // Its offset may be another by now.
            zone: Zone::local().or_else(|| self.header.zone.clone()),
            ..self.header.clone()
        };
        let file = self.names.create().map_err(|error| io::Error::other(format!("{error:#}")))?;
        self.shared.done.fetch_add(self.writer.written(), Ordering::Relaxed);
        self.writer = Writer::new(Out::File(file), &header)?;
        if let Keep::Rotate { keep: Some(keep), .. } = self.keep {
            self.names.retain(keep);
        }
        self.shared.parts.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Goes on in a new part of the ring.
    fn turn(&mut self) -> io::Result<()> {
        self.writer.flush()?;
        let part = std::mem::replace(&mut self.writer, Writer::bare(Out::Memory(Vec::new())));
        if let Out::Memory(blocks) = part.into_inner() {
            self.ring.push(blocks);
        }
        self.shared.parts.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Writes what is in memory to a file of its own.
    fn dump(
        &mut self,
        parcel: &Parcel,
        totals: super::TotalsFact,
        end: &super::End,
    ) -> io::Result<()> {
        self.writer.flush()?;
        let file = self.names.create().map_err(|error| io::Error::other(format!("{error:#}")))?;
        let mut out = Writer::new(Out::File(file), &self.header)?;
        for part in &self.ring.parts {
            out.blocks(part)?;
        }
        if let Out::Memory(blocks) = self.writer.get_ref() {
            out.blocks(blocks)?;
        }
        add(&mut out, parcel)?;
        out.totals(totals)?;
        out.end(end)?;
        self.shared.done.fetch_add(out.written(), Ordering::Relaxed);
        out.get_ref().sync()
    }

    fn check(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            self.writer.get_ref().cut(self.writer.written());
            self.dead = true;
            self.shared.stop(if error.raw_os_error() == Some(libc::ENOSPC) {
                "the disk is full".to_owned()
            } else {
                format!("cannot write: {error}")
            });
        }
        let written = self.writer.written();
        self.shared.bytes.store(written, Ordering::Relaxed);
        if written >= self.max_size && !self.dead {
            self.dead = true;
            self.shared.stop("it reached --max-size".to_owned());
        }
    }
}

fn add(writer: &mut Writer<Out>, parcel: &Parcel) -> io::Result<()> {
    for fact in &parcel.facts {
        writer.fact(fact)?;
    }
    for request in &parcel.requests {
        writer.request(request)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_behind_those_that_are_there() {
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
        let mut ring = Ring { parts: VecDeque::new(), size: 800 };
        for n in 0..50 {
            ring.push(vec![n; 100]);
            let all: usize = ring.parts.iter().map(Vec::len).sum();
            assert!(all <= 700);
        }
        assert_eq!(
            ring.parts.iter().map(|part| part[0]).collect::<Vec<_>>(),
            [43, 44, 45, 46, 47, 48, 49]
        );
    }
}
