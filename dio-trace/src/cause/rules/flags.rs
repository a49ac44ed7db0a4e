//! Rules for flags of a request that the kernel or the file does not take.

use dio_trace_common::abi::{ring, rwf};

use crate::cause::{Case, Reason, Rule, Scenario};

pub(super) const FLAG_UNSUPPORTED: Rule = Rule {
    id: "flag-unsupported",
    title: "EOPNOTSUPP: a flag of the request is not supported",
    means: "RWF_NOWAIT, RWF_ATOMIC and RWF_DONTCACHE need support by the kernel and the file \
            system; without it the request is refused: a direct one with RWF_DONTCACHE too, though \
            the flag changes nothing about it. A ring of io_uring that polls for completions \
            (IORING_SETUP_IOPOLL) needs a file system that can poll, and on newer kernels a device \
            with poll queues. f2fs also refuses direct requests on a file in an atomic write.",
    proof: "EOPNOTSUPP before the request reached a direct path, and exactly one flag of the \
            request needs support: that flag is named. Whether the kernel, the file system, the \
            device or the kind of file lacks it the error does not say: likely.",
    fix: "leave that flag out on this file. RWF_ATOMIC needs a device with atomic writes \
          (`dio-trace check FILE` shows the limits if there are any). For IOPOLL: `cat /sys/block/DISK/queue/io_poll` says whether the device has poll queues (nvme: \
          the module parameter poll_queues)",
    on: "any",
    scenario: Scenario::In(&["ext4-512", "btrfs", "tmpfs"]),
    test: flag_unsupported,
};

pub(super) const ATOMIC_WRITE: Rule = Rule {
    id: "atomic-write",
    title: "EINVAL: not a valid atomic write (RWF_ATOMIC)",
    means: "An atomic write (RWF_ATOMIC, 6.11 on) is done as a whole or not at all. Its length is a \
            power of two within the file's limits, its offset is a multiple of the length, and a \
            vector has no more segments than the limit. Anything else is refused.",
    proof: "EINVAL for a write with RWF_ATOMIC that breaks one of these rules; the limits are \
            those of statx(2) with STATX_WRITE_ATOMIC.",
    fix: "write a power of two within the limits that `dio-trace check FILE` shows, at a multiple \
          of it; or leave out RWF_ATOMIC",
    on: "block devices, ext4, xfs, from 6.11 or 6.13 on",
    scenario: Scenario::Program("reports"),
    test: atomic_write,
};

/// Flags that a kernel or a file system may not support.
const NEED_SUPPORT: u16 =
    rwf::NOWAIT | rwf::ATOMIC | rwf::DONTCACHE | rwf::NOAPPEND | rwf::NOSIGNAL;

/// What of the request needs support, in words.
fn needing_support(case: &Case<'_>) -> Vec<String> {
    let flags = case.request.rw_flags;
    let named = rwf::ALL.iter().filter(|(bit, _)| flags & bit & NEED_SUPPORT != 0);
    let mut needing: Vec<String> = named.map(|(_, name)| (*name).to_owned()).collect();
    if flags & rwf::UNKNOWN != 0 {
        needing.push("an RWF flag that no kernel up to 7.3 has".to_owned());
    }
    if case.request.ring & ring::IOPOLL != 0 {
        needing.push("IORING_SETUP_IOPOLL".to_owned());
    }
    needing
}

fn flag_unsupported(case: &Case<'_>) -> Option<Reason> {
    if !case.failed_with(libc::EOPNOTSUPP) {
        return None;
    }
    let needing = needing_support(case);
    let of = if case.is_device() { "the device" } else { case.fs };
    Some(match &needing[..] {
        [] => Reason::likely(format!(
            "a flag (RWF_NOWAIT, RWF_DONTCACHE, RWF_ATOMIC, or IORING_SETUP_IOPOLL of its ring) that \
             this kernel or {of} does not support"
        )),
        [flag] if case.request.ring & ring::IOPOLL != 0 => {
            Reason::likely(format!("because of {flag}: {}", unpolled(case)))
        }
        [flag] if case.tried() => Reason::likely(format!(
            "because this kernel, {of} or a device below does not support {flag}"
        )),
        [flag] if case.on(&["f2fs"]) => Reason::likely(format!(
            "because this kernel or f2fs does not support {flag}, or because the file is in an \
             atomic write"
        )),
        [flag] => unsupported(case, flag, of),
        several => Reason::likely(format!(
            "because this kernel or {of} does not support one of {}",
            several.join(", ")
        )),
    })
}

