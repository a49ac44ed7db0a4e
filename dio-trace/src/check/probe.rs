//! Small requests that show what happens: reads of the file itself, writes to a file of our own
//! beside it, which has no name left while it is used.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
};

use dio_trace_common::verdict::Verdict;

use super::{
    cache::{dirtied, drop_pages, page, resident},
    subject::{Subject, What},
};
use crate::{
    enrich::{extent, flag, inode_flags},
    errno,
};

/// Bytes of a read: enough to tell pages of it from a neighbour's read-ahead.
const READ: usize = 64 << 10;
/// Bytes of a write: many more pages than CPUs hold back of the counter that shows them.
const WRITE: usize = 2 << 20;
/// Places of a file that are looked at for one that is not cached.
const PLACES: u64 = 64;
/// Writes compared with the system's counter: somebody else may write meanwhile.
const TRIES: usize = 3;

/// What was seen of one kind of access.
pub(super) enum Told {
    Proven {
        verdict: Verdict,
        how: String,
        /// What a refused or failed one ended with.
        errno: Option<i32>,
        /// O_DIRECT itself was refused.
        at_open: bool,
    },
    Nothing {
        why: String,
    },
}

impl Told {
    fn nothing(why: impl Into<String>) -> Self {
        Self::Nothing { why: why.into() }
    }

    fn proven(verdict: Verdict, how: String) -> Self {
        Self::Proven { verdict, how, errno: None, at_open: false }
    }

    /// What a new file like the subject tells, where the subject itself told nothing.
    fn or_of_new(self, new: Self) -> Self {
        match (self, new) {
            (Self::Nothing { why }, Self::Proven { verdict, how, errno, at_open }) => {
                let how = format!("{how}; of this one {why}");
                Self::Proven { verdict, how, errno, at_open }
            }
            (told, _) => told,
        }
    }

    /// An error of a request, or of opening.
    fn error(error: &io::Error, what: &str, at_open: bool) -> Self {
        let number = error.raw_os_error().unwrap_or(libc::EIO);
        let name = errno::name(i64::from(number));
        let verdict = match number {
            libc::EINVAL | libc::EOPNOTSUPP => Verdict::Refused,
            libc::ENOSPC | libc::EDQUOT | libc::EACCES | libc::EPERM | libc::EROFS => {
                return Self::nothing(format!("{what} ended with {name}"));
            }
            _ => Verdict::Failed,
        };
        let how = format!("{what} ended with {name}");
        Self::Proven { verdict, how, errno: Some(number), at_open }
    }
}

/// What was seen of every kind.
pub(super) struct Seen {
    pub(super) read: Told,
    pub(super) overwrite: Told,
    pub(super) extend: Told,
}

impl Seen {
    /// Nothing was done.
    pub(super) fn refrained() -> Self {
        let nothing = || Told::nothing("not tried (--no-probe)");
        Self { read: nothing(), overwrite: nothing(), extend: nothing() }
    }
}

/// Makes the requests.
pub(super) fn run(subject: &Subject) -> Seen {
    let own = subject.folder().filter(|_| subject.writable()).map(|folder| beside(subject, folder));
    let (read, overwrite, extend) = own.unwrap_or_else(|| {
        let why = if subject.is_device() { "a device is not written to" } else { "read-only" };
        (Told::nothing(why), Told::nothing(why), Told::nothing(why))
    });
    let read =
        if subject.what == What::Directory { read } else { read_itself(subject).or_of_new(read) };
    Seen { read, overwrite, extend }
}

/// Reads a part of the file that is not cached, and looks whether it is afterwards.
fn read_itself(subject: &Subject) -> Told {
    let file = match subject.open_direct() {
        Ok(file) => file,
        Err(error) => return Told::error(&error, "open with O_DIRECT", true),
    };
    if subject.size == 0 {
        return Told::nothing("the file is empty");
    }
    let unit = subject.unit();
    let len = READ.max(unit).min((subject.size as usize).next_multiple_of(unit));
    let last = subject.size.saturating_sub(len as u64) / unit as u64;
    let places = (0..PLACES).map(|i| last * i / PLACES * unit as u64);
    for offset in places {
        match resident(&file, offset, len) {
            None => return Told::nothing("who may not write the file may not ask what is cached"),
            Some(0) => return read_at(subject, &file, offset, len, ""),
            Some(_) => {}
        }
    }
    Told::nothing("all that was looked at is cached already")
}

fn read_at(subject: &Subject, file: &File, offset: u64, len: usize, whose: &str) -> Told {
    let size = size(file);
    let mut buffer = Aligned::new(len);
    let got = match file.read_at(buffer.bytes(), offset) {
        Ok(got) => got,
        Err(error) => return Told::error(&error, &format!("a read of {len} bytes"), false),
    };
    match resident(file, offset, len) {
        None => Told::nothing("the kernel does not say what is cached"),
        Some(0) => Told::proven(
            past_cache(subject),
            format!("{got} bytes read at {offset}{whose}: none is cached now"),
        ),
        // The kernel asks for the rest through the page cache; whose bytes these are is not to be seen
        // (mm/filemap.c:generic_file_read_iter).
        Some(_) if subject.is_client() && is_short(got, size, offset, len) => {
            Told::nothing(format!(
                "a read of {len} bytes at {offset}{whose} was answered with {got}, and the rest \
                 asked for through the page cache"
            ))
        }
        Some(pages) => Told::proven(
            through_cache(subject),
            format!("{got} bytes read at {offset}{whose}: {pages} pages are cached now"),
        ),
    }
}

/// Bytes of a file; the most if that is not to be known, as of one without a name on some servers.
/// To be asked before a read: FUSE takes a short answer for the new end of the file.
fn size(file: &File) -> u64 {
    file.metadata().map_or(u64::MAX, |about| about.len())
}

