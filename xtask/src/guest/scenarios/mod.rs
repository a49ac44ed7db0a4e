//! The scenarios that are not cells: a program each, and what dio-trace must say of it.
//!
//! - [`cut`]: a recorder that is killed; [`recordings`]: one that is not
//! - [`rings`]: io_uring's rarer ways
//! - [`live`]: the live screen, in a terminal
//! - [`mixed`]: who mixes direct and buffered access; [`innocents`]: who must not be blamed for it
//! - [`family`]: descendants that run before dio-trace attaches
//! - [`released`]: what was traced is let go
//! - [`named`]: names of files in a namespace, of processes and threads
//! - [`stacks`]: which function of the program made a request
//! - [`filters`], [`gate`]: what is left out, and what makes `run` fail
//! - [`unprivileged`]: dio-trace for an ordinary user
//! - [`forecasts`]: what `check` says
//! - [`shorts`]: what makes a read return less than it was asked for
pub(crate) mod cut;
pub(crate) mod family;
pub(crate) mod filters;
pub(crate) mod forecasts;
pub(crate) mod gate;
pub(crate) mod innocents;
pub(crate) mod live;
pub(crate) mod mixed;
pub(crate) mod named;
pub(crate) mod recordings;
pub(crate) mod released;
pub(crate) mod rings;
pub(crate) mod shorts;
pub(crate) mod stacks;
pub(crate) mod unprivileged;

use std::path::Path;

use anyhow::Result;

use crate::guest::{fixtures::Place, harness::Tried};

/// What is wrong with a scenario in the folders of its set-ups.
pub(crate) type Check = fn(&Tried, &[Place], &Path) -> Result<Vec<String>>;
