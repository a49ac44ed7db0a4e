//! What dio-trace's kernel side and user side share.
//!
//! - [`abi`]: the records that cross from the probes to the loader;
//! - [`evidence`]: what the probes saw of one request;
//! - [`verdict`]: one pure function from evidence to verdict, called on both sides;
//! - [`kfunc`]: kernel functions the probes call, linked at load;
//! - [`offsets`]: the kernel struct members the probes read, resolved from BTF at load.
//!
//! Everything here is `no_std`, has explicit widths and no padding, and never carries a Rust
//! enum across the boundary: a byte from the other side is converted with a checked `from_u8`.
#![no_std]

pub mod abi;
mod byte_enum;
pub mod evidence;
pub mod kfunc;
pub mod offsets;
pub mod verdict;
