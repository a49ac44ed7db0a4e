//! The probes: thin entry points, each once for fentry/fexit and once for kprobe/kretprobe.
//!
//! `fe_`/`fx_`/`kp_`/`kr_` before the kernel function's name; the loader picks one family and gives
//! each program the function it found (dio-trace/src/kernel/probes.rs has the table).
//!
//! Modules import only from earlier ones of this order:
//!
//! - [`config`]: what the loader decides; [`kfunc`], [`kernel_memory`], [`user_memory`]: calling
//!   and reading the kernel, reading the program; [`preempt`]: no preemption in the middle of a
//!   probe
//! - [`record`], [`maps`], [`in_flight`], [`thread_table`]: what is kept, and who may access it;
//!   [`task`], [`filter`], [`ring`]: of whom, and how it is sent
//! - [`file_names`], [`mixed_access`], [`stacks`], [`counters`]: what else is said of a request
//! - [`evidence`]: what the kernel does for a request; [`short_io`], [`alignment`]: why it stopped;
//!   [`stable_buffer`]: whether its buffer changed meanwhile
//! - [`aio_reap`], [`open_rejected`]: completions that kprobes missed; O_DIRECT itself rejected
//! - [`issue`], [`request`]: a request is opened, retried, finished
//! - [`api`]: its issue and completion, by kernel file; [`sched`]: processes and threads come and
//!   go
//! - [`cache`]: pages that come into the page cache and leave it, for `dio-trace cache`
#![no_std]
#![no_main]
// An atomic addition: the target's atomic types have none.
#![feature(core_intrinsics)]
#![expect(internal_features)]

mod aio_reap;
mod alignment;
mod api;
mod cache;
mod config;
mod counters;
mod errno;
mod evidence;
mod file_names;
mod filter;
mod folio;
mod in_flight;
mod issue;
mod kernel_memory;
mod kfunc;
mod maps;
mod mixed_access;
mod open_rejected;
mod preempt;
mod record;
mod request;
mod ring;
mod sched;
mod segment;
mod short_io;
mod stable_buffer;
mod stacks;
mod task;
mod thread_table;
mod unasked;
mod uring_flags;
mod user_memory;

use api::{
    aio,
    io_uring::{self, CallerCompletes},
    read_write, splice, sys_exit, unasked as plain,
};
use aya_ebpf::{
    macros::{fentry, fexit, kprobe, kretprobe, raw_tracepoint},
    programs::{FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext},
};
use cache::{ahead, flow, recent};
use dio_trace_common::abi::would_block as reason;
use evidence::{
    direct, page_cache, stacked,
    would_block::{self, eagain, true_for},
    writeback,
};
use kernel_memory::{Args, ByCast, Return};

/// The body of a kprobe, by what the kernel has for reading memory.
macro_rules! by_kprobe {
    ($ctx:expr, $body:expr) => {
        if kernel_memory::can_cast() {
            $body(&ByCast(&$ctx));
        } else {
            $body(&$ctx);
        }
    };
}

/// An entry probe: one body for fentry and kprobe.
macro_rules! entry {
    ($fe:ident, $kp:ident, $body:expr) => {
        entry!($fe, $body, $kp, $body);
    };
    ($fe:ident, $fe_body:expr, $kp:ident, $kp_body:expr) => {
        #[fentry]
        pub fn $fe(ctx: FEntryContext) -> i32 {
            $fe_body(&ctx);
            0
        }
        #[kprobe]
        pub fn $kp(ctx: ProbeContext) -> u32 {
            by_kprobe!(ctx, $kp_body);
            0
        }
    };
}

/// A redundant attachment of an entry probe, only for fentry.
macro_rules! redundant_entry {
    ($fe:ident, $body:expr) => {
        #[fentry]
        pub fn $fe(ctx: FEntryContext) -> i32 {
            $body(&ctx);
            0
        }
    };
}

/// An entry probe that proves the path of a request: twice for fentry, see `preempt`.
macro_rules! entry_twice {
    ($fe:ident, $fe_2:ident, $kp:ident, $($body:ident)::+) => {
        entry!($fe, $($body)::+::<_, true>, $kp, $($body)::+::<_, false>);
        redundant_entry!($fe_2, $($body)::+::<_, true>);
    };
}

