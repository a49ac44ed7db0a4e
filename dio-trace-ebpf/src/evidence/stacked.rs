//! Stacked file systems (overlayfs, FUSE passthrough): the request goes on to a lower file.

use dio_trace_common::evidence::seen;

use super::{EvidenceRef, of_magic};
use crate::{
    filter::asks_direct,
    in_flight::RequestRef,
    kernel_memory::{Args, FILE_F_INODE, FILE_F_MAPPING, INODE_I_SB, SUPER_BLOCK_S_MAGIC},
    mixed_access,
    thread_table::{self, IDLE, ThreadRef, open_request},
};

/// `vfs_iter_read(struct file *, …)`, `vfs_iocb_iter_read(struct file *, …)` and their
/// counterparts for writing: a stacked file system forwards the thread's request to this file.
#[inline(always)]
pub fn forwarded<A: Args>(ctx: &A) {
    let Some(thread) = thread_table::current() else { return };
    if thread.state().get() != IDLE {
        forwarded_to(ctx, thread, ctx.arg(0));
    }
}

/// The open request of a thread is forwarded to `file`.
#[inline(always)]
pub fn forwarded_to<A: Args>(ctx: &A, thread: ThreadRef, file: u64) {
    let Some(request) = open_request(thread) else { return };
    // SAFETY: a request of a map.
    let request = unsafe { RequestRef::new(request) };
    let mapping: u64 = ctx.load(file, &FILE_F_MAPPING);
    let inode: u64 = ctx.load(file, &FILE_F_INODE);
    let sb: u64 = ctx.load(inode, &INODE_I_SB);
    let magic: u64 = ctx.load(sb, &SUPER_BLOCK_S_MAGIC);
    thread.lower_mapping().set(mapping);
    note_lower(request, magic as u32);
    if !asks_direct(ctx, file) {
        EvidenceRef::of(request).set_seen(seen::LOWER_BUFFERED);
    }
    if !request.is_not_asked() && mixed_access::is_new_user(mapping, request.tgid().get()) {
        mixed_access::remember(request, mapping);
    }
}

/// The request's data is that of this lower file system.
#[inline(always)]
fn note_lower(request: RequestRef, magic: u32) {
    request.lower_magic().set(magic);
    let evidence = EvidenceRef::of(request);
    evidence.clear_seen(seen::LOCAL);
    evidence.set_seen(of_magic(magic) & seen::PRIVATE_PATH);
}
