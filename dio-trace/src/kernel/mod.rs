//! Capabilities of the running kernel: its BTF, the table of probes, preemption, preflight checks.

pub mod btf;
pub mod preempt;
pub mod preflight;
pub mod probes;

/// Reads a file of /proc or /sys without trailing whitespace; empty if it cannot be read.
pub(crate) fn line(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim_end().to_owned()
}

/// `uname -r`.
pub(crate) fn release() -> String {
    line("/proc/sys/kernel/osrelease")
}
