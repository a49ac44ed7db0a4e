//! What a request costs with no tracer, with dio-trace, and with its peers.
//!
//! - [`cost`]: under each tracer; [`load`]: the program that is measured
//! - [`tracers`]: who watches it; [`programs`]: their eBPF programs one by one
//! - [`rate`]: how it fares under load
//! - [`upkeep`]: what dio-trace takes by itself
//! - [`stage`], [`usage`]: what they stand on
pub(crate) mod cost;
pub(crate) mod load;
mod programs;
pub(crate) mod rate;
mod stage;
pub(crate) mod tracers;
pub(crate) mod upkeep;
mod usage;
