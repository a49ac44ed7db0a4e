//! Issue and completion of requests, by the kernel file whose functions are probed.
//!
//! Position and length are read at the entry, rather than in `rw_verify_area`, which all of them
//! call: every read and write of the system goes through that one, and bystanders would pay for it.

pub mod aio;
pub mod io_uring;
pub mod read_write;
pub mod splice;
pub mod sys_exit;

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use dio_trace_common::abi::Stat;

use crate::{
    filter::{Direct, direct, process_wanted},
    kernel_memory::{Args, read_at},
    maps::count,
    preempt::PreemptGuard,
    thread_table::{ThreadRef, get_or_claim},
    user_memory::{Iovec, read_user},
};

/// A thread that may issue a request, with preemption off while this lives.
struct Admitted {
    thread: ThreadRef,
    direct: Direct,
    _guard: PreemptGuard,
}

/// Sends away threads that are not traced: a few loads and, for a direct file, one look-up.
#[inline(always)]
fn admitted<A: Args>(ctx: &A, file: u64) -> Option<Admitted> {
    let direct = direct(ctx, file)?;
    let id = bpf_get_current_pid_tgid();
    if !process_wanted(id) {
        return None;
    }
    let guard = PreemptGuard::new();
    let Some(thread) = get_or_claim(id) else {
        count(Stat::LostThread);
        return None;
    };
    Some(Admitted { thread, direct, _guard: guard })
}

/// `*ppos`; a pointer to a scalar has no BTF type to load through.
#[inline(always)]
fn position(ppos: u64) -> i64 {
    read_at(ppos)
}

/// Sum of the lengths of `segments` iovecs in user memory; 0, which opens no request, if they
/// cannot be read (the kernel read them a moment ago, or the call fails with EFAULT).
///
/// Sixteen at a time, then the rest one by one. The number lies in the thread's record, not in a
/// register: so the verifier sees one state in every step. Otherwise it would follow each way out
/// of the loops by itself, once more in every program.
#[inline(never)]
fn vector_len(thread: ThreadRef, user: u64, segments: u32) -> u64 {
    const UIO_MAXIOV: u32 = 1024; // include/uapi/linux/uio.h
    const CHUNK: u32 = 16;
    let kept = thread.nr_segs();
    kept.set_volatile(segments);
    let mut sum: u64 = 0;
    for chunk in 0..UIO_MAXIOV / CHUNK {
        if (chunk + 1) * CHUNK > kept.get_volatile() {
            break;
        }
        let at = user + u64::from(chunk) * size_of::<[Iovec; CHUNK as usize]>() as u64;
        let Some(iovecs) = read_user::<[Iovec; CHUNK as usize]>(at) else { return unreadable() };
        for iovec in &iovecs {
            sum += iovec.len;
        }
    }
    for rest in 0..CHUNK {
        let segments = kept.get_volatile();
        let segment = (segments & !(CHUNK - 1)) + rest;
        if segment >= segments {
            break;
        }
        let at = user + u64::from(segment) * size_of::<Iovec>() as u64;
        let Some(iovec) = read_user::<Iovec>(at) else { return unreadable() };
        sum += iovec.len;
    }
    sum
}

/// Counts a request as lost.
#[inline(always)]
fn unreadable() -> u64 {
    count(Stat::LostLength);
    0
}
