//! What the kernel does for an open request.
//!
//! Submission runs in the submitter's thread and is found by it; completion may run in an
//! interrupt on top of a thread with a request of its own, so it is found by kiocb, unless the
//! kiocb is synchronous.

use dio_trace_common::{
    abi::{MIXED_CACHED, MIXED_DIRTIED, OP_WRITE, Request},
    evidence::seen,
    verdict::magic,
};

use crate::{
    begin::{is_direct, note_below},
    config::COPIES,
    end::completed_later,
    kernel::{
        ADDRESS_SPACE_NRPAGES, Args, BACKING_AIO_ORIG_IOCB, DIO_IOCB, DIO_RESULT, FILE_F_INODE,
        FILE_F_MAPPING, FOLIO_FLAGS, FOLIO_MAPPING, FOLIO_NR_PAGES, FOLIO_NR_PAGES_OLD, INODE_I_SB,
        IOMAP_DIO_ERROR, IOMAP_DIO_IOCB, IOMAP_DIO_SIMPLE_IOCB, IOMAP_DIO_SIMPLE_SIZE,
        IOMAP_DIO_SIZE, KIOCB_KI_COMPLETE, KIOCB_KI_FILP, Return, SUPER_BLOCK_S_MAGIC,
        WRITEBACK_CONTROL_NR_TO_WRITE, read,
    },
    maps::REQUESTS,
    mixed,
    steady::Steady,
    threads::{IDLE, Thread, current_request, open_request, thread},
};
use dio_trace_common::offsets::ABSENT;

/// The request a completing kiocb belongs to.
#[inline(always)]
fn request_of<A: Args>(ctx: &A, kiocb: u64) -> Option<*mut Request> {
    let complete: u64 = ctx.load(kiocb, &KIOCB_KI_COMPLETE);
    if complete == 0 {
        return current_request();
    }
    REQUESTS.get_ptr_mut(kiocb).or_else(|| nested_request(kiocb))
}

/// The request behind the kiocb that a stacked file system made for it: it holds a pointer to the
/// original (fs/backing-file.c, `struct backing_aio`). Any other kiocb has something else there,
/// which is no request's address.
#[inline(always)]
fn nested_request(kiocb: u64) -> Option<*mut Request> {
    if BACKING_AIO_ORIG_IOCB.load() == ABSENT {
        return None;
    }
    let original: u64 = read(kiocb, &BACKING_AIO_ORIG_IOCB);
    REQUESTS.get_ptr_mut(original)
}

/// `vfs_iter_read(struct file *, …)`, `vfs_iocb_iter_read(struct file *, …)` and their twins: a
/// stacked file system (overlayfs, FUSE passthrough) passes the thread's request on to this file.
#[inline(always)]
pub fn passed_on<A: Args>(ctx: &A) {
    let Some(thread) = thread() else { return };
    // SAFETY: a value of THREADS.
    if unsafe { (*thread).state } != IDLE {
        passed_to(ctx, thread, ctx.arg(0));
    }
}

/// The same of a thread that has an open request.
#[inline(always)]
pub fn passed_to<A: Args>(ctx: &A, thread: *mut Thread, file: u64) {
    let Some(request) = open_request(thread) else { return };
    let mapping: u64 = ctx.load(file, &FILE_F_MAPPING);
    let inode: u64 = ctx.load(file, &FILE_F_INODE);
    let sb: u64 = ctx.load(inode, &INODE_I_SB);
    let magic: u64 = ctx.load(sb, &SUPER_BLOCK_S_MAGIC);
    // SAFETY: as above, and a request of a map.
    unsafe {
        (*thread).nested = mapping;
        note_below(request, magic as u32);
        if !is_direct(ctx, file) {
            (*request).evidence.seen |= seen::INNER_BUFFERED;
        }
        if mixed::is_news(mapping, (*request).tgid) {
            mixed::remember(request, mapping);
        }
    }
}

#[inline(always)]
fn add_direct(request: *mut Request, bit: u32, bytes: i64, error: i32) {
    // SAFETY: a request of a map; one CPU at a time completes it.
    unsafe {
        let evidence = &raw mut (*request).evidence;
        (*evidence).seen |= bit;
        if error != 0 {
            (*evidence).direct_err = error;
        } else if bytes > 0 {
            (*evidence).direct_bytes += bytes as u64;
        }
    }
}

