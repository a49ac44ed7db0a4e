//! Rules for requests whose path was not observed, and for findings that no other rule explains.

use dio_trace_common::{evidence::seen, verdict::Verdict};

use crate::cause::{Case, Reason, Rule, Scenario};

pub(super) const MISSED_PROBE: Rule = Rule {
    id: "missed-probe",
    title: "cannot tell: a probe missed this request",
    means: "The kernel skipped a probe that would have told how bytes travelled, because another \
            run of it was active on the same CPU or a return could not be caught. The verdict is \
            `unknown` then, rather than a guess.",
    proof: "The record of this request says that the return of a page-cache probe was missed.",
    fix: "nothing is wrong with the file; use `--attach fentry` if kprobes were used, and see \
          `skipped_runs` in the summary",
    on: "any, under load",
    scenario: Scenario::Needs("a probe skipped at the right moment; it is a race"),
    test: missed_probe,
};

pub(super) const UNSEEN_PATH: Rule = Rule {
    id: "unseen-path",
    title: "cannot tell: this file system goes its own way",
    means: "ZFS, bcachefs and other file systems with a direct path and a cache of their own call \
            nothing that the probes watch. ZFS before 2.3 accepts O_DIRECT and ignores it; later \
            its property `direct` decides.",
    proof: "Bytes were moved, and neither a direct path nor the page cache was entered for them.",
    fix: "ask the file system itself: on zfs `zfs get direct DATASET` and `zpool iostat -r`; \
          dio-trace cannot see it",
    on: "zfs, bcachefs and others out of tree",
    scenario: Scenario::Needs("a file system that the kernels of the tests do not have"),
    test: unseen_path,
};

pub(super) const FILE_GONE: Rule = Rule {
    id: "file-gone",
    title: "the file was gone before it could be asked",
    means: "The request went through the page cache, and the reason is an attribute or an extent of \
            its file that can only be asked while the file has a name. Temporary files and those of \
            a compaction are often deleted before.",
    proof: "Nothing that is known without the file explains the request (the mount's options, the \
            device), and the file had no name any more when it was looked up.",
    fix: "make a file in the same folder in the same way, keep it, and run `dio-trace check FILE` or \
          trace a direct request on it",
    on: "any",
    scenario: Scenario::Needs("a file that is deleted at once, and a reason that only it knows"),
    test: file_gone,
};

pub(super) const NOT_EXPLAINED: Rule = Rule {
    id: "not-explained",
    title: "no rule explains this finding",
    means: "The verdict is proven, the reason is not known: either a rule is missing or the \
            file could not be asked (gone, or in another mount namespace).",
    proof: "No other rule of the table fits.",
    fix: "please report it with this line's --json record, `uname -r` and the mount options",
    on: "any",
    scenario: Scenario::Needs("something that this table does not know"),
    test: |case| {
        case.decision
            .finding
            .then(|| Reason::proven("no rule explains this one; the verdict stands"))
    },
};

fn missed_probe(case: &Case<'_>) -> Option<Reason> {
    (case.verdict(Verdict::Unknown) && case.seen(seen::MISSED)).then(|| {
        Reason::proven("a probe was skipped while this request ran: its bytes were not seen")
    })
}

fn file_gone(case: &Case<'_>) -> Option<Reason> {
    (case.cached() && case.attrs.gone).then(|| {
        Reason::proven(
            "the file was deleted before its attributes and extents could be asked, and nothing \
             else explains this request",
        )
    })
}

fn unseen_path(case: &Case<'_>) -> Option<Reason> {
    let entered = seen::DIRECT_TRIED | seen::BUFFERED_READ | seen::BUFFERED_WRITE;
    (case.verdict(Verdict::Unknown) && !case.seen(entered) && case.request.ret > 0).then(|| {
        Reason::likely(format!(
            "a path of {} that no probe watches moved these {} bytes",
            if case.fs.is_empty() { "its file system" } else { case.fs },
            case.request.ret
        ))
    })
}
