//! What this kernel offers: BTF, the probe table, preflight.

pub mod btf;
pub mod preempt;
pub mod preflight;
pub mod probes;
