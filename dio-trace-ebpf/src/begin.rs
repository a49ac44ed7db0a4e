//! Where a request begins.

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid,
    generated::{
        bpf_get_current_ancestor_cgroup_id, bpf_get_current_comm, bpf_get_current_task,
        bpf_ktime_get_ns,
    },
};
use dio_trace_common::{
    abi::{
        API_IO_URING, EVENT_REQUEST, OP_WRITE, REQ_ASYNC, REQ_BLOCK_DEVICE, REQ_PUNTED, Request,
        Stat,
    },
    evidence::{Evidence, seen},
    verdict::magic,
};

use crate::{
    config::{
        CACHE_PROBES_COMPLETE, FILTER_PIDS, FILTER_THREADS, O_APPEND, O_DIRECT, OWN_TGID,
        WANTED_CGROUP, WANTED_CGROUP_LEVEL, WANTED_TID,
    },
    kernel::{
        ADDRESS_SPACE_HOST, Args, FILE_F_FLAGS, FILE_F_INODE, FILE_F_MAPPING, INODE_I_GENERATION,
        INODE_I_INO, INODE_I_MODE, INODE_I_RDEV, INODE_I_SB, INODE_I_SIZE, SUPER_BLOCK_S_DEV,
        SUPER_BLOCK_S_MAGIC, TASK_COMM, TASK_GROUP_LEADER, can_cast, read, read_at,
    },
    maps::{REQUESTS, TARGETS, count},
    stacks,
    threads::{ASYNC, IDLE, SYNC, Thread},
};

const S_IFMT: u16 = 0o170_000;
const S_IFREG: u16 = 0o100_000;
const S_IFBLK: u16 = 0o060_000;

/// What the test for O_DIRECT has read of a file.
#[derive(Clone, Copy)]
pub struct Direct {
    /// Its inode; of a block device, the node in devtmpfs.
    pub inode: u64,
    pub block_device: bool,
    /// `file.f_flags`
    pub flags: u32,
}

/// The file, if it was opened with O_DIRECT and is a regular file or a block device; everything
/// else (pipes in packet mode, sockets, terminals) leaves here, before any map.
#[inline(always)]
pub fn direct<A: Args>(ctx: &A, file: u64) -> Option<Direct> {
    let flags: u32 = ctx.load(file, &FILE_F_FLAGS);
    if flags & O_DIRECT.load() == 0 {
        return None;
    }
    let inode: u64 = ctx.load(file, &FILE_F_INODE);
    let kind = ctx.load::<u16>(inode, &INODE_I_MODE) & S_IFMT;
    matches!(kind, S_IFREG | S_IFBLK).then_some(Direct {
        inode,
        block_device: kind == S_IFBLK,
        flags,
    })
}

/// See [`direct`].
#[inline(always)]
pub fn is_direct<A: Args>(ctx: &A, file: u64) -> bool {
    direct(ctx, file).is_some()
}

/// True if the file was opened with O_DIRECT, whatever it is: enough where only what a request has
/// begun is looked for.
#[inline(always)]
pub fn may_be_direct<A: Args>(ctx: &A, file: u64) -> bool {
    let flags: u32 = ctx.load(file, &FILE_F_FLAGS);
    flags & O_DIRECT.load() != 0
}

/// True if requests of the current process are wanted.
#[inline(always)]
pub fn is_wanted() -> bool {
    wants(bpf_get_current_pid_tgid())
}

/// The same, where its tgid and tid are known already.
#[inline(always)]
pub fn wants(ids: u64) -> bool {
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
    // SAFETY: only asks.
    let id = unsafe { bpf_get_current_ancestor_cgroup_id(WANTED_CGROUP_LEVEL.load() as i32) };
    id == WANTED_CGROUP.load()
}

/// What a begin knows beside the file.
pub struct Ask {
    /// Of the file.
    pub direct: Direct,
    pub op: u8,
    pub api: u8,
    /// `REQ_VECTORED` or 0.
    pub flags: u8,
    pub pos: i64,
    pub len: u64,
    pub user: u64,
    pub nr_segs: u32,
    /// Of an asynchronous request, else 0.
    pub kiocb: u64,
    /// Kernel address of a synchronous request's position, else 0.
    pub ppos: u64,
    /// The end of each attempt is probed too.
    pub paired: bool,
}

/// A synchronous request is still open when its thread submits anew: its return was missed.
#[inline(always)]
unsafe fn close_stale<A: Args>(ctx: &A, thread: *mut Thread) {
    // SAFETY: per the caller, a value of THREADS.
    unsafe {
        if (*thread).state == SYNC {
            let request = &raw const (*thread).request;
            aya_log_ebpf::debug!(
                ctx,
                "thread {}: no end seen of inode {} offset {} length {}",
                (*request).tid,
                (*request).ino,
                (*request).pos,
                (*request).len
            );
            count(Stat::Unmatched);
        }
        (*thread).state = IDLE;
    }
}

