//! Helpers that are independent of tracing: text, times, error names, output files, privilege.

pub mod clock;
pub mod errno;
pub mod escape;
pub mod figures;
pub(crate) mod private_file;
pub mod privilege;
pub(crate) mod stdio;
