//! O_DIRECT itself refused: open(2) or fcntl(2) gave EINVAL, and no request can follow.

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid,
    generated::{bpf_get_current_comm, bpf_ktime_get_ns},
};
use dio_trace_common::abi::{EVENT_REFUSAL, REFUSED_FCNTL, REFUSED_OPEN, Refusal, Stat};

use crate::{
    begin::is_wanted,
    config::O_DIRECT,
    end::wakeup,
    files,
    kernel::{
        Args, FILE_F_FLAGS, FILE_F_PATH, INODE_I_INO, INODE_I_SB, PATH_DENTRY, SUPER_BLOCK_S_DEV,
        read,
    },
    maps::{EVENTS, count, thread, thread_or_new},
    steady::Steady,
};

const EINVAL: i64 = -22;

/// Return of `int vfs_open(const struct path *, struct file *)`.
#[inline(always)]
pub fn opened<A: Args>(ctx: &A, ret: i64) {
    if ret as i32 == EINVAL as i32 && asks_for_direct(ctx, ctx.arg(1)) {
        open_refused(ctx.arg(1));
    }
}

/// kprobe alone: keeps the file for the return.
#[inline(always)]
pub fn open_begin<A: Args>(ctx: &A) {
    if asks_for_direct(ctx, ctx.arg(1)) && is_wanted() {
        keep(ctx.arg(1));
    }
}

/// kprobe alone: its return.
#[inline(always)]
pub fn open_end(ret: i64) {
    let file = kept();
    if file != 0 && ret as i32 == EINVAL as i32 {
        open_refused(file);
    }
}

/// Return of `long do_fcntl(int fd, unsigned int cmd, unsigned long arg, struct file *)`.
#[inline(always)]
pub fn fcntl<A: Args>(ctx: &A, ret: i64) {
    if ret == EINVAL && sets_direct(ctx) && is_wanted() {
        send(ctx.arg(3), REFUSED_FCNTL);
    }
}

/// kprobe alone: keeps the file for the return.
#[inline(always)]
pub fn fcntl_begin<A: Args>(ctx: &A) {
    if sets_direct(ctx) && is_wanted() {
        keep(ctx.arg(3));
    }
}

/// kprobe alone: its return.
#[inline(always)]
pub fn fcntl_end(ret: i64) {
    let file = kept();
    if file != 0 && ret == EINVAL {
        send(file, REFUSED_FCNTL);
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

/// EINVAL may have other reasons, but those take the file's path away again: only the test for
/// O_DIRECT fails an open that has succeeded otherwise (fs/open.c:do_dentry_open).
#[inline(always)]
fn open_refused(file: u64) {
    let dentry: u64 = read(file + u64::from(FILE_F_PATH.load()), &PATH_DENTRY);
    if dentry != 0 && is_wanted() {
        send(file, REFUSED_OPEN);
    }
}

#[inline(always)]
fn keep(file: u64) {
    let Some(thread) = thread_or_new() else {
        count(Stat::LostThread);
        return;
    };
    // SAFETY: a value of THREADS, used by its own thread alone.
    unsafe { (*thread).asking = file };
}

#[inline(always)]
fn kept() -> u64 {
    let Some(thread) = thread() else { return 0 };
    // SAFETY: as above.
    unsafe { core::mem::replace(&mut (*thread).asking, 0) }
}

/// Sends the file's names, and what was refused.
#[inline(never)]
fn send(file: u64, by: u32) {
    let _steady = Steady::new();
    let ids = bpf_get_current_pid_tgid();
    let inode = files::inode(file);
    files::emit(file, (ids >> 32) as u32);
    let Some(mut entry) = EVENTS.reserve_untyped::<Refusal>(0) else {
        count(Stat::LostRefusal);
        return;
    };
    let event = entry.as_mut_ptr();
    let sb: u64 = read(inode, &INODE_I_SB);
    // SAFETY: reserved above with this very size; every member is written.
    unsafe {
        (*event).kind = EVENT_REFUSAL;
        (*event).by = by;
        (*event).time_ns = bpf_ktime_get_ns();
        (*event).inode = inode;
        (*event).ino = read(inode, &INODE_I_INO);
        (*event).dev = read(sb, &SUPER_BLOCK_S_DEV);
        (*event).tgid = (ids >> 32) as u32;
        (*event).tid = ids as u32;
        (*event).reserved = 0;
        bpf_get_current_comm((&raw mut (*event).comm).cast(), 16);
    }
    entry.submit(wakeup());
}
