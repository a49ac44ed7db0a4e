//! The verdict: a pure function from the evidence about a request to a decision.
//!
//! It runs in the probes (to count requests and to select findings) and in user space (for live
//! tracing and recordings). It does not depend on the kernel version.

use crate::{
    byte_enum::byte_enum,
    evidence::{Evidence, Facts, seen},
};

/// The errno values that the verdict distinguishes (asm-generic/errno-base.h, errno.h).
mod errno {
    pub(super) const EAGAIN: i64 = 11;
    pub(super) const EINVAL: i64 = 22;
    pub(super) const EOPNOTSUPP: i64 = 95;
}

/// Largest transfer of one request in bytes, for pages of this size in bytes: `MAX_RW_COUNT`
/// (include/linux/fs.h).
#[must_use]
pub const fn max_rw_count(page_size: u64) -> u64 {
    i32::MAX as u64 & !(page_size - 1)
}

/// `super_block.s_magic` values with their own rule (include/uapi/linux/magic.h).
pub mod magic {
    pub const TMPFS: u32 = 0x0102_1994;
    pub const FUSE: u32 = 0x6573_5546;
    pub const NFS: u32 = 0x6969;
    pub const V9FS: u32 = 0x0102_1997;
    pub const CEPH: u32 = 0x00c3_6400;
    pub const CIFS: u32 = 0xff53_4d42;
    pub const SMB2: u32 = 0xfe53_4d42;
    pub const NTFS3: u32 = 0x7366_746e;
    pub const ZONEFS: u32 = 0x5a4f_4653;

    /// True for file systems whose server may cache a request that is direct on this client.
    #[must_use]
    pub const fn is_client(magic: u32) -> bool {
        is_one_of(magic, &[FUSE, NFS, V9FS, CEPH, CIFS, SMB2]) != 0
    }

    /// True for file systems whose data is neither on a server nor in memory, see [`seen::LOCAL`].
    ///
    /// [`seen::LOCAL`]: crate::evidence::seen::LOCAL
    #[must_use]
    pub const fn is_local(magic: u32) -> bool {
        is_one_of(magic, &[FUSE, NFS, V9FS, CEPH, CIFS, SMB2, TMPFS]) == 0
    }

    /// True for file systems with a private direct path, and without a private buffered path: ntfs3
    /// returns zeros for reads beyond the valid size
    /// (fs/ntfs3/file.c:ntfs_file_read_iter, 7.x); zonefs appends to a zone by a bio
    /// (fs/zonefs/file.c:zonefs_file_dio_append, before 6.5).
    #[must_use]
    pub const fn has_private_path(magic: u32) -> bool {
        is_one_of(magic, &[NTFS3, ZONEFS]) != 0
    }

    /// 1 if `magic` is in `these`, else 0. Branch-free on purpose: for each path through branches,
    /// the verifier would walk the rest of the probe again.
    #[inline(always)]
    const fn is_one_of(magic: u32, these: &[u32]) -> u64 {
        let (mut one, mut at) = (0, 0);
        while at < these.len() {
            one |= ((magic ^ these[at]) as u64).wrapping_sub(1) >> 63;
            at += 1;
        }
        one
    }
}

byte_enum! {
    /// The path that the bytes of a request took. Decided in this order; the first match wins.
    Verdict {
        /// The request was rejected: EINVAL, EOPNOTSUPP, or EAGAIN for NOWAIT.
        Refused = "refused",
        /// Any other error.
        Failed = "failed",
        /// A read of length > 0 returned 0 at or beyond the end of the file.
        Eof = "eof",
        /// DAX: neither page cache nor block layer.
        Dax = "dax",
        /// tmpfs: the page cache is the storage.
        Memory = "memory",
        /// All bytes went through the page cache.
        Fallback = "fallback",
        /// Some bytes went through the page cache.
        Partial = "partial",
        /// Direct on this client; the server may cache.
        Client = "client",
        /// All bytes bypassed the page cache.
        Direct = "direct",
        /// The evidence is not sufficient.
        Unknown = "unknown",
        /// Did not ask for direct I/O, and went through the page cache (`--cached`).
        Cached = "cached",
        /// As cached, and the call asked for its pages to be dropped behind it (RWF_DONTCACHE).
        Uncached = "uncached",
    }
}

