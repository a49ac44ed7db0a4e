//! Files that we make: for their owner alone, through no link, and over nothing unasked.

use std::{
    fs::{File, OpenOptions, Permissions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use anyhow::Result;

use crate::escape;

/// Only the owner may read what names other people's files.
const MODE: u32 = 0o600;

/// Creates a file that is only ever appended to; with `force` it may be there already.
///
/// # Errors
/// If it is there, is a symbolic link or no regular file, or cannot be created.
pub fn create(path: &Path, force: bool) -> Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).mode(MODE).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
    let open = if force { options.create(true) } else { options.create_new(true) };
    let file = open.open(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            anyhow::anyhow!("{} is there already: --force writes over it", escape::path(path))
        }
        _ if error.raw_os_error() == Some(libc::ELOOP) => {
            anyhow::anyhow!("{} is a symbolic link: name the file itself", escape::path(path))
        }
        _ => anyhow::Error::new(error).context(format!("cannot create {}", escape::path(path))),
    })?;
    if force {
        let about = file.metadata()?;
        anyhow::ensure!(about.is_file(), "{} is no regular file", escape::path(path));
        file.set_len(0)?;
        file.set_permissions(Permissions::from_mode(MODE))?;
    }
    Ok(file)
}

/// Creates what is made from `input`, as [`create`] does, and never in its place.
///
/// # Errors
/// If `path` is that file, and those of [`create`].
pub fn create_from(input: &Path, path: &Path, force: bool) -> Result<Named<File>> {
    let id = |path| std::fs::metadata(path).map(|about| (about.dev(), about.ino())).ok();
    let same = id(input).is_some_and(|input| id(path) == Some(input));
    anyhow::ensure!(!same, "{} is the recording itself: name another file", escape::path(path));
    Ok(Named::new(escape::path(path), create(path, force)?))
}

/// An output whose errors say which one it is, where those of an input are told too.
pub struct Named<W> {
    name: String,
    out: W,
}

impl<W> Named<W> {
    pub const fn new(name: String, out: W) -> Self {
        Self { name, out }
    }

    fn say(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("cannot write {}: {error}", self.name))
    }
}

impl<W: io::Write> io::Write for Named<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes).map_err(|error| self.say(&error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush().map_err(|error| self.say(&error))
    }
}
