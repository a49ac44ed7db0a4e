//! O_DIRECT itself rejected: open(2) or fcntl(2) gave EINVAL, and no request can follow.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use dio_trace_common::abi::{BY_FCNTL, BY_OPEN, EVENT_REJECTED_OPEN, FileId, RejectedOpen, Stat};

use crate::{
    config::O_DIRECT,
    file_names::{self, Named},
    filter::current_wanted,
    kernel_memory::{
        Args, FILE_F_FLAGS, FILE_F_PATH, INODE_I_GENERATION, INODE_I_INO, INODE_I_SB, PATH_DENTRY,
        SUPER_BLOCK_S_DEV, read,
    },
    maps::{EVENTS, count},
    preempt::PreemptGuard,
    ring::wakeup,
    task,
    thread_table::{ThreadRef, current_or_claim},
};

const EINVAL: i64 = -22;

/// Return of `int vfs_open(const struct path *, struct file *)`.
#[inline(always)]
pub fn opened<A: Args>(ctx: &A, ret: i64, attachment: u64) {
    if ret as i32 == EINVAL as i32
        && asks_for_direct(ctx, ctx.arg(1))
        && current_wanted()
        && !is_duplicate(ctx.arg(1), attachment)
    {
        open_rejected(ctx.arg(0), ctx.arg(1));
    }
}

/// True if a redundant attachment of this probe has sent this very open (see `preempt`).
#[inline(always)]
fn is_duplicate(file: u64, attachment: u64) -> bool {
    let Some(thread) = current_or_claim() else { return false };
    let thread = thread.as_ptr();
    // SAFETY: own-thread rule.
    unsafe {
        let by = (*thread).rejected_by;
        let same = (*thread).rejected == file && by & attachment == 0;
        (*thread).rejected = file;
        (*thread).rejected_by = if same { by | attachment } else { attachment };
        same
    }
}

/// Only kprobe: keeps what is opened until the system call returns.
#[inline(always)]
pub fn open_entered<A: Args>(ctx: &A) {
    if asks_for_direct(ctx, ctx.arg(1)) && current_wanted() {
        let file = Named::at(ctx.arg(0));
        if !file.is_internal() {
            keep(&file, BY_OPEN);
        }
    }
}

/// Return of `long do_fcntl(int fd, unsigned int cmd, unsigned long arg, struct file *)`.
#[inline(always)]
pub fn fcntl<A: Args>(ctx: &A, ret: i64) {
    if ret == EINVAL && sets_direct(ctx) && current_wanted() {
        send(&Named::open(ctx.arg(3)), BY_FCNTL, true);
    }
}

/// Only kprobe: [`open_entered`] for fcntl.
#[inline(always)]
pub fn fcntl_entered<A: Args>(ctx: &A) {
    if sets_direct(ctx) && current_wanted() {
        keep(&Named::open(ctx.arg(3)), BY_FCNTL);
    }
}

/// Only kprobe: the system call returns. The file of an open that failed is gone by now, and with
/// it the proof. Its names are still there, held by the cache of names.
#[inline(always)]
pub fn returned(thread: ThreadRef, ret: i64) {
    let by = thread.pending().take() as u16;
    let (mnt, dentry) = (thread.pending_mnt().get(), thread.pending_dentry().get());
    if by != 0 && ret == EINVAL {
        send(&Named::of(mnt, dentry), by, by == BY_FCNTL);
    }
}

#[inline(always)]
fn asks_for_direct<A: Args>(ctx: &A, file: u64) -> bool {
    let flags: u32 = ctx.load(file, &FILE_F_FLAGS);
    flags & O_DIRECT.load() != 0
}

#[inline(always)]
fn sets_direct<A: Args>(ctx: &A) -> bool {
    const F_SETFL: u32 = 4; // include/uapi/asm-generic/fcntl.h
    ctx.arg(1) as u32 == F_SETFL && ctx.arg(2) as u32 & O_DIRECT.load() != 0
}

/// The file keeps its path only if the kernel's test for O_DIRECT failed an open that had succeeded
/// otherwise. An error of the file system's own open clears the path (fs/open.c:do_dentry_open),
/// and may have another reason than O_DIRECT.
#[inline(always)]
fn open_rejected(path: u64, file: u64) {
    let named = Named::at(path);
    if named.is_internal() {
        return; // a stacked file system opens the lower file: not what the program asked for
    }
    let dentry: u64 = read(file + u64::from(FILE_F_PATH.load()), &PATH_DENTRY);
    send(&named, BY_OPEN, dentry != 0);
}

#[inline(always)]
fn keep(file: &Named, by: u16) {
    let Some(thread) = current_or_claim() else {
        count(Stat::LostThread);
        return;
    };
    thread.pending().set(u64::from(by));
    thread.pending_mnt().set(file.mnt);
    thread.pending_dentry().set(file.dentry);
}

/// Sends the file's names, and what was rejected.
#[inline(never)]
fn send(file: &Named, by: u16, proven: bool) -> i32 {
    let _guard = PreemptGuard::new();
    let inode = file.inode;
    let task = task::identify();
    file_names::emit(file, &task, 0);
    let Some(mut entry) = EVENTS.reserve_untyped::<RejectedOpen>(0) else {
        count(Stat::LostRejectedOpen);
        return 0;
    };
    let event = entry.as_mut_ptr();
    let sb: u64 = read(inode, &INODE_I_SB);
    // SAFETY: reserved above with this very size; every member is written.
    unsafe {
        (*event).kind = EVENT_REJECTED_OPEN;
        (*event).by = by;
        (*event).proven = u16::from(proven);
        (*event).time_ns = bpf_ktime_get_ns();
        (*event).file = FileId {
            inode,
            ino: read(inode, &INODE_I_INO),
            dev: read(sb, &SUPER_BLOCK_S_DEV),
            generation: read(inode, &INODE_I_GENERATION),
        };
        (*event).task = task;
    }
    entry.submit(wakeup());
    0
}
