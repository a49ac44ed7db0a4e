//! Checks before loading: privilege, kernel types and lockdown. Each failure is one sentence that
//! says what is missing, why it is needed and what to do.

use std::{fs, path::Path};

use anyhow::{Result, bail};

/// Numbers of the capabilities that are checked here (include/uapi/linux/capability.h).
pub mod cap {
    pub const DAC_READ_SEARCH: u32 = 2;
    pub const SYS_PTRACE: u32 = 19;
    pub const SYS_ADMIN: u32 = 21;
    pub const SYS_RESOURCE: u32 = 24;
    pub const PERFMON: u32 = 38;
    pub const BPF: u32 = 39;
}

/// A check: `None` if passed, else what is missing, why it is needed and what to do.
pub type Lack = fn() -> Option<String>;

/// The checks that must pass before the probes are loaded, with their names.
pub const NEEDS: &[(&str, Lack)] = &[
    ("privilege", || lacks_privilege(&status())),
    ("kernel types", lacks_types),
    ("lockdown", || lacks_freedom(&read("/sys/kernel/security/lockdown"))),
];

/// Checks privilege, BTF and lockdown.
///
/// # Errors
/// If a check fails: one line with what is missing, why it is needed and what to do.
pub fn check() -> Result<()> {
    match NEEDS.iter().find_map(|(_, check)| check()) {
        Some(missing) => bail!(missing),
        None => Ok(()),
    }
}

/// The message to show if [`has_kprobes`] is false.
pub const NO_KPROBES: &str = "this kernel is built without CONFIG_KPROBE_EVENTS";

/// True if kprobes can be attached.
#[must_use]
pub fn has_kprobes() -> bool {
    Path::new("/sys/bus/event_source/devices/kprobe").exists()
}

/// Explains why the kernel denies kprobes to a process that has CAP_PERFMON but not CAP_SYS_ADMIN;
/// `None` if it does not.
#[must_use]
pub fn lacks_perf_events() -> Option<String> {
    lacks_perf(&read("/proc/sys/kernel/perf_event_paranoid"), has_cap(cap::SYS_ADMIN))
}

/// Debian's kernels have a level 3, at which perf_event_open(2) requires CAP_SYS_ADMIN.
fn lacks_perf(paranoid: &str, admin: bool) -> Option<String> {
    let level: i32 = paranoid.trim().parse().ok()?;
    (level > 2 && !admin).then(|| {
        format!(
            "kernel.perf_event_paranoid is {level}, so kprobes require CAP_SYS_ADMIN: leave out \
             `--attach kprobe` where the kernel has fentry, run as root with sudo, or `sudo sysctl \
             kernel.perf_event_paranoid=2`"
        )
    })
}

/// Explains why the kernel may refuse to create a map; `None` if the limit is not the reason.
/// Before 5.11 maps are charged as locked memory (kernel/bpf/syscall.c:bpf_charge_memlock), and
/// raising that limit requires a capability.
#[must_use]
pub fn lacks_locked_memory() -> Option<String> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: fills one rlimit.
    let asked = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } == 0;
    (asked && limit.rlim_cur != libc::RLIM_INFINITY && !has_cap(cap::SYS_RESOURCE)).then(|| {
        format!(
            "the kernel refused memory for eBPF maps; before 5.11 that is locked memory, of which this \
             user may have {} KiB: raise it (`ulimit -l unlimited`), add cap_sys_resource to the \
             capabilities of setcap, or run as root with sudo",
            limit.rlim_cur / 1024
        )
    })
}

/// True if this process has the capability.
#[must_use]
pub fn has_cap(cap: u32) -> bool {
    effective_caps(&status()) & (1 << cap) != 0
}

fn lacks_privilege(status: &str) -> Option<String> {
    let caps = effective_caps(status);
    let has = |cap: u32| caps & (1 << cap) != 0;
    if has(cap::SYS_ADMIN) || (has(cap::BPF) && has(cap::PERFMON)) {
        return None;
    }
    let missing: Vec<_> = [(cap::BPF, "CAP_BPF"), (cap::PERFMON, "CAP_PERFMON")]
        .iter()
        .filter(|(cap, _)| !has(*cap))
        .map(|(_, name)| *name)
        .collect();
    Some(format!(
        "no permission to load eBPF programs ({} missing): run as root with sudo, or once \
         `sudo setcap cap_bpf,cap_perfmon,cap_dac_read_search,cap_sys_ptrace+ep $(command -v \
         dio-trace)`",
        missing.join(" and ")
    ))
}

fn lacks_types() -> Option<String> {
    (!Path::new("/sys/kernel/btf/vmlinux").exists()).then(|| {
        "this kernel has no type information (/sys/kernel/btf/vmlinux): the probes cannot find \
         the members of its structs; use a kernel built with CONFIG_DEBUG_INFO_BTF (Debian, \
         Ubuntu, Fedora and RHEL kernels are)"
            .to_owned()
    })
}

fn lacks_freedom(modes: &str) -> Option<String> {
    modes.contains("[confidentiality]").then(|| {
        "kernel lockdown is in mode `confidentiality`, which forbids eBPF to read kernel memory: \
         boot with lockdown=integrity or without it (Secure Boot alone does not require \
         confidentiality)"
            .to_owned()
    })
}

fn status() -> String {
    read("/proc/self/status")
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn effective_caps(status: &str) -> u64 {
    status
        .lines()
        .find_map(|l| l.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_and_lockdown_are_read() {
        assert_eq!(effective_caps("Name:\tx\nCapEff:\t000000c000000000\n"), 3 << cap::PERFMON);
        assert_eq!(effective_caps("nothing"), 0);
        assert!(lacks_freedom("none integrity [confidentiality]\n").is_some());
        assert!(lacks_freedom("[none] integrity confidentiality\n").is_none());
    }

    #[test]
    fn a_paranoid_kernel_is_reported() {
        let text = lacks_perf("3\n", false).unwrap();
        assert!(text.contains("perf_event_paranoid=2"), "{text}");
        assert_eq!(
            [lacks_perf("3", true), lacks_perf("2", false), lacks_perf("", false)],
            [const { None }; 3]
        );
    }

    #[test]
    fn the_missing_capability_is_named() {
        assert_eq!(lacks_privilege("CapEff:\t000000c000000000\n"), None);
        assert_eq!(lacks_privilege("CapEff:\t0000000000200000\n"), None);
        let text = lacks_privilege("CapEff:\t0000008000000000\n").unwrap();
        assert!(text.contains("(CAP_PERFMON missing)"), "{text}");
    }
}