byte_enum! {
    /// How much of the requested length was transferred, and why not all.
    Outcome {
        /// No bytes: an error, or 0 at the end of the file.
        None = "none",
        /// All requested bytes; for splice and sendfile, all that the pipe had room for or held.
        Full = "full",
        Eof = "short:eof",
        DeviceEnd = "short:device-end",
        MaxRw = "short:max-rw",
        Signal = "short:signal",
        Fault = "short:fault",
        Server = "short:server",
        Media = "short:media",
        Race = "short:race",
        Other = "short:other",
    }
}

impl Outcome {
    /// True for a short transfer: 0 < result < length.
    #[must_use]
    pub const fn is_short(self) -> bool {
        self as u8 > Self::Full as u8
    }
}

/// The decision on one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub verdict: Verdict,
    pub outcome: Outcome,
    /// Bytes of the result that bypassed the page cache.
    pub direct_bytes: u64,
    /// Bytes of the result that went through the page cache.
    pub cached_bytes: u64,
    /// The request is a finding, which is reported individually (README.md).
    pub finding: bool,
}

impl Decision {
    /// The decision on a request that [`is_plain`] and returned `ret` bytes.
    #[must_use]
    #[inline(always)]
    pub const fn plain(ret: i64) -> Self {
        Self {
            verdict: Verdict::Direct,
            outcome: Outcome::Full,
            direct_bytes: ret as u64,
            cached_bytes: 0,
            finding: false,
        }
    }
}

/// Decides one request.
///
/// Never guesses: if no probe accounts for some bytes, the verdict is [`Verdict::Unknown`]. There are
/// exceptions if all page-cache probes are attached: bytes that did not go through the cache went
/// - to the device, for a block device (block/fops.c has only the direct and the buffered
///   path);
/// - to the server, for a network or FUSE client (which calls `filemap_read` or dirties pages for
///   the rest; excepted are FUSE writes after a page that could not be dropped, see
///   [`seen::SENT_CACHED`]);
/// - by the private direct path, for a file system that has one ([`seen::PRIVATE_PATH`]);
/// - by the direct path, if one took the request and its completion may have been
///   missed.
///
/// The probes take the same steps ([`is_plain`], [`path`], [`outcome`], [`is_finding`]) one by one.
#[must_use]
pub fn decide(facts: &Facts, ev: &Evidence) -> Decision {
    if is_plain(facts, ev) {
        return Decision::plain(facts.ret);
    }
    decide_each(facts, ev)
}

/// Decides by evaluating the rules one by one.
fn decide_each(facts: &Facts, ev: &Evidence) -> Decision {
    let Path { verdict, direct_bytes, cached_bytes } = path(facts, ev);
    let outcome = outcome(facts, ev);
    let finding = is_finding(facts, ev, verdict as u8, outcome as u8);
    Decision { verdict, outcome, direct_bytes, cached_bytes, finding }
}

/// The fast path. True for most requests: a direct path reported all of the requested bytes, and
/// nothing else happened: [`Decision::plain`]. The rules below need not be evaluated for them.
///
/// Branch-free on purpose: OR-ing all disqualifiers gives the verifier one branch. With a branch
/// for each, it would walk the rules once per path, with a different state each time.
#[must_use]
#[inline(always)]
pub fn is_plain(facts: &Facts, ev: &Evidence) -> bool {
    const HARMLESS: u32 = seen::DIRECT_TRIED | seen::INVALIDATED | seen::LOCAL;
    const fn negative(n: u64) -> u64 {
        n >> 63
    }
    let ret = facts.ret as u64;
    let no_bytes = negative(ret) | negative(ret.wrapping_sub(1));
    let not_whole = (ret ^ facts.len) | no_bytes | negative(ev.direct_bytes.wrapping_sub(ret));
    let not_tried = negative(u64::from(ev.seen & seen::DIRECT_TRIED).wrapping_sub(1));
    let not_local = (ev.seen & seen::LOCAL) ^ seen::LOCAL;
    let more = (ev.seen & !HARMLESS) | ev.flushed_pages | ev.invalidated_pages;
    let not = not_whole | not_tried | u64::from(not_local | more) | ev.cached_bytes;
    // Opaque, so that the compiler does not turn it into branches again.
    core::hint::black_box(not) == 0
}

