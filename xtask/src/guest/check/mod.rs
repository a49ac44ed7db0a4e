//! The judge: what dio-trace said against the scenarios, the workload's own tally, mincore and
//! /proc/self/io.
//!
//! - [`judge`]: a whole run; [`cell`]: one cell of it
//! - [`causes`]: what explains a cell
mod causes;
mod cell;
mod judge;

pub(crate) use cell::Asked;
pub(crate) use judge::Judge;
