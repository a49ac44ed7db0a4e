//! Memory use of a benchmark.

use anyhow::{Context as _, Result};

/// The peak resident memory of this process in KiB (proc(5), VmHWM).
pub fn peak() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
    kib.context("no VmHWM in /proc/self/status")
}
