//! Rules for requests that ended with an error.

use dio_trace_common::{abi::API_IO_URING, verdict::Verdict};

use crate::{
    cause::{
        Case, Reason, Rule, Scenario,
        rules::alignment::{self, Limits},
    },
    system::file_attrs::{attribute, flag},
    util::errno,
};

pub(super) const INVALID_REQUEST: Rule = Rule {
    id: "invalid-request",
    title: "EINVAL though everything is aligned: a rule of its own",
    means: "Beside alignment, file systems refuse direct requests by rules of their own. cifs \
            mounted with cache=loose refuses every one on older kernels (6.1 does); minix lets a file be \
            opened with O_DIRECT and then refuses every read; bcachefs and zonefs ask for their \
            own blocks; a zoned file takes writes at its write pointer alone; RWF_ATOMIC writes \
            must be a power of two and aligned to their length.",
    proof: "EINVAL, and offset, length, buffer and segments keep to the limits that this file and \
            its device state. Which rule it was the kernel does not say: likely.",
    fix: "try the same request without RWF_* flags, then without O_DIRECT; on cifs mount with \
          cache=strict",
    on: "cifs, minix, zonefs, ntfs, bcachefs, erofs",
    scenario: Scenario::Needs("a file system with such a rule: minix, zonefs or cifs cache=loose"),
    test: invalid_request,
};

pub(super) const COMPRESSED_REFUSED: Rule = Rule {
    id: "compressed-refused",
    title: "EOPNOTSUPP: the file is compressed",
    means: "ntfs3 and ntfs cannot do direct I/O on compressed files and say so, instead of \
            reading through the page cache as btrfs and f2fs do. Some kernels refuse at open.",
    proof: "EOPNOTSUPP, and statx(2) or FS_IOC_GETFLAGS says that this file is compressed.",
    fix: "uncompress the file (`chattr -c FILE`, then rewrite it), or open it without O_DIRECT",
    on: "ntfs3, ntfs",
    scenario: Scenario::Needs("an NTFS volume with a compressed file, which no mkfs here makes"),
    test: compressed_refused,
};

pub(super) const FLAG_UNSUPPORTED: Rule = Rule {
    id: "flag-unsupported",
    title: "EOPNOTSUPP: a flag of the request is not supported",
    means: "RWF_NOWAIT, RWF_ATOMIC and RWF_DONTCACHE need support by kernel and file system; \
            without it the request is refused. RWF_DONTCACHE and O_DIRECT exclude each other. \
            f2fs refuses direct requests on a file in an atomic write. A ring of io_uring that polls \
            (IORING_SETUP_IOPOLL) takes only files that can be polled.",
    proof: "EOPNOTSUPP alone: which flag it was is not recorded, hence likely.",
    fix: "leave that flag out on this file, or use another file system or a newer kernel",
    on: "any",
    scenario: Scenario::In(&["ext4-512", "btrfs", "tmpfs"]),
    test: flag_unsupported,
};

pub(super) const WOULD_BLOCK: Rule = Rule {
    id: "would-block",
    title: "EAGAIN: it must not wait, and would have had to",
    means: "RWF_NOWAIT asks for an answer at once. The kernel says EAGAIN if it would have to \
            wait: for cached or dirty pages in the range, a lock, block maps not in memory, an \
            allocation, or a free slot in the device's queue. io_uring's own first attempts are \
            no requests of yours: they are counted in `attempts`.",
    proof: "The request ended with EAGAIN.",
    fix: "nothing is wrong: repeat it without RWF_NOWAIT, or from a thread that may wait",
    on: "any",
    scenario: Scenario::In(&["ext4-512", "xfs-512", "btrfs"]),
    test: would_block,
};

pub(super) const NO_SPACE: Rule = Rule {
    id: "no-space",
    title: "ENOSPC, EDQUOT: no room for this write",
    means: "The file system is full, its quota is used up, or the write begins at or past the end \
            of a device.",
    proof: "The error; for a device its size is compared with the offset.",
    fix: "look at `df -h FILE`, `df -i FILE` and `quota`; on a device at `blockdev --getsize64 DEV`",
    on: "any",
    scenario: Scenario::In(&["dm-linear-tail"]),
    test: no_space,
};

