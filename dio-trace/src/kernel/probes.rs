//! The probe table: which kernel functions and tracepoints are probed, under which names, and by
//! which eBPF programs. Probes are chosen by what the running kernel has (BTF functions and
//! prototypes), never by its version.

use std::{borrow::Cow, collections::HashSet};

use crate::kernel::btf::Param;

/// The consequence if a probe cannot be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// No verdict is possible: the tracer does not start.
    Must,
    /// Requests of this API are not seen at all.
    Api(&'static str),
    /// Nothing is lost: a kernel without the function does not have the path that it belongs to.
    Optional,
    /// This effect is unknown; verdicts stay correct.
    Effect(Effect),
}

/// What is known only by some of the probes, and decides no verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Dirty pages that the kernel writes back before a direct request.
    Flushed,
    /// Pages that the kernel drops from the page cache for a direct write.
    Invalidated,
    /// Pages that a request adds to the page cache.
    ReadAhead,
    /// Processes that use a file through the page cache while others use it directly.
    Dirtied,
    /// The end of an inode, after which its number may mean another file.
    Gone,
    /// Opens and fcntls that fail because of O_DIRECT.
    RejectedOpens,
    /// Effects on the files that overlayfs passes requests on to.
    Below,
    /// Why requests that must not wait end with EAGAIN.
    WouldBlock,
    /// Calls without O_DIRECT on files of `--expect-direct`.
    Unasked,
    /// Why pages come into the page cache and leave it, for `cache`.
    CacheReason,
    /// Whether pages that were read ahead are read later, for `cache`.
    AheadUsed,
    /// Pages that come in again after they were reclaimed, for `cache`.
    Refaults,
}

impl Effect {
    /// What is not known without the probe, in words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Flushed => "dirty pages flushed first",
            Self::Invalidated => "pages invalidated",
            Self::ReadAhead => "pages read ahead",
            Self::Dirtied => "processes that dirty pages of files used directly",
            Self::Gone => "when a file that was used directly is gone for good",
            Self::RejectedOpens => "files that refuse O_DIRECT at open or fcntl",
            Self::Below => "pages flushed or invalidated below overlayfs",
            Self::WouldBlock => "one of the reasons of EAGAIN",
            Self::Unasked => "some of the calls without O_DIRECT",
            Self::CacheReason => "why some of the pages come into the page cache or leave it",
            Self::AheadUsed => "whether pages that were read ahead are read later",
            Self::Refaults => "pages that come in again after they were reclaimed",
        }
    }

    /// True if one of the attached probes observes this effect. A probe is named as `function` or as
    /// `function (alternative)`, in recordings as well.
    #[must_use]
    pub fn is_observed_by(self, attached: &[String]) -> bool {
        let probes = PROBES.iter().map(|probe| (probe.duty, probe.functions));
        let tracepoints = TRACEPOINTS.iter().map(|point| (point.duty, point.names));
        let mut observing =
            probes.chain(tracepoints).filter(|(duty, _)| *duty == Duty::Effect(self));
        observing.any(|(_, names)| attached.iter().any(|probe| names.contains(&function(probe))))
    }
}

/// The function or tracepoint in the name of an attached probe.
fn function(probe: &str) -> &str {
    probe.split_once(' ').map_or(probe, |(function, _)| function)
}

/// The entry or the return of one probed function. Entry and return are separate rows, so that one
/// may use fentry and the other kprobe.
pub struct Probe {
    /// Names of the function in different kernel versions; the first one present is used.
    pub functions: &'static [&'static str],
    pub duty: Duty,
    /// Number of arguments that the return probe expects; a function with another number is probed
    /// by kprobe.
    pub args: Option<usize>,
    /// Programs to attach by fentry or fexit.
    pub fentry: &'static [&'static str],
    /// Programs to attach by kprobe or kretprobe.
    pub kprobe: &'static [&'static str],
    /// A tracepoint that replaces the kprobe; if it is attached, the kprobe is not. A tracepoint
    /// loses less: a kretprobe can run out of instances, and a kprobe that hits while another is
    /// running on that CPU is skipped (kernel/kprobes.c), as when a completion interrupts its own
    /// submission.
    pub tracepoint: Option<&'static str>,
    /// A redundant attachment, used only if the kernel may preempt a running fentry program.
    pub copies: bool,
    /// Used only in kprobe mode, to make up for what that mode may miss.
    pub kprobe_only: bool,
    /// Used only with this option.
    pub only_with: Option<Switch>,
}

