//! The scenarios that are not made of cells: each runs a program and checks dio-trace's report.
//!
//! - [`blind`]: a tracer that does not see its own test requests
//! - [`compat`]: 32-bit programs
//! - [`cut`]: a recorder that is killed; [`recordings`]: one that finishes
//! - [`rings`]: io_uring's rarer features
//! - [`live`]: the live screen, in a terminal
//! - [`mixed`]: mixed access; [`innocents`]: processes that must not be reported for it
//! - [`family`]: descendants that run before dio-trace attaches
//! - [`released`]: dio-trace does not keep in use what it traced
//! - [`named`]: names of files in a mount namespace, of processes and of threads
//! - [`stacks`]: the function of the program that made a request
//! - [`filters`]: requests that filters leave out; [`gate`]: `run --fail-on`
//! - [`unasked`]: files that are used without O_DIRECT, and expected to be used directly
//! - [`page_cache`]: how pages come into the page cache and leave it
//! - [`unprivileged`]: dio-trace for an unprivileged user
//! - [`forecasts`]: what `check` predicts
//! - [`reports`]: causes and fixes that public reports taught
//! - [`shorts`]: the causes of short reads
pub(crate) mod blind;
pub(crate) mod compat;
pub(crate) mod cut;
pub(crate) mod family;
pub(crate) mod filters;
pub(crate) mod forecasts;
pub(crate) mod gate;
pub(crate) mod innocents;
pub(crate) mod live;
pub(crate) mod mixed;
pub(crate) mod named;
pub(crate) mod page_cache;
pub(crate) mod recordings;
pub(crate) mod released;
pub(crate) mod reports;
pub(crate) mod rings;
pub(crate) mod shorts;
pub(crate) mod stacks;
pub(crate) mod unasked;
pub(crate) mod unprivileged;

use std::path::Path;

use anyhow::Result;

use crate::guest::{fixtures::Place, harness::Tried};

/// Runs a scenario in the folders of its fixtures, writes output to a folder, and returns the
/// mismatches.
pub(crate) type Check = fn(&Tried, &[Place], &Path) -> Result<Vec<String>>;
