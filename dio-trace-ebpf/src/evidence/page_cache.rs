//! Reads and writes through the page cache, and the pages that come into it.

use dio_trace_common::{
    abi::{MIXED_CACHED, MIXED_DIRTIED, OP_WRITE},
    evidence::seen,
};

use super::{EvidenceRef, is_duplicate, request_on};
use crate::{
    config::PAGE_SHIFT,
    filter::is_direct,
    folio::{index_of, inside, pages_of},
    in_flight::RequestRef,
    kernel_memory::{Args, FOLIO_MAPPING, KIOCB_KI_FILP, Return, read},
    mixed_access,
    preempt::PreemptGuard,
    thread_table::{self, ThreadRef, current_request},
};

/// Return of `ssize_t filemap_read(struct kiocb *, struct iov_iter *, ssize_t already)`: what
/// it returns includes the bytes read directly before it was called.
#[inline(always)]
pub fn filemap_read<A: Args + Return<3>>(ctx: &A) {
    let file: u64 = ctx.load(ctx.arg(0), &KIOCB_KI_FILP);
    if is_direct(ctx, file) {
        let _guard = PreemptGuard::new();
        let (already, ret) = (ctx.arg(2) as i64, ctx.ret());
        add_cached::<true>(already, ret);
    }
}

/// Only kprobe: keeps the third argument for the return.
#[inline(always)]
pub fn filemap_read_entered<A: Args>(ctx: &A) {
    let file: u64 = ctx.load(ctx.arg(0), &KIOCB_KI_FILP);
    if !is_direct(ctx, file) {
        return;
    }
    if let Some(thread) = thread_table::current() {
        thread.already().set(1 + ctx.arg(2));
    }
}

/// Only kprobe: the return.
#[inline(always)]
pub fn filemap_read_returned(ret: i64) {
    let Some(thread) = thread_table::current() else { return };
    let already = thread.already().take();
    if already != 0 {
        add_cached::<false>(already as i64 - 1, ret);
    }
}

/// Adds what `filemap_read` read to the current thread's request.
#[inline(always)]
fn add_cached<const REDUNDANT: bool>(already: i64, ret: i64) {
    let Some(request) = current_request() else { return };
    // An odd number, which no address is. Several such reads of one request differ in the bytes
    // before them.
    if is_duplicate::<REDUNDANT>(request, (already as u64) << 1 | 1) {
        return;
    }
    let evidence = EvidenceRef::of(request);
    evidence.set_seen(seen::BUFFERED_READ);
    if ret < 0 {
        evidence.buffered_err().set(ret as i32);
    } else if ret > already {
        evidence.cached_bytes().add((ret - already) as u64);
    }
}

/// Kprobe mode: if the return of a `filemap_read` was missed, its bytes are not known.
#[inline(always)]
pub fn note_missed(thread: ThreadRef, request: RequestRef) {
    if thread.already().get() != 0 {
        EvidenceRef::of(request).set_seen(seen::MISSED);
        thread.already().set(0);
    }
}

/// The result of the request's last buffered attempt: 0 or -errno.
#[inline(always)]
pub fn buffered_err(request: RequestRef) -> i32 {
    EvidenceRef::of(request).buffered_err().get()
}

/// Forgets the pages that came in if nobody read through the cache: the user buffer is a mapping of
/// the same file, and faulted. (Since 6.5 a splice without O_DIRECT reads by filemap_splice_read.)
#[inline(always)]
pub fn discard_faulted(request: RequestRef) {
    let evidence = EvidenceRef::of(request);
    if !evidence.has_seen(seen::BUFFERED_READ) && !request.is_not_asked() {
        evidence.added_pages().set(0);
    }
}

/// `balance_dirty_pages_ratelimited(struct address_space *)` and `…_flags`: every loop that
/// writes through the page cache calls it (mm/page-writeback.c), whatever its file system names
/// that loop. The bytes it wrote are those that the direct path did not.
#[inline(always)]
pub fn balance_dirty<A: Args>(ctx: &A) {
    let _guard = PreemptGuard::new();
    let Some((_, request)) = request_on(ctx.arg(0)) else { return };
    // A read may come here too, when its user buffer is a mapping of the same file.
    if request.op().get() == OP_WRITE {
        EvidenceRef::of(request).set_seen(seen::BUFFERED_WRITE);
    }
}

/// Tracepoint `mm_filemap_add_to_page_cache(struct folio *)` (5.10: `struct page *`).
#[inline(always)]
pub fn added<A: Args>(ctx: &A) {
    let _guard = PreemptGuard::new();
    let folio = ctx.arg(0);
    let mapping = read(folio, &FOLIO_MAPPING);
    let pages = pages_of(folio);
    match request_on(mapping) {
        Some((_, request)) if !request.is_not_asked() => {
            EvidenceRef::of(request).added_pages().add(pages);
        }
        other => {
            if let Some((_, request)) = other {
                EvidenceRef::of(request).added_pages().add(asked_for(request, folio, pages));
            }
            mixed_access::pages(mapping, MIXED_CACHED, u64::from(pages));
        }
    }
}

/// How many pages of a folio are in the range of a request.
#[inline(always)]
fn asked_for(request: RequestRef, folio: u64, pages: u32) -> u32 {
    let shift = PAGE_SHIFT.load() & 63;
    let (pos, len) = (request.pos().get() as u64, request.len().get());
    let (first, last) = (pos >> shift, pos.wrapping_add(len - 1) >> shift);
    inside(first, last, index_of(folio), pages)
}

/// Tracepoint `writeback_dirty_folio(struct folio *, struct address_space *)` (before 5.18:
/// `writeback_dirty_page`): a clean page became dirty (mm/page-writeback.c:folio_account_dirtied).
#[inline(always)]
pub fn dirtied<A: Args>(ctx: &A) {
    let _guard = PreemptGuard::new();
    let mapping = ctx.arg(1);
    if request_on(mapping).is_none_or(|(_, request)| request.is_not_asked()) {
        mixed_access::pages(mapping, MIXED_DIRTIED, u64::from(pages_of(ctx.arg(0))));
    }
}
