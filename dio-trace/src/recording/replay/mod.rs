//! Walks a recording once and hands on what live tracing would have shown.

mod budget;
mod fit;
mod part;
mod tables;

pub use budget::LeftOut;
pub use part::{Part, Window};

use std::{
    collections::{HashMap, HashSet},
    io::{Read, Seek},
};

use anyhow::Result;
use dio_trace_common::{
    abi::{Counter, CounterKey, FileId, MIXED_CACHED, MIXED_DIRTIED, MIXED_FILLED, STATS, Stat},
    verdict::{Decision, decide},
};

use crate::{
    enrich::Enricher,
    flow::{
        record::{Record, Watched},
        side_events::{Beside, Mixing, RefusalRow},
        summary::{self, Summary},
        timeline::Timeline,
    },
    model::{Attach, Missing, Totals},
    recording::{
        format::{
            Columns, Damage, End, Fact, FileFact, Header, Item, MixerFact, Reader, Recorded,
            RefusalFact, Scope, TotalsFact, mixer,
        },
        replay::{
            budget::Budget,
            fit::fit,
            tables::{Counted, Numbered, OTHERS, Stacks},
        },
    },
    system::processes,
    util::{
        clock::{Clock, Zone},
        escape::escape,
        figures::Span,
    },
};

/// Files, threads or rows of totals that a reader keeps, as far as there is memory for them
/// (budget.rs): a hostile file must not fill it.
const MAX_KEPT: usize = 1 << 18;
/// Of those who mix; the probes have room for 4,096.
const MAX_MIXERS: usize = 1 << 14;
/// Look-ups by name that are remembered.
const MAX_NAMED: usize = 1 << 16;
/// What stands for files that are not told apart.
pub(super) const OTHERS_NAME: &str = "(others)";
/// Places of damage that are told one by one.
const MAX_DAMAGE: usize = 100;

/// Takes what is replayed.
pub trait Sink {
    /// Whose recording it is, before anything else.
    fn begin(&mut self, _: &Header) {}

    /// A request that is shown: a finding, or any if [`Sink::wants_all`].
    ///
    /// # Errors
    /// Ends the replay.
    fn record(&mut self, record: &Record) -> Result<()>;

    /// # Errors
    /// Ends the replay.
    fn refusal(&mut self, _: &RefusalRow) -> Result<()> {
        Ok(())
    }

    /// # Errors
    /// Ends the replay.
    fn mixing(&mut self, _: &Mixing) -> Result<()> {
        Ok(())
    }

    /// Healthy requests too.
    fn wants_all(&self) -> bool {
        false
    }
}

/// What is not whole about a recording.
#[derive(Clone, Debug, Default)]
pub struct Cut {
    pub damage: Vec<Damage>,
    pub damaged_bytes: u64,
    /// How it ended in good order; `None`: it was cut.
    pub end: Option<End>,
    /// When its last block was written, as far as they say: ns of CLOCK_MONOTONIC.
    pub last: u64,
}

/// All that was in it.
pub struct Replay {
    pub header: Header,
    pub summary: Summary,
    /// The recording's own: when it began, and how long until its last block.
    pub span: Span,
    pub timeline: Timeline,
    /// Counters of the summary, for grouping.
    pub counters: Vec<(CounterKey, Counter)>,
    pub enricher: Enricher,
    pub cut: Cut,
    /// Requests in the file one by one, and those of them that are looked at.
    pub recorded: u64,
    pub shown: u64,
    /// The summary was made from these requests, for the counters do not say (a time, a thread, a cut).
    pub by_requests: bool,
    /// In words, what of the recording was looked at; `None`: all.
    pub only: Option<String>,
    pub dropped: u64,
    pub bytes: u64,
    /// For want of memory.
    pub left_out: LeftOut,
}

impl Replay {
    /// What a heading says of what is looked at.
    #[must_use]
    pub fn headline(&self) -> String {
        if self.summary.ended() == 0 && self.only.is_some() {
            return "Nothing that was recorded fits: without filters and times the report has all of \
                    it."
                .to_owned();
        }
        self.summary.headline()
    }
}

