//! Resolves the addresses of a stack to functions.

use std::sync::Arc;

use ahash::HashMap;
use blazesym::{
    Pid,
    symbolize::{
        Input, Symbolized, Symbolizer,
        source::{Process, Source},
    },
};

use crate::{
    system::stack::{Frame, Stack},
    util::escape::escape,
};

/// Most resolved stacks that are cached; when the cache is full, it is emptied.
const MAX_STACKS: usize = 16_384;

/// Most bytes of one name.
const MAX_NAME: usize = 512;

/// Returns the addresses of a stack, innermost first, by the id that a request carries.
pub type Addresses = Box<dyn Fn(u16) -> Vec<u64>>;

/// Resolves stacks to functions, each stack once.
pub struct Stacks {
    addresses: Addresses,
    /// By (process, stack id): the same address is another function in another process.
    known: HashMap<(u32, u16), Option<Arc<Stack>>>,
    next: u32,
}

impl Stacks {
    /// `addresses` reads the map that the probes store stacks in.
    #[must_use]
    pub fn new(addresses: Addresses) -> Self {
        Self { addresses, known: HashMap::default(), next: 0 }
    }

    /// The stack with the id `number` of the process `tgid`; `None` if the map does not have it.
    pub fn get(&mut self, tgid: u32, number: u16) -> Option<Arc<Stack>> {
        if let Some(known) = self.known.get(&(tgid, number)) {
            return known.clone();
        }
        if self.known.len() >= MAX_STACKS {
            self.known.clear();
        }
        let addresses = (self.addresses)(number);
        let stack = (!addresses.is_empty()).then(|| {
            self.next += 1;
            Arc::new(Stack { id: self.next, frames: frames(tgid, &addresses) })
        });
        self.known.insert((tgid, number), stack.clone());
        stack
    }
}

/// Creates a symbolizer, a new one for each stack: a symbolizer keeps every file it used open and
/// mapped, so that the file system of such a file could not be unmounted.
fn symbolizer() -> Symbolizer {
    // Only symbols: reading the debug information of a large program takes seconds, and events have
    // to wait meanwhile.
    Symbolizer::builder().enable_code_info(false).enable_inlined_fns(false).build()
}

fn frames(tgid: u32, addresses: &[u64]) -> Vec<Frame> {
    let symbolizer = symbolizer();
    // All addresses but the first are return addresses; the call is the instruction before.
    let back = |i: usize| u64::from(i != 0);
    let calls: Vec<u64> =
        addresses.iter().enumerate().map(|(i, at)| at.saturating_sub(back(i))).collect();
    let found = look_up(&symbolizer, tgid, &calls);
    let mut mapped = None;
    let frame = |(i, address): (usize, &u64)| match found.get(i).and_then(Symbolized::as_sym) {
        Some(symbol) => Frame {
            symbol: Some(name(symbol.name.as_bytes())),
            offset: symbol.offset as u64 + back(i),
            module: symbol.module.as_ref().map(|path| name(path.as_encoded_bytes())),
            address: *address,
        },
        None => {
            let mapped = mapped.get_or_insert_with(|| Mapped::of(tgid));
            Frame { module: mapped.file(calls[i]), address: *address, ..Frame::default() }
        }
    };
    addresses.iter().enumerate().map(frame).collect()
}

/// Resolves addresses by the files that the process has mapped; empty if the process has exited.
fn look_up<'a>(symbolizer: &'a Symbolizer, tgid: u32, calls: &[u64]) -> Vec<Symbolized<'a>> {
    let mut process = Process::new(Pid::from(tgid));
    process.debug_syms = false;
    let ask = |process| symbolizer.symbolize(&Source::Process(process), Input::AbsAddr(calls));
    ask(process.clone())
        .or_else(|_| {
            // /proc/PID/map_files needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE: use paths without.
            process.map_files = false;
            ask(process)
        })
        .unwrap_or_default()
}