/// True in the second of two copies of a probe, if the first has run for the same thing: `token`
/// tells it from the one before. If one of them was skipped, the other stands for both; a token
/// that is left over then, and comes again, changes who counts and not how often.
#[inline(always)]
fn again<const COPIED: bool>(request: *mut Request, token: u64) -> bool {
    if !COPIED || COPIES.load() == 0 {
        return false;
    }
    // SAFETY: a request of a map. It has no end yet: its place keeps the token until then.
    unsafe {
        let last = &raw mut (*request).end_ns;
        let again = *last == token;
        *last = if again { 0 } else { token };
        again
    }
}

/// `ssize_t iomap_dio_complete(struct iomap_dio *)`: the end of every iomap direct request that
/// submitted, synchronous or not. Read at entry: at the return the dio is freed.
#[inline(always)]
pub fn iomap_dio_complete<A: Args, const COPIED: bool>(ctx: &A) {
    let _steady = Steady::new();
    let dio = ctx.arg(0);
    let kiocb: u64 = ctx.load(dio, &IOMAP_DIO_IOCB);
    let Some(request) = request_of(ctx, kiocb) else { return };
    if again::<COPIED>(request, dio) {
        return;
    }
    let error: i32 = ctx.load(dio, &IOMAP_DIO_ERROR);
    let size: i64 = ctx.load(dio, &IOMAP_DIO_SIZE);
    add_direct(request, seen::IOMAP_DIO, size, error);
    completed_later(request, kiocb, size, error);
}

/// Tracepoint `iomap_dio_complete(struct kiocb *, int error, ssize_t ret)`: the same, for kprobe mode.
#[inline(always)]
pub fn iomap_dio_completed<A: Args>(ctx: &A) {
    let kiocb = ctx.arg(0);
    let Some(request) = request_of(ctx, kiocb) else { return };
    let (error, size) = (ctx.arg(1) as i32, ctx.arg(2) as i64);
    add_direct(request, seen::IOMAP_DIO, size, error);
    completed_later(request, kiocb, size, error);
}

/// `iomap_dio_simple_complete(struct iomap_dio_simple *)`: the same for the one-bio read path
/// of 7.x (fs/iomap/direct-io.c).
#[inline(always)]
pub fn iomap_dio_simple_complete<A: Args, const COPIED: bool>(ctx: &A) {
    let _steady = Steady::new();
    let sr = ctx.arg(0);
    let kiocb: u64 = ctx.load(sr, &IOMAP_DIO_SIMPLE_IOCB);
    let Some(request) = request_of(ctx, kiocb) else { return };
    if again::<COPIED>(request, sr) {
        return;
    }
    // An error shows in the request's own result; the size then proves nothing and does no harm.
    let size: u64 = ctx.load(sr, &IOMAP_DIO_SIMPLE_SIZE);
    add_direct(request, seen::IOMAP_SIMPLE, size as i64, 0);
}

/// `dio_complete(struct dio *, ssize_t ret, …)`: the end of the legacy direct path
/// (fs/direct-io.c).
#[inline(always)]
pub fn dio_complete<A: Args, const COPIED: bool>(ctx: &A) {
    let _steady = Steady::new();
    let dio = ctx.arg(0);
    let kiocb: u64 = ctx.load(dio, &DIO_IOCB);
    let Some(request) = request_of(ctx, kiocb) else { return };
    if again::<COPIED>(request, dio) {
        return;
    }
    let bytes: i64 = ctx.load(dio, &DIO_RESULT);
    add_direct(request, seen::LEGACY_DIO, bytes, 0);
}

/// `dax_iomap_rw(struct kiocb *, …)`
#[inline(always)]
pub fn dax_iomap_rw<A: Args>(_ctx: &A) {
    let _steady = Steady::new();
    let Some(request) = current_request() else { return };
    // SAFETY: a request of a map.
    unsafe { (*request).evidence.seen |= seen::DAX };
}

