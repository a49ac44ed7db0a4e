//! The destination of a result that is written as a whole, such as an export or a page: a file that
//! appears only once it is complete, or stdout.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Write},
    path::Path,
};

use anyhow::{Result, ensure};

use crate::util::{
    private_file::{self, Whole, is_dash},
    stdio::Stdout,
};

pub(super) enum ResultFile {
    File(Whole),
    Stdout(Stdout),
}

impl ResultFile {
    /// Opens the file `path`, or stdout if there is none or it is `-`. `input` is the recording
    /// that the result is made from, which must not be overwritten.
    ///
    /// # Errors
    /// If the file cannot be created.
    pub(super) fn open(path: Option<&Path>, force: bool, input: &File) -> Result<Self> {
        match path.filter(|path| !is_dash(path)) {
            Some(path) => {
                private_file::remove_at_signals();
                Ok(Self::File(Whole::private(path, force, input)?))
            }
            None => Ok(Self::Stdout(Stdout::new())),
        }
    }

    pub(super) const fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// Checks that binary data is not written to a terminal.
    ///
    /// # Errors
    /// If stdout is the destination and a terminal.
    pub(super) fn ensure_binary(&self, form: &str) -> Result<()> {
        ensure!(
            self.is_file() || !io::stdout().is_terminal(),
            "{form} is binary, and stdout is a terminal: use -o FILE, or a pipe"
        );
        Ok(())
    }

    /// Marks the result as complete: a file appears under its name.
    ///
    /// # Errors
    /// If the last bytes cannot be written.
    pub(super) fn finish(mut self) -> Result<()> {
        self.flush()?;
        match self {
            Self::File(file) => file.finish(),
            Self::Stdout(_) => Ok(()),
        }
    }
}

impl Write for ResultFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Stdout(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Stdout(out) => out.flush(),
        }
    }
}
