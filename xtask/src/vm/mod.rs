//! Virtual machines: boots real kernels in QEMU and runs commands in them.
//!
//! - [`kernels`], [`initrd`], [`qemu`]: the kernel, the initramfs and QEMU's command line
//! - [`platform`]: the machine of each architecture; [`userland`]: roots of guests
//! - [`boot`]: boots a VM; [`running`]: runs commands in a VM that is up, and stops it
//! - [`run_folder`]: the files that the host and the guest exchange
//! - [`interrupts`]: handles Ctrl-C and SIGTERM while a VM runs
//! - [`guest_part`]: runs a command of `cargo xtask guest` in its own VM and reads the rows it
//!   writes
pub(crate) mod boot;
pub(crate) mod guest_part;
mod initrd;
pub(crate) mod interrupts;
pub(crate) mod kernels;
pub(crate) mod platform;
pub(crate) mod qemu;
mod run_folder;
pub(crate) mod running;
pub(crate) mod userland;
