//! dio-trace must not keep in use what it traced: while `audit` still runs, file systems, devices
//! and modules can be unmounted, detached and removed at once, and the space of deleted files is
//! freed.
use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileExt as _, FileTypeExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    guest::{
        direct_io::memory::Buffer,
        fixtures::{Place, mount},
        harness::{Traces, Tried, requests, stop, wait_until_tracing},
        scenarios::stacks::read_known,
    },
    host::cmd::{self, say, text},
};

/// The number of runs of dio-trace.
pub(crate) const RUNS: u64 = 1;
pub(crate) const SETUPS: &[&str] = &[
    "ext4-512",
    "ext4-encrypt",
    "xfs-512",
    "btrfs",
    "f2fs",
    "overlay-ext4",
    "loop-dio",
    "dm-linear",
];
/// Bytes of the file that is deleted.
const BIG: u64 = 100 << 20;
const PAGE: usize = 4096;
/// How long the program stays, so that dio-trace can look up its functions.
const LINGER: Duration = Duration::from_millis(500);
/// Limit for a file system to free a deleted file's space, and for dio-trace to handle the events
/// in the ring.
const PATIENCE: Duration = Duration::from_secs(20);
const MODULES: &[&str] = &["xfs", "btrfs", "f2fs", "ext4", "loop", "dm_mod"];

#[derive(Args, Clone, Debug)]
pub(crate) struct ReleasedUserArgs {
    /// A folder to make a file of 100 MiB in, or a file or device to read
    path: PathBuf,
}

/// The program: uses a file with O_DIRECT, also with requests that are findings, from functions
/// whose names are known.
pub(crate) fn user(args: &ReleasedUserArgs) -> Result<()> {
    let is_folder = args.path.is_dir();
    let path = if is_folder { args.path.join("big") } else { args.path.clone() };
    let mut options = File::options();
    options.read(true).write(is_folder).create(is_folder).custom_flags(libc::O_DIRECT);
    let file = options.open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut buffer = Buffer::new(PAGE)?;
    if is_folder {
        // SAFETY: no memory is involved.
        let failed = unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, BIG as i64) };
        if failed != 0 {
            return Err(io::Error::from_raw_os_error(failed)).context("fallocate");
        }
        file.write_all_at(buffer.bytes(), 0)?;
    }
    // Refused on some file systems, through the page cache on others: a request either way.
    for len in [PAGE - 1, PAGE] {
        let _ = read_known(&file, &mut buffer, len);
    }
    thread::sleep(LINGER);
    Ok(())
}

/// Uses and removes the fixtures while dio-trace runs; returns the mismatches.
pub(crate) fn check(tried: &Tried, places: &[Place], out: &Path) -> Result<Vec<String>> {
    let traces = Traces::new(out, "released");
    let mut tool = Command::new(&tried.tool)
        .args(["audit", "--all", "--stack", "--json", "--attach", &tried.attach])
        .args(["-o", text(&traces.json)?])
        .stderr(File::create(&traces.talk)?)
        .spawn()
        .context("cannot start dio-trace")?;
    wait_until_tracing(&mut tool, &traces)?;
    let mut tracer = Tracer { child: tool, traces, wrong: Vec::new() };
    let mut removed = Vec::new();
    let result = tracer.all(places).map(|()| removed = tracer.modules());
    let (result, Tracer { child, traces, mut wrong }) = (result, tracer);
    stop(child, &traces)?;
    result?;
    wrong.extend(only_tracer_used(&removed));
    for module in MODULES {
        let _ = cmd::output(Command::new("modprobe").args(["-q", module]));
    }
    Ok(wrong)
}

struct Tracer {
    child: Child,
    traces: Traces,
    wrong: Vec<String>,
}

