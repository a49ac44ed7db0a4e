//! Direct requests: how a program makes them.
//!
//! - [`files`], [`memory`]: what they are made to, and where their bytes go
//! - [`request`]: one request, by each API
//! - [`flight`]: many requests in flight
pub(crate) mod files;
pub(crate) mod flight;
pub(crate) mod memory;
pub(crate) mod request;
