//! Rule for buffers whose memory the kernel cannot use.

use crate::{
    cause::{Case, Reason, Rule, Scenario},
    system::mappings::Memory,
};

pub(super) const EFAULT: Rule = Rule {
    id: "efault",
    title: "EFAULT: the kernel cannot use the buffer's memory",
    means: "Direct I/O pins the pages of the buffer. That fails where nothing is mapped as far as \
            the length says, where a read got memory that is read-only, where a mapped file ends, \
            and for memory that may not be pinned: a device's (VM_IO, VM_PFNMAP, as GPUs, FPGAs \
            and PCI BARs map it) and that of memfd_secret. A buffered request copies, and may work \
            with the same memory. On most file systems the whole request fails even if the first \
            pages were good.",
    proof: "The request ended with EFAULT, and /proc/PID/maps (for device memory the VmFlags of \
            smaps) shows what is at the buffer's address right after it. Likely where the process \
            had exited, for a vector, in a recording, or where the mapping shows nothing wrong.",
    fix: "compare the buffer's address and length with /proc/PID/maps; look for a length larger \
          than the allocation, a buffer freed or unmapped while requests are in flight, or memory \
          of a device (VmFlags io, pf in /proc/PID/smaps)",
    on: "ext4, xfs, f2fs (block devices and vfat return a short count instead: short-fault)",
    scenario: Scenario::Program("reports"),
    test: efault,
};

fn efault(case: &Case<'_>) -> Option<Reason> {
    case.failed_with(libc::EFAULT)
        .then(|| case.memory.map_or_else(|| unknown(case), |memory| mapped(case, memory)))
}

/// The access that the request needs to its buffer.
const fn need(case: &Case<'_>) -> &'static str {
    if case.is_write() { "readable" } else { "writable" }
}

/// The reason where the mapping is unknown.
fn unknown(case: &Case<'_>) -> Reason {
    Reason::likely(format!(
        "the buffer is not mapped and {} for all of its {} bytes, or is memory that may not be \
         pinned (a device's, memfd_secret)",
        need(case),
        case.request.len
    ))
}

/// The reason that the mapping shows (mm/gup.c:check_vma_flags).
fn mapped(case: &Case<'_>, memory: &Memory) -> Reason {
    let len = case.request.len;
    match memory {
        // The program may have freed it since.
        Memory::Unmapped { byte: 0 } => Reason::likely(format!(
            "nothing was mapped at the buffer's address, as is now (/proc/{}/maps)",
            case.request.task.tgid
        )),
        Memory::Unmapped { byte } => Reason::proven(format!(
            "nothing is mapped at byte {byte} of the buffer's {len} (/proc/{}/maps)",
            case.request.task.tgid
        )),
        Memory::Guard { byte } => Reason::proven(format!(
            "byte {byte} of the buffer's {len} is in a mapping without access (PROT_NONE), as a \
             guard page is"
        )),
        Memory::Forbidden { byte, name } => {
            let (access, file) = (if case.is_write() { "read" } else { "write" }, in_file(name));
            Reason::proven(format!(
                "the mapping at byte {byte} of the buffer's {len} does not permit to {access}{file}"
            ))
        }
        Memory::Device { name } => Reason::proven(format!(
            "the buffer is memory of a device ({name}; VmFlags io or pf), which direct I/O cannot \
             pin"
        ))
        .with_fix(
            "read into ordinary memory and copy it from there (a bounce buffer), or use an \
             interface made for device memory: dma-buf, GPUDirect Storage, PCI peer-to-peer",
        ),
        Memory::Secret => {
            Reason::proven("the buffer is memory of memfd_secret(2), which direct I/O cannot pin")
                .with_fix("read into ordinary memory and copy it from there (a bounce buffer)")
        }
        Memory::Mapped => Reason::likely(format!(
            "the buffer's {len} bytes were not mapped and {} while the request ran (they are now), \
             or a file mapped there ends before them",
            need(case)
        )),
    }
}

fn in_file(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(" ({name})") }
}
