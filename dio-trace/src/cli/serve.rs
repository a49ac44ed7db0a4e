//! `dio-trace serve`: traces the whole system for metrics alone.

use clap::Args;

use crate::cli::{
    filters::Filters,
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
        let Self { processes, attach, force_blind, filters, metrics } = self;
        let metrics = metrics.or_default_port();
        let common = Common::without_requests(attach, force_blind, filters, metrics);
        Trace::Audit { processes, common }
    }
}
