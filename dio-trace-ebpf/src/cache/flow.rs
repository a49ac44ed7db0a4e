//! Pages come into the page cache and leave it: how, and by whom.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use dio_trace_common::{
    abi::{FileId, PageFlow},
    verdict::magic,
};

use super::{
    ahead,
    recent::{self, DONTNEED, DROP_CLEAN, INVALIDATE, PREFETCH, READ, TRUNCATE, WRITE},
    sums::{self, Pages},
};
use crate::{
    filter::{S_IFBLK, S_IFMT},
    folio::{index_of, inside, pages_of},
    kernel_memory::{
        ADDRESS_SPACE_HOST, Args, FOLIO_MAPPING, INODE_I_GENERATION, INODE_I_INO, INODE_I_MODE,
        INODE_I_RDEV, INODE_I_SB, SUPER_BLOCK_S_DEV, SUPER_BLOCK_S_MAGIC, TASK_FLAGS, read,
    },
    mixed_access::is_writing,
    preempt::PreemptGuard,
    task,
};

/// Bits that no address of a folio has: that it leaves, that it was needed again.
const LEFT: u64 = 1;
const AGAIN: u64 = 2;

/// True if the pages are the storage itself: tmpfs, with shared memory and memfd, and hugetlbfs.
#[inline(always)]
fn is_storage(host: u64) -> bool {
    const HUGETLBFS: u32 = 0x9584_58f6; // include/uapi/linux/magic.h
    let magic = read::<u64>(read(host, &INODE_I_SB), &SUPER_BLOCK_S_MAGIC) as u32;
    matches!(magic, magic::TMPFS | HUGETLBFS)
}

/// The file of a mapping. Of a block device: its node in the pseudo file system "bdev".
#[inline(always)]
fn identify(host: u64) -> FileId {
    let dev = if read::<u16>(host, &INODE_I_MODE) & S_IFMT == S_IFBLK {
        read(host, &INODE_I_RDEV)
    } else {
        read(read(host, &INODE_I_SB), &SUPER_BLOCK_S_DEV)
    };
    FileId {
        inode: host,
        ino: read(host, &INODE_I_INO),
        dev,
        generation: read(host, &INODE_I_GENERATION),
    }
}

#[inline(always)]
fn tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// Tracepoint `mm_filemap_add_to_page_cache(struct folio *)` (5.10: `struct page *`).
#[inline(always)]
pub fn added<A: Args>(ctx: &A) {
    let _guard = PreemptGuard::new();
    let folio = ctx.arg(0);
    if recent::is_duplicate(ctx.number(folio)) {
        return;
    }
    let mapping: u64 = read(folio, &FOLIO_MAPPING);
    let host: u64 = read(mapping, &ADDRESS_SPACE_HOST);
    if is_storage(host) {
        return;
    }
    let file = identify(host);
    let (pages, first) = (pages_of(folio), index_of(folio));
    let why = if is_writing(task::current(), host) {
        Why { flow: PageFlow::Write, ahead: PageFlow::Write, asked: pages }
    } else {
        why(mapping, first, pages)
    };
    let tgid = tgid();
    if why.asked != 0 {
        sums::count(mapping, file, tgid, why.flow, Pages::part(why.asked, pages));
    }
    if why.asked != pages {
        sums::count(mapping, file, tgid, why.ahead, Pages::part(pages - why.asked, pages));
        if why.asked == 0 && why.ahead as u8 == PageFlow::ReadAhead as u8 {
            ahead::begin(ctx.number(folio), mapping, file, tgid);
        }
    }
    sums::came_in(mapping, &file);
}

/// Why pages come in.
struct Why {
    /// How those that were asked for come in.
    flow: PageFlow,
    /// How the others do.
    ahead: PageFlow,
    /// How many were asked for.
    asked: u32,
}

/// Why pages come in for which the thread does not hold the lock of a write.
#[inline(always)]
fn why(mapping: u64, first: u64, pages: u32) -> Why {
    let other = Why { flow: PageFlow::OtherIn, ahead: PageFlow::OtherIn, asked: pages };
    let Some(recent) = recent::of_current() else { return other };
    if let Some(fault) = recent.faulted(mapping) {
        let asked = inside(fault.first, fault.last, first, pages);
        return Why { flow: PageFlow::Fault, ahead: PageFlow::FaultAhead, asked };
    }
    let Some(call) = recent.called(mapping) else { return other };
    match call.kind {
        READ => {
            let asked = inside(call.first, call.last, first, pages);
            Why { flow: PageFlow::Read, ahead: PageFlow::ReadAhead, asked }
        }
        PREFETCH => Why { flow: PageFlow::Prefetch, ..other },
        WRITE => Why { flow: PageFlow::Write, ..other },
        _ => other,
    }
}

/// Tracepoint `mm_filemap_delete_from_page_cache(struct folio *)` (5.10: `struct page *`).
#[inline(always)]
pub fn removed<A: Args>(ctx: &A) {
    let _guard = PreemptGuard::new();
    let folio = ctx.arg(0);
    if recent::is_duplicate(ctx.number(folio) | LEFT) {
        return;
    }
    let mapping: u64 = read(folio, &FOLIO_MAPPING);
    let host: u64 = read(mapping, &ADDRESS_SPACE_HOST);
    if is_storage(host) {
        return;
    }
    let (file, pages) = (identify(host), Pages::whole(pages_of(folio)));
    sums::count(mapping, file, tgid(), left_by(mapping), pages);
    sums::left(mapping, &file, pages);
    ahead::left(ctx.number(folio), mapping, pages);
}

/// What makes pages leave.
#[inline(always)]
fn left_by(mapping: u64) -> PageFlow {
    // Set while a thread reclaims memory, for itself or as kswapd (include/linux/sched.h).
    const PF_MEMALLOC: u32 = 0x0000_0800;
    if read::<u32>(task::current(), &TASK_FLAGS) & PF_MEMALLOC != 0 {
        return PageFlow::Reclaimed;
    }
    let Some(recent) = recent::of_current() else { return PageFlow::OtherOut };
    let call = recent.called(mapping);
    let drop = recent.drop;
    if drop.mapping == mapping && !call.is_some_and(|call| call.order > drop.order) {
        return match drop.kind {
            TRUNCATE => PageFlow::Truncated,
            INVALIDATE => PageFlow::Invalidated,
            DROP_CLEAN => PageFlow::DroppedClean,
            _ => PageFlow::OtherOut,
        };
    }
    match call.map(|call| call.kind) {
        Some(DONTNEED) => PageFlow::Dontneed,
        Some(READ) => PageFlow::Dropbehind,
        _ => PageFlow::OtherOut,
    }
}

/// `void workingset_refault(struct folio *, void *shadow)` (5.10: `struct page *`): pages that were
/// reclaimed come in again (mm/workingset.c).
#[inline(always)]
pub fn refault<A: Args>(ctx: &A) {
    let _guard = PreemptGuard::new();
    let folio = ctx.arg(0);
    if recent::is_duplicate(ctx.number(folio) | AGAIN) {
        return;
    }
    let mapping: u64 = read(folio, &FOLIO_MAPPING);
    let host: u64 = read(mapping, &ADDRESS_SPACE_HOST);
    if host != 0 && !is_storage(host) {
        let pages = Pages::whole(pages_of(folio));
        sums::count(mapping, identify(host), tgid(), PageFlow::Refault, pages);
    }
}
