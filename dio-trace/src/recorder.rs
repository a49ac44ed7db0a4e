//! From events to a recording: numbers for files and tasks, and a thread that writes.
//!
//! The reader of the ring never waits for the disk: between the two is a queue of fixed length,
//! and what finds it full is dropped and counted.

use std::{
    collections::HashMap,
    fs::File,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use dio_trace_common::{
    abi::{Counter, CounterKey, FileEvent, Mixer, MixerEvent, Refusal, Request, Stat},
    verdict::decide,
};

use crate::{
    clock::Clock,
    enrich::{Enricher, FileKey},
    escape, output,
    record::extents,
    trace_file::{
        CounterFact, End, Fact, FileFact, Header, MixerFact, ProcessFact, Recorded, RefusalFact,
        TaskFact, TotalsFact, Writer,
    },
    tracer::{Event, Totals},
};

/// Requests handed over at once, and how many such parcels may wait.
const PARCEL: usize = 2_048;
const QUEUE: usize = 128;
/// How long a request may wait before it is in the file.
const WRITE_EVERY: Duration = Duration::from_millis(300);
/// How often the disk is asked to have it for good.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// Files and tasks that have a number at the same time; more get new ones.
const MAX_NUMBERS: usize = 1 << 18;

/// What to record and where.
#[derive(Clone, Debug)]
pub struct Options {
    pub path: PathBuf,
    /// Write over a file that is there.
    pub force: bool,
    /// Of requests without a finding, one in so many; 0: all that the probes send.
    pub sample: u64,
    /// Stop before the file grows past this.
    pub max_size: Option<u64>,
}

enum Message {
    Parcel(Parcel),
    Totals(TotalsFact),
    Last(TotalsFact, End),
}

#[derive(Default)]
struct Parcel {
    facts: Vec<Fact>,
    requests: Vec<Recorded>,
}

/// What the two threads tell each other beside the queue.
#[derive(Default)]
struct Shared {
    /// Why it stopped before it was asked to.
    stopped: Mutex<Option<String>>,
    /// Requests and bytes in the file.
    requests: AtomicU64,
    bytes: AtomicU64,
}

impl Shared {
    fn stop(&self, why: String) {
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        stopped.get_or_insert(why);
    }

    fn why(&self) -> Option<String> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Done {
    pub requests: u64,
    pub bytes: u64,
    pub dropped: u64,
    /// What stopped it, if it was not asked to.
    pub stopped: Option<String>,
}

/// A recording in the making.
pub struct Recorder {
    numbers: Numbers,
    parcel: Parcel,
    sample: u64,
    healthy: u64,
    dropped: u64,
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
    /// Rows as they were last handed over.
    sent: HashMap<CounterKey, u64>,
    sent_mixers: HashMap<Mixer, u64>,
    counted: Instant,
}

impl Recorder {
    /// Creates the file and begins.
    ///
    /// # Errors
    /// If the file is there, cannot be created, or the disk is full already.
    pub fn start(options: &Options, header: &Header) -> Result<Self> {
        let file = output::create(&options.path, options.force)?;
        let writer = Writer::new(file, header)
            .with_context(|| format!("cannot write {}", escape::path(&options.path)))?;
        let (queue, messages) = sync_channel(QUEUE);
        let shared = Arc::new(Shared::default());
        let mut side = Side {
            writer,
            shared: Arc::clone(&shared),
            max_size: options.max_size.unwrap_or(u64::MAX),
            dead: false,
        };
        let thread = thread::Builder::new()
            .name("dio-trace-write".to_owned())
            .spawn(move || side.run(&messages))?;
        Ok(Self {
            numbers: Numbers::default(),
            parcel: Parcel::default(),
            sample: options.sample,
            healthy: 0,
            dropped: 0,
            queue,
            shared,
            thread,
            sent: HashMap::new(),
            sent_mixers: HashMap::new(),
            counted: Instant::now(),
        })
    }

    /// Records an event.
    pub fn take(&mut self, event: Event, enricher: &mut Enricher) {
        match event {
            Event::File(file) => self.file(&file, enricher),
            Event::Request(request) => self.request(&request, enricher),
            Event::Refusal(refusal) => self.refusal(&refusal, enricher),
            Event::Mixer(mixer) => self.mixer(&mixer, enricher),
        }
        if self.parcel.requests.len() >= PARCEL {
            self.hand_over();
        }
    }

    /// Hands on what waits; why it stopped, if it did.
    pub fn tick(&mut self) -> Option<String> {
        self.hand_over();
        self.shared.why()
    }

    /// True once a second.
    pub fn wants_totals(&mut self) -> bool {
        let due = self.counted.elapsed() >= SYNC_EVERY;
        if due {
            self.counted = Instant::now();
        }
        due
    }

    /// Records what was counted so far.
    pub fn totals(&mut self, totals: &Totals, enricher: &mut Enricher) {
        let fact = self.totals_fact(totals, enricher);
        self.hand_over();
        if self.queue.try_send(Message::Totals(fact)).is_ok() {
            self.remember(totals);
        }
    }

    /// Ends the recording; waits until it is in the file.
    pub fn finish(mut self, totals: &Totals, enricher: &mut Enricher) -> Done {
        self.sent.clear();
        self.sent_mixers.clear();
        let mut fact = self.totals_fact(totals, enricher);
        fact.dropped = self.dropped;
        let why = self.shared.why();
        let end = End { time: fact.time, why: why.unwrap_or_else(|| "done".to_owned()) };
        let parcel = std::mem::take(&mut self.parcel);
        // If the thread has gone, it has said why.
        let _ = self.queue.send(Message::Parcel(parcel));
        let _ = self.queue.send(Message::Last(fact, end));
        drop(self.queue);
        let died = self.thread.join().is_err();
        Done {
            requests: self.shared.requests.load(Ordering::Relaxed),
            bytes: self.shared.bytes.load(Ordering::Relaxed),
            dropped: self.dropped,
            stopped: if died { Some("the writer died".to_owned()) } else { self.shared.why() },
        }
    }

    fn hand_over(&mut self) {
        if self.parcel.requests.is_empty() && self.parcel.facts.is_empty() {
            return;
        }
        let parcel = std::mem::take(&mut self.parcel);
        if let Err(TrySendError::Full(Message::Parcel(parcel))) =
            self.queue.try_send(Message::Parcel(parcel))
        {
            // Later requests need the numbers.
            self.parcel.facts = parcel.facts;
            self.dropped += parcel.requests.len() as u64;
        }
    }

    fn request(&mut self, request: &Request, enricher: &mut Enricher) {
        if self.sample > 1 && !decide(&request.facts(true), &request.evidence).finding {
            self.healthy += 1;
            if self.healthy % self.sample != 1 {
                return;
            }
        }
        let extents = extents(request, enricher);
        let facts = &mut self.parcel.facts;
        let file = self.numbers.file(FileKey::from(request), request.tgid, enricher, facts);
        let task = self.numbers.task((request.tgid, request.tid, request.comm), facts);
        let request = Request { inode: file, ..*request };
        self.parcel.requests.push(Recorded { request, task, extents });
    }

    /// A file that had a number before its name came is told again.
    fn file(&mut self, event: &FileEvent, enricher: &mut Enricher) {
        enricher.add(event);
        let key = FileKey {
            inode: event.inode,
            ino: event.ino,
            dev: event.dev,
            generation: event.generation,
        };
        if let Some(number) = self.numbers.files.get(&key) {
            self.parcel.facts.push(told(*number, key, event.tgid, enricher));
        }
    }

    fn refusal(&mut self, event: &Refusal, enricher: &mut Enricher) {
        let facts = &mut self.parcel.facts;
        let file = self.numbers.file(FileKey::from(event), event.tgid, enricher, facts);
        let task = self.numbers.task((event.tgid, event.tid, event.comm), facts);
        let (time, by, proven) = (event.time_ns, event.by, event.proven);
        facts.push(Fact::Refusal(RefusalFact { time, file, task, by, proven }));
    }

    fn mixer(&mut self, event: &MixerEvent, enricher: &mut Enricher) {
        // Requests so far were made before anybody mixed.
        self.hand_over();
        let mixer = &event.mixer;
        enricher.mixer(event);
        let facts = &mut self.parcel.facts;
        let file = self.numbers.file(FileKey::from(mixer), mixer.tgid, enricher, facts);
        let task = self.numbers.task((mixer.tgid, event.tid, event.comm), facts);
        facts.push(Fact::Mixer(MixerFact { time: event.time_ns, file, task, how: mixer.how }));
    }

    /// The rows that changed since those that were sent.
    fn totals_fact(&mut self, totals: &Totals, enricher: &mut Enricher) -> TotalsFact {
        let mut counters = Vec::new();
        let mut mixers = Vec::new();
        let facts = &mut self.parcel.facts;
        for (key, counter) in &totals.counters {
            if self.sent.get(key) == Some(&counter.requests) {
                continue;
            }
            let file = self.numbers.file(FileKey::from(key), key.tgid, enricher, facts);
            self.numbers.process(key.tgid, enricher, facts);
            counters.push(CounterFact::new(file, key, counter));
        }
        for (mixer, pages) in &totals.mixers {
            if self.sent_mixers.get(mixer) == Some(pages) {
                continue;
            }
            let file = self.numbers.file(FileKey::from(mixer), mixer.tgid, enricher, facts);
            self.numbers.process(mixer.tgid, enricher, facts);
            mixers.push((file, mixer.tgid, mixer.how, *pages));
        }
        let stats = Stat::ALL.iter().map(|(stat, name)| ((*name).to_owned(), totals.stat(*stat)));
        TotalsFact {
            time: Clock::monotonic(),
            stats: stats.collect(),
            skipped: totals.skipped.clone(),
            counters,
            mixers,
            dropped: self.dropped,
        }
    }

    fn remember(&mut self, totals: &Totals) {
        let requests = |(key, counter): &(CounterKey, Counter)| (*key, counter.requests);
        self.sent = totals.counters.iter().map(requests).collect();
        self.sent_mixers = totals.mixers.iter().copied().collect();
    }
}

/// Numbers in place of kernel addresses and names.
#[derive(Default)]
struct Numbers {
    files: HashMap<FileKey, u64>,
    tasks: HashMap<(u32, u32, [u8; 16]), u32>,
    processes: HashMap<u32, ()>,
    next_file: u64,
    next_task: u32,
}

impl Numbers {
    fn file(
        &mut self,
        key: FileKey,
        tgid: u32,
        enricher: &mut Enricher,
        facts: &mut Vec<Fact>,
    ) -> u64 {
        if let Some(number) = self.files.get(&key) {
            return *number;
        }
        if self.files.len() >= MAX_NUMBERS {
            self.files.clear();
        }
        self.next_file += 1;
        self.files.insert(key, self.next_file);
        facts.push(told(self.next_file, key, tgid, enricher));
        self.next_file
    }

    fn task(&mut self, task: (u32, u32, [u8; 16]), facts: &mut Vec<Fact>) -> u32 {
        if let Some(number) = self.tasks.get(&task) {
            return *number;
        }
        if self.tasks.len() >= MAX_NUMBERS {
            self.tasks.clear();
        }
        self.next_task += 1;
        self.tasks.insert(task, self.next_task);
        let (pid, tid, comm) = task;
        let len = comm.iter().position(|byte| *byte == 0).unwrap_or(comm.len());
        let comm = comm[..len].to_vec();
        facts.push(Fact::Task(TaskFact { task: self.next_task, pid, tid, comm }));
        self.next_task
    }

    /// The name is asked while the process still lives.
    fn process(&mut self, pid: u32, enricher: &mut Enricher, facts: &mut Vec<Fact>) {
        if self.processes.len() >= MAX_NUMBERS {
            self.processes.clear();
        }
        if self.processes.insert(pid, ()).is_none() {
            facts.push(Fact::Process(ProcessFact { pid, name: enricher.process(pid, None) }));
        }
    }
}

fn told(file: u64, key: FileKey, tgid: u32, enricher: &mut Enricher) -> Fact {
    let info = enricher.file(key, tgid).clone();
    let FileKey { ino, dev, generation, .. } = key;
    Fact::File(Box::new(FileFact { file, ino, dev, generation, info }))
}

/// The thread's side.
struct Side {
    writer: Writer<File>,
    shared: Arc<Shared>,
    max_size: u64,
    /// The disk took no more.
    dead: bool,
}

impl Side {
    fn run(&mut self, messages: &Receiver<Message>) {
        let (mut written, mut synced) = (Instant::now(), Instant::now());
        loop {
            let wait = WRITE_EVERY.saturating_sub(written.elapsed());
            let message = match messages.recv_timeout(wait) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
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
                let result = if self.dead { Ok(()) } else { self.writer.get_ref().sync_data() };
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
                self.writer.get_ref().sync_data()
            }
            _ if self.dead => Ok(()),
            Message::Totals(totals) => self.writer.totals(totals),
            Message::Parcel(parcel) => self.parcel(&parcel),
        }
    }

    fn parcel(&mut self, parcel: &Parcel) -> io::Result<()> {
        for fact in &parcel.facts {
            self.writer.fact(fact)?;
        }
        for request in &parcel.requests {
            self.writer.request(request)?;
        }
        self.shared.requests.fetch_add(parcel.requests.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// After a failure the file ends with its last whole block.
    fn check(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            let _ = self.writer.get_ref().set_len(self.writer.written());
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

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, path::Path};

    use dio_trace_common::abi::{LATENCY_BUCKETS, STATS};

    use super::*;
    use crate::{
        fixture,
        record::Record,
        report::{Replay, Sink, Window, replay},
        tracer::Attach,
    };

    struct Nobody;

    impl Sink for Nobody {
        fn record(&mut self, _: &Record) -> Result<()> {
            Ok(())
        }
    }

    fn options(path: PathBuf) -> Options {
        Options { path, force: false, sample: 0, max_size: None }
    }

    fn totals(requests: u64) -> Totals {
        let request = fixture::request();
        let key = CounterKey::of(&request, &decide(&request.facts(true), &request.evidence));
        let mut latency = [0; LATENCY_BUCKETS];
        latency[16] = requests as u32;
        let counter = Counter {
            requests,
            bytes: requests * 4096,
            direct_bytes: requests * 4096,
            cached_bytes: 0,
            latency_ns: requests * 80_000,
            latency,
        };
        let mut stats = [0; STATS];
        stats[Stat::Begun as usize] = requests + 2;
        stats[Stat::Ended as usize] = requests;
        Totals {
            kernel: "6.12".to_owned(),
            attach: Attach::Kprobe,
            attached: vec!["do_writepages".to_owned()],
            missing: Vec::new(),
            dark: Vec::new(),
            stats,
            skipped: vec![("fe_vfs_read".to_owned(), 3)],
            counters: vec![(key, counter)],
            mixers: Vec::new(),
        }
    }

    fn read(path: &Path) -> Replay {
        replay(File::open(path).unwrap(), &|_| Window::ALL, &mut Nobody).unwrap()
    }

    fn record(options: &Options, requests: u64) -> Done {
        let mut enricher = Enricher::recorded();
        let header = Header { attach: "kprobe".to_owned(), ..Header::default() };
        let mut recorder = Recorder::start(options, &header).unwrap();
        for n in 0..requests {
            let request = Request { end_ns: 81_000 + n, ..fixture::request() };
            recorder.take(Event::Request(Box::new(request)), &mut enricher);
        }
        recorder.totals(&totals(requests / 2), &mut enricher);
        recorder.finish(&totals(requests), &mut enricher)
    }

    #[test]
    fn what_was_recorded_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let options = options(folder.path().join("r.dio"));
        let done = record(&options, 10_000);
        assert_eq!((done.requests + done.dropped, &done.stopped), (10_000, &None));
        let about = std::fs::metadata(&options.path).unwrap();
        assert_eq!((about.permissions().mode() & 0o777, about.len()), (0o600, done.bytes));
        let replayed = read(&options.path);
        let summary = &replayed.summary;
        assert_eq!((replayed.recorded, summary.ended()), (done.requests, 10_000));
        assert_eq!((summary.in_flight, summary.attach), (2, "kprobe"));
        assert_eq!(summary.skipped_runs["fe_vfs_read"], 3);
        assert_eq!(summary.files[0].comm, "postgres");
    }

    #[test]
    fn samples_and_limits() {
        let folder = tempfile::tempdir().unwrap();
        let sampled = Options { sample: 100, ..options(folder.path().join("s.dio")) };
        assert_eq!(record(&sampled, 10_000).requests, 100);
        let limited = Options { max_size: Some(1), ..options(folder.path().join("m.dio")) };
        let mut recorder = Recorder::start(&limited, &Header::default()).unwrap();
        let began = Instant::now();
        while recorder.tick().is_none() && began.elapsed() < Duration::from_secs(10) {
            thread::sleep(Duration::from_millis(20));
        }
        let done = recorder.finish(&totals(7), &mut Enricher::recorded());
        assert!(done.stopped.unwrap().contains("--max-size"));
        assert_eq!(read(&limited.path).summary.ended(), 7);
    }

    #[test]
    fn a_file_that_is_there_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.dio");
        std::fs::write(&path, "mine").unwrap();
        let error = |options: &Options| {
            Recorder::start(options, &Header::default()).err().map(|error| error.to_string())
        };
        let mut options = options(path.clone());
        assert!(error(&options).unwrap().contains("--force"));
        options.force = true;
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let linked = Options { path: link, ..options };
        assert!(error(&linked).unwrap().contains("symbolic link"));
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
        assert_eq!(error(&options), None);
    }
}
