//! Mounts, as /proc/PID/mountinfo tells them (proc(5)).

use std::{collections::HashMap, fs};

/// One line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// "major:minor" of the file system.
    pub dev: String,
    /// Path inside the file system that is the root of this mount.
    pub root: Vec<u8>,
    /// Where it is mounted, as the process sees it.
    pub point: Vec<u8>,
    pub fs: String,
    /// Options of the file system (those of the mount itself tell nothing about caching).
    pub options: String,
}

/// The mounts of one process by mount id.
pub(crate) type Mounts = HashMap<i32, Mount>;

/// Reads /proc/PID/mountinfo; empty if the process is gone.
pub(crate) fn of_process(pid: u32) -> Mounts {
    fs::read(format!("/proc/{pid}/mountinfo")).map_or_else(|_| Mounts::new(), |text| parse(&text))
}

/// Parses mountinfo; a line that is not as documented is left out.
pub(crate) fn parse(text: &[u8]) -> Mounts {
    text.split(|&b| b == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<(i32, Mount)> {
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
        options: text(words.get(dash + 3))?,
    };
    Some((id, mount))
}

/// `\040` and the like back to bytes.
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
mod tests {
    use super::*;

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
    }
}
