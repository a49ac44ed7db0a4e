//! Why an attempt that must not wait ended with EAGAIN, if `--why-eagain` asks for it.
//!
//! These functions return EAGAIN, or what their caller turns into EAGAIN, inside the attempt. A
//! request that waits passes some of them as well: what they say is kept only if the attempt ended
//! with EAGAIN.

use dio_trace_common::abi::would_block;

use crate::{
    config::WHY_EAGAIN,
    in_flight::RequestRef,
    kernel_memory::{Args, INODE_I_RWSEM, Return},
    preempt::PreemptGuard,
    thread_table::current_request,
};

const EAGAIN: i32 = -11;

/// The first attempt of a request begins.
#[inline(always)]
pub fn begins(request: RequestRef) {
    if WHY_EAGAIN.load() != 0 {
        request.waits_for().set(0);
    }
}

/// An attempt of the request ended with EAGAIN.
#[inline(always)]
pub fn attempt_failed(request: RequestRef) {
    if WHY_EAGAIN.load() != 0 {
        let seen = request.waits_for().take();
        request.would_block().set_bits(seen as u8);
    }
}

/// True if the request has a reason to be sent that is no finding.
#[inline(always)]
pub fn told(request: RequestRef) -> bool {
    WHY_EAGAIN.load() != 0 && request.would_block().get() != 0
}

#[inline(always)]
fn tell(bit: u8) {
    let _guard = PreemptGuard::new();
    if let Some(request) = current_request() {
        request.waits_for().set_bits(u64::from(bit));
    }
}

/// Return of `int kiocb_modified(struct kiocb *)`.
#[inline(always)]
pub fn kiocb_modified(ret: i64) {
    if ret as i32 == EAGAIN {
        tell(would_block::TIMESTAMP);
    }
}

/// Return of `int iomap_iter(struct iomap_iter *, …)`, or of `loff_t iomap_apply(…)` before 5.15.
#[inline(always)]
pub fn mapped(ret: i64) {
    if ret as i32 == EAGAIN {
        tell(would_block::BLOCK_MAP);
    }
}

/// Return of `bool filemap_range_needs_writeback(struct address_space *, loff_t, loff_t)`.
#[inline(always)]
pub fn needs_writeback(ret: i64) {
    if ret as u8 != 0 {
        tell(would_block::DIRTY);
    }
}

/// Return of `int kiocb_write_and_wait(struct kiocb *, size_t)`.
#[inline(always)]
pub fn write_and_wait(ret: i64) {
    if ret as i32 == EAGAIN {
        tell(would_block::DIRTY);
    }
}

/// Return of `bool filemap_range_has_page(struct address_space *, loff_t, loff_t)`.
#[inline(always)]
pub fn has_page(ret: i64) {
    if ret as u8 != 0 {
        tell(would_block::CACHED);
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
