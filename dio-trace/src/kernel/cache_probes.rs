//! The probes of `dio-trace cache`: pages that come into the page cache and leave it.

use crate::kernel::probes::{Duty, Effect, FORK, Probe, Table, Tracepoint, When, any, entry, free};

const REASON: Duty = Duty::Effect(Effect::CacheReason);

/// All of them.
pub const PAGE_CACHE: Table = Table {
    probes: PROBES,
    tracepoints: PROCESSES,
    last: PAGES,
    trial: ("fe_cache_truncate", "truncate_inode_pages_range"),
};

/// The entry of a function, and where the kernel may preempt a probe a redundant one.
macro_rules! entries {
    ($($functions:expr, $duty:expr, $fe:literal $fe_2:literal $kp:literal;)*) => {
        &[$(
            entry($functions, $duty, &[$fe], &[$kp]),
            entry($functions, $duty, &[$fe_2], &[]).copies(),
        )*]
    };
}

const PROBES: &[Probe] = entries! {
    // In 5.10 it has another name.
    &["filemap_read", "generic_file_buffered_read"], REASON, "fe_cache_read" "fe_cache_read_2" "kp_cache_read";
    // Since 6.5; before, splice reads through filemap_read.
    &["filemap_splice_read"], Duty::Optional, "fe_cache_splice_read" "fe_cache_splice_read_2" "kp_cache_splice_read";
    &["filemap_fault"], REASON, "fe_cache_fault" "fe_cache_fault_2" "kp_cache_fault";
    &["generic_fadvise"], REASON, "fe_cache_fadvise" "fe_cache_fadvise_2" "kp_cache_fadvise";
    &["iomap_file_buffered_write"], REASON, "fe_cache_iomap_write" "fe_cache_iomap_write_2" "kp_cache_iomap_write";
    &[PERFORM_WRITE], REASON, "fe_cache_perform_write" "fe_cache_perform_write_2" "kp_cache_perform_write";
    &["truncate_inode_pages_range"], REASON, "fe_cache_truncate" "fe_cache_truncate_2" "kp_cache_truncate";
    &["invalidate_inode_pages2_range"], REASON, "fe_cache_invalidate" "fe_cache_invalidate_2" "kp_cache_invalidate";
    &["invalidate_mapping_pages"], REASON, "fe_cache_drop_clean" "fe_cache_drop_clean_2" "kp_cache_drop_clean";
    // The first since 5.16, the second before.
    &["folio_mark_accessed", "mark_page_accessed"], Duty::Effect(Effect::AheadUsed), "fe_cache_accessed" "fe_cache_accessed_2" "kp_cache_accessed";
    &["workingset_refault"], Duty::Effect(Effect::Refaults), "fe_cache_refault" "fe_cache_refault_2" "kp_cache_refault";
};

/// Its first argument is a file before 5.12, and a kiocb since.
pub const PERFORM_WRITE: &str = "generic_perform_write";

const PROCESSES: &[Tracepoint] = &[FORK, free(When::Filtered)];

const PAGES: &[Tracepoint] = &[
    Tracepoint {
        names: &["mm_filemap_add_to_page_cache"],
        duty: Duty::Must,
        programs: &[("tp_cache_added", any)],
        copies: &["tp_cache_added_2"],
        when: When::Always,
    },
    Tracepoint {
        names: &["mm_filemap_delete_from_page_cache"],
        duty: Duty::Must,
        programs: &[("tp_cache_removed", any)],
        copies: &["tp_cache_removed_2"],
        when: When::Always,
    },
];
