//! The kernels that VMs boot: Debian's kernels by series, architecture and flavour, kept in the
//! cache, or a kernel image of the user.
use std::{
    cmp::Ordering,
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::{Context, Result, bail};

use crate::host::{
    apt::{self, Apt},
    arch::{self, ARCHES, Arch},
    cmd::{output, say, which},
    packages, paths,
};

/// The kernel series for which the scenarios have expectations.
pub(crate) const SERIES: &[&str] = &["5.10", "6.1", "6.12", "6.18", "7.3"];

/// The parts of a module tree that the guests need. The rest (sound, graphics, wireless…) is left
/// out, because unpacking it takes time.
const WANTED: &[&str] = &[
    "arch",
    "block",
    "crypto",
    "fs",
    "lib",
    "mm",
    "security",
    "virt",
    "drivers/ata",
    "drivers/base",
    "drivers/block",
    "drivers/cdrom",
    "drivers/char",
    "drivers/crypto",
    "drivers/dax",
    "drivers/md",
    "drivers/mtd",
    "drivers/nvdimm",
    "drivers/nvme",
    "drivers/scsi",
    "drivers/target",
    "drivers/virtio",
    "drivers/acpi/nfit",
    "drivers/net/virtio_net.ko",
    "drivers/net/net_failover.ko",
    "net/9p",
    "net/802",
    "net/ceph",
    "net/core",
    "net/dns_resolver",
    "net/handshake",
    "net/ipv4",
    "net/ipv6",
    "net/llc",
    "net/rxrpc",
    "net/sunrpc",
    "net/tls",
    "net/unix",
    "net/vmw_vsock",
];

/// The flavours of Debian's kernels beside the plain one, with the place of their name in that of a
/// package. `16k` has pages of that size, on arm64 alone.
const FLAVOURS: &[(&str, &str)] =
    &[("rt", "-rt-ARCH"), ("cloud", "-cloud-ARCH"), ("16k", "-ARCH-16k")];
const PLAIN: &str = "-ARCH";
/// The architecture of a kernel whose name has none, by Debian's name.
const USUAL: &str = "amd64";

/// A kernel of Debian's archive, written as `6.12`, `6.12-rt`, `6.12-arm64` or `6.12-arm64-16k`.
/// Without an architecture it is amd64's, on every machine.
#[derive(Clone, Debug)]
struct Spec {
    series: String,
    arch: &'static Arch,
    flavour: Option<&'static str>,
}

impl Spec {
    /// `None` if the text is not of that form.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let series = parts.next().filter(|part| is_series(part))?.to_owned();
        let (mut arch, mut flavour) = (None, None);
        for part in parts {
            let known = FLAVOURS.iter().find(|(name, _)| *name == part);
            let twice = match known {
                Some((name, _)) => flavour.replace(*name).is_some(),
                None => arch.replace(ARCHES.iter().find(|arch| arch.debian == part)?).is_some(),
            };
            if twice {
                return None;
            }
        }
        let arch = arch.or_else(|| arch::find(USUAL).ok())?;
        Some(Self { series, arch, flavour })
    }

    /// The end of the names of its packages.
    fn suffix(&self) -> String {
        let pattern = FLAVOURS.iter().find(|(name, _)| Some(*name) == self.flavour);
        pattern.map_or(PLAIN, |(_, pattern)| pattern).replace("ARCH", self.arch.debian)
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.series)?;
        if self.arch.debian != USUAL {
            write!(f, "-{}", self.arch.debian)?;
        }
        self.flavour.map_or(Ok(()), |flavour| write!(f, "-{flavour}"))
    }
}

/// A kernel with its modules.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// For names and messages: `6.12`, `6.12-arm64-16k`, or `custom`.
    pub(crate) name: String,
    /// The series, for which the scenarios have expectations: `6.12`, or `custom`.
    pub(crate) series: String,
    pub(crate) arch: &'static Arch,
    /// As `uname -r` prints it.
    pub(crate) version: String,
    pub(crate) image: PathBuf,
    /// The folder that contains modules.dep.
    pub(crate) modules: PathBuf,
}

