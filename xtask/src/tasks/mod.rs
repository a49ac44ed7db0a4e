//! The commands of `cargo xtask`, a file each.
//!
//! - [`bpf`], [`kernel`], [`vm`]: the eBPF object, kernels, and a VM by hand
//! - [`test`], [`demo`]: the two commands of the README
//! - [`truth`]: every scenario on every kernel; [`suites`]: what it shares with the test
//! - [`stress`]: thousands of requests at once
//! - [`man`]: man pages and completions
//! - [`bench`]: figures of this machine
//! - [`apps`]: real programs under dio-trace
//! - [`fleet`]: the queries of docs/fleet.md
//! - [`fuzz`]: bytes that nobody meant
//! - [`html`]: the page of a report, clicked through
pub(crate) mod apps;
pub(crate) mod bench;
pub(crate) mod bpf;
pub(crate) mod demo;
pub(crate) mod fleet;
pub(crate) mod fuzz;
pub(crate) mod html;
pub(crate) mod kernel;
pub(crate) mod man;
pub(crate) mod stress;
mod suites;
pub(crate) mod test;
pub(crate) mod truth;
mod verified;
pub(crate) mod vm;
