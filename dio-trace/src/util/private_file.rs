//! Files that we make: for their owner alone, through no link, and over nothing unasked.
//!
//! A file that is whole or worthless (a table, a page) is a [`Whole`]: written beside its name and
//! renamed at the end. What is useful line by line is written in place: [`create`], [`stream`].

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

/// Only the owner may read what names other people's files.
const MODE: u32 = 0o600;
/// As the umask has it.
const SHARED_MODE: u32 = 0o666;

/// Temporary files that a signal must remove.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// True for `-`: stdin or stdout. A file of that name is `./-`.
#[must_use]
pub fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Creates a file that is only ever appended to; with `force` it may be there already.
///
/// # Errors
/// If it is there, is a symbolic link or not a regular file, or cannot be created.
pub fn create(path: &Path, force: bool) -> Result<File> {
    let mut options = OpenOptions::new();
    // Without O_NONBLOCK, a FIFO would wait for a reader before it could be refused.
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

/// Creates or empties a file, or opens a FIFO or device, for lines as they come.
///
/// # Errors
/// If it cannot be opened, or is a FIFO that nobody reads.
pub fn stream(path: &Path) -> Result<File> {
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

/// Undoes O_NONBLOCK, which was for the opening alone.
///
/// # Errors
/// Those of fcntl(2).
pub fn blocking(file: &File) -> io::Result<()> {
    // SAFETY: a descriptor that `file` keeps open; these commands take and give numbers.
    let set = unsafe {
        let flags = libc::fcntl(file.as_raw_fd(), libc::F_GETFL);
        libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags & !libc::O_NONBLOCK)
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn exists(path: &Path) -> Error {
    anyhow!("{} is there already: --force writes over it", escape::path(path))
}

fn link(path: &Path) -> Error {
    anyhow!("{} is a symbolic link: name the file itself (or - for stdout)", escape::path(path))
}

fn irregular(path: &Path) -> Error {
    anyhow!("{} is not a regular file: name another (or - for stdout)", escape::path(path))
}

/// A file that is there under its name once it is complete, and not before. What was there stays
/// until then. Dropped, or at a signal ([`remove_at_signals`]), it leaves nothing behind.
pub struct Whole {
    out: Named<File>,
    ready: Ready,
}

impl Whole {
    /// For its owner alone; with `force` in place of a file that is there. `input` is what it is
    /// made from, which it must not replace.
    ///
    /// # Errors
    /// If it is there, is a symbolic link or not a regular file, or cannot be created.
    pub fn private(path: &Path, force: bool, input: &File) -> Result<Self> {
        let input = input.metadata().map(|about| (about.dev(), about.ino())).ok();
        let there = fs::metadata(path).map(|about| (about.dev(), about.ino())).ok();
        let same = there.is_some() && there == input;
        ensure!(!same, "{} is the recording itself: name another file", escape::path(path));
        Self::new(path, force, MODE)
    }

    /// For whom the umask lets read it, in place of a file that is there.
    ///
    /// # Errors
    /// If that is a symbolic link or not a regular file, or it cannot be created.
    pub fn shared(path: &Path) -> Result<Self> {
        Self::new(path, true, SHARED_MODE)
    }

    fn new(path: &Path, force: bool, mode: u32) -> Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(_) if !force => bail!(exists(path)),
            Ok(there) if there.is_symlink() => bail!(link(path)),
            Ok(there) if !there.is_file() => bail!(irregular(path)),
            // What is wrong with the folder is said below.
            _ => {}
        }
        let shown = || format!("cannot create {}", escape::path(path));
        path.file_name().context("it has no file name").with_context(shown)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(mode);
        // Locked, so that a signal does not miss what is made meanwhile.
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

    /// Completes and closes it; it has its name once that is said, too.
    ///
    /// # Errors
    /// What the disk did not take, which some file systems say only now.
    pub fn close(self) -> Result<Ready> {
        let Self { out, ready } = self;
        out.out.sync_all().map_err(|error| out.say(&error))?;
        Ok(ready)
    }

    /// Completes it, under its name.
    ///
    /// # Errors
    /// Those of [`Whole::close`] and [`Ready::name`].
    pub fn finish(self) -> Result<()> {
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

/// A complete file that has not its name yet.
pub struct Ready {
    path: PathBuf,
    /// `None` once it has its name.
    temp: Option<TempPath>,
    force: bool,
}

impl Ready {
    /// Gives it its name, in one step.
    ///
    /// # Errors
    /// If something of that name came meanwhile, or the folder cannot be changed.
    pub fn name(mut self) -> Result<()> {
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

/// From here on a signal that ends the program removes unfinished files first. For a program that
/// waits for no signal itself, before it starts a thread.
pub fn remove_at_signals() {
    let set = ending_signals();
    if mask(libc::SIG_BLOCK, &set).is_err() {
        return;
    }
    let started = thread::Builder::new().name("dio-trace-signals".to_owned()).spawn(move || {
        let mut signal = 0;
        // SAFETY: the call reads a set and writes a number, both of this frame.
        if unsafe { libc::sigwait(&raw const set, &raw mut signal) } == 0 {
            // Kept, so that nothing is created or named behind this.
            let unfinished = unfinished();
            unfinished.iter().for_each(|path| drop(fs::remove_file(path)));
            let _ = mask(libc::SIG_UNBLOCK, &set);
            // SAFETY: its disposition is the default: it ends the process.
            unsafe { libc::raise(signal) };
        }
    });
    if started.is_err() {
        let _ = mask(libc::SIG_UNBLOCK, &set);
    }
}

/// Those that would end the program; `nohup` and shells have some ignored.
fn ending_signals() -> libc::sigset_t {
    // SAFETY: the set is made empty before anything is added; sigaction writes what it is asked for,
    // of which all zeroes is a value.
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

/// Of this thread, and those it starts.
fn mask(how: libc::c_int, set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: reads a set that is there.
    match unsafe { libc::pthread_sigmask(how, set, std::ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
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

    /// A folder, a name in it, and what a file of that name is made from.
    fn place() -> (tempfile::TempDir, PathBuf, File) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        (folder, path, tempfile::tempfile().unwrap())
    }

    fn names(folder: &tempfile::TempDir) -> usize {
        fs::read_dir(folder.path()).unwrap().count()
    }

    #[test]
    fn a_file_has_its_name_when_it_is_complete() {
        let (folder, path, input) = place();
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
        let (folder, path, input) = place();
        Whole::private(&path, false, &input).unwrap().write_all(b"half").unwrap();
        drop(Whole::private(&path, false, &input).unwrap().close().unwrap());
        assert_eq!(names(&folder), 0);
        assert!(!unfinished().iter().any(|path| path.starts_with(folder.path())));
    }

    #[test]
    fn what_came_meanwhile_is_not_replaced_unasked() {
        let (folder, path, input) = place();
        let out = Whole::private(&path, false, &input).unwrap();
        fs::write(&path, "theirs").unwrap();
        let error = out.finish().unwrap_err().to_string();
        assert!(error.contains("is there already"), "{error}");
        assert_eq!((fs::read(&path).unwrap(), names(&folder)), (b"theirs".to_vec(), 1));
    }

    #[test]
    fn a_link_that_came_meanwhile_is_not_followed() {
        let (folder, path, input) = place();
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
        let (_folder, path, input) = place();
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
