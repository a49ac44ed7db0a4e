//! The eBPF programs one by one, as the kernel measures them.
use std::{fs, process::Command};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::cmd;

/// As bpftool names its members.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Program {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) run_time_ns: u64,
    #[serde(default)]
    pub(crate) run_cnt: u64,
    /// Instructions that the verifier walked.
    #[serde(default)]
    pub(crate) verified_insns: u64,
    #[serde(default)]
    pub(crate) bytes_jited: u64,
}

/// Makes the kernel time each run of a program, or not (kernel/bpf/syscall.c:bpf_stats_handler).
pub(super) fn measure(on: bool) -> Result<()> {
    let word = if on { "1" } else { "0" };
    fs::write("/proc/sys/kernel/bpf_stats_enabled", word).context("bpf_stats_enabled")
}

/// All that are loaded, and ran.
pub(super) fn look() -> Result<Vec<Program>> {
    let text = cmd::output(Command::new("bpftool").args(["-j", "prog", "show"]))?;
    let all: Vec<Program> = serde_json::from_str(&text).context("bpftool's list")?;
    Ok(all.into_iter().filter(|program| program.run_cnt != 0).collect())
}
