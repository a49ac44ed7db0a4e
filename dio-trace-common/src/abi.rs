//! The records that the probes send to user space, and the keys and values of shared maps.

use core::mem::offset_of;

use crate::{
    byte_enum::byte_enum,
    evidence::{Evidence, Facts},
    verdict::Decision,
};

/// Identifies a file while it is traced. Device and inode number are not enough on btrfs, where all
/// subvolumes share `s_dev`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    /// Kernel address of the inode.
    pub inode: u64,
    pub ino: u64,
    /// Kernel `dev_t` of the file system.
    pub dev: u32,
    /// `inode.i_generation`: changes if the inode number and the inode's memory are reused.
    pub generation: u32,
}

/// Implements the conversion to [`FileId`] for records, which all contain its four fields.
macro_rules! names_a_file {
    ($($record:ident),+ $(,)?) => {$(
        impl From<&$record> for FileId {
            fn from(record: &$record) -> Self {
                let &$record { inode, ino, dev, generation, .. } = record;
                Self { inode, ino, dev, generation }
            }
        }
    )+};
}

byte_enum! {
    /// The operation of a request, see [`Request::op`].
    Op {
        Read = "read",
        Write = "write",
    }
}

byte_enum! {
    /// The API that the program used, see [`Request::api`].
    Api {
        /// None of the probes of an API was hit.
        Unknown = "unknown",
        /// read, pread
        Read = "read",
        /// readv, preadv, preadv2
        Readv = "readv",
        /// io_submit
        Libaio = "libaio",
        IoUring = "io_uring",
        /// splice, sendfile
        Splice = "splice",
    }
}

pub const OP_READ: u8 = Op::Read as u8;
pub const OP_WRITE: u8 = Op::Write as u8;

pub const API_NONE: u8 = Api::Unknown as u8;
pub const API_READ: u8 = Api::Read as u8;
pub const API_READV: u8 = Api::Readv as u8;
pub const API_LIBAIO: u8 = Api::Libaio as u8;
pub const API_IO_URING: u8 = Api::IoUring as u8;
pub const API_SPLICE: u8 = Api::Splice as u8;

/// [`Request::flags`]: the file is a block device.
pub const REQ_BLOCK_DEVICE: u8 = 1 << 0;
/// [`Request::flags`]: became asynchronous or was retried; it is in the map of kiocbs.
pub const REQ_ASYNC: u8 = 1 << 1;
/// [`Request::flags`]: io_uring returned -EAGAIN for this attempt; another one is expected.
pub const REQ_PUNTED: u8 = 1 << 2;
/// [`Request::flags`]: [`Request::user`] points to `nr_segs` iovecs, not to the buffer.
pub const REQ_VECTORED: u8 = 1 << 3;
/// [`Request::flags`]: a completion was reported to io_uring, but the final result comes later.
pub const REQ_PROVISIONAL: u8 = 1 << 4;

/// One read or write, from issue to completion.
///
/// The probes fill it in while the request is open, and send the same bytes when it completes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Always [`EVENT_REQUEST`], because the record is sent unchanged.
    pub kind: u32,
    pub nr_segs: u32,
    /// Issue time, CLOCK_MONOTONIC in ns. Also distinguishes requests with the same kiocb address.
    pub begin_ns: u64,
    /// Completion time, CLOCK_MONOTONIC in ns. Before, the probes use it as scratch space.
    pub end_ns: u64,
    /// Kernel address of the kiocb of an asynchronous request, else 0.
    pub kiocb: u64,
    /// Kernel address of the inode; part of the file's identity, see [`FileId`].
    pub inode: u64,
    /// Kernel address of the `address_space` the data lives in.
    pub mapping: u64,
    /// User-space address of the buffer, or of the iovecs.
    pub user: u64,
    /// File offset in bytes.
    pub pos: i64,
    /// Requested bytes.
    pub len: u64,
    /// Bytes or -errno.
    pub ret: i64,
    /// Bytes that earlier attempts transferred (io_uring continues a short inline read in io-wq).
    pub done_before: u64,
    /// Size of the file or device at issue, in bytes.
    pub size_begin: i64,
    /// Size at completion, in bytes; read again only if fewer bytes came than were requested.
    pub size_end: i64,
    pub ino: u64,
    /// From the decision: bytes of the result that bypassed the page cache.
    pub direct_bytes: u64,
    /// From the decision: bytes of the result that went through the page cache.
    pub cached_bytes: u64,
    pub evidence: Evidence,
    /// Kernel `dev_t` (major << 20 | minor): of the file system, or the block device itself.
    pub dev: u32,
    pub generation: u32,
    pub tgid: u32,
    pub op: u8,
    pub verdict: u8,
    pub outcome: u8,
    pub finding: u8,
    pub tid: u32,
    /// `super_block.s_magic`.
    pub magic: u32,
    /// `s_magic` of the lower file system that a stacked one forwarded the request to, else 0.
    pub inner_magic: u32,
    pub api: u8,
    pub flags: u8,
    /// 1 + the id of the program's stack at issue; 0: no stack was captured.
    pub stack: u16,
    pub comm: [u8; 16],
}

