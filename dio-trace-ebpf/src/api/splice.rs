//! splice and sendfile (fs/splice.c).

use dio_trace_common::abi::{API_SPLICE, OP_READ, OP_WRITE};

use super::{admitted, position};
use crate::{
    evidence::stacked::forwarded_to,
    filter::{Direct, direct},
    issue::Issue,
    kernel_memory::{Args, ByRead},
    preempt::PreemptGuard,
    request::{
        finish::{appended, finish, leave_sync},
        open::open,
    },
    thread_table::{self, SYNC},
};

/// `long do_splice(struct file *in, loff_t *, struct file *out, loff_t *, size_t, unsigned)` and
/// `do_splice_direct` (sendfile), which have `out` in the same place: the file that is written may
/// be a stacked one, whose file system hands the pipe on to the lower file.
#[inline(always)]
pub fn splice<A: Args>(ctx: &A) {
    let out = ctx.arg(2);
    if let Some(admitted) = admitted(ctx, out) {
        admitted.thread.splice_to().set(out);
    } else if let Some(thread) = thread_table::current() {
        thread.splice_to().set(0); // that of an earlier call
    }
}

/// `ssize_t do_splice_read(struct file *, loff_t *, struct pipe_inode_info *, size_t, unsigned)`
/// (before 6.8: `do_splice_to`): one part of a splice or sendfile, at most what the pipe has room
/// for.
#[inline(always)]
pub fn splice_read<A: Args>(ctx: &A) {
    let file = ctx.arg(0);
    let Some(admitted) = admitted(ctx, file) else { return };
    open(ctx, admitted.thread, file, &spliced(ctx, admitted.direct, OP_READ));
}

/// `ssize_t iter_file_splice_write(struct pipe_inode_info *, struct file *, loff_t *, size_t,
/// unsigned)`: [`splice_read`] for writing.
#[inline(always)]
pub fn splice_write<A: Args>(ctx: &A) {
    let lower = ctx.arg(1);
    let Some(admitted) = admitted(ctx, lower) else { return };
    let named = admitted.thread.splice_to().get();
    let stacked = if named == 0 || named == lower { None } else { direct(&ByRead(ctx), named) };
    let (file, direct) = stacked.map_or((lower, admitted.direct), |direct| (named, direct));
    open(&ByRead(ctx), admitted.thread, file, &spliced(ctx, direct, OP_WRITE));
    if file != lower {
        forwarded_to(&ByRead(ctx), admitted.thread, lower);
    }
}

#[inline(always)]
fn spliced<A: Args>(ctx: &A, direct: Direct, op: u8) -> Issue {
    let ppos = ctx.arg(if op == OP_WRITE { 2 } else { 1 });
    Issue {
        direct,
        op,
        api: API_SPLICE,
        flags: 0,
        pos: position(ppos),
        len: ctx.arg(3),
        user: 0,
        nr_segs: 0,
        rw_flags: 0,
        kiocb: 0,
        ppos,
        paired: true,
    }
}

/// Return of one part of a splice or sendfile. The other side of a sendfile is a part of its own.
#[inline(always)]
pub fn returned(ret: i64) {
    let Some(thread) = thread_table::current() else { return };
    let _guard = PreemptGuard::new();
    let request = thread.request();
    let spliced = thread.state().get() == SYNC && request.api().get() == API_SPLICE;
    if spliced && leave_sync(thread) {
        appended(request, ret, || position(thread.ppos().get()));
        finish(request, ret, thread.file().get(), 1);
    }
}
