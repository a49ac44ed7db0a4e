//! Why a request stopped before its end, as far as the thread that made it can tell.

use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_probe_read_user};
use dio_trace_common::{
    abi::{API_SPLICE, REQ_BLOCK_DEVICE, REQ_VECTORED, Request},
    evidence::seen,
};

use crate::kernel::{SIGPENDING_SIGNAL, TASK_PENDING, read};

const SECTOR: u64 = 512;
/// Segments of a vector looked through.
const MAX_SEGMENTS: u32 = 16;

/// Looks at the buffer where the count of `done` bytes stopped, and whether the thread is being
/// killed.
#[inline(always)]
pub unsafe fn look(request: *mut Request, done: u64) {
    // SAFETY: per the caller, a request of a map that ends in this thread.
    unsafe {
        // Some buffers are the kernel's: of a pipe, or chosen by io_uring.
        let own = (*request).api != API_SPLICE && (*request).user != 0;
        if own && !reachable(request, done) {
            (*request).evidence.seen |= seen::BUFFER_FAULT;
            let stuck = (*request).evidence.seen & seen::INVALIDATE_FAILED != 0;
            if (*request).flags & REQ_BLOCK_DEVICE != 0 && !stuck && done % SECTOR == 0 {
                (*request).evidence.seen &= !seen::BUFFERED_WRITE;
            }
        }
        if killed() {
            (*request).evidence.seen |= seen::KILLED;
        }
    }
}

/// True if the buffer can be accessed in the block behind `done` bytes. The kernel gives up whole
/// blocks, so that the fault lies within one of them. Had the memory only been paged out, the
/// request would have brought it in.
#[inline(always)]
unsafe fn reachable(request: *const Request, done: u64) -> bool {
    const BLOCK: u64 = 4096;
    // SAFETY: per the caller.
    let Some((start, left)) = (unsafe { rest(request, done) }) else { return true };
    let last = if left < BLOCK { left } else { BLOCK } - 1;
    byte_at(start) && byte_at(start + last)
}

/// User address and length of what is left of the segment in which byte `done` lies.
#[inline(always)]
unsafe fn rest(request: *const Request, mut done: u64) -> Option<(u64, u64)> {
    // SAFETY: per the caller.
    let (user, len, flags, segments) =
        unsafe { ((*request).user, (*request).len, (*request).flags, (*request).nr_segs) };
    if flags & REQ_VECTORED == 0 {
        return Some((user + done, len - done));
    }
    for i in 0..MAX_SEGMENTS {
        if i >= segments {
            break;
        }
        let mut iovec = [0u64; 2]; // struct iovec: base, length
        let at = user + u64::from(i) * 16;
        // SAFETY: 16 bytes of our own; the helper checks the user address.
        if unsafe { bpf_probe_read_user((&raw mut iovec).cast(), 16, at as *const _) } != 0 {
            break;
        }
        if done < iovec[1] {
            return Some((iovec[0] + done, iovec[1] - done));
        }
        done -= iovec[1];
    }
    None
}

#[inline(always)]
fn byte_at(user: u64) -> bool {
    let mut byte = 0u8;
    // SAFETY: one byte of our own; the helper checks the user address.
    unsafe { bpf_probe_read_user((&raw mut byte).cast(), 1, user as *const _) == 0 }
}

/// SIGKILL is pending for this thread, as it is for every thread of a process that a signal ends
/// (kernel/signal.c:complete_signal).
#[inline(always)]
fn killed() -> bool {
    const SIGKILL: u64 = 1 << 8;
    // SAFETY: returns the current task.
    let task = unsafe { bpf_get_current_task() };
    // sigset_t is an array of words, of which the first has the signals up to 64.
    let pending: u64 = read(task + u64::from(TASK_PENDING.load()), &SIGPENDING_SIGNAL);
    pending & SIGKILL != 0
}