/// A return probe that needs no arguments: one body for fexit and kretprobe. `$args` is the
/// number of arguments of the probed function.
macro_rules! exit {
    ($fx:ident, $kr:ident, $args:literal, $body:expr) => {
        #[fexit]
        pub fn $fx(ctx: FExitContext) -> i32 {
            $body(Return::<$args>::ret(&ctx));
            0
        }
        #[kretprobe]
        pub fn $kr(ctx: RetProbeContext) -> u32 {
            $body(Return::<$args>::ret(&ctx));
            0
        }
    };
}

/// A return probe only for fexit: in kprobe mode the tracepoint sys_exit takes its place.
macro_rules! exit_only {
    ($fx:ident, $args:literal, $body:expr) => {
        #[fexit]
        pub fn $fx(ctx: FExitContext) -> i32 {
            $body(Return::<$args>::ret(&ctx));
            0
        }
    };
}

/// Return of a synchronous entry point.
macro_rules! sync_exit {
    ($fx:ident, $args:literal) => {
        #[fexit]
        pub fn $fx(ctx: FExitContext) -> i32 {
            read_write::returned(&ctx, Args::arg(&ctx, 0), Return::<$args>::ret(&ctx));
            0
        }
    };
}

// ---- issue and completion: read, pread, write, pwrite
// Three times: see `preempt`. The second of the exits finds nothing left to complete.
entry!(fe_vfs_read, kp_vfs_read, read_write::vfs_read::<_, 1>);
sync_exit!(fx_vfs_read, 4);
redundant_entry!(fe_vfs_read_2, read_write::vfs_read::<_, 2>);
sync_exit!(fx_vfs_read_2, 4);
redundant_entry!(fe_vfs_read_3, read_write::vfs_read::<_, 4>);
sync_exit!(fx_vfs_read_3, 4);
entry!(fe_vfs_write, kp_vfs_write, read_write::vfs_write::<_, 1>);
sync_exit!(fx_vfs_write, 4);
redundant_entry!(fe_vfs_write_2, read_write::vfs_write::<_, 2>);
sync_exit!(fx_vfs_write_2, 4);
redundant_entry!(fe_vfs_write_3, read_write::vfs_write::<_, 4>);
sync_exit!(fx_vfs_write_3, 4);

// ---- issue and completion: readv, preadv, preadv2, writev, pwritev, pwritev2
entry!(fe_vfs_readv, kp_vfs_readv, read_write::vfs_readv);
sync_exit!(fx_vfs_readv, 5);
entry!(fe_vfs_writev, kp_vfs_writev, read_write::vfs_writev);
sync_exit!(fx_vfs_writev, 5);

// ---- issue and completion: splice, sendfile
entry!(fe_do_splice, kp_do_splice, splice::splice);
entry!(fe_do_splice_direct, kp_do_splice_direct, splice::splice);
entry!(fe_splice_read, kp_splice_read, splice::splice_read);
exit!(fx_splice_read, kr_splice_read, 5, splice::returned);
entry!(fe_splice_write, kp_splice_write, splice::splice_write);
exit!(fx_splice_write, kr_splice_write, 5, splice::returned);

// ---- O_DIRECT rejected
/// One attachment.
macro_rules! open_exit {
    ($fx:ident, $attachment:literal) => {
        #[fexit]
        pub fn $fx(ctx: FExitContext) -> i32 {
            open_rejected::opened(&ctx, Return::<2>::ret(&ctx), $attachment);
            0
        }
    };
}
open_exit!(fx_vfs_open, 1);
open_exit!(fx_vfs_open_2, 2);
open_exit!(fx_vfs_open_3, 4);
#[kprobe]
pub fn kp_vfs_open(ctx: ProbeContext) -> u32 {
    by_kprobe!(ctx, open_rejected::open_entered);
    0
}
#[fexit]
pub fn fx_do_fcntl(ctx: FExitContext) -> i32 {
    open_rejected::fcntl(&ctx, Return::<4>::ret(&ctx));
    0
}
#[kprobe]
pub fn kp_do_fcntl(ctx: ProbeContext) -> u32 {
    by_kprobe!(ctx, open_rejected::fcntl_entered);
    0
}

