//! Mounts of a process, parsed from /proc/PID/mountinfo (proc(5)).

use std::{collections::HashMap, ffi::OsStr, fs, os::unix::ffi::OsStrExt as _, path::Path};

/// One line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// "major:minor" of the file system.
    pub dev: String,
    /// Path inside the file system that is the root of this mount.
    pub root: Vec<u8>,
    /// Mount point, as the process sees it.
    pub point: Vec<u8>,
    /// File system type.
    pub fs: String,
    /// What is mounted: a device, or what the file system type uses instead.
    pub source: String,
    /// Options of the file system (the per-mount options do not affect caching).
    pub options: String,
    /// Line number: of two mounts on one mount point, the later one hides the other.
    pub line: usize,
}

impl Mount {
    /// True if it is of the file system with this kernel `dev_t`.
    pub(crate) fn is_of(&self, dev: u32) -> bool {
        self.dev == format!("{}:{}", dev >> 20, dev & 0xf_ffff)
    }
}

/// The mounts of one process by mount id.
pub(crate) type Mounts = HashMap<i32, Mount>;

/// Reads /proc/PID/mountinfo; empty if the process is gone.
pub(crate) fn of_process(pid: u32) -> Mounts {
    let text = fs::read(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    let mut mounts = parse(&text);
    add_defaults(&mut mounts);
    mounts
}

/// Adds `data=journal` to the options of ext4 file systems that have it as a default. mountinfo
/// does not list defaults stored in the file system itself (`tune2fs -o journal_data`;
/// fs/ext4/super.c:_ext4_show_options). A container host mounts one file system many times, so each
/// device is looked up once.
fn add_defaults(mounts: &mut Mounts) {
    let mut asked = HashMap::new();
    let silent = |mount: &&mut Mount| mount.fs == "ext4" && !mount.options.contains("data=");
    for mount in mounts.values_mut().filter(silent) {
        let journals = || journals_data(&mount.dev) == Some(true);
        if *asked.entry(mount.dev.clone()).or_insert_with(journals) {
            mount.options.push_str(",data=journal");
        }
    }
}

/// True if the ext4 file system on `dev` journals data. /proc/fs/ext4/DEVICE/options lists all
/// options, defaults included. `None` if it cannot be read.
fn journals_data(dev: &str) -> Option<bool> {
    let device = fs::read_link(format!("/sys/dev/block/{dev}")).ok()?;
    let file = Path::new("/proc/fs/ext4").join(device.file_name()?).join("options");
    let options = fs::read_to_string(file).ok()?;
    Some(options.lines().any(|option| option == "data=journal"))
}

/// Parses mountinfo; a malformed line is skipped.
pub(crate) fn parse(text: &[u8]) -> Mounts {
    let lines = text.split(|&b| b == b'\n').enumerate();
    lines.filter_map(|(number, line)| parse_line(number, line)).collect()
}

fn parse_line(number: usize, line: &[u8]) -> Option<(i32, Mount)> {
    let words: Vec<&[u8]> = line.split(|&b| b == b' ').collect();
    let id = std::str::from_utf8(words.first()?).ok()?.parse().ok()?;
    // "id parent maj:min root point options [optional…] - fs source superoptions"
    let dash = words.iter().skip(6).position(|w| *w == b"-")? + 6;
    let text = |word: Option<&&[u8]>| Some(String::from_utf8_lossy(word?).into_owned());
    let mount = Mount {
        dev: text(words.get(2))?,
        root: unescape(words.get(3)?),
        point: unescape(words.get(4)?),
        fs: text(words.get(dash + 1))?,
        source: String::from_utf8_lossy(&unescape(words.get(dash + 2)?)).into_owned(),
        options: text(words.get(dash + 3))?,
        line: number,
    };
    Some((id, mount))
}

/// The mount that an absolute path is on.
pub(crate) fn of_path<'a>(mounts: &'a Mounts, path: &Path) -> Option<&'a Mount> {
    let point = |mount: &'a Mount| Path::new(OsStr::from_bytes(&mount.point));
    let over = mounts.values().filter(|mount| path.starts_with(point(mount)));
    over.max_by_key(|mount| (mount.point.len(), mount.line))
}