impl Request {
    /// All fields are zero except `kind`.
    pub const EMPTY: Self = Self {
        kind: EVENT_REQUEST,
        nr_segs: 0,
        begin_ns: 0,
        end_ns: 0,
        kiocb: 0,
        inode: 0,
        mapping: 0,
        user: 0,
        pos: 0,
        len: 0,
        ret: 0,
        done_before: 0,
        size_begin: 0,
        size_end: 0,
        ino: 0,
        direct_bytes: 0,
        cached_bytes: 0,
        evidence: Evidence::NONE,
        dev: 0,
        generation: 0,
        tgid: 0,
        op: 0,
        verdict: 0,
        outcome: 0,
        finding: 0,
        tid: 0,
        magic: 0,
        inner_magic: 0,
        api: 0,
        flags: 0,
        stack: 0,
        comm: [0; 16],
    };

    /// The operation. An unknown byte is a read, as the probes count it.
    #[must_use]
    pub fn op(&self) -> Op {
        Op::from_u8(self.op).unwrap_or(Op::Read)
    }

    /// The API that the program used.
    #[must_use]
    pub fn api(&self) -> Api {
        Api::from_u8(self.api).unwrap_or(Api::Unknown)
    }

    /// The properties of this request that the verdict depends on.
    #[must_use]
    #[inline(always)]
    pub fn facts(&self, cache_probes_complete: bool) -> Facts {
        Facts {
            write: self.op == OP_WRITE,
            spliced: self.api == API_SPLICE,
            block_device: self.flags & REQ_BLOCK_DEVICE != 0,
            magic: self.magic,
            inner_magic: self.inner_magic,
            len: self.len,
            pos: self.pos,
            ret: self.ret,
            size_begin: self.size_begin,
            size_end: self.size_end,
            cache_probes_complete,
        }
    }
}

/// First word of every ring-buffer record.
pub const EVENT_REQUEST: u32 = 1;
pub const EVENT_FILE: u32 = 2;
pub const EVENT_REFUSAL: u32 = 3;
pub const EVENT_MIXER: u32 = 4;

/// Bytes of path in one [`FileEvent`].
pub const PATH_BYTES: usize = 2048;
/// Longest name of a path component (NAME_MAX), with its NUL.
pub const NAME_BYTES: usize = 256;
/// Most path components of one path.
pub const PATH_DEPTH: u32 = 40;

/// [`FileEvent::flags`]: the dentry is unhashed: the file was deleted, or never had a name.
pub const FILE_UNHASHED: u32 = 1;
/// [`FileEvent::flags`]: the walk stopped before the root of the mount.
pub const FILE_TRUNCATED: u32 = 2;

/// A file that is seen for the first time: its path components from the leaf up to the mount root.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct FileEvent {
    pub kind: u32,
    pub flags: u32,
    pub inode: u64,
    pub ino: u64,
    pub dev: u32,
    /// The process that used the file.
    pub tgid: u32,
    /// `mount.mnt_id`, as in /proc/PID/mountinfo.
    pub mnt_id: i32,
    /// Number of bytes in `names` that are used.
    pub names_len: u32,
    /// `inode.i_generation`: changes if the inode number is reused.
    pub generation: u32,
    pub pad: u32,
    /// Name of the process that used the file.
    pub comm: [u8; 16],
    /// `file_system_type.name`, NUL-terminated.
    pub fs_name: [u8; 16],
    /// NUL-terminated names, leaf first.
    pub names: [u8; PATH_BYTES + NAME_BYTES],
}

