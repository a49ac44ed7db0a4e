//! What each thread did last with a file's pages: entry probes alone, because the latest entry that
//! is about the same file tells what a page came in for. Nothing has to be undone at a return, which a
//! kretprobe may miss.

use aya_ebpf::{btf_maps::LruHashMap, helpers::bpf_get_current_pid_tgid};

use crate::{
    config::{COPIES, PAGE_SHIFT, PERFORM_WRITE_BY_KIOCB},
    kernel_memory::{
        Args, FILE_F_FLAGS, FILE_F_MAPPING, IOV_ITER_COUNT, KIOCB_KI_FILP, KIOCB_KI_POS,
        VM_FAULT_PGOFF, VM_FAULT_VMA, VMA_VM_FILE, by_helper, read,
    },
    preempt::PreemptGuard,
};

pub const READ: u32 = 1;
pub const WRITE: u32 = 2;
pub const PREFETCH: u32 = 3;
pub const DONTNEED: u32 = 4;
pub const TRUNCATE: u32 = 5;
pub const INVALIDATE: u32 = 6;
pub const DROP_CLEAN: u32 = 7;

/// Something that a thread did with the pages of a file.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Act {
    /// `address_space` of the file.
    pub mapping: u64,
    /// First and last page that it is about.
    pub first: u64,
    pub last: u64,
    /// [`READ`] and the following.
    pub kind: u32,
    /// The later of two acts has the greater number.
    pub order: u32,
    /// `file.f_flags` of the open file.
    pub flags: u32,
    unused: u32,
}

impl Act {
    const NONE: Self =
        Self { mapping: 0, first: 0, last: 0, kind: 0, order: 0, flags: 0, unused: 0 };
}

/// The latest acts of a thread. Separate ones, because one may happen in the midst of another: the
/// buffer of a read faults, memory is reclaimed and inodes are dropped for it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Recent {
    /// A read, a write, or advice about the file.
    pub call: Act,
    /// An access through a mapping.
    pub fault: Act,
    /// A truncation or invalidation.
    pub drop: Act,
    /// What was counted last, see [`is_duplicate`].
    counted: u64,
    acts: u32,
    unused: u32,
}

impl Recent {
    const NONE: Self =
        Self { call: Act::NONE, fault: Act::NONE, drop: Act::NONE, counted: 0, acts: 0, unused: 0 };
}

/// By tid. Only the thread itself writes its entry.
#[aya_ebpf::macros::btf_map]
static RECENT: LruHashMap<u32, Recent, 16384> = LruHashMap::new();

/// The latest acts of the current thread.
#[inline(always)]
pub fn of_current() -> Option<Recent> {
    let tid = bpf_get_current_pid_tgid() as u32;
    // SAFETY: a value of RECENT, which only this thread writes.
    RECENT.get_ptr(tid).map(|recent| unsafe { *recent })
}

impl Recent {
    /// The access through a mapping of this file, unless a call about it came later.
    #[inline(always)]
    pub fn faulted(&self, mapping: u64) -> Option<&Act> {
        let called = self.call.mapping == mapping && self.call.order > self.fault.order;
        (self.fault.mapping == mapping && !called).then_some(&self.fault)
    }

    /// The latest call about this file.
    #[inline(always)]
    pub fn called(&self, mapping: u64) -> Option<&Act> {
        (self.call.mapping == mapping).then_some(&self.call)
    }
}

/// The entry of the current thread, which is made if there is none.
#[inline(always)]
fn entry() -> Option<*mut Recent> {
    let tid = bpf_get_current_pid_tgid() as u32;
    if let Some(recent) = RECENT.get_ptr_mut(tid) {
        return Some(recent);
    }
    make(tid);
    RECENT.get_ptr_mut(tid)
}

/// Makes an empty entry. Not inlined, because the value would take up the stack of every caller.
#[inline(never)]
fn make(tid: u32) -> u32 {
    let _ = RECENT.insert(tid, &Recent::NONE, 0);
    0
}

/// Keeps an act of the current thread in the place that `at` selects.
#[inline(always)]
fn keep(act: Act, at: impl Fn(*mut Recent) -> *mut Act) {
    let Some(recent) = entry() else { return };
    // SAFETY: a value of RECENT, which only this thread writes.
    unsafe {
        (*recent).acts += 1;
        at(recent).write(Act { order: (*recent).acts, ..act });
    }
}

/// True in the second of two redundant attachments (see [`crate::preempt`]), if the first has counted the
/// same thing, which `token` identifies. If one of them was skipped, the other counts.
#[inline(always)]
pub fn is_duplicate(token: u64) -> bool {
    if COPIES.load() == 0 {
        return false;
    }
    let Some(recent) = entry() else { return false };
    // SAFETY: a value of RECENT, which only this thread writes.
    unsafe {
        let duplicate = (*recent).counted == token;
        (*recent).counted = if duplicate { 0 } else { token };
        duplicate
    }
}

#[inline(always)]
fn call(act: Act) {
    // SAFETY: the address of a member.
    keep(act, |recent| unsafe { &raw mut (*recent).call });
}