pub(super) const EFAULT: Rule = Rule {
    id: "efault",
    title: "EFAULT: the buffer is not mapped, or not writable",
    means: "The kernel could not use the memory that was given: it is not mapped as far as the \
            length says, or a read got memory that is read-only. On most file systems the whole \
            request fails even if the first pages were good.",
    proof: "The request ended with EFAULT, which has no other cause.",
    fix: "compare the buffer's address and length with /proc/PID/maps; look for a length larger \
          than the allocation, or a buffer freed or unmapped while requests are in flight",
    on: "ext4, xfs, f2fs (block devices and vfat return a short count instead: short-fault)",
    scenario: Scenario::Needs("a buffer that runs into an unmapped page"),
    test: efault,
};

pub(super) const INTERRUPTED: Rule = Rule {
    id: "interrupted",
    title: "EINTR: a signal ended the wait",
    means: "A fatal signal reached the thread while it waited. Waits for a local disk cannot be \
            interrupted; those for a server (nfs, cifs) and reads through the page cache can.",
    proof: "The request ended with EINTR or one of the kernel's restart codes.",
    fix: "nothing is wrong with the file: find who sends the signal (`strace -e signal -p PID`)",
    on: "nfs, cifs, fuse; any after a fallback",
    scenario: Scenario::Needs("a signal in the middle of a request to a slow server"),
    test: interrupted,
};

pub(super) const IO_ERROR: Rule = Rule {
    id: "io-error",
    title: "EIO and its like: device, server or checksum error",
    means: "The layer below could not move the data: a medium error, a path lost, a checksum that \
            does not match, a server that failed. A direct request that meets one bad block fails \
            as a whole; it is never cut short there. The same file read through the page cache is.",
    proof: "The error (EIO, ENODATA, EREMOTEIO, EILSEQ, ETIMEDOUT, ENOLINK, EBADMSG, EUCLEAN, \
            ENXIO). The devices named are those that the file system stands on now.",
    fix: "look at `dmesg -T`, then `smartctl -a /dev/DISK`; on btrfs and zfs run a scrub; on a \
          network file system look at the server's log. The data was not transferred",
    on: "any",
    scenario: Scenario::In(&[
        "dm-error-bdev",
        "err-ext4",
        "err-xfs",
        "err-btrfs",
        "err-f2fs",
        "err-vfat",
        "scsi-medium",
    ]),
    test: io_error,
};

pub(super) const OTHER_ERROR: Rule = Rule {
    id: "other-error",
    title: "an error that has nothing to do with direct I/O",
    means: "The request failed by an error that a buffered request would have met as well: the \
            descriptor, a limit (RLIMIT_FSIZE: EFBIG), a read-only file system, a swap file.",
    proof: "The errno is none of those that other rules explain.",
    fix: "look the error up in read(2) or write(2)",
    on: "any",
    scenario: Scenario::Needs("a limit or state made for it, such as RLIMIT_FSIZE"),
    test: other_error,
};

fn invalid_request(case: &Case<'_>) -> Option<Reason> {
    (case.failed_with(libc::EINVAL) && !alignment::says_none(case)).then(|| {
        let keeps = alignment::limits(case).map_or_else(
            || "offset, length and buffer are multiples of 4096".to_owned(),
            |Limits { offset, memory, .. }| {
                format!("offset and length are multiples of {offset}, the buffer of {memory}")
            },
        );
        Reason::likely(format!("a rule of {} itself: {keeps}", case.fs))
    })
}

fn compressed_refused(case: &Case<'_>) -> Option<Reason> {
    let compressed = case.marked(flag::COMPRESSED, attribute::COMPRESSED);
    (case.failed_with(libc::EOPNOTSUPP) && compressed && case.on(&["ntfs3", "ntfs"])).then(|| {
        let fs = case.fs;
        Reason::proven(format!("the file is compressed, and {fs} does no direct I/O on those"))
    })
}

