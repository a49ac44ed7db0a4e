//! The demonstration: a program whose O_DIRECT reads are not all direct, and dio-trace attached to
//! it.
use std::{
    fs::{self, File},
    io::Write,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Args;

use crate::{
    guest::{
        direct_io::request::{Apis, Call},
        fixtures::{self, Setup},
        matrix::cells::Cell,
    },
    host::cmd::say,
};

#[derive(Args, Clone, Debug)]
pub(crate) struct DemoArgs {
    /// Path of the dio-trace binary
    #[arg(long)]
    tool: PathBuf,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ReaderArgs {
    /// Folders with table.db and wal.log
    folder: Vec<PathBuf>,
}

/// Seconds that dio-trace traces.
const WATCH: &str = "4";
const PAGE: usize = 4096;
/// Bytes of wal.log, which ends in the middle of a block.
const CUT: u64 = 10_000;

pub(crate) fn main(args: &DemoArgs) -> Result<u8> {
    say("making an ext4 with data=journal, an xfs and a btrfs with compression");
    let wanted: Vec<(&Setup, Vec<Cell>)> = ["ext4-journal", "xfs-512", "btrfs-zstd"]
        .iter()
        .map(|name| fixtures::find(name).map(|setup| (setup, Vec::new())))
        .collect::<Result<_>>()?;
    let mut folders = Vec::new();
    for (place, _) in fixtures::make(wanted, Path::new("/mnt"))? {
        fill(&place.path)?;
        folders.push(place.path);
    }
    let mut reader = start_reader(&folders)?;
    let pid = reader.id().to_string();
    println!("\n$ pgrep -a dbreader\n{pid} dbreader {}", shown(&folders));
    println!("$ sudo dio-trace attach -p {pid} -d {WATCH}");
    std::io::stdout().flush()?;
    let status = Command::new(&args.tool)
        .args(["attach", "-p", &pid, "-d", WATCH])
        .env("COLUMNS", "80")
        .status()
        .context("cannot start dio-trace");
    // The reader is our child and still running: it reads until it is killed.
    let ended = reader.kill().and_then(|()| reader.wait());
    let status = status?;
    ended.context("cannot end the reader")?;
    Ok(u8::from(!status.success()))
}

fn shown(folders: &[PathBuf]) -> String {
    folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(" ")
}

/// Makes a table that compresses well, and a log that ends in the middle of a block.
pub(crate) fn fill(folder: &Path) -> Result<()> {
    for (name, len) in [("table.db", 256 << 10), ("wal.log", CUT)] {
        let path = folder.join(name);
        let mut file =
            File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        file.write_all(&vec![b'.'; len as usize])?;
        file.sync_all()?;
    }
    Ok(())
}

/// Starts this program under another name, so that the screen shows something like a database.
pub(crate) fn start_reader(folders: &[PathBuf]) -> Result<Child> {
    let me = std::env::current_exe().context("xtask cannot find itself")?;
    let name = "/tmp/dbreader";
    fs::copy(&me, name).context("cannot copy xtask")?;
    Command::new(name)
        .args(["guest", "demo-reader"])
        .args(folders)
        .stdin(Stdio::null())
        .spawn()
        .context("cannot start the reader")
}

/// Reads until it is killed.
pub(crate) fn reader(args: &ReaderArgs) -> Result<()> {
    let mut apis = Apis::new()?;
    let open = |folder: &PathBuf, name: &str| {
        let path = folder.join(name);
        File::options()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))
    };
    let tables: Vec<File> =
        args.folder.iter().map(|folder| open(folder, "table.db")).collect::<Result<_>>()?;
    let xfs = args.folder.iter().find(|folder| folder.ends_with("xfs-512"));
    let log = xfs.map(|folder| open(folder, "wal.log")).transpose()?;
    let mut memory = vec![0_u8; 3 * PAGE];
    let skip = memory.as_ptr().align_offset(PAGE);
    for round in 0.. {
        let block = round % 64;
        for table in &tables {
            for api in ["pread", "uring"] {
                let read = Call {
                    write: false,
                    fd: table.as_raw_fd(),
                    buffer: memory[skip..].as_mut_ptr(),
                    len: PAGE,
                    offset: block * PAGE as i64,
                    cut: 0,
                    flags: 0,
                };
                apis.make(api, &read)?;
            }
        }
        if let Some(log) = &log {
            // The last block, which the file fills only in part.
            let tail = CUT / PAGE as u64 * PAGE as u64;
            // The result is ignored: dio-trace reports it.
            let _ = log.read_at(&mut memory[skip..skip + PAGE], tail);
            // A record at an offset that is not a multiple of a sector.
            let _ = log.read_at(&mut memory[skip..skip + PAGE], 100);
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
