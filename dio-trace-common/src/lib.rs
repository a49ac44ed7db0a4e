//! Types and functions shared by dio-trace's eBPF programs and its user-space side.
//!
//! - [`abi`]: the records that the probes send to user space
//! - [`evidence`]: what the probes observed of one request
//! - [`verdict`]: the pure function from evidence to verdict, called on both sides
//! - [`histogram`]: the buckets of latencies, the same on both sides
//! - [`kfunc`]: kernel functions that the probes call, linked when the object is loaded
//! - [`offsets`]: the kernel struct members that the probes read, resolved from BTF at load
//!
//! Everything is `no_std`, and has explicit widths and no padding. No Rust enum crosses the
//! boundary: a byte from the other side is converted by a checked `from_u8`.
#![no_std]

#[cfg(feature = "schema")]
extern crate alloc;

pub mod abi;
mod byte_enum;
pub mod evidence;
pub mod histogram;
pub mod kfunc;
pub mod offsets;
pub mod verdict;
