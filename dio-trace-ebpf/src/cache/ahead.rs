//! Pages that a read brought in ahead of what was asked for: were they read later?
//!
//! The kernel marks a page as accessed when a read gets to it (mm/filemap.c:filemap_read). An access
//! through a mapping leaves no such mark, so that pages of files that are mapped are not followed. Nor
//! is a folio of which a part was asked for: it is used as a whole.

use aya_ebpf::btf_maps::LruHashMap;
use dio_trace_common::abi::{FileId, PageFlow};

use super::sums::{self, Pages};
use crate::{
    folio::pages_of,
    kernel_memory::{ADDRESS_SPACE_I_MMAP, Args, FOLIO_MAPPING, read},
    maps::Copied as _,
    preempt::PreemptGuard,
};

/// Who read a folio ahead.
#[repr(C)]
#[derive(Clone, Copy)]
struct Ahead {
    file: FileId,
    tgid: u32,
    unused: u32,
}

/// Folios, by address, that were read ahead and not read yet. A full map forgets the one that was read
/// ahead first: it is then neither used nor unused.
#[aya_ebpf::macros::btf_map]
static AHEAD: LruHashMap<u64, Ahead, 65536> = LruHashMap::new();

/// True if the file is mapped anywhere (`address_space.i_mmap`, a tree).
#[inline(always)]
fn is_mapped(mapping: u64) -> bool {
    read::<u64>(mapping, &ADDRESS_SPACE_I_MMAP) != 0
}

/// A folio was read ahead by this process.
#[inline(always)]
pub fn begin(folio: u64, mapping: u64, file: FileId, tgid: u32) {
    if !is_mapped(mapping) {
        let _ = AHEAD.insert(folio, &Ahead { file, tgid, unused: 0 }, 0);
    }
}

/// `void folio_mark_accessed(struct folio *)` (before 5.16: `mark_page_accessed(struct page *)`)
#[inline(always)]
pub fn accessed<A: Args>(ctx: &A) {
    let folio = ctx.number(ctx.arg(0));
    let Some(ahead) = AHEAD.copied(folio) else { return };
    let _guard = PreemptGuard::new();
    if AHEAD.remove(folio).is_ok() {
        let mapping = read(folio, &FOLIO_MAPPING);
        let pages = Pages::whole(pages_of(folio));
        sums::count(mapping, ahead.file, ahead.tgid, PageFlow::AheadUsed, pages);
    }
}

/// A folio leaves the page cache.
#[inline(always)]
pub fn left(folio: u64, mapping: u64, pages: Pages) {
    let Some(ahead) = AHEAD.copied(folio) else { return };
    if AHEAD.remove(folio).is_ok() && !is_mapped(mapping) {
        sums::count(mapping, ahead.file, ahead.tgid, PageFlow::AheadUnused, pages);
    }
}
