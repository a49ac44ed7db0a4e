//! [`Change`]: one behaviour of the kernel, the releases that have it, and the commits that began
//! and ended it.

use std::fmt;

use dio_trace_common::abi::Op;

use crate::cause::history::version::{KernelVersion, Series};

/// The stable series whose changelogs were read whole, up to 5.10.262, 6.1.192 and 6.12.118. In
/// these a commit that is not named as a backport was not backported.
const READ_WHOLE: [Series; 3] = [Series::new(5, 10), Series::new(6, 1), Series::new(6, 12)];

/// Whether a kernel has a behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    Yes,
    No,
    /// The kernel's version does not say it, or the backport is not established.
    NotKnown,
}

impl Holds {
    const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            _ => Self::NotKnown,
        }
    }

    const fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::NotKnown => Self::NotKnown,
        }
    }

    const fn of(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }

    /// `None` if it is not known.
    #[must_use]
    pub const fn known(self) -> Option<bool> {
        match self {
            Self::Yes => Some(true),
            Self::No => Some(false),
            Self::NotKnown => None,
        }
    }
}

/// A commit of the mainline kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// At least the first twelve digits.
    pub hash: &'static str,
    pub subject: &'static str,
}

pub(super) const fn commit(hash: &'static str, subject: &'static str) -> Commit {
    Commit { hash, subject }
}

/// What is known of a commit in a stable series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stable {
    /// The first release of its series that has it.
    From(KernelVersion),
    /// This release has it; whether an earlier one of its series has is not established.
    By(KernelVersion),
    /// A release of this series has it; which one is not established.
    In(Series),
    /// This release does not have it; whether a later one of its series has is not established.
    After(KernelVersion),
    /// Other series were not searched.
    Others,
}

impl Stable {
    pub(super) const fn from(major: u16, minor: u16, sublevel: u16) -> Self {
        Self::From(KernelVersion::new(major, minor, sublevel))
    }

    pub(super) const fn by(major: u16, minor: u16, sublevel: u16) -> Self {
        Self::By(KernelVersion::new(major, minor, sublevel))
    }

    pub(super) const fn after(major: u16, minor: u16, sublevel: u16) -> Self {
        Self::After(KernelVersion::new(major, minor, sublevel))
    }

    pub(super) const fn some(major: u16, minor: u16) -> Self {
        Self::In(Series::new(major, minor))
    }

    /// The series that it is about.
    #[must_use]
    pub const fn series(self) -> Option<Series> {
        match self {
            Self::From(version) | Self::By(version) | Self::After(version) => Some(version.series),
            Self::In(series) => Some(series),
            Self::Others => None,
        }
    }

    /// Whether a stable release of the series has the commit.
    fn is_in(self, sublevel: Option<u16>) -> Holds {
        let Some(sublevel) = sublevel else { return Holds::NotKnown };
        let reaches = |version: KernelVersion| version.sublevel.is_some_and(|n| sublevel >= n);
        match self {
            Self::From(version) => Holds::of(reaches(version)),
            Self::By(version) if reaches(version) => Holds::Yes,
            Self::After(version) if !reaches(version) || version.sublevel == Some(sublevel) => {
                Holds::No
            }
            _ => Holds::NotKnown,
        }
    }

    /// The release that has it, in words; `None` if it is not established that one has.
    #[must_use]
    pub fn known(self) -> Option<String> {
        match self {
            Self::From(version) => Some(version.to_string()),
            Self::By(version) => Some(format!("{version} at the latest")),
            Self::In(series) => Some(format!("{series}.y")),
            Self::After(_) | Self::Others => None,
        }
    }

    /// What is not established, in words.
    #[must_use]
    pub fn open(self) -> Option<String> {
        match self {
            Self::After(version) if version.sublevel == Some(0) => {
                Some(format!("{}.y", version.series))
            }
            Self::After(version) => Some(format!("{}.y after {version}", version.series)),
            Self::Others => Some("other series".to_owned()),
            Self::From(_) | Self::By(_) | Self::In(_) => None,
        }
    }
}

/// The beginning or the end of a behaviour.
#[derive(Debug)]
pub struct Turn {
    /// The first mainline release that has it.
    pub release: Series,
    /// The first release that may have it, if it is not established which of several was the first.
    pub earliest: Option<Series>,
    /// The release is known only by the date of the commit.
    pub about: bool,
    /// Empty if the hash of the commit is not established.
    pub commits: &'static [Commit],
    pub stable: &'static [Stable],
}