/// An option that attaches probes of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// `--why-eagain`
    WhyEagain,
    /// `--expect-direct`
    ExpectDirect,
}

impl Probe {
    pub(super) const fn copies(self) -> Self {
        Self { copies: true, ..self }
    }

    const fn or(self, tracepoint: &'static str) -> Self {
        Self { tracepoint: Some(tracepoint), ..self }
    }
}

pub(super) const fn entry(
    functions: &'static [&'static str],
    duty: Duty,
    fentry: &'static [&'static str],
    kprobe: &'static [&'static str],
) -> Probe {
    Probe {
        functions,
        duty,
        args: None,
        fentry,
        kprobe,
        tracepoint: None,
        copies: false,
        kprobe_only: false,
        only_with: None,
    }
}

const fn exit(
    functions: &'static [&'static str],
    duty: Duty,
    args: usize,
    fentry: &'static [&'static str],
    kprobe: &'static [&'static str],
) -> Probe {
    Probe { args: Some(args), ..entry(functions, duty, fentry, kprobe) }
}

/// The entry of a direct path, probed only in kprobe mode: if the completion is an interrupt that
/// hits while another probe runs on that CPU, the completion's kprobe is skipped.
const fn entered(function: &'static [&'static str], kprobe: &'static [&'static str]) -> Probe {
    Probe { kprobe_only: true, ..entry(function, Duty::Optional, &[], kprobe) }
}

/// The return of a function by which a request that must not wait finds that it would have to.
const fn why_eagain(
    function: &'static [&'static str],
    duty: Duty,
    args: usize,
    fentry: &'static [&'static str],
    kprobe: &'static [&'static str],
) -> Probe {
    Probe { only_with: Some(Switch::WhyEagain), ..exit(function, duty, args, fentry, kprobe) }
}

/// The entry of a call that may use a file without O_DIRECT.
const fn unasked(
    functions: &'static [&'static str],
    fentry: &'static [&'static str],
    kprobe: &'static [&'static str],
) -> Probe {
    const DUTY: Duty = Duty::Effect(Effect::Unasked);
    Probe { only_with: Some(Switch::ExpectDirect), ..entry(functions, DUTY, fentry, kprobe) }
}

const LIBAIO: Duty = Duty::Api("libaio");
const IO_URING: Duty = Duty::Api("io_uring");
const SPLICE: Duty = Duty::Api("splice");
const REFUSALS: Duty = Duty::Effect(Effect::RejectedOpens);
const STACKED: Duty = Duty::Effect(Effect::Below);
const WOULD_BLOCK: Duty = Duty::Effect(Effect::WouldBlock);