/// [`Refusal::by`]: open(2) and its variants.
pub const REFUSED_OPEN: u16 = 1;
/// [`Refusal::by`]: fcntl(2) with F_SETFL.
pub const REFUSED_FCNTL: u16 = 2;

/// A rejected open: O_DIRECT itself was rejected with EINVAL, so there is no descriptor that could
/// issue a request.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    /// Always [`EVENT_REFUSAL`].
    pub kind: u32,
    /// `REFUSED_*`
    pub by: u16,
    /// Not 0: rejected by the VFS's check for O_DIRECT; 0: by the file system's own open.
    pub proven: u16,
    /// CLOCK_MONOTONIC in ns.
    pub time_ns: u64,
    pub inode: u64,
    pub ino: u64,
    pub dev: u32,
    pub tgid: u32,
    pub tid: u32,
    pub generation: u32,
    pub comm: [u8; 16],
}

/// [`Mixer::how`]: added pages of the file to the page cache (a buffered read, a mapping).
pub const MIXED_CACHED: u32 = 1;
/// [`Mixer::how`]: dirtied pages of the file in the page cache (a buffered write, a mapping).
pub const MIXED_DIRTIED: u32 = 2;
/// [`Mixer::how`]: added pages of the file to the page cache in order to write them. Not sent as an
/// event, because [`MIXED_DIRTIED`] follows.
pub const MIXED_FILLED: u32 = 3;

/// Mixed access: a process uses a file through the page cache that another one uses with O_DIRECT.
/// The key under which its pages are counted.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mixer {
    pub inode: u64,
    pub ino: u64,
    pub dev: u32,
    pub tgid: u32,
    /// `MIXED_*`
    pub how: u32,
    pub generation: u32,
}

/// A [`Mixer`] seen for the first time.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MixerEvent {
    /// Always [`EVENT_MIXER`].
    pub kind: u32,
    pub tid: u32,
    /// CLOCK_MONOTONIC in ns.
    pub time_ns: u64,
    pub mixer: Mixer,
    /// The process (thread-group id) that uses the file directly; 0: there are several.
    pub direct_user: u32,
    pub pad: u32,
    pub comm: [u8; 16],
}

/// Key of the per-CPU counters. Its layout from `dev` to `finding` is the same as in [`Request`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CounterKey {
    pub inode: u64,
    pub ino: u64,
    pub dev: u32,
    pub generation: u32,
    pub tgid: u32,
    pub op: u8,
    pub verdict: u8,
    pub outcome: u8,
    pub finding: u8,
    /// Low bits of -ret for refused and failed requests, which separates EAGAIN from EINVAL.
    pub errno: u16,
    pub pad: [u8; 6],
}

impl CounterKey {
    /// The key of a request with this decision.
    #[must_use]
    pub const fn of(request: &Request, decision: &Decision) -> Self {
        Self {
            inode: request.inode,
            ino: request.ino,
            dev: request.dev,
            generation: request.generation,
            tgid: request.tgid,
            op: request.op,
            verdict: decision.verdict as u8,
            outcome: decision.outcome as u8,
            finding: decision.finding as u8,
            errno: if request.ret < 0 { request.ret.wrapping_neg() as u16 } else { 0 },
            pad: [0; 6],
        }
    }
}

/// A [`CounterKey`] as 64-bit words, the form in which the probes compare it.
pub type KeyWords = [u64; size_of::<CounterKey>() / 8];

impl Request {
    /// The [`CounterKey`] of a request that contains its decision, as words.
    ///
    /// # Safety
    /// `this` points to a request.
    #[must_use]
    #[inline(always)]
    pub unsafe fn key_words(this: *const Self) -> KeyWords {
        // SAFETY: guaranteed by the caller. Two words from `dev` on have the layout of the key
        // (asserted below). Volatile, because single bytes of them were written just before.
        unsafe {
            let shared = (&raw const (*this).dev).cast::<u64>();
            let ret = (*this).ret;
            let errno = if ret < 0 { u64::from(ret.wrapping_neg() as u16) } else { 0 };
            let [first, second] = [shared.read_volatile(), shared.add(1).read_volatile()];
            [(*this).inode, (*this).ino, first, second, errno]
        }
    }
}

