//! The checker: compares dio-trace's report with the scenarios, the workload's own tally, mincore
//! and /proc/self/io.
//!
//! - [`judge`]: checks a whole run; [`cell`]: checks one cell
//! - [`causes`]: the causes that may explain a cell
mod causes;
mod cell;
mod judge;

pub(crate) use cell::Asked;
pub(crate) use judge::Judge;
