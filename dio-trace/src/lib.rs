//! dio-trace: was it really direct, which file, why not, what to do.
//!
//! Rooms, lowest first; each imports from those before it, and none from a later one.

// They panic where stdout or stderr is full or gone: see util/stdio.rs.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]
// `pub` is for what other crates can name; see the lint table in Cargo.toml.
#![warn(unreachable_pub)]

pub mod cause;
pub mod check;
pub mod cli;
pub mod doctor;
pub mod enrich;
pub mod flow;
pub mod gate;
pub mod kernel;
pub mod model;
pub mod output;
pub mod recording;
pub mod system;
#[cfg(any(test, fuzzing))]
pub mod testing;
pub mod tracer;
pub mod util;
