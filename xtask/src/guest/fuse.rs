//! A FUSE server: shows the files of one folder in another, in the ways that matter to a direct
//! request. It reads and writes them through the page cache.
use std::{
    collections::{HashMap, hash_map::Entry},
    ffi::{OsStr, OsString},
    fs::{self, File, Metadata},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, MetadataExt},
    },
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use clap::Args;
use fuser::{
    BackingId, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};

/// How long the kernel may keep names and attributes: nobody else changes them.
const KEEP: Duration = Duration::from_secs(60);

#[derive(Args, Clone, Debug)]
pub(crate) struct FuseServerArgs {
    /// FOPEN_DIRECT_IO: the kernel caches nothing of a file
    #[arg(long)]
    direct_io: bool,
    /// Answers a read with this many bytes at most
    #[arg(long, value_name = "N")]
    short: Option<u32>,
    /// FUSE_WRITEBACK_CACHE: the kernel keeps buffered writes
    #[arg(long)]
    writeback: bool,
    /// FUSE_PASSTHROUGH (6.9): the kernel reads and writes the file below by itself
    #[arg(long)]
    passthrough: bool,
    /// The folder
    from: PathBuf,
    /// Where it is shown
    to: PathBuf,
}

pub(super) fn main(args: &FuseServerArgs) -> Result<()> {
    let mut config = Config::default();
    config.mount_options =
        vec![MountOption::FSName("dio-trace".to_owned()), MountOption::DefaultPermissions];
    let server = Server { args: args.clone(), state: Mutex::default() };
    fuser::mount(server, &args.to, &config)
        .with_context(|| format!("cannot serve {}", args.to.display()))
}

struct Server {
    args: FuseServerArgs,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Numbers are given once: a new file is never taken for an old one.
    last: u64,
    names: HashMap<OsString, u64>,
    nodes: HashMap<u64, OsString>,
    open: HashMap<u64, Arc<File>>,
    /// One per file that is open for passthrough, with its users.
    backing: HashMap<u64, (Arc<BackingId>, usize)>,
}

impl State {
    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last + INodeNo::ROOT.0
    }

    fn node(&mut self, name: &OsStr) -> u64 {
        if let Some(node) = self.names.get(name) {
            return *node;
        }
        let node = self.number();
        self.names.insert(name.to_owned(), node);
        self.nodes.insert(node, name.to_owned());
        node
    }

    fn opened(&mut self, file: File) -> u64 {
        let handle = self.number();
        self.open.insert(handle, Arc::new(file));
        handle
    }

    /// The backing file of a node, made by the first who opens it.
    fn backing(
        &mut self,
        node: u64,
        make: impl FnOnce() -> io::Result<BackingId>,
    ) -> io::Result<Arc<BackingId>> {
        let (backing, users) = match self.backing.entry(node) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert((Arc::new(make()?), 0)),
        };
        *users += 1;
        Ok(Arc::clone(backing))
    }

    fn closed(&mut self, node: u64, handle: u64) {
        self.open.remove(&handle);
        if let Some((_, users)) = self.backing.get_mut(&node) {
            *users -= 1;
            if *users == 0 {
                self.backing.remove(&node);
            }
        }
    }
}

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        // What a panic left behind is no worse for a server of test files.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, node: INodeNo) -> io::Result<PathBuf> {
        if node == INodeNo::ROOT {
            return Ok(self.args.from.clone());
        }
        let name = self.state().nodes.get(&node.0).cloned().ok_or_else(gone)?;
        Ok(self.args.from.join(name))
    }

    fn file(&self, handle: FileHandle) -> io::Result<Arc<File>> {
        self.state().open.get(&handle.0).cloned().ok_or_else(gone)
    }

    fn about(&self, node: INodeNo, handle: Option<FileHandle>) -> io::Result<FileAttr> {
        let about = match handle {
            Some(handle) => self.file(handle)?.metadata()?,
            None => self.path(node)?.metadata()?,
        };
        Ok(attributes(node, &about))
    }

    fn flags(&self) -> FopenFlags {
        if self.args.direct_io { FopenFlags::FOPEN_DIRECT_IO } else { FopenFlags::empty() }
    }
}

fn attributes(node: INodeNo, about: &Metadata) -> FileAttr {
    let time = |time: io::Result<SystemTime>| time.unwrap_or(SystemTime::UNIX_EPOCH);
    FileAttr {
        ino: node,
        size: about.size(),
        blocks: about.blocks(),
        atime: time(about.accessed()),
        mtime: time(about.modified()),
        ctime: time(about.modified()),
        crtime: SystemTime::UNIX_EPOCH,
        kind: if about.is_dir() { FileType::Directory } else { FileType::RegularFile },
        perm: (about.mode() & 0o7777) as u16,
        nlink: 1,
        uid: about.uid(),
        gid: about.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn gone() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOENT)
}

/// The kernel cannot do what was asked for.
fn unable() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOSYS)
}

