//! Processes the items of a recording one by one: collects facts in tables, and passes selected
//! requests and events to the sink.

use ahash::{HashMap, HashSet};
use anyhow::Result;
use dio_trace_common::{
    abi::{Counter, CounterKey, FileId, Request, Task},
    evidence::seen,
    verdict::{Decision, Verdict, max_rw_count},
};

use crate::{
    enrich::Enricher,
    flow::{
        alignment_probe::Sight,
        decided::{Decided, LookedUp},
        explained::WatchedEffects,
        pipeline::{Pipeline, Settlement},
        sink::Sink,
        timeline::Timeline,
    },
    recording::{
        format::{
            BufferedUseFact, Columns, End, Fact, FileFact, Header, Item, Recorded,
            RejectedOpenFact, TotalsFact,
        },
        replay::{
            Integrity, LeftOut, Selection,
            budget::{self, Budget},
            tables::{Counted, MAX_KEPT, Numbered, OTHERS, OTHERS_NAME, Stacks},
        },
    },
    util::{clock::Clock, escape::escape},
};

/// Most results of filters by name that are cached.
const MAX_NAMED: usize = 1 << 16;
/// Most damaged parts that are reported individually.
const MAX_DAMAGE: usize = 100;

pub(super) struct Walk<'a> {
    pub(super) sink: &'a mut dyn Sink,
    pub(super) selection: Selection,
    pub(super) pipeline: Pipeline,
    pub(super) files: Numbered<Known>,
    pub(super) budget: Budget,
    pub(super) left_out: LeftOut,
    pub(super) tasks: Numbered<Task>,
    pub(super) stacks: Stacks,
    /// Whether requests of a (file, task) match the filters by name.
    pub(super) named_right: HashMap<(u64, u32), bool>,
    /// If only some processes are selected, by id or name: the files that they use directly.
    pub(super) used: HashSet<FileId>,
    pub(super) timeline: Timeline,
    /// Counters from the totals.
    pub(super) counters: HashMap<CounterKey, Counter>,
    /// Pages of mixed access from the totals, by (file, process, how).
    pub(super) buffered_uses: HashMap<(u64, u32, u32), u64>,
    /// Counters from individual requests.
    pub(super) counted: Counted,
    /// The last totals, without their rows.
    pub(super) totals: TotalsFact,
    pub(super) integrity: Integrity,
    /// Number of individual requests in the file.
    pub(super) recorded: u64,
    /// Earliest completion time of a request.
    pub(super) first: u64,
    /// Number of selected requests.
    pub(super) shown: u64,
    /// Requests need [`seen::AT_MOST`]: the recording is older than it.
    marks_largest: bool,
}

/// A file that has an id.
#[derive(Clone, Copy)]
pub(super) struct Known {
    key: FileId,
    /// Bytes charged for the file's names. They are given back if a later fact replaces the names.
    bytes: u32,
}

/// A thread whose fact was in a damaged block.
const UNKNOWN_TASK: Task = Task { comm: *b"?\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", ..Task::NONE };

impl<'a> Walk<'a> {
    pub(super) fn new(header: &Header, selection: Selection, sink: &'a mut dyn Sink) -> Self {
        let clock = Clock::fixed(i128::from(header.clock));
        let watched = WatchedEffects::by(&header.attached, header.page_size());
        let sight = Sight { sees_all: header.all, shows_all: sink.wants_all() };
        let pipeline =
            Pipeline::new(Enricher::recorded(), clock, watched, selection.filter.clone())
                .with_sight(sight);
        Self {
            sink,
            selection,
            pipeline,
            files: Numbered::default(),
            budget: Budget::kept(),
            left_out: LeftOut::default(),
            tasks: Numbered::default(),
            stacks: Stacks::default(),
            named_right: HashMap::default(),
            used: HashSet::default(),
            timeline: Timeline::default(),
            counters: HashMap::default(),
            buffered_uses: HashMap::default(),
            counted: Counted::default(),
            totals: TotalsFact::default(),
            integrity: Integrity::default(),
            recorded: 0,
            first: u64::MAX,
            shown: 0,
            marks_largest: header.page.is_none(),
        }
    }

