//! What is shown and counted, by what only user space knows of a request.

use dio_trace_common::{abi::CounterKey, verdict::Verdict};
use glob::Pattern;

use crate::{
    enrich::{Enricher, FileKey},
    record::Record,
    tracer::Totals,
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

    #[must_use]
    pub fn takes(&self, record: &Record) -> bool {
        self.takes_verdict(record.decided.0)
            && self.takes_file(&record.comm, &record.path, &record.fs)
    }

    /// Of what is no request: a refusal, a process that uses the page cache.
    #[must_use]
    pub fn takes_file(&self, comm: &str, path: &str, fs: &str) -> bool {
        let any = |list: &[String], word: &str| list.is_empty() || list.iter().any(|w| w == word);
        any(&self.comms, comm)
            && any(&self.fs, fs)
            && (self.paths.is_empty() || self.paths.iter().any(|pattern| pattern.matches(path)))
    }

    pub(crate) fn takes_verdict(&self, verdict: Verdict) -> bool {
        self.verdicts.is_empty() || self.verdicts.contains(&verdict)
    }

    /// Leaves out the counters of what it does not take.
    pub fn retain(&self, totals: &mut Totals, enricher: &mut Enricher) {
        if self.is_open() {
            return;
        }
        totals.counters.retain(|(key, _)| self.takes_counter(key, enricher));
        totals.mixers.retain(|(mixer, _)| {
            let file = enricher.file(FileKey::from(mixer), mixer.tgid);
            let (path, fs) = (file.path.clone(), file.fs.clone());
            self.takes_file(&enricher.process(mixer.tgid, None), &path, &fs)
        });
    }

    fn takes_counter(&self, key: &CounterKey, enricher: &mut Enricher) -> bool {
        let Some(verdict) = Verdict::from_u8(key.verdict) else { return true };
        let file = enricher.file(FileKey::from(key), key.tgid);
        let (path, fs) = (file.path.clone(), file.fs.clone());
        self.takes_verdict(verdict)
            && self.takes_file(&enricher.process(key.tgid, None), &path, &fs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::run;

    fn taken(filter: &Filter) -> Vec<String> {
        let (records, _) = run();
        records.iter().filter(|r| filter.takes(r)).map(|r| r.path.clone()).collect()
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
}