/// Read-only where more is not allowed.
fn open(path: &PathBuf) -> io::Result<File> {
    File::options().read(true).write(true).open(path).or_else(|_| File::open(path))
}

/// Sends what was made of a request, or its error.
macro_rules! answer {
    ($reply:ident, $result:expr, $good:expr) => {
        match $result {
            Ok(value) => $good(value),
            Err(error) => $reply.error(Errno::from(error)),
        }
    };
}

impl Filesystem for Server {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let mut add = |flags| config.add_capabilities(flags).map_err(|_| unable());
        // As libfuse does.
        add(InitFlags::FUSE_ASYNC_DIO)?;
        if self.args.writeback {
            add(InitFlags::FUSE_WRITEBACK_CACHE)?;
        }
        if self.args.passthrough {
            add(InitFlags::FUSE_PASSTHROUGH)?;
            config.set_max_stack_depth(1).map_err(|_| unable())?;
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = || {
            let about = self.args.from.join(name).metadata()?;
            Ok::<_, io::Error>(attributes(INodeNo(self.state().node(name)), &about))
        };
        answer!(reply, found(), |found| reply.entry(&KEEP, &found, Generation(0)));
    }

    fn getattr(&self, _: &Request, node: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        answer!(reply, self.about(node, handle), |about| reply.attr(&KEEP, &about));
    }

    fn setattr(
        &self,
        _: &Request,
        node: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = || {
            if let Some(size) = size {
                match handle {
                    Some(handle) => self.file(handle)?.set_len(size)?,
                    None => open(&self.path(node)?)?.set_len(size)?,
                }
            }
            self.about(node, handle)
        };
        answer!(reply, set(), |about| reply.attr(&KEEP, &about));
    }

    fn unlink(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let remove = || {
            fs::remove_file(self.args.from.join(name))?;
            let mut state = self.state();
            if let Some(node) = state.names.remove(name) {
                state.nodes.remove(&node);
            }
            Ok::<_, io::Error>(())
        };
        answer!(reply, remove(), |()| reply.ok());
    }

    fn open(&self, _: &Request, node: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let opened = || {
            let file = open(&self.path(node)?)?;
            let mut state = self.state();
            let backing = match self.args.passthrough {
                true => Some(state.backing(node.0, || reply.open_backing(&file))?),
                false => None,
            };
            Ok::<_, io::Error>((FileHandle(state.opened(file)), backing))
        };
        answer!(reply, opened(), |(handle, backing): (_, Option<Arc<BackingId>>)| match backing {
            Some(backing) => reply.opened_passthrough(handle, self.flags(), &backing),
            None => reply.opened(handle, self.flags()),
        });
    }

    fn create(
        &self,
        _: &Request,
        _: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let created = || {
            let path = self.args.from.join(name);
            let file =
                File::options().read(true).write(true).create(true).truncate(true).open(path)?;
            let mut state = self.state();
            let node = state.node(name);
            let about = attributes(INodeNo(node), &file.metadata()?);
            let backing = match self.args.passthrough {
                true => Some(state.backing(node, || reply.open_backing(&file))?),
                false => None,
            };
            Ok::<_, io::Error>((about, FileHandle(state.opened(file)), backing))
        };
        type Created = (FileAttr, FileHandle, Option<Arc<BackingId>>);
        answer!(reply, created(), |(about, handle, backing): Created| {
            let (first, flags) = (Generation(0), self.flags());
            match backing {
                Some(id) => reply.created_passthrough(&KEEP, &about, first, handle, flags, &id),
                None => reply.created(&KEEP, &about, first, handle, flags),
            }
        });
    }

    fn read(
        &self,
        _: &Request,
        _node: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = || {
            let file = self.file(handle)?;
            let mut bytes = vec![0; size.min(self.args.short.unwrap_or(size)) as usize];
            let mut filled = 0;
            while filled < bytes.len() {
                match file.read_at(&mut bytes[filled..], offset + filled as u64)? {
                    0 => break,
                    more => filled += more,
                }
            }
            bytes.truncate(filled);
            Ok::<_, io::Error>(bytes)
        };
        answer!(reply, read(), |bytes: Vec<u8>| reply.data(&bytes));
    }

    fn write(
        &self,
        _: &Request,
        _node: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let write = || self.file(handle)?.write_all_at(data, offset);
        answer!(reply, write(), |()| reply.written(data.len() as u32));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        let sync = || self.file(handle)?.sync_all();
        answer!(reply, sync(), |()| reply.ok());
    }

    fn fallocate(
        &self,
        _: &Request,
        _node: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let allocate = || {
            let file = self.file(handle)?;
            let (from, length) = (offset as libc::off_t, length as libc::off_t);
            // SAFETY: no memory is involved.
            let done = unsafe { libc::fallocate(file.as_raw_fd(), mode, from, length) };
            if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
        };
        answer!(reply, allocate(), |()| reply.ok());
    }

    fn release(
        &self,
        _: &Request,
        node: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.state().closed(node.0, handle.0);
        reply.ok();
    }
}
