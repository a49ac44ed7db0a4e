//! Creates output files: readable only by their owner, never through a symbolic link, and never
//! over an existing file unless the user asked for it.
//!
//! A file that is useless when incomplete (a table, a page) is a [`Whole`]: it is written under a
//! temporary name in the same directory and renamed at the end. A file that is useful line by line
//! is written in place: [`create`], [`stream`].

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use anyhow::{Context as _, Error, Result, anyhow, bail, ensure};
use tempfile::TempPath;

use crate::util::escape;

/// Only the owner may read output that names other users' files.
const MODE: u32 = 0o600;
/// Permissions are left to the umask.
const SHARED_MODE: u32 = 0o666;

/// Temporary files to remove when a signal ends the program.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// True for `-`, which means stdin or stdout. A file of that name is given as `./-`.
#[must_use]
pub(crate) fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Creates a file for appending; with `force`, an existing file is truncated.
///
/// # Errors
/// If the file exists (without `force`), is a symbolic link or not a regular file, or cannot be
/// created.
pub(crate) fn create(path: &Path, force: bool) -> Result<File> {
    let mut options = OpenOptions::new();
    // Without O_NONBLOCK, opening a FIFO would block until it has a reader, before it is rejected.
    let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
    options.append(true).mode(MODE).custom_flags(flags);
    let open = if force { options.create(true) } else { options.create_new(true) };
    let file = open.open(path).map_err(|error| match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::AlreadyExists, _) => exists(path),
        (_, Some(libc::ELOOP)) => link(path),
        (_, Some(libc::ENXIO)) => irregular(path),
        _ => Error::new(error).context(format!("cannot create {}", escape::path(path))),
    })?;
    if force {
        ensure!(file.metadata()?.is_file(), irregular(path));
        file.set_len(0)?;
        file.set_permissions(Permissions::from_mode(MODE))?;
    }
    Ok(file)
}

/// Opens a file, FIFO or device for output line by line; a regular file is created or truncated.
///
/// # Errors
/// If the file cannot be opened, or is a FIFO without a reader.
pub(crate) fn stream(path: &Path) -> Result<File> {
    let shown = || format!("cannot write {}", escape::path(path));
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
        .open(path)
        .map_err(|error| match fs::metadata(path) {
            Ok(about) if about.file_type().is_fifo() => {
                anyhow!("it is a FIFO that nobody reads: start its reader first")
            }
            _ => error.into(),
        })
        .with_context(shown)?;
    blocking(&file).with_context(shown)?;
    Ok(file)
}