/// Buckets of the latency histogram: bucket n holds [2^n, 2^(n+1)) ns.
pub const LATENCY_BUCKETS: usize = 36;

/// The sums for one [`CounterKey`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Counter {
    pub requests: u64,
    pub bytes: u64,
    pub direct_bytes: u64,
    pub cached_bytes: u64,
    pub latency_ns: u64,
    pub latency: [u32; LATENCY_BUCKETS],
}

impl Counter {
    pub const ZERO: Self = Self {
        requests: 0,
        bytes: 0,
        direct_bytes: 0,
        cached_bytes: 0,
        latency_ns: 0,
        latency: [0; LATENCY_BUCKETS],
    };

    /// Adds a request. Sums saturate, as in [`Self::merge`].
    pub fn count(&mut self, request: &Request, decision: &Decision) {
        let latency = request.end_ns.saturating_sub(request.begin_ns);
        self.requests += 1;
        self.bytes = self.bytes.saturating_add(request.ret.max(0) as u64);
        self.direct_bytes = self.direct_bytes.saturating_add(decision.direct_bytes);
        self.cached_bytes = self.cached_bytes.saturating_add(decision.cached_bytes);
        self.latency_ns = self.latency_ns.saturating_add(latency);
        Self::count_latency(&mut self.latency, latency);
    }

    /// Adds another counter. Sums saturate, because a recording may contain any number.
    pub fn merge(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.direct_bytes = self.direct_bytes.saturating_add(other.direct_bytes);
        self.cached_bytes = self.cached_bytes.saturating_add(other.cached_bytes);
        self.latency_ns = self.latency_ns.saturating_add(other.latency_ns);
        for (sum, n) in self.latency.iter_mut().zip(other.latency) {
            *sum = sum.saturating_add(n);
        }
    }

    /// What was added since `before`. Requests that became fewer are those of a new counter under
    /// the same key, all of which are new. Buckets are 32 bits in the probes, and wrap.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        if self.requests < before.requests {
            return *self;
        }
        let mut added = Self {
            requests: self.requests - before.requests,
            bytes: self.bytes.saturating_sub(before.bytes),
            direct_bytes: self.direct_bytes.saturating_sub(before.direct_bytes),
            cached_bytes: self.cached_bytes.saturating_sub(before.cached_bytes),
            latency_ns: self.latency_ns.saturating_sub(before.latency_ns),
            latency: self.latency,
        };
        for (n, before) in added.latency.iter_mut().zip(before.latency) {
            *n = n.wrapping_sub(before);
        }
        added
    }

    /// Counts one latency in ns in the histogram.
    #[inline]
    pub fn count_latency(histogram: &mut [u32; LATENCY_BUCKETS], ns: u64) {
        let bucket = (ns.max(1).ilog2() as usize).min(LATENCY_BUCKETS - 1);
        histogram[bucket] = histogram[bucket].saturating_add(1);
    }
}

