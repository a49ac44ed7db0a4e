//! The run time of each eBPF program, as the kernel measures it.
use std::{collections::HashMap, fs, path::Path, process::Command};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::{guest::contract::bench::Program, host::cmd};

/// A row of bpftool's list of programs, with bpftool's field names.
#[derive(Deserialize)]
struct Listed {
    id: u64,
    #[serde(default)]
    name: String,
}

/// Switches the kernel's timing of eBPF programs on or off (kernel/bpf/syscall.c:
/// bpf_stats_handler).
pub(super) fn measure(on: bool) -> Result<()> {
    let word = if on { "1" } else { "0" };
    fs::write("/proc/sys/kernel/bpf_stats_enabled", word).context("bpf_stats_enabled")
}

/// The programs that a process has loaded and that have run.
pub(super) fn look(pid: u32) -> Result<Vec<Program>> {
    let text = cmd::output(Command::new("bpftool").args(["-j", "prog", "show"]))?;
    let all: Vec<Listed> = serde_json::from_str(&text).context("bpftool's list")?;
    let names: HashMap<u64, String> = all.into_iter().map(|row| (row.id, row.name)).collect();
    let mut programs = Vec::new();
    for entry in fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fdinfo"))? {
        // A descriptor that was closed in the meantime is skipped.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        programs.extend(parse(&text, &names));
    }
    programs.sort_by(|one, other| one.name.cmp(&other.name));
    programs.dedup_by(|one, other| one.name == other.name);
    Ok(programs)
}

/// Parses a descriptor's fdinfo (kernel/bpf/syscall.c:bpf_prog_show_fdinfo); `None` if it is not a
/// program, or one that has not run.
fn parse(text: &str, names: &HashMap<u64, String>) -> Option<Program> {
    let number = |key: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.trim().parse().ok()
    };
    let (id, runs) = (number("prog_id")?, number("run_cnt")?);
    let ns = number("run_time_ns")?;
    let verified = number("verified_insns").unwrap_or_default();
    (runs != 0).then(|| Program {
        name: names.get(&id).cloned().unwrap_or_default(),
        runs,
        ns,
        verified,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_fdinfo() {
        let names = HashMap::from([(7, "fe_vfs_read".to_owned())]);
        let text = "pos:\t0\nprog_id:\t7\nrun_time_ns:\t900\nrun_cnt:\t3\nverified_insns:\t512\n";
        let program = parse(text, &names).expect("a program");
        assert_eq!((program.name.as_str(), program.runs), ("fe_vfs_read", 3));
        assert_eq!((program.ns, program.verified), (900, 512));
        assert!(parse("pos:\t0\nmap_id:\t3\n", &names).is_none());
        assert!(parse(&text.replace("run_cnt:\t3", "run_cnt:\t0"), &names).is_none());
    }
}