/// Clears O_NONBLOCK, which was only needed for open(2).
///
/// # Errors
/// Those of fcntl(2).
pub(crate) fn blocking(file: &File) -> io::Result<()> {
    // SAFETY: a descriptor that `file` keeps open; these commands take and give numbers.
    let set = unsafe {
        let flags = libc::fcntl(file.as_raw_fd(), libc::F_GETFL);
        libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags & !libc::O_NONBLOCK)
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn exists(path: &Path) -> Error {
    anyhow!("{} already exists: --force overwrites it", escape::path(path))
}

fn link(path: &Path) -> Error {
    anyhow!("{} is a symbolic link: name the file itself (or - for stdout)", escape::path(path))
}

fn irregular(path: &Path) -> Error {
    anyhow!("{} is not a regular file: name another (or - for stdout)", escape::path(path))
}

/// A file that appears under its name only once it is complete; an existing file of that name stays
/// until then. Dropping it, or a signal ([`remove_at_signals`]), leaves no file behind.
pub(crate) struct Whole {
    out: Named<File>,
    ready: Ready,
}

impl Whole {
    /// A file that only its owner may read; with `force`, it replaces an existing one. `input` is
    /// the file that it is made from, which it must not replace.
    ///
    /// # Errors
    /// If the file exists (without `force`), is `input`, a symbolic link or not a regular file, or
    /// cannot be created.
    pub(crate) fn private(path: &Path, force: bool, input: &File) -> Result<Self> {
        let input = input.metadata().map(|about| (about.dev(), about.ino())).ok();
        let there = fs::metadata(path).map(|about| (about.dev(), about.ino())).ok();
        let same = there.is_some() && there == input;
        ensure!(!same, "{} is the recording itself: name another file", escape::path(path));
        Self::new(path, force, MODE)
    }

    /// A file with the permissions that the umask allows; it replaces an existing one.
    ///
    /// # Errors
    /// If the existing file is a symbolic link or not a regular file, or the new one cannot be
    /// created.
    pub(crate) fn shared(path: &Path) -> Result<Self> {
        Self::new(path, true, SHARED_MODE)
    }

    fn new(path: &Path, force: bool, mode: u32) -> Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(_) if !force => bail!(exists(path)),
            Ok(there) if there.is_symlink() => bail!(link(path)),
            Ok(there) if !there.is_file() => bail!(irregular(path)),
            // Errors of the directory are reported below, when the file is created.
            _ => {}
        }
        let shown = || format!("cannot create {}", escape::path(path));
        path.file_name().context("it has no file name").with_context(shown)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(mode);
        // The lock is held while the file is created, so that the signal thread does not miss it.
        let mut unfinished = unfinished();
        let (file, temp) = tempfile::Builder::new()
            .prefix(".dio-trace-")
            .suffix(".unfinished")
            .make_in(folder.unwrap_or(Path::new(".")), |path| options.open(path))
            .with_context(shown)?
            .into_parts();
        unfinished.push(temp.to_path_buf());
        let out = Named::new(escape::path(path), file);
        Ok(Self { out, ready: Ready { path: path.to_owned(), temp: Some(temp), force } })
    }

    /// Syncs and closes the file. It gets its name from [`Ready::name`].
    ///
    /// # Errors
    /// Write errors, which some file systems report only now.
    pub(crate) fn close(self) -> Result<Ready> {
        let Self { out, ready } = self;
        out.out.sync_all().map_err(|error| out.say(&error))?;
        Ok(ready)
    }

    /// Syncs, closes and names the file.
    ///
    /// # Errors
    /// Those of [`Whole::close`] and [`Ready::name`].
    pub(crate) fn finish(self) -> Result<()> {
        self.close()?.name()
    }
}

impl Write for Whole {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A complete file that does not have its name yet.
pub(crate) struct Ready {
    path: PathBuf,
    /// `None` once the file has its name.
    temp: Option<TempPath>,
    force: bool,
}

impl Ready {
    /// Gives the file its name atomically.
    ///
    /// # Errors
    /// If a file of that name was created meanwhile, or the directory cannot be changed.
    pub(crate) fn name(mut self) -> Result<()> {
        let mut unfinished = unfinished();
        let Some(temp) = self.temp.take() else { return Ok(()) };
        unfinished.retain(|path| path != &*temp);
        let named =
            if self.force { temp.persist(&self.path) } else { temp.persist_noclobber(&self.path) };
        named.map_err(|error| match error.error.kind() {
            io::ErrorKind::AlreadyExists => exists(&self.path),
            _ => {
                Error::new(error.error).context(format!("cannot make {}", escape::path(&self.path)))
            }
        })
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        if let Some(temp) = self.temp.take() {
            unfinished().retain(|path| path != &*temp);
        }
    }
}

fn unfinished() -> MutexGuard<'static, Vec<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on, unfinished files are removed before a signal ends the program. Must be called
/// before any thread is started, and only in a program that does not wait for signals itself.
pub(crate) fn remove_at_signals() {
    let set = ending_signals();
    if mask(libc::SIG_BLOCK, &set).is_err() {
        return;
    }
    let started = thread::Builder::new().name("dio-trace-signals".to_owned()).spawn(move || {
        let mut signal = 0;
        // SAFETY: the call reads a set and writes an integer, both in this frame.
        if unsafe { libc::sigwait(&raw const set, &raw mut signal) } == 0 {
            // The lock is held to the end, so that no file is created or named after this.
            let unfinished = unfinished();
            unfinished.iter().for_each(|path| drop(fs::remove_file(path)));
            let _ = mask(libc::SIG_UNBLOCK, &set);
            // SAFETY: the signal's disposition is the default, so this ends the process.
            unsafe { libc::raise(signal) };
        }
    });
    if started.is_err() {
        let _ = mask(libc::SIG_UNBLOCK, &set);
    }
}

/// The signals that would end the program. `nohup` and shells start programs with some ignored.
fn ending_signals() -> libc::sigset_t {
    // SAFETY: the set is emptied before anything is added; sigaction fills a struct for which all
    // zeroes is a valid value.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            let mut now: libc::sigaction = std::mem::zeroed();
            let asked = libc::sigaction(signal, std::ptr::null(), &raw mut now);
            if asked == 0 && now.sa_sigaction == libc::SIG_DFL {
                libc::sigaddset(&raw mut set, signal);
            }
        }
        set
    }
}

