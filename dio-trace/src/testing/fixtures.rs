//! Fixtures for tests: a healthy request.

use dio_trace_common::{
    abi::{API_READ, FileId, OP_READ, Request, Task},
    evidence::{Evidence, seen},
    verdict::{Outcome, Verdict},
};

/// A healthy direct read of 4096 bytes at offset 8192 on ext4.
pub(crate) fn request() -> Request {
    Request {
        nr_segs: 1,
        begin_ns: 1_000,
        end_ns: 81_000,
        file: FileId { inode: 1, ino: 12, dev: 8 << 20 | 1, generation: 0 },
        mapping: 2,
        user: 0x1000,
        pos: 8192,
        len: 4096,
        ret: 4096,
        size_begin: 1 << 20,
        size_end: 1 << 20,
        direct_bytes: 4096,
        evidence: Evidence {
            direct_bytes: 4096,
            seen: seen::IOMAP_DIO,
            attempts: 1,
            ..Evidence::default()
        },
        task: Task { tid: 43, tgid: 42, comm: *b"postgres\0\0\0\0\0\0\0\0" },
        magic: 0xef53,
        op: OP_READ,
        api: API_READ,
        verdict: Verdict::Direct as u8,
        outcome: Outcome::Full as u8,
        ..Request::EMPTY
    }
}
