//! Builds the initramfs: a newc cpio archive with busybox, the modules that a 9p root needs, and
//! the init script. It is built again for every boot, which takes milliseconds.
use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    host::cmd::{is_static, quote, which},
    vm::kernels::Kernel,
};

/// The modules to load before the host's file system can be mounted. Their dependencies are added.
const MODULES: &[&str] =
    &["virtio_pci", "virtio_blk", "9pnet_virtio", "9p", "overlay", "virtio_rng"];
const INIT: &str = include_str!("init.sh");
/// The busybox applets that the init script calls by name.
const APPLETS: &[&str] = &[
    "sh", "cat", "chroot", "echo", "env", "grep", "hostname", "ifconfig", "insmod", "kill", "ln",
    "ls", "mkdir", "mknod", "mount", "mv", "poweroff", "rm", "setsid", "sleep", "sync", "uname",
];

/// The initramfs for this kernel and the guest's root. `settings` become shell variables of the init
/// script.
pub(crate) fn build(kernel: &Kernel, root: &Path, settings: &[(&str, String)]) -> Result<Vec<u8>> {
    let busybox = match kernel.arch.is_host() {
        true => which("busybox").context("busybox is missing (package busybox-static)")?,
        false => root.join("usr/bin/busybox"),
    };
    if !is_static(&busybox) {
        bail!("{} is not a static program: install busybox-static", busybox.display());
    }
    let mut cpio = Cpio::default();
    for folder in ["bin", "sbin", "proc", "sys", "dev", "lower", "rw", "new", "vm", "m"] {
        cpio.folder(folder);
    }
    let read =
        |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    cpio.file("bin/busybox", 0o755, &read(&busybox)?);
    for applet in APPLETS {
        cpio.link(&format!("bin/{applet}"), "busybox");
    }
    let mut list = String::new();
    for module in in_order(kernel)? {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        let name = name.split(".ko").next().unwrap_or_default().to_owned() + ".ko";
        cpio.file(&format!("m/{name}"), 0o644, &plain(&module)?);
        list += &format!("{name}\n");
    }
    cpio.file("load-order", 0o644, list.as_bytes());
    // The kernel itself runs /sbin/modprobe, in the root of init.
    cpio.file(
        "sbin/modprobe",
        0o755,
        b"#!/bin/sh\nPATH=/usr/sbin:/usr/bin:/sbin:/bin exec /bin/chroot /new modprobe \"$@\"\n",
    );
    let mut init = "#!/bin/sh\n".to_owned();
    for (name, value) in settings {
        init += &format!("{name}={}\n", quote(value));
    }
    init += INIT;
    cpio.file("init", 0o755, init.as_bytes());
    Ok(cpio.end())
}

/// The files of [`MODULES`] and of their dependencies, each after the files that it depends on.
fn in_order(kernel: &Kernel) -> Result<Vec<PathBuf>> {
    let path = kernel.modules.join("modules.dep");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    // Debian's packages from 7.3 on have no modules.builtin. Then everything without a module file
    // counts as built in.
    let builtin = fs::read_to_string(kernel.modules.join("modules.builtin")).ok();
    let builtin: Option<HashSet<String>> =
        builtin.map(|text| text.lines().map(module_name).collect());
    let mut needs: HashMap<String, (&str, Vec<&str>)> = HashMap::new();
    for line in text.lines() {
        if let Some((file, rest)) = line.split_once(':') {
            needs.insert(module_name(file), (file, rest.split_whitespace().collect()));
        }
    }
    let mut order: Vec<&str> = Vec::new();
    for module in MODULES {
        match needs.get(*module) {
            // modules.dep lists dependencies of dependencies last.
            Some((file, deeper)) => {
                for file in deeper.iter().rev().chain([file]) {
                    if !order.contains(file) {
                        order.push(file);
                    }
                }
            }
            None if builtin.as_ref().is_none_or(|builtin| builtin.contains(*module)) => {}
            None => {
                bail!("{} has no module {module}: a 9p root needs it", kernel.modules.display())
            }
        }
    }
    Ok(order.into_iter().map(|file| kernel.modules.join(file)).collect())
}

/// The module's name as the kernel has it, with underscores: `kernel/fs/9p/9p.ko.xz` → `9p`.
fn module_name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split(".ko").next().unwrap_or(name).replace('-', "_")
}

/// The decompressed content of a module's file.
fn plain(module: &Path) -> Result<Vec<u8>> {
    let tool = match module.extension().and_then(|ext| ext.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(module).with_context(|| format!("cannot read {}", module.display())),
    };
    let out = Command::new(tool)
        .arg("-dc")
        .arg(module)
        .output()
        .with_context(|| format!("cannot start {tool} for {}", module.display()))?;
    if !out.status.success() {
        bail!("{tool} cannot unpack {}", module.display());
    }
    Ok(out.stdout)
}

/// Writes the "newc" format, see Documentation/driver-api/early-userspace/buffer-format.rst.
#[derive(Default)]
struct Cpio {
    bytes: Vec<u8>,
    inode: u32,
}

impl Cpio {
    fn folder(&mut self, name: &str) {
        self.entry(name, 0o040_755, &[]);
    }

    fn file(&mut self, name: &str, mode: u32, bytes: &[u8]) {
        self.entry(name, 0o100_000 | mode, bytes);
    }

    fn link(&mut self, name: &str, to: &str) {
        self.entry(name, 0o120_777, to.as_bytes());
    }

    fn entry(&mut self, name: &str, mode: u32, bytes: &[u8]) {
        self.inode += 1;
        // ino mode uid gid nlink mtime size devmajor devminor rdevmajor rdevminor namesize check
        let fields = [
            self.inode,
            mode,
            0,
            0,
            1,
            0,
            bytes.len() as u32,
            0,
            0,
            0,
            0,
            name.len() as u32 + 1,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }

    fn end(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpio_is_aligned_and_ends() {
        let mut cpio = Cpio::default();
        cpio.folder("bin");
        cpio.file("bin/x", 0o755, b"abc");
        let bytes = cpio.end();
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.starts_with(b"070701"));
        assert!(bytes.windows(10).any(|part| part == b"TRAILER!!!"));
        // The second header begins where the first entry's padding ends: 110 + "bin\0" = 114 → 116.
        assert_eq!(&bytes[116..122], b"070701");
    }

    #[test]
    fn module_names() {
        assert_eq!(module_name("kernel/drivers/virtio/virtio-rng.ko.xz"), "virtio_rng");
    }
}
