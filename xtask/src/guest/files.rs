//! Files for scenarios.
use std::{
    fs::{self, File},
    path::Path,
};

use anyhow::{Context, Result};

/// Makes a file of that many bytes, and has it on disk.
pub(super) fn fill(path: &Path, len: usize) -> Result<()> {
    let make = || {
        fs::write(path, vec![b'.'; len])?;
        File::open(path)?.sync_all()
    };
    make().with_context(|| format!("cannot make {}", path.display()))
}