/// The kernel that `--kernel` and `--modules` name: a series, or a kernel image with its modules.
pub(crate) fn find(kernel: &str, modules: Option<&Path>) -> Result<Kernel> {
    let path = Path::new(kernel);
    if modules.is_none() && Spec::parse(kernel).is_some() && !path.exists() {
        return debian(kernel);
    }
    if !path.is_file() {
        bail!("--kernel {kernel} is neither {}, nor a kernel image", forms());
    }
    let Some(modules) = modules else {
        bail!(
            "--kernel {kernel} needs its modules: add --modules DIR (a folder like /lib/modules/VERSION)"
        );
    };
    let canonical = |path: &Path| {
        path.canonicalize().with_context(|| format!("cannot read {}", path.display()))
    };
    let (image, modules) = (canonical(path)?, canonical(modules)?);
    if !modules.join("modules.dep").is_file() {
        bail!("{} has no modules.dep: run depmod, or name /lib/modules/VERSION", modules.display());
    }
    let version = file_name(&modules)?;
    let custom = "custom".to_owned();
    Ok(Kernel {
        name: custom.clone(),
        series: custom,
        arch: arch::host()?,
        version,
        image,
        modules,
    })
}

/// How a kernel of Debian's archive is written, for messages.
fn forms() -> String {
    let flavours: Vec<&str> = FLAVOURS.iter().map(|(name, _)| *name).collect();
    let arches: Vec<&str> = ARCHES.iter().map(|arch| arch.debian).collect();
    format!(
        "a series ({}, or another that Debian's archive has), possibly with an architecture ({}) and a \
         flavour ({}), as in 6.12-arm64-16k",
        SERIES.join(", "),
        arches.join(", "),
        flavours.join(", ")
    )
}

/// The architecture of a kernel of this name; `None` if it is no such name.
pub(crate) fn arch_of(kernel: &str) -> Option<&'static Arch> {
    Spec::parse(kernel).map(|spec| spec.arch)
}

/// True if a kernel has no fentry: on arm64 it begins with 6.4
/// (HAVE_DYNAMIC_FTRACE_WITH_DIRECT_CALLS, arch/arm64/Kconfig).
pub(crate) fn lacks_fentry(kernel: &str) -> bool {
    Spec::parse(kernel).is_some_and(|spec| {
        let mut numbers = spec.series.split('.').filter_map(|part| part.parse::<u16>().ok());
        let version = (numbers.next(), numbers.next());
        spec.arch.name == "aarch64" && version < (Some(6), Some(4))
    })
}

fn is_series(text: &str) -> bool {
    let mut parts = text.split('.');
    let number = |part: Option<&str>| part.is_some_and(|p| p.parse::<u16>().is_ok());
    number(parts.next()) && number(parts.next()) && parts.next().is_none()
}

fn spec(kernel: &str) -> Result<Spec> {
    Spec::parse(kernel).with_context(|| format!("`{kernel}` is not {}", forms()))
}

fn folder(spec: &Spec) -> Result<PathBuf> {
    Ok(paths::cache()?.join("kernels").join(spec.to_string()))
}

/// The kernel of this name, if it is in the cache.
pub(crate) fn cached(kernel: &str) -> Result<Option<Kernel>> {
    in_cache(&spec(kernel)?)
}

fn in_cache(spec: &Spec) -> Result<Option<Kernel>> {
    let folder = folder(spec)?;
    let Ok(version) = fs::read_to_string(folder.join("version")) else { return Ok(None) };
    let version = version.trim().to_owned();
    Ok(Some(Kernel {
        name: spec.to_string(),
        series: spec.series.clone(),
        arch: spec.arch,
        image: folder.join("vmlinuz"),
        modules: folder.join("lib/modules").join(&version),
        version,
    }))
}

/// Removes the kernel of this name from the cache.
pub(crate) fn forget(kernel: &str) -> Result<()> {
    paths::remove(&folder(&spec(kernel)?)?)
}

/// Debian's newest kernel of this name, fetched once.
pub(crate) fn debian(kernel: &str) -> Result<Kernel> {
    let spec = spec(kernel)?;
    if let Some(kernel) = in_cache(&spec)? {
        return Ok(kernel);
    }
    packages::ensure(&[packages::VM])?;
    let _lock = paths::lock(&format!("kernel-{spec}"))?;
    if let Some(kernel) = in_cache(&spec)? {
        return Ok(kernel);
    }
    let folder = folder(&spec)?;
    let work = folder.with_extension("new");
    paths::fresh(&work)?;
    let packages = fetch(&spec, &work)?;
    say(format!("unpacking kernel {spec}"));
    let raw = work.join("raw");
    for deb in &packages {
        apt::unpack(deb, &raw, None)?;
        fs::remove_file(deb).with_context(|| format!("cannot remove {}", deb.display()))?;
    }
    let version = arrange(&raw, &work)?;
    paths::remove(&raw)?;
    // Written last: `in_cache` takes its presence as proof that the rest is complete.
    fs::write(work.join("version"), &version).context("cannot write the kernel's version")?;
    paths::remove(&folder)?;
    fs::rename(&work, &folder)
        .with_context(|| format!("cannot move {} into place", folder.display()))?;
    say(format!("kernel {spec} is {version}"));
    in_cache(&spec)?.with_context(|| format!("kernel {spec} vanished from the cache"))
}

