//! Rules for file systems that are backed by a file or by another file system.

use dio_trace_common::evidence::seen;

use crate::cause::{Case, Reason, Rule, Scenario};

pub(super) const EROFS_FILE_BACKED: Rule = Rule {
    id: "erofs-file-backed",
    title: "erofs: mounted from a file, not from a device",
    means: "An erofs image that is mounted straight from a file has no block device. Its files \
            refuse O_DIRECT at open; a stacked file system above may hand a direct request on, \
            which erofs then reads through the page cache.",
    proof: "A read through the page cache without a direct attempt, and the file system has no \
            device number of its own.",
    fix: "attach the image to a loop device and mount that: `losetup --direct-io=on -f --show IMG`",
    on: "erofs from 6.12 on",
    scenario: Scenario::Needs(
        "an erofs image mounted from a file; by hand: `mount -t erofs IMG DIR`",
    ),
    test: erofs_file_backed,
};

pub(super) const BELOW_BUFFERED: Rule = Rule {
    id: "below-buffered",
    title: "the file below is open without O_DIRECT",
    means: "A stacked file system (FUSE passthrough, overlay) has a descriptor of its own of the \
            file below, with the flags that the program gave to open. O_DIRECT that fcntl sets \
            later may not reach it; the request is then buffered there.",
    proof: "The kernel handed the request on to a file that is open without O_DIRECT.",
    fix: "give O_DIRECT to open itself",
    on: "fuse passthrough, overlay",
    scenario: Scenario::In(&["fuse-passthrough"]),
    test: below_buffered,
};

pub(super) const OVERLAY: Rule = Rule {
    id: "overlay-below",
    title: "overlay: the file system below decided so",
    means: "An overlay hands each request to the file system that its layers lie on, with the same \
            O_DIRECT. Whether it is direct is decided there. Where that file system is known the \
            cause is looked for in its rules; it is not where the layers were mounted in a mount \
            namespace that cannot be seen.",
    proof: "The request went through the page cache of the layer's file; which file system that is \
            could not be found. Likely.",
    fix: "look where the layers lie (`findmnt -no OPTIONS DIR`: upperdir, lowerdir), then `findmnt -T` \
          on that path; for a database use a volume outside the overlay",
    on: "overlay (containers)",
    scenario: Scenario::Needs("layers in a mount namespace that the tracer cannot see"),
    test: overlay,
};

fn erofs_file_backed(case: &Case<'_>) -> Option<Reason> {
    let no_device = case.attrs.dev.is_some_and(|(major, _)| major == 0);
    (case.on(&["erofs"]) && case.cached_read() && !case.tried() && no_device).then(|| {
        Reason::proven("this erofs is mounted from a file and has no device to read directly from")
    })
}

fn below_buffered(case: &Case<'_>) -> Option<Reason> {
    (case.cached() && !case.tried() && case.seen(seen::LOWER_BUFFERED)).then(|| {
        Reason::proven("the file below is open without O_DIRECT, though this descriptor has it")
    })
}

fn overlay(case: &Case<'_>) -> Option<Reason> {
    (case.on(&["overlay"]) && case.cached()).then(|| {
        Reason::likely(
            "a rule of the file system that the overlay's layers lie on (not known here)",
        )
    })
}
