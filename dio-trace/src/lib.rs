//! dio-trace: was it really direct, which file, why not, what to do.
//!
//! Data flows one way: kernel -> events -> enrich -> verdict -> cause -> sinks.

pub mod kernel;
pub mod tracer;