/// Completion of all of the above where fexit is unavailable:
/// `sys_exit(struct pt_regs *, long ret)`.
/// A kretprobe has a limited number of instances and every blocked reader of a pipe or socket
/// holds one (kernel/kprobes.c): it misses returns on a busy machine. This never does.
/// Three times: see `preempt`. The second finds nothing left to complete.
macro_rules! sys_exit {
    ($($tp:ident)*) => {$(
        #[raw_tracepoint]
        pub fn $tp(ctx: RawTracePointContext) -> i32 {
            sys_exit::returned(Args::arg(&ctx, 1) as i64);
            0
        }
    )*};
}
sys_exit!(tp_sys_exit tp_sys_exit_2 tp_sys_exit_3);

// ---- issue and completion: libaio
// What completes requests in an interrupt, and nothing else would, is there twice: see `preempt`.
entry!(fe_aio_read, aio::aio_read, kp_aio_read, aio::aio_read_by_kprobe);
exit_only!(fx_aio_read, 4, aio::returned);
entry!(fe_aio_write, aio::aio_write, kp_aio_write, aio::aio_write_by_kprobe);
exit_only!(fx_aio_write, 4, aio::returned);
entry!(fe_aio_complete_rw, kp_aio_complete_rw, aio::completed);
redundant_entry!(fe_aio_complete_rw_2, aio::completed);

#[kprobe]
pub fn kp_do_io_getevents(ctx: ProbeContext) -> u32 {
    by_kprobe!(ctx, aio_reap::getevents_entered);
    0
}

// ---- issue and completion: io_uring
entry!(fe_io_read, io_uring::io_read, kp_io_read, io_uring::io_read_unpaired);
exit!(fx_io_read, kr_io_read, 2, io_uring::returned);
entry!(fe_io_write, io_uring::io_write, kp_io_write, io_uring::io_write_unpaired);
exit!(fx_io_write, kr_io_write, 2, io_uring::returned);
entry!(fe_io_complete_rw, kp_io_complete_rw, io_uring::completed);
entry!(fe_io_complete_rw_iopoll, kp_io_complete_rw_iopoll, io_uring::completed);
entry!(fe_kiocb_done, kp_kiocb_done, io_uring::completed);
#[kprobe]
pub fn kp_io_req_rw_complete(ctx: ProbeContext) -> u32 {
    by_kprobe!(ctx, io_uring::posts);
    0
}
/// `(ctx, req, user_data, res, …)`
#[raw_tracepoint]
pub fn tp_io_uring_complete_res(ctx: RawTracePointContext) -> i32 {
    io_uring::cqe(ctx.arg(1), i64::from(ctx.arg::<i32>(3)));
    0
}
/// `(ctx, req, struct io_uring_cqe *)`
#[raw_tracepoint]
pub fn tp_io_uring_complete_cqe(ctx: RawTracePointContext) -> i32 {
    let res: i32 = kernel_memory::read(ctx.arg(2), &kernel_memory::IO_URING_CQE_RES);
    io_uring::cqe(ctx.arg(1), i64::from(res));
    0
}

// ---- evidence: direct
entry!(
    fe_iomap_dio_complete,
    direct::iomap_dio_complete::<_, CallerCompletes, true>,
    kp_iomap_dio_complete,
    direct::iomap_dio_complete::<_, CallerCompletes, false>
);
redundant_entry!(fe_iomap_dio_complete_2, direct::iomap_dio_complete::<_, CallerCompletes, true>);
#[raw_tracepoint]
pub fn tp_iomap_dio_complete(ctx: RawTracePointContext) -> i32 {
    direct::iomap_dio_completed::<_, CallerCompletes>(&ctx);
    0
}
entry_twice!(
    fe_iomap_dio_simple_complete,
    fe_iomap_dio_simple_complete_2,
    kp_iomap_dio_simple_complete,
    direct::iomap_dio_simple_complete
);
entry_twice!(fe_dio_complete, fe_dio_complete_2, kp_dio_complete, direct::dio_complete);
#[kprobe]
pub fn kp_blockdev_direct_io(ctx: ProbeContext) -> u32 {
    by_kprobe!(ctx, direct::entered);
    0
}
#[kprobe]
pub fn kp_iomap_dio_rw(ctx: ProbeContext) -> u32 {
    by_kprobe!(ctx, direct::entered);
    0
}
#[kprobe]
pub fn kp_iomap_dio_read_simple(ctx: ProbeContext) -> u32 {
    by_kprobe!(ctx, direct::entered);
    0
}
entry!(fe_bounced, kp_bounced, direct::bounced);
entry!(fe_dax_iomap_rw, kp_dax_iomap_rw, direct::dax_iomap_rw);

