//! dio-trace reports, for each O_DIRECT read and write: whether it was really direct, on which
//! file, why not, and what to do.
//!
//! Modules form layers, and none imports from a layer above its own. Lowest first: `util` and
//! `kernel`; `system`; `model`; `cause`, `enrich` and `tracer`; `flow`; `recording`, `gate`,
//! `check` and `doctor`; `output`; `cli`.

// println! and eprintln! panic when stdout or stderr is full or closed: see util/stdio.rs.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]
// `pub` is for items that other crates can name; see the lint table in Cargo.toml.
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
