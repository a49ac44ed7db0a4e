//! What this machine says of its processes, mounts, files and devices, asked without changing any.

pub mod cgroup;
pub mod device;
pub mod extents;
pub mod file_attrs;
pub mod file_system;
pub(crate) mod mounts;
pub(crate) mod namespaces;
pub mod open_files;
pub mod processes;
pub mod stack;
pub mod symbols;
