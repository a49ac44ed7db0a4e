//! read, pread, write, pwrite and their vectored forms (fs/read_write.c).

use dio_trace_common::abi::{API_READ, API_READV, OP_READ, OP_WRITE, rwf};

use super::{Asked, admitted, position};
use crate::{
    filter::may_be_direct,
    issue::Issue,
    kernel_memory::Args,
    preempt::PreemptGuard,
    request::{
        finish::{appended, finish, leave_sync},
        open::open,
    },
    thread_table::{self, SYNC, ThreadRef},
};

/// `ssize_t vfs_read(struct file *, char __user *, size_t, loff_t *pos)` and `vfs_write`: read,
/// pread, write and pwrite.
#[inline(always)]
fn vfs_rw<A: Args>(ctx: &A, op: u8, attachment: u32) {
    let file = ctx.arg(0);
    let Some(admitted) = admitted(ctx, file) else { return };
    if is_duplicate(admitted.thread, attachment) {
        return;
    }
    let ppos = ctx.arg(3);
    let issue = Issue {
        direct: admitted.direct,
        op,
        api: API_READ,
        flags: 0,
        pos: position(ppos),
        len: ctx.arg(2),
        user: ctx.arg(1),
        nr_segs: 1,
        rw_flags: 0,
        kiocb: 0,
        ppos,
        paired: true,
    };
    open(ctx, admitted.thread, file, &issue);
}

/// True if another attachment of this probe has opened this very request: one is open, and it has
/// not passed this attachment. (Had the completion of an earlier one been missed, this attachment
/// would find its own bit.)
#[inline(always)]
fn is_duplicate(thread: ThreadRef, attachment: u32) -> bool {
    let thread = thread.as_ptr();
    // SAFETY: own-thread rule.
    unsafe {
        let passed = (*thread).entered_by;
        let same = (*thread).state == SYNC && passed != 0 && passed & attachment == 0;
        (*thread).entered_by = if same { passed | attachment } else { attachment };
        same
    }
}

/// See [`vfs_rw`]. `ATTACHMENT` is a bit: where the kernel is preemptible the program is attached
/// several times, and a later attachment opens what the first one was skipped for (see `preempt`).
#[inline(always)]
pub fn vfs_read<A: Args, const ATTACHMENT: u32>(ctx: &A) {
    vfs_rw(ctx, OP_READ, ATTACHMENT);
}

/// See [`vfs_read`].
#[inline(always)]
pub fn vfs_write<A: Args, const ATTACHMENT: u32>(ctx: &A) {
    vfs_rw(ctx, OP_WRITE, ATTACHMENT);
}

/// `ssize_t vfs_readv(struct file *, const struct iovec __user *, unsigned long vlen, loff_t *pos,
/// rwf_t)` and `vfs_writev`.
#[inline(always)]
fn vfs_iov<A: Args>(ctx: &A, op: u8) {
    let file = ctx.arg(0);
    let Some(admitted) = admitted(ctx, file) else { return };
    let (user, nr_segs, ppos) = (ctx.arg(1), ctx.arg(2) as u32, ctx.arg(3));
    let asked = Asked::by_vector(admitted.thread, user, nr_segs);
    let issue = Issue {
        direct: admitted.direct,
        op,
        api: API_READV,
        flags: asked.flags,
        pos: position(ppos),
        len: asked.len,
        user,
        nr_segs: asked.nr_segs,
        rw_flags: rwf::of(ctx.arg(4) as u32),
        kiocb: 0,
        ppos,
        paired: true,
    };
    open(ctx, admitted.thread, file, &issue);
}

/// See [`vfs_iov`].
#[inline(always)]
pub fn vfs_readv<A: Args>(ctx: &A) {
    vfs_iov(ctx, OP_READ);
}

/// See [`vfs_iov`].
#[inline(always)]
pub fn vfs_writev<A: Args>(ctx: &A) {
    vfs_iov(ctx, OP_WRITE);
}

/// Return of vfs_read, vfs_write, vfs_readv or vfs_writev in the submitter's thread.
#[inline(always)]
pub fn returned<A: Args>(ctx: &A, file: u64, ret: i64) {
    if !may_be_direct(ctx, file) {
        return;
    }
    let _guard = PreemptGuard::new();
    let Some(thread) = thread_table::current() else { return };
    // The file is compared: where the completion of an earlier request was missed, this is not its.
    if thread.file().get() == file && leave_sync(thread) {
        let request = thread.request();
        appended(request, ret, || position(thread.ppos().get()));
        finish(request, ret, file, 1);
    }
}
