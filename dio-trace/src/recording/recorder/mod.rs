//! From events to a recording: numbers for files and tasks, and a thread that writes.
//!
//! The reader of the ring never waits for the disk: between the two is a queue of fixed length,
//! and what finds it full is dropped and counted.

#[cfg(test)]
mod full_disk_tests;
mod ids;
mod reserve;
#[cfg(test)]
mod tests;
mod writer_thread;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Result;
use dio_trace_common::{
    abi::{
        Counter, CounterKey, FileEvent, FileId, Mixer, MixerEvent, Refusal, Request, STATS, Stat,
    },
    verdict::Verdict,
};
use ids::{Ids, told};
use writer_thread::WriterThread;

use crate::{
    enrich::Enricher,
    flow::decided::{Decided, LookedUp},
    model::{Event, Totals},
    recording::format::{
        CounterFact, End, Fact, Header, MixerFact, Recorded, RefusalFact, TotalsFact,
    },
    util::clock::Clock,
};

/// Requests handed over at once, and how many such parcels may wait.
const BATCH: usize = 2_048;
const QUEUE: usize = 128;
/// Facts that wait while the queue is full; a disk that hangs must not fill the memory.
const MAX_WAITING: usize = 1 << 15;
/// How often the disk is asked to have it for good.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// Parts that memory is divided into: the oldest goes as a whole.
const PARTS: u64 = 8;
/// Those who mix that are told anew in each part.
const MAX_MIXERS: usize = 4_096;

/// How much is kept, and in how many files.
#[derive(Clone, Debug)]
pub enum Keep {
    /// All, in one.
    Whole,
    /// FILE.1, FILE.2, … of about this size; the last so many, or all.
    Rotate { size: u64, keep: Option<u64> },
    /// The last so many bytes, in memory. FILE.N is written when it is asked for, on the first
    /// finding of one of these verdicts, and at the end.
    Flight { size: u64, on: Vec<Verdict> },
}

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
    pub keep: Keep,
}

enum Message {
    Batch(Batch),
    Totals(TotalsFact),
    Last(Batch, TotalsFact, End),
    /// Ends a file; the next one follows.
    Part(TotalsFact, End),
    /// Begins a new part in memory.
    Turn,
    /// Writes what is in memory, and this behind it.
    Dump(Batch, TotalsFact, End),
}

#[derive(Default)]
struct Batch {
    facts: Vec<Fact>,
    requests: Vec<Recorded>,
}

/// What the two threads tell each other beside the queue.
#[derive(Default)]
struct Shared {
    /// Why it stopped before it was asked to.
    stopped: Mutex<Option<String>>,
    /// Requests that came, and those that are in a file.
    taken: AtomicU64,
    requests: AtomicU64,
    /// That could not be written to the file.
    unended: AtomicBool,
    /// Bytes of this file or part, and of those before.
    bytes: AtomicU64,
    done: AtomicU64,
    /// Files or parts that have ended.
    parts: AtomicU64,
}

impl Shared {
    fn stop(&self, why: String) {
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        stopped.get_or_insert(why);
    }

    fn fail(&self, error: &anyhow::Error) {
        self.stop(reserve::reason(error));
    }

    fn why(&self) -> Option<String> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Done {
    /// Those that are in the files.
    pub requests: u64,
    pub bytes: u64,
    pub dropped: u64,
    /// Those that were taken, and for which there was no room.
    pub lost: u64,
    /// What stopped it, if it was not asked to.
    pub stopped: Option<String>,
    /// No file says so: that could not be written, either.
    pub unended: bool,
    /// The files that are left.
    pub files: Vec<PathBuf>,
}

/// A recording in the making.
pub struct Recorder {
    ids: Ids,
    parcel: Batch,
    sample: u64,
    healthy: u64,
    dropped: u64,
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
    thread: JoinHandle<Vec<PathBuf>>,
    /// Rows as they were last handed over.
    sent: HashMap<CounterKey, u64>,
    sent_mixers: HashMap<Mixer, u64>,
    counted: Instant,
    keep: Keep,
    /// Files or parts that were ended.
    parts: u64,
    /// What earlier files have counted.
    base: Base,
    mixers: Vec<MixerEvent>,
    /// A finding that is waited for has come; it is written once.
    wanted: bool,
    dumped: bool,
}

/// Counts at the beginning of a file.
#[derive(Default)]
struct Base {
    counters: HashMap<CounterKey, Counter>,
    mixers: HashMap<Mixer, u64>,
    stats: [u64; STATS],
    skipped: HashMap<String, u64>,
    dropped: u64,
}

impl Recorder {
    /// Creates the file and begins.
    ///
    /// # Errors
    /// If the file is there, cannot be created, or the disk is full already.
    pub fn start(options: &Options, header: &Header) -> Result<Self> {
        let (queue, messages) = sync_channel(QUEUE);
        let shared = Arc::new(Shared::default());
        let side = WriterThread::start(options, header, Arc::clone(&shared))?;
        let thread = thread::Builder::new()
            .name("dio-trace-write".to_owned())
            .spawn(move || side.run(&messages))?;
        Ok(Self {
            ids: Ids::default(),
            parcel: Batch::default(),
            sample: options.sample,
            healthy: 0,
            dropped: 0,
            queue,
            shared,
            thread,
            sent: HashMap::new(),
            sent_mixers: HashMap::new(),
            counted: Instant::now(),
            keep: options.keep.clone(),
            parts: 0,
            base: Base::default(),
            mixers: Vec::new(),
            wanted: false,
            dumped: false,
        })
    }

