//! What is shown, and what keys do to it.

use std::collections::HashMap;

use dio_trace_common::abi::{Counter, CounterKey};

use crate::{
    enrich::Enricher,
    flow::{
        explained::ExplainedRequest,
        group::{By, Group, groups},
        side_events::{MixedAccess, RejectedOpenRow},
        summary::{Bytes, LOSSES, Sums},
    },
    model::Totals,
    output::top::{
        findings::{Finding, Findings},
        keys::Command,
        rates::Rates,
        table::{Row, Sort, Table},
    },
    util::clock::Shown,
};

/// Characters of a text to filter by.
const MAX_TEXT: usize = 64;

/// The groupings, in the order of their numbers.
pub struct Bys;

impl Bys {
    pub const ALL: [By; 5] = [By::Process, By::File, By::Fs, By::Cause, By::Verdict];

    #[must_use]
    pub const fn word(by: By) -> &'static str {
        match by {
            By::Process => "process",
            By::File => "file",
            By::Fs => "fs",
            By::Cause => "cause",
            By::Verdict => "verdict",
            By::Stack => "stack",
            By::Time => "time",
        }
    }
}

/// What does not change while it runs.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Whose requests.
    pub subject: String,
    /// Seconds between two looks.
    pub interval: f64,
    /// Which probes, on which kernel.
    pub probes: String,
    /// What is not seen, and why.
    pub missing: Vec<String>,
    /// The zone of all times.
    pub shown: Shown,
}

/// Sums over everything.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// In the last interval.
    pub requests: u64,
    pub findings: u64,
    pub bytes: Bytes,
    /// Since the start.
    pub all: Sums,
    pub lost: u64,
    /// Now.
    pub in_flight: u64,
}

/// What the screen is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    Rows,
    /// The findings of the selected row.
    Findings,
}

/// What a command asks of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Stay,
    Quit,
    Suspend,
    Redraw,
}

/// All of it.
pub struct Model {
    pub about: About,
    pub status: Status,
    pub page: Page,
    pub help: bool,
    pub by: By,
    pub sort: Sort,
    pub reversed: bool,
    /// Rows are shown whose name has it.
    pub text: String,
    /// Keys go into the text.
    pub typing: bool,
    /// The counters were read at least once: until then nobody knows.
    pub counted: bool,
    /// Length of the last interval in seconds.
    seconds: f64,
    rates: Rates,
    tables: HashMap<By, Table>,
    /// Findings by cause since the last look: no counter has their cause.
    causes: HashMap<&'static str, Group>,
    findings: Findings,
    /// What came since the pause began.
    waiting: Option<Findings>,
    /// The row that a person chose, by name: it moves with its row.
    selected: Option<String>,
    /// The finding, by its place.
    chosen: usize,
}

impl Model {
    #[must_use]
    pub fn new(about: About, by: By) -> Self {
        Self {
            about,
            status: Status::default(),
            page: Page::Rows,
            help: false,
            by,
            sort: Sort::Findings,
            reversed: false,
            text: String::new(),
            typing: false,
            counted: false,
            seconds: 0.0,
            rates: Rates::default(),
            tables: HashMap::new(),
            causes: HashMap::new(),
            findings: Findings::default(),
            waiting: None,
            selected: None,
            chosen: 0,
        }
    }

    /// What was counted before the first interval: it came in no known time, so that it has rows
    /// and sums, and no rate.
    pub fn begin(&mut self, totals: &Totals, enricher: &mut Enricher) {
        let before = self.rates.since(&totals.counters);
        for by in [By::Process, By::File, By::Fs, By::Verdict] {
            self.tables.entry(by).or_default().begin(groups(&before, by, enricher));
        }
        let causes = self.take_causes();
        self.tables.entry(By::Cause).or_default().begin(causes);
        self.status = status(totals, &[]);
        self.counted = true;
    }

    /// An interval is over. While it is paused, the interval goes on.
    ///
    /// Returns whether the totals were taken.
    pub fn poll(&mut self, totals: &Totals, seconds: f64, enricher: &mut Enricher) -> bool {
        if self.paused() {
            return false;
        }
        self.seconds = seconds;
        let changed = self.rates.since(&totals.counters);
        for by in [By::Process, By::File, By::Fs, By::Verdict] {
            self.tables.entry(by).or_default().poll(groups(&changed, by, enricher));
        }
        let causes = self.take_causes();
        self.tables.entry(By::Cause).or_default().poll(causes);
        self.status = status(totals, &changed);
        self.counted = true;
        true
    }

    /// Findings by cause since the last look.
    fn take_causes(&mut self) -> Vec<Group> {
        let named = |(cause, mut group): (&'static str, Group)| {
            cause.clone_into(&mut group.name);
            group.measure();
            group
        };
        std::mem::take(&mut self.causes).into_iter().map(named).collect()
    }

