//! Causes of side events (rejected opens, mixed access). Their tests never fit a request.

use crate::cause::{Case, Reason, Rule, Scenario};

pub(in crate::cause) const OPEN_REFUSED: Rule = Rule {
    id: "open-refused",
    title: "O_DIRECT itself is refused for this file",
    means: "open(2) with O_DIRECT, or fcntl(2) that sets it, gives EINVAL where the file system \
            offers no direct I/O for the file: squashfs, isofs, ramfs, proc, ecryptfs, hugetlbfs, \
            compressed files of erofs, tmpfs before 6.6. Programs then often go on without \
            O_DIRECT and say nothing.",
    proof: "The kernel's open succeeded but for its test for direct I/O \
            (fs/open.c:do_dentry_open, fs/fcntl.c:setfl): the file has neither FMODE_CAN_ODIRECT \
            nor, before 5.19, a direct_IO operation. It is only likely where the file system's own \
            open said EINVAL, as an overlay's does for a layer without direct I/O.",
    fix: "open it without O_DIRECT, or keep the data on a file system that has direct I/O (ext4, \
          xfs, btrfs, f2fs)",
    on: "squashfs, isofs, ramfs, proc, ecryptfs, hugetlbfs, erofs, tmpfs before 6.6",
    scenario: Scenario::In(&["squashfs", "tmpfs"]),
    test: no_request,
};

pub(in crate::cause) const MIXED_ACCESS: Rule = Rule {
    id: "mixed-access",
    title: "the file is also used through the page cache",
    means: "One program uses the file directly, another (or the same) through the page cache or a \
            mapping. Each direct request then has pages to write back or to drop first, each \
            buffered reader reads anew what was dropped, and what a mapping shows may be old.",
    proof: "While the file had direct requests, this process brought pages of it into the page \
            cache or made pages of it dirty there.",
    fix: "use one way for one file: open it with O_DIRECT everywhere, or nowhere",
    on: "any",
    scenario: Scenario::In(&["ext4-512"]),
    test: no_request,
};

pub(in crate::cause) const MIXED_SELF: Rule = Rule {
    id: "mixed-self",
    title: "one program uses the file both ways",
    means: "The same process uses the file with O_DIRECT and through the page cache. Most often it \
            is the tail: the last bytes do not fill a block, so the program clears O_DIRECT (fcntl \
            with F_SETFL) or opens the file again, as dd, nginx and many backup tools do. Once a \
            file that costs little. In the midst of a file, each direct request has pages to write \
            back or to drop first.",
    proof: "While the file had direct requests of this process, it also brought pages of it into \
            the page cache, or made pages of it dirty there, and no other process used it directly.",
    fix: "where it is only the tail, no harm is done. To write it directly, write a whole block and \
          keep the true length inside the file: ftruncate(2) into a block goes through the page \
          cache, too. To read it directly, ask for its whole block: the kernel cuts it at the end \
          of the file. Where it is not the tail, open the file with O_DIRECT everywhere, or nowhere",
    on: "any",
    scenario: Scenario::In(&["ext4-512"]),
    test: no_request,
};

pub(in crate::cause) const NOT_ASKED: Rule = Rule {
    id: "not-asked",
    title: "the file is used without O_DIRECT",
    means: "A file that --expect-direct names is read or written by a call that did not ask for \
            direct I/O: the descriptor it used is open without O_DIRECT. The bytes go through the \
            page cache. Most often one of several places in a program opens the file, a cached \
            descriptor is older than the option, or a tail that does not fill a block is written \
            after O_DIRECT was cleared (fcntl with F_SETFL).",
    proof: "When the call was made, the flags of the open file had no O_DIRECT (struct file, f_flags).",
    fix: "open it with O_DIRECT, or set the flag on the open descriptor: fcntl(fd, F_SETFL, flags | \
          O_DIRECT). Addresses, offsets and lengths then have to be aligned (dio-trace check FILE)",
    on: "any",
    scenario: Scenario::In(&["ext4-512"]),
    test: no_request,
};

pub(in crate::cause) const NOT_ASKED_MMAP: Rule = Rule {
    id: "not-asked-mmap",
    title: "the file is mapped",
    means: "A file that --expect-direct names is mapped (mmap). What a program reads and writes through \
            a mapping goes through the page cache, even if the descriptor is open with O_DIRECT.",
    proof: "The process mapped the file (mm/util.c:vm_mmap_pgoff).",
    fix: "read and write it by calls on a descriptor with O_DIRECT, without a mapping",
    on: "any but DAX",
    scenario: Scenario::In(&["ext4-512"]),
    test: no_request,
};

const fn no_request(_: &Case<'_>) -> Option<Reason> {
    None
}
