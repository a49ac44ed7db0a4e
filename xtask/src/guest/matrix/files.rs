//! Makes the files of the cells, with the content that each case asks for.
use std::{
    fs::{self, File},
    io,
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::Path,
};

use anyhow::{Context, Result};

use crate::guest::matrix::{
    cases::{self, Case, Content},
    cells::Cell,
};

/// Makes the file of a case.
pub(crate) fn make_file(path: &Path, case: &Case) -> Result<()> {
    // A new inode each time, because a file does not return to some states (inline, for example).
    let _ = fs::remove_file(path);
    let make = || {
        let file = File::create(path)?;
        fill(&file, case.content)?;
        file.sync_all()
    };
    make().with_context(|| format!("cannot make {}", path.display()))
}

/// Fills a folder with the cells' files, for a fixture that is made with its files in it.
pub(crate) fn fill_folder(cells: &[Cell], folder: &Path) -> Result<()> {
    cells.iter().try_for_each(|cell| make_file(&folder.join(cell.name()), cases::find(cell.case)?))
}

/// Fills a file or a device.
pub(crate) fn fill(file: &File, content: Content) -> io::Result<()> {
    let text = |len: u64| -> Vec<u8> {
        // The bytes compress well, and no two blocks are equal.
        (0..len).map(|at| if at % 64 < 8 { ((at / 64) >> (at % 8)) as u8 } else { b'.' }).collect()
    };
    match content {
        Content::Bytes(len) => file.write_all_at(&text(len), 0),
        Content::Hole => file.set_len(256 << 10),
        Content::Unwritten => {
            // SAFETY: no memory is involved.
            let done = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, 256 << 10) };
            if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
        }
        Content::Mixed => {
            file.write_all_at(&text(8 << 10), 0)?;
            file.write_all_at(&text(240 << 10), 16 << 10)
        }
    }
}
