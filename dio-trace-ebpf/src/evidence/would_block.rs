//! Why an attempt that must not wait ended with EAGAIN, if `--why-eagain` asks for it.
//!
//! These functions return EAGAIN, or what their caller turns into EAGAIN, inside the attempt. A
//! request that waits passes some of them as well: what they say is kept only if the attempt ended
//! with EAGAIN.

use dio_trace_common::abi::would_block;

use crate::{
    config::WHY_EAGAIN,
    errno::{EAGAIN, EIOCBQUEUED},
    evidence::page_cache::buffered_err,
    in_flight::RequestRef,
    kernel_memory::{Args, INODE_I_RWSEM, Return},
    preempt::PreemptGuard,
    thread_table::current_request,
};

/// The first attempt of a request begins.
#[inline(always)]
pub fn begins(request: RequestRef) {
    if WHY_EAGAIN.load() != 0 {
        request.waits_for().set(0);
    }
}

/// The request ended with EAGAIN.
#[inline(always)]
pub fn attempt_failed(request: RequestRef) {
    if WHY_EAGAIN.load() != 0 {
        let seen = request.waits_for().take();
        request.would_block().set_bits(seen as u8);
    }
}

/// An attempt of the request ended, and another one begins behind `done` bytes: the one before
/// ended with EAGAIN, unless it made progress or was queued for a page
/// (mm/filemap.c:filemap_read with IOCB_WAITQ).
#[inline(always)]
pub fn next_attempt(request: RequestRef, done: u64) {
    if WHY_EAGAIN.load() == 0 {
        return;
    }
    let seen = request.waits_for().take();
    if done == 0 && i64::from(buffered_err(request)) != EIOCBQUEUED {
        request.would_block().set_bits(seen as u8);
    }
}

/// True if the request has a reason to be sent that is no finding.
#[inline(always)]
pub fn wants_event(request: RequestRef) -> bool {
    WHY_EAGAIN.load() != 0 && request.would_block().get() != 0
}

#[inline(always)]
fn note(bit: u8) {
    let _guard = PreemptGuard::new();
    if let Some(request) = current_request() {
        request.waits_for().set_bits(u64::from(bit));
    }
}

/// Return of a function whose EAGAIN means the reason `BIT`.
#[inline(always)]
pub fn eagain<const BIT: u8>(ret: i64) {
    if i64::from(ret as i32) == EAGAIN {
        note(BIT);
    }
}

/// Return of a `bool` function that is true for the reason `BIT`.
#[inline(always)]
pub fn true_for<const BIT: u8>(ret: i64) {
    if ret as u8 != 0 {
        note(BIT);
    }
}

/// Return of `int down_read_trylock(struct rw_semaphore *)` and `down_write_trylock`: 0 if another
/// thread has the lock. Every page fault comes here (`mmap_lock`): the result is asked first.
#[inline(always)]
pub fn trylock<A: Args + Return<1>>(ctx: &A) {
    if ctx.ret() as i32 != 0 {
        return;
    }
    let _guard = PreemptGuard::new();
    let Some(request) = current_request() else { return };
    if ctx.arg(0) == request.file().get().inode + u64::from(INODE_I_RWSEM.load()) {
        request.waits_for().set_bits(u64::from(would_block::INODE_LOCK));
    }
}
