//! What knows nothing of tracing: text, times, errors, files that are made, privilege.

pub mod clock;
pub mod errno;
pub mod escape;
pub mod figures;
pub(crate) mod private_file;
pub mod privilege;
pub(crate) mod stdio;
