//! The model of the live screen: its state, and how commands change it.

use std::collections::HashMap;

use dio_trace_common::abi::{Counter, CounterKey};

use crate::{
    enrich::Enricher,
    flow::{
        bytes::Bytes,
        explained::ExplainedRequest,
        group::{By, Group, groups},
        side_events::{MixedAccess, RejectedOpenRow},
        summary::{LOSSES, Sums},
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

/// Maximum number of characters of the filter text.
const MAX_TEXT: usize = 64;

/// The groupings of the live screen, in the order of their number keys.
pub struct Bys;

impl Bys {
    pub const ALL: [By; 7] =
        [By::Process, By::File, By::Fs, By::Cause, By::Verdict, By::Container, By::Pod];
    /// Those whose rows are sums of counters.
    const COUNTED: [By; 6] = [By::Process, By::File, By::Fs, By::Verdict, By::Container, By::Pod];

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
            By::Thread => "thread",
            By::Container => "container",
            By::Pod => "pod",
            By::Namespace => "namespace",
            By::Volume => "volume",
        }
    }
}

/// What does not change during a run.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Whose requests are traced, in words.
    pub subject: String,
    /// Seconds between two updates.
    pub interval: f64,
    /// The number of probes, how they are attached, and the kernel.
    pub probes: String,
    /// Missing probes, with reasons.
    pub missing: Vec<String>,
    /// The zone of all times.
    pub shown: Shown,
}

/// Sums over all requests.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Requests of the last interval.
    pub requests: u64,
    /// Findings of the last interval.
    pub findings: u64,
    /// Bytes of the last interval.
    pub bytes: Bytes,
    /// Sums since the start.
    pub all: Sums,
    /// Losses since the start.
    pub lost: u64,
    /// Requests in flight now.
    pub in_flight: u64,
}

/// Sums over the rows that a filter text leaves.
#[derive(Clone, Debug, Default)]
pub struct Filtered {
    /// Requests of the last interval.
    pub requests: u64,
    /// Findings of the last interval.
    pub findings: u64,
    /// Bytes of the last interval.
    pub bytes: Bytes,
    /// Requests since the start.
    pub all_requests: u64,
    /// Findings since the start.
    pub all_findings: u64,
}

/// The page that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    Rows,
    /// The findings of the selected row.
    Findings,
}

/// What the program must do after a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Stay,
    Quit,
    Suspend,
    Redraw,
}

/// The state of the live screen.
pub struct Model {
    pub about: About,
    pub status: Status,
    pub page: Page,
    pub help: bool,
    pub by: By,
    pub sort: Sort,
    pub reversed: bool,
    /// The filter text: only rows whose name contains it are shown.
    pub text: String,
    /// True while keys go into the filter text.
    pub typing: bool,
    /// True once the counters were read; until then the numbers are unknown.
    pub counted: bool,
    /// Length of the last interval in seconds.
    seconds: f64,
    rates: Rates,
    tables: HashMap<By, Table>,
    /// Findings by cause in the current interval, as counters have no cause.
    causes: HashMap<&'static str, Group>,
    findings: Findings,
    /// Findings since the pause began; None if not paused.
    waiting: Option<Findings>,
    /// Name of the selected row, so that the selection moves with the row.
    selected: Option<String>,
    /// Index of the chosen finding.
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

    /// Takes what was counted before the first interval. The time that took is unknown, so it gets
    /// rows and sums but no rates.
    pub fn begin(&mut self, totals: &Totals, enricher: &mut Enricher) {
        let before = self.rates.since(&totals.counters);
        self.findings.locate(enricher);
        for by in Bys::COUNTED {
            self.tables.entry(by).or_default().begin(groups(&before, by, enricher));
        }
        self.name_processes(enricher);
        let causes = self.take_causes();
        self.tables.entry(By::Cause).or_default().begin(causes);
        self.status = status(totals, &[]);
        self.counted = true;
    }

    /// Takes the totals at the end of an interval of `seconds`. Does nothing during a pause: the
    /// interval then goes on.
    ///
    /// Returns true if the totals were taken.
    pub fn poll(&mut self, totals: &Totals, seconds: f64, enricher: &mut Enricher) -> bool {
        if self.paused() {
            return false;
        }
        self.seconds = seconds;
        let changed = self.rates.since(&totals.counters);
        self.findings.locate(enricher);
        for by in Bys::COUNTED {
            self.tables.entry(by).or_default().poll(groups(&changed, by, enricher));
        }
        self.name_processes(enricher);
        let causes = self.take_causes();
        self.tables.entry(By::Cause).or_default().poll(causes);
        self.status = status(totals, &changed);
        self.counted = true;
        true
    }

    /// Gives the rows of processes their titles.
    fn name_processes(&mut self, enricher: &mut Enricher) {
        let title = |name: &str| enricher.title(name.rsplit_once('/')?.1.parse().ok()?);
        self.tables.entry(By::Process).or_default().entitle(title);
    }

    /// Takes the findings by cause of the interval.
    fn take_causes(&mut self) -> Vec<Group> {
        let named = |(cause, mut group): (&'static str, Group)| {
            cause.clone_into(&mut group.name);
            group.measure();
            group
        };
        std::mem::take(&mut self.causes).into_iter().map(named).collect()
    }

