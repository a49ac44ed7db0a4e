//! The closing table of a live run: `--by`, or by file.

use crate::{
    cli::trace::Common,
    enrich::Enricher,
    flow::{
        by_record::ByRecord,
        explained::ExplainedRequest,
        group::{By, Groups, groups},
    },
    model::Totals,
    util::clock::{Shown, Zone},
};

/// Collects the rows that counters do not have.
pub(super) struct LiveTable {
    by: Option<By>,
    /// False if no table is shown without `--by`.
    always: bool,
    /// True if requests without a finding are counted too.
    all: bool,
    sums: ByRecord,
    zone: Zone,
}

impl LiveTable {
    pub(super) fn new(common: &Common) -> Self {
        Self {
            by: common.by,
            always: !common.json,
            all: common.all,
            sums: ByRecord::new(common.by),
            zone: Shown::here(common.utc).zone,
        }
    }

    pub(super) fn count(&mut self, record: &ExplainedRequest) {
        // With --why-eagain some requests have an event though they are no findings.
        if record.finding || self.all {
            self.sums.count(record);
        }
    }

    /// The rows; None if there is no table.
    pub(super) fn groups(self, totals: &Totals, enricher: &mut Enricher) -> Option<Groups> {
        let asked = self.by.is_some();
        let by = self.by.or_else(|| self.always.then_some(By::File))?;
        let rows = if by.is_of_records() {
            self.sums.rows(&self.zone)
        } else {
            groups(&totals.counters, by, enricher)
        };
        Some(Groups { by, asked, rows })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::testing::golden::{named, run};

    #[derive(Parser)]
    struct Options {
        #[command(flatten)]
        common: Common,
    }

    /// What a row is, whether it was asked for, and the rows: names and requests.
    type Table = (By, bool, Vec<(String, u64)>);

    fn table(words: &[&str]) -> Option<Table> {
        let words = ["x"].iter().chain(words);
        let mut table = LiveTable::new(&Options::parse_from(words).common);
        run().0.iter().filter(|record| record.finding).for_each(|record| table.count(record));
        let (totals, mut enricher) = named();
        let Groups { by, asked, rows } = table.groups(&totals, &mut enricher)?;
        Some((by, asked, rows.into_iter().map(|row| (row.name, row.requests)).collect()))
    }

    #[test]
    fn a_run_ends_with_a_table_by_file_or_by_what_was_asked_for() {
        let (by, asked, rows) = table(&[]).unwrap();
        assert_eq!((by, asked, rows.len()), (By::File, false, 10));
        let (_, asked, rows) = table(&["--by", "process"]).unwrap();
        assert_eq!((asked, rows), (true, vec![("postgres/42".to_owned(), 10)]));
        let (_, _, rows) = table(&["--by", "thread", "--json"]).unwrap();
        assert_eq!(rows, [("postgres/42 43".to_owned(), 6)], "the findings");
        let (_, _, rows) = table(&["--by", "cause"]).unwrap();
        assert_eq!(rows.len(), 6);
        let (_, _, rows) = table(&["--by", "time", "--utc"]).unwrap();
        assert!(rows[0].0.starts_with("2026-01-02T03:04:07"), "{rows:?}");
        let (_, _, rows) = table(&["--by", "container"]).unwrap();
        assert_eq!(rows, [("prod/db-0/postgres".to_owned(), 10)]);
        for (by, name) in [("pod", "prod/db-0"), ("namespace", "prod"), ("volume", "(none)")] {
            let (_, _, rows) = table(&["--by", by]).unwrap();
            assert_eq!(rows, [(name.to_owned(), 10)]);
        }
        assert!(table(&["--json"]).is_none(), "JSON has files");
    }
}