// ---- evidence: page cache
#[fexit]
pub fn fx_filemap_read(ctx: FExitContext) -> i32 {
    page_cache::filemap_read(&ctx);
    0
}
#[fexit]
pub fn fx_filemap_read_2(ctx: FExitContext) -> i32 {
    page_cache::filemap_read(&ctx);
    0
}
/// A kretprobe has no arguments: the entry keeps the third.
#[kprobe]
pub fn kp_filemap_read(ctx: ProbeContext) -> u32 {
    by_kprobe!(ctx, page_cache::filemap_read_entered);
    0
}
#[kretprobe]
pub fn kr_filemap_read(ctx: RetProbeContext) -> u32 {
    page_cache::filemap_read_returned(Return::<3>::ret(&ctx));
    0
}
#[raw_tracepoint]
pub fn tp_added_to_page_cache(ctx: RawTracePointContext) -> i32 {
    page_cache::added(&ctx);
    0
}

entry!(fe_balance_dirty, kp_balance_dirty, page_cache::balance_dirty);
entry!(fe_balance_dirty_flags, kp_balance_dirty_flags, page_cache::balance_dirty);

// ---- stacked file systems
entry!(fe_vfs_iter_read, kp_vfs_iter_read, stacked::forwarded);
entry!(fe_vfs_iter_write, kp_vfs_iter_write, stacked::forwarded);
entry!(fe_vfs_iocb_iter_read, kp_vfs_iocb_iter_read, stacked::forwarded);
entry!(fe_vfs_iocb_iter_write, kp_vfs_iocb_iter_write, stacked::forwarded);

// ---- side effects
#[fexit]
pub fn fx_do_writepages(ctx: FExitContext) -> i32 {
    writeback::do_writepages(&ctx, Args::arg(&ctx, 0), Args::arg(&ctx, 1));
    0
}
#[fentry]
pub fn fe_do_writepages(ctx: FEntryContext) -> i32 {
    let _guard = preempt::PreemptGuard::new();
    mixed_access::writeback_entered(Args::arg(&ctx, 0));
    0
}
#[kprobe]
pub fn kp_do_writepages(ctx: ProbeContext) -> u32 {
    by_kprobe!(ctx, writeback::do_writepages_entered);
    0
}
#[kretprobe]
pub fn kr_do_writepages(_ctx: RetProbeContext) -> u32 {
    writeback::do_writepages_returned();
    0
}

entry!(fe_invalidate, kp_invalidate, writeback::invalidate_entered);
exit!(fx_invalidate, kr_invalidate, 3, writeback::invalidate_returned);
#[raw_tracepoint]
pub fn tp_dirtied(ctx: RawTracePointContext) -> i32 {
    page_cache::dirtied(&ctx);
    0
}

// ---- why EAGAIN, if that is asked for
exit!(fx_kiocb_modified, kr_kiocb_modified, 1, eagain::<{ reason::TIMESTAMP }>);
exit!(fx_needs_writeback, kr_needs_writeback, 3, true_for::<{ reason::DIRTY }>);
exit!(fx_write_and_wait, kr_write_and_wait, 2, eagain::<{ reason::DIRTY }>);
exit!(fx_has_page, kr_has_page, 3, true_for::<{ reason::CACHED }>);
exit!(fx_iomap_iter, kr_iomap_iter, 2, eagain::<{ reason::BLOCK_MAP }>);
exit!(fx_iomap_apply, kr_iomap_apply, 7, eagain::<{ reason::BLOCK_MAP }>);
/// One of the two.
macro_rules! trylock_exit {
    ($($fx:ident)*) => {$(
        #[fexit]
        pub fn $fx(ctx: FExitContext) -> i32 {
            would_block::trylock(&ctx);
            0
        }
    )*};
}
trylock_exit!(fx_down_read_trylock fx_down_write_trylock);

