//! Drops the capabilities that are no longer needed once the probes are attached.

use std::io;

use caps::{CapSet, Capability, CapsHashSet};

/// Needed to read maps where the kernel checks it at every lookup (before 6.0;
/// kernel/bpf/syscall.c).
pub const READING_MAPS: Capability = Capability::CAP_BPF;

/// Needed to inspect other users' processes and files, in order to name and explain them.
pub const LOOKING: &[Capability] = &[
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_CHECKPOINT_RESTORE,
];

/// Needed to create the next file of a recording in a directory that another user owns.
pub const CREATING: &[Capability] = &[Capability::CAP_DAC_OVERRIDE];

/// Drops all capabilities of this thread except those in `keep`, permanently. Threads that it
/// starts later inherit the reduced set.
///
/// # Errors
/// Those of capset(2).
pub fn give_up_but(keep: &[Capability]) -> io::Result<()> {
    let own = caps::read(None, CapSet::Permitted).map_err(io::Error::other)?;
    let left: CapsHashSet = own.intersection(&keep.iter().copied().collect()).copied().collect();
    // Without CAP_SETPCAP the bounding set stays as it is. That is harmless: this process executes
    // no other program, which is the only way to gain from it.
    let _ = caps::clear(None, CapSet::Bounding);
    let _ = caps::clear(None, CapSet::Ambient);
    caps::set(None, CapSet::Effective, &left).map_err(io::Error::other)?;
    caps::set(None, CapSet::Permitted, &left).map_err(io::Error::other)?;
    caps::clear(None, CapSet::Inheritable).map_err(io::Error::other)?;
    // SAFETY: plain system call; from here on no exec can gain privileges.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// True if `works` returns true without the capabilities `caps`, which are restored afterwards.
///
/// # Errors
/// Those of capset(2).
pub fn works_without(caps: &[Capability], works: impl FnOnce() -> bool) -> io::Result<bool> {
    let own = caps::read(None, CapSet::Effective).map_err(io::Error::other)?;
    let less: CapsHashSet = own.difference(&caps.iter().copied().collect()).copied().collect();
    caps::set(None, CapSet::Effective, &less).map_err(io::Error::other)?;
    let works = works();
    caps::set(None, CapSet::Effective, &own).map_err(io::Error::other)?;
    Ok(works)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_up_is_gone() {
        // In a separate thread, because the capabilities cannot be restored.
        let left = std::thread::spawn(|| {
            let before = caps::read(None, CapSet::Permitted).unwrap();
            assert!(
                works_without(&[READING_MAPS], || {
                    !caps::has_cap(None, CapSet::Effective, READING_MAPS).unwrap()
                })
                .unwrap()
            );
            assert_eq!(caps::read(None, CapSet::Effective).unwrap(), before);
            give_up_but(LOOKING).unwrap();
            let left = caps::read(None, CapSet::Permitted).unwrap();
            assert_eq!(left, caps::read(None, CapSet::Effective).unwrap());
            assert!(left.is_subset(&before));
            left
        })
        .join()
        .unwrap();
        assert!(left.iter().all(|cap| LOOKING.contains(cap)), "{left:?}");
    }
}