/// True if a request with this verdict and outcome is a finding, which is reported individually
/// (README.md).
///
/// By sets of bits, and not by a `match`: the verifier would walk each arm.
#[must_use]
#[inline(always)]
pub fn is_finding(facts: &Facts, ev: &Evidence, verdict: u8, outcome: u8) -> bool {
    const fn set(of: &[Verdict]) -> u32 {
        let (mut bits, mut at) = (0, 0);
        while at < of.len() {
            bits |= 1 << of[at] as u32;
            at += 1;
        }
        bits
    }
    use Verdict::{Client, Dax, Direct, Eof, Failed, Fallback, Memory, Partial, Refused, Unknown};
    const ALWAYS: u32 = set(&[Fallback, Partial, Failed, Unknown]);
    const IF_SHORT: u32 = set(&[Direct, Client, Dax, Memory]);
    const IF_DISTURBED: u32 = set(&[Direct, Client, Eof]);
    const UNLESS_EAGAIN: u32 = set(&[Refused]);

    let mut findings = ALWAYS;
    if outcome > Outcome::Full as u8 {
        findings |= IF_SHORT;
    }
    if ev.flushed_pages | ev.invalidated_pages | (ev.seen & seen::BUFFER_CHANGED) != 0 {
        findings |= IF_DISTURBED;
    }
    if facts.ret != -errno::EAGAIN {
        findings |= UNLESS_EAGAIN;
    }
    if ev.seen & seen::NOT_ASKED != 0 {
        findings = 0;
    }
    findings >> (verdict & 31) & 1 != 0
}

/// Bytes of the result that went through the page cache. For a read, the buffered path counts them.
/// For a write that entered a buffered loop, they are the bytes that the direct path did not write.
#[inline(always)]
fn cached(facts: &Facts, ev: &Evidence, done: u64) -> u64 {
    let untried = ev.seen & seen::DIRECT_TRIED == 0;
    if ev.seen & seen::LOWER_BUFFERED != 0 && untried {
        return done; // the kernel goes direct only for a kiocb with IOCB_DIRECT
    }
    if !facts.write {
        return if ev.cached_bytes < done { ev.cached_bytes } else { done };
    }
    if ev.seen & seen::BUFFERED_WRITE == 0 {
        return 0;
    }
    done.saturating_sub(ev.direct_bytes)
}

/// The path that the bytes of a request took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    pub verdict: Verdict,
    /// Bytes of the result that bypassed the page cache.
    pub direct_bytes: u64,
    /// Bytes of the result that went through the page cache.
    pub cached_bytes: u64,
}

impl Path {
    const fn of(verdict: Verdict, direct_bytes: u64, cached_bytes: u64) -> Self {
        Self { verdict, direct_bytes, cached_bytes }
    }
}

/// The path that the bytes of a request took.
#[must_use]
#[inline(always)]
pub fn path(facts: &Facts, ev: &Evidence) -> Path {
    if facts.ret < 0 {
        return match -facts.ret {
            errno::EINVAL | errno::EOPNOTSUPP | errno::EAGAIN => Path::of(Verdict::Refused, 0, 0),
            _ => Path::of(Verdict::Failed, 0, 0),
        };
    }
    let done = facts.ret as u64;
    if done == 0 && !facts.write && (at_end(facts, 0) || !answered(facts)) {
        return Path::of(Verdict::Eof, 0, 0);
    }
    if ev.seen & seen::DAX != 0 {
        return Path::of(Verdict::Dax, 0, 0);
    }
    if ev.seen & seen::NOT_ASKED != 0 {
        let uncached = ev.seen & seen::UNCACHED != 0;
        let verdict = if uncached { Verdict::Uncached } else { Verdict::Cached };
        return Path::of(verdict, 0, done);
    }
    if !facts.block_device && below(facts) == magic::TMPFS {
        return Path::of(Verdict::Memory, 0, done);
    }
    let cached = cached(facts, ev, done);
    if done != 0 && cached == done {
        return Path::of(Verdict::Fallback, 0, cached);
    }
    let rest = done - cached;
    let proven = ev.seen & seen::DIRECT_TRIED != 0 && ev.direct_bytes >= rest;
    let server = !facts.block_device && magic::is_client(below(facts));
    let entered = ev.seen & (seen::DIRECT_ENTERED | seen::PRIVATE_PATH) != 0;
    let by_elimination = (facts.block_device || server || entered)
        && ev.seen & (seen::MISSED | seen::SENT_CACHED) == 0;
    if !proven && !by_elimination {
        return Path::of(Verdict::Unknown, 0, cached);
    }
    if cached != 0 {
        return Path::of(Verdict::Partial, rest, cached);
    }
    if answered(facts) {
        return Path::of(Verdict::Client, rest, 0);
    }
    Path::of(Verdict::Direct, rest, 0)
}

