//! `dio-trace cache`: who brings pages into the page cache, and what makes them leave.
//!
//! Every page passes two tracepoints, one when it comes in and one when it leaves. How it came in is
//! told by what the thread did last with the file ([`recent`]), and sums are kept by process, file and
//! kind ([`sums`]). None of these programs is loaded without `dio-trace cache`.

pub mod ahead;
pub mod flow;
pub mod recent;
mod sums;