macro_rules! stats {
    ($($(#[$m:meta])* $name:ident = $text:literal,)+) => {
        /// Indices of the per-CPU statistics, which count what the tracer did and what it lost.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Stat { $($(#[$m])* $name,)+ }
        impl Stat {
            /// All indices with their names in reports.
            pub const ALL: &'static [(Self, &'static str)] = &[$((Self::$name, $text),)+];

            /// The statistic's name in reports.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

stats! {
    /// Requests issued.
    Begun = "begun",
    /// Requests completed and counted.
    Ended = "ended",
    /// Completed requests that a filter excluded.
    Filtered = "filtered",
    /// Requests with a missed completion, detected when their thread or kiocb issued another.
    Unmatched = "unmatched",
    /// Requests not traced: no slot for per-thread state was available.
    LostThread = "no thread state",
    /// Requests not traced: the map of kiocbs was full.
    LostKiocb = "kiocb map full",
    /// Vectored requests not traced: their iovecs could not be read.
    LostLength = "iovec not readable",
    /// Child processes not followed: the set of traced processes was full.
    LostChild = "process set full",
    /// Events written to the ring buffer.
    Events = "events",
    /// Events lost: the ring buffer was full.
    LostEvent = "ring buffer full",
    /// Rejected opens lost: the ring buffer was full.
    LostRefusal = "refusal: ring buffer full",
    /// Mixed access not counted: the map of buffered users was full.
    LostMixer = "mixed access map full",
    /// File names lost: the ring buffer was full.
    LostFile = "file name: ring buffer full",
    /// Completed requests not counted: all counters were in use.
    LostCounter = "counter map full",
    /// Requests whose stack was lost: another stack with the same hash was stored.
    LostStack = "stack: hash taken",
}

/// Number of [`Stat`] indices.
pub const STATS: usize = Stat::ALL.len();

// There must be no padding: the verifier rejects sending uninitialised bytes, and user space must
// not read them.
const _: () = {
    assert!(size_of::<Evidence>() == 56);
    assert!(size_of::<Request>() == 16 * 8 + 56 + 6 * 4 + 8 + 16);
    assert!(size_of::<FileEvent>() == 48 + 2 * 16 + PATH_BYTES + NAME_BYTES);
    assert!(size_of::<Refusal>() == 2 * 4 + 3 * 8 + 4 * 4 + 16);
    assert!(size_of::<Mixer>() == 32);
    assert!(size_of::<MixerEvent>() == 16 + 32 + 8 + 16);
    assert!(size_of::<CounterKey>() == 40);
    // Request::key_words
    assert!(cfg!(target_endian = "little"));
    assert!(offset_of!(CounterKey, inode) == 0 && offset_of!(CounterKey, ino) == 8);
    assert!(offset_of!(CounterKey, dev) == 16 && offset_of!(CounterKey, errno) == 32);
    assert!(offset_of!(Request, dev) % 8 == 0 && offset_of!(Request, comm) % 8 == 0);
    assert!(size_of::<Counter>() == 40 + 4 * LATENCY_BUCKETS);
};

#[cfg(feature = "user")]
mod user {
    use super::{Counter, CounterKey, Mixer};
    // SAFETY: repr(C), integers only, no padding (asserted above): any bytes are a value.
    unsafe impl aya::Pod for CounterKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Counter {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Mixer {}
}

names_a_file!(CounterKey, FileEvent, Mixer, Refusal, Request);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::{Outcome, Verdict};

    #[test]
    fn the_words_of_a_request_are_its_key() {
        for ret in [4096, 0, -22, -4095, i64::MIN] {
            let request = Request {
                inode: 0x1111_2222_3333_4444,
                ino: 5,
                dev: 0x6666_7777,
                generation: 0x8888_9999,
                tgid: 0xaaaa_bbbb,
                op: OP_WRITE,
                verdict: Verdict::Partial as u8,
                outcome: Outcome::Signal as u8,
                finding: 1,
                ret,
                ..Request::EMPTY
            };
            let decision = Decision {
                verdict: Verdict::Partial,
                outcome: Outcome::Signal,
                direct_bytes: 0,
                cached_bytes: 0,
                finding: true,
            };
            let key = CounterKey::of(&request, &decision);
            // SAFETY: as many bytes, and no padding.
            let words: KeyWords = unsafe { core::mem::transmute(key) };
            // SAFETY: a request.
            assert_eq!(unsafe { Request::key_words(&raw const request) }, words);
        }
    }

    #[test]
    fn what_was_added_is_exact_where_a_bucket_wraps_or_a_counter_is_new() {
        let counter = |requests, bucket| {
            let mut counter = Counter { requests, bytes: requests * 10, ..Counter::ZERO };
            counter.latency[3] = bucket;
            counter
        };
        let added = counter(7, 1).since(&counter(5, u32::MAX));
        assert_eq!((added.requests, added.bytes, added.latency[3]), (2, 20, 2));
        let new = counter(3, 3).since(&counter(5, 5));
        assert_eq!((new.requests, new.latency[3]), (3, 3));
        let mut sum = counter(5, 5);
        sum.merge(&counter(7, 7).since(&counter(5, 5)));
        assert_eq!((sum.requests, sum.bytes, sum.latency[3]), (7, 70, 7));
    }
}
