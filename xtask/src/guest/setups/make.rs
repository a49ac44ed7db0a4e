//! Makes set-ups, and clears them away.
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    guest::{
        cells::Cell,
        setups::{ALL, Disk, Kind, Place, Setup, Store, broken, nfs},
        workload,
    },
    host::cmd::{self, text},
};

/// Room for each partition: xfs wants 300 MiB, btrfs likes more.
const MIB: u64 = 700;

/// Makes and mounts these set-ups, one round, below `root`.
pub(in crate::guest) fn make(
    setups: Vec<(&'static Setup, Vec<Cell>)>,
    root: &Path,
) -> Result<Vec<(Place, Vec<Cell>)>> {
    clear(root)?;
    for disk in Disk::ALL {
        partition(disk, setups.iter().map(|(setup, _)| setup.parts(disk)).sum())?;
    }
    let mut maker = Maker { root, used: [0; Disk::ALL.len()] };
    let mut places = Vec::new();
    for (setup, cells) in setups {
        let path = maker
            .place(setup, &cells)
            .with_context(|| format!("cannot make the set-up {}", setup.name))?;
        places.push((Place { setup, path }, cells));
    }
    Ok(places)
}

/// Makes anew what a run of the workload leaves in another state than it found it in.
pub(in crate::guest) fn renew(place: &Place) -> Result<()> {
    match (place.setup.kind, place.path.parent()) {
        (Kind::Broken { mkfs }, Some(folder)) => broken::again(place.setup, mkfs, folder),
        _ => Ok(()),
    }
}

/// Clears what was made below `root`, by this suite or by an earlier one in a VM that was kept.
pub(in crate::guest) fn clear(root: &Path) -> Result<()> {
    // Those in use go with their last user.
    run("losetup", &["-D"])?;
    nfs::end()?;
    let mounts = fs::read_to_string("/proc/self/mounts").context("no /proc/self/mounts")?;
    let folders = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
    let ours: Vec<&Path> = folders.filter(|f| f.starts_with(root) && *f != root).collect();
    for folder in ours.iter().rev() {
        run("umount", &[text(folder)?])?;
    }
    for setup in ALL {
        if Path::new("/dev/mapper").join(setup.name).exists() {
            run("dmsetup", &["remove", "--retry", setup.name])?;
        }
    }
    for module in ["scsi_debug", "zram", "null_blk"] {
        if Path::new("/sys/module").join(module).exists() {
            run("rmmod", &[module])?;
        }
    }
    Ok(())
}

/// What is missing to make a rare set-up here, if anything: not every kernel has every file system,
/// not every distribution the program that makes it.
pub(in crate::guest) fn lacks(setup: &Setup) -> Option<String> {
    if !setup.rare {
        return None;
    }
    let missing = |program: &&&str| cmd::which(program).is_none();
    let mut programs = setup.kind.mkfs().first().into_iter().chain(setup.kind.helpers());
    if let Some(program) = programs.find(missing) {
        return Some(format!("there is no {program}"));
    }
    if setup.fs == "bdev" {
        return None;
    }
    // Fails for what is built in without being a module anywhere: the list is what counts.
    let _ = run("modprobe", &["-q", setup.fs]);
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let here = known.lines().any(|line| line.split('\t').nth(1) == Some(setup.fs));
    (!here).then(|| format!("this kernel has no {}", setup.fs))
}

/// Cuts a disk into partitions of equal size.
fn partition(disk: Disk, count: usize) -> Result<()> {
    if count == 0 {
        return Ok(());
    }
    if disk == Disk::Pmem {
        run("modprobe", &["-a", "virtio_pmem", "nd_pmem"])?;
        appears(Path::new(disk.device()))?;
    }
    let table = "label: gpt\n".to_owned() + &format!("size={MIB}MiB\n").repeat(count);
    let line =
        format!("printf %s {} | sfdisk -q --wipe always {}", cmd::quote(&table), disk.device());
    cmd::output(Command::new("sh").args(["-c", &line]))?;
    appears(&disk.part(count))
}

fn appears(device: &Path) -> Result<()> {
    let start = Instant::now();
    while !device.exists() {
        if start.elapsed() > Duration::from_secs(10) {
            bail!("{} did not appear", device.display());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

struct Maker<'a> {
    root: &'a Path,
    /// Partitions of each disk that are taken.
    used: [usize; Disk::ALL.len()],
}

impl Maker<'_> {
    fn place(&mut self, setup: &Setup, cells: &[Cell]) -> Result<PathBuf> {
        let folder = self.root.join(setup.name);
        match setup.kind {
            Kind::Device(on) => return self.store(setup, on),
            Kind::Memory => mount(&["-t", setup.fs, setup.name], &folder)?,
            Kind::Made { on, mkfs, options, prepare } => {
                let device = self.store(setup, on)?;
                file_system(mkfs, setup.fs, options, &device, &folder)?;
                if let Some((program, words)) = prepare.split_first() {
                    run(program, &[words, &[text(&folder)?]].concat())?;
                }
            }
            Kind::Sealed { mkfs, options, seal } => {
                file_system(mkfs, setup.fs, options, &self.partition(), &folder)?;
                workload::fill_folder(cells, &folder)?;
                run(seal[0], &[&seal[1..], &[text(&folder)?]].concat())?;
                mount(&["-o", "remount,ro"], &folder)?;
            }
            Kind::Realtime => {
                let (data, files) = (self.partition(), self.partition());
                let files = format!("rtdev={}", files.display());
                let words = ["-q", "-f", "-d", "rtinherit=1", "-r", &files, text(&data)?];
                run("mkfs.xfs", &words)?;
                mount(&["-t", setup.fs, "-o", &files, text(&data)?], &folder)?;
            }
            Kind::Image { mkfs } => self.image(setup, mkfs, cells, &folder)?,
            Kind::Overlay { mkfs, lower } => {
                let below = self.below(setup, mkfs, lower)?;
                for layer in ["lower", "upper", "work"] {
                    fs::create_dir_all(below.join(layer))?;
                }
                let below = below.display();
                let options =
                    format!("lowerdir={below}/lower,upperdir={below}/upper,workdir={below}/work");
                mount(&["-t", "overlay", "-o", &options, setup.name], &folder)?;
            }
            Kind::Lower(lower) => {
                let files = self.place(lower, cells)?;
                if !matches!(lower.kind, Kind::Image { .. }) {
                    workload::fill_folder(cells, &files)?;
                }
                let none = self.root.join(format!("{}.none", setup.name));
                fs::create_dir_all(&none)?;
                let options = format!("lowerdir={}:{}", files.display(), none.display());
                mount(&["-t", "overlay", "-o", &options, setup.name], &folder)?;
            }
            Kind::Nfs => {
                let below = self.below(setup, &["mkfs.ext4", "-q", "-F"], "ext4")?;
                nfs::share(&below, &folder)?;
            }
            Kind::Fuse { server } => {
                let below = self.below(setup, &["mkfs.ext4", "-q", "-F"], "ext4")?;
                serve(server, &below, &folder)?;
            }
            Kind::Broken { mkfs } => {
                let device = self.partition();
                return broken::file_system(setup, mkfs, &device, &folder);
            }
            Kind::Shared => {
                let folder = Path::new("/out").join(setup.name);
                fs::create_dir_all(&folder)?;
                return Ok(folder);
            }
            Kind::SharedWith { options } => {
                let options = format!("trans=virtio,version=9p2000.L,{options}");
                mount(&["-t", "9p", "-o", &options, "again"], &folder)?;
                let files = folder.join(setup.name);
                fs::create_dir_all(&files)?;
                return Ok(files);
            }
        }
        Ok(folder)
    }

    /// The next free partition.
    fn next(&mut self, disk: Disk) -> PathBuf {
        let used = &mut self.used[disk as usize];
        *used += 1;
        disk.part(*used)
    }

    fn partition(&mut self) -> PathBuf {
        self.next(Disk::Sector512)
    }

    /// A file system for something to lie on.
    fn below(&mut self, setup: &Setup, mkfs: &[&str], fs_type: &str) -> Result<PathBuf> {
        let folder = self.root.join(format!("{}.below", setup.name));
        file_system(mkfs, fs_type, "", &self.partition(), &folder)?;
        Ok(folder)
    }

    fn store(&mut self, setup: &Setup, store: Store) -> Result<PathBuf> {
        match store {
            Store::Part(disk) => Ok(self.next(disk)),
            Store::Loop { direct, bytes } => {
                let image = self.below(setup, &["mkfs.ext4", "-q", "-F"], "ext4")?.join("image");
                fs::File::create(&image)?.set_len(bytes)?;
                let mode = format!("--direct-io={}", if direct { "on" } else { "off" });
                let device = run("losetup", &["--find", "--show", &mode, text(&image)?])?;
                Ok(device.trim().into())
            }
            Store::Linear(sectors) => {
                mapped(setup, &format!("0 {sectors} linear {} 0", self.partition().display()))
            }
            Store::Crypt(sectors) => {
                let (key, below) = ("5a".repeat(32), self.partition());
                let below = below.display();
                mapped(setup, &format!("0 {sectors} crypt aes-cbc-plain64 {key} 0 {below} 0"))
            }
            Store::Zram(size) => zram(size),
            Store::Zoned => zoned(),
            Store::Broken => broken::device(setup, &self.partition(), 1 << 20),
            Store::Scsi(sector) => scsi(sector),
        }
    }

    fn image(&mut self, setup: &Setup, mkfs: &[&str], cells: &[Cell], to: &Path) -> Result<()> {
        let folder = self.root.join(format!("{}.files", setup.name));
        fs::create_dir_all(&folder)?;
        workload::fill_folder(cells, &folder)?;
        let device = self.partition();
        let words: Vec<&str> = mkfs
            .iter()
            .map(|word| match *word {
                "FOLDER" => text(&folder),
                "DEVICE" => text(&device),
                word => Ok(word),
            })
            .collect::<Result<_>>()?;
        run(words[0], &words[1..])?;
        mount(&["-t", setup.fs, "-o", "ro", text(&device)?], to)?;
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))
    }
}