    /// Records an event.
    pub fn take(&mut self, event: Event, enricher: &mut Enricher) {
        match event {
            Event::File(file) => self.file(&file, enricher),
            Event::Request(request) => self.request(&request, enricher),
            Event::Refusal(refusal) => self.rejected_open(&refusal, enricher),
            Event::Mixer(mixer) => self.mixed_access(&mixer, enricher),
        }
        if self.parcel.requests.len() >= BATCH {
            self.flush_batch();
            self.turn(enricher);
        }
    }

    /// Hands on what waits; why it stopped, if it did.
    pub fn tick(&mut self, enricher: &mut Enricher) -> Option<String> {
        self.flush_batch();
        self.turn(enricher);
        self.shared.why()
    }

    /// True once a second.
    pub fn wants_totals(&mut self) -> bool {
        let due = self.counted.elapsed() >= SYNC_EVERY && !self.is_flight();
        if due {
            self.counted = Instant::now();
        }
        due
    }

    /// Records what was counted so far; memory has it when it is written.
    pub fn totals(&mut self, totals: &Totals, enricher: &mut Enricher) {
        if self.is_flight() {
            return;
        }
        if self.is_full() {
            return self.next_file(totals, enricher);
        }
        let fact = self.totals_fact(totals, enricher);
        self.flush_batch();
        // Not before the files that it refers to.
        let told = self.parcel.facts.is_empty();
        if told && self.queue.try_send(Message::Totals(fact)).is_ok() {
            self.remember(totals);
        }
    }

    /// True if what is in memory should be written: a finding came that was waited for.
    pub const fn wants_dump(&self) -> bool {
        self.wanted && !self.dumped
    }

    /// Writes what is in memory.
    pub fn dump(&mut self, totals: &Totals, enricher: &mut Enricher, why: &str) {
        self.dumped |= self.wanted;
        self.flush_batch();
        let message = self.whole_memory(totals, enricher, why.to_owned());
        // What memory holds now is what was asked for: wait.
        let _ = self.queue.send(message);
    }

    /// Ends the recording; waits until it is in the file.
    pub fn finish(mut self, totals: &Totals, enricher: &mut Enricher) -> Done {
        let why = self.shared.why().unwrap_or_else(|| "done".to_owned());
        // If the thread has gone, it has said why.
        if self.is_flight() {
            let last = self.whole_memory(totals, enricher, why);
            let parcel = std::mem::take(&mut self.parcel);
            let _ = self.queue.send(Message::Batch(parcel));
            let _ = self.queue.send(last);
        } else {
            let fact = self.all_totals(totals, enricher);
            let end = End { time: fact.time, why };
            let parcel = std::mem::take(&mut self.parcel);
            let _ = self.queue.send(Message::Last(parcel, fact, end));
        }
        let in_memory = self.is_flight();
        drop(self.queue);
        let files = self.thread.join().ok();
        let last = if in_memory { 0 } else { self.shared.bytes.load(Ordering::Relaxed) };
        let requests = self.shared.requests.load(Ordering::Relaxed);
        let taken = self.shared.taken.load(Ordering::Relaxed);
        Done {
            requests,
            bytes: self.shared.done.load(Ordering::Relaxed) + last,
            dropped: self.dropped,
            lost: if in_memory { 0 } else { taken.saturating_sub(requests) },
            stopped: match files {
                None => Some("the writer died".to_owned()),
                Some(_) => self.shared.why(),
            },
            unended: self.shared.unended.load(Ordering::Relaxed),
            files: files.unwrap_or_default(),
        }
    }

