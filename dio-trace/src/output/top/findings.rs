//! The last findings, folded: of each kind the last one and how often it came.

use std::collections::HashMap;

use crate::flow::{
    explained::{ExplainedRequest, FindingKey},
    group::By,
    side_events::{MixedAccess, RejectedOpenRow},
};

/// Kinds kept; those not seen for longest go first.
pub const MAX_FINDINGS: usize = 1_024;

/// A finding: a request, or something beside requests.
#[derive(Clone, Debug)]
pub enum What {
    Request(Box<ExplainedRequest>),
    Refusal(Box<RejectedOpenRow>),
    MixedAccess(Box<MixedAccess>),
}

/// The last of its kind.
#[derive(Clone, Debug)]
pub struct Finding {
    pub times: u64,
    pub what: What,
    /// The larger, the later it came.
    pub turn: u64,
}

impl Finding {
    #[must_use]
    pub fn process(&self) -> (&str, u32) {
        match &self.what {
            What::Request(r) => (&r.comm, r.pid),
            What::Refusal(r) => (&r.comm, r.pid),
            What::MixedAccess(m) => (&m.comm, m.pid),
        }
    }

    #[must_use]
    pub fn path(&self) -> &str {
        match &self.what {
            What::Request(r) => &r.path,
            What::Refusal(r) => &r.path,
            What::MixedAccess(m) => &m.path,
        }
    }

    #[must_use]
    pub fn fs(&self) -> &str {
        match &self.what {
            What::Request(r) => &r.fs,
            What::Refusal(r) => &r.fs,
            What::MixedAccess(m) => &m.fs,
        }
    }

    /// When it came last: ns since the epoch.
    #[must_use]
    pub fn time(&self) -> u64 {
        match &self.what {
            What::Request(r) => r.time,
            What::Refusal(r) => r.time,
            What::MixedAccess(m) => m.time,
        }
    }

    /// Id, why and what to do; none if nothing explains it.
    #[must_use]
    pub fn cause(&self) -> Option<(&'static str, &str, &str)> {
        match &self.what {
            What::Request(r) => match (r.cause, &r.why, &r.fix) {
                (Some(cause), Some(why), Some(fix)) => Some((cause, why, fix)),
                _ => None,
            },
            What::Refusal(r) => Some((r.cause, &r.why, &r.fix)),
            What::MixedAccess(m) => Some((m.cause, &m.why, &m.fix)),
        }
    }

    /// True if it is counted in the row of that name.
    #[must_use]
    pub fn is_of(&self, by: By, name: &str) -> bool {
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
                What::Refusal(_) => name == "refused",
                What::MixedAccess(_) => false,
            },
            By::Stack | By::Time => false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Request(FindingKey),
    /// Process, file and word.
    Beside(u32, String, &'static str),
}

/// All kinds that were met.
#[derive(Default)]
pub struct Findings {
    kinds: HashMap<Key, Finding>,
    turn: u64,
    /// Kinds that had to go.
    pub evicted: u64,
}

impl Findings {
    pub fn request(&mut self, record: &ExplainedRequest) {
        self.add(Key::Request(record.kind()), || What::Request(Box::new(record.clone())), 1);
    }

    pub fn rejected_open(&mut self, row: &RejectedOpenRow) {
        let key = Key::Beside(row.pid, row.path.clone(), row.call);
        self.add(key, || What::Refusal(Box::new(row.clone())), 1);
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
            *known = Finding { times: known.times + times, what: what(), turn };
            return;
        }
        if self.kinds.len() >= MAX_FINDINGS {
            self.evict();
        }
        self.kinds.insert(key, Finding { times, what: what(), turn });
    }

    /// A quarter at once: looking for the oldest costs a look at all.
    fn evict(&mut self) {
        let mut turns: Vec<u64> = self.kinds.values().map(|finding| finding.turn).collect();
        turns.sort_unstable();
        let limit = turns[turns.len() / 4];
        let before = self.kinds.len();
        self.kinds.retain(|_, finding| finding.turn >= limit);
        self.evicted += (before - self.kinds.len()) as u64;
    }

    /// Adds what came meanwhile.
    pub fn join(&mut self, later: Self) {
        let mut kinds: Vec<_> = later.kinds.into_iter().collect();
        kinds.sort_by_key(|(_, finding)| finding.turn);
        for (key, Finding { times, what, .. }) in kinds {
            self.add(key, || what, times);
        }
        self.evicted += later.evicted;
    }

    /// Those of a row, the latest first.
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
        assert_eq!(findings.of(By::Process, &process)[0].path(), record.path);
        assert_eq!(findings.of(By::Cause, "data-journal")[0].path(), record.path);
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
            record.path = format!("/data/{ino}");
            findings.request(&record);
        }
        assert_eq!(findings.len() as u64 + findings.evicted, MAX_FINDINGS as u64 + 1);
        assert!(findings.len() <= MAX_FINDINGS && findings.evicted > 0);
        assert!(findings.of(By::File, "/data/0").is_empty());
        assert_eq!(findings.of(By::File, &format!("/data/{MAX_FINDINGS}")).len(), 1);
    }
}