/// `*ppos`; a pointer to a scalar has no BTF type to load through.
#[inline(always)]
pub fn position(ppos: u64) -> i64 {
    read_at(ppos)
}

/// Opens a request in the thread's record, and in [`REQUESTS`] if it has a kiocb.
#[inline(always)]
pub fn begin<A: Args>(ctx: &A, thread: *mut Thread, file: u64, ask: &Ask) {
    if ask.len == 0 {
        return; // a request of length 0 is no request
    }
    // SAFETY: a value of THREADS, used by its own thread alone.
    unsafe { close_stale(ctx, thread) };
    if ask.kiocb != 0 && continue_attempt(ctx, thread, ask) {
        return;
    }
    // SAFETY: as above.
    unsafe {
        (*thread).file = file;
        (*thread).ppos = ask.ppos;
        (*thread).nested = 0;
        let request = &raw mut (*thread).request;
        fill(ctx, thread, file, ask);
        stacks::take(ctx, request);
        if ask.kiocb == 0 {
            (*thread).state = SYNC;
        } else {
            if REQUESTS.insert(ask.kiocb, &*request, 0).is_err() {
                count(Stat::LostKiocb);
                return;
            }
            (*thread).state = ASYNC;
        }
    }
    count(Stat::Begun);
}

/// io_uring issues a request again, under the same kiocb: in io-wq after -EAGAIN, or for the
/// rest after a short inline read (io_uring/rw.c). It is the same request if it asks for the
/// same, from a position inside it; anything else is a recycled kiocb whose end was missed.
#[inline(always)]
fn continue_attempt<A: Args>(ctx: &A, thread: *mut Thread, ask: &Ask) -> bool {
    let Some(open) = REQUESTS.get_ptr_mut(ask.kiocb) else { return false };
    // SAFETY: a value of REQUESTS; between two attempts nobody else touches it.
    unsafe {
        let same = ((*open).flags & REQ_PUNTED != 0 || !ask.paired)
            && ((*open).user == ask.user || (*open).user == 0)
            && ((*open).len == ask.len || (*open).user == 0)
            && ask.pos >= (*open).pos
            && ((ask.pos - (*open).pos) as u64) < ask.len;
        if !same {
            aya_log_ebpf::debug!(
                ctx,
                "kiocb {:x} begins anew: no end seen of inode {} offset {} length {}",
                ask.kiocb,
                (*open).ino,
                (*open).pos,
                (*open).len
            );
            count(Stat::Unmatched);
            return false; // the insert overwrites it
        }
        // A buffer of the kernel's choice is known once it was chosen (IOSQE_BUFFER_SELECT).
        ((*open).user, (*open).len) = (ask.user, ask.len);
        let done = (ask.pos - (*open).pos) as u64;
        let evidence = &raw mut (*open).evidence;
        (*evidence).attempts += 1;
        (*evidence).buffered_err = 0;
        // What an earlier attempt read beyond `done` is read again.
        if (*evidence).cached_bytes > done {
            (*evidence).cached_bytes = done;
        }
        let direct = done - (*evidence).cached_bytes;
        if (*evidence).direct_bytes > direct {
            (*evidence).direct_bytes = direct;
        }
        (*open).done_before = done;
        (*open).flags &= !REQ_PUNTED;
        (*thread).request.begin_ns = (*open).begin_ns;
        (*thread).request.kiocb = ask.kiocb;
        (*thread).state = ASYNC;
    }
    true
}

