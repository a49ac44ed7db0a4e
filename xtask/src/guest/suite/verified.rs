//! How many instructions the verifier walked for each eBPF program that is loaded.
//!
//! The number is what limits the probes: the verifier gives up at one million
//! (kernel/bpf/verifier.c:BPF_COMPLEXITY_LIMIT_INSNS). It differs by kernel.
use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};
use aya::programs::loaded_programs;

use crate::guest::{contract::suite::VERIFIED, harness::Tried};

/// Writes the numbers of the programs that are loaded now. Kernels before 5.16 do not have them:
/// nothing is written there. Names are cut to 15 characters by the kernel; of programs whose names
/// are then the same the largest number counts.
pub(super) fn write(tried: &Tried, folder: &Path) -> Result<()> {
    let mut programs: BTreeMap<String, u32> = BTreeMap::new();
    for program in loaded_programs() {
        let program = program.context("cannot list the loaded programs")?;
        let (Some(name), Some(verified)) =
            (program.name_as_str(), program.verified_instruction_count())
        else {
            continue;
        };
        let most = programs.entry(name.to_owned()).or_default();
        *most = verified.max(*most);
    }
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
