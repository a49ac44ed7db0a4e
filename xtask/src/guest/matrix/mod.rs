//! The matrix of cells: which requests are made, and what the kernel does with each.
//!
//! - [`cases`]: the state before a request, and how the request is made
//! - [`cells`]: the scenario files, one request per line
//! - [`files`]: makes the files that the requests use
pub(crate) mod cases;
pub(crate) mod cells;
pub(crate) mod files;