    pub(super) fn take(&mut self, item: Item<'_>) -> Result<()> {
        match item {
            Item::Facts(facts) => facts.into_iter().try_for_each(|fact| self.fact(fact)),
            Item::Requests(columns) => self.requests(columns),
            Item::Totals(totals) => {
                self.totals(*totals);
                Ok(())
            }
            Item::End(end) => {
                self.integrity.last = self.integrity.last.max(end.time);
                self.integrity.end = Some(End { why: escape(end.why.as_bytes()), ..end });
                Ok(())
            }
            Item::Damage(damage) => {
                self.integrity.damaged_bytes += damage.bytes;
                if self.integrity.damage.len() < MAX_DAMAGE {
                    self.integrity.damage.push(damage);
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
                let (number, task) = (u64::from(fact.task), fact.task());
                if task.tgid == task.tid {
                    self.pipeline.enricher.name(task.tgid, &fact.comm);
                }
                let room = self.tasks.get(number).is_some() || self.budget.take(budget::TASK);
                if !room || !self.tasks.keep(number, task, MAX_KEPT) {
                    self.left_out.facts += 1;
                }
            }
            Fact::Process(process) => {
                self.pipeline.enricher.name(process.pid, process.name.as_bytes());
                if let Some(title) = &process.title {
                    self.pipeline.enricher.entitle(process.pid, title);
                }
                if let Some(container) = process.container {
                    self.pipeline.enricher.contain(process.pid, container);
                }
            }
            Fact::Stack(stack) => {
                self.left_out.facts += u64::from(!self.stacks.keep(stack));
            }
            Fact::RejectedOpen(fact) => self.rejected_open(&fact)?,
            Fact::BufferedUse(fact) => self.mixed_access(&fact)?,
        }
        Ok(())
    }

    /// Stores the description of a file. It replaces an earlier one.
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
                self.pipeline.enricher.recall(key, info);
                self.named_right.clear(); // the file may have got its name only now
                return;
            }
            self.budget.give_back(entry + bytes);
        } else if let Some(known) = before {
            self.budget.take(known.bytes as usize);
        }
        self.left_out.facts += 1;
    }

    /// The identity of the file with the id `file`. If its fact was in a damaged block, only the id
    /// is known. If there is no room for it, this is [`OTHERS`].
    #[inline]
    pub(super) fn key(&mut self, file: u64) -> FileId {
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
        self.pipeline.enricher.stand_in(OTHERS, OTHERS_NAME);
        OTHERS
    }

    fn task(&self, task: u32) -> Task {
        self.tasks.get(u64::from(task)).unwrap_or(UNKNOWN_TASK)
    }

    fn rejected_open(&mut self, fact: &RejectedOpenFact) -> Result<()> {
        let task = self.task(fact.task);
        let right =
            self.selection.takes_process(task.tgid) && self.selection.takes_thread(task.tid);
        if !right || !self.selection.window.holds(fact.time) {
            return Ok(());
        }
        let event = fact.event(self.key(fact.file), task);
        self.pipeline.rejected_open(&event, self.sink)
    }

    fn mixed_access(&mut self, fact: &BufferedUseFact) -> Result<()> {
        let task = self.task(fact.task);
        let file = self.key(fact.file);
        if !self.budget.take(budget::BUFFERED_USE) {
            self.left_out.facts += 1;
            return Ok(());
        }
        if !self.selection.window.holds(fact.time) {
            return Ok(());
        }
        let event = fact.event(file, task);
        if event.buffered_use.is_unasked() {
            let selected = self.selection.takes_process(task.tgid);
            return self.pipeline.unasked(&event, selected, self.sink);
        }
        // Shown if either side is selected: the buffered user, or a direct user known so far.
        let used = self.used.contains(&file);
        self.pipeline.mixed_access(&event, used, self.selection.takes_process(task.tgid), self.sink)
    }

    fn requests(&mut self, columns: &Columns) -> Result<()> {
        self.recorded += columns.len() as u64;
        let all = self.sink.wants_all();
        columns.each(|recorded| {
            let time = recorded.request.end_ns;
            self.integrity.last = self.integrity.last.max(time);
            self.first = self.first.min(time);
            if !self.selection.window.holds(time) {
                return Ok(());
            }
            self.identify(recorded);
            if !self.selection.takes(&recorded.request) || !self.is_named_right(recorded) {
                return Ok(());
            }
            let decided = Decided::of(&recorded.request);
            self.observe(&recorded.request)?;
            let Decision { verdict, outcome, .. } = decided.decision;
            if !self.selection.filter.takes_decision(verdict, Some(outcome)) {
                return Ok(());
            }
            self.count(&decided);
            let is_shown = decided.decision.finding || all;
            if !self.selection.filter.causes.is_empty() {
                return self.by_cause(&decided, recorded, is_shown);
            }
            self.add(time, decided.latency_ns(), verdict, decided.decision.finding);
            if is_shown {
                return self.show(&decided, recorded, true).map(drop);
            }
            self.pipeline.unseen(&decided);
            Ok(())
        })
    }

    /// Fills in the file and the thread of a request from their ids, and what an old recording lacks.
    #[inline]
    fn identify(&mut self, recorded: &mut Recorded) {
        recorded.request.file = self.key(recorded.file);
        recorded.request.task = self.task(recorded.task);
        // Before recordings said the page size, the verdict compared the count itself.
        if self.marks_largest && recorded.request.ret == max_rw_count(4 << 10) as i64 {
            recorded.request.evidence.seen |= seen::AT_MOST;
        }
    }

    /// True if a request matches the filters by name. The result is cached by file and task,
    /// because comparing texts is slow.
    fn is_named_right(&mut self, recorded: &Recorded) -> bool {
        if self.selection.filter.takes_names() {
            return true;
        }
        let known = (recorded.file, recorded.task);
        if let Some(right) = self.named_right.get(&known) {
            return *right;
        }
        let right = self.pipeline.takes_names(&recorded.request);
        if self.named_right.len() < MAX_NAMED {
            self.named_right.insert(known, right);
        }
        right
    }

    /// Takes what a request says about those that are held back.
    fn observe(&mut self, request: &Request) -> Result<()> {
        let settlement = self.pipeline.observe(request, self.sink)?;
        self.settle(settlement);
        Ok(())
    }

    /// Decides about the requests that are still held back. Called after the last item.
    pub(super) fn end(&mut self) -> Result<()> {
        let settlement = self.pipeline.finish_probes(self.counters.iter(), self.sink)?;
        self.settle(settlement);
        Ok(())
    }

    fn settle(&mut self, Settlement { steps, taken }: Settlement) {
        steps.iter().for_each(|time| self.timeline.is_no_finding(*time));
        for (time, latency, verdict, finding) in taken {
            self.add(time, latency, verdict, finding);
        }
    }

    /// Adds a request that matches the selection.
    fn add(&mut self, time: u64, latency: u64, verdict: Verdict, finding: bool) {
        self.shown += 1;
        self.timeline.add(time, latency, verdict, finding);
    }

    /// Shows a request if it has a cause that is selected.
    fn by_cause(
        &mut self,
        decided: &Decided<'_>,
        recorded: &Recorded,
        is_shown: bool,
    ) -> Result<()> {
        if self.show(decided, recorded, is_shown)? {
            let Decision { verdict, finding, .. } = decided.decision;
            self.add(decided.request.end_ns, decided.latency_ns(), verdict, finding);
        }
        Ok(())
    }

    fn looked_up(&mut self, recorded: &Recorded) -> LookedUp {
        let stack = self.stacks.get(recorded.stack);
        LookedUp { extents: recorded.extents, memory: None, stack }
    }

    fn show(&mut self, decided: &Decided<'_>, recorded: &Recorded, is_shown: bool) -> Result<bool> {
        let looked_up = self.looked_up(recorded);
        self.pipeline.request(decided, looked_up, is_shown, self.sink)
    }
}