/// An act about `len` bytes at `pos` of an open file.
#[inline(always)]
fn bytes(file: u64, kind: u32, pos: u64, len: u64) -> Act {
    let page = PAGE_SHIFT.load() & 63;
    let last = if len == 0 { pos } else { pos.wrapping_add(len - 1) };
    Act { kind, first: pos >> page, last: last >> page, ..of(file) }
}

/// An act about an open file.
#[inline(always)]
fn of(file: u64) -> Act {
    Act { mapping: read(file, &FILE_F_MAPPING), flags: read(file, &FILE_F_FLAGS), ..Act::NONE }
}

/// `ssize_t filemap_read(struct kiocb *, struct iov_iter *, ssize_t already)`
#[inline(always)]
pub fn filemap_read<A: Args>(ctx: &A) {
    let _guard = PreemptGuard::new();
    let kiocb = ctx.arg(0);
    let (file, pos) = (read(kiocb, &KIOCB_KI_FILP), read(kiocb, &KIOCB_KI_POS));
    call(bytes(file, READ, pos, read(ctx.arg(1), &IOV_ITER_COUNT)));
}

/// `ssize_t filemap_splice_read(struct file *, loff_t *ppos, struct pipe_inode_info *, size_t len,
/// unsigned)`, since 6.5.
#[inline(always)]
pub fn splice_read<A: Args>(ctx: &A) {
    let _guard = PreemptGuard::new();
    call(bytes(ctx.arg(0), READ, by_helper(ctx.arg(1)), ctx.arg(3)));
}

/// `vm_fault_t filemap_fault(struct vm_fault *)`
#[inline(always)]
pub fn filemap_fault<A: Args>(ctx: &A) {
    let _guard = PreemptGuard::new();
    let fault = ctx.arg(0);
    let file: u64 = read(read(fault, &VM_FAULT_VMA), &VMA_VM_FILE);
    let page = read(fault, &VM_FAULT_PGOFF);
    let act = Act { kind: READ, first: page, last: page, ..of(file) };
    // SAFETY: the address of a member.
    keep(act, |recent| unsafe { &raw mut (*recent).fault });
}

/// `int generic_fadvise(struct file *, loff_t offset, loff_t len, int advice)`; madvise and readahead
/// call it too (mm/madvise.c:madvise_willneed, mm/readahead.c:ksys_readahead).
#[inline(always)]
pub fn fadvise<A: Args>(ctx: &A) {
    // include/uapi/linux/fadvise.h; other values on s390 alone.
    const WILLNEED: u32 = 3;
    const DONTNEED_ADVICE: u32 = 4;
    let kind = match ctx.arg(3) as u32 {
        WILLNEED => PREFETCH,
        DONTNEED_ADVICE => DONTNEED,
        _ => return,
    };
    let _guard = PreemptGuard::new();
    call(bytes(ctx.arg(0), kind, ctx.arg(1), ctx.arg(2)));
}

/// `ssize_t iomap_file_buffered_write(struct kiocb *, …)` and `ssize_t generic_perform_write(struct
/// kiocb *, …)`, whose first argument is the file in 5.10.
#[inline(always)]
fn write(file: u64) {
    let _guard = PreemptGuard::new();
    call(Act { kind: WRITE, ..of(file) });
}

/// See [`write`].
#[inline(always)]
pub fn iomap_write<A: Args>(ctx: &A) {
    write(read(ctx.arg(0), &KIOCB_KI_FILP));
}

/// See [`write`].
#[inline(always)]
pub fn perform_write<A: Args>(ctx: &A) {
    if PERFORM_WRITE_BY_KIOCB.load() != 0 {
        write(read(ctx.arg(0), &KIOCB_KI_FILP));
    } else {
        write(ctx.arg(0));
    }
}

#[inline(always)]
fn dropped(mapping: u64, kind: u32) {
    let _guard = PreemptGuard::new();
    let act = Act { mapping, kind, ..Act::NONE };
    // SAFETY: the address of a member.
    keep(act, |recent| unsafe { &raw mut (*recent).drop });
}

/// `void truncate_inode_pages_range(struct address_space *, loff_t, loff_t)`
#[inline(always)]
pub fn truncated<A: Args>(ctx: &A) {
    dropped(ctx.arg(0), TRUNCATE);
}

/// `int invalidate_inode_pages2_range(struct address_space *, pgoff_t, pgoff_t)`
#[inline(always)]
pub fn invalidated<A: Args>(ctx: &A) {
    dropped(ctx.arg(0), INVALIDATE);
}

/// `unsigned long invalidate_mapping_pages(struct address_space *, pgoff_t, pgoff_t)`: what
/// /proc/sys/vm/drop_caches calls, and in 5.10 POSIX_FADV_DONTNEED as well.
#[inline(always)]
pub fn dropped_clean<A: Args>(ctx: &A) {
    let mapping = ctx.arg(0);
    let advice = of_current().and_then(|recent| {
        let call = *recent.called(mapping)?;
        (call.kind == DONTNEED && call.order == recent.acts).then_some(())
    });
    if advice.is_none() {
        dropped(mapping, DROP_CLEAN);
    }
}
