//! The per-CPU counters: which requests are counted together, and their sums.

use core::mem::offset_of;

use crate::{
    abi::{FileId, Request},
    histogram::{BUCKETS, Histogram},
    verdict::Decision,
};

/// Key of the per-CPU counters. Its layout from `op` on is that of [`Request::key_words`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CounterKey {
    pub file: FileId,
    pub op: u8,
    pub verdict: u8,
    pub outcome: u8,
    pub finding: u8,
    pub tgid: u32,
    /// Low bits of -ret for refused and failed requests, which separates EAGAIN from EINVAL.
    pub errno: u16,
    pub pad: [u8; 6],
}

impl CounterKey {
    /// The key of a request with this decision.
    #[must_use]
    pub const fn of(request: &Request, decision: &Decision) -> Self {
        Self {
            file: request.file,
            op: request.op,
            verdict: decision.verdict as u8,
            outcome: decision.outcome as u8,
            finding: decision.finding as u8,
            tgid: request.task.tgid,
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
        // SAFETY: guaranteed by the caller. A FileId is three words, and the four bytes from `op` on
        // are one word of 32 bits (asserted below). Volatile, because single bytes of it were
        // written just before.
        unsafe {
            let [inode, ino, dev] = (&raw const (*this).file).cast::<[u64; 3]>().read();
            let decision = (&raw const (*this).op).cast::<u32>().read_volatile();
            let tgid = (*this).task.tgid;
            let ret = (*this).ret;
            let errno = if ret < 0 { u64::from(ret.wrapping_neg() as u16) } else { 0 };
            [inode, ino, dev, u64::from(tgid) << 32 | u64::from(decision), errno]
        }
    }
}

/// The sums for one [`CounterKey`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Counter {
    pub requests: u64,
    pub bytes: u64,
    pub direct_bytes: u64,
    pub cached_bytes: u64,
    pub latency_ns: u64,
    pub latency: Histogram,
}

impl Counter {
    pub const ZERO: Self = Self {
        requests: 0,
        bytes: 0,
        direct_bytes: 0,
        cached_bytes: 0,
        latency_ns: 0,
        latency: Histogram::EMPTY,
    };

    /// Adds a request. Sums saturate, as in [`Self::merge`].
    pub fn count(&mut self, request: &Request, decision: &Decision) {
        let latency = request.end_ns.saturating_sub(request.begin_ns);
        self.requests += 1;
        self.bytes = self.bytes.saturating_add(request.ret.max(0) as u64);
        self.direct_bytes = self.direct_bytes.saturating_add(decision.direct_bytes);
        self.cached_bytes = self.cached_bytes.saturating_add(decision.cached_bytes);
        self.latency_ns = self.latency_ns.saturating_add(latency);
        self.latency.count(latency);
    }

    /// Adds another counter. Sums saturate, because a recording may contain any number.
    pub fn merge(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.direct_bytes = self.direct_bytes.saturating_add(other.direct_bytes);
        self.cached_bytes = self.cached_bytes.saturating_add(other.cached_bytes);
        self.latency_ns = self.latency_ns.saturating_add(other.latency_ns);
        self.latency.merge(&other.latency);
    }

    /// What was added since `before`. Requests that became fewer are those of a new counter under
    /// the same key, all of which are new.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        if self.requests < before.requests {
            return *self;
        }
        Self {
            requests: self.requests - before.requests,
            bytes: self.bytes.saturating_sub(before.bytes),
            direct_bytes: self.direct_bytes.saturating_sub(before.direct_bytes),
            cached_bytes: self.cached_bytes.saturating_sub(before.cached_bytes),
            latency_ns: self.latency_ns.saturating_sub(before.latency_ns),
            latency: self.latency.since(&before.latency),
        }
    }
}

const _: () = {
    // No padding, see the parent module.
    assert!(size_of::<CounterKey>() == 40);
    assert!(size_of::<Counter>() == 40 + 4 * BUCKETS);
    // Request::key_words
    assert!(cfg!(target_endian = "little"));
    assert!(offset_of!(CounterKey, file) == 0 && offset_of!(FileId, ino) == 8);
    assert!(offset_of!(FileId, dev) == 16 && offset_of!(FileId, generation) == 20);
    assert!(offset_of!(CounterKey, op) == 24 && offset_of!(CounterKey, tgid) == 28);
    assert!(offset_of!(CounterKey, finding) == 27 && offset_of!(CounterKey, errno) == 32);
    assert!(offset_of!(Request, op) % 4 == 0);
    assert!(offset_of!(Request, finding) == offset_of!(Request, op) + 3);
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        abi::{OP_WRITE, Task},
        verdict::{Outcome, Verdict},
    };

    #[test]
    fn the_words_of_a_request_are_its_key() {
        for ret in [4096, 0, -22, -4095, i64::MIN] {
            let request = Request {
                file: FileId {
                    inode: 0x1111_2222_3333_4444,
                    ino: 5,
                    dev: 0x6666_7777,
                    generation: 0x8888_9999,
                },
                task: Task { tgid: 0xaaaa_bbbb, ..Task::NONE },
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
            counter.latency.0[3] = bucket;
            counter
        };
        let added = counter(7, 1).since(&counter(5, u32::MAX));
        assert_eq!((added.requests, added.bytes, added.latency.0[3]), (2, 20, 2));
        let new = counter(3, 3).since(&counter(5, 5));
        assert_eq!((new.requests, new.latency.0[3]), (3, 3));
        let mut sum = counter(5, 5);
        sum.merge(&counter(7, 7).since(&counter(5, 5)));
        assert_eq!((sum.requests, sum.bytes, sum.latency.0[3]), (7, 70, 7));
    }
}
