//! What must be there before anything is loaded, said in plain words.

use std::{fs, path::Path};

use anyhow::{Result, bail};

const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Checks privilege, BTF and lockdown.
///
/// # Errors
/// One line: what is missing, why it is needed, what to do.
pub fn check() -> Result<()> {
    let caps = effective_caps(&fs::read_to_string("/proc/self/status").unwrap_or_default());
    let has = |cap: u32| caps & (1 << cap) != 0;
    let enough = has(CAP_SYS_ADMIN) || (has(CAP_BPF) && has(CAP_PERFMON));
    if !enough {
        let missing: Vec<_> = [(CAP_BPF, "CAP_BPF"), (CAP_PERFMON, "CAP_PERFMON")]
            .iter()
            .filter(|(cap, _)| !has(*cap))
            .map(|(_, name)| *name)
            .collect();
        bail!(
            "no permission to load eBPF programs ({} missing): run as root with sudo, or once \
             `sudo setcap cap_bpf,cap_perfmon,cap_dac_read_search,cap_sys_ptrace+ep $(command -v \
             dio-trace)`",
            missing.join(" and ")
        );
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        bail!(
            "this kernel has no type information (/sys/kernel/btf/vmlinux): the probes cannot find \
             their way in its structs; use a kernel built with CONFIG_DEBUG_INFO_BTF (Debian, \
             Ubuntu, Fedora and RHEL kernels are)"
        );
    }
    if lockdown(&fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default()) {
        bail!(
            "kernel lockdown is in mode `confidentiality`, which forbids eBPF to read kernel \
             memory: boot with lockdown=integrity or without it (Secure Boot alone does not \
             require confidentiality)"
        );
    }
    Ok(())
}

fn effective_caps(status: &str) -> u64 {
    status
        .lines()
        .find_map(|l| l.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0)
}

fn lockdown(modes: &str) -> bool {
    modes.contains("[confidentiality]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_and_lockdown_are_read() {
        assert_eq!(effective_caps("Name:\tx\nCapEff:\t000000c000000000\n"), 3 << CAP_PERFMON);
        assert_eq!(effective_caps("nothing"), 0);
        assert!(lockdown("none integrity [confidentiality]\n"));
        assert!(!lockdown("[none] integrity confidentiality\n"));
    }
}
