//! What is traced: files opened with O_DIRECT (with `--cached` others too), of the processes and with the requests that the
//! command line asks for.
//!
//! A probe asks for the file first: two or three loads send every bystander away before any map.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, generated::bpf_get_current_ancestor_cgroup_id};

use crate::{
    config::{
        FILTER_PIDS, FILTER_THREADS, MIN_LATENCY, O_DIRECT, OWN_TGID, WANTED_APIS, WANTED_CGROUP,
        WANTED_CGROUP_LEVEL, WANTED_DEV, WANTED_FLAG, WANTED_OPS, WANTED_TID,
    },
    in_flight::RequestRef,
    kernel_memory::{Args, FILE_F_FLAGS, FILE_F_INODE, INODE_I_MODE},
    maps::TARGETS,
};

pub const S_IFMT: u16 = 0o170_000;
pub const S_IFREG: u16 = 0o100_000;
pub const S_IFBLK: u16 = 0o060_000;

/// What the test for O_DIRECT has read of a file.
#[derive(Clone, Copy)]
pub struct Direct {
    /// Its inode; of a block device, the node in devtmpfs.
    pub inode: u64,
    /// `file.f_flags`
    pub flags: u32,
}

/// What was read of the file, if it was opened with the wanted flag and is a regular file or a block
/// device. Everything else (pipes in packet mode, sockets, terminals) leaves here, before any map.
#[inline(always)]
pub fn direct<A: Args>(ctx: &A, file: u64) -> Option<Direct> {
    let flags: u32 = ctx.load(file, &FILE_F_FLAGS);
    if !has_wanted(flags) {
        return None;
    }
    let inode: u64 = ctx.load(file, &FILE_F_INODE);
    let kind = ctx.load::<u16>(inode, &INODE_I_MODE) & S_IFMT;
    matches!(kind, S_IFREG | S_IFBLK).then_some(Direct { inode, flags })
}

/// True if an open file with these flags is traced. As it stands, the test takes no more instructions
/// than one for O_DIRECT alone.
#[inline(always)]
fn has_wanted(flags: u32) -> bool {
    let wanted = WANTED_FLAG.load();
    flags & wanted == wanted
}

/// True if the inode is a block device's. Read again: what [`direct`] has found out would make the
/// verifier walk all that follows for each of the two kinds.
#[inline(always)]
pub fn is_block_device<A: Args>(ctx: &A, inode: u64) -> bool {
    ctx.load::<u16>(inode, &INODE_I_MODE) & S_IFMT == S_IFBLK
}

/// True if the file was opened with O_DIRECT and is a regular file or a block device.
#[inline(always)]
pub fn asks_direct<A: Args>(ctx: &A, file: u64) -> bool {
    direct(ctx, file).is_some_and(|direct| direct.flags & O_DIRECT.load() != 0)
}

/// True if [`direct`] accepts the file.
#[inline(always)]
pub fn is_direct<A: Args>(ctx: &A, file: u64) -> bool {
    direct(ctx, file).is_some()
}

/// True if the file was opened with the wanted flag, whatever it is: enough at a completion, which looks
/// only for what an issue has opened.
#[inline(always)]
pub fn may_be_direct<A: Args>(ctx: &A, file: u64) -> bool {
    let flags: u32 = ctx.load(file, &FILE_F_FLAGS);
    has_wanted(flags)
}

/// True if requests of the current process are wanted.
#[inline(always)]
pub fn current_wanted() -> bool {
    process_wanted(bpf_get_current_pid_tgid())
}

/// [`current_wanted`], for a caller that has the tgid and tid of the current thread.
#[inline(always)]
pub fn process_wanted(ids: u64) -> bool {
    if FILTER_THREADS.load() == 0 {
        return true;
    }
    let own = (ids >> 32) as u32 == OWN_TGID.load();
    if WANTED_TID.load() != 0 && ids as u32 != WANTED_TID.load() && !own {
        return false;
    }
    if WANTED_CGROUP.load() != 0 && !in_cgroup() && !own {
        return false;
    }
    FILTER_PIDS.load() == 0 || TARGETS.get_ptr((ids >> 32) as u32).is_some()
}

/// True if the current process is in the wanted cgroup or below it.
#[inline(always)]
fn in_cgroup() -> bool {
    // SAFETY: a helper that takes a number and returns one.
    let id = unsafe { bpf_get_current_ancestor_cgroup_id(WANTED_CGROUP_LEVEL.load() as i32) };
    id == WANTED_CGROUP.load()
}

/// True unless a filter rejects the request. For a completed one: a filter may ask for its latency.
#[inline(always)]
pub fn request_wanted(request: RequestRef) -> bool {
    if request.tgid().get() == OWN_TGID.load() {
        return true;
    }
    let latency = request.end_ns().get() - request.begin_ns().get();
    WANTED_OPS.load() >> (request.op().get() & 31) & 1 != 0
        && WANTED_APIS.load() >> (request.api().get() & 31) & 1 != 0
        && (WANTED_DEV.load() == 0 || request.dev().get() == WANTED_DEV.load())
        && latency >= MIN_LATENCY.load()
}