impl Tracer {
    fn all(&mut self, places: &[Place]) -> Result<()> {
        self.verity(&places[0].path)?;
        for place in places {
            let path = &place.path;
            self.used(path, place.setup.name)?;
            if fs::metadata(path)?.file_type().is_block_device() {
                self.device(place)?;
            } else {
                self.deleted(path, place.setup.name)?;
            }
            let folder = Path::new(crate::guest::fixtures::ROOT).join(place.setup.name);
            self.unmounted(&folder)?;
        }
        Ok(())
    }

    /// Runs a program that uses this file system (and lies on it) or device, and waits until
    /// dio-trace has reported its requests.
    fn used(&mut self, path: &Path, what: &str) -> Result<()> {
        say(format!("released: {what}"));
        let me = std::env::current_exe().context("xtask cannot find itself")?;
        let own = path.join("program");
        let program = if path.is_dir() { &own } else { &me };
        if path.is_dir() {
            fs::copy(&me, &own).context("cannot copy the program")?;
        }
        let mut child = Command::new(program)
            .args(["guest", "released-user", text(path)?])
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let pid = child.id();
        if !child.wait()?.success() {
            bail!("{what}: the program failed");
        }
        let reported = || {
            let json = fs::read_to_string(&self.traces.json).unwrap_or_default();
            requests::<Reported>(&json).is_ok_and(|all| all.iter().any(|one| one.pid == pid))
        };
        if !within(PATIENCE, reported) {
            self.wrong.push(format!("{what}: process {pid} was not reported"));
        }
        // Its last request must be reported too.
        thread::sleep(Duration::from_millis(300));
        Ok(())
    }

    /// Checks that a deleted file's space is freed.
    fn deleted(&mut self, folder: &Path, what: &str) -> Result<()> {
        sync(); // btrfs counts allocated space only once it is on disk
        let before = free(folder)?;
        for name in ["big", "program"] {
            fs::remove_file(folder.join(name))?;
        }
        let enough = before + BIG * 9 / 10;
        let freed = within(PATIENCE, || {
            sync();
            free(folder).is_ok_and(|now| now >= enough)
        });
        if !freed {
            let freed = free(folder)?.saturating_sub(before);
            self.wrong
                .push(format!("{what}: only {freed} bytes of a deleted file of {BIG} were freed"));
        }
        Ok(())
    }

    /// Checks that a folder and its lower file system can be unmounted at once.
    fn unmounted(&mut self, folder: &Path) -> Result<()> {
        let below = PathBuf::from(format!("{}.below", folder.display()));
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
        let ours: Vec<&Path> = points.filter(|point| *point == folder || *point == below).collect();
        for point in ours.iter().rev() {
            self.holds_nothing(point)?;
            self.at_once("umount", &[text(point)?]);
        }
        Ok(())
    }

    /// Checks that a device can be detached at once.
    fn device(&mut self, place: &Place) -> Result<()> {
        self.holds_nothing(&place.path)?;
        if place.setup.name.starts_with("dm-") {
            self.at_once("dmsetup", &["remove", place.setup.name]);
            return Ok(());
        }
        self.detached(&place.path)
    }

    fn detached(&mut self, device: &Path) -> Result<()> {
        self.at_once("losetup", &["-d", text(device)?]);
        // For a device in use, losetup defers the detachment to the last close and reports success.
        let name = device.file_name().context("a device without a name")?;
        if Path::new("/sys/block").join(name).join("loop/backing_file").exists() {
            self.wrong.push(format!("losetup -d {}: still attached", device.display()));
        }
        Ok(())
    }

    /// Uses a file with fs-verity, on a loop device on a file of this folder.
    fn verity(&mut self, folder: &Path) -> Result<()> {
        let (image, point) = (folder.join("image"), folder.join("verity"));
        File::create(&image)?.set_len(200 << 20)?;
        let make = ["-q", "-F", "-b", "4096", "-O", "verity", text(&image)?];
        cmd::output(Command::new("mkfs.ext4").args(make))?;
        let device = cmd::output(Command::new("losetup").args(["--find", "--show"]).arg(&image))?;
        let device = Path::new(device.trim());
        mount(&["-t", "ext4", text(device)?], &point)?;
        let file = point.join("sealed.file");
        crate::guest::direct_io::files::fill(&file, 4 * PAGE)?;
        seal(&file)?;
        self.used(&file, "ext4 with fs-verity")?;
        self.unmounted(&point)?;
        self.detached(device)?;
        Ok(fs::remove_file(&image)?)
    }

