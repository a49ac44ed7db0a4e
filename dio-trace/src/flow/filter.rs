//! Filters that user space applies: by names (process, path, file system) and by verdict. All other
//! filters are applied in the kernel.

use std::collections::HashSet;

use dio_trace_common::{
    abi::{Counter, CounterKey, FileId, Stat},
    verdict::{Outcome, Verdict},
};
use glob::Pattern;

use crate::{
    enrich::Enricher,
    flow::{
        bytes::verdict,
        nowait,
        side_events::{MixedRow, RejectedOpenRow, SideEvents},
        summary::Summary,
        unasked,
    },
    model::Totals,
    system::container::Container,
};

/// A filter by names and verdicts. An empty list takes everything.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Process names.
    pub comms: Vec<String>,
    /// Path patterns; `*` also matches a slash, as in `find -path`.
    pub paths: Vec<Pattern>,
    /// File system types.
    pub fs: Vec<String>,
    /// Pods: NAME, or NAMESPACE/NAME.
    pub pods: Vec<String>,
    /// Namespaces of pods.
    pub namespaces: Vec<String>,
    pub verdicts: Vec<Verdict>,
    /// Requests with a short count are taken as well, whatever their verdict.
    pub short: bool,
    /// Ids of causes. Counters have no cause, so with these the requests are counted one by one.
    pub causes: Vec<&'static str>,
}

impl Filter {
    /// The filter that takes everything.
    pub const OPEN: Self = Self {
        comms: Vec::new(),
        paths: Vec::new(),
        fs: Vec::new(),
        pods: Vec::new(),
        namespaces: Vec::new(),
        verdicts: Vec::new(),
        short: false,
        causes: Vec::new(),
    };

    /// True if the filter takes everything.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.takes_names() && self.takes_decisions() && self.causes.is_empty()
    }

    /// True if the filter takes all names of processes, paths, file systems and pods.
    #[must_use]
    pub fn takes_names(&self) -> bool {
        self.comms.is_empty()
            && self.paths.is_empty()
            && self.fs.is_empty()
            && self.takes_containers()
    }

    /// True if the filter takes all containers.
    const fn takes_containers(&self) -> bool {
        self.pods.is_empty() && self.namespaces.is_empty()
    }

    /// True if the filter takes processes of this container.
    pub(crate) fn takes_container(&self, container: Option<&Container>) -> bool {
        if self.takes_containers() {
            return true;
        }
        let namespace = container.and_then(|container| container.namespace.as_deref());
        let pod = container.and_then(|container| container.pod.as_deref());
        let is_pod = |wanted: &String| match wanted.split_once('/') {
            Some((of, name)) => namespace == Some(of) && pod == Some(name),
            None => pod == Some(wanted),
        };
        let is_namespace = |wanted: &String| namespace == Some(wanted);
        (self.pods.is_empty() || self.pods.iter().any(is_pod))
            && (self.namespaces.is_empty() || self.namespaces.iter().any(is_namespace))
    }

    /// True if the filter takes these names. Side events have no verdict to filter by.
    #[must_use]
    pub fn takes_file(&self, comm: &str, path: &str, fs: &str) -> bool {
        self.takes_person(comm) && self.takes_place(path, fs)
    }

    /// True if the filter takes all verdicts and outcomes.
    #[must_use]
    pub fn takes_decisions(&self) -> bool {
        self.verdicts.is_empty() && !self.short
    }

    /// True if the filter takes a request that was decided so.
    pub(crate) fn takes_decision(&self, verdict: Verdict, outcome: Option<Outcome>) -> bool {
        self.takes_decisions()
            || self.verdicts.contains(&verdict)
            || self.short && outcome.is_some_and(Outcome::is_short)
    }

    /// True if the filter takes a rejected open.
    pub(crate) fn takes_rejected_open(&self, row: &RejectedOpenRow) -> bool {
        let user = &row.user;
        self.takes_file(&user.comm, &user.path, &user.fs) && self.takes_cause(Some(row.cause))
    }

    /// True if the filter takes a request or a side event with this cause.
    pub(crate) fn takes_cause(&self, cause: Option<&str>) -> bool {
        self.causes.is_empty() || cause.is_some_and(|cause| self.causes.contains(&cause))
    }

    pub(crate) fn takes_person(&self, comm: &str) -> bool {
        self.comms.is_empty() || self.comms.iter().any(|name| name == comm)
    }

    pub(crate) fn takes_place(&self, path: &str, fs: &str) -> bool {
        (self.fs.is_empty() || self.fs.iter().any(|name| name == fs))
            && (self.paths.is_empty() || self.paths.iter().any(|pattern| pattern.matches(path)))
    }

    /// True if the filter takes the requests of a counter. It is not asked about their cause.
    pub(crate) fn takes_counter(&self, key: &CounterKey, enricher: &mut Enricher) -> bool {
        TotalsFilter::by(self).takes_counter(key, enricher)
    }

    /// Removes the counters that the filter does not take.
    pub fn retain(&self, totals: &mut Totals, enricher: &mut Enricher) {
        TotalsFilter::by(self).retain(totals, enricher);
    }
}

