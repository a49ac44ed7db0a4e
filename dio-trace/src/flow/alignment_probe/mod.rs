//! Alignment probes: a program finds out the alignment that a file needs by reads that it expects to
//! fail. They are refused with EINVAL, but nothing is wrong: together they become one note.
//!
//! [`AlignmentProbes`] holds such reads back until it is known what they are. A read at offset 0
//! that has the shape of the next step and works makes them a probe. Where only findings have
//! events, such a read has none: then a run whose steps are clear is a probe if the counters have
//! reads of the same process and file that worked. In every other case the requests are the findings
//! that they look like, and are passed on in order.
//!
//! - [`step`]: which reads are steps
//! - [`held`]: a request that is held back, and the run that it belongs to
//! - [`notes`]: the note, and the counters without the findings that it replaces

mod held;
mod notes;
mod step;
#[cfg(test)]
mod tests;

use ahash::HashMap;
use dio_trace_common::{
    abi::{Counter, CounterKey, OP_READ, Request},
    verdict::Verdict,
};

pub use held::Settled;
pub(super) use held::counted;
pub use notes::AlignmentProbeRow;

use crate::{
    enrich::Enricher,
    flow::{
        alignment_probe::{
            held::{Held, Key, Run, RunStep},
            notes::{Note, Notes, Places},
            step::Step,
        },
        decided::Decided,
        explained::ExplainedRequest,
    },
};

/// How long after its last step a run is waited for, in ns.
const LIMIT: u64 = 2_000_000_000;
/// How often the counters are asked for, in ns.
const ASK_EVERY: u64 = 1_000_000_000;
/// The most steps of a run: one for each power of two from 1 byte to 64 KiB. QEMU makes at most ten.
const MAX_STEPS: usize = 17;
/// The most processes and files with a run.
const MAX_RUNS: usize = 256;
/// The most requests that are held back.
const MAX_HELD: usize = 512;

/// Requests that are no longer held back.
#[derive(Default)]
pub struct Released {
    /// In order. A filter by cause takes them only now.
    pub records: Vec<Settled>,
    /// Completions, CLOCK_MONOTONIC in ns, of the requests that turned out to be steps of a probe
    /// and are no findings.
    pub steps: Vec<u64>,
}

impl Released {
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.steps.is_empty()
    }
}

/// Which requests have events, and which the sink takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sight {
    /// All requests have events, not only findings.
    pub sees_all: bool,
    /// The sink also takes requests that are no findings.
    pub shows_all: bool,
}

/// Holds back reads that may be steps of alignment probes.
#[derive(Default)]
pub struct AlignmentProbes {
    sight: Sight,
    runs: HashMap<Key, Run>,
    /// Runs that ended without an event of a read that worked: the counters decide about them.
    ended: Vec<Run>,
    notes: Notes,
    /// When the counters were last asked for, CLOCK_MONOTONIC in ns.
    asked: u64,
}

impl AlignmentProbes {
    pub(super) fn set(&mut self, sight: Sight) {
        self.sight = sight;
    }

    /// Takes what a request says about the runs. Called for every request before it is held back or
    /// passed on, also for requests that are not shown.
    pub(super) fn observe(&mut self, request: &Request) -> Released {
        let step = Step::of(request);
        let is_held = is_refused(request) && step.is_some();
        if self.runs.is_empty() && !is_held {
            return Released::default(); // as for most requests
        }
        let mut released = self.expire(request.end_ns);
        if let Some(run) = key(request).and_then(|key| self.runs.remove(&key)) {
            self.advance(run, request, step, &mut released);
        }
        if is_held {
            self.make_room(&mut released);
        }
        released
    }

