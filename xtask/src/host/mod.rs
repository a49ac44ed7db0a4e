//! What runs on the developer's machine.
//!
//! - [`cmd`]: runs other programs
//! - [`paths`]: the checkout and the cache
//! - [`packages`]: the programs that the machine must have; [`apt`] and [`pypi`] fetch others
//! - [`build`]: the binaries that VMs run
//! - [`duckdb`], [`browser`]: programs that check dio-trace's files and pages
//! - [`step_runner`]: the steps of a long command, and the table at its end
pub(crate) mod apt;
pub(crate) mod browser;
pub(crate) mod build;
pub(crate) mod cmd;
pub(crate) mod duckdb;
pub(crate) mod packages;
pub(crate) mod paths;
pub(crate) mod pypi;
pub(crate) mod step_runner;