impl Turn {
    pub(super) const fn at(major: u16, minor: u16) -> Self {
        let release = Series::new(major, minor);
        Self { release, earliest: None, about: false, commits: &[], stable: &[] }
    }

    /// A release that is known by the date of the commit.
    pub(super) const fn about(major: u16, minor: u16) -> Self {
        Self { about: true, ..Self::at(major, minor) }
    }

    pub(super) const fn not_before(self, major: u16, minor: u16) -> Self {
        Self { earliest: Some(Series::new(major, minor)), ..self }
    }

    pub(super) const fn made_by(self, commits: &'static [Commit]) -> Self {
        Self { commits, ..self }
    }

    pub(super) const fn stable(self, stable: &'static [Stable]) -> Self {
        Self { stable, ..self }
    }

    /// Whether a kernel has the commits.
    fn is_in(&self, version: KernelVersion) -> Holds {
        if version.series >= self.release {
            return Holds::Yes;
        }
        if self.earliest.is_some_and(|earliest| version.series >= earliest) {
            return Holds::NotKnown;
        }
        if version.sublevel == Some(0) {
            return Holds::No;
        }
        match self.stable.iter().find(|stable| stable.series() == Some(version.series)) {
            Some(stable) => stable.is_in(version.sublevel),
            None if self.may_be_in(version.series) => Holds::NotKnown,
            None => Holds::No,
        }
    }

    /// Whether a series that is not named may have the commits: another stable series has them, or
    /// may have, and this one was not read.
    fn may_be_in(&self, series: Series) -> bool {
        let elsewhere = |stable: &Stable| !matches!(stable, Stable::After(_));
        self.stable.iter().any(elsewhere) && !READ_WHOLE.contains(&series)
    }

    /// The first releases that have it, in words: "6.15 and 6.12.77".
    #[must_use]
    pub fn releases(&self) -> String {
        let stable = self.stable.iter().filter_map(|stable| stable.known());
        let all: Vec<String> = [self.to_string()].into_iter().chain(stable).collect();
        match &all[..] {
            [rest @ .., last] if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
            _ => all.concat(),
        }
    }

    /// The stable series for which it is not established, in words.
    #[must_use]
    pub fn open(&self) -> Vec<String> {
        self.stable.iter().filter_map(|stable| stable.open()).collect()
    }
}

/// The mainline release in words.
impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.about {
            f.write_str("about ")?;
        }
        match self.earliest {
            Some(earliest) => write!(f, "{earliest} or {}", self.release),
            None => write!(f, "{}", self.release),
        }
    }
}

/// What a behaviour does to the requests that it concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// They go through the page cache.
    Cached,
    Direct,
    /// They end with EINVAL, EOPNOTSUPP, EAGAIN or EBUSY.
    Refused,
    /// They end with EIO.
    Failed,
    /// open(2) with O_DIRECT ends with EINVAL.
    OpenRefused,
    /// The verdict is the same, what happens to the page cache is not.
    SideEffect,
    /// Other alignment limits hold.
    Limits,
    /// The file system, or this use of it, exists.
    Exists,
    /// The requests are the same; only what the kernel tells about a file changes.
    Reported,
}

impl Effect {
    /// The word in docs/kernels.md.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cached => "page cache",
            Self::Direct => "direct",
            Self::Refused => "refused",
            Self::Failed => "fails late",
            Self::OpenRefused => "open refused",
            Self::SideEffect => "side effect",
            Self::Limits => "limits",
            Self::Exists => "exists",
            Self::Reported => "reported",
        }
    }
}

/// One behaviour of the kernel that began or ended in a known release.
#[derive(Debug)]
pub struct Change {
    /// Stable identifier: `change` in the JSON of `check`.
    pub id: &'static str,
    /// The rules that it concerns, by id.
    pub causes: &'static [&'static str],
    /// The behaviour, as it is while it lasts.
    pub fact: &'static str,
    /// What limits the fact, for example that it was read and not measured; may be empty.
    pub note: &'static str,
    /// The file systems that it concerns, `bdev` for block devices; empty: any.
    pub on: &'static [&'static str],
    /// The operation that it concerns; `None`: both.
    pub op: Option<Op>,
    /// `None`: it is older than every kernel that the table covers.
    pub since: Option<Turn>,
    /// The first release without it; `None`: it has not ended.
    pub until: Option<Turn>,
    pub effect: Effect,
}