/// `__blockdev_direct_IO`, `__iomap_dio_rw` or `__iomap_dio_read_simple`, in the thread that submits.
#[inline(always)]
pub fn direct_entered<A: Args>(_ctx: &A) {
    if let Some(request) = current_request() {
        // SAFETY: a request of a map.
        unsafe { (*request).evidence.seen |= seen::DIRECT_ENTERED };
    }
}

/// `bio_iov_iter_bounce(struct bio *, …)`: a direct request goes through pages of the kernel's own,
/// lest its buffer changes under a checksum (block/bio.c, 7.x).
#[inline(always)]
pub fn bounced<A: Args>(_ctx: &A) {
    let _steady = Steady::new();
    let Some(request) = current_request() else { return };
    // SAFETY: a request of a map.
    unsafe { (*request).evidence.seen |= seen::BOUNCED };
}

/// Return of `ssize_t filemap_read(struct kiocb *, struct iov_iter *, ssize_t already)`: what
/// it returns includes the bytes read directly before it was called.
#[inline(always)]
pub fn filemap_read<A: Args + Return<3>>(ctx: &A) {
    let file: u64 = ctx.load(ctx.arg(0), &KIOCB_KI_FILP);
    if is_direct(ctx, file) {
        let _steady = Steady::new();
        let (already, ret) = (ctx.arg(2) as i64, ctx.ret());
        add_cached::<true>(already, ret);
    }
}

/// kprobe alone: keeps the third argument for the return.
#[inline(always)]
pub fn filemap_read_begin<A: Args>(ctx: &A) {
    let file: u64 = ctx.load(ctx.arg(0), &KIOCB_KI_FILP);
    if !is_direct(ctx, file) {
        return;
    }
    if let Some(thread) = thread() {
        // SAFETY: a value of THREADS.
        unsafe { (*thread).already = 1 + ctx.arg(2) };
    }
}

/// kprobe alone: its return.
#[inline(always)]
pub fn filemap_read_end(ret: i64) {
    let Some(thread) = thread() else { return };
    // SAFETY: a value of THREADS.
    let already = unsafe { core::mem::replace(&mut (*thread).already, 0) };
    if already != 0 {
        add_cached::<false>(already as i64 - 1, ret);
    }
}

/// Adds what `filemap_read` read to the current thread's request.
#[inline(always)]
pub fn add_cached<const COPIED: bool>(already: i64, ret: i64) {
    let Some(request) = current_request() else { return };
    // No address: nothing else has it. Several such reads of one request differ in what came before.
    if again::<COPIED>(request, (already as u64) << 1 | 1) {
        return;
    }
    // SAFETY: a request of a map; submission is its thread's alone.
    unsafe {
        let evidence = &raw mut (*request).evidence;
        (*evidence).seen |= seen::BUFFERED_READ;
        if ret < 0 {
            (*evidence).buffered_err = ret as i32;
        } else if ret > already {
            (*evidence).cached_bytes += (ret - already) as u64;
        }
    }
}

/// The open request of this thread, if `mapping` is the one its data lives in. The same thread
/// may meanwhile fault in a buffer that is another file's mapping, read metadata, or reclaim.
#[inline(always)]
fn request_on(mapping: u64) -> Option<(*mut Thread, *mut Request)> {
    let thread = thread()?;
    // SAFETY: a value of THREADS.
    if unsafe { (*thread).state } == IDLE {
        return None;
    }
    let request = open_request(thread)?;
    // SAFETY: a request of a map, and a value of THREADS.
    let (own, nested) = unsafe { ((*request).mapping, (*thread).nested) };
    (own == mapping || nested == mapping).then_some((thread, request))
}

/// `balance_dirty_pages_ratelimited(struct address_space *)` and `…_flags`: every loop that
/// writes through the page cache calls it (mm/page-writeback.c), whatever its file system names
/// that loop. How many bytes it wrote is what the direct path did not.
#[inline(always)]
pub fn balance_dirty<A: Args>(ctx: &A) {
    let _steady = Steady::new();
    let Some((_, request)) = request_on(ctx.arg(0)) else { return };
    // SAFETY: a request of a map.
    unsafe {
        // A read may come here too, when its user buffer is a mapping of the same file.
        if (*request).op == OP_WRITE {
            (*request).evidence.seen |= seen::BUFFERED_WRITE;
        }
    }
}