    /// Takes a request that has a finding.
    pub fn record(&mut self, record: &ExplainedRequest) {
        if !record.finding {
            return;
        }
        let cause = record.cause.unwrap_or("not-explained");
        self.causes.entry(cause).or_default().count(record);
        self.current().request(record);
    }

    pub fn rejected_open(&mut self, row: &RejectedOpenRow) {
        self.count_beside(row.cause);
        self.current().rejected_open(row);
    }

    pub fn mixed_access(&mut self, mixing: &MixedAccess) {
        self.count_beside(mixing.cause);
        self.current().mixed_access(mixing);
    }

    /// No request, and so without bytes and latency.
    fn count_beside(&mut self, cause: &'static str) {
        self.causes.entry(cause).or_default().findings += 1;
    }

    const fn current(&mut self) -> &mut Findings {
        match &mut self.waiting {
            Some(waiting) => waiting,
            None => &mut self.findings,
        }
    }

    #[must_use]
    pub const fn paused(&self) -> bool {
        self.waiting.is_some()
    }

    /// So much in a second, of what came in the last interval.
    #[must_use]
    pub fn per_second(&self, count: u64) -> f64 {
        if self.seconds > 0.0 { count as f64 / self.seconds } else { 0.0 }
    }

    /// The rows of the current grouping that fit the text.
    #[must_use]
    pub fn rows(&self) -> Vec<&Row> {
        let table = self.tables.get(&self.by);
        table.map(|table| table.rows(&self.text, self.sort, self.reversed)).unwrap_or_default()
    }

    /// Rows there are, and rows that had to go.
    #[must_use]
    pub fn kept(&self) -> (usize, u64) {
        self.tables.get(&self.by).map_or((0, 0), |table| (table.len(), table.evicted))
    }

    /// Kinds of findings that had to go.
    #[must_use]
    pub const fn forgotten(&self) -> u64 {
        self.findings.evicted
    }

    /// The place of the selected row among these.
    #[must_use]
    pub fn selected(&self, rows: &[&Row]) -> Option<usize> {
        let chosen = self.selected.as_deref();
        let place = rows.iter().position(|row| Some(row.last.name.as_str()) == chosen);
        place.or(if rows.is_empty() { None } else { Some(0) })
    }

    /// Whose findings are shown.
    #[must_use]
    pub fn subject(&self) -> &str {
        self.selected.as_deref().unwrap_or_default()
    }

    /// The findings of the selected row, the latest first.
    #[must_use]
    pub fn found(&self) -> Vec<&Finding> {
        self.found_of(self.subject())
    }

    /// The same of another row.
    #[must_use]
    pub fn found_of(&self, name: &str) -> Vec<&Finding> {
        self.findings.of(self.by, name)
    }

    /// The place of the chosen finding among so many.
    #[must_use]
    pub fn chosen(&self, found: usize) -> usize {
        self.chosen.min(found.saturating_sub(1))
    }

    /// Does what a key asks for.
    pub fn obey(&mut self, command: Command) -> Step {
        match command {
            Command::Quit => return Step::Quit,
            Command::Suspend => return Step::Suspend,
            Command::Redraw => return Step::Redraw,
            Command::Help => self.help = !self.help,
            Command::Back => return self.back(),
            _ if self.help => self.help = false,
            Command::Pause => self.pause(),
            Command::StepBy(by) => self.step_by(by),
            Command::By(number) => self.group(Bys::ALL[number.min(Bys::ALL.len() - 1)]),
            Command::StepSort(by) => self.sort = self.sort.step(by),
            Command::Reverse => self.reversed = !self.reversed,
            Command::Move(by) => self.go(by),
            Command::First => self.go(isize::MIN),
            Command::Last => self.go(isize::MAX),
            Command::Enter if self.typing => self.typing = false,
            Command::Enter => self.enter(),
            Command::Filter => self.typing = self.page == Page::Rows,
            Command::Type(c) => self.write(c),
            Command::Rub if self.typing => {
                self.text.pop();
            }
            Command::Rub => self.page = Page::Rows,
        }
        Step::Stay
    }

    fn back(&mut self) -> Step {
        if self.help {
            self.help = false;
        } else if self.typing || (self.page == Page::Rows && !self.text.is_empty()) {
            self.typing = false;
            self.text.clear();
        } else if self.page == Page::Findings {
            self.page = Page::Rows;
        } else {
            return Step::Quit;
        }
        Step::Stay
    }

    fn pause(&mut self) {
        match self.waiting.take() {
            Some(waiting) => self.findings.join(waiting),
            None => self.waiting = Some(Findings::default()),
        }
    }

    fn step_by(&mut self, by: isize) {
        let all = Bys::ALL.len();
        let at = Bys::ALL.iter().position(|known| *known == self.by).unwrap_or(0);
        self.group(Bys::ALL[at.saturating_add_signed(by + all as isize) % all]);
    }

