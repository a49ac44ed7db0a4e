//! dio-trace: was it really direct, which file, why not, what to do.
//!
//! Data flows one way: kernel -> events -> enrich -> verdict -> cause -> sinks.

// They panic where stdout or stderr is full or gone: see stdio.rs.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod beside;
pub mod cause;
pub mod cgroup;
pub mod check;
pub mod cli;
pub mod clock;
pub mod doctor;
pub mod enrich;
pub mod errno;
pub mod escape;
pub mod export;
pub mod figures;
pub mod filter;
#[cfg(test)]
pub(crate) mod fixture;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod gate;
#[cfg(test)]
mod golden;
pub mod kernel;
mod mounts;
mod output;
pub mod privilege;
pub mod processes;
pub mod record;
pub mod recorder;
pub mod report;
pub mod stack;
mod stdio;
pub mod summary;
pub mod top;
pub mod trace_file;
pub mod tracer;
pub mod ui;
pub mod version;
