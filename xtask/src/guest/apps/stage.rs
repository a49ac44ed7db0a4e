//! The environment that a program runs in, and the output of its rows.
use std::{fs::File, io::Write, path::PathBuf};

use anyhow::{Context, Result};

use crate::{
    guest::{contract::apps::Row, fixtures::Place},
    host::cmd::say,
};

/// The environment that a program runs in.
pub(super) struct Stage {
    pub(super) tool: PathBuf,
    /// An ext4 and an xfs that nothing else uses.
    pub(super) places: Vec<Place>,
    /// The folder that the program was unpacked to, if it was fetched.
    pub(super) fetched: Option<PathBuf>,
}

/// The file of the rows. Each is written at once, so that the earlier ones survive a crash of the
/// guest.
pub(super) struct Rows {
    pub(super) app: &'static str,
    pub(super) file: File,
}

impl Rows {
    /// Writes a row and prints it.
    pub(super) fn add(&mut self, row: &Row) -> Result<()> {
        say(format!("{}: {row}", self.app));
        row.wrong().iter().for_each(say);
        writeln!(self.file, "{}", serde_json::to_string(row)?)?;
        self.file.sync_all().context("cannot write a row")
    }
}
