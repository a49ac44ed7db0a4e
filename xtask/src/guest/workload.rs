//! The program that the suite traces: it makes each cell's request once and keeps its own tally.
//!
//! It prepares all files, prints `ready` on stdout, waits for a line on stdin, makes the requests
//! one after the other, and writes the tally. Only the cells' requests use O_DIRECT.
use std::{
    ffi::CString,
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, FromRawFd, RawFd},
        unix::{
            ffi::OsStrExt,
            fs::{FileExt, FileTypeExt},
        },
    },
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use clap::Args;

use crate::guest::{
    direct_io::{
        files::{drop_pages, unwritten},
        memory::{Buffer, Map},
        request::{Apis, Call},
    },
    fixtures,
    harness::wait_for_go,
    matrix::{
        cases::{self, Cache, Case, Content, Cut, Open},
        cells::{self, Cell},
        files::{fill, make_file},
    },
    tally::Entry,
};

const PAGE: usize = 4096;
/// Bytes of a block device that are filled, and whose residency in the page cache is measured.
const MOST: u64 = 1 << 20;

#[derive(Args, Clone, Debug)]
pub(crate) struct WorkloadArgs {
    /// The kernel series, which chooses the scenarios' column
    #[arg(long)]
    pub(crate) series: String,
    /// SETUP:PATH, where PATH is a folder, a device or a file
    #[arg(long, required = true)]
    pub(crate) place: Vec<String>,
    /// File to write the tally to
    #[arg(long)]
    pub(crate) tally: PathBuf,
    /// Delete each file right after its request
    #[arg(long)]
    pub(crate) delete: bool,
}

pub(crate) fn main(args: &WorkloadArgs) -> Result<()> {
    allow_many_files()?;
    let mut prepared = Vec::new();
    for place in &args.place {
        let (name, path) = place.split_once(':').context("--place is SETUP:PATH")?;
        let setup = fixtures::find(name)?;
        let cells = cells::load(setup.name, setup.rows, &args.series)?;
        prepared.extend(prepare(cells, Path::new(path), setup.cloned)?);
    }
    settle()?;
    let (mut apis, mut kept) = (Apis::new()?, Vec::new());
    wait_for_go()?;
    let make = |ready: Prepared| {
        let entry = ready.run(&mut apis)?;
        if args.delete && ready.how == Holds::Files {
            fs::remove_file(&ready.path).context("cannot delete a file")?;
            return Ok(entry); // closes it
        }
        kept.push(ready);
        Ok(entry)
    };
    let tally: Result<Vec<Entry>> = prepared.into_iter().map(make).collect();
    let text = serde_json::to_vec(&tally?)?;
    fs::write(&args.tally, text).context("cannot write the tally")
}

/// Writes back all dirty pages and drops the page cache.
///
/// After fsync(2) an inode stays on the list of dirty inodes, dated by its first write (fsync(2)
/// leaves I_DIRTY_PAGES to __writeback_single_inode, fs/fs-writeback.c). Without this sync, the
/// kernel's periodic writeback could take such an inode for old enough and write back pages that a
/// case has dirtied only just before.
fn settle() -> Result<()> {
    // SAFETY: no memory is involved.
    unsafe { libc::sync() };
    fs::write("/proc/sys/vm/drop_caches", "3").context("cannot drop the page cache")
}

/// Raises the limit of open files: every cell keeps a descriptor.
fn allow_many_files() -> Result<()> {
    let limit = libc::rlimit { rlim_cur: 65_536, rlim_max: 65_536 };
    // SAFETY: reads one struct.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } < 0 {
        return Err(io::Error::last_os_error()).context("cannot raise the limit of open files");
    }
    Ok(())
}

struct Prepared {
    cell: Cell,
    case: &'static Case,
    path: PathBuf,
    /// Stays open because a block device drops its page cache at the last close, which would undo
    /// the state that the cell needs.
    file: File,
    how: Holds,
}

/// What a place is, which decides how its cells are prepared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// An empty folder.
    Files,
    /// A read-only folder that already has the cells' files.
    Image,
    /// One block device for all cells.
    Device,
    /// One file for all cells, which the fixture made.
    File,
}

