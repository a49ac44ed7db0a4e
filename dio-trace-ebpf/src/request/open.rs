//! Opens a request where it is issued.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use dio_trace_common::{
    abi::{API_IO_URING, EVENT_REQUEST, OP_WRITE, REQ_ASYNC, REQ_BLOCK_DEVICE, Stat, ring, rwf},
    evidence::seen,
};

use crate::{
    config::{O_APPEND, O_DIRECT, WANTED_FLAG},
    evidence::{EvidenceRef, of_magic, would_block},
    filter::{Direct, is_block_device},
    in_flight::{self, RequestRef},
    issue::{Issue, begins_anew, close_stale, continue_attempt},
    kernel_memory::{
        ADDRESS_SPACE_HOST, Args, FILE_F_MAPPING, INODE_I_FLAGS, INODE_I_GENERATION, INODE_I_INO,
        INODE_I_RDEV, INODE_I_SB, INODE_I_SIZE, SUPER_BLOCK_S_DEV, SUPER_BLOCK_S_MAGIC,
    },
    maps::count,
    stable_buffer, stacks,
    task::{comm, is_io_worker, leader_comm, starts_with_iou},
    thread_table::{SYNC, ThreadRef, submits},
};

/// Opens a synchronous request, in the thread's record.
#[inline(always)]
pub fn open<A: Args>(ctx: &A, thread: ThreadRef, file: u64, issue: &Issue) {
    if issue.len == 0 {
        return; // the kernel returns 0 without I/O
    }
    close_stale(ctx, thread);
    opens::<A, false>(ctx, thread, thread.request(), file, issue);
    thread.state().set(SYNC);
    count(Stat::Begun);
}

/// Opens an asynchronous request, in a slot of its own. With `RETRIES` the kernel may issue it
/// several times.
#[inline(always)]
pub fn open_async<A: Args, const RETRIES: bool>(
    ctx: &A,
    thread: ThreadRef,
    file: u64,
    issue: &Issue,
) {
    if issue.len == 0 {
        return;
    }
    close_stale(ctx, thread);
    match in_flight::get(issue.kiocb) {
        Some(open) if RETRIES && continue_attempt(thread, open, issue) => return,
        Some(stale) => {
            begins_anew(ctx, stale);
            in_flight::take_over(stale, thread.slot());
        }
        None => _ = in_flight::take(issue.kiocb, thread.slot()),
    }
    let Some(request) = in_flight::taken(thread.slot()) else {
        count(Stat::LostKiocb);
        return;
    };
    opens::<A, true>(ctx, thread, request, file, issue);
    request.show(issue.kiocb);
    submits(thread, request);
    count(Stat::Begun);
}

#[inline(always)]
fn opens<A: Args, const ASYNC: bool>(
    ctx: &A,
    thread: ThreadRef,
    request: RequestRef,
    file: u64,
    issue: &Issue,
) {
    thread.file().set(file);
    thread.ppos().set(issue.ppos);
    thread.lower_mapping().set_volatile(0); // with `set`, a call of `memset` for both
    fill::<A, ASYNC>(ctx, thread, request, file, issue);
    stacks::take(ctx, request);
    stable_buffer::issued(request);
    would_block::begins(request);
}

