//! Addresses on a stack to functions.

use std::{collections::HashMap, sync::Arc};

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

/// Stacks whose functions are remembered at the same time; more are looked up anew.
const MAX_STACKS: usize = 16_384;

/// Bytes of one name.
const MAX_NAME: usize = 512;

/// The addresses of a stack by the number that a request has, innermost first.
pub type Addresses = Box<dyn Fn(u16) -> Vec<u64>>;

/// Looks functions up, once a stack.
pub struct Stacks {
    addresses: Addresses,
    /// By process, for the same addresses are other functions in another one.
    known: HashMap<(u32, u16), Option<Arc<Stack>>>,
    next: u32,
}

impl Stacks {
    /// With the map that the probes put them in.
    #[must_use]
    pub fn new(addresses: Addresses) -> Self {
        Self { addresses, known: HashMap::new(), next: 0 }
    }

    /// The stack of that number in that process.
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

/// Anew for each stack: a symbolizer keeps every file that it saw open and mapped, and no file
/// system with one of them could be unmounted.
fn symbolizer() -> Symbolizer {
    // Symbols alone: reading a database's debug information takes seconds, in which events wait.
    Symbolizer::builder().enable_code_info(false).enable_inlined_fns(false).build()
}

fn frames(tgid: u32, addresses: &[u64]) -> Vec<Frame> {
    let symbolizer = symbolizer();
    // All but the first are where a call returns to: the call itself lies before that.
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

/// What the process's files say; nothing once it is gone.
fn look_up<'a>(symbolizer: &'a Symbolizer, tgid: u32, calls: &[u64]) -> Vec<Symbolized<'a>> {
    let mut process = Process::new(Pid::from(tgid));
    process.debug_syms = false;
    let ask = |process| symbolizer.symbolize(&Source::Process(process), Input::AbsAddr(calls));
    ask(process.clone())
        .or_else(|_| {
            // Without CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE: by their paths.
            process.map_files = false;
            ask(process)
        })
        .unwrap_or_default()
}

/// The files that a process has mapped.
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

/// A line of /proc/PID/maps that has a file.
fn mapping(line: &[u8]) -> Option<(u64, u64, String)> {
    let mut words = line.splitn(6, |byte| *byte == b' ');
    let (from, to) = std::str::from_utf8(words.next()?).ok()?.split_once('-')?;
    let at = |hex| u64::from_str_radix(hex, 16).ok();
    let file = words.nth(4)?.trim_ascii_start();
    (!file.is_empty()).then(|| Some((at(from)?, at(to)?, name(file))))?
}

/// A name for a screen: C++ has names of kilobytes.
fn name(bytes: &[u8]) -> String {
    escape(&bytes[..bytes.len().min(MAX_NAME)])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by its own name, in its own file.
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
        // Gone: its addresses are left.
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
        // Other tests look functions up meanwhile, in the same file.
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
