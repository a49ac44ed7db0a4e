//! A table of the live screen: rows by name, with the last interval and a history of intervals.

use std::{
    cmp::{Ordering, Reverse},
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use crate::flow::group::Group;

/// Maximum number of rows of a table; those idle longest are dropped first.
pub const MAX_ROWS: usize = 1_024;
/// Number of intervals in a row's history. A row without findings is dropped after this many idle
/// intervals.
pub const HISTORY: usize = 60;

/// The row of a process, file, file system, verdict or cause.
#[derive(Clone, Debug)]
pub struct Row {
    /// Sums of the last interval.
    pub last: Group,
    /// Requests since the start.
    pub requests: u64,
    /// Findings since the start.
    pub findings: u64,
    /// Requests per interval, oldest first.
    pub history: VecDeque<u64>,
    /// Number of intervals since the last request.
    pub idle: u64,
    /// Title of the process; None if the row is of something else, or it says no more than the name.
    pub title: Option<Arc<str>>,
}

impl Row {
    fn new(name: String) -> Self {
        let last = Group::of(name, 0, 0);
        let history = VecDeque::with_capacity(HISTORY);
        Self { last, requests: 0, findings: 0, history, idle: 0, title: None }
    }

    fn take(&mut self, group: Group) {
        self.requests += group.requests;
        self.findings += group.findings;
        self.idle = 0;
        self.remember(group.requests);
        self.last = group;
    }

    /// A row for what was counted before the first interval: it has sums, but no rates.
    fn before(group: Group) -> Self {
        let (requests, findings) = (group.requests, group.findings);
        Self { requests, findings, ..Self::new(group.name) }
    }

    fn rest(&mut self) {
        let name = std::mem::take(&mut self.last.name);
        self.last = Group::of(name, 0, 0);
        self.idle += 1;
        self.remember(0);
    }

    fn remember(&mut self, requests: u64) {
        if self.history.len() >= HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(requests);
    }
}

/// The sort order of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    Findings,
    Requests,
    Bytes,
    /// The smallest direct share first.
    Direct,
    P50,
    P99,
    Name,
}

impl Sort {
    /// All orders, in the order of the columns.
    pub const ALL: [Self; 7] = [
        Self::Requests,
        Self::Bytes,
        Self::Direct,
        Self::Findings,
        Self::P50,
        Self::P99,
        Self::Name,
    ];

    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Findings => "findings",
            Self::Requests => "requests",
            Self::Bytes => "bytes",
            Self::Direct => "least direct",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::Name => "name",
        }
    }

    /// The order of the column `by` places further.
    #[must_use]
    pub fn step(self, by: isize) -> Self {
        let at = Self::ALL.iter().position(|sort| *sort == self).unwrap_or(0);
        Self::ALL[at.saturating_add_signed(by + Self::ALL.len() as isize) % Self::ALL.len()]
    }

    /// Compares two rows. The caller breaks ties by totals since the start, so that rows keep their
    /// places.
    fn order(self, a: &Row, b: &Row) -> Ordering {
        let (x, y) = (&a.last, &b.last);
        match self {
            Self::Findings => {
                (y.findings, b.findings, y.requests).cmp(&(x.findings, a.findings, x.requests))
            }
            Self::Requests => y.requests.cmp(&x.requests),
            Self::Bytes => y.bytes.total.cmp(&x.bytes.total),
            Self::Direct => {
                // A row that moved no bytes has no share, and sorts last.
                let share = |row: &Group| row.bytes.direct_share().unwrap_or(f64::INFINITY);
                share(x).total_cmp(&share(y))
            }
            Self::P50 => y.latency_p50_ns.cmp(&x.latency_p50_ns),
            Self::P99 => y.latency_p99_ns.cmp(&x.latency_p99_ns),
            Self::Name => Ordering::Equal,
        }
    }
}

/// The rows of one grouping.
#[derive(Default)]
pub struct Table {
    rows: HashMap<String, Row>,
    /// Number of rows dropped for lack of room.
    pub evicted: u64,
}

impl Table {
    /// Takes what was counted before the first interval.
    pub fn begin(&mut self, groups: Vec<Group>) {
        let row = |group: Group| (group.name.clone(), Row::before(group));
        self.rows.extend(groups.into_iter().map(row));
        self.evict();
    }

    /// Takes the sums of an interval that ended.
    pub fn poll(&mut self, groups: Vec<Group>) {
        let mut came: HashMap<String, Group> =
            groups.into_iter().map(|group| (group.name.clone(), group)).collect();
        for (name, row) in &mut self.rows {
            match came.remove(name) {
                Some(group) => row.take(group),
                None => row.rest(),
            }
        }
        // Drops rows that have been idle for long, but keeps those with findings.
        self.rows.retain(|_, row| row.idle < HISTORY as u64 || row.findings != 0);
        for (name, group) in came {
            let mut row = Row::new(name.clone());
            row.take(group);
            self.rows.insert(name, row);
        }
        self.evict();
    }

