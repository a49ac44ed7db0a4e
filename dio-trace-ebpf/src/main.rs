//! The probes: thin entry points, each once for fentry/fexit and once for kprobe/kretprobe.
//!
//! `fe_`/`fx_`/`kp_`/`kr_` before the kernel function's name; the loader picks one family and
//! gives each program the function it found (dio-trace/src/kernel/probes.rs has the table).
//!
//! - [`entry`], [`begin`]: where a request begins
//! - [`evidence`]: what the kernel does for it
//! - [`end`]: where it ends, is decided, counted and sent
//! - [`stops`]: why it ended short
//! - [`files`]: the names of its file
//! - [`mixed`]: who else uses that file, through the page cache
//! - [`refused`]: O_DIRECT itself refused
//! - [`stacks`]: the program's stack
//! - [`reaped`]: ends that kprobes missed
//! - [`follow`]: children of traced processes
//! - [`threads`]: what is kept of each thread; [`counters`]: what is added up
//! - [`steady`]: no preemption in the middle of a probe; [`kfunc`]: the kernel's functions that are called
#![no_std]
#![no_main]
// An atomic addition: the target's atomic types have none.
#![feature(core_intrinsics)]
#![expect(internal_features)]

mod begin;
mod config;
mod counters;
mod end;
mod entry;
mod evidence;
mod files;
mod follow;
mod kernel;
mod kfunc;
mod maps;
mod mixed;
mod reaped;
mod refused;
mod stacks;
mod steady;
mod stops;
mod threads;

use aya_ebpf::{
    Global,
    macros::{fentry, fexit, kprobe, kretprobe, raw_tracepoint},
    programs::{FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext},
};
use kernel::{Args, ByCast, Return};

/// Bit number of `PG_head`, from the enum `pageflags` in BTF.
#[unsafe(no_mangle)]
pub static PG_HEAD: Global<u32> = Global::new(0);

