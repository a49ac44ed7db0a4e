//! Reads from sysfs the block device that a file lies on: its queue limits, and the stack of
//! devices (partition, device-mapper, md, loop) below it.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{system::statx, util::escape::escape};

/// Most devices reported for one file; a larger stack is truncated.
const MAX_LAYERS: usize = 32;

/// A device of the stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Name as in /dev.
    pub name: String,
    pub kind: LayerKind,
}

impl Layer {
    /// Bytes of memory that this layer's texts take.
    pub(crate) fn bytes(&self) -> usize {
        let file = if let LayerKind::Loop { file, .. } = &self.kind { file.len() } else { 0 };
        self.name.len() + file
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerKind {
    /// A loop device.
    Loop {
        /// Escaped path of the backing file, as the kernel reports it.
        file: String,
        /// The loop driver reads and writes the backing file with direct I/O.
        direct: bool,
        /// What decides whether it can.
        #[serde(default)]
        limits: LoopLimits,
    },
    /// A device-mapper device.
    Mapper,
    /// An md RAID.
    Raid,
    Disk,
}

/// What decides whether a loop device can do direct I/O on its backing file
/// (drivers/block/loop.c:lo_can_use_dio).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoopLimits {
    /// Logical block size of the loop device, in bytes; 0 if unknown.
    pub block: u32,
    /// Where the device begins in its backing file, in bytes.
    pub offset: u64,
    /// Alignment that direct I/O on the backing file needs, in bytes; 0 if unknown.
    pub needs: u32,
}

impl LoopLimits {
    /// True if `losetup --direct-io=on` is refused with EINVAL; `None` if that is unknown.
    #[must_use]
    pub fn refuse_direct(&self) -> Option<bool> {
        let known = self.block != 0 && self.needs != 0;
        known.then(|| self.block < self.needs || self.is_shifted())
    }

    /// True if the device begins where direct I/O on the backing file cannot.
    #[must_use]
    pub fn is_shifted(&self) -> bool {
        self.needs != 0 && !self.offset.is_multiple_of(u64::from(self.needs))
    }
}

/// Attributes of the device that a file lies on; a field is `None` if there is no device, or sysfs
/// does not have the attribute.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    /// Logical block size in bytes.
    pub logical_block: Option<u32>,
    /// Memory alignment that the device's DMA requires, in bytes.
    pub dma_align: Option<u32>,
    /// Pages must not change while they are being written (checksums, RAID 5).
    pub stable_writes: Option<bool>,
    /// The queue can be polled for completions (IORING_SETUP_IOPOLL, RWF_HIPRI).
    pub io_poll: Option<bool>,
    /// A zoned device: writes within a zone must be sequential.
    pub zoned: Option<bool>,
    /// The device itself and all devices below it, from the top down.
    pub layers: Vec<Layer>,
}

/// Reads a device's attributes from sysfs by its (major, minor) number.
pub(crate) fn ask(number: (u32, u32)) -> Device {
    folder(number).map(|folder| describe(&folder)).unwrap_or_default()
}

/// The node of a block device by its kernel `dev_t`, escaped: `/dev/sda1`.
pub(crate) fn path(dev: u32) -> Option<String> {
    let folder = folder((dev >> 20, dev & 0xf_ffff))?;
    let event = fs::read_to_string(folder.join("uevent")).ok()?;
    let name = event.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
    Some(format!("/dev/{}", escape(name.as_bytes())))
}

/// The folder of a device in sysfs.
fn folder((major, minor): (u32, u32)) -> Option<PathBuf> {
    Path::new(&format!("/sys/dev/block/{major}:{minor}")).canonicalize().ok()
}

/// The logical block size of a disk in bytes.
fn logical_block(disk: &Path) -> Option<u32> {
    read(&disk.join("queue/logical_block_size"))?.parse().ok()
}

fn describe(folder: &Path) -> Device {
    let disk = whole(folder);
    let limit = |name: &str| read(&disk.join("queue").join(name));
    let number = |name: &str| limit(name)?.parse::<u32>().ok();
    let mut layers = Vec::new();
    collect(folder, &mut layers);
    Device {
        logical_block: logical_block(&disk),
        dma_align: number("dma_alignment").map(|mask| mask.saturating_add(1)),
        stable_writes: number("stable_writes").map(|n| n != 0),
        io_poll: number("io_poll").map(|n| n != 0),
        zoned: limit("zoned").map(|kind| kind != "none"),
        layers,
    }
}

