//! Measures what a request costs without a tracer, with dio-trace, and with its peers.
//!
//! - [`cost`]: the cost under each tracer; [`load`]: the program that is measured
//! - [`tracers`]: the tracers; [`programs`]: the run time of each eBPF program
//! - [`rate`]: losses and cost under load
//! - [`upkeep`]: dio-trace's own start time, idle cost and memory
//! - [`stage`]: the disk and files; [`usage`]: a process's CPU time and memory
pub(crate) mod cost;
pub(crate) mod load;
mod programs;
pub(crate) mod rate;
mod stage;
pub(crate) mod tracers;
pub(crate) mod upkeep;
mod usage;