/// Downloads the packages that make up a kernel. From 7.x on `linux-image-…` is a meta package of
/// `linux-binary-…` and `linux-modules-…`.
fn fetch(spec: &Spec, into: &Path) -> Result<Vec<PathBuf>> {
    let apt = Apt::open_for(spec.arch.debian)?;
    // Point versions disappear from the archive, so a package is found by a pattern.
    let mut images: Vec<String> =
        apt.names("linux-image-")?.into_iter().filter(|name| is_image_of(name, spec)).collect();
    images.sort_by(|a, b| by_version(a, b));
    let Some(image) = images.pop() else {
        bail!("Debian's archive does not have a kernel {spec} (any more)");
    };
    let mut wanted = vec![image];
    let mut next = 0;
    while next < wanted.len() {
        for name in apt.depends(&wanted[next])? {
            let part = name.starts_with("linux-binary-") || name.starts_with("linux-modules-");
            if part && !wanted.contains(&name) {
                wanted.push(name);
            }
        }
        next += 1;
    }
    wanted.iter().map(|name| apt.download(name, into)).collect()
}

/// Whether a package is an image of this kernel, such as `linux-image-6.1.0-56-amd64` or
/// `linux-image-6.12.117+deb12-rt-amd64`, and not an unsigned one or one of another flavour.
fn is_image_of(name: &str, spec: &Spec) -> bool {
    let Some(rest) = name.strip_prefix("linux-image-") else { return false };
    let Some(rest) = rest.strip_prefix(&spec.series).and_then(|rest| rest.strip_prefix('.')) else {
        return false;
    };
    let Some(rest) = rest.strip_suffix(&spec.suffix()) else { return false };
    let point_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (point, tail) = rest.split_at(point_end);
    let number = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    };
    !point.is_empty()
        && (tail.strip_prefix('-').is_some_and(number)
            || tail.strip_prefix("+deb").is_some_and(number))
}

/// Compares two package names by the numbers in them.
fn by_version(a: &str, b: &str) -> Ordering {
    let numbers = |text: &str| -> Vec<u64> {
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
    };
    numbers(a).cmp(&numbers(b))
}

/// Makes `vmlinuz`, `config` and `lib/modules/VERSION` in `into` from unpacked packages, and
/// returns VERSION.
fn arrange(raw: &Path, into: &Path) -> Result<String> {
    let trees = [raw.join("usr/lib/modules"), raw.join("lib/modules")];
    let tree = trees
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flatten()
        .find_map(|entry| entry.ok())
        .context("the kernel's packages hold no modules")?
        .path();
    let version = file_name(&tree)?;
    for (name, required) in [("vmlinuz", true), ("config", false)] {
        let places = [raw.join(format!("boot/{name}-{version}")), tree.join(name)];
        match places.iter().find(|path| path.is_file()) {
            Some(path) => {
                fs::copy(path, into.join(name))
                    .with_context(|| format!("cannot copy {}", path.display()))?;
            }
            None if required => bail!("the kernel's packages hold no {name} for {version}"),
            None => {}
        }
    }
    let modules = into.join("lib/modules").join(&version);
    fs::create_dir_all(modules.join("kernel"))
        .with_context(|| format!("cannot make {}", modules.display()))?;
    for entry in fs::read_dir(&tree).with_context(|| format!("cannot read {}", tree.display()))? {
        let path = entry.context("cannot read the module tree")?.path();
        let name = file_name(&path)?;
        if name.starts_with("modules.") {
            fs::copy(&path, modules.join(&name))
                .with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    for wanted in WANTED {
        for suffix in ["", ".xz"] {
            let from = tree.join("kernel").join(format!("{wanted}{suffix}"));
            let to = modules.join("kernel").join(format!("{wanted}{suffix}"));
            if !from.exists() {
                continue;
            }
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent)
                    .with_context(|| format!("cannot make {}", parent.display()))?;
            }
            fs::rename(&from, &to).with_context(|| format!("cannot move {}", from.display()))?;
        }
    }
    decompress(&modules)?;
    // A depmod that was built for /usr/lib/modules finds the same tree through this link.
    let usr = into.join("usr");
    fs::create_dir_all(&usr).with_context(|| format!("cannot make {}", usr.display()))?;
    std::os::unix::fs::symlink("../lib", usr.join("lib")).context("cannot link usr/lib")?;
    let depmod = which("depmod").context("depmod is missing (package kmod)")?;
    output(Command::new(depmod).arg("-b").arg(into).arg(&version))?;
    Ok(version)
}

