//! The programs: a line each.
use super::{Rows, Stage, fio};
use crate::host::{self, Need};

/// A program, where it comes from, and what runs it.
pub(crate) struct App {
    pub(crate) name: &'static str,
    /// Debian packages, installed where they are missing.
    pub(crate) needs: &'static [Need],
    pub(super) run: fn(&Stage, &mut Rows) -> anyhow::Result<()>,
}

pub(crate) const APPS: &[App] = &[App { name: "fio", needs: host::FIO, run: fio::run }];
