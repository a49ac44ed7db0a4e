//! What this kernel offers: BTF, the probe table, preflight.

pub mod btf;
pub mod preflight;
pub mod probes;