/// The disk that a partition belongs to; for any other device, the device itself.
fn whole(folder: &Path) -> PathBuf {
    let parent = folder.parent().filter(|_| folder.join("partition").exists());
    parent.unwrap_or(folder).to_path_buf()
}

/// Adds a device and all devices below it to `layers`, each once.
fn collect(folder: &Path, layers: &mut Vec<Layer>) {
    let disk = whole(folder);
    let Some(name) = folder.file_name() else { return };
    let name = escape(name.as_encoded_bytes());
    if layers.len() >= MAX_LAYERS || layers.iter().any(|layer| layer.name == name) {
        return;
    }
    layers.push(Layer { name, kind: kind(&disk) });
    let below = fs::read_dir(disk.join("slaves")).into_iter().flatten().flatten();
    for link in below {
        if let Ok(folder) = link.path().canonicalize() {
            collect(&folder, layers);
        }
    }
}

fn kind(disk: &Path) -> LayerKind {
    if let Some(file) = read(&disk.join("loop/backing_file")) {
        let direct = read(&disk.join("loop/dio")).is_some_and(|text| text == "1");
        let limits = loop_limits(disk, Path::new(&file));
        return LayerKind::Loop { file: escape(file.as_bytes()), direct, limits };
    }
    if disk.join("dm").exists() {
        LayerKind::Mapper
    } else if disk.join("md").exists() {
        LayerKind::Raid
    } else {
        LayerKind::Disk
    }
}

/// The kernel takes the alignment of the backing file's statx(2) from 6.15 on, and before, or where
/// statx does not report it, the logical block of the device that the file lies on.
fn loop_limits(disk: &Path, backing: &Path) -> LoopLimits {
    let offset = read(&disk.join("loop/offset")).and_then(|text| text.parse().ok());
    let needs = direct_align(backing).or_else(|| block_below(backing));
    LoopLimits {
        block: logical_block(disk).unwrap_or(0),
        offset: offset.unwrap_or(0),
        needs: needs.unwrap_or(0),
    }
}

/// The alignment in bytes that statx reports for direct I/O on a file.
fn direct_align(file: &Path) -> Option<u32> {
    let about = statx::of_path(file)?;
    let reported = about.mask & statx::DIOALIGN != 0 && about.dio_offset_align != 0;
    reported.then_some(about.dio_offset_align)
}

/// The logical block of the device that a file lies on.
fn block_below(file: &Path) -> Option<u32> {
    let dev = fs::metadata(file).ok()?.dev();
    logical_block(&whole(&folder((libc::major(dev), libc::minor(dev)))?))
}

/// Reads a sysfs attribute without its trailing newline.
fn read(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_device_says_nothing() {
        let nothing = ask((u32::MAX, 0));
        assert_eq!((nothing.logical_block, nothing.layers), (None, Vec::new()));
    }

    #[test]
    fn a_stack_is_walked_down_to_its_disks() {
        let root = std::env::temp_dir().join(format!("dio-trace-sysfs-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("loop0/loop/backing_file", "/images/a b\n");
        write("loop0/loop/dio", "0\n");
        write("loop0/loop/offset", "1024\n");
        write("loop0/queue/logical_block_size", "512\n");
        write("loop0/loop0p1/partition", "1\n");
        write("dm-0/dm/uuid", "LVM-x\n");
        write("dm-0/queue/logical_block_size", "4096\n");
        write("dm-0/queue/dma_alignment", "3\n");
        write("dm-0/queue/zoned", "none\n");
        fs::create_dir_all(root.join("dm-0/slaves")).unwrap();
        std::os::unix::fs::symlink("../../loop0/loop0p1", root.join("dm-0/slaves/loop0p1"))
            .unwrap();
        let device = describe(&root.join("dm-0").canonicalize().unwrap());
        fs::remove_dir_all(&root).unwrap();
        assert_eq!((device.logical_block, device.dma_align), (Some(4096), Some(4)));
        assert_eq!((device.zoned, device.stable_writes), (Some(false), None));
        let limits = LoopLimits { block: 512, offset: 1024, needs: 0 };
        let kind = LayerKind::Loop { file: "/images/a b".to_owned(), direct: false, limits };
        assert_eq!(
            device.layers,
            [
                Layer { name: "dm-0".to_owned(), kind: LayerKind::Mapper },
                Layer { name: "loop0p1".to_owned(), kind },
            ]
        );
    }
}
