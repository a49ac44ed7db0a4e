//! What a process has at an address: looks a buffer up in /proc/PID/maps.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader, Read as _},
    time::{Duration, Instant},
};

use crate::util::escape::escape;

/// Most bytes read of a table of mappings. A larger process is left without an answer.
const MAX_READ: u64 = 16 << 20;

/// What a request needs of its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Need {
    /// A write takes data from it.
    Readable,
    /// A read puts data into it.
    Writable,
}

/// A buffer as it was mapped shortly after a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Nothing is mapped at this byte of the buffer.
    Unmapped { byte: u64 },
    /// The mapping at this byte permits no access at all (PROT_NONE), as a guard page does.
    Guard { byte: u64 },
    /// The mapping at this byte does not permit the access that the request needs.
    Forbidden { byte: u64, name: String },
    /// Memory of a device (VM_IO or VM_PFNMAP), which the kernel does not pin
    /// (mm/gup.c:check_vma_flags).
    Device { name: String },
    /// Memory of memfd_secret(2), which the kernel does not pin (mm/gup.c, since 5.14).
    Secret,
    /// Mapped as the request needs it.
    Mapped,
}

/// Buffers that were looked up lately. A process that repeats a bad request does not have its
/// mappings read each time: reading them takes its lock of the address space.
#[derive(Default)]
pub(crate) struct RecentMemory {
    known: HashMap<(u32, u64, u64, Need), Option<Memory>>,
    /// When the first of `known` was looked up.
    since: Option<Instant>,
}

/// How long an answer is kept, and how many processes' mappings are read in that time.
const FRESH: Duration = Duration::from_secs(1);
const MAX_KNOWN: usize = 16;

impl RecentMemory {
    /// [`look`], at most [`MAX_KNOWN`] times a second; `None` beyond that.
    pub(crate) fn look(&mut self, pid: u32, address: u64, len: u64, need: Need) -> Option<Memory> {
        if self.since.is_none_or(|since| since.elapsed() > FRESH) {
            self.known.clear();
            self.since = Some(Instant::now());
        }
        let key = (pid, address, len, need);
        if !self.known.contains_key(&key) {
            if self.known.len() >= MAX_KNOWN {
                return None;
            }
            self.known.insert(key, look(pid, address, len, need));
        }
        self.known.get(&key).cloned().flatten()
    }
}

/// A mapping of a process.
struct Mapping {
    start: u64,
    end: u64,
    /// Four letters, as "rw-p".
    permissions: String,
    /// Escaped; empty for anonymous memory.
    name: String,
}

/// Looks up the `len` bytes at `address` in the process `pid`; `None` if it has exited (the table of
/// a zombie is empty) or has too many mappings.
fn look(pid: u32, address: u64, len: u64, need: Need) -> Option<Memory> {
    let maps = BufReader::new(File::open(format!("/proc/{pid}/maps")).ok()?.take(MAX_READ));
    let found = examine(maps, address, len, need)?;
    Some(match found {
        Found::Trouble(memory) => memory,
        Found::Fine(mapping) if mapping.name.starts_with("/secretmem") => Memory::Secret,
        Found::Fine(mapping) if is_device(pid, &mapping) => Memory::Device { name: mapping.name },
        Found::Fine(_) => Memory::Mapped,
    })
}

enum Found {
    Trouble(Memory),
    /// All bytes are mapped as needed; the first mapping that has a name, else the first.
    Fine(Mapping),
}

/// Walks the mappings, which are in ascending order, through the buffer.
fn examine(maps: impl BufRead, address: u64, len: u64, need: Need) -> Option<Found> {
    let stop = address.checked_add(len)?;
    let mut at = address;
    let (mut kept, mut empty) = (None::<Mapping>, true);
    for line in maps.split(b'\n') {
        let Some(mapping) = parse(&line.ok()?) else { continue };
        empty = false;
        if mapping.end <= at {
            continue;
        }
        let byte = at - address;
        if mapping.start > at {
            return Some(Found::Trouble(Memory::Unmapped { byte }));
        }
        if let Some(trouble) = refusal(&mapping, byte, need) {
            return Some(Found::Trouble(trouble));
        }
        at = mapping.end;
        if kept.as_ref().is_none_or(|kept| kept.name.is_empty()) {
            kept = Some(mapping);
        }
        if at >= stop {
            return kept.map(Found::Fine);
        }
    }
    (!empty).then(|| Found::Trouble(Memory::Unmapped { byte: at - address }))
}

fn refusal(mapping: &Mapping, byte: u64, need: Need) -> Option<Memory> {
    let may = |letter| mapping.permissions.contains(letter);
    if !may('r') && !may('w') && !may('x') {
        return Some(Memory::Guard { byte });
    }
    let permitted = match need {
        Need::Readable => may('r'),
        Need::Writable => may('w'),
    };
    (!permitted).then(|| Memory::Forbidden { byte, name: mapping.name.clone() })
}