/// Changes the signal mask of this thread and of the threads that it starts.
fn mask(how: libc::c_int, set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: reads a valid set.
    match unsafe { libc::pthread_sigmask(how, set, std::ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// An output whose errors name it, so that they can be told from the errors of an input.
pub(crate) struct Named<W> {
    name: String,
    out: W,
}

impl<W> Named<W> {
    pub(crate) const fn new(name: String, out: W) -> Self {
        Self { name, out }
    }

    fn say(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("cannot write {}: {error}", self.name))
    }
}

impl<W: Write> Write for Named<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes).map_err(|error| self.say(&error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush().map_err(|error| self.say(&error))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A directory, a path in it, and the input that a file of that path is made from.
    fn target() -> (tempfile::TempDir, PathBuf, File) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        (folder, path, tempfile::tempfile().unwrap())
    }

    fn names(folder: &tempfile::TempDir) -> usize {
        fs::read_dir(folder.path()).unwrap().count()
    }

    #[test]
    fn a_file_has_its_name_when_it_is_complete() {
        let (folder, path, input) = target();
        let mut out = Whole::private(&path, false, &input).unwrap();
        out.write_all(b"whole").unwrap();
        assert!(!path.exists() && names(&folder) == 1);
        assert_eq!(unfinished().iter().filter(|path| path.starts_with(folder.path())).count(), 1);
        out.finish().unwrap();
        assert_eq!((fs::read(&path).unwrap(), names(&folder)), (b"whole".to_vec(), 1));
        assert!(!unfinished().iter().any(|path| path.starts_with(folder.path())));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
    }

    #[test]
    fn what_is_dropped_leaves_nothing() {
        let (folder, path, input) = target();
        Whole::private(&path, false, &input).unwrap().write_all(b"half").unwrap();
        drop(Whole::private(&path, false, &input).unwrap().close().unwrap());
        assert_eq!(names(&folder), 0);
        assert!(!unfinished().iter().any(|path| path.starts_with(folder.path())));
    }

    #[test]
    fn what_came_meanwhile_is_not_replaced_unasked() {
        let (folder, path, input) = target();
        let out = Whole::private(&path, false, &input).unwrap();
        fs::write(&path, "theirs").unwrap();
        let error = out.finish().unwrap_err().to_string();
        assert!(error.contains("already exists"), "{error}");
        assert_eq!((fs::read(&path).unwrap(), names(&folder)), (b"theirs".to_vec(), 1));
    }

    #[test]
    fn a_link_that_came_meanwhile_is_not_followed() {
        let (folder, path, input) = target();
        let target = folder.path().join("target");
        fs::write(&target, "theirs").unwrap();
        let mut out = Whole::private(&path, true, &input).unwrap();
        out.write_all(b"ours").unwrap();
        symlink(&target, &path).unwrap();
        out.finish().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"theirs");
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
    }

    #[test]
    fn a_fifo_is_refused_at_once() {
        let (_folder, path, input) = target();
        let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: a string that ends with a NUL.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        let said = |error: Error| format!("{error:#}");
        let refused = "is not a regular file";
        assert!(said(create(&path, true).unwrap_err()).contains(refused));
        assert!(said(Whole::private(&path, true, &input).err().unwrap()).contains(refused));
        assert!(said(Whole::shared(&path).err().unwrap()).contains(refused));
        assert!(said(stream(&path).unwrap_err()).contains("nobody reads"));
        let reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path);
        stream(&path).unwrap().write_all(b"line\n").unwrap();
        assert_eq!(io::read_to_string(reader.unwrap()).unwrap(), "line\n");
    }
}