/// Selects rows of totals: by names and verdicts, and in a recording also by process id and
/// operation.
#[derive(Clone, Copy)]
pub struct TotalsFilter<'a> {
    pub filter: &'a Filter,
    /// Process ids; empty for any.
    pub pids: &'a [u32],
    /// Bit mask of `OP_*` numbers.
    pub ops: u32,
}

impl<'a> TotalsFilter<'a> {
    #[must_use]
    pub const fn by(filter: &'a Filter) -> Self {
        Self { filter, pids: &[], ops: u32::MAX }
    }

    /// Removes what is not selected from the totals, and summarizes the rest. If the filter is by
    /// cause, `by_cause` replaces the counters, which have no cause, and has the number of requests
    /// that are not in it. Mixed files and RWF_NOWAIT are judged by all requests nevertheless.
    #[must_use]
    pub fn summary(
        &self,
        totals: &mut Totals,
        by_cause: Option<(Vec<(CounterKey, Counter)>, u64)>,
        side: &mut SideEvents,
        enricher: &mut Enricher,
    ) -> Summary {
        let mut unasked = unasked::rows(totals, side, enricher, |unasked, enricher| {
            unasked::is_of(unasked.how, self.ops)
                && self.takes_process(unasked.tgid, enricher)
                && self.takes_file(unasked.file, unasked.tgid, enricher)
        });
        unasked.retain(|row| self.filter.takes_cause(Some(row.cause)));
        let mut mixed = self.mixed(totals, side, enricher);
        mixed.retain(|row| self.filter.takes_cause(Some(row.cause)));
        self.retain(totals, enricher);
        let filter = self.filter;
        side.retain(|row| {
            filter.takes_rejected_open(row)
                && filter.takes_container(enricher.container(row.user.pid))
        });
        let mut nowait = nowait::rows(&totals.counters, side.waits(), enricher);
        nowait.retain(|row| filter.takes_cause(Some(row.cause)));
        if let Some((counters, left_out)) = by_cause {
            totals.counters = counters;
            let lost = &mut totals.stats[Stat::LostCounter as usize];
            *lost = lost.saturating_add(left_out);
            self.retain(totals, enricher);
        }
        Summary { unasked, ..Summary::with(totals, side, mixed, nowait, enricher) }
    }

    /// The mixed files to show. A mixed file has direct users and buffered users; it is shown with
    /// both if a process of either side is selected.
    fn mixed(
        &self,
        totals: &mut Totals,
        side: &SideEvents,
        enricher: &mut Enricher,
    ) -> Vec<MixedRow> {
        let files: HashSet<FileId> =
            totals.buffered_uses.iter().map(|(buffered_use, _)| buffered_use.file).collect();
        // Copies only the counters of mixed files: there may be many counters, and few are of
        // those.
        let counters = std::mem::take(&mut totals.counters);
        let mut both = totals.clone();
        let is_mixed = |row: &&(CounterKey, Counter)| files.contains(&row.0.file);
        both.counters = counters.iter().filter(is_mixed).copied().collect();
        totals.counters = counters;

        both.counters.retain(|(key, _)| self.takes_use(key, enricher));
        let mut wanted: HashSet<FileId> = HashSet::new();
        for (key, _) in &both.counters {
            if self.takes_process(key.tgid, enricher) {
                wanted.insert(key.file);
            }
        }
        for (buffered_use, _) in &both.buffered_uses {
            if self.takes_process(buffered_use.tgid, enricher) {
                wanted.insert(buffered_use.file);
            }
        }
        both.buffered_uses.retain(|(buffered_use, _)| {
            let key = buffered_use.file;
            wanted.contains(&key) && self.takes_file(key, buffered_use.tgid, enricher)
        });
        side.mixed(&both, enricher)
    }

    fn retain(&self, totals: &mut Totals, enricher: &mut Enricher) {
        if self.filter.is_open() && self.pids.is_empty() && self.ops == u32::MAX {
            return;
        }
        totals.counters.retain(|(key, _)| self.takes_counter(key, enricher));
    }

    fn takes_counter(&self, key: &CounterKey, enricher: &mut Enricher) -> bool {
        self.takes_use(key, enricher) && self.takes_process(key.tgid, enricher)
    }

    /// True if the counter is taken, leaving its process aside.
    fn takes_use(&self, key: &CounterKey, enricher: &mut Enricher) -> bool {
        self.ops >> (key.op & 31) & 1 != 0
            && self.filter.takes_decision(verdict(key), Outcome::from_u8(key.outcome))
            && self.takes_file(key.file, key.tgid, enricher)
    }

    fn takes_file(&self, key: FileId, tgid: u32, enricher: &mut Enricher) -> bool {
        if self.filter.fs.is_empty() && self.filter.paths.is_empty() {
            return true;
        }
        let file = enricher.file(key, tgid);
        self.filter.takes_place(&file.path, &file.fs)
    }