struct State<'a> {
    sink: &'a mut dyn Sink,
    part: Part,
    clock: Clock,
    watched: Watched,
    enricher: Enricher,
    beside: Beside,
    files: Numbered<Known>,
    budget: Budget,
    left_out: LeftOut,
    tasks: Numbered<Task>,
    stacks: Stacks,
    /// Whether requests of a file by a task have names that are looked at.
    named_right: HashMap<(u64, u32), bool>,
    /// Where only some processes are looked at, by number or name: files that they use directly.
    used: HashSet<FileId>,
    timeline: Timeline,
    /// As the totals say.
    counters: HashMap<CounterKey, Counter>,
    mixers: HashMap<(u64, u32, u32), u64>,
    /// As the requests say.
    counted: Counted,
    totals: TotalsFact,
    cut: Cut,
    recorded: u64,
    /// When the first of them ended.
    first: u64,
    shown: u64,
}

/// A file that has a number.
#[derive(Clone, Copy)]
struct Known {
    key: FileId,
    /// What its names take; told again, they are replaced.
    bytes: u32,
}

/// A thread, as requests have it.
#[derive(Clone, Copy)]
struct Task {
    pid: u32,
    tid: u32,
    comm: [u8; 16],
}

impl Task {
    /// Of one whose facts were in a damaged block.
    const UNKNOWN: Self = Self { pid: 0, tid: 0, comm: *b"?\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0" };
}

/// Replays a recording.
///
/// # Errors
/// If it is none, or of another version, cannot be read, or says more than a reader can hold.
pub fn replay(
    input: impl Read + Seek,
    part: &dyn Fn(&Header) -> Part,
    sink: &mut dyn Sink,
) -> Result<Replay> {
    let mut reader = Reader::open(input)?;
    let header = clean(reader.header().clone());
    sink.begin(&header);
    let mut state = State {
        sink,
        part: part(&header),
        clock: Clock::fixed(i128::from(header.clock)),
        watched: Watched::by(&header.attached),
        enricher: Enricher::recorded(),
        beside: Beside::default(),
        files: Numbered::default(),
        budget: Budget::kept(),
        left_out: LeftOut::default(),
        tasks: Numbered::default(),
        stacks: Stacks::default(),
        named_right: HashMap::new(),
        used: HashSet::new(),
        timeline: Timeline::default(),
        counters: HashMap::new(),
        mixers: HashMap::new(),
        counted: Counted::default(),
        totals: TotalsFact::default(),
        cut: Cut::default(),
        recorded: 0,
        first: u64::MAX,
        shown: 0,
    };
    let bytes = reader.size();
    while let Some(item) = reader.item()? {
        state.take(item)?;
    }
    state.left_out.too_large = reader.too_large();
    drop(reader); // its buffers
    Ok(state.finish(header, bytes))
}

/// Names in a header come from outside, too.
fn clean(mut header: Header) -> Header {
    let safe = |text: &mut String| *text = escape(text.as_bytes());
    let Header { tool, host, kernel, boot, attach, .. } = &mut header;
    [tool, host, kernel, boot, attach].into_iter().for_each(safe);
    header.attached.iter_mut().for_each(safe);
    if let Scope::Command(words) = &mut header.scope {
        words.iter_mut().for_each(safe);
    }
    header.zone = header.zone.filter(Zone::is_sound);
    if let Some(name) = header.zone.as_mut().and_then(|zone| zone.name.as_mut()) {
        safe(name);
    }
    for (probe, why) in header.missing.iter_mut().chain(&mut header.dark) {
        safe(probe);
        safe(why);
    }
    header
}