    /// Decides what a request means for the run of its process and file.
    fn advance(
        &mut self,
        run: Run,
        request: &Request,
        step: Option<Step>,
        released: &mut Released,
    ) {
        let refused = is_refused(request);
        match step {
            Some(_) if run.given_up && refused => self.give_up(run, request, released),
            Some(step) if step.follows(run.last) && refused => {
                if run.requests.len() < MAX_STEPS {
                    self.runs.insert(run.key, run); // the caller holds the step back
                } else {
                    self.give_up(run, request, released);
                }
            }
            Some(step) if step.follows(run.last) && request.ret >= 0 => {
                self.become_probe(run, Some(step.len), released);
            }
            // The program probes again; the read that worked before had no event.
            Some(step) if step.is_opening() && refused && self.is_clear(&run) => {
                self.ended.push(run);
            }
            // No probe makes the same step twice, or goes back: a program repeats its real reads.
            Some(_) if refused => self.give_up(run, request, released),
            // It may have gone on with other requests after a read that had no event.
            _ if request.ret >= 0 && self.is_clear(&run) => {
                self.runs.insert(run.key, run);
            }
            _ => become_findings(run, released),
        }
    }

    /// Makes the requests of a run findings, and the steps that still come.
    fn give_up(&mut self, run: Run, request: &Request, released: &mut Released) {
        let (key, last, last_ns) = (run.key, run.last, request.end_ns);
        become_findings(run, released);
        let given_up = Run { key, requests: Vec::new(), last, last_ns, given_up: true };
        self.runs.insert(key, given_up);
    }

    /// True if the counters may decide about the run.
    fn is_clear(&self, run: &Run) -> bool {
        !self.sight.sees_all && !run.given_up && run.is_clear()
    }

    /// Where a finding is held back; `None` if it is passed on.
    /// [`Self::observe`] was called for it.
    pub(super) fn run_step(&self, request: &Request) -> Option<RunStep> {
        let step = Some(request).filter(|r| is_refused(r)).and_then(Step::of)?;
        let key = key(request)?;
        let is_held = match self.runs.get(&key) {
            Some(run) => !run.given_up && step.follows(run.last),
            None => step.begins(),
        };
        is_held.then_some(RunStep { key, step })
    }

    /// Holds a finding back.
    pub(super) fn hold(
        &mut self,
        RunStep { key, step }: RunStep,
        decided: &Decided<'_>,
        record: ExplainedRequest,
    ) {
        let held = Held::new(step, decided, record);
        if let Some(run) = self.runs.get_mut(&key) {
            run.push(held);
        } else {
            self.runs.insert(key, Run::new(key, held));
        }
    }

    /// Releases the oldest requests if there is no room for another one.
    fn make_room(&mut self, released: &mut Released) {
        if self.held() >= MAX_HELD && !self.ended.is_empty() {
            become_findings(self.ended.remove(0), released);
        }
        if self.runs.len() >= MAX_RUNS || self.held() >= MAX_HELD {
            let oldest = self.runs.values().min_by_key(|run| run.last_ns).map(|run| run.key);
            if let Some(run) = oldest.and_then(|key| self.runs.remove(&key)) {
                become_findings(run, released);
            }
        }
    }

    /// Number of requests that are held back.
    pub(super) fn held(&self) -> usize {
        self.runs.values().chain(&self.ended).map(|run| run.requests.len()).sum()
    }

    /// Ends the runs that had no step for [`LIMIT`] before `now` (CLOCK_MONOTONIC in ns). Those that
    /// the counters cannot decide about become findings.
    pub(super) fn expire(&mut self, now: u64) -> Released {
        let mut released = Released::default();
        let is_over = |run: &Run| run.last_ns.saturating_add(LIMIT) <= now;
        if !self.runs.values().any(is_over) {
            return released;
        }
        let mut over: Vec<Run> =
            self.runs.extract_if(|_, run| is_over(run)).map(|(_, r)| r).collect();
        over.sort_by_key(|run| run.last_ns);
        for run in over {
            if self.is_clear(&run) {
                self.ended.push(run);
            } else {
                become_findings(run, &mut released);
            }
        }
        released
    }