impl Change {
    /// A behaviour that concerns every file system and both operations and never changes: the
    /// members of a row that has no need of them.
    pub(super) const ANY: Self = Self {
        id: "",
        causes: &[],
        fact: "",
        note: "",
        on: &[],
        op: None,
        since: None,
        until: None,
        effect: Effect::Reported,
    };

    /// Whether a kernel behaves so, backports to stable releases included.
    #[must_use]
    pub fn applies(&self, version: KernelVersion) -> Holds {
        let begun = self.since.as_ref().map_or(Holds::Yes, |turn| turn.is_in(version));
        let ended = self.until.as_ref().map_or(Holds::No, |turn| turn.is_in(version));
        begun.and(ended.not())
    }

    /// Whether it concerns a file system.
    #[must_use]
    pub fn is_on(&self, fs: &str) -> bool {
        self.on.is_empty() || self.on.contains(&fs)
    }

    /// Whether it concerns an operation.
    #[must_use]
    pub fn is_of(&self, op: Op) -> bool {
        self.op.is_none_or(|only| only == op)
    }

    /// The releases that have it, in words: "since 6.15 and 6.12.77, until 7.3".
    #[must_use]
    pub fn range(&self) -> String {
        let turn = |word: &str, turn: &Turn| format!("{word} {}", turn.releases());
        let since = self.since.as_ref().map(|begun| turn("since", begun));
        let until = self.until.as_ref().map(|ended| turn("until", ended));
        [since, until].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGE: Change = Change {
        since: Some(Turn::at(6, 15).stable(&[
            Stable::from(6, 12, 77),
            Stable::by(6, 6, 50),
            Stable::some(6, 11),
        ])),
        until: Some(Turn::at(7, 3).stable(&[Stable::after(7, 2, 12)])),
        ..Change::ANY
    };

    fn applies(change: &Change, version: &str) -> Option<bool> {
        change.applies(version.parse().unwrap()).known()
    }

    #[test]
    fn a_range_ends_before_its_last_release() {
        for (version, holds) in [("6.14", false), ("6.15", true), ("7.2", true), ("7.3", false)] {
            assert_eq!(applies(&CHANGE, version), Some(holds), "{version}");
        }
    }

    #[test]
    fn backports_count_from_their_release_on() {
        assert_eq!(applies(&CHANGE, "6.12"), Some(false));
        assert_eq!(applies(&CHANGE, "6.12.76"), Some(false));
        assert_eq!(applies(&CHANGE, "6.12.77"), Some(true));
    }

    #[test]
    fn what_is_not_established_is_not_known() {
        assert_eq!(applies(&CHANGE, "6.6.49"), None);
        assert_eq!(applies(&CHANGE, "6.6.50"), Some(true));
        assert_eq!(applies(&CHANGE, "6.11"), Some(false), "a mainline release");
        assert_eq!(applies(&CHANGE, "6.11.9"), None);
        assert_eq!(applies(&CHANGE, "7.2.12"), Some(true));
        assert_eq!(applies(&CHANGE, "7.2.13"), None);
        assert_eq!(applies(&CHANGE, "6.12.0-5-amd64"), None, "its sublevel is hidden");
        // It is in other stable series: 6.13.y was not read, 6.1.y was.
        assert_eq!(applies(&CHANGE, "6.13.9"), None);
        assert_eq!(applies(&CHANGE, "6.1.150"), Some(false));
        assert_eq!(applies(&CHANGE, "6.1.0-56-amd64"), Some(false));
    }

    #[test]
    fn one_of_two_releases_is_not_known() {
        let until = Some(Turn::at(6, 5).not_before(6, 4));
        let change = Change { until, ..Change::ANY };
        assert_eq!(applies(&change, "6.3.9"), Some(true));
        assert_eq!(applies(&change, "6.4"), None);
        assert_eq!(applies(&change, "6.5"), Some(false));
        assert_eq!(change.range(), "until 6.4 or 6.5");
    }

    #[test]
    fn a_range_names_the_stable_releases() {
        assert_eq!(
            CHANGE.range(),
            "since 6.15, 6.12.77, 6.6.50 at the latest and 6.11.y, until 7.3"
        );
        assert_eq!(CHANGE.until.as_ref().unwrap().open(), ["7.2.y after 7.2.12"]);
    }
}
