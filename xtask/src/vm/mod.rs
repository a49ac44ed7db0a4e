//! Virtual machines: real kernels to test in.
//!
//! - [`kernels`], [`initrd`], [`qemu`]: what is booted, and how
//! - [`boot`]: boots a VM; [`running`]: one that is up
//! - [`run_folder`]: the files that the host and the guest exchange
//! - [`interrupts`]: what Ctrl-C does meanwhile
//! - [`guest_part`]: a command of `cargo xtask guest` in a VM of its own, and the rows it writes
pub(crate) mod boot;
pub(crate) mod guest_part;
mod initrd;
pub(crate) mod interrupts;
pub(crate) mod kernels;
pub(crate) mod qemu;
mod run_folder;
pub(crate) mod running;