/// Fewer bytes than there are.
fn is_short(got: usize, size: u64, offset: u64, len: usize) -> bool {
    (got as u64) < size.saturating_sub(offset).min(len as u64)
}

/// Read, overwrite and extend, on a new file in the folder.
fn beside(subject: &Subject, folder: &Path) -> (Told, Told, Told) {
    let file = match temporary(folder) {
        Ok(file) => file,
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            let told = || Told::error(&error, "open of a new file with O_DIRECT", true);
            return (told(), told(), told());
        }
        Err(error) => {
            let name = errno::name(i64::from(error.raw_os_error().unwrap_or(0)));
            let told = || Told::nothing(format!("no file can be made in its folder: {name}"));
            return (told(), told(), told());
        }
    };
    let extend = write(subject, &file, "to new blocks", |try_| (try_ * WRITE) as u64);
    if drop_pages(&file).is_err() {
        let told = || Told::nothing("the new file could not be written back");
        return (told(), told(), extend);
    }
    let overwrite = write(subject, &file, "in place", |_| 0);
    let read = match drop_pages(&file) {
        Ok(()) => match resident(&file, 0, READ) {
            Some(0) => read_at(subject, &file, 0, READ, " of a new file beside it"),
            _ => Told::nothing("the new file's pages stay in the page cache"),
        },
        Err(_) => Told::nothing("the new file could not be written back"),
    };
    let told = || Told::nothing("a new file beside it has other attributes than this file");
    if !same_flags(subject, &file) {
        return (told(), told(), told());
    }
    // What is compressed or inline already says nothing of new blocks.
    let plain = subject.extents.is_none_or(|e| e & (extent::ENCODED | extent::INLINE) == 0);
    if plain { (read, overwrite, extend) } else { (told(), told(), extend) }
}

/// True if a new file is of the same kind as the subject.
fn same_flags(subject: &Subject, new: &File) -> bool {
    const TELLING: u32 = flag::COMPRESSED
        | flag::ENCRYPTED
        | flag::JOURNAL_DATA
        | flag::VERITY
        | flag::NOCOW
        | flag::INLINE_DATA
        | flag::EXTENTS;
    let telling = |flags: Option<u32>| flags.map(|flags| flags & TELLING);
    subject.what == What::Directory || telling(subject.facts().flags) == telling(inode_flags(new))
}

/// Writes, and looks for pages left behind and for pages that were dirty in between: a fallback
/// may be written back and dropped before the call returns.
fn write(subject: &Subject, file: &File, how: &str, at: impl Fn(usize) -> u64) -> Told {
    let pages = (WRITE / page()) as u64;
    // A daemon or server on this machine makes pages of its own dirty.
    let counts = !subject.is_client();
    let mut buffer = Aligned::new(WRITE);
    let mut least = u64::MAX;
    let mut left = 0;
    for try_ in 0..TRIES {
        let Some(before) = dirtied() else { return Told::nothing("no /proc/vmstat") };
        let wrote = match file.write_at(buffer.bytes(), at(try_)) {
            Ok(wrote) => wrote,
            Err(error) => return Told::error(&error, &format!("a write {how}"), false),
        };
        let after = dirtied().unwrap_or(before);
        left = resident(file, at(try_), WRITE).unwrap_or(0);
        least = least.min(after.saturating_sub(before));
        if wrote != WRITE {
            return Told::nothing(format!("a write {how} moved {wrote} of {WRITE} bytes"));
        }
        if left > 0 || least < pages / 2 || !counts {
            break;
        }
    }
    let did = format!("{pages} pages written {how} of a new file beside it");
    if left > 0 {
        return Told::proven(through_cache(subject), format!("{did}: {left} are cached now"));
    }
    if !counts {
        return Told::proven(past_cache(subject), format!("{did}: none is cached"));
    }
    if least < pages / 2 {
        return Told::proven(past_cache(subject), format!("{did}: none was dirty or is cached"));
    }
    Told::proven(
        through_cache(subject),
        format!("{did}: {least} pages of the system became dirty meanwhile, none stayed cached"),
    )
}

fn past_cache(subject: &Subject) -> Verdict {
    if subject.is_dax() {
        Verdict::Dax
    } else if subject.is_client() {
        Verdict::Client
    } else {
        Verdict::Direct
    }
}

/// On tmpfs the page cache is where the file lives.
fn through_cache(subject: &Subject) -> Verdict {
    if subject.is_memory() { Verdict::Memory } else { Verdict::Fallback }
}

/// A new file without a name, open with O_DIRECT.
fn temporary(folder: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE | libc::O_DIRECT);
    options.open(folder).or_else(|error| match error.raw_os_error() {
        // Not every file system has files without a name; EINVAL may mean that or O_DIRECT.
        Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL) => named(folder),
        _ => Err(error),
    })
}

fn named(folder: &Path) -> io::Result<File> {
    let path = folder.join(format!(".dio-trace-check-{}", std::process::id()));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_DIRECT | libc::O_NOFOLLOW)
        .open(&path);
    // A refused O_DIRECT leaves the file behind that it had made (fs/open.c:do_dentry_open).
    let made = file.is_ok() || file.as_ref().is_err_and(|e| e.raw_os_error() == Some(libc::EINVAL));
    if made {
        let _ = fs::remove_file(&path);
    }
    file
}

/// A buffer at an address that every device takes.
struct Aligned {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    fn new(len: usize) -> Self {
        const ALIGN: usize = 64 << 10;
        let memory = vec![0x5a; len + ALIGN];
        let start = memory.as_ptr().align_offset(ALIGN);
        Self { memory, start, len }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}
