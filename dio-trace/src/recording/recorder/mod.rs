//! Writes events to a recording. Files and tasks are replaced by ids, requests are collected in
//! batches, and a separate thread writes them.
//!
//! The thread that reads the ring buffer never waits for the disk. A queue of fixed length connects
//! it to the writer thread; requests that find the queue full are dropped and counted.
//!
//! A *fact* is anything other than a request: the description of a file, task, process or stack, a
//! rejected open, or mixed access. A *segment* is one file of a rotating recording, or one part of
//! an in-memory recording. It contains all facts that its requests refer to.

#[cfg(test)]
mod full_disk_tests;
mod ids;
mod reserve;
#[cfg(test)]
mod tests;
mod writer_thread;

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use ahash::HashMap;
use anyhow::Result;
use dio_trace_common::{
    abi::{
        BufferedUse, BufferedUseEvent, Counter, CounterKey, FileEvent, RejectedOpen, Request,
        STATS, Stat,
    },
    verdict::Verdict,
};
use ids::{Ids, file_fact};
use writer_thread::WriterThread;

use crate::{
    enrich::Enricher,
    flow::decided::{Decided, LookedUp},
    model::{Event, Totals},
    recording::format::{
        BufferedUseFact, CounterFact, End, Fact, Header, Recorded, RejectedOpenFact, TotalsFact,
        UNASKED_CALLS,
    },
    util::clock::Clock,
};

/// Requests per batch, and batches that the queue holds.
const BATCH: usize = 2_048;
const QUEUE: usize = 128;
/// Most facts that wait while the queue is full, so that a hanging disk does not fill the memory.
const MAX_WAITING: usize = 1 << 15;
/// How often the file is synced and totals are written.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// Number of segments of an in-memory recording. The oldest is dropped as a whole.
const SEGMENTS: u64 = 8;
/// Most mixed-access events that are emitted again in each segment.
const MAX_BUFFERED_USES: usize = 4_096;

/// How much is kept, and in how many files.
#[derive(Clone, Debug)]
pub enum Keep {
    /// Everything, in one file.
    Whole,
    /// FILE.1, FILE.2, … of about `size` bytes each; the last `keep` files, or all if `None`.
    Rotate { size: u64, keep: Option<u64> },
    /// The last `size` bytes, in memory. FILE.N is written on request, on the first finding with
    /// one of the verdicts in `on`, and at the end.
    Flight { size: u64, on: Vec<Verdict> },
}

/// What to record and where.
#[derive(Clone, Debug)]
pub struct Options {
    pub path: PathBuf,
    /// Overwrite an existing file.
    pub force: bool,
    /// Record one of this many requests without a finding; 0: all that the probes send.
    pub sample: u64,
    /// Stop recording when the file reaches this size in bytes.
    pub max_size: Option<u64>,
    pub keep: Keep,
}

/// A message to the writer thread.
enum Message {
    Batch(Batch),
    Totals(TotalsFact),
    /// Ends the recording.
    Last(Batch, TotalsFact, End),
    /// Ends a file; the next one follows.
    EndSegment(TotalsFact, End),
    /// Begins a new segment in memory.
    Rotate,
    /// Writes the segments in memory to a file, followed by this.
    Dump(Batch, TotalsFact, End),
}

/// Facts and requests to write, facts first.
#[derive(Default)]
struct Batch {
    facts: Vec<Fact>,
    requests: Vec<Recorded>,
}

