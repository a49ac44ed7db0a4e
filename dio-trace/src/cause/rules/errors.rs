//! Rules for requests that ended with an error.

use dio_trace_common::verdict::{Verdict, magic};

use crate::{
    cause::{
        Case, Reason, Rule, Scenario,
        rules::alignment::{self, Limits},
    },
    system::file_attrs::{attribute, flag},
    util::errno,
};

pub(super) const DAEMON_REFUSED: Rule = Rule {
    id: "daemon-refused",
    title: "EINVAL: the FUSE daemon answered so",
    means: "FUSE has no alignment rule: it passes a direct request on to its daemon as it is, and \
            returns the daemon's answer. A daemon that opens the file below with the caller's \
            O_DIRECT makes requests of its own there, from a buffer of its own, and hands the \
            EINVAL of the file system below back.",
    proof: "EINVAL on FUSE, and the kernel did not hand the request on to a file below itself \
            (passthrough). The daemon's own request is not part of this one: likely.",
    fix: "trace the daemon, whose own request shows what was refused: `dio-trace audit`, or \
          `dio-trace attach -p PID` with its PID (virtiofs: on the host). The daemon must align its \
          buffer, or open the file below without O_DIRECT",
    on: "fuse, virtiofs",
    scenario: Scenario::Program("reports"),
    test: daemon_refused,
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
            ENXIO). The devices named are those that the file system stands on now. Which of the \
            layers failed the kernel's log tells. Likely where the request is also misaligned.",
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

fn daemon_refused(case: &Case<'_>) -> Option<Reason> {
    let fuse =
        case.is_client() && case.request.magic == magic::FUSE && case.request.lower_magic == 0;
    (fuse && case.failed_with(libc::EINVAL)).then(|| {
        let off = alignment::off_block(case, alignment::SECTOR);
        let also = if off.is_empty() {
            String::new()
        } else {
            format!("; {}, which the files below may need", off.join(", "))
        };
        Reason::likely(format!(
            "the answer of the {} daemon: FUSE has no rule of its own{also}",
            case.fs
        ))
    })
}

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
    let reason = Reason::proven(format!("{what}, from the device{below}{on_it}"));
    if let Some(wrong) = refused_late(case) {
        let fix = "align the request to the limits that `dio-trace check` shows, and try again; if \
                   the error stays, look at `dmesg -T`";
        let guess = format!("a device below refused the alignment late: {wrong}");
        return Some(reason.and_likely(guess).with_fix(fix));
    }
    Some(if case.on(&["btrfs"]) { reason.with_fix(BTRFS_IO_ERROR) } else { reason })
}

/// On btrfs, EIO also means a checksum that does not match, which a program can cause itself.
const BTRFS_IO_ERROR: &str = "look at `dmesg -T`. \"csum failed\": data and checksum differ. Where \
    the block was written with O_DIRECT by a kernel before 6.15, a program that changes its buffer \
    during the write causes this on a healthy disk: keep the buffer unchanged until the write has \
    completed, or `chattr +C` the empty file. Any other error is the device's: `smartctl -a \
    /dev/DISK`. Then run `btrfs scrub start DIR`";

/// What is misaligned of a request to a stack of devices, in words. Kernels 6.18 to 7.2 do not check
/// the buffer's alignment at the top (5ff3f74e145a, 7eac33186957); a device below that needs more
/// refuses the request when it is under way.
fn refused_late(case: &Case<'_>) -> Option<String> {
    let limits = alignment::limits(case).filter(|_| case.layers().len() > 1)?;
    let wrong = alignment::violations(case, &limits);
    (!wrong.is_empty()).then(|| wrong.join(", "))
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