impl State<'_> {
    fn take(&mut self, item: Item<'_>) -> Result<()> {
        match item {
            Item::Facts(facts) => facts.into_iter().try_for_each(|fact| self.fact(fact)),
            Item::Requests(columns) => self.requests(columns),
            Item::Totals(totals) => {
                self.totals(*totals);
                Ok(())
            }
            Item::End(end) => {
                self.cut.last = self.cut.last.max(end.time);
                self.cut.end = Some(End { why: escape(end.why.as_bytes()), ..end });
                Ok(())
            }
            Item::Damage(damage) => {
                self.cut.damaged_bytes += damage.bytes;
                if self.cut.damage.len() < MAX_DAMAGE {
                    self.cut.damage.push(damage);
                }
                Ok(())
            }
            Item::Header | Item::Other => Ok(()),
        }
    }

    fn fact(&mut self, fact: Fact) -> Result<()> {
        match fact {
            Fact::File(file) => self.file(*file),
            Fact::Task(fact) => {
                let (pid, tid, comm) = (fact.pid, fact.tid, fact.comm16());
                if pid == tid {
                    self.enricher.name(pid, &fact.comm);
                }
                let (number, task) = (u64::from(fact.task), Task { pid, tid, comm });
                let room = self.tasks.get(number).is_some() || self.budget.take(budget::TASK);
                if !room || !self.tasks.keep(number, task, MAX_KEPT) {
                    self.left_out.facts += 1;
                }
            }
            Fact::Process(process) => {
                self.enricher.name(process.pid, process.name.as_bytes());
                if let Some(title) = &process.title {
                    self.enricher.entitle(process.pid, title);
                }
            }
            Fact::Stack(stack) => {
                self.left_out.facts += u64::from(!self.stacks.keep(stack));
            }
            Fact::Refusal(fact) => self.refusal(&fact)?,
            Fact::Mixer(fact) => self.mixer(&fact)?,
        }
        Ok(())
    }

    /// Keeps what is told of a file. Told again, it takes the place of what was told before.
    fn file(&mut self, fact: FileFact) {
        let key = fact.key();
        let FileFact { file, info, .. } = fact;
        let bytes = info.bytes();
        let before = self.files.get(file).filter(|known| known.key == key);
        if let Some(known) = before {
            self.budget.give_back(known.bytes as usize);
        }
        let entry = if before.is_some() { 0 } else { budget::FILE };
        let known = Known { key, bytes: bytes as u32 };
        if self.budget.take(entry + bytes) {
            if self.files.keep(file, known, MAX_KEPT) {
                self.enricher.recall(key, info);
                self.named_right.clear(); // it may be told again, by its name
                return;
            }
            self.budget.give_back(entry + bytes);
        } else if let Some(known) = before {
            self.budget.take(known.bytes as usize);
        }
        self.left_out.facts += 1;
    }

    /// A file whose facts were in a damaged block is known by its number alone, and those that there
    /// is no room for are not told apart.
    #[inline]
    fn key(&mut self, file: u64) -> FileId {
        match self.files.get(file) {
            Some(known) => known.key,
            None => self.unknown(file),
        }
    }

    fn unknown(&mut self, file: u64) -> FileId {
        let key = FileId { inode: file, ino: 0, dev: 0, generation: 0 };
        let known = Known { key, bytes: 0 };
        if self.budget.take(budget::FILE) && self.files.keep(file, known, MAX_KEPT) {
            return key;
        }
        self.enricher.stand_in(OTHERS, OTHERS_NAME);
        OTHERS
    }

    fn task(&self, task: u32) -> Task {
        self.tasks.get(u64::from(task)).unwrap_or(Task::UNKNOWN)
    }

    fn refusal(&mut self, fact: &RefusalFact) -> Result<()> {
        let task = self.task(fact.task);
        let right = self.part.takes_process(task.pid) && self.part.takes_thread(task.tid);
        if !right || !self.part.window.holds(fact.time) {
            return Ok(());
        }
        let event = fact.event(self.key(fact.file), (task.pid, task.tid, task.comm));
        let row = self.beside.refusal(&event, &mut self.enricher, &self.clock);
        let filter = &self.part.filter;
        match row.filter(|row| filter.takes_file(&row.comm, &row.path, &row.fs)) {
            Some(row) => self.sink.refusal(row),
            None => Ok(()),
        }
    }

    fn mixer(&mut self, fact: &MixerFact) -> Result<()> {
        let task = self.task(fact.task);
        let file = self.key(fact.file);
        if !self.budget.take(budget::MIXER) {
            self.left_out.facts += 1;
            return Ok(());
        }
        let event = fact.event(file, (task.pid, task.tid, task.comm));
        let mixing = Mixing::new(&event, &mut self.enricher, &self.clock);
        let Part { filter, .. } = &self.part;
        // Either side; of those who use it directly, as far as is known by then.
        let who = self.used.contains(&file)
            || self.part.takes_process(task.pid) && filter.takes_person(&mixing.comm);
        let right = who && filter.takes_place(&mixing.path, &mixing.fs);
        if right && self.part.window.holds(fact.time) { self.sink.mixing(&mixing) } else { Ok(()) }
    }

    fn requests(&mut self, columns: &Columns) -> Result<()> {
        self.recorded += columns.len() as u64;
        let all = self.sink.wants_all();
        columns.each(|recorded| {
            let request = &mut recorded.request;
            self.cut.last = self.cut.last.max(request.end_ns);
            self.first = self.first.min(request.end_ns);
            if !self.part.window.holds(request.end_ns) {
                return Ok(());
            }
            let key = self.key(request.inode);
            let task = self.task(recorded.task);
            (request.ino, request.dev, request.generation) = (key.ino, key.dev, key.generation);
            (request.tgid, request.tid, request.comm) = (task.pid, task.tid, task.comm);
            let right = self.part.takes(request) && self.is_named_right(recorded);
            let decision = decide(&recorded.request.facts(true), &recorded.request.evidence);
            if !right || !self.part.filter.takes_verdict(decision.verdict) {
                return Ok(());
            }
            self.count(recorded, &decision);
            if decision.finding || all { self.show(recorded) } else { Ok(()) }
        })
    }

    /// Looked up once for each file and task: names are texts.
    fn is_named_right(&mut self, recorded: &Recorded) -> bool {
        if self.part.filter.takes_names() {
            return true;
        }
        let request = &recorded.request;
        let known = (request.inode, recorded.task);
        if let Some(right) = self.named_right.get(&known) {
            return *right;
        }
        let comm = self.enricher.process(request.tgid, Some((request.tid, &request.comm)));
        let file = self.enricher.file(FileId::from(request), request.tgid);
        let right = self.part.filter.takes_file(&comm, &file.path, &file.fs);
        if self.named_right.len() < MAX_NAMED {
            self.named_right.insert(known, right);
        }
        right
    }

    fn show(&mut self, recorded: &Recorded) -> Result<()> {
        let Recorded { request, extents, .. } = recorded;
        let enricher = &mut self.enricher;
        let record = Record {
            stack: self.stacks.get(recorded.stack),
            ..Record::recorded(request, *extents, enricher, &self.clock, self.watched)
        };
        self.beside.request(&record);
        self.sink.record(&record)
    }

    fn count(&mut self, recorded: &Recorded, decision: &Decision) {
        let request = &recorded.request;
        self.shown += 1;
        self.use_directly(FileId::from(&recorded.request), recorded.request.tgid);
        let latency = request.end_ns.saturating_sub(request.begin_ns);
        self.timeline.add(request.end_ns, latency, decision.verdict, decision.finding);
        let kind = (
            request.op,
            decision.verdict as u8,
            decision.outcome as u8,
            u8::from(decision.finding),
        );
        let make = || CounterKey::of(request, decision);
        let row = (request.inode, request.tgid, kind);
        let room = self.counted.row(row, &mut self.budget, make).is_some();
        let row = if room { row } else { (OTHERS.inode, 0, kind) };
        if row.0 == OTHERS.inode {
            self.left_out.requests += 1;
        }
        let make = || if room { make() } else { others(&make()) };
        let Some(counter) = self.counted.row(row, &mut self.budget, make) else { return };
        counter.requests += 1;
        counter.bytes = counter.bytes.saturating_add(request.ret.max(0) as u64);
        counter.direct_bytes = counter.direct_bytes.saturating_add(decision.direct_bytes);
        counter.cached_bytes = counter.cached_bytes.saturating_add(decision.cached_bytes);
        counter.latency_ns = counter.latency_ns.saturating_add(latency);
        Counter::count_latency(&mut counter.latency, latency);
    }

    fn use_directly(&mut self, file: FileId, pid: u32) {
        let Part { pids, filter, .. } = &self.part;
        let some = !pids.is_empty() || !filter.comms.is_empty();
        if some
            && self.used.len() < MAX_KEPT
            && self.part.narrow().takes_process(pid, &mut self.enricher)
        {
            self.used.insert(file);
        }
    }

    /// Rows take the place of those that were told before.
    fn totals(&mut self, mut totals: TotalsFact) {
        for row in std::mem::take(&mut totals.counters) {
            let (key, counter) = row.counter(self.key(row.file));
            self.use_directly(FileId::from(&key), key.tgid);
            let known = self.counters.contains_key(&key);
            // One that is not told apart would take the place of another.
            let small = self.counters.len() < MAX_KEPT && FileId::from(&key) != OTHERS;
            if known || small && self.budget.take(budget::TOTAL) {
                self.counters.insert(key, counter);
            } else {
                self.left_out.totals += 1;
            }
        }
        for (file, pid, how, pages) in std::mem::take(&mut totals.mixers) {
            if !matches!(how, MIXED_CACHED | MIXED_DIRTIED | MIXED_FILLED) {
                continue;
            }
            let row = (file, pid, how);
            let small = self.mixers.len() < MAX_MIXERS;
            if self.mixers.contains_key(&row) || small && self.budget.take(budget::MIXER) {
                self.mixers.insert(row, pages);
            } else {
                self.left_out.totals += 1;
            }
        }
        self.cut.last = self.cut.last.max(totals.time);
        self.totals = totals;
    }

    fn finish(mut self, header: Header, bytes: u64) -> Replay {
        let whole = self.cut.end.is_some() && self.cut.damage.is_empty();
        // Of a file that is not whole the totals may be missing or old: what is there counts.
        let told: u64 = self.counters.values().map(|counter| counter.requests).sum();
        let lacks = !whole && (header.all || told < self.recorded);
        // And where totals had to be left out.
        let lacks = lacks || self.left_out.totals != 0 && told < self.recorded;
        let by_requests = self.part.asks_requests() || lacks;
        let counters: Vec<_> =
            if by_requests { self.counted.take() } else { self.counters.drain().collect() };
        (self.counters, self.counted) = (HashMap::new(), Counted::default());
        if !by_requests {
            self.left_out.requests = 0; // the totals have them
        }
        let mut totals = self.as_live(&header, counters, by_requests);
        (self.named_right, self.used) = (HashMap::new(), HashSet::new());
        self.left_out.rows = self.beside.left_out() + fit(&mut totals, &mut self.enricher);
        let narrow = self.part.narrow();
        let mut summary = narrow.summary(&mut totals, &mut self.beside, &mut self.enricher);
        summary.scope = scope(&header.scope);
        let span = self.span(&header);
        Replay {
            header,
            summary,
            span,
            timeline: self.timeline,
            counters: totals.counters,
            enricher: self.enricher,
            cut: self.cut,
            recorded: self.recorded,
            shown: self.shown,
            by_requests,
            only: self.part.only,
            dropped: self.totals.dropped,
            bytes,
            left_out: self.left_out,
        }
    }

    /// Requests are seen while the last probes are still being attached: it may begin before its
    /// header says.
    fn span(&self, header: &Header) -> Span {
        let began = match self.first {
            u64::MAX => header.started,
            first => header.started.min(self.clock.wall(first)),
        };
        let lasted_ns = self.clock.wall(self.cut.last).saturating_sub(began);
        Span { began, lasted_ns }
    }

    /// The totals as a tracer has them when it stops.
    fn as_live(
        &mut self,
        header: &Header,
        mut counters: Vec<(CounterKey, Counter)>,
        by_requests: bool,
    ) -> Totals {
        counters.sort_by_key(|(k, _)| (k.inode, k.tgid, k.op, k.verdict, k.outcome, k.errno));
        let mut stats = [0; STATS];
        for (stat, name) in Stat::ALL {
            let told = self.totals.stats.iter().find(|(told, _)| told == name);
            stats[*stat as usize] = told.map_or(0, |(_, n)| *n);
        }
        if by_requests {
            // Those in flight at the cut are not known.
            let ended: u64 = counters.iter().map(|(_, counter)| counter.requests).sum();
            stats[Stat::Ended as usize] = ended;
            stats[Stat::Begun as usize] = ended.saturating_add(stats[Stat::Unmatched as usize]);
        }
        let gaps = |gaps: &[(String, String)]| -> Vec<Missing> {
            let gap = |(probe, why): &(String, String)| Missing {
                probe: probe.clone(),
                why: why.clone(),
            };
            gaps.iter().map(gap).collect()
        };
        let mixers = std::mem::take(&mut self.mixers);
        let mixers =
            mixers.into_iter().map(|((file, pid, how), n)| (mixer(self.key(file), pid, how), n));
        let mixers = mixers.collect();
        Totals {
            kernel: header.kernel.clone(),
            attach: if header.attach == "kprobe" { Attach::Kprobe } else { Attach::Fentry },
            attached: header.attached.clone(),
            missing: gaps(&header.missing),
            dark: gaps(&header.dark),
            stats,
            skipped: self.totals.skipped.iter().map(|(p, n)| (escape(p.as_bytes()), *n)).collect(),
            counters,
            mixers,
        }
    }
}

/// Whose requests were recorded, as the summary has it.
fn scope(recorded: &Scope) -> summary::Scope {
    let text = match recorded {
        Scope::System => "the whole system".to_owned(),
        Scope::Processes(pids) => processes::in_words(pids, 0),
        Scope::Command(words) => {
            let command = words.first().map(String::as_str).unwrap_or_default();
            escape(command.as_bytes())
        }
    };
    summary::Scope { text, children_left_out: 0 }
}

/// A row for requests that find no room for one of their own: of no file and no process.
pub(super) fn others(key: &CounterKey) -> CounterKey {
    let FileId { inode, ino, dev, generation } = OTHERS;
    CounterKey { inode, ino, dev, generation, tgid: 0, errno: 0, ..*key }
}