/// Parses a line of /proc/PID/maps, or the first line of a mapping in /proc/PID/smaps:
/// "start-end perms offset dev inode   name".
fn parse(line: &[u8]) -> Option<Mapping> {
    let line = String::from_utf8_lossy(line);
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let mut fields = rest.splitn(5, ' ');
    let permissions = fields.next().filter(|text| text.len() == 4)?.to_owned();
    let name = fields.nth(3).unwrap_or("").trim_start();
    Some(Mapping { start: hex(start)?, end: hex(end)?, permissions, name: escape(name.as_bytes()) })
}

/// True if the flags of the mapping in /proc/PID/smaps are those of device memory. The file is read
/// only for a mapping of a file: reading it makes the kernel walk the page tables of the process.
fn is_device(pid: u32, mapping: &Mapping) -> bool {
    if mapping.name.is_empty() || mapping.name.starts_with('[') {
        return false;
    }
    let Ok(smaps) = File::open(format!("/proc/{pid}/smaps")) else { return false };
    has_device_flags(BufReader::new(smaps.take(MAX_READ)), mapping.start)
}

fn has_device_flags(smaps: impl BufRead, start: u64) -> bool {
    let mut inside = false;
    for line in smaps.split(b'\n').map_while(Result::ok) {
        if let Some(mapping) = parse(&line) {
            if inside {
                return false;
            }
            inside = mapping.start == start;
        } else if inside && line.starts_with(b"VmFlags:") {
            let flags = String::from_utf8_lossy(&line).into_owned();
            return flags.split_whitespace().any(|flag| matches!(flag, "io" | "pf"));
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
5500000000-5500002000 r--p 00000000 fe:01 12    /bin/db
7f0000000000-7f0000001000 rw-p 00000000 00:00 0
7f0000001000-7f0000002000 ---p 00000000 00:00 0
7f0000004000-7f0000006000 rw-p 00000000 00:00 0
7f0000006000-7f0000016000 rw-s 000f0000 00:05 3    /dev/mem
7f0000016000-7f0000017000 r--s 00000000 00:05 3    /data/a b\n";

    fn memory(address: u64, len: u64, need: Need) -> Option<Memory> {
        match examine(MAPS.as_bytes(), address, len, need)? {
            Found::Trouble(memory) => Some(memory),
            Found::Fine(_) => Some(Memory::Mapped),
        }
    }

    #[test]
    fn the_first_byte_that_cannot_be_used_is_found() {
        use Need::{Readable, Writable};
        assert_eq!(memory(0x7f00_0000_0000, 4096, Writable), Some(Memory::Mapped));
        let guard = Some(Memory::Guard { byte: 4096 });
        assert_eq!(memory(0x7f00_0000_0000, 8192, Writable), guard);
        let gap = Some(Memory::Unmapped { byte: 0 });
        assert_eq!(memory(0x7f00_0000_2000, 4096, Readable), gap);
        let end = Some(Memory::Unmapped { byte: 4096 });
        assert_eq!(memory(0x7f00_0001_6000, 8192, Readable), end);
        let forbidden = Memory::Forbidden { byte: 0, name: "/data/a b".to_owned() };
        assert_eq!(memory(0x7f00_0001_6000, 4096, Writable), Some(forbidden));
        assert_eq!(memory(0x7f00_0001_6000, 4096, Readable), Some(Memory::Mapped));
        assert_eq!(memory(0x7f00_0000_4000, 0x3000, Writable), Some(Memory::Mapped));
        assert_eq!(memory(u64::MAX, 4096, Writable), None);
        assert!(examine(&b""[..], 0x1000, 4096, Readable).is_none(), "a zombie");
    }

    #[test]
    fn the_flags_of_device_memory_are_those_of_its_own_mapping() {
        let smaps = "\
7f0000006000-7f0000016000 rw-s 000f0000 00:05 3    /dev/mem
Size:                 64 kB
VmFlags: rd wr sh mr mw me ms pf io dd
7f0000016000-7f0000017000 r--s 00000000 00:05 3    /data/a
VmFlags: rd sh mr mw me ms\n";
        assert!(has_device_flags(smaps.as_bytes(), 0x7f00_0000_6000));
        assert!(!has_device_flags(smaps.as_bytes(), 0x7f00_0001_6000));
        assert!(!has_device_flags(smaps.as_bytes(), 1));
    }

    #[test]
    fn a_process_has_its_own_stack() {
        let value = 0u64;
        let address = &raw const value as u64;
        assert_eq!(look(std::process::id(), address, 8, Need::Writable), Some(Memory::Mapped));
        assert_eq!(look(u32::MAX, address, 8, Need::Writable), None);
    }
}