/// Magic of the file system that holds the data: the lower one if a stacked one forwarded to it.
#[inline(always)]
const fn below(facts: &Facts) -> u32 {
    if facts.lower_magic == 0 { facts.magic } else { facts.lower_magic }
}

/// True if a server decides how many bytes a read gets, which may be 0 anywhere. Otherwise the
/// kernel returns 0 only at the end of the file, which may move later: a truncation, then a write.
#[inline(always)]
const fn answered(facts: &Facts) -> bool {
    !facts.block_device && (magic::is_client(facts.magic) || magic::is_client(below(facts)))
}

/// True if a read that got `done` bytes stopped at or beyond the end of the file, for the size at
/// issue or at completion: the kernel samples the size at some time in between.
#[inline(always)]
fn at_end(facts: &Facts, done: u64) -> bool {
    facts.pos.saturating_add(done as i64) >= facts.size_end || past_begin(facts, done)
}

/// True if a read that got `done` bytes stopped at or beyond the size that the file had at issue.
#[inline(always)]
fn past_begin(facts: &Facts, done: u64) -> bool {
    facts.pos.saturating_add(done as i64) >= facts.size_begin
}

/// True if a read of a file returned fewer bytes than the kernel read for it. This happens only at
/// the end of the file, which may be elsewhere by the time the request completes.
///
/// The direct path reads whole blocks, and trims them to the file size that it sampled at its start
/// (fs/iomap/direct-io.c:iomap_dio_complete, fs/direct-io.c:dio_complete). Nothing else stops
/// inside a sector: bad sectors and pages that cannot be read are left out as a whole.
#[inline(always)]
fn trimmed(facts: &Facts, ev: &Evidence, done: u64) -> bool {
    const SECTOR: u64 = 512;
    let inside = (facts.pos as u64).wrapping_add(done) & (SECTOR - 1) != 0;
    let direct = ev.seen & seen::DIRECT_TRIED != 0 && ev.cached_bytes == 0 && ev.attempts <= 1;
    !facts.block_device && (inside || (direct && ev.direct_bytes > done))
}