impl Holds {
    fn of(place: &Path) -> Result<Self> {
        let about = place.metadata().with_context(|| format!("no {}", place.display()))?;
        Ok(if about.file_type().is_block_device() {
            Self::Device
        } else if about.is_file() {
            Self::File
        } else if is_read_only(place)? {
            Self::Image
        } else {
            Self::Files
        })
    }

    /// Whether all cells share one file or device.
    const fn one(self) -> bool {
        matches!(self, Self::Device | Self::File)
    }
}

fn is_read_only(place: &Path) -> Result<bool> {
    let name = CString::new(place.as_os_str().as_bytes())?;
    // SAFETY: all zeroes are a statvfs.
    let mut about: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the name is NUL-terminated, and there is room for the answer.
    if unsafe { libc::statvfs(name.as_ptr(), &raw mut about) } < 0 {
        return Err(io::Error::last_os_error()).context("statvfs");
    }
    Ok(about.f_flag & libc::ST_RDONLY != 0)
}

fn prepare(cells: Vec<Cell>, place: &Path, cloned: bool) -> Result<Vec<Prepared>> {
    let how = Holds::of(place)?;
    let mut all = Vec::new();
    for cell in cells {
        let case = cases::find(cell.case)?;
        let path = if how.one() { place.to_owned() } else { place.join(cell.name()) };
        if how == Holds::Files {
            make_file(&path, case)?;
            if cloned && case.content == cases::FULL {
                clone(&path, &path.with_file_name(format!("{}.clone", cell.name())))?;
            }
        }
        let file = File::options().read(true).write(how != Holds::Image).open(&path);
        let file = file.with_context(|| format!("cannot open {}", path.display()))?;
        if how == Holds::Device {
            fill(&file, Content::Bytes(MOST)).context("cannot fill the device")?;
            file.sync_all()?;
        }
        all.push(Prepared { cell, case, path, file, how });
    }
    Ok(all)
}

/// A second file that shares all extents (FICLONE, include/uapi/linux/fs.h).
fn clone(file: &Path, path: &Path) -> Result<()> {
    const FICLONE: libc::c_ulong = 0x4004_9409;
    let (file, twin) = (File::open(file)?, File::create(path)?);
    // SAFETY: two descriptors, no memory.
    if unsafe { libc::ioctl(twin.as_raw_fd(), FICLONE as _, file.as_raw_fd()) } < 0 {
        return Err(io::Error::last_os_error()).context("cannot clone the file");
    }
    Ok(())
}

impl Prepared {
    fn run(&self, apis: &mut Apis) -> Result<Entry> {
        let shown = || format!("{} on {}", self.cell.name(), self.path.display());
        self.set_cache().with_context(|| format!("cannot set up the cache for {}", shown()))?;
        let (mut entry, mapped) = (self.entry(), Map::new(&self.file, self.end()?)?);
        if self.case.cache == Cache::Mapped {
            mapped.touch(self.cell.offset as usize, self.cell.len);
        }
        entry.pages = mapped.pages(self.cell.offset, self.cell.len).len() as u64;
        let storage = storage_read()?;
        entry.begin = now();
        let direct = match open(&self.path, self.case, self.cell.writes()) {
            Ok(file) => file,
            Err((stage, errno)) => {
                entry.end = now();
                stage.clone_into(&mut entry.stage);
                entry.result = -i64::from(errno);
                return Ok(entry);
            }
        };
        self.keep_dirty().with_context(|| format!("cannot set up the cache for {}", shown()))?;
        // Measured after the open: opening a file on FUSE drops its cached pages.
        entry.before = mapped.resident(self.cell.offset, self.cell.len)?;
        let mut buffer = Buffer::new(self.cell.off_by + self.cell.len)?;
        let cut = match self.case.cut {
            Cut::Nowhere => 0,
            Cut::At(at) => at,
            Cut::Half => self.cell.len / 2,
        };
        let call = Call {
            write: self.cell.writes(),
            fd: direct.as_raw_fd(),
            buffer: buffer.at(self.cell.off_by),
            len: self.cell.len,
            offset: self.cell.offset,
            cut,
            flags: self.case.flags,
        };
        let made = apis.make(self.cell.api, &call).with_context(shown)?;
        (entry.pid, entry.result, entry.end) = (made.pid, made.result, now());
        entry.storage = storage_read()? - storage;
        entry.after = mapped.resident(self.cell.offset, self.cell.len)?;
        Ok(entry)
    }