/// The probes in the order of attachment: evidence first, issues last. So no request is opened
/// before every function that it may reach is probed.
pub const PROBES: &[Probe] = &[
    exit(
        // In 5.10 (mm/filemap.c) the function has another name and the same three arguments.
        &["filemap_read", "generic_file_buffered_read"],
        Duty::Must,
        3,
        &["fx_filemap_read"],
        &["kp_filemap_read", "kr_filemap_read"],
    ),
    exit(
        &["filemap_read", "generic_file_buffered_read"],
        Duty::Must,
        3,
        &["fx_filemap_read_2"],
        &[],
    )
    .copies(),
    entry(
        &["iomap_dio_complete"],
        Duty::Must,
        &["fe_iomap_dio_complete"],
        &["kp_iomap_dio_complete"],
    )
    .or("iomap_dio_complete"),
    entry(&["iomap_dio_complete"], Duty::Must, &["fe_iomap_dio_complete_2"], &[]).copies(),
    entry(
        &["iomap_dio_simple_complete"],
        Duty::Optional,
        &["fe_iomap_dio_simple_complete"],
        &["kp_iomap_dio_simple_complete"],
    ),
    entry(&["iomap_dio_simple_complete"], Duty::Optional, &["fe_iomap_dio_simple_complete_2"], &[])
        .copies(),
    entered(&["__blockdev_direct_IO"], &["kp_blockdev_direct_io"]),
    entered(&["__iomap_dio_rw"], &["kp_iomap_dio_rw"]),
    entered(&["__iomap_dio_read_simple"], &["kp_iomap_dio_read_simple"]),
    entry(&["dio_complete"], Duty::Optional, &["fe_dio_complete"], &["kp_dio_complete"]),
    entry(&["dio_complete"], Duty::Optional, &["fe_dio_complete_2"], &[]).copies(),
    entry(&["bio_iov_iter_bounce"], Duty::Optional, &["fe_bounced"], &["kp_bounced"]),
    entry(&["dax_iomap_rw"], Duty::Optional, &["fe_dax_iomap_rw"], &["kp_dax_iomap_rw"]),
    entry(
        &["balance_dirty_pages_ratelimited"],
        Duty::Must,
        &["fe_balance_dirty"],
        &["kp_balance_dirty"],
    ),
    // Since 6.1; there, balance_dirty_pages_ratelimited calls it.
    entry(
        &["balance_dirty_pages_ratelimited_flags"],
        Duty::Optional,
        &["fe_balance_dirty_flags"],
        &["kp_balance_dirty_flags"],
    ),
    exit(
        &["do_writepages"],
        Duty::Effect(Effect::Flushed),
        2,
        &["fx_do_writepages", "fe_do_writepages"],
        &["kp_do_writepages", "kr_do_writepages"],
    ),
    entry(
        &["truncate_inode_pages_final"],
        Duty::Effect(Effect::Gone),
        &["fe_evicted"],
        &["kp_evicted"],
    ),
    exit(
        &["invalidate_inode_pages2_range"],
        Duty::Effect(Effect::Invalidated),
        3,
        &["fx_invalidate"],
        &["kr_invalidate"],
    ),
    entry(
        &["invalidate_inode_pages2_range"],
        Duty::Effect(Effect::Invalidated),
        &["fe_invalidate"],
        &["kp_invalidate"],
    ),
    // Since 6.0.
    why_eagain(
        &["kiocb_modified"],
        Duty::Optional,
        1,
        &["fx_kiocb_modified"],
        &["kr_kiocb_modified"],
    ),
    // Since 6.6.
    why_eagain(
        &["kiocb_write_and_wait"],
        Duty::Optional,
        2,
        &["fx_write_and_wait"],
        &["kr_write_and_wait"],
    ),
    // The first from 5.13 to 5.15. Since 5.16 it is inline (include/linux/pagemap.h) and asks the
    // second, from 6.6 on within the one above.
    why_eagain(
        &["filemap_range_needs_writeback", "filemap_range_has_writeback"],
        Duty::Optional,
        3,
        &["fx_needs_writeback"],
        &["kr_needs_writeback"],
    ),
    why_eagain(&["filemap_range_has_page"], WOULD_BLOCK, 3, &["fx_has_page"], &["kr_has_page"]),
    // The first since 5.15, the second before.
    why_eagain(&["iomap_iter"], Duty::Optional, 2, &["fx_iomap_iter"], &["kr_iomap_iter"]),
    why_eagain(&["iomap_apply"], Duty::Optional, 7, &["fx_iomap_apply"], &["kr_iomap_apply"]),
    why_eagain(&["down_read_trylock"], WOULD_BLOCK, 1, &["fx_down_read_trylock"], &[]),
    why_eagain(&["down_write_trylock"], WOULD_BLOCK, 1, &["fx_down_write_trylock"], &[]),
    entry(&["vfs_iter_read"], STACKED, &["fe_vfs_iter_read"], &["kp_vfs_iter_read"]),
    entry(&["vfs_iter_write"], STACKED, &["fe_vfs_iter_write"], &["kp_vfs_iter_write"]),
    entry(&["vfs_iocb_iter_read"], STACKED, &["fe_vfs_iocb_iter_read"], &["kp_vfs_iocb_iter_read"]),
    entry(
        &["vfs_iocb_iter_write"],
        STACKED,
        &["fe_vfs_iocb_iter_write"],
        &["kp_vfs_iocb_iter_write"],
    ),
    entry(
        &["aio_complete_rw"],
        LIBAIO,
        &["fe_aio_complete_rw", "fe_aio_complete_rw_2"],
        &["kp_aio_complete_rw"],
    ),
    Probe {
        kprobe_only: true,
        ..entry(&["do_io_getevents"], Duty::Optional, &[], &["kp_do_io_getevents"])
    },
    entry(&["io_complete_rw"], IO_URING, &["fe_io_complete_rw"], &["kp_io_complete_rw"]),
    entry(
        &["io_complete_rw_iopoll"],
        IO_URING,
        &["fe_io_complete_rw_iopoll"],
        &["kp_io_complete_rw_iopoll"],
    ),
    Probe {
        kprobe_only: true,
        ..entry(&["io_req_rw_complete"], Duty::Optional, &[], &["kp_io_req_rw_complete"])
    }
    .or("io_uring_complete"),
    entry(&["kiocb_done"], IO_URING, &["fe_kiocb_done"], &["kp_kiocb_done"]),
    exit(&["do_fcntl"], REFUSALS, 4, &["fx_do_fcntl"], &["kp_do_fcntl"]),
    exit(&["vfs_open"], REFUSALS, 2, &["fx_vfs_open"], &["kp_vfs_open"]),
    exit(&["vfs_open"], REFUSALS, 2, &["fx_vfs_open_2", "fx_vfs_open_3"], &[]).copies(),
    unasked(
        &["iter_file_splice_write"],
        &["fe_unasked_splice_write"],
        &["kp_unasked_splice_write"],
    ),
    unasked(
        &["do_splice_read", "do_splice_to"],
        &["fe_unasked_splice_read"],
        &["kp_unasked_splice_read"],
    ),
    unasked(&["vm_mmap_pgoff"], &["fe_unasked_mmap"], &["kp_unasked_mmap"]),
    unasked(&["io_write"], &["fe_unasked_io_write"], &["kp_unasked_io_write"]),
    Probe {
        only_with: Some(Switch::ExpectDirect),
        ..exit(&["io_read"], Duty::Optional, 2, &["fx_unasked_io_read"], &[])
    },
    unasked(&["io_read"], &["fe_unasked_io_read"], &["kp_unasked_io_read"]),
    unasked(&["aio_write"], &["fe_unasked_aio_write"], &["kp_unasked_aio_write"]),
    unasked(&["aio_read"], &["fe_unasked_aio_read"], &["kp_unasked_aio_read"]),
    unasked(&["vfs_writev"], &["fe_unasked_writev"], &["kp_unasked_writev"]),
    unasked(&["vfs_readv"], &["fe_unasked_readv"], &["kp_unasked_readv"]),
    unasked(&["vfs_write"], &["fe_unasked_write"], &["kp_unasked_write"]),
    unasked(&["vfs_read"], &["fe_unasked_read"], &["kp_unasked_read"]),
    exit(&["iter_file_splice_write"], SPLICE, 5, &["fx_splice_write"], &["kr_splice_write"]),
    entry(&["iter_file_splice_write"], SPLICE, &["fe_splice_write"], &["kp_splice_write"]),
    entry(&["do_splice_direct"], SPLICE, &["fe_do_splice_direct"], &["kp_do_splice_direct"]),
    entry(&["do_splice"], SPLICE, &["fe_do_splice"], &["kp_do_splice"]),
    // The first name is used since 6.8, the second before.
    exit(&["do_splice_read", "do_splice_to"], SPLICE, 5, &["fx_splice_read"], &["kr_splice_read"]),
    entry(&["do_splice_read", "do_splice_to"], SPLICE, &["fe_splice_read"], &["kp_splice_read"]),
    exit(&["aio_write"], LIBAIO, 4, &["fx_aio_write"], &[]).or("sys_exit"),
    entry(&["aio_write"], LIBAIO, &["fe_aio_write"], &["kp_aio_write"]),
    exit(&["aio_read"], LIBAIO, 4, &["fx_aio_read"], &[]).or("sys_exit"),
    entry(&["aio_read"], LIBAIO, &["fe_aio_read"], &["kp_aio_read"]),
    exit(&["io_write"], IO_URING, 2, &["fx_io_write"], &["kr_io_write"]).or("io_uring_complete"),
    entry(&["io_write"], IO_URING, &["fe_io_write"], &["kp_io_write"]),
    exit(&["io_read"], IO_URING, 2, &["fx_io_read"], &["kr_io_read"]).or("io_uring_complete"),
    entry(&["io_read"], IO_URING, &["fe_io_read"], &["kp_io_read"]),
    exit(&["vfs_writev"], Duty::Must, 5, &["fx_vfs_writev"], &[]).or("sys_exit"),
    entry(&["vfs_writev"], Duty::Must, &["fe_vfs_writev"], &["kp_vfs_writev"]),
    exit(&["vfs_readv"], Duty::Must, 5, &["fx_vfs_readv"], &[]).or("sys_exit"),
    entry(&["vfs_readv"], Duty::Must, &["fe_vfs_readv"], &["kp_vfs_readv"]),
    exit(&["vfs_write"], Duty::Must, 4, &["fx_vfs_write"], &[]).or("sys_exit"),
    exit(&["vfs_write"], Duty::Must, 4, &["fx_vfs_write_2", "fx_vfs_write_3"], &[]).copies(),
    entry(&["vfs_write"], Duty::Must, &["fe_vfs_write_2", "fe_vfs_write_3"], &[]).copies(),
    entry(&["vfs_write"], Duty::Must, &["fe_vfs_write"], &["kp_vfs_write"]),
    exit(&["vfs_read"], Duty::Must, 4, &["fx_vfs_read"], &[]).or("sys_exit"),
    exit(&["vfs_read"], Duty::Must, 4, &["fx_vfs_read_2", "fx_vfs_read_3"], &[]).copies(),
    entry(&["vfs_read"], Duty::Must, &["fe_vfs_read_2", "fe_vfs_read_3"], &[]).copies(),
    entry(&["vfs_read"], Duty::Must, &["fe_vfs_read"], &["kp_vfs_read"]),
];