/// A device-mapper device of the set-up's name.
pub(super) fn mapped(setup: &Setup, table: &str) -> Result<PathBuf> {
    run("dmsetup", &["create", setup.name, "--table", table])?;
    Ok(Path::new("/dev/mapper").join(setup.name))
}

/// The disk of scsi_debug: in memory, with medium errors from sector 0x1234 on (opts=2).
fn scsi(sector: u32) -> Result<PathBuf> {
    let device = PathBuf::from("/dev/sda");
    if !device.exists() {
        run("modprobe", &["sd_mod"])?;
        let sector = format!("sector_size={sector}");
        run("modprobe", &["scsi_debug", "dev_size_mb=8", "opts=2", &sector])?;
        appears(&device)?;
    }
    Ok(device)
}

/// Compressed memory as a disk.
fn zram(size: &str) -> Result<PathBuf> {
    run("modprobe", &["zram", "num_devices=1"])?;
    fs::write("/sys/block/zram0/disksize", size).context("cannot size zram0")?;
    Ok("/dev/zram0".into())
}

/// Memory that is written in zones, as null_blk has it.
fn zoned() -> Result<PathBuf> {
    let words = ["nr_devices=1", "gb=1", "bs=4096", "memory_backed=1"];
    let zones = ["zoned=1", "zone_size=4", "zone_nr_conv=64"];
    run("modprobe", &[&["null_blk"], &words[..], &zones[..]].concat())?;
    Ok("/dev/nullb0".into())
}

