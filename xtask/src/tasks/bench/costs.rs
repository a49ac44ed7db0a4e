//! What was measured of each tracer, and what it adds to a request.
use crate::guest::{bench::tracers::TRACERS, contract::bench::Measured};

/// What was measured.
pub(super) struct Costs {
    pub(super) kernel: String,
    pub(super) rows: Vec<Measured>,
}

impl Costs {
    /// What a kind of request takes with no tracer: in the program's own way, and in all.
    pub(super) fn base(&self, kind: &str) -> Option<(f64, f64)> {
        self.of(&TRACERS[0].id(), kind)
    }

    fn of(&self, tracer: &str, kind: &str) -> Option<(f64, f64)> {
        let row = self.rows.iter().find(|row| row.tracer == tracer)?;
        let (_, cost) = row.costs.iter().find(|(name, _)| name == kind)?;
        Some((cost.least, cost.mean))
    }

    /// What a tracer adds to it.
    pub(super) fn added(&self, tracer: &str, kind: &str) -> Option<(f64, f64)> {
        let (least, mean) = self.of(tracer, kind)?;
        let (base_least, base_mean) = self.base(kind)?;
        Some((least - base_least, mean - base_mean))
    }
}
