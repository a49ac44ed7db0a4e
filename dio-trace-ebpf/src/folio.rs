//! Folios (before 5.16: pages) of the page cache.

use dio_trace_common::offsets::ABSENT;

use crate::kernel_memory::{
    FOLIO_FLAGS, FOLIO_INDEX, FOLIO_INDEX_OLD, FOLIO_NR_PAGES, FOLIO_NR_PAGES_OLD, PG_HEAD, read,
};

/// Pages of a folio: 1, or its own count if it is a large one.
#[inline(always)]
pub fn pages_of(folio: u64) -> u32 {
    // PG_head marks a large folio (include/linux/page-flags.h).
    let head = 1u64 << (PG_HEAD.load() & 63);
    let flags: u64 = read(folio, &FOLIO_FLAGS);
    if flags & head == 0 {
        return 1;
    }
    let pages: u32 = if FOLIO_NR_PAGES.load() != ABSENT {
        read(folio, &FOLIO_NR_PAGES)
    } else if FOLIO_NR_PAGES_OLD.load() != ABSENT {
        read(folio, &FOLIO_NR_PAGES_OLD)
    } else {
        1
    };
    if pages == 0 { 1 } else { pages }
}

/// The place of a folio in its file, in pages.
#[inline(always)]
pub fn index_of(folio: u64) -> u64 {
    if FOLIO_INDEX.load() != ABSENT {
        read(folio, &FOLIO_INDEX)
    } else {
        read(folio, &FOLIO_INDEX_OLD)
    }
}

/// How many of the `pages` pages from `index` on are in the range of pages from `first` to `last`.
#[inline(always)]
pub fn inside(first: u64, last: u64, index: u64, pages: u32) -> u32 {
    let begin = if index > first { index } else { first };
    let end = index + u64::from(pages);
    let end = if end <= last { end } else { last + 1 };
    if end > begin { (end - begin) as u32 } else { 0 }
}