/// The files that a process has mapped: (start, end, path) of each mapping.
struct Mapped(Vec<(u64, u64, String)>);

impl Mapped {
    fn of(tgid: u32) -> Self {
        let text = std::fs::read(format!("/proc/{tgid}/maps")).unwrap_or_default();
        Self(text.split(|byte| *byte == b'\n').filter_map(mapping).collect())
    }

    fn file(&self, address: u64) -> Option<String> {
        let (.., file) = self.0.iter().find(|(from, to, _)| (*from..*to).contains(&address))?;
        Some(file.clone())
    }
}

/// Parses a line of /proc/PID/maps; `None` if the mapping has no file.
fn mapping(line: &[u8]) -> Option<(u64, u64, String)> {
    let mut words = line.splitn(6, |byte| *byte == b' ');
    let (from, to) = std::str::from_utf8(words.next()?).ok()?.split_once('-')?;
    let at = |hex| u64::from_str_radix(hex, 16).ok();
    let file = words.nth(4)?.trim_ascii_start();
    (!file.is_empty()).then(|| Some((at(from)?, at(to)?, name(file))))?
}

/// Escapes a name and truncates it to [`MAX_NAME`] bytes: C++ names can be kilobytes long.
fn name(bytes: &[u8]) -> String {
    escape(&bytes[..bytes.len().min(MAX_NAME)])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A function that the test finds by name.
    #[inline(never)]
    fn known_function() -> u64 {
        let here: u64;
        // SAFETY: reads the instruction pointer.
        unsafe { std::arch::asm!("lea {}, [rip]", out(reg) here) };
        std::hint::black_box(here)
    }

    #[test]
    fn functions_of_a_process_are_found() {
        let here = known_function();
        let mut stacks = Stacks::new(Box::new(move |number| match number {
            0 => vec![here, here, 8],
            _ => Vec::new(),
        }));
        let own = std::process::id();
        let stack = stacks.get(own, 0).unwrap();
        let [first, second, nowhere] = &stack.frames[..] else { panic!("{stack:?}") };
        assert!(first.symbol.as_deref().unwrap().contains("known_function"), "{stack:?}");
        assert_eq!((&first.symbol, first.offset), (&second.symbol, second.offset));
        let exe = std::env::current_exe().unwrap();
        assert_eq!(first.module.as_deref(), exe.to_str());
        assert_eq!(nowhere, &Frame { address: 8, ..Frame::default() });
        assert!(Arc::ptr_eq(&stacks.get(own, 0).unwrap(), &stack));
        assert!(stacks.get(own, 1).is_none());
        // The process does not exist: only the addresses are known.
        let gone = stacks.get(u32::MAX >> 1, 0).unwrap();
        assert_eq!((gone.id, gone.frames[0].text()), (2, format!("{here:#x}")));
    }

    #[test]
    fn nothing_stays_open_or_mapped() {
        let exe = std::env::current_exe().unwrap();
        let open = || {
            let fds = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
            fds.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|file| file == exe)).count()
        };
        let mapped = || {
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            maps.lines().filter(|line| line.ends_with(exe.to_str().unwrap())).count()
        };
        // Other tests resolve symbols of the same file at the same time.
        let here = known_function();
        let mut stacks = Stacks::new(Box::new(move |_| vec![here]));
        let before = mapped();
        stacks.get(std::process::id(), 0).unwrap();
        let calm = (0..100).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            open() == 0 && mapped() <= before
        });
        assert!(calm, "{} open, {} mapped, {before} before", open(), mapped());
    }

    #[test]
    fn mappings() {
        let line = b"7f00-7f10 r-xp 00001000 fe:01 42                         /usr/lib/a b.so";
        assert_eq!(mapping(line), Some((0x7f00, 0x7f10, "/usr/lib/a b.so".to_owned())));
        assert_eq!(mapping(b"7f00-7f10 rw-p 00000000 00:00 0 "), None);
        assert_eq!(mapping(b"x"), None);
    }
}