/// State shared by the two threads in addition to the queue. The writer thread writes it.
#[derive(Default)]
struct Shared {
    /// Why recording stopped before the user ended it.
    stopped: Mutex<Option<String>>,
    /// Requests that the writer thread received.
    taken: AtomicU64,
    /// Requests that are in a file.
    requests: AtomicU64,
    /// The end, and with it the reason, could not be written to the file.
    unended: AtomicBool,
    /// Bytes of the current segment.
    bytes: AtomicU64,
    /// Bytes of earlier files.
    done: AtomicU64,
    /// Segments that have ended.
    segments: AtomicU64,
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

/// The result of a recording.
#[derive(Debug)]
pub struct Done {
    /// Requests that are in the files.
    pub requests: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Requests that were dropped because the queue was full.
    pub dropped: u64,
    /// Requests that the writer thread received but could not write.
    pub lost: u64,
    /// Why recording stopped before the user ended it; `None` if it did not.
    pub stopped: Option<String>,
    /// The reason is not in the file, because the end could not be written either.
    pub unended: bool,
    /// The files that exist at the end.
    pub files: Vec<PathBuf>,
}

/// A recording in progress.
pub struct Recorder {
    ids: Ids,
    batch: Batch,
    sample: u64,
    healthy: u64,
    dropped: u64,
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
    thread: JoinHandle<Vec<PathBuf>>,
    /// Counts of each row when it was last sent: requests of counters, pages of mixed access.
    sent: HashMap<CounterKey, u64>,
    sent_buffered_uses: HashMap<BufferedUse, u64>,
    counted: Instant,
    keep: Keep,
    /// Segments that this side has ended.
    segments: u64,
    /// Counts that are in earlier files.
    base: Base,
    /// Events to emit again in each segment.
    buffered_uses: Vec<BufferedUseEvent>,
    /// A finding that triggers a dump has occurred.
    wanted: bool,
    /// That dump was made; it is made only once.
    dumped: bool,
}

/// Counts at the beginning of the current file.
#[derive(Default)]
struct Base {
    counters: HashMap<CounterKey, Counter>,
    buffered_uses: HashMap<BufferedUse, u64>,
    stats: [u64; STATS],
    skipped: HashMap<String, u64>,
    dropped: u64,
}

impl Recorder {
    /// Creates the file and starts the writer thread.
    ///
    /// # Errors
    /// If the file exists (without `force`), cannot be created, or the disk is full already.
    pub fn start(options: &Options, header: &Header) -> Result<Self> {
        let (queue, messages) = sync_channel(QUEUE);
        let shared = Arc::new(Shared::default());
        let side = WriterThread::start(options, header, Arc::clone(&shared))?;
        let thread = thread::Builder::new()
            .name("dio-trace-write".to_owned())
            .spawn(move || side.run(&messages))?;
        Ok(Self {
            ids: Ids::default(),
            batch: Batch::default(),
            sample: options.sample,
            healthy: 0,
            dropped: 0,
            queue,
            shared,
            thread,
            sent: HashMap::default(),
            sent_buffered_uses: HashMap::default(),
            counted: Instant::now(),
            keep: options.keep.clone(),
            segments: 0,
            base: Base::default(),
            buffered_uses: Vec::new(),
            wanted: false,
            dumped: false,
        })
    }

    /// Records an event.
    pub fn take(&mut self, event: Event, enricher: &mut Enricher) {
        match event {
            Event::File(file) => self.file(&file, enricher),
            Event::Request(request) => self.request(&request, enricher),
            Event::RejectedOpen(rejected_open) => self.rejected_open(&rejected_open, enricher),
            Event::BufferedUse(buffered_use) => self.mixed_access(&buffered_use, enricher),
        }
        if self.batch.requests.len() >= BATCH {
            self.flush_batch();
            self.rotate(enricher);
        }
    }

    /// Sends the waiting batch. Returns why recording stopped, if it did.
    pub fn tick(&mut self, enricher: &mut Enricher) -> Option<String> {
        self.flush_batch();
        self.rotate(enricher);
        self.shared.why()
    }

    /// True once a second: [`Self::totals`] is due. Never true for an in-memory recording.
    pub fn wants_totals(&mut self) -> bool {
        let due = self.counted.elapsed() >= SYNC_EVERY && !self.is_flight();
        if due {
            self.counted = Instant::now();
        }
        due
    }

    /// Records the totals so far. Does nothing for an in-memory recording, which gets its totals
    /// when it is dumped.
    pub fn totals(&mut self, totals: &Totals, enricher: &mut Enricher) {
        if self.is_flight() {
            return;
        }
        if self.is_full() {
            return self.next_file(totals, enricher);
        }
        let fact = self.totals_fact(totals, enricher);
        self.flush_batch();
        // Not before the facts of the files that it refers to.
        let flushed = self.batch.facts.is_empty();
        if flushed && self.queue.try_send(Message::Totals(fact)).is_ok() {
            self.remember(totals);
        }
    }

    /// True if a dump is due, because a finding that triggers it has occurred.
    pub const fn wants_dump(&self) -> bool {
        self.wanted && !self.dumped
    }

    /// Writes the in-memory recording to a file; `why` is recorded as the reason.
    pub fn dump(&mut self, totals: &Totals, enricher: &mut Enricher, why: &str) {
        self.dumped |= self.wanted;
        self.flush_batch();
        let message = self.whole_memory(totals, enricher, why.to_owned());
        // Waits for the queue, so that the dump has what is in memory now.
        let _ = self.queue.send(message);
    }

