//! The notes on alignment probes: what each says, and how the counters are changed by it.

use std::{cmp::Reverse, collections::HashMap};

use dio_trace_common::abi::{Counter, CounterKey, OP_READ};
use serde::Serialize;

use crate::{
    cause::ALIGNMENT_PROBE,
    enrich::Enricher,
    flow::{
        alignment_probe::held::{Held, Key},
        file_user::FileUser,
    },
    util::figures::counted,
};

/// The most notes: a recording may have any number of processes and files.
const MAX_NOTES: usize = 1024;

/// The alignment probes of a process on a file.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AlignmentProbeRow {
    #[serde(flatten)]
    pub user: FileUser,
    /// Reads that were refused on purpose.
    pub requests: u64,
    /// The shortest and the longest of them, in bytes.
    pub shortest: u64,
    pub longest: u64,
    /// Length in bytes of the read that worked after them; `None` if it had no event, and only the
    /// counters show that reads worked.
    pub worked: Option<u64>,
    /// The id of the rule.
    pub cause: &'static str,
    pub why: String,
}

/// The probes of one process and file.
#[derive(Clone, Debug)]
pub(super) struct Note {
    /// Number of probes, each of which has a read that worked.
    runs: u64,
    requests: u64,
    shortest: u64,
    longest: u64,
    /// One of them had a misaligned buffer.
    misaligned: bool,
    worked: Option<u64>,
    /// Where the requests were counted as findings, and what they added there.
    counted: (CounterKey, Counter),
}

impl Note {
    /// The note on one run; `None` if it is empty.
    pub(super) fn of(run: &[Held], worked: Option<u64>) -> Option<Self> {
        let first = run.first()?;
        let mut note = Self {
            runs: 1,
            requests: 0,
            shortest: first.step.len,
            longest: first.step.len,
            misaligned: false,
            worked,
            counted: (first.counted.0, Counter::ZERO),
        };
        for held in run {
            note.requests += 1;
            note.shortest = note.shortest.min(held.step.len);
            note.longest = note.longest.max(held.step.len);
            note.misaligned |= held.step.off != 0;
            note.counted.1.merge(&held.counted.1);
        }
        Some(note)
    }

    fn join(&mut self, later: &Self) {
        self.runs += later.runs;
        self.requests += later.requests;
        self.shortest = self.shortest.min(later.shortest);
        self.longest = self.longest.max(later.longest);
        self.misaligned |= later.misaligned;
        self.worked = later.worked.or(self.worked);
        self.counted.1.merge(&later.counted.1);
    }

    /// The note as a sentence.
    pub(super) fn why(&self) -> String {
        let lengths = if self.shortest == self.longest {
            format!("length {}", self.shortest)
        } else {
            format!("lengths {} to {}", self.shortest, self.longest)
        };
        let buffers = if self.misaligned { " and misaligned buffers" } else { "" };
        let were = if self.requests == 1 { "was" } else { "were" };
        let worked = self.worked.map_or_else(
            || "; other reads of the file worked".to_owned(),
            |len| format!(", then one of {len} worked"),
        );
        format!(
            "alignment probe: {} at offset 0 with {lengths}{buffers} {were} refused with \
             EINVAL{worked}",
            counted(self.requests, "read")
        )
    }

    fn row(&self, (pid, file): &Key, enricher: &mut Enricher) -> AlignmentProbeRow {
        AlignmentProbeRow {
            user: FileUser::new(*pid, None, *file, enricher),
            requests: self.requests,
            shortest: self.shortest,
            longest: self.longest,
            worked: self.worked,
            cause: ALIGNMENT_PROBE,
            why: self.why(),
        }
    }
}

/// The notes of a run of the tracer, or of a recording.
#[derive(Default)]
pub(super) struct Notes(HashMap<Key, Note>);

impl Notes {
    /// Adds a note, or joins it with the earlier one of the process and file. Returns false if there
    /// is no room.
    pub(super) fn add(&mut self, key: Key, note: &Note) -> bool {
        if let Some(known) = self.0.get_mut(&key) {
            known.join(note);
            return true;
        }
        let room = self.0.len() < MAX_NOTES;
        if room {
            self.0.insert(key, note.clone());
        }
        room
    }

    /// Number of probes of a process on a file.
    pub(super) fn runs(&self, key: &Key) -> u64 {
        self.0.get(key).map_or(0, |note| note.runs)
    }

    /// The rows, those with most requests first.
    pub(super) fn rows(&self, enricher: &mut Enricher) -> Vec<AlignmentProbeRow> {
        let mut rows: Vec<_> = self.0.iter().map(|(key, note)| note.row(key, enricher)).collect();
        rows.sort_by(|a, b| {
            (Reverse(a.requests), &a.user.path, a.user.pid).cmp(&(
                Reverse(b.requests),
                &b.user.path,
                b.user.pid,
            ))
        });
        rows
    }

    /// Moves the requests of all notes from the counters of findings to those of other requests of
    /// the same verdict.
    pub(super) fn move_in(&self, counters: &mut Vec<(CounterKey, Counter)>, at: &Places) {
        counters.reserve(self.0.len());
        for note in self.0.values() {
            if let Some((key, taken)) = at.take_out(counters, &note.counted) {
                counters.push((CounterKey { finding: 0, ..key }, taken));
            }
        }
        counters.retain(|(_, counter)| counter.requests != 0);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Where the counters of reads are: by their key, and by their key without errno.
pub(super) struct Places(HashMap<CounterKey, usize>);

impl Places {
    pub(super) fn of(counters: &[(CounterKey, Counter)]) -> Self {
        let mut places = HashMap::new();
        for (at, (key, _)) in counters.iter().enumerate().filter(|(_, (k, _))| k.op == OP_READ) {
            places.entry(without_errno(key)).or_insert(at);
            places.insert(*key, at);
        }
        Self(places)
    }

    /// Takes requests out of the counter that has them, which may leave it without any. Returns its
    /// key, and what was taken; `None` if there is no such counter.
    pub(super) fn take_out(
        &self,
        counters: &mut [(CounterKey, Counter)],
        (key, counter): &(CounterKey, Counter),
    ) -> Option<(CounterKey, Counter)> {
        // A counter that was made from recorded requests has the errno of its first one.
        let at = self.0.get(key).or_else(|| self.0.get(&without_errno(key)))?;
        let (key, known) = counters.get_mut(*at)?;
        let all = std::mem::replace(known, Counter::ZERO);
        if all.requests <= counter.requests {
            return Some((*key, all));
        }
        *known = all.since(counter);
        Some((*key, *counter))
    }
}

const fn without_errno(key: &CounterKey) -> CounterKey {
    CounterKey { errno: 0, ..*key }
}
