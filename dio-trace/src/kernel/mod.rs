//! Capabilities of the running kernel: its BTF, the table of probes, preemption, preflight checks.

pub mod btf;
pub mod cache_probes;
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

/// Bytes in a page of the running kernel.
pub(crate) fn page_size() -> u64 {
    // SAFETY: no preconditions.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// The version of the running kernel as its distribution tells it apart from `uname -r`, which may
/// hide the stable release; `None` if it does not tell.
pub(crate) fn upstream() -> Option<String> {
    upstream_of(&line("/proc/version_signature"), &line("/proc/version"))
}

/// Ubuntu's /proc/version_signature ends with the version, Debian's /proc/version has it after the
/// last "Debian".
fn upstream_of(signature: &str, version: &str) -> Option<String> {
    let ubuntu = signature.split(' ').nth(2);
    let debian = || version.rsplit_once(" Debian ").and_then(|(_, rest)| rest.split('-').next());
    ubuntu.or_else(debian).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_tell_the_upstream_version() {
        let debian = "Linux version 6.1.0-56-amd64 (debian-kernel@lists.debian.org) (gcc-12 (Debian \
                      12.2.0-14) 12.2.0) #1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-16)";
        assert_eq!(upstream_of("", debian).as_deref(), Some("6.1.192"));
        let ubuntu = "Ubuntu 6.8.0-45.45-generic 6.8.12";
        assert_eq!(upstream_of(ubuntu, "Linux version 6.8.0").as_deref(), Some("6.8.12"));
        assert_eq!(upstream_of("", "Linux version 7.3.4 (me@here) #1 SMP"), None);
    }
}
