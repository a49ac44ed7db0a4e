//! The commands of `cargo xtask`, one file per command.
//!
//! - [`bpf`], [`kernels`], [`vm`]: build the eBPF objects, fetch and try kernels, run a VM by hand
//! - [`test`], [`demo`]: run all checks; show dio-trace at work
//! - [`truth`]: runs every scenario on every kernel; [`suites`]: the part shared with [`test`]
//! - [`stress`]: makes thousands of requests at once and accounts for each
//! - [`man`]: writes man pages and completions
//! - [`dist`]: makes the artefacts of a release, and installs them in VMs
//! - [`bench`]: measures the cost of tracing
//! - [`apps`]: runs real programs under dio-trace
//! - [`questions`]: asks what users ask, on real kernels
//! - [`fleet`]: runs the queries of docs/fleet.md
//! - [`fuzz`]: feeds mutated bytes to the parsers
//! - [`html`]: tests the HTML page of a report in a browser
pub(crate) mod apps;
pub(crate) mod bench;
pub(crate) mod bpf;
pub(crate) mod demo;
pub(crate) mod dist;
pub(crate) mod fleet;
pub(crate) mod fuzz;
pub(crate) mod html;
pub(crate) mod kernels;
pub(crate) mod man;
pub(crate) mod questions;
pub(crate) mod stress;
mod suites;
pub(crate) mod test;
pub(crate) mod truth;
mod verified;
pub(crate) mod vm;