entry!(fe_evicted, kp_evicted, mixed_access::evicted);

// ---- files that are expected to be used directly
entry!(fe_unasked_read, kp_unasked_read, plain::vfs_read);
entry!(fe_unasked_write, kp_unasked_write, plain::vfs_write);
entry!(fe_unasked_readv, kp_unasked_readv, plain::vfs_readv);
entry!(fe_unasked_writev, kp_unasked_writev, plain::vfs_writev);
entry!(fe_unasked_aio_read, kp_unasked_aio_read, plain::aio_read);
entry!(fe_unasked_aio_write, kp_unasked_aio_write, plain::aio_write);
entry!(fe_unasked_io_read, kp_unasked_io_read, plain::io_read);
#[fexit]
pub fn fx_unasked_io_read(ctx: FExitContext) -> i32 {
    plain::io_read_returned(&ctx);
    0
}
entry!(fe_unasked_io_write, kp_unasked_io_write, plain::io_write);
entry!(fe_unasked_mmap, kp_unasked_mmap, plain::mmap);
entry!(fe_unasked_splice_read, kp_unasked_splice_read, plain::splice_read);
entry!(fe_unasked_splice_write, kp_unasked_splice_write, plain::splice_write);

// ---- who fills the page cache: `dio-trace cache`
// Each twice: see `preempt`.
/// A tracepoint and its redundant attachment.
macro_rules! cache_tracepoint {
    ($($tp:ident)*, $body:expr) => {$(
        #[raw_tracepoint]
        pub fn $tp(ctx: RawTracePointContext) -> i32 {
            $body(&ctx);
            0
        }
    )*};
}
cache_tracepoint!(tp_cache_added tp_cache_added_2, flow::added);
cache_tracepoint!(tp_cache_removed tp_cache_removed_2, flow::removed);
/// An entry probe and its redundant attachment.
macro_rules! cache_entry {
    ($fe:ident, $fe_2:ident, $kp:ident, $body:expr) => {
        entry!($fe, $kp, $body);
        redundant_entry!($fe_2, $body);
    };
}
cache_entry!(fe_cache_read, fe_cache_read_2, kp_cache_read, recent::filemap_read);
cache_entry!(
    fe_cache_splice_read,
    fe_cache_splice_read_2,
    kp_cache_splice_read,
    recent::splice_read
);
cache_entry!(fe_cache_fault, fe_cache_fault_2, kp_cache_fault, recent::filemap_fault);
cache_entry!(fe_cache_fadvise, fe_cache_fadvise_2, kp_cache_fadvise, recent::fadvise);
cache_entry!(
    fe_cache_iomap_write,
    fe_cache_iomap_write_2,
    kp_cache_iomap_write,
    recent::iomap_write
);
cache_entry!(
    fe_cache_perform_write,
    fe_cache_perform_write_2,
    kp_cache_perform_write,
    recent::perform_write
);
cache_entry!(fe_cache_truncate, fe_cache_truncate_2, kp_cache_truncate, recent::truncated);
cache_entry!(fe_cache_invalidate, fe_cache_invalidate_2, kp_cache_invalidate, recent::invalidated);
cache_entry!(
    fe_cache_drop_clean,
    fe_cache_drop_clean_2,
    kp_cache_drop_clean,
    recent::dropped_clean
);
cache_entry!(fe_cache_accessed, fe_cache_accessed_2, kp_cache_accessed, ahead::accessed);
cache_entry!(fe_cache_refault, fe_cache_refault_2, kp_cache_refault, flow::refault);

// ---- children
#[raw_tracepoint]
pub fn tp_sched_process_fork(ctx: RawTracePointContext) -> i32 {
    sched::fork(&ctx);
    0
}
#[raw_tracepoint]
pub fn tp_sched_process_free(ctx: RawTracePointContext) -> i32 {
    sched::free(&ctx);
    0
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // Never reached: the verifier accepts no program with a loop without end.
    loop {}
}

// The helpers used are GPL-only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
