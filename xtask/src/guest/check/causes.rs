//! The causes that may explain a cell's verdict, and the file systems with incomplete counters.
use crate::guest::{
    fixtures::Setup,
    matrix::cells::{Cell, Ending, Expect},
};

/// The `api` that dio-trace reports for an API of the workload.
pub(crate) fn api(name: &str) -> &'static str {
    match name {
        "read" | "pread" | "write" | "pwrite" | "thread" | "child" => "read",
        "readv" | "preadv" | "preadv2" | "writev" | "pwritev" | "pwritev2" => "readv",
        "aio" => "libaio",
        "splice" | "sendfile" => "splice",
        _ => "io_uring",
    }
}

/// The causes, one of which dio-trace must report for a cell; `None` if no cause is checked.
pub(crate) fn causes(
    setup: &Setup,
    cell: &Cell,
    expect: &Expect,
    (flush, drop): (bool, bool),
) -> Option<Vec<&'static str>> {
    const BLOCK: usize = 4096;
    let Expect::Request { verdict, result, .. } = expect else { return None };
    let writes = cell.writes();
    let off = [cell.offset as usize, cell.len, cell.off_by].iter().any(|n| n % BLOCK != 0)
        || ["_iov512", "_iov100"].iter().any(|cut| cell.case.ends_with(cut));
    Some(match (*verdict, *result) {
        (_, Ending::Errno("EINVAL")) if setup.rare => vec!["misaligned", "invalid-request"],
        (_, Ending::Errno("EINVAL")) => vec!["misaligned"],
        (_, Ending::Errno("EOPNOTSUPP")) => vec!["flag-unsupported"],
        (_, Ending::Errno("EAGAIN")) => vec!["would-block"],
        (_, Ending::Errno("EIO" | "ENODATA")) => vec!["io-error"],
        (_, Ending::Errno("ENOSPC")) => vec!["no-space"],
        ("dax", Ending::Full) => vec!["dax"],
        ("memory", _) => vec!["tmpfs"],
        ("fallback", _) if setup.fs == "btrfs" && off => vec!["btrfs-misaligned", "inline-data"],
        ("fallback", _) if setup.fs == "btrfs" && writes => {
            [&["btrfs-checksums", "cache-not-invalidated"][..], setup.causes].concat()
        }
        ("fallback" | "partial", _) if setup.rare && setup.causes.is_empty() => return None,
        ("partial", _) if setup.rare => setup.causes.to_vec(),
        ("fallback", _) => setup.causes.to_vec(),
        _ if flush => vec!["dirty-flush"],
        _ if drop && drops_late(setup, cell) => vec!["cache-invalidated", "server-may-cache"],
        _ if drop => vec!["cache-invalidated"],
        (_, Ending::Count(Some("short:eof"), _)) => vec!["end-of-file"],
        (_, Ending::Count(Some("short:device-end"), _)) => vec!["device-end"],
        (_, Ending::Count(Some("short:server"), _)) => vec!["short-server"],
        ("client", Ending::Full) => vec!["server-may-cache"],
        ("direct", Ending::Full) if setup.name.ends_with("loop-buffered") => vec!["loop-buffered"],
        _ => return None,
    })
}

/// Whether the file system does not count all the pages that it writes back.
pub(crate) fn uncounted(setup: &Setup) -> bool {
    matches!(setup.fs, "f2fs" | "nilfs2")
}

/// Whether pages may be dropped too late to be seen: nfs drops them after it has sent an
/// asynchronous write, which may already have completed by then.
pub(crate) fn drops_late(setup: &Setup, cell: &Cell) -> bool {
    setup.fs == "nfs4" && cell.writes() && api(cell.api) != "read"
}