    /// Ends the recording and waits until it is written.
    pub fn finish(mut self, totals: &Totals, enricher: &mut Enricher) -> Done {
        let why = self.shared.why().unwrap_or_else(|| End::DONE.to_owned());
        // Errors of `send` are ignored: if the thread has exited, `shared` has the reason.
        if self.is_flight() {
            let last = self.whole_memory(totals, enricher, why);
            let batch = std::mem::take(&mut self.batch);
            let _ = self.queue.send(Message::Batch(batch));
            let _ = self.queue.send(last);
        } else {
            let fact = self.all_totals(totals, enricher);
            let end = End { time: fact.time, why };
            let batch = std::mem::take(&mut self.batch);
            let _ = self.queue.send(Message::Last(batch, fact, end));
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

    /// True if the current segment has reached its size and is not being ended already.
    fn is_full(&self) -> bool {
        let size = match self.keep {
            Keep::Whole => return false,
            Keep::Rotate { size, .. } => size,
            Keep::Flight { size, .. } => size / SEGMENTS,
        };
        self.shared.bytes.load(Ordering::Relaxed) >= size
            && self.shared.segments.load(Ordering::Relaxed) == self.segments
    }

    /// Ends this file with its totals and begins the next one, in which all facts are emitted
    /// again.
    fn next_file(&mut self, totals: &Totals, enricher: &mut Enricher) {
        let fact = self.all_totals(totals, enricher);
        self.flush_batch();
        let end = End { time: fact.time, why: End::DONE.to_owned() };
        // If the queue is full, this is tried again in a second.
        if !self.batch.facts.is_empty()
            || self.queue.try_send(Message::EndSegment(fact, end)).is_err()
        {
            return;
        }
        self.base = Base {
            counters: totals.counters.iter().copied().collect(),
            buffered_uses: uses(totals).collect(),
            stats: totals.stats,
            skipped: totals.skipped.iter().cloned().collect(),
            dropped: self.dropped,
        };
        self.remember(totals);
        self.emit_again(enricher);
    }

    /// Begins a new segment in memory if the current one has reached its size.
    fn rotate(&mut self, enricher: &mut Enricher) {
        let waits = !self.batch.facts.is_empty();
        if self.is_flight()
            && self.is_full()
            && !waits
            && self.queue.try_send(Message::Rotate).is_ok()
        {
            self.emit_again(enricher);
        }
    }

    /// Begins a segment that refers to no earlier one: ids are forgotten, so their facts are
    /// emitted again when next used, and mixed access is emitted again now.
    fn emit_again(&mut self, enricher: &mut Enricher) {
        self.segments += 1;
        self.ids = self.ids.after();
        for event in std::mem::take(&mut self.buffered_uses) {
            self.emit_mixed_access(&event, enricher);
        }
    }

    /// A dump message with all totals. Its rows refer to new ids, whose facts it contains.
    fn whole_memory(&mut self, totals: &Totals, enricher: &mut Enricher, why: String) -> Message {
        let own = self.ids.after();
        let ids = std::mem::replace(&mut self.ids, own);
        let waiting = std::mem::take(&mut self.batch);
        let fact = self.all_totals(totals, enricher);
        let batch = std::mem::replace(&mut self.batch, waiting);
        let own = std::mem::replace(&mut self.ids, ids);
        self.ids.skip(&own);
        let end = End { time: fact.time, why };
        Message::Dump(batch, fact, end)
    }

    fn flush_batch(&mut self) {
        if self.batch.requests.is_empty() && self.batch.facts.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        if let Err(TrySendError::Full(Message::Batch(batch))) =
            self.queue.try_send(Message::Batch(batch))
        {
            // The facts are kept, because later requests refer to their ids.
            self.batch.facts = batch.facts;
            self.dropped += batch.requests.len() as u64;
            if self.batch.facts.len() > MAX_WAITING {
                self.dropped += self.ids.forget(&mut self.batch.facts);
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
        let LookedUp { extents, stack, .. } = LookedUp::now(&decided, enricher);
        let facts = &mut self.batch.facts;
        let file = self.ids.file(decided.file(), request.task.tgid, enricher, facts);
        let task = self.ids.task(
            (request.task.tgid, request.task.tid, request.task.comm),
            enricher,
            facts,
        );
        let stack = stack.map_or(0, |stack| self.ids.stack(&stack, facts));
        self.batch.requests.push(Recorded { request: *request, file, task, extents, stack });
    }

    /// Takes a file's names. If the file already has an id, its fact is emitted again.
    fn file(&mut self, event: &FileEvent, enricher: &mut Enricher) {
        enricher.add(event);
        let key = event.file;
        if let Some(number) = self.ids.files.get(&key) {
            self.batch.facts.push(file_fact(*number, key, event.task.tgid, enricher));
        }
    }

    fn rejected_open(&mut self, event: &RejectedOpen, enricher: &mut Enricher) {
        let facts = &mut self.batch.facts;
        let file = self.ids.file(event.file, event.task.tgid, enricher, facts);
        let task =
            self.ids.task((event.task.tgid, event.task.tid, event.task.comm), enricher, facts);
        let (time, by, proven) = (event.time_ns, event.by, event.proven);
        facts.push(Fact::RejectedOpen(RejectedOpenFact { time, file, task, by, proven }));
    }

    fn mixed_access(&mut self, event: &BufferedUseEvent, enricher: &mut Enricher) {
        // Earlier requests are flushed first, because they were made before the mixed access.
        self.flush_batch();
        enricher.buffered_user(event);
        self.emit_mixed_access(event, enricher);
    }

    fn emit_mixed_access(&mut self, event: &BufferedUseEvent, enricher: &mut Enricher) {
        let buffered_use = &event.buffered_use;
        if !matches!(self.keep, Keep::Whole) && self.buffered_uses.len() < MAX_BUFFERED_USES {
            self.buffered_uses.push(*event);
        }
        let facts = &mut self.batch.facts;
        let file = self.ids.file(buffered_use.file, buffered_use.tgid, enricher, facts);
        let task =
            self.ids.task((buffered_use.tgid, event.task.tid, event.task.comm), enricher, facts);
        let (time, direct_user) = (event.time_ns, event.direct_user);
        facts.push(Fact::BufferedUse(BufferedUseFact {
            time,
            file,
            task,
            how: buffered_use.how,
            direct_user,
        }));
    }

    /// Totals with all rows.
    fn all_totals(&mut self, totals: &Totals, enricher: &mut Enricher) -> TotalsFact {
        self.sent.clear();
        self.sent_buffered_uses.clear();
        self.totals_fact(totals, enricher)
    }

    /// Totals with the rows that changed since they were last sent.
    fn totals_fact(&mut self, totals: &Totals, enricher: &mut Enricher) -> TotalsFact {
        let mut counters = Vec::new();
        let mut buffered_uses = Vec::new();
        let facts = &mut self.batch.facts;
        for (key, counter) in &totals.counters {
            let base = self.base.counters.get(key);
            if self.sent.get(key).or(base.map(|base| &base.requests)) == Some(&counter.requests) {
                continue;
            }
            let file = self.ids.counted(key.file, key.tgid, enricher, facts);
            let added = base.map_or(*counter, |base| counter.since(base));
            counters.push(CounterFact::new(file, key, &added));
        }
        for (buffered_use, pages) in &uses(totals).collect::<Vec<_>>() {
            let base = self.base.buffered_uses.get(buffered_use);
            if self.sent_buffered_uses.get(buffered_use).or(base) == Some(pages) {
                continue;
            }
            let file = self.ids.counted(buffered_use.file, buffered_use.tgid, enricher, facts);
            let pages = pages.saturating_sub(base.copied().unwrap_or(0));
            buffered_uses.push((file, buffered_use.tgid, buffered_use.how, pages));
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
            buffered_uses,
            dropped: self.dropped - base.dropped,
        }
    }

    fn remember(&mut self, totals: &Totals) {
        let requests = |(key, counter): &(CounterKey, Counter)| (*key, counter.requests);
        self.sent = totals.counters.iter().map(requests).collect();
        self.sent_buffered_uses = uses(totals).collect();
    }
}

/// The rows of all uses through the page cache, as a recording has them.
fn uses(totals: &Totals) -> impl Iterator<Item = (BufferedUse, u64)> {
    let unasked = totals.unasked.iter().flat_map(|(unasked, sum)| {
        let calls = BufferedUse { how: unasked.how | UNASKED_CALLS, ..*unasked };
        [(*unasked, sum.bytes), (calls, sum.calls)]
    });
    totals.buffered_uses.iter().copied().chain(unasked)
}