    /// Takes a request; ignores it if it is not a finding.
    pub fn record(&mut self, record: &ExplainedRequest) {
        if !record.finding {
            return;
        }
        let cause = record.cause.unwrap_or("not-explained");
        self.causes.entry(cause).or_default().count(record);
        self.current().request(record);
    }

    pub fn rejected_open(&mut self, row: &RejectedOpenRow) {
        self.count_side_event(row.cause);
        self.current().rejected_open(row);
    }

    pub fn mixed_access(&mut self, mixing: &MixedAccess) {
        self.count_side_event(mixing.cause);
        self.current().mixed_access(mixing);
    }

    /// Counts a side event, which has no bytes and no latency.
    fn count_side_event(&mut self, cause: &'static str) {
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

    /// `count` of the last interval as a rate per second.
    #[must_use]
    pub fn per_second(&self, count: u64) -> f64 {
        if self.seconds > 0.0 { count as f64 / self.seconds } else { 0.0 }
    }

    /// The rows of the current grouping that match the filter text.
    #[must_use]
    pub fn rows(&self) -> Vec<&Row> {
        let table = self.tables.get(&self.by);
        table.map(|table| table.rows(&self.text, self.sort, self.reversed)).unwrap_or_default()
    }

    /// Sums over the rows that match the filter text; None without one.
    #[must_use]
    pub fn filtered(&self) -> Option<Filtered> {
        if self.text.is_empty() {
            return None;
        }
        let mut sums = Filtered::default();
        for row in self.rows() {
            sums.requests += row.last.requests;
            sums.findings += row.last.findings;
            sums.bytes.merge(&row.last.bytes);
            sums.all_requests += row.requests;
            sums.all_findings += row.findings;
        }
        Some(sums)
    }

    /// Number of rows of the current grouping, and of rows dropped for lack of room.
    #[must_use]
    pub fn kept(&self) -> (usize, u64) {
        self.tables.get(&self.by).map_or((0, 0), |table| (table.len(), table.evicted))
    }

    /// Number of kinds of findings dropped for lack of room.
    #[must_use]
    pub const fn forgotten(&self) -> u64 {
        self.findings.evicted
    }

    /// Index of the selected row in `rows`; the first if the selection is not among them.
    #[must_use]
    pub fn selected(&self, rows: &[&Row]) -> Option<usize> {
        let chosen = self.selected.as_deref();
        let place = rows.iter().position(|row| Some(row.last.name.as_str()) == chosen);
        place.or(if rows.is_empty() { None } else { Some(0) })
    }

    /// Name of the row whose findings are shown.
    #[must_use]
    pub fn subject(&self) -> &str {
        self.selected.as_deref().unwrap_or_default()
    }

    /// The findings of the selected row, the latest first.
    #[must_use]
    pub fn found(&self) -> Vec<&Finding> {
        self.found_of(self.subject())
    }

    /// The findings of the row `name`, the latest first.
    #[must_use]
    pub fn found_of(&self, name: &str) -> Vec<&Finding> {
        self.findings.of(self.by, name)
    }

    /// Index of the chosen finding among `found` findings.
    #[must_use]
    pub fn chosen(&self, found: usize) -> usize {
        self.chosen.min(found.saturating_sub(1))
    }

    /// Executes a command.
    pub fn obey(&mut self, command: Command) -> Step {
        match command {
            Command::Quit => return Step::Quit,
            Command::Suspend => return Step::Suspend,
            Command::Redraw => return Step::Redraw,
            Command::Help => self.help = !self.help,
            Command::Back => self.back(),
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

    fn back(&mut self) {
        if self.help {
            self.help = false;
        } else if self.typing || (self.page == Page::Rows && !self.text.is_empty()) {
            self.typing = false;
            self.text.clear();
        } else {
            self.page = Page::Rows;
        }
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

    /// A model that has taken the requests of the golden run.
    fn recorded(by: By) -> (Model, Vec<ExplainedRequest>) {
        let mut model = Model::new(About::default(), by);
        let (records, _) = run();
        records.iter().for_each(|record| model.record(record));
        (model, records)
    }

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
    fn counts_before_the_first_interval_have_rows_and_no_rate() {
        let (mut model, _) = recorded(By::Fs);
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
            for by in Bys::COUNTED {
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
    fn a_container_has_the_findings_of_its_processes() {
        let (mut model, records) = recorded(By::Pod);
        let (totals, mut enricher) = named();
        model.begin(&totals, &mut enricher);
        let of = |pid: u32| records.iter().filter(|r| r.finding && r.pid == pid).count();
        for (by, row) in [(By::Pod, "prod/db-0"), (By::Container, "prod/db-0/postgres")] {
            model.by = by;
            assert!(model.rows().iter().any(|known| known.last.name == row), "{row}");
            assert_eq!(model.found_of(row).len(), of(42), "{row}");
            assert_eq!(of(42), model.findings.len(), "all are of that process");
            assert!(model.found_of("(none)").is_empty());
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
    fn healthy_requests_are_not_findings() {
        let mut model = Model::new(About::default(), By::Verdict);
        let (records, _) = run();
        let healthy = records.iter().filter(|record| !record.finding);
        healthy.for_each(|record| model.record(record));
        assert!(model.found_of("direct").is_empty());
    }
}