fn flag_unsupported(case: &Case<'_>) -> Option<Reason> {
    case.failed_with(libc::EOPNOTSUPP).then(|| {
        let ring = if case.request.api == API_IO_URING {
            ", or a ring with IORING_SETUP_IOPOLL on a file that cannot be polled"
        } else {
            ""
        };
        Reason::likely(format!(
            "a flag (RWF_NOWAIT, RWF_DONTCACHE, RWF_ATOMIC) that this kernel or file system does \
             not support{ring}"
        ))
    })
}

fn would_block(case: &Case<'_>) -> Option<Reason> {
    case.failed_with(libc::EAGAIN).then(|| {
        Reason::proven(
            "a request that must not wait would have had to: cached or dirty pages in its range, a \
             lock, or metadata not in memory",
        )
    })
}

fn no_space(case: &Case<'_>) -> Option<Reason> {
    let size = case.request.size_begin as u64;
    if case.failed_with(libc::EDQUOT) {
        let text = "the quota of this user, group or project is used up (EDQUOT)";
        return Some(Reason::proven(text));
    }
    case.failed_with(libc::ENOSPC).then(|| {
        Reason::proven(if case.is_device() && case.start() >= size {
            format!("the device ends at {size}, and the write begins at {}", case.start())
        } else {
            format!("no room for {} bytes at {} (ENOSPC)", case.request.len, case.start())
        })
    })
}

fn efault(case: &Case<'_>) -> Option<Reason> {
    let need = if case.is_write() { "readable" } else { "writable" };
    case.failed_with(libc::EFAULT).then(|| {
        let len = case.request.len;
        Reason::proven(format!("the buffer is not mapped and {need} for all of its {len} bytes"))
    })
}

fn interrupted(case: &Case<'_>) -> Option<Reason> {
    // ERESTARTSYS and the related codes (include/linux/errno.h) become EINTR on return to user
    // space.
    const RESTART: std::ops::RangeInclusive<i32> = 512..=516;
    case.errno()
        .filter(|errno| *errno == libc::EINTR || RESTART.contains(errno))
        .map(|_| Reason::proven("a signal ended the wait before anything was transferred"))
}

/// Errors that come from a device, from a server or from a file system's checksums.
pub const IO_ERRORS: &[i32] = &[
    libc::EIO,
    libc::ENODATA,
    libc::EREMOTEIO,
    libc::EILSEQ,
    libc::ETIMEDOUT,
    libc::ENOLINK,
    libc::EBADMSG,
    libc::EUCLEAN,
    libc::ENXIO,
];

fn io_error(case: &Case<'_>) -> Option<Reason> {
    let number = case.errno().filter(|errno| IO_ERRORS.contains(errno))?;
    let name = errno::name(number.into());
    let what = format!("{name} for bytes {} to {}", case.start(), case.stop());
    if case.is_client() {
        return Some(Reason::proven(format!("{what}, from the {} server or daemon", case.fs)));
    }
    let names: Vec<&str> = case.layers().iter().map(|layer| layer.name.as_str()).collect();
    let below = if names.is_empty() { String::new() } else { format!(" ({})", names.join(" on ")) };
    let on_it = if case.is_device() { String::new() } else { format!(", or {} on it", case.fs) };
    Some(Reason::proven(format!("{what}, from the device{below}{on_it}")))
}

fn other_error(case: &Case<'_>) -> Option<Reason> {
    let number = case.errno()?;
    let what = if number == libc::EFBIG {
        "past RLIMIT_FSIZE (`ulimit -f`) or the largest file that the file system has"
    } else {
        "a buffered request would have met the same error"
    };
    case.verdict(Verdict::Failed)
        .then(|| Reason::proven(format!("{}: {what}", errno::name(number.into()))))
}
