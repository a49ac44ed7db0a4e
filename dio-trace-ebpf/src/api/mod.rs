//! Issue and completion of requests, by the kernel file whose functions are probed.
//!
//! Position and length are read at the entry, rather than in `rw_verify_area`, which all of them
//! call: every read and write of the system goes through that one, and bystanders would pay for it.

pub mod aio;
pub mod io_uring;
pub mod read_write;
pub mod splice;
pub mod sys_exit;
pub mod unasked;

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use dio_trace_common::abi::{REQ_COMPAT, REQ_VECTORED, Stat};

use crate::{
    filter::{Direct, direct, process_wanted},
    kernel_memory::{Args, read_at},
    maps::{count, has_ended},
    preempt::PreemptGuard,
    task::is_compat,
    thread_table::{ThreadRef, get_or_claim},
    user_memory::{CompatIovec, Iovec, Segment, read_user},
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
    if !process_wanted(id) || has_ended() {
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

/// What a request asks for, by one buffer or by a vector of them in user memory.
struct Asked {
    /// Sum of the lengths; 0, which opens no request, if those of a vector cannot be read (the
    /// kernel read them a moment ago, or the call fails with EFAULT).
    len: u64,
    /// The request's flags.
    flags: u8,
    nr_segs: u32,
}

impl Asked {
    #[inline(always)]
    fn by_vector(thread: ThreadRef, user: u64, segments: u32) -> Self {
        if is_compat() {
            let len = compat_vector_len(thread, user, segments);
            Self::through(thread, len, REQ_VECTORED | REQ_COMPAT, segments)
        } else {
            let len = vector_len(thread, user, segments);
            Self::through(thread, len, REQ_VECTORED, segments)
        }
    }

    #[inline(always)]
    fn by_buffer(thread: ThreadRef, len: u64) -> Self {
        Self::through(thread, len, 0, 1)
    }

    /// Through the thread's record and back: otherwise the verifier walks all that follows once for
    /// each way to ask.
    #[inline(always)]
    fn through(thread: ThreadRef, len: u64, flags: u8, segments: u32) -> Self {
        thread.asked_len().set_volatile(len);
        thread.asked_flags().set_volatile(u32::from(flags));
        thread.nr_segs().set_volatile(segments);
        Self {
            len: thread.asked_len().get_volatile(),
            flags: thread.asked_flags().get_volatile() as u8,
            nr_segs: thread.nr_segs().get_volatile(),
        }
    }
}

#[inline(never)]
fn vector_len(thread: ThreadRef, user: u64, segments: u32) -> u64 {
    sum_of::<Iovec>(thread, user, segments)
}

#[inline(never)]
fn compat_vector_len(thread: ThreadRef, user: u64, segments: u32) -> u64 {
    sum_of::<CompatIovec>(thread, user, segments)
}

/// Sum of the lengths of the segments; see [`Asked::len`].
///
/// Sixteen at a time, then the rest one by one. The number lies in the thread's record, not in a
/// register: so the verifier sees one state in every step. Otherwise it would follow each way out
/// of the loops by itself, once more in every program.
#[inline(always)]
fn sum_of<T: Segment>(thread: ThreadRef, user: u64, segments: u32) -> u64 {
    const UIO_MAXIOV: u32 = 1024; // include/uapi/linux/uio.h
    const CHUNK: u32 = 16;
    let kept = thread.nr_segs();
    kept.set_volatile(segments);
    let mut sum: u64 = 0;
    for chunk in 0..UIO_MAXIOV / CHUNK {
        if (chunk + 1) * CHUNK > kept.get_volatile() {
            break;
        }
        let at = user + u64::from(chunk) * size_of::<[T; CHUNK as usize]>() as u64;
        let Some(segments) = read_user::<[T; CHUNK as usize]>(at) else { return unreadable() };
        for segment in &segments {
            sum += segment.bytes();
        }
    }
    for rest in 0..CHUNK {
        let segments = kept.get_volatile();
        let number = (segments & !(CHUNK - 1)) + rest;
        if number >= segments {
            break;
        }
        let at = user + u64::from(number) * size_of::<T>() as u64;
        let Some(segment) = read_user::<T>(at) else { return unreadable() };
        sum += segment.bytes();
    }
    sum
}

/// Counts a request as lost.
#[inline(always)]
fn unreadable() -> u64 {
    count(Stat::LostLength);
    0
}
