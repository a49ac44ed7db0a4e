//! The measured cost of requests under each tracer, and the difference to no tracer.
use crate::guest::{bench::tracers::TRACERS, contract::bench::Measured};

/// The result of one measurement, for all tracers. Costs are pairs: the least and the mean number
/// of instructions per request. The least is what the program's own path takes; the mean includes
/// everything else that runs on the one CPU meanwhile.
pub(super) struct Costs {
    /// The version of the kernel.
    pub(super) kernel: String,
    /// One row per tracer.
    pub(super) rows: Vec<Measured>,
}

impl Costs {
    /// The cost of a kind of request without a tracer; `None` if it was not measured.
    pub(super) fn base(&self, kind: &str) -> Option<(f64, f64)> {
        self.of(&TRACERS[0].id(), kind)
    }

    fn of(&self, tracer: &str, kind: &str) -> Option<(f64, f64)> {
        let row = self.rows.iter().find(|row| row.tracer == tracer)?;
        let (_, cost) = row.costs.iter().find(|(name, _)| name == kind)?;
        Some((cost.least, cost.mean))
    }

    /// The cost that a tracer adds to a kind of request; `None` if it was not measured.
    pub(super) fn added(&self, tracer: &str, kind: &str) -> Option<(f64, f64)> {
        let (least, mean) = self.of(tracer, kind)?;
        let (base_least, base_mean) = self.base(kind)?;
        Some((least - base_least, mean - base_mean))
    }
}
