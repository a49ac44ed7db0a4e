//! Explains side events: findings that are not requests, such as a rejected open or mixed access.

use crate::{
    cause::{
        Explanation, Reason,
        rules::{
            notes::{LOOP_BUFFERED, buffered_below},
            side_events::{MIXED_ACCESS, MIXED_SELF, NOT_ASKED, NOT_ASKED_MMAP, OPEN_REFUSED},
        },
    },
    system::{file_attrs::FileAttrs, open_files::flag_words},
};

/// Explains why an open with O_DIRECT (or an fcntl that sets it) was rejected on file system `fs`.
/// `proven` is false if the file system's own open returned the error.
#[must_use]
pub fn explain_rejected_open(fs: &str, proven: bool) -> Explanation {
    let reason = if proven {
        Reason::proven(format!("{fs} offers no direct I/O for this file"))
    } else {
        Reason::likely(format!(
            "{fs} cannot do direct I/O for this file, or a layer below it cannot"
        ))
    };
    Explanation::new(&OPEN_REFUSED, &reason)
}

/// The direct user of a mixed file: of a file that a process uses through the page cache while it
/// has direct requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectBy<'a> {
    /// Only the process that uses the page cache, so far.
    Itself,
    /// One other process, as `comm/pid`.
    Other(&'a str),
    /// Several processes, or unknown ones.
    Several,
}

/// Explains mixed access: a process uses a file through the page cache, and `direct` uses it with
/// O_DIRECT. `writes` is true if the process dirtied pages.
#[must_use]
pub fn explain_mixed(writes: bool, direct: DirectBy<'_>) -> Explanation {
    let how = if writes { "writes" } else { "reads or maps" };
    let (rule, what) = match direct {
        DirectBy::Itself => (&MIXED_SELF, "a file that it uses with O_DIRECT as well".to_owned()),
        DirectBy::Other(name) => (&MIXED_ACCESS, format!("what {name} uses with O_DIRECT")),
        DirectBy::Several => (&MIXED_ACCESS, "what is also used with O_DIRECT".to_owned()),
    };
    Explanation::new(rule, &Reason::proven(format!("{how} through the page cache {what}")))
}

/// Id of the cause of a mixed file; `itself` is true if only one process uses it, both ways.
#[must_use]
pub const fn mixed_cause(itself: bool) -> &'static str {
    if itself { MIXED_SELF.id } else { MIXED_ACCESS.id }
}

/// How a process uses a file without asking for direct I/O.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unasked {
    /// By calls with RWF_DONTCACHE.
    pub dontcache: bool,
    /// By a mapping alone.
    pub mapped: bool,
}

/// Explains that a process uses a file without asking for direct I/O. `flags` are those of the open
/// file, if they are known.
#[must_use]
pub fn explain_unasked(flags: Option<u32>, how: Unasked) -> Explanation {
    let open = flags.map_or_else(String::new, |flags| format!(" ({})", flag_words(flags)));
    if how.mapped {
        let reason =
            format!("a mapping goes through the page cache, however the file is open{open}");
        return Explanation::new(&NOT_ASKED_MMAP, &Reason::proven(reason));
    }
    let reason = match how {
        Unasked { dontcache: true, .. } => format!(
            "open without O_DIRECT{open}; RWF_DONTCACHE goes through the page cache too, and drops \
             the pages afterwards"
        ),
        _ => format!("open without O_DIRECT{open}"),
    };
    Explanation::new(&NOT_ASKED, &Reason::proven(reason))
}

/// A note that applies to every direct request to a file, healthy ones included.
#[must_use]
pub fn explain_file(attrs: &FileAttrs) -> Option<Explanation> {
    buffered_below(&attrs.device.layers).map(|reason| Explanation::new(&LOOP_BUFFERED, &reason))
}