/// When a tracepoint is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Always,
    /// Only if processes are filtered.
    Filtered,
    /// Only if probes are attached by kprobe.
    Kprobe,
}

/// A test on a tracepoint's arguments.
pub type Fits = fn(&[Param]) -> bool;

/// A raw tracepoint.
pub struct Tracepoint {
    /// Names of the tracepoint in different kernel versions; the first one present is used.
    pub names: &'static [&'static str],
    pub duty: Duty,
    /// (program, test on the tracepoint's arguments); the first whose test succeeds is used.
    pub programs: &'static [(&'static str, Fits)],
    /// Redundant programs, attached in addition if the kernel may preempt a running program.
    pub copies: &'static [&'static str],
    pub when: When,
}

pub(super) fn any(_: &[Param]) -> bool {
    true
}

/// 7.3: `(ctx, req, struct io_uring_cqe *)`
fn has_cqe(params: &[Param]) -> bool {
    params.get(2) == Some(&Param::StructPtr("io_uring_cqe".into()))
}

/// 6.1: `(ctx, req, user_data, res, …)`. 5.10 has no req: `(ctx, user_data, res, …)`.
fn has_req_and_res(params: &[Param]) -> bool {
    params.get(1).is_some_and(|p| *p != Param::Value)
        && params.get(2) == Some(&Param::Value)
        && params.get(3) == Some(&Param::Value)
}

