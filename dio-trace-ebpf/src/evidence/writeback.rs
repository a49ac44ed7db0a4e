//! Side effects on the page cache: write-back and invalidation.

use dio_trace_common::{
    abi::{OP_WRITE, Request},
    evidence::seen,
    verdict::magic,
};

use super::request_on;
use crate::{
    kernel_memory::{ADDRESS_SPACE_NRPAGES, Args, WRITEBACK_CONTROL_NR_TO_WRITE, read},
    mixed_access,
    preempt::PreemptGuard,
    thread_table::{self, open_request},
};

/// Return of `int do_writepages(struct address_space *, struct writeback_control *)`: reached
/// only if the mapping has dirty pages; `nr_to_write` starts at LONG_MAX for a range flush.
#[inline(always)]
pub fn do_writepages<A: Args>(ctx: &A, mapping: u64, wbc: u64) {
    let _guard = PreemptGuard::new();
    mixed_access::writeback_returned();
    let Some((_, request)) = request_on(mapping) else {
        return;
    };
    add_flushed(request, ctx.load(wbc, &WRITEBACK_CONTROL_NR_TO_WRITE));
}

/// `left` is what remains of LONG_MAX.
#[inline(always)]
fn add_flushed(request: *mut Request, left: i64) {
    // Write-back of metadata starts at 0 (fs/fs-writeback.c:sync_inode_metadata).
    const FAR_FROM_LONG_MAX: i64 = 1 << 62;
    let written = i64::MAX - left;
    if written > 0 && left > FAR_FROM_LONG_MAX {
        // SAFETY: a request of a map.
        unsafe {
            let evidence = &raw mut (*request).evidence;
            if (*evidence).seen & seen::BUFFERED_WRITE != 0 {
                (*evidence).seen |= seen::WRITTEN_BACK; // its own pages
            } else {
                (*evidence).flushed_pages += written as u32;
            }
        }
    }
}

/// Only kprobe: keeps the control block, which lies on the caller's stack, for the return.
#[inline(always)]
pub fn do_writepages_entered<A: Args>(ctx: &A) {
    mixed_access::writeback_entered(ctx.arg(0));
    let Some((thread, _)) = request_on(ctx.arg(0)) else {
        return;
    };
    // SAFETY: a value of THREADS.
    unsafe { (*thread).wbc = ctx.arg(1) };
}

/// Only kprobe: the return.
#[inline(always)]
pub fn do_writepages_returned() {
    mixed_access::writeback_returned();
    let Some(thread) = thread_table::current() else {
        return;
    };
    // SAFETY: a value of THREADS.
    let wbc = unsafe { core::mem::replace(&mut (*thread).wbc, 0) };
    if wbc == 0 {
        return;
    }
    if let Some(request) = open_request(thread) {
        add_flushed(request, read(wbc, &WRITEBACK_CONTROL_NR_TO_WRITE));
    }
}

/// `int invalidate_inode_pages2_range(struct address_space *, pgoff_t, pgoff_t)`
#[inline(always)]
pub fn invalidate_entered<A: Args>(ctx: &A) {
    let _guard = PreemptGuard::new();
    let mapping = ctx.arg(0);
    let Some((thread, _)) = request_on(mapping) else {
        return;
    };
    let pages: u64 = ctx.load(mapping, &ADDRESS_SPACE_NRPAGES);
    // SAFETY: a value of THREADS.
    unsafe {
        (*thread).nrpages = pages + 1;
        (*thread).invalidating = mapping;
    }
}

/// Its return: the mapping has lost the pages that were invalidated, give or take what others did
/// to it meanwhile. An error says that some could not be (mm/truncate.c: -EBUSY).
#[inline(always)]
pub fn invalidate_returned(ret: i64) {
    let _guard = PreemptGuard::new();
    let Some(thread) = thread_table::current() else {
        return;
    };
    // SAFETY: a value of THREADS.
    let before = unsafe { core::mem::replace(&mut (*thread).nrpages, 0) };
    if before == 0 {
        return;
    }
    let Some(request) = open_request(thread) else {
        return;
    };
    // SAFETY: a request of a map.
    unsafe {
        let now: u64 = read((*thread).invalidating, &ADDRESS_SPACE_NRPAGES);
        (*request).evidence.seen |= seen::INVALIDATED;
        if ret as i32 != 0 {
            (*request).evidence.seen |= seen::INVALIDATE_FAILED;
            let fuse = (*request).magic == magic::FUSE || (*request).inner_magic == magic::FUSE;
            if fuse && (*request).op == OP_WRITE {
                (*request).evidence.seen |= seen::SENT_CACHED;
            }
        }
        if before > now + 1 {
            (*request).evidence.invalidated_pages += (before - 1 - now) as u32;
        }
    }
}