/// Where a path within a file system is seen, by the mount that shows the most of it; `dev` is the
/// kernel's `dev_t` of the file system.
pub(crate) fn mounted(mounts: &Mounts, dev: u32, path: &[u8]) -> Option<Vec<u8>> {
    let path = Path::new(OsStr::from_bytes(path));
    let root = |mount: &'_ Mount| OsStr::from_bytes(&mount.root).to_owned();
    let over = mounts.values().filter(|mount| mount.is_of(dev) && path.starts_with(root(mount)));
    let mount = over.min_by_key(|mount| (mount.root.len(), mount.point.len(), mount.line))?;
    let below = path.strip_prefix(root(mount)).ok()?;
    let at = Path::new(OsStr::from_bytes(&mount.point));
    let found = if below.as_os_str().is_empty() { at.to_owned() } else { at.join(below) };
    Some(found.into_os_string().into_encoded_bytes())
}

/// Decodes octal escapes such as `\040`.
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = (byte == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        if let Some(value) = octal {
            out.push(value);
            rest = &tail[3..];
        } else {
            out.push(byte);
            rest = tail;
        }
    }
    out
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn a_path_within_a_file_system_is_found_where_it_is_mounted() {
        let at = |root: &str, point: &str, line| Mount { root: root.into(), line, ..mount(point) };
        let mounts =
            |list: &[Mount]| list.iter().cloned().zip(0..).map(|(m, id)| (id, m)).collect();
        let found = |list: &[Mount], path: &str| {
            mounted(&mounts(list), 8 << 20 | 1, path.as_bytes())
                .map(|path| String::from_utf8(path).expect("UTF-8"))
        };
        let both = [at("/data", "/srv", 1), at("/", "/mnt/t", 0)];
        assert_eq!(found(&both, "/data/a/f").as_deref(), Some("/mnt/t/data/a/f"));
        assert_eq!(found(&both[..1], "/data/a/f").as_deref(), Some("/srv/a/f"));
        assert_eq!(found(&both[..1], "/data").as_deref(), Some("/srv"));
        assert_eq!(found(&both[..1], "/database/f"), None, "another directory");
        assert_eq!(found(&[at("/", "/", 0)], "/f").as_deref(), Some("/f"));
        assert_eq!(mounted(&mounts(&both), 8 << 20 | 2, b"/data/f"), None, "another file system");
    }

    pub(crate) fn mount(point: &str) -> Mount {
        Mount {
            dev: "8:1".to_owned(),
            root: b"/".to_vec(),
            point: point.into(),
            fs: "ext4".to_owned(),
            source: "/dev/sda1".to_owned(),
            options: String::new(),
            line: 0,
        }
    }

    #[test]
    fn a_line_is_read_with_its_escapes() {
        let text = b"36 35 98:0 /a\\040b /mnt/x\\134y rw,noatime shared:1 master:2 - ext4 /dev/vda rw,data=journal\n\
            broken line\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 1);
        let mount = &mounts[&36];
        assert_eq!(mount.dev, "98:0");
        assert_eq!(mount.root, b"/a b");
        assert_eq!(mount.point, b"/mnt/x\\y");
        assert_eq!((mount.fs.as_str(), mount.options.as_str()), ("ext4", "rw,data=journal"));
        assert_eq!(mount.source, "/dev/vda");
    }

    #[test]
    fn a_path_lies_on_the_deepest_mount_above_it() {
        let text = b"1 0 8:1 / / rw - ext4 /dev/a rw\n\
            2 1 8:2 / /var rw - xfs /dev/b rw\n\
            3 1 8:3 / /var/lib/x rw - btrfs /dev/c rw\n\
            9 1 0:5 / /net rw - autofs auto rw\n\
            4 9 0:6 / /net rw - nfs4 server:/ rw\n";
        let mounts = parse(text);
        let fs = |path: &str| of_path(&mounts, Path::new(path)).map(|mount| mount.fs.as_str());
        assert_eq!(fs("/var/lib/x/upper"), Some("btrfs"));
        assert_eq!(fs("/var/lib/xy"), Some("xfs"));
        assert_eq!(fs("/etc"), Some("ext4"));
        assert_eq!(fs("/net/file"), Some("nfs4"));
        assert_eq!(fs("relative"), None);
    }
}
