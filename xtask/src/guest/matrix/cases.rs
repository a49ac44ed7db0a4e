//! The cases: the state of a file and of the page cache before a request, and how the request is
//! made.
use anyhow::{Context, Result};

/// The content of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// This many bytes of data.
    Bytes(u64),
    /// A hole of 256 KiB.
    Hole,
    /// 256 KiB that are allocated and never written.
    Unwritten,
    /// Data, a hole from 8 to 16 KiB, data up to 256 KiB.
    Mixed,
}

/// The pages of the request's range in the page cache just before the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cache {
    Nothing,
    /// Dirty pages: written and not yet written back.
    Dirty,
    /// Clean pages.
    Clean,
    /// One clean page.
    OnePage,
    /// Clean pages that are mapped and were touched.
    Mapped,
}

/// How the program gets its descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Open {
    Direct,
    /// Without O_DIRECT: dio-trace must not report a request.
    Buffered,
    /// Opened without O_DIRECT, which fcntl(F_SETFL) then sets.
    Setfl,
}

/// Where a vectored request is split into two segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    Nowhere,
    At(usize),
    Half,
}

/// One case; `name` is the word that the scenario files use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    name: &'static str,
    pub(crate) content: Content,
    pub(crate) cache: Cache,
    pub(crate) open: Open,
    pub(crate) cut: Cut,
    /// RWF_* flags of preadv2 and pwritev2.
    pub(crate) flags: i32,
    /// O_* flags in addition to O_DIRECT.
    pub(crate) also: i32,
}

/// RWF_DONTCACHE (include/uapi/linux/fs.h, 6.14); not yet in libc.
const RWF_DONTCACHE: i32 = 0x80;

/// 256 KiB of data.
pub(crate) const FULL: Content = Content::Bytes(256 << 10);
const PLAIN: Case = Case {
    name: "",
    content: FULL,
    cache: Cache::Nothing,
    open: Open::Direct,
    cut: Cut::Nowhere,
    flags: 0,
    also: 0,
};

const fn case(name: &'static str) -> Case {
    Case { name, ..PLAIN }
}

const fn holds(name: &'static str, content: Content) -> Case {
    Case { name, content, ..PLAIN }
}

const fn cached(name: &'static str, cache: Cache) -> Case {
    Case { name, cache, ..PLAIN }
}

const fn cut(name: &'static str, cut: Cut) -> Case {
    Case { name, cut, ..PLAIN }
}

const fn flags(name: &'static str, flags: i32) -> Case {
    Case { name, flags, ..PLAIN }
}

const fn also(name: &'static str, also: i32) -> Case {
    Case { name, also, ..PLAIN }
}