    /// True if [`Self::decide`] is to be called. True at most once a second: the counters of a busy
    /// machine are many.
    pub(super) fn wants_counters(&mut self, now: u64) -> bool {
        let wants = !self.ended.is_empty() && self.asked.saturating_add(ASK_EVERY) <= now;
        if wants {
            self.asked = now;
        }
        wants
    }

    /// Decides about the runs that ended: each is a probe if a read of its process and file worked.
    pub(super) fn decide<'a>(
        &mut self,
        counters: impl Iterator<Item = (&'a CounterKey, &'a Counter)>,
    ) -> Released {
        let mut released = Released::default();
        if self.ended.is_empty() {
            return released;
        }
        let mut worked: HashMap<Key, u64> = self.ended.iter().map(|run| (run.key, 0)).collect();
        for (key, counter) in counters.filter(|(key, _)| has_worked(key)) {
            if let Some(sum) = worked.get_mut(&(key.tgid, key.file)) {
                *sum = sum.saturating_add(counter.requests);
            }
        }
        // Each probe ends with a read of its own, and these counters have those of earlier ones too.
        for (key, left) in &mut worked {
            *left = left.saturating_sub(self.notes.runs(key));
        }
        for run in std::mem::take(&mut self.ended) {
            match worked.get_mut(&run.key) {
                Some(left) if *left > 0 => {
                    *left -= 1;
                    self.become_probe(run, None, &mut released);
                }
                _ => become_findings(run, &mut released),
            }
        }
        released
    }

    /// Ends all runs and decides about them. Called when no more requests come.
    pub(super) fn finish<'a>(
        &mut self,
        counters: impl Iterator<Item = (&'a CounterKey, &'a Counter)>,
    ) -> Released {
        let mut released = self.expire(u64::MAX);
        let decided = self.decide(counters);
        released.records.extend(decided.records);
        released.steps.extend(decided.steps);
        released
    }

    /// Makes a run one note, if there is room for it. `worked` is the length of the read that
    /// worked.
    fn become_probe(&mut self, run: Run, worked: Option<u64>, released: &mut Released) {
        let Some(note) = Note::of(&run.requests, worked) else { return };
        if !self.notes.add(run.key, &note) {
            become_findings(run, released);
            return;
        }
        let why = note.why();
        for held in run.requests {
            released.steps.push(held.end_ns);
            released.records.push(held.into_step(&why, self.sight.shows_all));
        }
    }

    /// Changes counters to what was decided: steps of probes are no findings, and requests that are
    /// still held back are not counted yet.
    pub(super) fn change(&self, counters: &mut Vec<(CounterKey, Counter)>) {
        if self.held() == 0 && self.notes.is_empty() {
            return; // as for most runs of the tracer
        }
        let places = Places::of(counters);
        for held in self.runs.values().chain(&self.ended).flat_map(|run| &run.requests) {
            places.take_out(counters, &held.counted);
        }
        self.notes.move_in(counters, &places);
    }

    /// The notes, those with most requests first.
    pub(super) fn rows(&self, enricher: &mut Enricher) -> Vec<AlignmentProbeRow> {
        self.notes.rows(enricher)
    }
}

fn become_findings(run: Run, released: &mut Released) {
    released.records.extend(run.requests.into_iter().map(Held::into_finding));
}

/// The process and file of a request; `None` if a recording does not say them, since requests of
/// different ones would then be taken for those of one.
const fn key(request: &Request) -> Option<Key> {
    let is_known = request.task.tgid != 0 && request.file.ino != 0;
    if is_known { Some((request.task.tgid, request.file)) } else { None }
}

/// True if a request ended with EINVAL.
const fn is_refused(request: &Request) -> bool {
    request.ret == -(libc::EINVAL as i64)
}

/// True for a counter of reads that worked.
fn has_worked(key: &CounterKey) -> bool {
    let failed = [Verdict::Refused, Verdict::Failed].map(|verdict| verdict as u8);
    key.op == OP_READ && key.errno == 0 && !failed.contains(&key.verdict)
}
