//! What is shown and counted, by what only user space knows of a request.

use std::collections::HashSet;

use dio_trace_common::{
    abi::{Counter, CounterKey, FileId},
    verdict::Verdict,
};
use glob::Pattern;

use crate::{
    enrich::Enricher,
    flow::{
        side_events::{MixedRow, SideEvents},
        summary::{Summary, verdict},
    },
    model::Totals,
};

/// Each list that is empty takes everything.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Names of processes.
    pub comms: Vec<String>,
    /// Paths; `*` also matches a slash, as with `find -path`.
    pub paths: Vec<Pattern>,
    /// File system types.
    pub fs: Vec<String>,
    pub verdicts: Vec<Verdict>,
}

impl Filter {
    /// The one that takes everything.
    pub const OPEN: Self =
        Self { comms: Vec::new(), paths: Vec::new(), fs: Vec::new(), verdicts: Vec::new() };

    /// True if it takes everything.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.takes_names() && self.verdicts.is_empty()
    }

    /// True if it takes any names.
    #[must_use]
    pub fn takes_names(&self) -> bool {
        self.comms.is_empty() && self.paths.is_empty() && self.fs.is_empty()
    }

    /// Of what is no request: a refusal, a process that uses the page cache.
    #[must_use]
    pub fn takes_file(&self, comm: &str, path: &str, fs: &str) -> bool {
        self.takes_person(comm) && self.takes_place(path, fs)
    }

    pub(crate) fn takes_verdict(&self, verdict: Verdict) -> bool {
        self.verdicts.is_empty() || self.verdicts.contains(&verdict)
    }

    pub(crate) fn takes_person(&self, comm: &str) -> bool {
        self.comms.is_empty() || self.comms.iter().any(|name| name == comm)
    }

    pub(crate) fn takes_place(&self, path: &str, fs: &str) -> bool {
        (self.fs.is_empty() || self.fs.iter().any(|name| name == fs))
            && (self.paths.is_empty() || self.paths.iter().any(|pattern| pattern.matches(path)))
    }

    /// Leaves out the counters of what it does not take.
    pub fn retain(&self, totals: &mut Totals, enricher: &mut Enricher) {
        TotalsFilter::by(self).retain(totals, enricher);
    }
}

/// What of totals is looked at: by names and verdicts, and of a recording by process and operation.
#[derive(Clone, Copy)]
pub struct TotalsFilter<'a> {
    pub filter: &'a Filter,
    /// Processes; none: any.
    pub pids: &'a [u32],
    /// A bit of each `OP_*`.
    pub ops: u32,
}

impl<'a> TotalsFilter<'a> {
    #[must_use]
    pub const fn by(filter: &'a Filter) -> Self {
        Self { filter, pids: &[], ops: u32::MAX }
    }

    /// Sums up what is left; the totals keep only that.
    #[must_use]
    pub fn summary(
        &self,
        totals: &mut Totals,
        beside: &mut SideEvents,
        enricher: &mut Enricher,
    ) -> Summary {
        let mixed = self.mixed(totals, beside, enricher);
        self.retain(totals, enricher);
        let filter = self.filter;
        beside.retain(|row| filter.takes_file(&row.comm, &row.path, &row.fs));
        Summary::with(totals, beside.refusals(), mixed, enricher)
    }

    /// A mixed file has two sides, those who use it directly and those who use its pages: it is
    /// taken, with both, if somebody of either side is looked at.
    fn mixed(
        &self,
        totals: &mut Totals,
        beside: &SideEvents,
        enricher: &mut Enricher,
    ) -> Vec<MixedRow> {
        let files: HashSet<FileId> =
            totals.mixers.iter().map(|(mixer, _)| FileId::from(mixer)).collect();
        // All counters may be many, and few are of such files.
        let counters = std::mem::take(&mut totals.counters);
        let mut both = totals.clone();
        let of_them = |row: &&(CounterKey, Counter)| files.contains(&FileId::from(&row.0));
        both.counters = counters.iter().filter(of_them).copied().collect();
        totals.counters = counters;

        both.counters.retain(|(key, _)| self.takes_use(key, enricher));
        let mut wanted: HashSet<FileId> = HashSet::new();
        for (key, _) in &both.counters {
            if self.takes_process(key.tgid, enricher) {
                wanted.insert(FileId::from(key));
            }
        }
        for (mixer, _) in &both.mixers {
            if self.takes_process(mixer.tgid, enricher) {
                wanted.insert(FileId::from(mixer));
            }
        }
        both.mixers.retain(|(mixer, _)| {
            let key = FileId::from(mixer);
            wanted.contains(&key) && self.takes_file(key, mixer.tgid, enricher)
        });
        beside.mixed(&both, enricher)
    }

    fn retain(&self, totals: &mut Totals, enricher: &mut Enricher) {
        if self.filter.is_open() && self.pids.is_empty() && self.ops == u32::MAX {
            return;
        }
        totals.counters.retain(|(key, _)| {
            self.takes_use(key, enricher) && self.takes_process(key.tgid, enricher)
        });
    }

    /// Whoever made these requests.
    fn takes_use(&self, key: &CounterKey, enricher: &mut Enricher) -> bool {
        self.ops >> (key.op & 31) & 1 != 0
            && self.filter.takes_verdict(verdict(key))
            && self.takes_file(FileId::from(key), key.tgid, enricher)
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
            filter.takes_verdict(r.verdict) && filter.takes_file(&r.comm, &r.path, &r.fs)
        };
        records.iter().filter(takes).map(|r| r.path.clone()).collect()
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
        let nobody = Filter { comms: vec!["mysqld".to_owned()], ..Filter::default() };
        assert!(taken(&nobody).is_empty());
    }

    /// Who uses a file directly, and through the page cache.
    type Sides = (Vec<String>, Vec<String>);

    /// Mixed files of the golden run, where postgres/42 uses /data/table.db directly and logger/77
    /// its pages: the direct users and those of the cache, by name, and requests counted.
    fn mixed(narrow: &TotalsFilter<'_>) -> (Vec<Sides>, u64) {
        let (mut totals, mut enricher) = named();
        let summary = narrow.summary(&mut totals, &mut SideEvents::default(), &mut enricher);
        let sides = |row: &MixedRow| {
            let direct = row.direct.iter().map(|user| user.comm.clone());
            (direct.collect(), row.cached.iter().map(|user| user.comm.clone()).collect())
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
        // Its direct requests are reads that were direct: with no other are they beside its pages.
        let fallbacks = Filter { verdicts: vec![Verdict::Fallback], ..Filter::default() };
        assert_eq!(mixed(&TotalsFilter::by(&fallbacks)).0, []);
    }
}
