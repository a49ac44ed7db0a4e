//! Stacked file systems (overlayfs, FUSE passthrough): the request goes on to a lower file.

use dio_trace_common::{abi::Request, evidence::seen};

use super::of_magic;
use crate::{
    filter::is_direct,
    kernel_memory::{Args, FILE_F_INODE, FILE_F_MAPPING, INODE_I_SB, SUPER_BLOCK_S_MAGIC},
    mixed_access,
    thread_table::{self, IDLE, Thread, open_request},
};

/// `vfs_iter_read(struct file *, …)`, `vfs_iocb_iter_read(struct file *, …)` and their
/// counterparts for writing: a stacked file system forwards the thread's request to this file.
#[inline(always)]
pub fn forwarded<A: Args>(ctx: &A) {
    let Some(thread) = thread_table::current() else {
        return;
    };
    // SAFETY: a value of THREADS.
    if unsafe { (*thread).state } != IDLE {
        forwarded_to(ctx, thread, ctx.arg(0));
    }
}

/// The open request of a thread is forwarded to `file`.
#[inline(always)]
pub fn forwarded_to<A: Args>(ctx: &A, thread: *mut Thread, file: u64) {
    let Some(request) = open_request(thread) else {
        return;
    };
    let mapping: u64 = ctx.load(file, &FILE_F_MAPPING);
    let inode: u64 = ctx.load(file, &FILE_F_INODE);
    let sb: u64 = ctx.load(inode, &INODE_I_SB);
    let magic: u64 = ctx.load(sb, &SUPER_BLOCK_S_MAGIC);
    // SAFETY: as above, and a request of a map.
    unsafe {
        (*thread).lower_mapping = mapping;
        note_lower(request, magic as u32);
        if !is_direct(ctx, file) {
            (*request).evidence.seen |= seen::INNER_BUFFERED;
        }
        if mixed_access::is_new_user(mapping, (*request).tgid) {
            mixed_access::remember(request, mapping);
        }
    }
}

/// The request's data is that of this lower file system.
#[inline(always)]
unsafe fn note_lower(request: *mut Request, magic: u32) {
    // SAFETY: per the caller, a request of a map.
    unsafe {
        (*request).inner_magic = magic;
        (*request).evidence.seen &= !seen::LOCAL;
        (*request).evidence.seen |= of_magic(magic) & seen::OWN_WAY;
    }
}
