//! Queries the kernel about a loaded program (BPF_OBJ_GET_INFO_BY_FD).

use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::programs::Program;

/// Number of runs that BPF skipped because the program was already active on that CPU
/// (`bpf_prog_info.recursion_misses`, since 5.12); 0 if the kernel does not report it.
pub(super) fn skipped_runs(program: &Program) -> u64 {
    const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
    // include/uapi/linux/bpf.h, struct bpf_prog_info
    const MISSES_AT: usize = 208;
    #[repr(C)]
    struct Attr {
        fd: u32,
        len: u32,
        info: u64,
    }
    let Ok(fd) = program.fd() else { return 0 };
    let mut info = [0u64; (MISSES_AT + 8) / 8];
    let attr = Attr {
        fd: fd.as_fd().as_raw_fd() as u32,
        len: (MISSES_AT + 8) as u32,
        info: info.as_mut_ptr() as u64,
    };
    // SAFETY: the kernel writes at most `len` bytes to `info`, which has as many.
    let failed = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &raw const attr, size_of::<Attr>())
    } != 0;
    if failed { 0 } else { info[MISSES_AT / 8] }
}
