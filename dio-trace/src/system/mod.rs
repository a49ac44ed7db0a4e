//! Reads the state of this machine's processes, mounts, files and devices without changing it.

pub mod btrfs;
pub mod cgroup;
pub mod container;
pub mod device;
pub mod extents;
pub mod file_attrs;
pub mod file_system;
pub mod file_users;
pub mod mappings;
pub(crate) mod mounts;
pub(crate) mod namespaces;
pub mod open_files;
pub mod processes;
pub mod stack;
pub(crate) mod statx;
pub mod symbols;
pub(crate) mod volume;
