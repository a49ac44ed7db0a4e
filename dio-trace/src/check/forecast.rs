//! Forecasts a verdict without making a request: applies the rule table to a file's attributes.

use dio_trace_common::{
    abi::{API_READ, OP_READ, OP_WRITE, REQ_BLOCK_DEVICE, Request},
    evidence::{Evidence, seen},
    verdict::{Decision, Outcome, Verdict},
};

use crate::{
    cause::{self, Case, Explanation},
    check::{Access, is_past_cache, subject::Subject},
    kernel::page_size,
    model::BufferedUsers,
    system::file_attrs::flag,
};

/// File systems that the rules cover completely. On any other, the forecast is `unknown`.
const KNOWN: &[&str] = &[
    "bdev", "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "vfat", "msdos", "exfat", "ntfs3",
    "gfs2", "erofs", "fuse", "fuseblk", "virtiofs", "nfs", "nfs4", "9p", "cifs", "smb3", "ceph",
    "tmpfs",
];

/// The expected verdict of an aligned request, and the reason unless it is simply direct.
pub(super) fn forecast(subject: &Subject, access: Access) -> (Verdict, Option<Explanation>) {
    let fs = subject.file.deciding().0;
    if subject.is_dax() {
        return (Verdict::Dax, explain(subject, access, Verdict::Dax, None));
    }
    if subject.is_memory() {
        return (Verdict::Memory, explain(subject, access, Verdict::Memory, None));
    }
    if let Some(reason) = obstacle(subject, access) {
        return (Verdict::Fallback, Some(reason));
    }
    let verdict = if subject.is_client() {
        Verdict::Client
    } else if !KNOWN.contains(&fs) || undecided(subject, access) {
        Verdict::Unknown
    } else {
        Verdict::Direct
    };
    let reason =
        if verdict == Verdict::Unknown { None } else { explain(subject, access, verdict, None) };
    (verdict, reason)
}

/// The reason why a request will certainly not be direct, if there is one. Whatever prevents direct
/// reads also prevents direct overwrites. Extending writes are judged by their own rules: what
/// prevents reads may be compressed or inline data, which new blocks do not have.
fn obstacle(subject: &Subject, access: Access) -> Option<Explanation> {
    let asked: &[Access] = match access {
        Access::Read => &[Access::Read],
        Access::Overwrite => &[Access::Read, Access::Overwrite],
        Access::Extend => &[Access::Extend],
    };
    asked.iter().find_map(|access| {
        [0, seen::IOMAP_DIO].iter().find_map(|entered| {
            let request = request(subject, *access, *entered);
            let decision = decision(Verdict::Fallback, request.len);
            cause::forecast(&case(subject, &request, &decision))
        })
    })
}

/// Whether a write to btrfs with checksums, which some kernels make direct and others do not: only
/// a request can show it.
fn undecided(subject: &Subject, access: Access) -> bool {
    let nocow = subject.attrs().flags.is_some_and(|flags| flags & flag::NOCOW != 0);
    access != Access::Read && subject.file.deciding().0 == "btrfs" && !nocow
}

/// Why a request with this access has this verdict, as the tracer would explain it.
pub(super) fn explain(
    subject: &Subject,
    access: Access,
    verdict: Verdict,
    errno: Option<i32>,
) -> Option<Explanation> {
    // Some rules depend on which kernel path the request took, which is not known here. Try a
    // request that never entered the direct path first.
    let paths: &[u32] =
        if is_past_cache(verdict) { &[seen::IOMAP_DIO] } else { &[0, seen::IOMAP_DIO] };
    let reasons: Vec<Explanation> = paths
        .iter()
        .filter_map(|entered| {
            let mut request = request(subject, access, *entered);
            request.ret = errno.map_or(request.ret, |errno| -i64::from(errno));
            let decision = decision(verdict, request.len);
            cause::explain(&case(subject, &request, &decision))
        })
        .collect();
    let best = reasons.iter().position(|reason| reason.id != cause::NOT_EXPLAINED).unwrap_or(0);
    reasons.into_iter().nth(best)
}

fn case<'a>(subject: &'a Subject, request: &'a Request, decision: &'a Decision) -> Case<'a> {
    static NOBODY: BufferedUsers = BufferedUsers { readers: Vec::new(), writers: Vec::new() };
    let (fs, options) = subject.file.deciding();
    Case {
        request,
        decision,
        fs,
        options,
        attrs: subject.attrs(),
        page_size: page_size(),
        extents: subject.extents,
        memory: None,
        buffered_users: &NOBODY,
    }
}

const fn decision(verdict: Verdict, len: u64) -> Decision {
    let past = is_past_cache(verdict);
    Decision {
        verdict,
        outcome: Outcome::Full,
        direct_bytes: if past { len } else { 0 },
        cached_bytes: if past { 0 } else { len },
        finding: !past && !matches!(verdict, Verdict::Memory),
    }
}

/// A synthetic aligned request of one unit (see [`Subject::unit`]).
fn request(subject: &Subject, access: Access, entered: u32) -> Request {
    let len = subject.unit() as u64;
    let size = if access == Access::Overwrite { subject.size.max(len) } else { subject.size };
    let pos = if access == Access::Extend { size.next_multiple_of(len) } else { 0 };
    let [ret, size, pos] = [len, size, pos].map(|n| i64::try_from(n).unwrap_or(i64::MAX));
    Request {
        pos,
        len,
        ret,
        size_begin: size,
        size_end: size,
        evidence: Evidence { seen: entered, attempts: 1, ..Evidence::NONE },
        magic: subject.magic,
        op: if access == Access::Read { OP_READ } else { OP_WRITE },
        api: API_READ,
        flags: if subject.is_device() { REQ_BLOCK_DEVICE } else { 0 },
        ..Request::EMPTY
    }
}
