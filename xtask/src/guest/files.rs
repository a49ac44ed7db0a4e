//! Files for scenarios.
use std::{
    fs::{self, File},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::{Context, Result};

/// Opens a file with O_DIRECT for reading.
pub(super) fn open_direct(path: &Path) -> Result<File> {
    let file = File::options().read(true).custom_flags(libc::O_DIRECT).open(path);
    file.with_context(|| format!("cannot open {}", path.display()))
}

/// Makes a file of that many bytes, and has it on disk.
pub(super) fn fill(path: &Path, len: usize) -> Result<()> {
    let make = || {
        fs::write(path, vec![b'.'; len])?;
        File::open(path)?.sync_all()
    };
    make().with_context(|| format!("cannot make {}", path.display()))
}
