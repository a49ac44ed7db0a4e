//! [`ByRecord`]: sums of requests by what counters do not have: cause, thread, stack or time.

use std::borrow::Cow;

use ahash::HashMap;

use crate::{
    flow::{
        explained::ExplainedRequest,
        group::{By, Group},
        timeline::{Slice, Timeline, join},
    },
    util::clock::Zone,
};

/// Most groups, and most bytes of their names; further ones are summed under [`OTHERS`].
const MAX_GROUPS: usize = 65_536;
const MAX_TEXT: usize = 16 << 20;
const OTHERS: &str = "(others)";
/// Most rows of a table by time.
const ROWS: usize = 24;

/// Sums the requests that a sink receives, which are only findings unless all were asked for.
#[derive(Default)]
pub struct ByRecord {
    by: Option<By>,
    groups: HashMap<Cow<'static, str>, Group>,
    text: usize,
    timeline: Timeline,
}

impl ByRecord {
    /// Sums by this; sums nothing if counters have it.
    #[must_use]
    pub fn new(by: Option<By>) -> Self {
        Self { by: by.filter(|by| by.is_of_records()), ..Self::default() }
    }

    /// True if requests without a finding are counted as well.
    #[must_use]
    pub fn wants_all(&self) -> bool {
        self.by == Some(By::Thread)
    }

    /// Counts a request.
    pub fn count(&mut self, record: &ExplainedRequest) {
        if self.by == Some(By::Time) {
            let ExplainedRequest { time, latency_ns, verdict, finding, .. } = *record;
            self.timeline.add(time, latency_ns, verdict, finding);
        }
        let Some(name) = self.name(record) else { return };
        if let Some(group) = self.groups.get_mut(&name) {
            return group.count(record);
        }
        let room = self.groups.len() < MAX_GROUPS && self.text < MAX_TEXT;
        let name = if room { name } else { Cow::Borrowed(OTHERS) };
        self.text += name.len();
        self.groups.entry(name).or_default().count(record);
    }

    fn name(&self, record: &ExplainedRequest) -> Option<Cow<'static, str>> {
        match self.by? {
            By::Cause if record.finding => record.cause.map(Cow::Borrowed),
            By::Stack if record.finding => {
                record.stack.as_ref().map(|stack| Cow::Owned(stack.folded()))
            }
            By::Thread => Some(Cow::Owned(thread(record))),
            _ => None,
        }
    }

    /// The groups, those with most findings first, or in the order of time.
    #[must_use]
    pub fn rows(self, zone: &Zone) -> Vec<Group> {
        if self.by == Some(By::Time) {
            return by_time(&[(self.timeline.start(), &self.timeline)], zone);
        }
        let named = |(name, mut row): (Cow<'static, str>, Group)| {
            row.name = name.into_owned();
            row.measure();
            row
        };
        let mut rows: Vec<Group> = self.groups.into_iter().map(named).collect();
        rows.sort_by(Group::order);
        rows
    }
}

/// `comm/pid thread/tid`; `comm/pid` for the main thread.
fn thread(record: &ExplainedRequest) -> String {
    let process = format!("{}/{}", record.comm, record.pid);
    match &record.thread {
        _ if record.tid == record.pid => process,
        Some(name) => format!("{process} {name}/{}", record.tid),
        None => format!("{process} {}", record.tid),
    }
}

/// Sums timelines, each of which comes with its start in ns since the epoch; returns one row per
/// slice of the time that they cover together.
#[must_use]
pub fn by_time(timelines: &[(u64, &Timeline)], zone: &Zone) -> Vec<Group> {
    let (start, width, slices) = join(timelines, ROWS);
    let row = |(i, slice): (usize, &Slice)| {
        let at = start.saturating_add(width.saturating_mul(i as u64));
        Group::of(zone.iso_fine(at), slice.requests, slice.findings)
    };
    slices.iter().enumerate().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::golden::run;

    fn names(by: By) -> Vec<(String, u64)> {
        let mut sums = ByRecord::new(Some(by));
        run().0.iter().for_each(|record| sums.count(record));
        let rows = sums.rows(&Zone::UTC);
        rows.into_iter().map(|row| (row.name, row.requests)).collect()
    }

    #[test]
    fn findings_have_causes_and_all_requests_threads_and_times() {
        let (records, _) = run();
        let findings = records.iter().filter(|record| record.finding).count() as u64;
        let sum = |rows: &[(String, u64)]| rows.iter().map(|(_, n)| n).sum::<u64>();
        assert_eq!(sum(&names(By::Cause)), findings);
        assert_eq!(names(By::Thread), [("postgres/42 43".to_owned(), 10)]);
        assert_eq!(sum(&names(By::Time)), 10);
        assert_eq!(names(By::Stack).len(), 1);
        assert!(names(By::File).is_empty(), "counters have files");
    }
}
