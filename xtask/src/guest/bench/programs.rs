//! The eBPF programs one by one, as the kernel measures them.
use std::{collections::HashMap, fs, path::Path, process::Command};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::{guest::contract::bench::Program, host::cmd};

/// As bpftool names its members.
#[derive(Deserialize)]
struct Listed {
    id: u64,
    #[serde(default)]
    name: String,
}

/// Makes the kernel time each run of a program, or not (kernel/bpf/syscall.c:bpf_stats_handler).
pub(super) fn measure(on: bool) -> Result<()> {
    let word = if on { "1" } else { "0" };
    fs::write("/proc/sys/kernel/bpf_stats_enabled", word).context("bpf_stats_enabled")
}

/// Those that a process has loaded, and that ran.
pub(super) fn look(pid: u32) -> Result<Vec<Program>> {
    let text = cmd::output(Command::new("bpftool").args(["-j", "prog", "show"]))?;
    let all: Vec<Listed> = serde_json::from_str(&text).context("bpftool's list")?;
    let names: HashMap<u64, String> = all.into_iter().map(|row| (row.id, row.name)).collect();
    let mut programs = Vec::new();
    for entry in fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fdinfo"))? {
        // One that was closed meanwhile is no program.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        programs.extend(parse(&text, &names));
    }
    programs.sort_by(|one, other| one.name.cmp(&other.name));
    programs.dedup_by(|one, other| one.name == other.name);
    Ok(programs)
}

/// A descriptor's fdinfo, if it is that of a program that ran (kernel/bpf/syscall.c:
/// bpf_prog_show_fdinfo).
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
