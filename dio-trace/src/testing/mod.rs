//! What tests and fuzz targets share.

#[cfg(test)]
pub(crate) mod fixtures;
pub mod fuzz;
#[cfg(test)]
pub(crate) mod golden;