/// How much of the requested length was transferred, and why not all.
#[must_use]
#[inline(always)]
pub fn outcome(facts: &Facts, ev: &Evidence) -> Outcome {
    if facts.ret <= 0 {
        return Outcome::None;
    }
    let done = facts.ret as u64;
    if done >= facts.len {
        return Outcome::Full;
    }
    if ev.seen & seen::AT_MOST != 0 {
        return Outcome::MaxRw;
    }
    let server = !facts.block_device && magic::is_client(below(facts));
    if at_end(facts, done) && (!facts.write || facts.block_device) {
        return match facts.block_device {
            true => Outcome::DeviceEnd,
            // FUSE takes a short answer as the new end of file (fs/fuse/file.c:fuse_short_read).
            false if server && !past_begin(facts, done) => Outcome::Server,
            false => Outcome::Eof,
        };
    }
    if facts.spliced {
        return Outcome::Full; // all that the pipe had room for or held
    }
    if ev.seen & seen::BUFFER_FAULT != 0 {
        return Outcome::Fault;
    }
    if ev.seen & seen::KILLED != 0 {
        return Outcome::Signal;
    }
    if ev.seen & seen::DAX != 0 {
        return Outcome::Media;
    }
    if server {
        return Outcome::Server;
    }
    let resized = facts.size_begin != facts.size_end;
    if !facts.write && (resized || trimmed(facts, ev, done)) {
        return Outcome::Race; // truncated and grown again: the file ended here for a moment
    }
    Outcome::Other
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXT4: u32 = 0xef53;

    /// A 4 KiB read inside a regular file of 1 MiB that returned everything.
    fn read() -> Facts {
        Facts {
            write: false,
            spliced: false,
            block_device: false,
            magic: EXT4,
            lower_magic: 0,
            len: 4096,
            pos: 8192,
            ret: 4096,
            size_begin: 1 << 20,
            size_end: 1 << 20,
        }
    }

    fn direct(bytes: u64) -> Evidence {
        Evidence { direct_bytes: bytes, seen: seen::IOMAP_DIO, attempts: 1, ..Evidence::default() }
    }

    fn cached(bytes: u64) -> Evidence {
        Evidence {
            cached_bytes: bytes,
            seen: seen::BUFFERED_READ,
            attempts: 1,
            ..Evidence::default()
        }
    }

    fn verdict(facts: &Facts, evidence: &Evidence) -> (Verdict, Outcome, bool) {
        let decision = decide(facts, evidence);
        (decision.verdict, decision.outcome, decision.finding)
    }

    #[test]
    fn bytes_decide_between_direct_and_cached() {
        assert_eq!(verdict(&read(), &direct(4096)), (Verdict::Direct, Outcome::Full, false));
        assert_eq!(verdict(&read(), &cached(4096)), (Verdict::Fallback, Outcome::Full, true));
        let mixed = Evidence { cached_bytes: 1024, ..direct(3072) };
        let decision = decide(&read(), &mixed);
        assert_eq!(decision.verdict, Verdict::Partial);
        assert_eq!((decision.direct_bytes, decision.cached_bytes), (3072, 1024));
    }

    /// Pseudo-random numbers that are the same in every run (xorshift).
    struct Numbers(u64);

    impl Numbers {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        fn of<T: Copy>(&mut self, these: &[T]) -> T {
            these[self.next() as usize % these.len()]
        }
    }

    #[test]
    fn the_short_way_to_a_decision_is_the_long_one() {
        let mut n = Numbers(0x9e37_79b9_7f4a_7c15);
        let mut plain = 0;
        for _ in 0..2_000_000 {
            let magics = [EXT4, EXT4, EXT4, magic::TMPFS, magic::FUSE, magic::NFS, magic::SMB2, 0];
            let bits = [0, 0, 1 << (n.next() % 17), seen::AT_MOST];
            let facts = Facts {
                write: n.of(&[false, true]),
                spliced: n.of(&[false, false, true]),
                block_device: n.of(&[false, false, true]),
                magic: n.of(&magics),
                lower_magic: n.of(&[0, 0, 0, EXT4, magic::FUSE, magic::TMPFS]),
                len: n.of(&[0, 1, 4096, 4096, 8192, 3 << 30]),
                pos: n.of(&[0, 4096, i64::MAX]),
                ret: n.of(&[4096, 4096, 4096, 8192, 0, 1024, -11, -22, -5, i64::MIN + 1]),
                size_begin: n.of(&[0, 4096, 1 << 20]),
                size_end: n.of(&[0, 4096, 1 << 20]),
            };
            let local = facts.lower_magic == 0
                && (facts.block_device || magic::is_local(facts.magic))
                && n.of(&[true, true, false]); // recordings of old versions have no such bit
            let ev = Evidence {
                direct_bytes: n.of(&[0, 1024, 4096, 4096, 8192, u64::MAX]),
                cached_bytes: n.of(&[0, 0, 0, 1024, 4096]),
                seen: n.of(&[0, seen::IOMAP_DIO, seen::LEGACY_DIO, seen::DIRECT_ENTERED])
                    | n.of(&bits)
                    | n.of(&bits)
                    | if local { seen::LOCAL } else { 0 },
                flushed_pages: n.of(&[0, 0, 0, 1]),
                invalidated_pages: n.of(&[0, 0, 0, 1]),
                attempts: n.of(&[1, 2]),
                ..Evidence::default()
            };
            plain += u32::from(is_plain(&facts, &ev));
            assert_eq!(decide(&facts, &ev), decide_each(&facts, &ev), "{facts:?} {ev:?}");
        }
        assert!(plain > 1_000, "{plain} took the short way");
    }

    #[test]
    fn nothing_is_direct_without_evidence() {
        assert_eq!(verdict(&read(), &Evidence::default()).0, Verdict::Unknown);
        // The direct path ran, but reports fewer bytes than the program got.
        assert_eq!(verdict(&read(), &direct(1024)).0, Verdict::Unknown);
        // The buffered path was entered for its end-of-file check, and read nothing.
        let entered = Evidence { seen: seen::IOMAP_DIO | seen::BUFFERED_READ, ..direct(4096) };
        assert_eq!(verdict(&read(), &entered).0, Verdict::Direct);
    }

    #[test]
    fn a_direct_path_whose_end_was_missed_is_judged_by_elimination() {
        let entered = Evidence { seen: seen::DIRECT_ENTERED, ..Evidence::default() };
        assert_eq!(verdict(&read(), &entered).0, Verdict::Direct);
        let missed = Evidence { seen: seen::DIRECT_ENTERED | seen::MISSED, ..entered };
        assert_eq!(verdict(&read(), &missed).0, Verdict::Unknown);
        let rest = Evidence { seen: entered.seen | seen::BUFFERED_READ, ..cached(1024) };
        assert_eq!(verdict(&read(), &rest).0, Verdict::Partial);
    }

    #[test]
    fn a_stacked_file_is_judged_by_the_file_system_below() {
        let none = Evidence::default();
        let on_fuse = Facts { lower_magic: magic::FUSE, ..read() };
        assert_eq!(verdict(&on_fuse, &none).0, Verdict::Client);
        let on_tmpfs = Facts { lower_magic: magic::TMPFS, ..read() };
        assert_eq!(verdict(&on_tmpfs, &none).0, Verdict::Memory);
        // FUSE passthrough: the bytes did not go to a server, so elimination proves nothing.
        let passed = Facts { magic: magic::FUSE, lower_magic: EXT4, ..read() };
        assert_eq!(verdict(&passed, &none).0, Verdict::Unknown);
        assert_eq!(verdict(&passed, &direct(4096)).0, Verdict::Client);
        let short = Facts { ret: 1024, ..passed };
        assert_eq!(verdict(&short, &direct(1024)).1, Outcome::Other);
    }

    #[test]
    fn what_a_stacked_file_system_hands_to_a_buffered_file_is_buffered() {
        let inner = Evidence { seen: seen::LOWER_BUFFERED, ..Evidence::default() };
        assert_eq!(verdict(&read(), &inner).0, Verdict::Fallback);
        let both = Evidence { seen: seen::LOWER_BUFFERED | seen::IOMAP_DIO, ..direct(4096) };
        assert_eq!(verdict(&read(), &both).0, Verdict::Direct);
    }

    #[test]
    fn devices_and_clients_are_judged_by_elimination() {
        let device = Facts { block_device: true, ..read() };
        let client = Facts { magic: magic::NFS, ..read() };
        let none = Evidence::default();
        assert_eq!(verdict(&device, &none).0, Verdict::Direct);
        assert_eq!(verdict(&client, &none).0, Verdict::Client);
        for facts in [device, client] {
            assert_eq!(verdict(&facts, &cached(4096)).0, Verdict::Fallback);
            let missed = Evidence { seen: seen::MISSED, ..none };
            assert_eq!(verdict(&facts, &missed).0, Verdict::Unknown);
        }
    }

    #[test]
    fn a_way_of_its_own_is_judged_by_elimination() {
        assert!(magic::has_private_path(magic::NTFS3) && !magic::has_private_path(EXT4));
        let own = Evidence { seen: seen::PRIVATE_PATH, ..Evidence::default() };
        assert_eq!(verdict(&read(), &own), (Verdict::Direct, Outcome::Full, false));
        let both = Evidence { seen: seen::PRIVATE_PATH | seen::BUFFERED_READ, ..cached(4096) };
        assert_eq!(verdict(&read(), &both).0, Verdict::Fallback);
    }

    #[test]
    fn what_is_copied_and_sent_is_not_taken_for_direct() {
        let copied = Evidence { seen: seen::SENT_CACHED, ..Evidence::default() };
        let fuse = Facts { magic: magic::FUSE, write: true, ..read() };
        assert_eq!(verdict(&fuse, &copied).0, Verdict::Unknown);
        assert_eq!(verdict(&fuse, &Evidence::default()).0, Verdict::Client);
    }

    #[test]
    fn errors_come_first() {
        for (errno, expected, finding) in [
            (22, Verdict::Refused, true),
            (95, Verdict::Refused, true),
            (11, Verdict::Refused, false),
            (5, Verdict::Failed, true),
            (14, Verdict::Failed, true),
        ] {
            let facts = Facts { ret: -errno, ..read() };
            let said = verdict(&facts, &direct(4096));
            assert_eq!(said, (expected, Outcome::None, finding), "errno {errno}");
        }
    }

    #[test]
    fn the_end_of_a_file_is_no_failure_of_the_path() {
        let at_end = Facts { pos: 1 << 20, ret: 0, ..read() };
        assert_eq!(verdict(&at_end, &cached(0)), (Verdict::Eof, Outcome::None, false));
        let flushed = Evidence { flushed_pages: 1, ..Evidence::default() };
        assert_eq!(verdict(&at_end, &flushed), (Verdict::Eof, Outcome::None, true));
        // The file ended there when the kernel read its size, and has grown; a server may return 0.
        let middle = Facts { ret: 0, ..read() };
        assert_eq!(verdict(&middle, &Evidence::default()).0, Verdict::Eof);
        let served = Facts { magic: magic::FUSE, ..middle };
        assert_ne!(verdict(&served, &Evidence::default()).0, Verdict::Eof);
    }

    #[test]
    fn short_counts_say_why() {
        let outcome = |facts: &Facts| verdict(facts, &direct(4096)).1;
        let outcome_of = |facts: &Facts, bytes| verdict(facts, &direct(bytes)).1;
        let short = Facts { ret: 1000, ..read() };
        let tail = Facts { size_begin: 9192, size_end: 9192, ..short };
        assert_eq!(outcome(&tail), Outcome::Eof);
        // Truncated or grown during the request: the size at either time explains it.
        assert_eq!(outcome(&Facts { size_end: 9192, ..short }), Outcome::Eof);
        assert_eq!(outcome(&Facts { size_begin: 9192, ..short }), Outcome::Eof);
        assert_eq!(outcome(&Facts { block_device: true, ..tail }), Outcome::DeviceEnd);
        // Fewer bytes than were read, or inside a sector: the file ended there for a moment.
        assert_eq!(outcome(&short), Outcome::Race);
        assert_eq!(outcome_of(&short, 1000), Outcome::Race);
        let sectors = Facts { ret: 1024, ..read() };
        assert_eq!(outcome(&sectors), Outcome::Race);
        assert_eq!(outcome_of(&sectors, 1024), Outcome::Other);
        assert_eq!(outcome(&Facts { block_device: true, ..sectors }), Outcome::Other);
        let resized = Facts { block_device: true, size_end: 1 << 21, ..sectors };
        assert_eq!(outcome_of(&resized, 1024), Outcome::Race);
        let twice = Evidence { attempts: 2, ..direct(4096) };
        assert_eq!(verdict(&sectors, &twice).1, Outcome::Other);
        let served = Facts { magic: magic::FUSE, ..short };
        assert_eq!(outcome(&served), Outcome::Server);
        assert_eq!(outcome(&Facts { size_end: 9192, ..served }), Outcome::Server);
        assert_eq!(outcome(&Facts { size_begin: 9192, ..served }), Outcome::Eof);
        let race = Facts { size_begin: 1 << 20, size_end: 1 << 21, ..short };
        assert_eq!(outcome(&race), Outcome::Race);
        assert_eq!(outcome(&Facts { write: true, ..race }), Outcome::Other);
        assert_eq!(outcome(&Facts { spliced: true, ..short }), Outcome::Full);
        let stopped = |bit| verdict(&short, &Evidence { seen: bit, ..direct(4096) }).1;
        assert_eq!(stopped(seen::BUFFER_FAULT), Outcome::Fault);
        assert_eq!(stopped(seen::KILLED), Outcome::Signal);
        assert_eq!(stopped(seen::AT_MOST), Outcome::MaxRw);
        assert!(Outcome::ALL.iter().filter(|outcome| outcome.is_short()).count() == 9);
    }

    #[test]
    fn the_largest_transfer_is_of_whole_pages() {
        let largest = [4 << 10, 16 << 10, 64 << 10].map(max_rw_count);
        assert_eq!(largest, [0x7fff_f000, 0x7fff_c000, 0x7fff_0000]);
    }

    #[test]
    fn what_the_kernel_trims_at_the_end_is_not_counted() {
        // The direct path reads whole blocks; the program gets only the tail.
        let tail = Facts { ret: 1808, size_begin: 10_000, size_end: 10_000, ..read() };
        let decision = decide(&tail, &direct(4096));
        assert_eq!((decision.verdict, decision.direct_bytes), (Verdict::Direct, 1808));
        assert!(decision.finding);
    }

    #[test]
    fn tmpfs_and_dax_have_words_of_their_own() {
        let tmpfs = Facts { magic: magic::TMPFS, ..read() };
        assert_eq!(verdict(&tmpfs, &cached(4096)), (Verdict::Memory, Outcome::Full, false));
        let dax = Evidence { seen: seen::DAX, ..Evidence::default() };
        assert_eq!(verdict(&read(), &dax), (Verdict::Dax, Outcome::Full, false));
    }

    #[test]
    fn a_write_went_through_the_cache_if_its_loop_ran() {
        let write = Facts { write: true, ..read() };
        let buffered = Evidence { seen: seen::BUFFERED_WRITE, ..Evidence::default() };
        assert_eq!(verdict(&write, &buffered).0, Verdict::Fallback);
        let part = Evidence { seen: seen::BUFFERED_WRITE | seen::IOMAP_DIO, ..direct(1024) };
        let decision = decide(&write, &part);
        assert_eq!(decision.verdict, Verdict::Partial);
        assert_eq!((decision.direct_bytes, decision.cached_bytes), (1024, 3072));
        assert_eq!(verdict(&write, &direct(4096)).0, Verdict::Direct);
    }

    #[test]
    fn every_byte_is_accounted_for() {
        for ret in [1, 512, 4095, 4096] {
            for evidence in [direct(4096), cached(4096), cached(100), Evidence::default()] {
                let facts = Facts { ret, ..read() };
                let decision = decide(&facts, &evidence);
                let sum = decision.direct_bytes + decision.cached_bytes;
                assert!(sum <= ret as u64);
                assert!(decision.verdict == Verdict::Unknown || sum == ret as u64);
            }
        }
    }

    #[test]
    fn what_did_not_ask_to_be_direct_is_cached_and_no_finding() {
        let of =
            |bits| Evidence { seen: seen::BUFFERED_READ | seen::NOT_ASKED | bits, ..cached(4096) };
        assert_eq!(verdict(&read(), &of(0)), (Verdict::Cached, Outcome::Full, false));
        assert_eq!(verdict(&read(), &of(seen::UNCACHED)).0, Verdict::Uncached);
        let failed = Facts { ret: -5, ..read() };
        assert_eq!(verdict(&failed, &of(0)), (Verdict::Failed, Outcome::None, false));
        let short = Facts { ret: 1000, size_begin: 9192, size_end: 9192, ..read() };
        assert_eq!(verdict(&short, &of(0)), (Verdict::Cached, Outcome::Eof, false));
        assert_eq!(decide(&read(), &of(0)).cached_bytes, 4096);
    }

    #[test]
    fn words_and_bytes_agree() {
        for (index, verdict) in Verdict::ALL.iter().enumerate() {
            assert_eq!(Verdict::from_u8(index as u8), Some(*verdict));
        }
        assert_eq!(Verdict::from_u8(Verdict::ALL.len() as u8), None);
    }
}
