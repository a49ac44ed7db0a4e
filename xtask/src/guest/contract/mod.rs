//! What two sides agree on: the files that one of them writes and the other one reads.
//!
//! - [`json`]: what dio-trace writes
//! - [`suite`], [`stress`], [`bench`], [`apps`]: what the guest writes for the host
pub(crate) mod apps;
pub(crate) mod bench;
pub(crate) mod json;
pub(crate) mod stress;
pub(crate) mod suite;