    /// Checks that neither a descriptor nor a mapping of dio-trace refers to the path.
    fn holds_nothing(&mut self, path: &Path) -> Result<()> {
        let own = format!("/proc/{}", self.child.id());
        let path = text(path)?;
        let fds = fs::read_dir(format!("{own}/fd"))?.flatten();
        let links = fds.filter_map(|fd| fs::read_link(fd.path()).ok());
        let links = links.map(|link| link.to_string_lossy().into_owned());
        let maps = fs::read_to_string(format!("{own}/maps"))?;
        let held: Vec<String> = links
            .chain(maps.lines().map(str::to_owned))
            .filter(|line| line.contains(path))
            .collect();
        if !held.is_empty() {
            self.wrong.push(format!("{path}: the tracer holds {held:?}"));
        }
        Ok(())
    }

    fn at_once(&mut self, program: &str, words: &[&str]) {
        if let Err(error) = cmd::output(Command::new(program).args(words)) {
            self.wrong.push(format!("{error:#}"));
        }
    }

    /// Removes the modules that are not in use; returns those that are.
    fn modules(&mut self) -> Vec<&'static str> {
        let there = MODULES.iter().filter(|module| users(module).is_some());
        let (free, used): (Vec<&str>, Vec<&str>) = there.partition(|m| users(m) == Some(0));
        for module in free {
            self.at_once("rmmod", &[module]);
        }
        used
    }
}

/// Enables fs-verity on a file (FS_IOC_ENABLE_VERITY; struct fsverity_enable_arg).
fn seal(file: &Path) -> Result<()> {
    const ENABLE_VERITY: libc::c_ulong = 0x4080_6685;
    let mut how = [0_u32; 32];
    how[..3].copy_from_slice(&[1, 1, PAGE as u32]); // version, SHA-256, block size
    let file = File::open(file)?;
    // SAFETY: the kernel reads a struct of 128 bytes.
    if unsafe { libc::ioctl(file.as_raw_fd(), ENABLE_VERITY as _, how.as_ptr()) } != 0 {
        return Err(io::Error::last_os_error()).context("cannot enable fs-verity");
    }
    Ok(())
}

/// A mismatch for each of these modules that is not in use any more after dio-trace has exited.
fn only_tracer_used(modules: &[&str]) -> Vec<String> {
    let free = modules.iter().filter(|module| users(module) == Some(0));
    free.map(|module| format!("the module {module} was in use only by the tracer")).collect()
}

/// The reference count of a module; `None` if it is built in or not loaded.
fn users(module: &str) -> Option<u32> {
    let text = fs::read_to_string(format!("/sys/module/{module}/refcnt")).ok()?;
    text.trim().parse().ok()
}

/// A request that dio-trace reported.
#[derive(serde::Deserialize)]
struct Reported {
    pid: u32,
}

fn sync() {
    // SAFETY: no memory is involved.
    unsafe { libc::sync() };
}

/// Free bytes of the file system.
fn free(folder: &Path) -> Result<u64> {
    let path = std::ffi::CString::new(text(folder)?)?;
    // SAFETY: all-zero is a value of this plain struct.
    let mut about: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: a C string, and one struct to fill.
    if unsafe { libc::statvfs(path.as_ptr(), &raw mut about) } != 0 {
        return Err(io::Error::last_os_error()).context("statvfs");
    }
    Ok(about.f_bfree * about.f_frsize)
}

fn within(limit: Duration, what: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while !what() {
        if start.elapsed() > limit {
            return false;
        }
        thread::sleep(Duration::from_millis(50));
    }
    true
}
