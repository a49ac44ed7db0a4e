//! How many instructions the verifier walked for each eBPF program that is loaded.
//!
//! The number is what limits the probes: the verifier gives up at one million
//! (kernel/bpf/verifier.c:BPF_COMPLEXITY_LIMIT_INSNS). It differs by kernel.
use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};

use crate::guest::{
    contract::suite::VERIFIED,
    harness::{Tried, verified_instructions},
};

/// Writes the numbers of the programs that are loaded now, if this kernel has them.
pub(super) fn write(tried: &Tried, folder: &Path) -> Result<()> {
    let programs = verified_instructions()?;
    if programs.is_empty() {
        return Ok(());
    }
    let mut text = String::new();
    for (name, verified) in programs {
        let _ = writeln!(text, "{}\t{}\t{name}\t{verified}", tried.series, tried.attach);
    }
    let path = folder.join(VERIFIED);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}
