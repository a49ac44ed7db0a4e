//! The result of a trial. A trial makes small direct requests to a file and observes the page
//! cache; its result is a proven verdict, or the reason why nothing was proven.

use std::io;

use dio_trace_common::verdict::Verdict;

use crate::{cause::IO_ERRORS, util::errno};

/// The result of a trial of one kind of access.
#[derive(Clone, Debug)]
pub(super) enum Trial {
    Proven(Proof),
    /// Nothing was proven.
    Nothing {
        why: String,
    },
}

/// A verdict that requests have shown.
#[derive(Clone, Debug)]
pub(super) struct Proof {
    pub(super) verdict: Verdict,
    /// What was done and seen, in prose.
    pub(super) how: String,
    /// The error number of a refused or failed request.
    pub(super) errno: Option<i32>,
    /// The open with O_DIRECT was rejected.
    pub(super) at_open: bool,
    pub(super) of: Whose,
}

/// The file to which the requests of a trial were made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// The checked path itself.
    Itself,
    /// A temporary file that was made for the trial.
    New,
    /// A file of the same kind on the same file system, with its path.
    Sibling(String),
}

impl Whose {
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::Itself => "itself",
            Self::New => "new file",
            Self::Sibling(_) => "sibling",
        }
    }

    pub(super) fn sibling(self) -> Option<String> {
        match self {
            Self::Sibling(path) => Some(path),
            Self::Itself | Self::New => None,
        }
    }
}

impl Trial {
    pub(super) fn nothing(why: impl Into<String>) -> Self {
        Self::Nothing { why: why.into() }
    }

    pub(super) fn proven(verdict: Verdict, how: String, of: Whose) -> Self {
        Self::Proven(Proof { verdict, how, errno: None, at_open: false, of })
    }

    /// The result of a request or an open that failed with `error`. Most errors prove nothing about
    /// O_DIRECT: those about permissions, space and memory.
    pub(super) fn error(error: &io::Error, what: &str, at_open: bool, of: Whose) -> Self {
        let number = error.raw_os_error().unwrap_or(0);
        let how = format!("{what} ended with {}", errno::name(i64::from(number)));
        let verdict = match number {
            libc::EINVAL | libc::EOPNOTSUPP => Verdict::Refused,
            number if IO_ERRORS.contains(&number) && !at_open => Verdict::Failed,
            _ => return Self::nothing(how),
        };
        Self::Proven(Proof { verdict, how, errno: Some(number), at_open, of })
    }

    /// The result of a temporary file, where the file itself proved nothing.
    pub(super) fn or_of_new(self, new: Self) -> Self {
        match (self, new) {
            (Self::Nothing { why }, Self::Proven(proof)) => {
                let how = format!("{}; the file itself: {why}", proof.how);
                Self::Proven(Proof { how, ..proof })
            }
            (itself, _) => itself,
        }
    }

    /// Marks the result as one of another file of the same kind.
    pub(super) fn of_sibling(&self, path: &str) -> Self {
        match self {
            Self::Proven(proof) => {
                Self::Proven(Proof { of: Whose::Sibling(path.to_owned()), ..proof.clone() })
            }
            Self::Nothing { .. } => self.clone(),
        }
    }

    pub(super) fn proof(&self) -> Option<&Proof> {
        match self {
            Self::Proven(proof) => Some(proof),
            Self::Nothing { .. } => None,
        }
    }
}

/// Where a file's data is stored, which decides the verdict that an observation means.
#[derive(Clone, Copy, Debug)]
pub(super) struct Home {
    pub(super) dax: bool,
    /// A server or a daemon has the data.
    pub(super) client: bool,
    /// The page cache is the storage.
    pub(super) memory: bool,
}

impl Home {
    /// The verdict of a request that did not use the page cache.
    pub(super) const fn past_cache(self) -> Verdict {
        if self.dax {
            Verdict::Dax
        } else if self.client {
            Verdict::Client
        } else {
            Verdict::Direct
        }
    }

    /// The verdict of a request that used the page cache.
    pub(super) const fn through_cache(self) -> Verdict {
        if self.memory { Verdict::Memory } else { Verdict::Fallback }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_o_direct_and_data_errors_are_proof() {
        let verdict = |number, at_open| {
            let error = io::Error::from_raw_os_error(number);
            let result = Trial::error(&error, "it", at_open, Whose::Itself);
            result.proof().map(|proof| proof.verdict)
        };
        assert_eq!(verdict(libc::EINVAL, true), Some(Verdict::Refused));
        assert_eq!(verdict(libc::EIO, false), Some(Verdict::Failed));
        for number in [libc::EMFILE, libc::ENOMEM, libc::ENOSPC, libc::EFBIG, libc::EACCES] {
            assert_eq!([verdict(number, true), verdict(number, false)], [None, None], "{number}");
        }
    }
}