    /// Asks for the titles of the rows of the last interval that have none.
    pub fn entitle(&mut self, mut title: impl FnMut(&str) -> Option<Arc<str>>) {
        for (name, row) in &mut self.rows {
            if row.title.is_none() && row.idle == 0 {
                row.title = title(name);
            }
        }
    }

    /// Drops the rows idle longest; among equals, those with fewest findings, then fewest requests.
    fn evict(&mut self) {
        if self.rows.len() <= MAX_ROWS {
            return;
        }
        let mut order: Vec<_> = self
            .rows
            .iter()
            .map(|(name, row)| (row.idle, Reverse((row.findings, row.requests)), name.clone()))
            .collect();
        order.sort();
        for (.., name) in order.drain(MAX_ROWS..) {
            self.rows.remove(&name);
            self.evicted += 1;
        }
    }

    /// The number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows whose name or title contains `text`, ignoring case, in sort order.
    #[must_use]
    pub fn rows(&self, text: &str, sort: Sort, reversed: bool) -> Vec<&Row> {
        let text = text.to_lowercase();
        let has = |name: &str| name.to_lowercase().contains(&text);
        let fits = |row: &&Row| has(&row.last.name) || row.title.as_deref().is_some_and(has);
        let mut rows: Vec<&Row> = self.rows.values().filter(fits).collect();
        rows.sort_by(|a, b| {
            let order = sort.order(a, b);
            let rest = (b.requests, &a.last.name).cmp(&(a.requests, &b.last.name));
            let rest = if sort == Sort::Name { a.last.name.cmp(&b.last.name) } else { rest };
            if reversed { order.then(rest).reverse() } else { order.then(rest) }
        });
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::bytes::Bytes;

    fn group(name: &str, requests: u64, findings: u64) -> Group {
        Group::of(name.to_owned(), requests, findings)
    }

    fn names(table: &Table, text: &str, sort: Sort, reversed: bool) -> Vec<String> {
        table.rows(text, sort, reversed).iter().map(|row| row.last.name.clone()).collect()
    }

    #[test]
    fn rows_keep_a_history_and_become_idle() {
        let mut table = Table::default();
        table.poll(vec![group("a", 5, 1)]);
        table.poll(vec![]);
        table.poll(vec![group("a", 2, 0), group("b", 9, 0)]);
        let rows = table.rows("", Sort::Name, false);
        assert_eq!(rows[0].history, [5, 0, 2]);
        assert_eq!((rows[0].requests, rows[0].findings, rows[0].last.requests), (7, 1, 2));
        assert_eq!(rows[1].history, [9]);
        for _ in 0..HISTORY * 2 {
            table.poll(vec![]);
        }
        let rows = table.rows("", Sort::Name, false);
        assert_eq!((rows.len(), rows[0].last.name.as_str()), (1, "a"), "b had no finding");
        assert_eq!((rows[0].history.len(), rows[0].idle), (HISTORY, HISTORY as u64 * 2));
        assert_eq!((rows[0].last.requests, rows[0].requests), (0, 7));
    }

    #[test]
    fn every_column_sorts_both_ways_and_text_filters() {
        let mut table = Table::default();
        let moved = |name: &str, requests, direct, cached| {
            let mut group = group(name, requests, 0);
            group.bytes = Bytes { total: direct + cached, direct, cached };
            group
        };
        table.poll(vec![
            moved("mysqld/7", 10, 100, 0),
            moved("Postgres/8", 3, 10, 990),
            group("postgres/9", 1, 1),
        ]);
        let (my, pg, pg9) = ("mysqld/7", "Postgres/8", "postgres/9");
        assert_eq!(names(&table, "", Sort::Requests, false), [my, pg, pg9]);
        assert_eq!(names(&table, "", Sort::Requests, true), [pg9, pg, my]);
        assert_eq!(names(&table, "", Sort::Findings, false), [pg9, my, pg]);
        assert_eq!(names(&table, "", Sort::Bytes, false), [pg, my, pg9]);
        assert_eq!(names(&table, "", Sort::Direct, false), [pg, my, pg9]);
        assert_eq!(names(&table, "", Sort::Name, false), [pg, my, pg9]);
        assert_eq!(names(&table, "POST", Sort::Name, false), [pg, pg9]);
        assert!(names(&table, "nobody", Sort::Name, false).is_empty());
        assert_eq!((Sort::Requests.step(-1), Sort::Name.step(1)), (Sort::Name, Sort::Requests));
    }

    #[test]
    fn a_full_table_drops_what_is_longest_idle() {
        let mut table = Table::default();
        table.poll(vec![group("quiet", 1, 0)]);
        table.poll((0..MAX_ROWS as u64).map(|n| group(&format!("f{n:05}"), 1 + n, 0)).collect());
        assert_eq!((table.len(), table.evicted), (MAX_ROWS, 1));
        assert!(names(&table, "quiet", Sort::Name, false).is_empty());
        table.poll(vec![group("new", 1, 1)]);
        assert_eq!((table.len(), table.evicted), (MAX_ROWS, 2));
        assert!(names(&table, "f00000", Sort::Name, false).is_empty());
        assert_eq!(names(&table, "new", Sort::Name, false), ["new"]);
    }
}