/// Starts a FUSE server that shows a folder elsewhere; it ends when that is unmounted.
fn serve(server: &[&str], from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    if !Path::new("/dev/fuse").exists() {
        run("modprobe", &["fuse"])?;
    }
    let mut words = server.iter();
    let program = words.next().context("no FUSE server")?;
    let me = std::env::current_exe().context("xtask cannot find itself")?;
    let mut command = Command::new(if *program == "xtask" { text(&me)? } else { *program });
    command.args(words).arg(from).arg(to).stdin(Stdio::null()).stdout(Stdio::null());
    command.spawn().with_context(|| format!("cannot start {program}"))?;
    let start = Instant::now();
    let mounted = |mounts: String| mounts.lines().any(|line| line.split(' ').nth(1) == to.to_str());
    while !mounted(fs::read_to_string("/proc/self/mounts")?) {
        if start.elapsed() > Duration::from_secs(10) {
            bail!("{program} did not mount {}", to.display());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

pub(super) fn file_system(
    mkfs: &[&str],
    fs_type: &str,
    options: &str,
    device: &Path,
    folder: &Path,
) -> Result<()> {
    run(mkfs[0], &[&mkfs[1..], &[text(device)?]].concat())?;
    let mut words = vec!["-t", fs_type];
    if !options.is_empty() {
        words.extend(["-o", options]);
    }
    words.push(text(device)?);
    mount(&words, folder)
}

pub(super) fn run(program: &str, words: &[&str]) -> Result<String> {
    cmd::output(Command::new(program).args(words))
}

pub(in crate::guest) fn mount(words: &[&str], folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    cmd::output(Command::new("mount").args(words).arg(folder))
        .map(drop)
        .with_context(|| format!("cannot mount {}", folder.display()))
}