    const fn is_flight(&self) -> bool {
        matches!(self.keep, Keep::Flight { .. })
    }

    /// The file or part has its size, and is not being ended already.
    fn is_full(&self) -> bool {
        let size = match self.keep {
            Keep::Whole => return false,
            Keep::Rotate { size, .. } => size,
            Keep::Flight { size, .. } => size / PARTS,
        };
        self.shared.bytes.load(Ordering::Relaxed) >= size
            && self.shared.parts.load(Ordering::Relaxed) == self.parts
    }

    /// Ends this file with what it counted; in the next one everything is told anew.
    fn next_file(&mut self, totals: &Totals, enricher: &mut Enricher) {
        let fact = self.all_totals(totals, enricher);
        self.flush_batch();
        let end = End { time: fact.time, why: "done".to_owned() };
        // A queue that is full is tried again in a second.
        if !self.parcel.facts.is_empty() || self.queue.try_send(Message::Part(fact, end)).is_err() {
            return;
        }
        self.base = Base {
            counters: totals.counters.iter().copied().collect(),
            mixers: totals.mixers.iter().copied().collect(),
            stats: totals.stats,
            skipped: totals.skipped.iter().cloned().collect(),
            dropped: self.dropped,
        };
        self.remember(totals);
        self.tell_anew(enricher);
    }

    /// Begins a new part in memory once this one has its size.
    fn turn(&mut self, enricher: &mut Enricher) {
        let waits = !self.parcel.facts.is_empty();
        if self.is_flight()
            && self.is_full()
            && !waits
            && self.queue.try_send(Message::Turn).is_ok()
        {
            self.tell_anew(enricher);
        }
    }

    /// What follows refers to nothing that was told before.
    fn tell_anew(&mut self, enricher: &mut Enricher) {
        self.parts += 1;
        self.ids = self.ids.after();
        for event in std::mem::take(&mut self.mixers) {
            self.tell_mixer(&event, enricher);
        }
    }

    /// Everything that was counted, told by numbers of its own.
    fn whole_memory(&mut self, totals: &Totals, enricher: &mut Enricher, why: String) -> Message {
        let own = self.ids.after();
        let ids = std::mem::replace(&mut self.ids, own);
        let waiting = std::mem::take(&mut self.parcel);
        let fact = self.all_totals(totals, enricher);
        let parcel = std::mem::replace(&mut self.parcel, waiting);
        let own = std::mem::replace(&mut self.ids, ids);
        self.ids.skip(&own);
        let end = End { time: fact.time, why };
        Message::Dump(parcel, fact, end)
    }

    fn flush_batch(&mut self) {
        if self.parcel.requests.is_empty() && self.parcel.facts.is_empty() {
            return;
        }
        let parcel = std::mem::take(&mut self.parcel);
        if let Err(TrySendError::Full(Message::Batch(parcel))) =
            self.queue.try_send(Message::Batch(parcel))
        {
            // Later requests need the numbers.
            self.parcel.facts = parcel.facts;
            self.dropped += parcel.requests.len() as u64;
            if self.parcel.facts.len() > MAX_WAITING {
                self.dropped += self.ids.forget(&mut self.parcel.facts);
            }
        }
    }

    fn request(&mut self, request: &Request, enricher: &mut Enricher) {
        let decided = Decided::of(request);
        let decision = decided.decision;
        if let Keep::Flight { on, .. } = &self.keep {
            self.wanted |= decision.finding && on.contains(&decision.verdict);
        }
        if self.sample > 1 && !decision.finding {
            self.healthy += 1;
            if self.healthy % self.sample != 1 {
                return;
            }
        }
        let LookedUp { extents, stack } = LookedUp::now(&decided, enricher);
        let facts = &mut self.parcel.facts;
        let file = self.ids.file(decided.file(), request.tgid, enricher, facts);
        let task = self.ids.task((request.tgid, request.tid, request.comm), enricher, facts);
        let stack = stack.map_or(0, |stack| self.ids.stack(&stack, facts));
        self.parcel.requests.push(Recorded { request: *request, file, task, extents, stack });
    }

    /// A file that had a number before its name came is told again.
    fn file(&mut self, event: &FileEvent, enricher: &mut Enricher) {
        enricher.add(event);
        let key = FileId::from(event);
        if let Some(number) = self.ids.files.get(&key) {
            self.parcel.facts.push(told(*number, key, event.tgid, enricher));
        }
    }

