//! What a program runs on, and where its rows go.
use std::{fs::File, io::Write, path::PathBuf};

use anyhow::{Context, Result};

use crate::{
    guest::{contract::apps::Row, fixtures::Place},
    host::cmd::say,
};

/// What a program runs on.
pub(super) struct Stage {
    pub(super) tool: PathBuf,
    /// An ext4 and an xfs that nobody else uses.
    pub(super) places: Vec<Place>,
    /// Where the program was unpacked.
    pub(super) fetched: Option<PathBuf>,
}

/// Where rows are written, as they come: a guest that dies leaves those before.
pub(super) struct Rows {
    pub(super) app: &'static str,
    pub(super) file: File,
}

impl Rows {
    /// Writes a row, and says it.
    pub(super) fn add(&mut self, row: &Row) -> Result<()> {
        say(format!("{}: {row}", self.app));
        row.wrong().iter().for_each(say);
        writeln!(self.file, "{}", serde_json::to_string(row)?)?;
        self.file.sync_all().context("cannot write a row")
    }
}