#[inline(always)]
unsafe fn fill<A: Args>(ctx: &A, thread: *mut Thread, file: u64, ask: &Ask) {
    let Direct { inode, block_device, flags } = ask.direct;
    let sb: u64 = ctx.load(inode, &INODE_I_SB);
    let mapping: u64 = ctx.load(file, &FILE_F_MAPPING);
    // The size of a block device is its bdev inode's; f_inode is the node in devtmpfs.
    let host: u64 = ctx.load(mapping, &ADDRESS_SPACE_HOST);
    let size: i64 = ctx.load(host, &INODE_I_SIZE);
    let magic: u64 = ctx.load(sb, &SUPER_BLOCK_S_MAGIC);
    // SAFETY: per the caller, a value of THREADS. Written member by member: a struct literal would
    // be built on the 512-byte stack first. Neighbours that are zero are written volatile, lest the
    // compiler calls its byte-by-byte `memset` for them.
    unsafe {
        let (request, owner) = (&raw mut (*thread).request, (*thread).owner);
        (*request).kind = EVENT_REQUEST;
        (*request).begin_ns = bpf_ktime_get_ns();
        (&raw mut (*request).end_ns).write_volatile(0);
        (&raw mut (*request).kiocb).write_volatile(ask.kiocb);
        (*request).inode = inode;
        (*request).mapping = mapping;
        (*request).user = ask.user;
        (*request).pos = if ask.op == OP_WRITE && flags & O_APPEND.load() != 0 {
            size // where it will go; the end corrects it
        } else {
            ask.pos
        };
        (*request).len = ask.len;
        let place = (&raw const (*thread).places).cast::<u32>().add(usize::from(ask.op & 1));
        (&raw mut (*request).ret).write_volatile(i64::from(place.read())); // see `count_request`
        (&raw mut (*request).done_before).write_volatile(0);
        (*request).size_begin = size;
        (*request).size_end = size;
        (*request).ino = ctx.load(inode, &INODE_I_INO);
        (&raw mut (*request).direct_bytes).write_volatile(0);
        (&raw mut (*request).cached_bytes).write_volatile(0);
        clear(&raw mut (*request).evidence);
        (*request).generation = ctx.load(inode, &INODE_I_GENERATION);
        (*request).magic = magic as u32;
        (*request).tgid = (owner >> 32) as u32;
        (*request).tid = owner as u32;
        (*request).nr_segs = ask.nr_segs;
        (*request).inner_magic = 0;
        (*request).op = ask.op;
        (*request).api = ask.api;
        (*request).stack = 0;
        // Written within the branches: what differs after them, the verifier walks the rest for again.
        let flags = ask.flags | if ask.kiocb != 0 { REQ_ASYNC } else { 0 };
        if block_device {
            (*request).dev = ctx.load(inode, &INODE_I_RDEV);
            (&raw mut (*request).flags).write_volatile(flags | REQ_BLOCK_DEVICE);
            (&raw mut (*request).evidence.seen).write_volatile(seen::LOCAL);
        } else {
            (*request).dev = ctx.load(sb, &SUPER_BLOCK_S_DEV);
            (&raw mut (*request).flags).write_volatile(flags);
            (&raw mut (*request).evidence.seen).write_volatile(of_magic(magic as u32));
        }
        if ask.kiocb == 0 {
            let comm = (&raw mut (*request).comm).cast::<u64>();
            comm.write_volatile(0); // see `name`
            comm.add(1).write_volatile(0);
            return;
        }
        comm((&raw mut (*request).comm).cast());
        // io-wq and SQPOLL threads are the process's own, under a name of the kernel's making.
        if ask.api == API_IO_URING && starts_with_iou(&(*request).comm) {
            let leader: u64 = read(bpf_get_current_task(), &TASK_GROUP_LEADER);
            (*request).comm = read(leader, &TASK_COMM);
        }
    }
}

/// Puts the thread's name into a synchronous request: only where somebody will see it, for few do.
#[inline(always)]
pub unsafe fn name(request: *mut Request) {
    // SAFETY: per the caller, a request of a map. A synchronous one ends in its own thread.
    unsafe {
        if (*request).kiocb == 0 {
            comm((&raw mut (*request).comm).cast());
        }
    }
}

/// The current thread's name, as two words of 8 bytes. The helper takes twice as many instructions as
/// two loads.
#[inline(always)]
unsafe fn comm(to: *mut u64) {
    // SAFETY: per the caller, room for 16 bytes.
    unsafe {
        if can_cast() {
            let at = bpf_get_current_task() + u64::from(TASK_COMM.load());
            to.write(read_at(at));
            to.add(1).write(read_at(at + 8));
        } else {
            bpf_get_current_comm(to.cast(), 16);
        }
    }
}

/// `comm` begins with "iou-" (compared as one word: a slice comparison is a call).
#[inline(always)]
pub fn starts_with_iou(comm: &[u8; 16]) -> bool {
    u32::from_ne_bytes([comm[0], comm[1], comm[2], comm[3]]) == u32::from_ne_bytes(*b"iou-")
}

/// Evidence of a first attempt: all zero but the count of attempts. In words and volatile:
/// otherwise the compiler calls its `memset`, which goes byte by byte.
#[inline(always)]
unsafe fn clear(evidence: *mut Evidence) {
    // SAFETY: per the caller; the struct is made of whole words.
    unsafe {
        let words = evidence.cast::<u64>();
        for word in 0..size_of::<Evidence>() / 8 {
            words.add(word).write_volatile(0);
        }
        (*evidence).attempts = 1;
    }
}

/// What the verdict asks of a file system, as evidence: asked by the verdict itself, it would make the
/// verifier walk that once for each.
#[inline(always)]
const fn of_magic(magic: u32) -> u32 {
    let own_way = if magic::has_own_way(magic) { seen::OWN_WAY } else { 0 };
    own_way | if magic::is_local(magic) { seen::LOCAL } else { 0 }
}

/// The request's data is that of this file system below.
#[inline(always)]
pub unsafe fn note_below(request: *mut Request, magic: u32) {
    // SAFETY: per the caller, a request of a map.
    unsafe {
        (*request).inner_magic = magic;
        (*request).evidence.seen &= !seen::LOCAL;
        (*request).evidence.seen |= of_magic(magic) & seen::OWN_WAY;
    }
}

/// See [`CACHE_PROBES_COMPLETE`].
#[inline(always)]
pub fn cache_probes_complete() -> bool {
    CACHE_PROBES_COMPLETE.load() != 0
}
