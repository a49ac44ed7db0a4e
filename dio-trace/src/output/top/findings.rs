//! The findings of the live screen, folded by kind: the latest of each kind and its count.

use std::sync::Arc;

use ahash::HashMap;
use dio_trace_common::verdict::Verdict;

use crate::{
    enrich::Enricher,
    flow::{
        explained::{ExplainedRequest, FindingKey},
        group::{By, container, pod},
        side_events::{MixedAccess, RejectedOpenRow},
    },
};

/// Maximum number of kinds; the least recently seen are dropped first.
pub const MAX_FINDINGS: usize = 1_024;

/// The content of a finding: a request or a side event.
#[derive(Clone, Debug)]
pub enum What {
    Request(Box<ExplainedRequest>),
    RejectedOpen(Box<RejectedOpenRow>),
    MixedAccess(Box<MixedAccess>),
}

/// The latest finding of one kind, and how often the kind occurred.
#[derive(Clone, Debug)]
pub struct Finding {
    pub times: u64,
    pub what: What,
    /// Sequence number of the latest occurrence.
    pub turn: u64,
    place: Place,
    /// It occurred since `place` was looked up.
    occurred: bool,
}

/// Where a process runs, by the names that the rows have; empty until it was looked up.
#[derive(Clone, Debug, Default)]
struct Place {
    container: String,
    pod: String,
}

impl Finding {
    #[must_use]
    pub fn process(&self) -> (&str, u32) {
        match &self.what {
            What::Request(r) => (&r.comm, r.pid),
            What::RejectedOpen(r) => (&r.user.comm, r.user.pid),
            What::MixedAccess(m) => (&m.comm, m.pid),
        }
    }

    #[must_use]
    pub fn path(&self) -> &str {
        match &self.what {
            What::Request(r) => &r.path,
            What::RejectedOpen(r) => &r.user.path,
            What::MixedAccess(m) => &m.path,
        }
    }

    #[must_use]
    pub fn fs(&self) -> &str {
        match &self.what {
            What::Request(r) => &r.fs,
            What::RejectedOpen(r) => &r.user.fs,
            What::MixedAccess(m) => &m.fs,
        }
    }

    /// Time of the latest occurrence: ns since the epoch.
    #[must_use]
    pub fn time(&self) -> u64 {
        match &self.what {
            What::Request(r) => r.time,
            What::RejectedOpen(r) => r.time,
            What::MixedAccess(m) => m.time,
        }
    }

    /// The cause's id, reason and remedy; None if no rule explains the finding.
    #[must_use]
    pub fn cause(&self) -> Option<(&'static str, &str, &str)> {
        match &self.what {
            What::Request(r) => match (r.cause, &r.why, &r.fix) {
                (Some(cause), Some(why), Some(fix)) => Some((cause, why, fix)),
                _ => None,
            },
            What::RejectedOpen(r) => Some((r.cause, &r.why, &r.fix)),
            What::MixedAccess(m) => Some((m.cause, &m.why, &m.fix)),
        }
    }

