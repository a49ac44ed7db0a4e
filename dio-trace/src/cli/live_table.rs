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
    sums: ByRecord,
    zone: Zone,
}

impl LiveTable {
    pub(super) fn new(common: &Common) -> Self {
        Self {
            by: common.by,
            always: !common.json,
            sums: ByRecord::new(common.by),
            zone: Shown::here(common.utc).zone,
        }
    }

    pub(super) fn count(&mut self, record: &ExplainedRequest) {
        self.sums.count(record);
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