    pub(crate) fn takes_process(&self, pid: u32, enricher: &mut Enricher) -> bool {
        (self.pids.is_empty() || self.pids.contains(&pid))
            && (self.filter.comms.is_empty()
                || self.filter.takes_person(&enricher.process(pid, None)))
            && (self.filter.takes_containers()
                || self.filter.takes_container(enricher.container(pid)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        flow::explained::ExplainedRequest,
        testing::golden::{named, run},
    };

    fn taken(filter: &Filter) -> Vec<String> {
        let (records, _) = run();
        let takes = |r: &&ExplainedRequest| {
            filter.takes_decision(r.verdict, r.outcome)
                && filter.takes_file(&r.comm, &r.path, &r.fs)
        };
        records.iter().filter(takes).map(|r| r.path.to_string()).collect()
    }

    #[test]
    fn lists_narrow_what_is_taken() {
        let all = taken(&Filter::default()).len();
        let btrfs = Filter { fs: vec!["btrfs".to_owned()], ..Filter::default() };
        assert_eq!(taken(&btrfs), ["/btrfs/table.db"]);
        let path = |text| Filter { paths: vec![Pattern::new(text).unwrap()], ..Filter::default() };
        assert_eq!(taken(&path("*/table.db")).len(), 4);
        assert_eq!(taken(&path("/data/*")).len() + 4, all);
        let refused = Filter { verdicts: vec![Verdict::Refused], ..Filter::default() };
        assert_eq!(taken(&refused), ["/data/odd.db", "/data/nowait.db"]);
        let short = Filter { short: true, ..Filter::default() };
        assert_eq!(taken(&short), ["/data/wal.log"]);
        let both = Filter { verdicts: vec![Verdict::Failed], ..short };
        assert_eq!(taken(&both).len(), 2);
        let nobody = Filter { comms: vec!["mysqld".to_owned()], ..Filter::default() };
        assert!(taken(&nobody).is_empty());
    }

    #[test]
    fn pods_are_taken_by_name_and_by_namespace() {
        let requests = |pods: &[&str], namespaces: &[&str]| {
            let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
            let filter =
                Filter { pods: list(pods), namespaces: list(namespaces), ..Filter::default() };
            mixed(&TotalsFilter::by(&filter)).1
        };
        assert_eq!(requests(&["db-0"], &[]), 10);
        assert_eq!(requests(&["x", "prod/db-0"], &[]), 10);
        assert_eq!(requests(&["db-0"], &["prod"]), 10);
        assert_eq!(requests(&["test/db-0"], &[]), 0);
        assert_eq!(requests(&["db-1"], &["prod"]), 0);
        assert_eq!(requests(&[], &["test"]), 0);
    }

    /// Names of a file's direct users, and of its buffered users.
    type Sides = (Vec<String>, Vec<String>);

    /// The mixed files of the golden run, where postgres/42 uses /data/table.db directly and
    /// logger/77 uses it through the page cache, and the number of requests counted.
    fn mixed(narrow: &TotalsFilter<'_>) -> (Vec<Sides>, u64) {
        let (mut totals, mut enricher) = named();
        let summary = narrow.summary(&mut totals, None, &mut SideEvents::default(), &mut enricher);
        let sides = |row: &MixedRow| {
            let direct = row.direct.iter().map(|user| user.comm.to_string());
            (direct.collect(), row.cached.iter().map(|user| user.comm.to_string()).collect())
        };
        (summary.mixed.iter().map(sides).collect(), summary.ended())
    }

    #[test]
    fn a_mixed_file_is_taken_if_either_side_is_with_both() {
        let both = (vec!["postgres".to_owned()], vec!["logger".to_owned()]);
        let open = Filter::OPEN;
        let filter = |comm: &str| Filter { comms: vec![comm.to_owned()], ..Filter::default() };
        for (comm, rows, requests) in [
            ("postgres", vec![both.clone()], 10),
            ("logger", vec![both.clone()], 0),
            ("x", vec![], 0),
        ] {
            assert_eq!(mixed(&TotalsFilter::by(&filter(comm))), (rows, requests), "{comm}");
        }
        for (pid, rows, requests) in
            [(42, vec![both.clone()], 10), (77, vec![both.clone()], 0), (1, vec![], 0)]
        {
            let narrow = TotalsFilter { pids: &[pid], ..TotalsFilter::by(&open) };
            assert_eq!(mixed(&narrow), (rows, requests), "{pid}");
        }
        let path = |text| Filter { paths: vec![Pattern::new(text).unwrap()], ..Filter::default() };
        assert_eq!(mixed(&TotalsFilter::by(&path("/data/table.db"))).0, [both]);
        assert_eq!(mixed(&TotalsFilter::by(&path("/btrfs/*"))).0, []);
        // The file's direct requests have the verdict direct, so under this filter it is not mixed.
        let fallbacks = Filter { verdicts: vec![Verdict::Fallback], ..Filter::default() };
        assert_eq!(mixed(&TotalsFilter::by(&fallbacks)).0, []);
    }
}