/// Decompresses every .ko.xz once, on all CPUs, because an emulated guest would need much longer
/// for it at every boot.
fn decompress(tree: &Path) -> Result<()> {
    let mut files = Vec::new();
    walk(tree, &mut files)?;
    files.retain(|path| path.extension().is_some_and(|ext| ext == "xz"));
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let share = files.len().div_ceil(cpus).max(1);
    thread::scope(|scope| {
        let workers: Vec<_> = files
            .chunks(share)
            .map(|files| {
                scope.spawn(move || {
                    files.chunks(100).try_for_each(|files| {
                        output(Command::new("xz").args(["-d", "-f", "--"]).args(files)).map(drop)
                    })
                })
            })
            .collect();
        for worker in workers {
            worker.join().map_err(|_| anyhow::anyhow!("an xz worker died"))??;
        }
        Ok(())
    })
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        let kind = entry.file_type().with_context(|| format!("cannot stat {:?}", entry.path()))?;
        if kind.is_dir() {
            walk(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn file_name(path: &Path) -> Result<String> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned).with_context(|| format!("{} has no usable name", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_images_of_series_flavour_and_architecture() {
        let is = |name: &str, kernel: &str| is_image_of(name, &Spec::parse(kernel).unwrap());
        for (name, kernel) in [
            ("linux-image-6.1.0-56-amd64", "6.1-amd64"),
            ("linux-image-6.1.7+deb12-amd64", "6.1-amd64"),
            ("linux-image-6.12.90+deb12.1-amd64", "6.12-amd64"),
            ("linux-image-6.12.117+deb12-rt-amd64", "6.12-amd64-rt"),
            ("linux-image-6.12.117+deb12-cloud-arm64", "6.12-arm64-cloud"),
            ("linux-image-6.12.117+deb12-arm64-16k", "6.12-arm64-16k"),
        ] {
            assert!(is(name, kernel), "{name}");
        }
        for bad in [
            "linux-image-6.12.1+deb12-amd64",
            "linux-image-6.1.0-56-arm64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-56-amd64-dbg",
            "linux-image-6.1.0-56-rt-amd64",
            "linux-image-6.1.0-56-amd64-unsigned",
            "linux-image-6.1.0-0.deb11.48-amd64",
            "linux-image-amd64",
        ] {
            assert!(!is(bad, "6.1-amd64"), "{bad}");
        }
    }

    #[test]
    fn a_name_is_a_series_an_architecture_and_a_flavour() {
        for bad in
            ["6", "six", "6.12-", "6.12-mips", "6.12-arm64-17k", "vmlinuz-6.12", "6.12-rt-cloud"]
        {
            assert!(Spec::parse(bad).is_none(), "{bad}");
        }
        let spec = Spec::parse("6.12-16k-arm64").unwrap();
        assert_eq!((spec.arch.name, spec.flavour), ("aarch64", Some("16k")));
        assert_eq!(spec.to_string(), "6.12-arm64-16k");
        assert_eq!(Spec::parse("6.12-amd64").unwrap().to_string(), "6.12");
    }

    #[test]
    fn arm64_has_fentry_from_6_4_on() {
        assert!(["6.1-arm64", "5.10-arm64", "6.1-arm64-rt"].into_iter().all(lacks_fentry));
        assert!(!["6.1", "6.12-arm64", "7.3-arm64-16k"].into_iter().any(lacks_fentry));
    }

    #[test]
    fn newest_by_number() {
        assert_eq!(
            by_version("linux-image-6.1.0-9-amd64", "linux-image-6.1.0-10-amd64"),
            Ordering::Less
        );
        assert_eq!(by_version("a-6.12.99+deb12", "a-6.12.100+deb12"), Ordering::Less);
    }
}