/// Children of traced processes are traced too.
pub(super) const FORK: Tracepoint = Tracepoint {
    names: &["sched_process_fork"],
    duty: Duty::Must,
    programs: &[("tp_sched_process_fork", any)],
    copies: &[],
    when: When::Filtered,
};

/// The end of a process or thread.
pub(super) const fn free(when: When) -> Tracepoint {
    Tracepoint {
        names: &["sched_process_free"],
        duty: Duty::Must,
        programs: &[("tp_sched_process_free", any)],
        copies: &[],
        when,
    }
}

/// The tracepoints, attached in this order.
pub const TRACEPOINTS: &[Tracepoint] = &[
    FORK,
    free(When::Always),
    Tracepoint {
        names: &["sys_exit"],
        duty: Duty::Must,
        programs: &[("tp_sys_exit", any)],
        // Since 6.13 the tracepoints of system calls may sleep (include/trace/syscall.h).
        copies: &["tp_sys_exit_2", "tp_sys_exit_3"],
        when: When::Kprobe,
    },
    Tracepoint {
        // Since 6.6.
        names: &["iomap_dio_complete"],
        duty: Duty::Optional,
        programs: &[("tp_iomap_dio_complete", any)],
        copies: &[],
        when: When::Kprobe,
    },
    Tracepoint {
        names: &["mm_filemap_add_to_page_cache"],
        duty: Duty::Effect(Effect::ReadAhead),
        programs: &[("tp_added_to_page_cache", any)],
        copies: &[],
        when: When::Always,
    },
    Tracepoint {
        // The first name is used since 5.18, the second before.
        names: &["writeback_dirty_folio", "writeback_dirty_page"],
        duty: Duty::Effect(Effect::Dirtied),
        programs: &[("tp_dirtied", any)],
        copies: &[],
        when: When::Always,
    },
    Tracepoint {
        names: &["io_uring_complete"],
        duty: IO_URING,
        programs: &[
            ("tp_io_uring_complete_cqe", has_cqe),
            ("tp_io_uring_complete_res", has_req_and_res),
        ],
        copies: &[],
        when: When::Always,
    },
];