/// The body of a kprobe, by what the kernel has for reading memory.
macro_rules! by_kprobe {
    ($ctx:expr, $body:expr) => {
        if kernel::can_cast() {
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

/// One more copy of an entry probe, for fentry alone.
macro_rules! another_entry {
    ($fe:ident, $body:expr) => {
        #[fentry]
        pub fn $fe(ctx: FEntryContext) -> i32 {
            $body(&ctx);
            0
        }
    };
}

/// An entry probe that proves the path of a request: twice for fentry, see `steady`.
macro_rules! entry_twice {
    ($fe:ident, $fe_2:ident, $kp:ident, $body:ident) => {
        entry!($fe, evidence::$body::<_, true>, $kp, evidence::$body::<_, false>);
        another_entry!($fe_2, evidence::$body::<_, true>);
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

/// A return probe whose part the tracepoint sys_exit plays with kprobes.
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
            end::sync(&ctx, Args::arg(&ctx, 0), Return::<$args>::ret(&ctx));
            0
        }
    };
}

// ---- begin and end: read, pread, write, pwrite
// Three times: see `steady`. The second of the exits finds nothing left to end.
entry!(fe_vfs_read, kp_vfs_read, entry::vfs_read::<_, 1>);
sync_exit!(fx_vfs_read, 4);
another_entry!(fe_vfs_read_2, entry::vfs_read::<_, 2>);
sync_exit!(fx_vfs_read_2, 4);
another_entry!(fe_vfs_read_3, entry::vfs_read::<_, 4>);
sync_exit!(fx_vfs_read_3, 4);
entry!(fe_vfs_write, kp_vfs_write, entry::vfs_write::<_, 1>);
sync_exit!(fx_vfs_write, 4);
another_entry!(fe_vfs_write_2, entry::vfs_write::<_, 2>);
sync_exit!(fx_vfs_write_2, 4);
another_entry!(fe_vfs_write_3, entry::vfs_write::<_, 4>);
sync_exit!(fx_vfs_write_3, 4);

// ---- begin and end: readv, preadv, preadv2, writev, pwritev, pwritev2
entry!(fe_vfs_readv, kp_vfs_readv, entry::vfs_readv);
sync_exit!(fx_vfs_readv, 5);
entry!(fe_vfs_writev, kp_vfs_writev, entry::vfs_writev);
sync_exit!(fx_vfs_writev, 5);

// ---- begin and end: splice, sendfile
entry!(fe_do_splice, kp_do_splice, entry::splice);
entry!(fe_do_splice_direct, kp_do_splice_direct, entry::splice);
entry!(fe_splice_read, kp_splice_read, entry::splice_read);
exit!(fx_splice_read, kr_splice_read, 5, end::spliced);
entry!(fe_splice_write, kp_splice_write, entry::splice_write);
exit!(fx_splice_write, kr_splice_write, 5, end::spliced);

// ---- O_DIRECT refused
/// One copy of it.
macro_rules! open_exit {
    ($fx:ident, $copy:literal) => {
        #[fexit]
        pub fn $fx(ctx: FExitContext) -> i32 {
            refused::opened(&ctx, Return::<2>::ret(&ctx), $copy);
            0
        }
    };
}
open_exit!(fx_vfs_open, 1);
open_exit!(fx_vfs_open_2, 2);
open_exit!(fx_vfs_open_3, 4);
#[kprobe]
pub fn kp_vfs_open(ctx: ProbeContext) -> u32 {
    by_kprobe!(ctx, refused::open_begin);
    0
}
#[fexit]
pub fn fx_do_fcntl(ctx: FExitContext) -> i32 {
    refused::fcntl(&ctx, Return::<4>::ret(&ctx));
    0
}
#[kprobe]
pub fn kp_do_fcntl(ctx: ProbeContext) -> u32 {
    by_kprobe!(ctx, refused::fcntl_begin);
    0
}

/// The end of all of these where fexit is not to be had: `sys_exit(struct pt_regs *, long ret)`.
/// A kretprobe has a limited number of instances and every blocked reader of a pipe or socket
/// holds one (kernel/kprobes.c): it misses returns on a busy machine. This never does.
/// Three times: see `steady`. The second finds nothing left to end.
macro_rules! sys_exit {
    ($($tp:ident)*) => {$(
        #[raw_tracepoint]
        pub fn $tp(ctx: RawTracePointContext) -> i32 {
            end::sys_exit(Args::arg(&ctx, 1) as i64);
            0
        }
    )*};
}
sys_exit!(tp_sys_exit tp_sys_exit_2 tp_sys_exit_3);

// ---- begin and end: libaio
// What ends requests in an interrupt, and nothing else would, is there three times: see `steady`.
entry!(fe_aio_read, entry::aio_read, kp_aio_read, entry::aio_read_by_kprobe);
exit_only!(fx_aio_read, 4, end::aio_return);
entry!(fe_aio_write, entry::aio_write, kp_aio_write, entry::aio_write_by_kprobe);
exit_only!(fx_aio_write, 4, end::aio_return);
entry!(fe_aio_complete_rw, kp_aio_complete_rw, end::aio_complete);
another_entry!(fe_aio_complete_rw_2, end::aio_complete);
another_entry!(fe_aio_complete_rw_3, end::aio_complete);

#[kprobe]
pub fn kp_do_io_getevents(ctx: ProbeContext) -> u32 {
    by_kprobe!(ctx, reaped::asked);
    0
}

// ---- begin and end: io_uring
entry!(fe_io_read, entry::io_read, kp_io_read, entry::io_read_unpaired);
exit!(fx_io_read, kr_io_read, 2, end::io_return);
entry!(fe_io_write, entry::io_write, kp_io_write, entry::io_write_unpaired);
exit!(fx_io_write, kr_io_write, 2, end::io_return);
entry!(fe_io_complete_rw, kp_io_complete_rw, end::io_complete);
entry!(fe_io_complete_rw_iopoll, kp_io_complete_rw_iopoll, end::io_complete);
entry!(fe_kiocb_done, kp_kiocb_done, end::io_complete);
#[kprobe]
pub fn kp_io_req_rw_complete(ctx: ProbeContext) -> u32 {
    by_kprobe!(ctx, end::io_posts);
    0
}
/// `(ctx, req, user_data, res, …)`
#[raw_tracepoint]
pub fn tp_io_uring_complete_res(ctx: RawTracePointContext) -> i32 {
    end::cqe(ctx.arg(1), i64::from(ctx.arg::<i32>(3)));
    0
}
/// `(ctx, req, struct io_uring_cqe *)`
#[raw_tracepoint]
pub fn tp_io_uring_complete_cqe(ctx: RawTracePointContext) -> i32 {
    let res: i32 = kernel::read(ctx.arg(2), &kernel::IO_URING_CQE_RES);
    end::cqe(ctx.arg(1), i64::from(res));
    0
}

// ---- evidence: direct
entry_twice!(
    fe_iomap_dio_complete,
    fe_iomap_dio_complete_2,
    kp_iomap_dio_complete,
    iomap_dio_complete
);
#[raw_tracepoint]
pub fn tp_iomap_dio_complete(ctx: RawTracePointContext) -> i32 {
    evidence::iomap_dio_completed(&ctx);
    0
}
entry_twice!(
    fe_iomap_dio_simple_complete,
    fe_iomap_dio_simple_complete_2,
    kp_iomap_dio_simple_complete,
    iomap_dio_simple_complete
);
entry_twice!(fe_dio_complete, fe_dio_complete_2, kp_dio_complete, dio_complete);
#[kprobe]
pub fn kp_blockdev_direct_io(ctx: ProbeContext) -> u32 {
    by_kprobe!(ctx, evidence::direct_entered);
    0
}
#[kprobe]
pub fn kp_iomap_dio_rw(ctx: ProbeContext) -> u32 {
    by_kprobe!(ctx, evidence::direct_entered);
    0
}
#[kprobe]
pub fn kp_iomap_dio_read_simple(ctx: ProbeContext) -> u32 {
    by_kprobe!(ctx, evidence::direct_entered);
    0
}
entry!(fe_bounced, kp_bounced, evidence::bounced);
entry!(fe_dax_iomap_rw, kp_dax_iomap_rw, evidence::dax_iomap_rw);

// ---- evidence: page cache
#[fexit]
pub fn fx_filemap_read(ctx: FExitContext) -> i32 {
    evidence::filemap_read(&ctx);
    0
}
#[fexit]
pub fn fx_filemap_read_2(ctx: FExitContext) -> i32 {
    evidence::filemap_read(&ctx);
    0
}
/// A kretprobe has no arguments: the entry keeps the third.
#[kprobe]
pub fn kp_filemap_read(ctx: ProbeContext) -> u32 {
    by_kprobe!(ctx, evidence::filemap_read_begin);
    0
}
#[kretprobe]
pub fn kr_filemap_read(ctx: RetProbeContext) -> u32 {
    evidence::filemap_read_end(Return::<3>::ret(&ctx));
    0
}
#[raw_tracepoint]
pub fn tp_added_to_page_cache(ctx: RawTracePointContext) -> i32 {
    evidence::added_to_page_cache(&ctx);
    0
}

entry!(fe_balance_dirty, kp_balance_dirty, evidence::balance_dirty);
entry!(fe_balance_dirty_flags, kp_balance_dirty_flags, evidence::balance_dirty);

// ---- stacked file systems
entry!(fe_vfs_iter_read, kp_vfs_iter_read, evidence::passed_on);
entry!(fe_vfs_iter_write, kp_vfs_iter_write, evidence::passed_on);
entry!(fe_vfs_iocb_iter_read, kp_vfs_iocb_iter_read, evidence::passed_on);
entry!(fe_vfs_iocb_iter_write, kp_vfs_iocb_iter_write, evidence::passed_on);

// ---- side effects
#[fexit]
pub fn fx_do_writepages(ctx: FExitContext) -> i32 {
    evidence::do_writepages(&ctx, Args::arg(&ctx, 0), Args::arg(&ctx, 1));
    0
}
#[fentry]
pub fn fe_do_writepages(ctx: FEntryContext) -> i32 {
    let _steady = steady::Steady::new();
    mixed::writeback_begin(Args::arg(&ctx, 0));
    0
}
#[kprobe]
pub fn kp_do_writepages(ctx: ProbeContext) -> u32 {
    by_kprobe!(ctx, evidence::do_writepages_begin);
    0
}
#[kretprobe]
pub fn kr_do_writepages(_ctx: RetProbeContext) -> u32 {
    evidence::do_writepages_end();
    0
}

entry!(fe_invalidate, kp_invalidate, evidence::invalidate_begin);
exit!(fx_invalidate, kr_invalidate, 3, evidence::invalidate_end);
#[raw_tracepoint]
pub fn tp_dirtied(ctx: RawTracePointContext) -> i32 {
    evidence::dirtied(&ctx);
    0
}

entry!(fe_evicted, kp_evicted, mixed::evicted);

// ---- children
#[raw_tracepoint]
pub fn tp_sched_process_fork(ctx: RawTracePointContext) -> i32 {
    follow::fork(&ctx);
    0
}
#[raw_tracepoint]
pub fn tp_sched_process_free(ctx: RawTracePointContext) -> i32 {
    follow::free(&ctx);
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
