//! Explaining what is no request.

use crate::{
    cause::{
        Explanation, Rule,
        rules::{
            notes::{LOOP_BUFFERED, buffered_below},
            side_events::{MIXED_ACCESS, MIXED_SELF, OPEN_REFUSED},
        },
    },
    system::file_attrs::FileAttrs,
};

/// Why O_DIRECT itself was refused for a file of this file system.
#[must_use]
pub fn explain_refusal(fs: &str, proven: bool) -> Explanation {
    let why = if proven {
        format!("{fs} offers no direct I/O for this file")
    } else {
        format!("likely {fs} cannot do direct I/O for this file, or a layer below it cannot")
    };
    by(&OPEN_REFUSED, why)
}

/// Who uses directly a file that a process uses through the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectBy<'a> {
    /// That process itself, and nobody else so far.
    Itself,
    /// One other process, as `comm/pid`.
    Other(&'a str),
    /// Several processes, or it is not known who.
    Several,
}

/// What it means that a process uses a file through the page cache that is used directly.
#[must_use]
pub fn explain_mixed(writes: bool, direct: DirectBy<'_>) -> Explanation {
    let how = if writes { "writes" } else { "reads or maps" };
    let (rule, what) = match direct {
        DirectBy::Itself => (&MIXED_SELF, "a file that it uses with O_DIRECT as well".to_owned()),
        DirectBy::Other(name) => (&MIXED_ACCESS, format!("what {name} uses with O_DIRECT")),
        DirectBy::Several => (&MIXED_ACCESS, "what is also used with O_DIRECT".to_owned()),
    };
    by(rule, format!("{how} through the page cache {what}"))
}

/// The cause of a mixed file: whether one process alone uses it both ways.
#[must_use]
pub const fn mixed_cause(itself: bool) -> &'static str {
    if itself { MIXED_SELF.id } else { MIXED_ACCESS.id }
}

/// What there is to know of all direct requests to a file, healthy ones too.
#[must_use]
pub fn explain_file(attrs: &FileAttrs) -> Option<Explanation> {
    buffered_below(&attrs.device.layers).map(|why| by(&LOOP_BUFFERED, why))
}

fn by(rule: &'static Rule, why: String) -> Explanation {
    Explanation { id: rule.id, why, fix: rule.fix.to_owned() }
}
