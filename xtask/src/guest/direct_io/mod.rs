//! Makes requests with O_DIRECT by every API that the scenarios use.
//!
//! - [`files`], [`memory`]: the files and the buffers of the requests
//! - [`request`]: makes one request by any API
//! - [`flight`]: keeps many requests in flight
pub(crate) mod files;
pub(crate) mod flight;
pub(crate) mod memory;
pub(crate) mod request;