    /// True if the finding belongs to the row `name` of the grouping `by`.
    #[must_use]
    fn is_of(&self, by: By, name: &str) -> bool {
        match by {
            By::Process => {
                let (comm, pid) = self.process();
                name.rsplit_once('/').is_some_and(|(of, id)| of == comm && id == pid.to_string())
            }
            By::File => self.path() == name,
            By::Fs => self.fs() == name,
            By::Cause => self.cause().is_some_and(|(cause, ..)| cause == name),
            By::Verdict => match &self.what {
                What::Request(r) => r.verdict.as_str() == name,
                What::RejectedOpen(_) => name == Verdict::Refused.as_str(),
                What::MixedAccess(_) => false,
            },
            By::Container => self.place.container == name,
            By::Pod => self.place.pod == name,
            By::Thread | By::Namespace | By::Volume | By::Stack | By::Time => false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Request(FindingKey),
    /// A side event: process, path, and the call or access.
    Beside(u32, Arc<str>, &'static str),
}

/// All kinds of findings that were seen, up to [`MAX_FINDINGS`].
#[derive(Default)]
pub struct Findings {
    kinds: HashMap<Key, Finding>,
    turn: u64,
    /// Number of kinds dropped for lack of room.
    pub evicted: u64,
}

impl Findings {
    pub fn request(&mut self, record: &ExplainedRequest) {
        self.add(Key::Request(record.kind()), || What::Request(Box::new(record.clone())), 1);
    }

    pub fn rejected_open(&mut self, row: &RejectedOpenRow) {
        let key = Key::Beside(row.user.pid, row.user.path.clone(), row.call);
        self.add(key, || What::RejectedOpen(Box::new(row.clone())), 1);
    }

    pub fn mixed_access(&mut self, mixing: &MixedAccess) {
        let word = if mixing.writes { "writes" } else { "reads" };
        let key = Key::Beside(mixing.pid, mixing.path.clone(), word);
        self.add(key, || What::MixedAccess(Box::new(mixing.clone())), 1);
    }

    fn add(&mut self, key: Key, what: impl FnOnce() -> What, times: u64) {
        self.turn += 1;
        let turn = self.turn;
        if let Some(known) = self.kinds.get_mut(&key) {
            (known.times, known.what, known.turn) = (known.times + times, what(), turn);
            known.occurred = true;
            return;
        }
        if self.kinds.len() >= MAX_FINDINGS {
            self.evict();
        }
        let place = Place::default();
        self.kinds.insert(key, Finding { times, what: what(), turn, place, occurred: true });
    }

    /// Drops the oldest quarter at once, because finding the oldest scans all kinds.
    fn evict(&mut self) {
        let mut turns: Vec<u64> = self.kinds.values().map(|finding| finding.turn).collect();
        turns.sort_unstable();
        let limit = turns[turns.len() / 4];
        let before = self.kinds.len();
        self.kinds.retain(|_, finding| finding.turn >= limit);
        self.evicted += (before - self.kinds.len()) as u64;
    }

    /// Looks up where the processes run whose findings occurred since the last time: of others
    /// nothing new can be asked. A container may have got its name meanwhile.
    pub fn locate(&mut self, enricher: &mut Enricher) {
        for finding in self.kinds.values_mut().filter(|finding| finding.occurred) {
            finding.occurred = false;
            let (_, pid) = finding.process();
            finding.place = Place { container: container(pid, enricher), pod: pod(pid, enricher) };
        }
    }

    /// Adds the findings that came during a pause.
    pub fn join(&mut self, later: Self) {
        let mut kinds: Vec<_> = later.kinds.into_iter().collect();
        kinds.sort_by_key(|(_, finding)| finding.turn);
        for (key, Finding { times, what, .. }) in kinds {
            self.add(key, || what, times);
        }
        self.evicted += later.evicted;
    }

    /// The findings of a row, the latest first.
    #[must_use]
    pub fn of(&self, by: By, name: &str) -> Vec<&Finding> {
        let mut found: Vec<&Finding> =
            self.kinds.values().filter(|finding| finding.is_of(by, name)).collect();
        found.sort_by_key(|finding| std::cmp::Reverse(finding.turn));
        found
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.kinds.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::golden::run;

    #[test]
    fn alike_findings_are_folded_and_found_by_every_grouping() {
        let (records, _) = run();
        let mut findings = Findings::default();
        for record in records.iter().filter(|r| r.finding).chain(&records[1..2]) {
            findings.request(record);
        }
        let record = &records[1];
        let process = format!("{}/{}", record.comm, record.pid);
        assert_eq!(findings.of(By::Process, &process).len(), findings.len());
        let of_file = findings.of(By::File, &record.path);
        assert_eq!((of_file.len(), of_file[0].times), (1, 2));
        assert_eq!(findings.of(By::Process, &process)[0].path(), &*record.path);
        assert_eq!(findings.of(By::Cause, "data-journal")[0].path(), &*record.path);
        assert_eq!(findings.of(By::Fs, "btrfs").len(), 1);
        assert_eq!(findings.of(By::Verdict, "refused").len(), 1);
        assert!(findings.of(By::Process, "postgres/4").is_empty());
    }

    #[test]
    fn many_kinds_drop_the_oldest() {
        let mut record = run().0[1].clone();
        let mut findings = Findings::default();
        for ino in 0..MAX_FINDINGS as u64 + 1 {
            record.file.ino = ino;
            record.path = format!("/data/{ino}").into();
            findings.request(&record);
        }
        assert_eq!(findings.len() as u64 + findings.evicted, MAX_FINDINGS as u64 + 1);
        assert!(findings.len() <= MAX_FINDINGS && findings.evicted > 0);
        assert!(findings.of(By::File, "/data/0").is_empty());
        assert_eq!(findings.of(By::File, &format!("/data/{MAX_FINDINGS}")).len(), 1);
    }
}