/// The one flag that is not supported, and what may lack it (include/linux/fs.h:kiocb_set_rw_flags).
fn unsupported(case: &Case<'_>, flag: &str, of: &str) -> Reason {
    let flags = case.request.rw_flags;
    if flags & rwf::ATOMIC != 0 && !case.is_write() {
        return Reason::proven("RWF_ATOMIC is for writes, and this is a read");
    }
    let rivals = if flags & rwf::ATOMIC != 0 {
        format!("{of}, its device or this kernel takes no atomic writes")
    } else if flags & rwf::NOWAIT != 0 {
        format!(
            "{of} does not support it for this kind of file (data=journal, encrypted, inline, an \
             overlay), or not at all"
        )
    } else if flags & rwf::DONTCACHE != 0 {
        format!("this kernel (before 6.14) or {of} lacks it, or the file is on DAX")
    } else {
        format!("this kernel or {of} lacks it")
    };
    Reason::proven(format!("{flag} is not supported here")).and_likely(rivals)
}

/// Why a request of a polling ring is refused, as far as the device's queue tells.
fn unpolled(case: &Case<'_>) -> String {
    match (case.attrs.device.io_poll, case.layers().first()) {
        (Some(false), Some(top)) => {
            format!("the queue of /dev/{} cannot be polled (queue/io_poll is 0)", top.name)
        }
        (Some(false), None) => {
            "the device's queue cannot be polled (queue/io_poll is 0)".to_owned()
        }
        (Some(true), _) if !case.is_device() => {
            format!("{} cannot poll, though its device can", case.fs)
        }
        _ => "the file or its device cannot be polled".to_owned(),
    }
}

fn atomic_write(case: &Case<'_>) -> Option<Reason> {
    let atomic = case.is_write() && case.request.rw_flags & rwf::ATOMIC != 0;
    if !atomic || !case.failed_with(libc::EINVAL) {
        return None;
    }
    let wrong = broken_rules(case);
    (!wrong.is_empty()).then(|| {
        let limits = case.attrs.atomic.map_or_else(
            || "this file's limits could not be asked".to_owned(),
            |limits| format!("limits of this file: {} to {} bytes", limits.min, limits.max),
        );
        Reason::proven(format!("RWF_ATOMIC: {} ({limits})", wrong.join(", ")))
    })
}

/// The rules of an atomic write that the request breaks, in words
/// (fs/read_write.c:generic_atomic_write_valid, and what statx reports).
fn broken_rules(case: &Case<'_>) -> Vec<String> {
    let (len, segments) = (case.request.len, case.request.nr_segs);
    let mut wrong = Vec::new();
    // The kernel compares the offset that was passed, before it moves an append to the end.
    let appends = case.start() == case.request.size_begin as u64;
    if !len.is_power_of_two() {
        wrong.push(format!("length {len} is not a power of two"));
    } else if !appends && !case.start().is_multiple_of(len) {
        wrong.push(format!("offset {} is not a multiple of the length {len}", case.start()));
    }
    if let Some(limits) = case.attrs.atomic {
        if len < limits.min.into() || len > limits.max.into() {
            wrong.push(format!("length {len} is outside of {} to {}", limits.min, limits.max));
        }
        if limits.segments != 0 && segments > limits.segments {
            wrong.push(format!("{segments} segments are more than {}", limits.segments));
        }
    }
    wrong
}
