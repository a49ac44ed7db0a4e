//! The developer's machine (the host of the VMs): its packages, builds and programs.
//!
//! - [`cmd`]: runs other programs
//! - [`paths`]: finds the checkout, the build folder and the cache
//! - [`packages`]: installs the programs that xtask needs; [`apt`] and [`pypi`] fetch packages into
//!   the cache without installing them
//! - [`build`]: builds the binaries that VMs run
//! - [`duckdb`], [`browser`], [`prometheus`]: the programs that check dio-trace's files, pages and
//!   metrics
//! - [`step_runner`]: runs the steps of a long command and prints the table at its end
pub(crate) mod apt;
pub(crate) mod arch;
pub(crate) mod browser;
pub(crate) mod build;
pub(crate) mod cmd;
pub(crate) mod crates;
pub(crate) mod digest;
pub(crate) mod duckdb;
pub(crate) mod packages;
pub(crate) mod paths;
pub(crate) mod prometheus;
pub(crate) mod pypi;
pub(crate) mod step_runner;
