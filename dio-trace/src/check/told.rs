//! What a trial told: a verdict with how it was seen, or why nothing could be told.

use std::io;

use dio_trace_common::verdict::Verdict;

use crate::{cause::IO_ERRORS, util::errno};

/// What was seen of one kind of access.
#[derive(Clone, Debug)]
pub(super) enum Told {
    Proven(Proof),
    Nothing { why: String },
}

/// A verdict that was seen.
#[derive(Clone, Debug)]
pub(super) struct Proof {
    pub(super) verdict: Verdict,
    /// For people: what was done and seen.
    pub(super) how: String,
    /// What a refused or failed request ended with.
    pub(super) errno: Option<i32>,
    /// O_DIRECT itself was refused.
    pub(super) at_open: bool,
    pub(super) of: Whose,
}

/// Whose requests these were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// The path's own.
    Itself,
    /// A new file's, made for it.
    New,
    /// Those of a file like it on the same file system; its path.
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

impl Told {
    pub(super) fn nothing(why: impl Into<String>) -> Self {
        Self::Nothing { why: why.into() }
    }

    pub(super) fn proven(verdict: Verdict, how: String, of: Whose) -> Self {
        Self::Proven(Proof { verdict, how, errno: None, at_open: false, of })
    }

    /// What an error tells, of a request or of opening. Most tell nothing of O_DIRECT, such as those
    /// of who may do what, of space and of memory.
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

    /// What a new file like the subject told, where the subject itself told nothing.
    pub(super) fn or_of_new(self, new: Self) -> Self {
        match (self, new) {
            (Self::Nothing { why }, Self::Proven(proof)) => {
                let how = format!("{}; of this one: {why}", proof.how);
                Self::Proven(Proof { how, ..proof })
            }
            (told, _) => told,
        }
    }

    /// It, told of the requests of another file.
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

/// Where the data of a file is, which names what was seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Home {
    pub(super) dax: bool,
    /// A server or a daemon has it.
    pub(super) client: bool,
    /// The page cache is the storage.
    pub(super) memory: bool,
}

impl Home {
    pub(super) const fn past_cache(self) -> Verdict {
        if self.dax {
            Verdict::Dax
        } else if self.client {
            Verdict::Client
        } else {
            Verdict::Direct
        }
    }

    pub(super) const fn through_cache(self) -> Verdict {
        if self.memory { Verdict::Memory } else { Verdict::Fallback }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_of_o_direct_and_of_the_data_are_proof() {
        let verdict = |number, at_open| {
            let error = io::Error::from_raw_os_error(number);
            let told = Told::error(&error, "it", at_open, Whose::Itself);
            told.proof().map(|proof| proof.verdict)
        };
        assert_eq!(verdict(libc::EINVAL, true), Some(Verdict::Refused));
        assert_eq!(verdict(libc::EIO, false), Some(Verdict::Failed));
        for number in [libc::EMFILE, libc::ENOMEM, libc::ENOSPC, libc::EFBIG, libc::EACCES] {
            assert_eq!([verdict(number, true), verdict(number, false)], [None, None], "{number}");
        }
    }
}