/// Written field by field: a struct literal would be built on the 512-byte stack first. Neighbours
/// that are zero are written volatile: otherwise the compiler calls its byte-by-byte `memset` for
/// them. Through a plain pointer: the methods of a `RequestRef` make LLVM move a store of the two
/// branches at the end.
#[inline(always)]
fn fill<A: Args, const ASYNC: bool>(
    ctx: &A,
    thread: ThreadRef,
    opened: RequestRef,
    file: u64,
    issue: &Issue,
) {
    let Direct { inode, flags: flags_of_file } = issue.direct;
    let sb: u64 = ctx.load(inode, &INODE_I_SB);
    let mapping: u64 = ctx.load(file, &FILE_F_MAPPING);
    // The size of a block device is its bdev inode's; f_inode is the node in devtmpfs.
    let host: u64 = ctx.load(mapping, &ADDRESS_SPACE_HOST);
    let size: i64 = ctx.load(host, &INODE_I_SIZE);
    let magic: u64 = ctx.load(sb, &SUPER_BLOCK_S_MAGIC);
    let thread = thread.as_ptr();
    // SAFETY: own-thread rule. Written member by member: a struct literal would be built on the
    // 512-byte stack first. Neighbours that are zero are written volatile: otherwise the compiler
    // calls its byte-by-byte `memset` for them.
    unsafe {
        let open = opened.as_ptr();
        let request = &raw mut (*open).request;
        (*request).kind = EVENT_REQUEST;
        (*request).begin_ns = bpf_ktime_get_ns();
        (&raw mut (*open).last_token).write_volatile(0);
        (&raw mut (*request).kiocb).write_volatile(issue.kiocb);
        (*request).file.inode = inode;
        (*request).mapping = mapping;
        (*request).user = issue.user;
        (*request).pos = if issue.op == OP_WRITE && flags_of_file & O_APPEND.load() != 0 {
            size // where it will go; the completion corrects it
        } else {
            issue.pos
        };
        (*request).len = issue.len;
        let slot =
            (&raw const (*thread).counter_slots).cast::<u32>().add(usize::from(issue.op & 1));
        (*open).counter_slot = u64::from(slot.read());
        (&raw mut (*request).done_before).write_volatile(0);
        (*request).size_begin = size;
        (*request).size_end = size;
        (*request).file.ino = ctx.load(inode, &INODE_I_INO);
        (&raw mut (*request).direct_bytes).write_volatile(0);
        (&raw mut (*request).cached_bytes).write_volatile(0);
        EvidenceRef::of(opened).reset();
        (*request).file.generation = ctx.load(inode, &INODE_I_GENERATION);
        (*request).magic = magic as u32;
        // The numbers of `Task` are those of the owner, in one word.
        (&raw mut (*request).task).cast::<u64>().write((*thread).owner);
        (*request).nr_segs = issue.nr_segs;
        (*request).inode_flags = ctx.load(inode, &INODE_I_FLAGS);
        (*request).rw_flags = issue.rw_flags;
        (*request).ring = 0;
        (*request).would_block = 0;
        (*request).lower_magic = 0;
        (*request).op = issue.op;
        (*request).api = issue.api;
        (*request).stack = 0;
        // Assign in both branches, so that verifier states converge behind them (state pruning).
        let flags = issue.flags | if ASYNC { REQ_ASYNC } else { 0 };
        if is_block_device(ctx, inode) {
            (*request).file.dev = ctx.load(inode, &INODE_I_RDEV);
            (&raw mut (*request).flags).write_volatile(flags | REQ_BLOCK_DEVICE);
            (&raw mut (*request).evidence.seen).write_volatile(seen::LOCAL);
        } else {
            (*request).file.dev = ctx.load(sb, &SUPER_BLOCK_S_DEV);
            (&raw mut (*request).flags).write_volatile(flags);
            (&raw mut (*request).evidence.seen).write_volatile(of_magic(magic as u32));
        }
        if WANTED_FLAG.load() == 0 && flags_of_file & O_DIRECT.load() == 0 {
            let uncached = issue.rw_flags & rwf::DONTCACHE != 0;
            (*request).evidence.seen |= seen::NOT_ASKED | if uncached { seen::UNCACHED } else { 0 };
        }
        if !ASYNC {
            let comm = (&raw mut (*request).task.comm).cast::<u64>();
            comm.write_volatile(0); // see `name`
            comm.add(1).write_volatile(0);
            return;
        }
        comm(opened);
        // io-wq and SQPOLL threads are the process's own, under a name of the kernel's making.
        if issue.api == API_IO_URING && starts_with_iou(opened) {
            if is_io_worker() {
                (*request).ring |= ring::WORKER;
            }
            leader_comm(opened);
        }
    }
}
