//! The matrix of scenarios: which requests are made, and what the kernel does with each.
//!
//! - [`cases`]: what a request is about
//! - [`cells`]: the scenario files, a request each line
//! - [`files`]: the files that the requests are made to
pub(crate) mod cases;
pub(crate) mod cells;
pub(crate) mod files;
