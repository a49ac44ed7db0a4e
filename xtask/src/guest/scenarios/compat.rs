//! 32-bit programs: the kernel reads their iovecs in the layout of `struct compat_iovec`, and
//! dio-trace must too.
//!
//! The program is a 64-bit one that makes system calls of the 32-bit table by `int 0x80`
//! (arch/x86/entry/entry_64_compat.S), with everything that they point to below 4 GiB.
use std::{
    fs::File,
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    path::Path,
};

use anyhow::{Context, Result, bail};

use crate::{
    guest::{
        fixtures::Place,
        harness::Tried,
        tally::plain::{Line, Traced, UserArgs, traced},
    },
    host::cmd::text,
};

/// The fixtures of the scenario.
pub(crate) const SETUPS: &[&str] = &["ext4-512", "ext4-journal"];
/// The number of runs of dio-trace.
pub(crate) const RUNS: u64 = 1;
const BLOCK: usize = 4096;
const BLOCKS: usize = 40;
/// The number of segments of each vector; the probes read the first sixteen and the rest
/// differently.
const VECTORS: &[usize] = &[1, 2, 16, 19, 33];
/// preadv in the 32-bit table (arch/x86/entry/syscalls/syscall_32.tbl).
const PREADV: u32 = 333;

/// struct compat_iovec (include/linux/compat.h)
#[repr(C)]
struct CompatIovec {
    base: u32,
    len: u32,
}

/// The program: reads each file by vectors, aligned and not.
pub(crate) fn user(args: &UserArgs) -> Result<()> {
    let memory = low_memory((BLOCKS + 1) * BLOCK)?;
    let mut tally = Vec::new();
    for path in &args.file {
        let file = File::options().read(true).custom_flags(libc::O_DIRECT).open(path);
        let file = file.with_context(|| format!("cannot open {}", path.display()))?;
        for segments in VECTORS {
            for odd in [0, 100] {
                let (len, ret) = read(&file, memory, *segments, odd);
                let path = text(path)?.to_owned();
                tally.push(Line { path, op: "read".to_owned(), offset: 0, len, ret });
            }
        }
    }
    args.write(&tally)
}

/// Memory below 4 GiB.
fn low_memory(len: usize) -> Result<u32> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE | MAP_32BIT;
    // SAFETY: a new anonymous mapping.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        bail!("no memory below 4 GiB");
    }
    u32::try_from(start as usize).context("MAP_32BIT gave a high address")
}

/// Reads one block into each of some segments. `odd` bytes are moved from the first to the last, or
/// left out if it is the only one. Returns the requested length and the result.
fn read(file: &File, memory: u32, segments: usize, odd: u32) -> (u64, i64) {
    let iovecs = memory + (BLOCKS * BLOCK) as u32;
    let mut len = 0;
    for n in 0..segments {
        let block = BLOCK as u32;
        let length = match n {
            0 => block - odd,
            _ if n == segments - 1 => block + odd,
            _ => block,
        };
        let iovec = CompatIovec { base: memory + n as u32 * block, len: length };
        len += u64::from(iovec.len);
        // SAFETY: within the last page of our mapping, which has room for 512 of them.
        unsafe { (iovecs as usize as *mut CompatIovec).add(n).write(iovec) };
    }
    (len, preadv(file.as_raw_fd(), iovecs, segments))
}

#[cfg(target_arch = "x86_64")]
const MAP_32BIT: i32 = libc::MAP_32BIT;
#[cfg(not(target_arch = "x86_64"))]
const MAP_32BIT: i32 = 0;

/// preadv at offset 0, as a 32-bit program makes it; returns the raw result.
#[cfg(target_arch = "x86_64")]
fn preadv(fd: i32, iovecs: u32, segments: usize) -> i64 {
    let result: u32;
    // SAFETY: the kernel writes only to what the iovecs describe. The compiler keeps rbx, so that it
    // is exchanged.
    unsafe {
        std::arch::asm!(
            "xchg {fd:r}, rbx",
            "int 0x80",
            "xchg {fd:r}, rbx",
            fd = inout(reg) u64::from(fd as u32) => _,
            inlateout("eax") PREADV => result,
            in("ecx") iovecs,
            in("edx") segments as u32,
            in("esi") 0,
            in("edi") 0,
            // The entry clears them (arch/x86/entry/entry_64_compat.S).
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    i64::from(result as i32)
}

/// Only x86-64 lets a 64-bit program make 32-bit system calls.
#[cfg(not(target_arch = "x86_64"))]
fn preadv(_: i32, _: u32, _: usize) -> i64 {
    let _ = PREADV;
    -i64::from(libc::ENOSYS)
}

/// Runs the program under dio-trace; returns the mismatches.
pub(crate) fn check(tried: &Tried, places: &[Place], out: &Path) -> Result<Vec<String>> {
    let Traced { tally, talk, mut wrong } = traced(tried, places, out, "compat", BLOCKS * BLOCK)?;
    if !tally.iter().any(|line| line.ret > 0) {
        wrong.push(format!("no 32-bit read worked: {tally:?}"));
    }
    // The reason needs the lengths of the segments, which a probe reads at completion.
    let segment = "a segment's length is not a multiple of 512";
    let named = talk.lines().filter(|line| line.contains("\"EINVAL\"") && line.contains(segment));
    let (named, wanted) = (named.count(), VECTORS.iter().filter(|segments| **segments > 1).count());
    if named != wanted {
        wrong.push(format!("{named} refused reads name their segment, not {wanted}: {talk}"));
    }
    Ok(wrong)
}
