//! The formats of the files that one side writes and the other one reads.
//!
//! - [`json`]: dio-trace's output, for the guest
//! - [`suite`], [`stress`], [`bench`], [`apps`], [`questions`], [`prometheus`]: the guest's results, for the host
pub(crate) mod apps;
pub(crate) mod bench;
pub(crate) mod json;
pub(crate) mod load;
pub(crate) mod prometheus;
pub(crate) mod questions;
pub(crate) mod stress;
pub(crate) mod suite;
