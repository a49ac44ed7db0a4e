//! `dio-trace serve`: traces the whole system for metrics alone.

use clap::Args;

use crate::cli::{
    filters::{CauseFilter, Filters},
    metrics::MetricsArgs,
    trace::{Common, Processes, Trace},
    values::Mode,
};

/// Options of `dio-trace serve`, in the order of use: what to trace, where to.
#[derive(Args, Debug)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    processes: Processes,
    /// How to attach the probes
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Mode::Auto)]
    attach: Mode,
    /// Trace even if the tracer does not see its own test requests
    #[arg(long)]
    force_blind: bool,
    #[command(flatten)]
    filters: Filters,
    #[command(flatten)]
    metrics: MetricsArgs,
}

impl ServeArgs {
    /// The trace that serves the metrics.
    pub(super) fn trace(self) -> Trace {
        let common = Common {
            duration: None,
            attach: self.attach,
            force_blind: self.force_blind,
            filters: self.filters,
            causes: CauseFilter::default(),
            all: false,
            by: None,
            stack: false,
            why_eagain: false,
            verify_stable: false,
            utc: false,
            verbose: 0,
            json: false,
            output: None,
            metrics: self.metrics.or_default_port(),
        };
        Trace::Audit { processes: self.processes, common }
    }
}
