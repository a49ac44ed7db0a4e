//! Shared code of tests and fuzz targets.

#[cfg(test)]
pub(crate) mod fixtures;
pub mod fuzz;
#[cfg(test)]
pub(crate) mod golden;
#[cfg(test)]
mod many;
#[cfg(test)]
mod schema;