    fn rejected_open(&mut self, event: &Refusal, enricher: &mut Enricher) {
        let facts = &mut self.parcel.facts;
        let file = self.ids.file(FileId::from(event), event.tgid, enricher, facts);
        let task = self.ids.task((event.tgid, event.tid, event.comm), enricher, facts);
        let (time, by, proven) = (event.time_ns, event.by, event.proven);
        facts.push(Fact::Refusal(RefusalFact { time, file, task, by, proven }));
    }

    fn mixed_access(&mut self, event: &MixerEvent, enricher: &mut Enricher) {
        // Requests so far were made before anybody mixed.
        self.flush_batch();
        enricher.buffered_user(event);
        self.tell_mixer(event, enricher);
    }

    fn tell_mixer(&mut self, event: &MixerEvent, enricher: &mut Enricher) {
        let mixer = &event.mixer;
        if !matches!(self.keep, Keep::Whole) && self.mixers.len() < MAX_MIXERS {
            self.mixers.push(*event);
        }
        let facts = &mut self.parcel.facts;
        let file = self.ids.file(FileId::from(mixer), mixer.tgid, enricher, facts);
        let task = self.ids.task((mixer.tgid, event.tid, event.comm), enricher, facts);
        let (time, direct_user) = (event.time_ns, event.direct_user);
        facts.push(Fact::Mixer(MixerFact { time, file, task, how: mixer.how, direct_user }));
    }

    /// All rows.
    fn all_totals(&mut self, totals: &Totals, enricher: &mut Enricher) -> TotalsFact {
        self.sent.clear();
        self.sent_mixers.clear();
        self.totals_fact(totals, enricher)
    }

    /// The rows that changed since those that were sent.
    fn totals_fact(&mut self, totals: &Totals, enricher: &mut Enricher) -> TotalsFact {
        let mut counters = Vec::new();
        let mut mixers = Vec::new();
        let facts = &mut self.parcel.facts;
        for (key, counter) in &totals.counters {
            let base = self.base.counters.get(key);
            if self.sent.get(key).or(base.map(|base| &base.requests)) == Some(&counter.requests) {
                continue;
            }
            let file = self.ids.counted(FileId::from(key), key.tgid, enricher, facts);
            counters.push(CounterFact::new(file, key, &since(counter, base)));
        }
        for (mixer, pages) in &totals.mixers {
            let base = self.base.mixers.get(mixer);
            if self.sent_mixers.get(mixer).or(base) == Some(pages) {
                continue;
            }
            let file = self.ids.counted(FileId::from(mixer), mixer.tgid, enricher, facts);
            let pages = pages.saturating_sub(base.copied().unwrap_or(0));
            mixers.push((file, mixer.tgid, mixer.how, pages));
        }
        let base = &self.base;
        let stats = Stat::ALL.iter().map(|(stat, name)| {
            let n = totals.stat(*stat).saturating_sub(base.stats[*stat as usize]);
            ((*name).to_owned(), n)
        });
        let skipped = totals.skipped.iter().filter_map(|(probe, n)| {
            let n = n - base.skipped.get(probe).copied().unwrap_or(0).min(*n);
            (n != 0).then(|| (probe.clone(), n))
        });
        TotalsFact {
            time: Clock::monotonic(),
            stats: stats.collect(),
            skipped: skipped.collect(),
            counters,
            mixers,
            dropped: self.dropped - base.dropped,
        }
    }

    fn remember(&mut self, totals: &Totals) {
        let requests = |(key, counter): &(CounterKey, Counter)| (*key, counter.requests);
        self.sent = totals.counters.iter().map(requests).collect();
        self.sent_mixers = totals.mixers.iter().copied().collect();
    }
}

/// What was added to a row since the beginning of the file.
fn since(now: &Counter, base: Option<&Counter>) -> Counter {
    let Some(base) = base else { return *now };
    let mut row = *now;
    row.requests = now.requests.saturating_sub(base.requests);
    row.bytes = now.bytes.saturating_sub(base.bytes);
    row.direct_bytes = now.direct_bytes.saturating_sub(base.direct_bytes);
    row.cached_bytes = now.cached_bytes.saturating_sub(base.cached_bytes);
    row.latency_ns = now.latency_ns.saturating_sub(base.latency_ns);
    for (n, before) in row.latency.iter_mut().zip(base.latency) {
        *n = n.saturating_sub(before);
    }
    row
}
