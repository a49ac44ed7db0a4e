//! Side effects on the page cache: write-back and invalidation.

use dio_trace_common::{abi::OP_WRITE, evidence::seen, verdict::magic};

use super::{EvidenceRef, request_on};
use crate::{
    in_flight::RequestRef,
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
    let Some((_, request)) = request_on(mapping) else { return };
    add_flushed(request, ctx.load(wbc, &WRITEBACK_CONTROL_NR_TO_WRITE));
}

/// `left` is what remains of LONG_MAX.
#[inline(always)]
fn add_flushed(request: RequestRef, left: i64) {
    // Write-back of metadata starts at 0 (fs/fs-writeback.c:sync_inode_metadata).
    const FAR_FROM_LONG_MAX: i64 = 1 << 62;
    let written = i64::MAX - left;
    if written > 0 && left > FAR_FROM_LONG_MAX {
        let evidence = EvidenceRef::of(request);
        if evidence.has_seen(seen::BUFFERED_WRITE) {
            evidence.set_seen(seen::WRITTEN_BACK); // its own pages
        } else {
            evidence.flushed_pages().add(written as u32);
        }
    }
}

/// Only kprobe: keeps the control block, which lies on the caller's stack, for the return.
#[inline(always)]
pub fn do_writepages_entered<A: Args>(ctx: &A) {
    mixed_access::writeback_entered(ctx.arg(0));
    let Some((thread, _)) = request_on(ctx.arg(0)) else { return };
    thread.wbc().set(ctx.arg(1));
}

/// Only kprobe: the return.
#[inline(always)]
pub fn do_writepages_returned() {
    mixed_access::writeback_returned();
    let Some(thread) = thread_table::current() else { return };
    let wbc = thread.wbc().take();
    if wbc == 0 {
        return;
    }
    if let Some(request) = open_request(thread) {
        // SAFETY: a request of a map.
        let request = unsafe { RequestRef::new(request) };
        add_flushed(request, read(wbc, &WRITEBACK_CONTROL_NR_TO_WRITE));
    }
}

/// `int invalidate_inode_pages2_range(struct address_space *, pgoff_t, pgoff_t)`
#[inline(always)]
pub fn invalidate_entered<A: Args>(ctx: &A) {
    let _guard = PreemptGuard::new();
    let mapping = ctx.arg(0);
    let Some((thread, request)) = request_on(mapping) else { return };
    EvidenceRef::of(request).set_seen(seen::INVALIDATED);
    let pages: u64 = ctx.load(mapping, &ADDRESS_SPACE_NRPAGES);
    thread.nrpages().set(pages);
    thread.invalidating().set(mapping);
}

/// Its return: the mapping has lost the pages that were invalidated, give or take what others did
/// to it meanwhile. An error says that some could not be (mm/truncate.c: -EBUSY).
#[inline(always)]
pub fn invalidate_returned(ret: i64) {
    let _guard = PreemptGuard::new();
    let Some(thread) = thread_table::current() else { return };
    let mapping = thread.invalidating().take();
    if mapping == 0 {
        return;
    }
    let before = thread.nrpages().get();
    let failed = ret as i32 != 0;
    if before == 0 && !failed {
        return; // as for most requests
    }
    let Some(request) = open_request(thread) else { return };
    // SAFETY: a request of a map.
    let request = unsafe { RequestRef::new(request) };
    let evidence = EvidenceRef::of(request);
    if failed {
        evidence.set_seen(seen::INVALIDATE_FAILED);
        let fuse =
            request.magic().get() == magic::FUSE || request.lower_magic().get() == magic::FUSE;
        if fuse && request.op().get() == OP_WRITE {
            evidence.set_seen(seen::SENT_CACHED);
        }
    }
    let now: u64 = read(mapping, &ADDRESS_SPACE_NRPAGES);
    if before > now {
        evidence.invalidated_pages().add((before - now) as u32);
    }
}