/// Return of `int do_writepages(struct address_space *, struct writeback_control *)`: reached
/// only if the mapping has dirty pages; `nr_to_write` starts at LONG_MAX for a range flush.
#[inline(always)]
pub fn do_writepages<A: Args>(ctx: &A, mapping: u64, wbc: u64) {
    let _steady = Steady::new();
    mixed::writeback_end();
    let Some((_, request)) = request_on(mapping) else { return };
    add_flushed(request, ctx.load(wbc, &WRITEBACK_CONTROL_NR_TO_WRITE));
}

/// `left` is what remains of LONG_MAX.
#[inline(always)]
fn add_flushed(request: *mut Request, left: i64) {
    // Write-back for metadata's sake starts at 0 (fs/fs-writeback.c:sync_inode_metadata).
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

/// kprobe alone: keeps the control block, which lives on the caller's stack, for the return.
#[inline(always)]
pub fn do_writepages_begin<A: Args>(ctx: &A) {
    mixed::writeback_begin(ctx.arg(0));
    let Some((thread, _)) = request_on(ctx.arg(0)) else { return };
    // SAFETY: a value of THREADS.
    unsafe { (*thread).wbc = ctx.arg(1) };
}

/// kprobe alone: its return.
#[inline(always)]
pub fn do_writepages_end() {
    mixed::writeback_end();
    let Some(thread) = thread() else { return };
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
pub fn invalidate_begin<A: Args>(ctx: &A) {
    let _steady = Steady::new();
    let mapping = ctx.arg(0);
    let Some((thread, _)) = request_on(mapping) else { return };
    let pages: u64 = ctx.load(mapping, &ADDRESS_SPACE_NRPAGES);
    // SAFETY: a value of THREADS.
    unsafe {
        (*thread).nrpages = pages + 1;
        (*thread).invalidating = mapping;
    }
}

/// Its return: the mapping has fewer pages by those invalidated, give or take what others did to
/// it meanwhile. An error says that some could not be (mm/truncate.c: -EBUSY).
#[inline(always)]
pub fn invalidate_end(ret: i64) {
    let _steady = Steady::new();
    let Some(thread) = thread() else { return };
    // SAFETY: a value of THREADS.
    let before = unsafe { core::mem::replace(&mut (*thread).nrpages, 0) };
    if before == 0 {
        return;
    }
    let Some(request) = open_request(thread) else { return };
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

/// Tracepoint `mm_filemap_add_to_page_cache(struct folio *)` (5.10: `struct page *`).
#[inline(always)]
pub fn added_to_page_cache<A: Args>(ctx: &A) {
    let _steady = Steady::new();
    let folio = ctx.arg(0);
    let mapping = read(folio, &FOLIO_MAPPING);
    match request_on(mapping) {
        // SAFETY: a request of a map.
        Some((_, request)) => unsafe { (*request).evidence.added_pages += pages_of(folio) },
        None => mixed::pages(mapping, MIXED_CACHED, u64::from(pages_of(folio))),
    }
}

/// Tracepoint `writeback_dirty_folio(struct folio *, struct address_space *)` (before 5.18:
/// `writeback_dirty_page`): a clean page became dirty (mm/page-writeback.c:folio_account_dirtied).
#[inline(always)]
pub fn dirtied<A: Args>(ctx: &A) {
    let _steady = Steady::new();
    let mapping = ctx.arg(1);
    if request_on(mapping).is_none() {
        mixed::pages(mapping, MIXED_DIRTIED, u64::from(pages_of(ctx.arg(0))));
    }
}

/// Pages of a folio: 1, or its own count if it is a large one.
#[inline(always)]
fn pages_of(folio: u64) -> u32 {
    // PG_head marks a large folio (include/linux/page-flags.h).
    let head = 1u64 << (crate::PG_HEAD.load() & 63);
    let flags: u64 = read(folio, &FOLIO_FLAGS);
    if flags & head == 0 {
        return 1;
    }
    let pages: u32 = if FOLIO_NR_PAGES.load() != ABSENT {
        read(folio, &FOLIO_NR_PAGES)
    } else if FOLIO_NR_PAGES_OLD.load() != ABSENT {
        read(folio, &FOLIO_NR_PAGES_OLD)
    } else {
        1
    };
    if pages == 0 { 1 } else { pages }
}