    fn entry(&self) -> Entry {
        Entry {
            setup: self.cell.setup.to_owned(),
            cell: self.cell.name(),
            path: self.path.clone(),
            pid: std::process::id(),
            stage: "call".to_owned(),
            result: 0,
            begin: 0,
            end: 0,
            before: 0,
            after: 0,
            pages: 0,
            storage: 0,
        }
    }

    /// The end of the file, or of the part of the device that is used, in bytes.
    fn end(&self) -> Result<u64> {
        let asked = self.cell.offset as u64 + self.cell.len as u64;
        Ok(match self.how {
            Holds::Device => MOST.max(asked),
            _ => self.file.metadata()?.len(),
        })
    }

    /// Makes the pages dirty again if the request must find dirty pages and the kernel has written
    /// them back in the meantime.
    fn keep_dirty(&self) -> io::Result<()> {
        const TRIES: u32 = 5;
        let written = || unwritten(&self.file, self.cell.offset, self.cell.len) == Some(0);
        for _ in 0..TRIES {
            if !self.cell.flushes() || !written() {
                break;
            }
            self.set_cache()?;
        }
        Ok(())
    }

    /// Brings the request's range into the page cache state of the case.
    fn set_cache(&self) -> io::Result<()> {
        let (offset, len) = (self.cell.offset as u64, self.cell.len);
        if self.how.one() {
            // The previous cell may have left cached pages.
            drop_pages(&self.file)?;
        }
        // No read-ahead: only the pages that the case names may be cached.
        // SAFETY: no memory is involved.
        unsafe { libc::posix_fadvise(self.file.as_raw_fd(), 0, 0, libc::POSIX_FADV_RANDOM) };
        let mut bytes = vec![b'x'; len];
        match self.case.cache {
            Cache::Nothing | Cache::Mapped => Ok(()),
            Cache::Dirty => {
                let end = self.file.metadata()?.len();
                let device = self.how == Holds::Device;
                let used = if device { len } else { (end - offset).min(len as u64) as usize };
                self.file.write_all_at(&bytes[..used], offset)
            }
            Cache::Clean => self.file.read_at(&mut bytes, offset).map(drop),
            Cache::OnePage => self.file.read_at(&mut bytes[..PAGE], offset).map(drop),
        }
    }
}

/// Opens the file for the request. On failure: the system call that failed (`open` or `fcntl`) and
/// its errno.
fn open(path: &Path, case: &Case, write: bool) -> Result<File, (&'static str, i32)> {
    let errno = || io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| ("open", libc::EINVAL))?;
    let direct = if case.open == Open::Direct { libc::O_DIRECT } else { 0 };
    let mode = if write { libc::O_RDWR } else { libc::O_RDONLY };
    let flags = mode | libc::O_CLOEXEC | direct | case.also;
    // SAFETY: the name is NUL-terminated.
    let fd: RawFd = unsafe { libc::open(name.as_ptr(), flags) };
    if fd < 0 {
        return Err(("open", errno()));
    }
    // SAFETY: just opened, and owned by nothing else.
    let file = unsafe { File::from_raw_fd(fd) };
    // SAFETY: no memory is involved.
    if case.open == Open::Setfl && unsafe { libc::fcntl(fd, libc::F_SETFL, libc::O_DIRECT) } < 0 {
        return Err(("fcntl", errno()));
    }
    Ok(file)
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// `read_bytes` of this process: the bytes that the kernel read from storage for it.
fn storage_read() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/io").context("no /proc/self/io")?;
    let line = text.lines().find_map(|line| line.strip_prefix("read_bytes: "));
    line.and_then(|number| number.parse().ok()).context("/proc/self/io has no read_bytes")
}