/// The probes for one purpose.
#[derive(Clone, Copy)]
pub struct Table {
    pub probes: &'static [Probe],
    pub tracepoints: &'static [Tracepoint],
    /// Attached after all others: what they count is explained by the others.
    pub last: &'static [Tracepoint],
    /// A program and its function, which are in the table and on every kernel: if it can be attached by
    /// fentry, all are.
    pub trial: (&'static str, &'static str),
}

/// The probes that follow direct requests.
pub const DIRECT_IO: Table = Table {
    probes: PROBES,
    tracepoints: TRACEPOINTS,
    last: &[],
    trial: ("fe_iomap_dio_complete", "iomap_dio_complete"),
};

/// The functions and tracepoints of a table, by their names in BTF.
#[must_use]
pub fn names(table: Table) -> HashSet<Cow<'static, str>> {
    let functions = table.probes.iter().flat_map(|probe| probe.functions);
    let tracepoints =
        table.tracepoints.iter().chain(table.last).flat_map(|tracepoint| tracepoint.names);
    functions
        .map(|&name| Cow::Borrowed(name))
        .chain(tracepoints.map(|name| Cow::Owned(format!("btf_trace_{name}"))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_effect_is_observed_by_its_own_probes() {
        let observed = |effect: Effect, name: &str| effect.is_observed_by(&[name.to_owned()]);
        assert!(observed(Effect::Flushed, "do_writepages"));
        assert!(observed(Effect::Invalidated, "invalidate_inode_pages2_range (kprobe)"));
        assert!(observed(Effect::ReadAhead, "mm_filemap_add_to_page_cache"));
        assert!(observed(Effect::Dirtied, "writeback_dirty_page"));
        assert!(!observed(Effect::Flushed, "vfs_read"));
        assert!(!observed(Effect::Flushed, "invalidate_inode_pages2_range"));
        assert!(!Effect::Flushed.is_observed_by(&[]));
    }
}