    fn group(&mut self, by: By) {
        if by != self.by {
            self.by = by;
            self.selected = None;
            self.text.clear();
        }
        self.page = Page::Rows;
    }

    fn write(&mut self, c: char) {
        if self.text.chars().count() < MAX_TEXT && !c.is_control() {
            self.text.push(c);
        }
    }

    fn go(&mut self, by: isize) {
        if self.page == Page::Findings {
            let found = self.found().len();
            self.chosen = moved(self.chosen(found), by, found);
            return;
        }
        let rows = self.rows();
        let Some(at) = self.selected(&rows) else { return };
        let name = rows[moved(at, by, rows.len())].last.name.clone();
        self.selected = Some(name);
    }

    fn enter(&mut self) {
        if self.page == Page::Findings {
            return;
        }
        let rows = self.rows();
        let Some(at) = self.selected(&rows) else { return };
        let name = rows[at].last.name.clone();
        (self.selected, self.chosen, self.page) = (Some(name), 0, Page::Findings);
    }
}

fn moved(at: usize, by: isize, len: usize) -> usize {
    at.saturating_add_signed(by).min(len.saturating_sub(1))
}

fn status(totals: &Totals, changed: &[(CounterKey, Counter)]) -> Status {
    let mut status = Status {
        lost: LOSSES.iter().map(|stat| totals.stat(*stat)).sum(),
        in_flight: totals.in_flight(),
        all: Sums::of(&totals.counters),
        ..Status::default()
    };
    let last = Sums::of(changed);
    (status.requests, status.findings, status.bytes) =
        (last.requests.values().sum(), last.findings, last.bytes);
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::golden::{named, run, top_model, totals};

    #[test]
    fn a_pause_holds_rows_and_findings_and_loses_nothing() {
        let mut model = top_model();
        let (mut totals, mut enricher) = (totals(), Enricher::recorded());
        model.obey(Command::By(3));
        let seen = |model: &Model| -> (u64, u64) {
            let rows = model.rows();
            let fallback = rows.iter().find(|row| row.last.name == "data-journal").unwrap();
            (fallback.findings, model.found_of("data-journal")[0].times)
        };
        assert_eq!(seen(&model), (1, 1));
        model.obey(Command::Pause);
        model.record(&run().0[1]);
        assert!(!model.poll(&totals, 1.0, &mut enricher));
        assert_eq!(seen(&model), (1, 1));
        model.obey(Command::Pause);
        for (_, counter) in &mut totals.counters {
            counter.requests += 1_000;
        }
        assert!(model.poll(&totals, 2.0, &mut enricher));
        assert_eq!(seen(&model), (2, 2));
        assert_eq!(model.per_second(model.status.requests), (1_001 - 301) as f64 * 10.0 / 2.0);
    }

    #[test]
    fn what_was_counted_before_the_first_look_has_rows_and_no_rate() {
        let mut model = Model::new(About::default(), By::Fs);
        let (records, _) = run();
        records.iter().for_each(|record| model.record(record));
        let (totals, mut enricher) = named();
        assert!(!model.counted);
        model.begin(&totals, &mut enricher);
        assert!(model.counted);
        for round in 0..2 {
            let of = |by: By, model: &mut Model| {
                model.by = by;
                let rows = model.rows();
                let sum = |of: fn(&Row) -> u64| rows.iter().map(|row| of(row)).sum::<u64>();
                assert!(rows.iter().all(|row| row.last.requests == 0 && row.last.findings == 0));
                assert!(rows.iter().all(|row| row.history.iter().all(|n| *n == 0)));
                (sum(|row| row.requests), sum(|row| row.findings))
            };
            for by in [By::Process, By::File, By::Fs, By::Verdict] {
                assert_eq!(of(by, &mut model), (10, 6), "{by:?} {round}");
            }
            assert_eq!(of(By::Cause, &mut model), (6, 6), "{round}");
            let status = &model.status;
            assert_eq!((status.requests, status.findings), (0, 0));
            assert_eq!((status.all.requests.values().sum::<u64>(), status.all.findings), (10, 6));
            assert_eq!((status.lost, status.in_flight), (4, 2));
            model.poll(&totals, 1.0, &mut enricher);
        }
    }

    #[test]
    fn nothing_counted_has_no_row_to_enter() {
        let mut model = Model::new(About::default(), By::Fs);
        let mut totals = totals();
        totals.counters.clear();
        model.begin(&totals, &mut Enricher::recorded());
        assert!(model.rows().is_empty());
        assert_eq!(model.obey(Command::Enter), Step::Stay);
        assert_eq!(model.page, Page::Rows);
    }

    #[test]
    fn healthy_requests_are_no_findings() {
        let mut model = Model::new(About::default(), By::Verdict);
        let (records, _) = run();
        let healthy = records.iter().filter(|record| !record.finding);
        healthy.for_each(|record| model.record(record));
        assert!(model.found_of("direct").is_empty());
    }
}