const CASES: &[Case] = &[
    case("r_aligned4k"),
    case("r_aligned64k"),
    case("r_512"),
    case("r_off512"),
    case("r_len512"),
    case("r_mem512"),
    case("r_mem256"),
    case("r_mem4"),
    case("r_mem1"),
    case("r_memoff64k_m512"),
    case("r_off100"),
    case("r_len100"),
    case("r_len4097"),
    case("r_len0"),
    case("r_eof_cross"),
    case("r_eof_at"),
    case("r_eof_beyond"),
    flags("r_nowait", libc::RWF_NOWAIT),
    flags("r_dontcache", RWF_DONTCACHE),
    Case { open: Open::Buffered, ..flags("r_dontcache_nodirect", RWF_DONTCACHE) },
    Case { open: Open::Buffered, ..case("r_ctl_nodirect") },
    Case { open: Open::Setfl, ..case("r_setfl") },
    cut("r_iov512", Cut::At(512)),
    cut("r_iovhalf", Cut::Half),
    cut("r_iov100", Cut::At(100)),
    holds("r_tail_4k", Content::Bytes(10_000)),
    holds("r_tail_all", Content::Bytes(10_000)),
    holds("r_tail_after", Content::Bytes(10_000)),
    holds("r_tail_ateof_una", Content::Bytes(10_000)),
    holds("r_tail_una", Content::Bytes(10_000)),
    holds("r_tail_512", Content::Bytes(10_000)),
    holds("r_t512_4k", Content::Bytes(8704)),
    Case { content: Content::Bytes(10_000), ..cached("r_dirtytail", Cache::Dirty) },
    holds("r_hole", Content::Hole),
    holds("r_hole4k", Content::Hole),
    holds("r_hole_una", Content::Hole),
    holds("r_unwritten", Content::Unwritten),
    holds("r_mix", Content::Mixed),
    cached("r_dirty", Cache::Dirty),
    Case { cache: Cache::Dirty, ..flags("r_dirty_nowait", libc::RWF_NOWAIT) },
    cached("r_dirty_una", Cache::Dirty),
    cached("r_cached", Cache::Clean),
    cached("r_cached_una", Cache::Clean),
    cached("r_partcached", Cache::OnePage),
    cached("r_mmapd", Cache::Mapped),
    holds("r_small", Content::Bytes(100)),
    holds("r_small512", Content::Bytes(100)),
    holds("r_small_una", Content::Bytes(100)),
    Case { content: Content::Bytes(100), ..cached("r_small_unsynced", Cache::Dirty) },
    holds("r_empty", Content::Bytes(0)),
    holds("r_empty_una", Content::Bytes(0)),
    case("w_over4k"),
    case("w_over64k"),
    case("w_512"),
    case("w_off512"),
    case("w_mem512"),
    case("w_mem4"),
    case("w_mem1"),
    case("w_off100"),
    case("w_len100"),
    case("w_extend"),
    case("w_extend_gap"),
    flags("w_nowait", libc::RWF_NOWAIT),
    Case { open: Open::Buffered, ..case("w_ctl_nodirect") },
    Case { open: Open::Buffered, ..flags("w_dontcache_nodirect", RWF_DONTCACHE) },
    Case { open: Open::Setfl, ..case("w_setfl") },
    cut("w_iov512", Cut::At(512)),
    cut("w_iov100", Cut::At(100)),
    also("w_append", libc::O_APPEND),
    also("w_append_512", libc::O_APPEND),
    also("w_append_una", libc::O_APPEND),
    Case { content: Content::Bytes(10_000), ..also("w_append_tail", libc::O_APPEND) },
    also("w_osync", libc::O_SYNC),
    also("w_odsync", libc::O_DSYNC),
    holds("w_empty_4k", Content::Bytes(0)),
    holds("w_hole", Content::Hole),
    holds("w_hole_512", Content::Hole),
    holds("w_unwritten", Content::Unwritten),
    holds("w_unwritten_512", Content::Unwritten),
    holds("w_mix", Content::Mixed),
    holds("w_mix_cached", Content::Mixed),
    holds("w_tail_4k", Content::Bytes(10_000)),
    holds("w_tail_512in", Content::Bytes(10_000)),
    cached("w_cached", Cache::Clean),
    cached("w_dirty", Cache::Dirty),
    Case { cache: Cache::Dirty, ..flags("w_dirty_nowait", libc::RWF_NOWAIT) },
    cached("w_mmapd", Cache::Mapped),
    holds("w_small_4k", Content::Bytes(100)),
    holds("w_small_512", Content::Bytes(100)),
    case("r_mmap"),
    case("w_mmap"),
    case("r_splice"),
    case("r_splice_una"),
    case("r_sendfile"),
    case("w_splice"),
    // Requests at the end of a device; offset and length are in the scenario file.
    case("tail"),
    case("oddtail"),
    Case { open: Open::Buffered, ..case("tail_nod") },
    Case { open: Open::Buffered, ..case("oddtail_nod") },
    // Requests in and around sectors that cannot be read or written.
    case("err_in"),
    case("err_cross_after"),
    case("err_mid64k"),
    case("err_mid1m"),
    case("err_mid4m"),
    case("err_clean"),
    case("err_clean_before"),
    Case { open: Open::Buffered, ..case("err_nod") },
    Case { open: Open::Buffered, ..case("err_buffered_ctl") },
    case("werr_in"),
    case("werr_mid64k"),
    case("med_at"),
    case("med_mid64k"),
    case("med_mid1m"),
    case("med_exact512"),
    case("med_cross512"),
    case("med_in512"),
    case("med_in4k"),
    Case { open: Open::Buffered, ..case("med_nod") },
    // Alignment, named after the request's offset, length and buffer misalignment.
    case("al_r_off0_len4096_mis0"),
    case("al_r_off512_len4096_mis0"),
    case("al_r_off0_len512_mis0"),
    case("al_r_off0_len4096_mis512"),
    case("al_r_off0_len4096_mis4"),
    case("al_r_off0_len4096_mis2"),
    case("al_r_off0_len4096_mis1"),
    case("al_w_off512_len512_mis0"),
    case("al_w_off0_len4096_mis4"),
];

/// Finds a case by name.
pub(crate) fn find(name: &str) -> Result<&'static Case> {
    CASES.iter().find(|case| case.name == name).with_context(|| format!("no case is called {name}"))
}
