//! Size limits for the items of a recording, so that a hostile file cannot exhaust memory. A reader
//! skips and counts larger items; the writer never produces them. Limits are in bytes unless they
//! say otherwise.

use crate::{
    model::FileInfo,
    recording::format::{Fact, Header, Kind, Scope},
    system::stack::MAX_FRAMES,
};

/// A path: PATH_MAX twice (mount point and names), each byte escaped to four.
pub const PATH: usize = 32 << 10;
/// Mount options; those of an overlay contain the paths of its layers.
pub const OPTIONS: usize = 64 << 10;
/// Any other name.
pub const NAME: usize = 2_048;
/// Number of devices below a file.
pub const LAYERS: usize = 64;
/// A command name; the kernel's is 16 bytes.
const COMM: usize = 64;
/// A line of facts. Parsed, it takes sixteen times as much memory at worst.
pub(super) const LINE: usize = 1 << 20;
/// Number of entries of a list in the header.
const LIST: usize = 512;
/// The traced command in the header: memory of all its words.
const COMMAND: usize = 256 << 10;
/// A probe's name, and the reason why it is missing.
const TEXT: usize = 1_024;
/// The reason why the recording ended.
pub(super) const WHY: usize = 4_096;
/// Number of statistics in one block of totals.
pub(super) const STATS: usize = 1_024;

/// Any block, uncompressed.
pub(super) const BLOCK: usize = 16 << 20;

/// The limit for a block of this kind, both uncompressed and as stored.
pub(super) const fn of_block(kind: Option<Kind>) -> usize {
    match kind {
        Some(Kind::Header | Kind::Totals) => 4 << 20,
        Some(Kind::Facts) => 2 << 20,
        Some(Kind::End) => 64 << 10,
        Some(Kind::Requests) | None => BLOCK,
    }
}

impl Fact {
    /// False if a field is larger than a reader accepts.
    #[must_use]
    pub fn is_within(&self) -> bool {
        match self {
            Self::File(file) => file.info.is_within(),
            Self::Task(task) => task.comm.len() <= COMM,
            Self::Process(process) => process.name.len() <= NAME,
            Self::Stack(stack) => {
                let names = stack.frames.iter().flat_map(|frame| [&frame.symbol, &frame.module]);
                stack.frames.len() <= MAX_FRAMES && names.flatten().all(|name| name.len() <= NAME)
            }
            Self::RejectedOpen(_) | Self::BufferedUse(_) => true,
        }
    }
}

impl Header {
    /// Truncates texts and lists that exceed the limits. Returns how many texts were truncated and
    /// list entries removed.
    pub(super) fn cut(&mut self) -> u64 {
        let mut cut = 0;
        let Self {
            tool, host, kernel, boot, attach, attached, missing, dark, blind, scope, ..
        } = self;
        for text in [tool, host, kernel, boot, attach] {
            cut += shorten(text, NAME);
        }
        cut += shorten_list(attached, LIST);
        cut += shorten_list(blind, LIST);
        attached.iter_mut().chain(blind).for_each(|probe| cut += shorten(probe, TEXT));
        for pairs in [missing, dark] {
            cut += shorten_list(pairs, LIST);
            pairs.iter_mut().for_each(|(a, b)| cut += shorten(a, TEXT) + shorten(b, TEXT));
        }
        if let Scope::Command(words) = scope {
            cut += shorten_command(words);
        }
        cut
    }
}

/// Removes the last words of a command that is too long.
fn shorten_command(words: &mut Vec<String>) -> u64 {
    let (mut left, mut fit) = (COMMAND, 0);
    for word in words.iter() {
        let Some(rest) = left.checked_sub(word.len() + size_of::<String>()) else { break };
        (left, fit) = (rest, fit + 1);
    }
    shorten_list(words, fit)
}

fn shorten_list<T>(list: &mut Vec<T>, most: usize) -> u64 {
    let more = list.len().saturating_sub(most);
    list.truncate(most);
    list.shrink_to_fit();
    more as u64
}

fn shorten(text: &mut String, most: usize) -> u64 {
    if text.len() <= most {
        return 0;
    }
    text.truncate(text.floor_char_boundary(most));
    text.shrink_to_fit();
    1
}

impl FileInfo {
    /// False if a field is larger than the reader of a recording accepts.
    pub(crate) fn is_within(&self) -> bool {
        let Self { path, fs, options, dev, below, volume, attrs, .. } = self;
        let below_fits =
            |(fs, options): &(String, String)| fs.len() <= NAME && options.len() <= OPTIONS;
        path.len() <= PATH
            && fs.len().max(dev.len()) <= NAME
            && volume.as_ref().is_none_or(|volume| volume.len() <= NAME)
            && options.len() <= OPTIONS
            && below.as_ref().is_none_or(below_fits)
            && attrs.device.layers.len().max(attrs.profiles.len()) <= LAYERS
            && attrs.device.layers.iter().all(|layer| layer.bytes() <= PATH)
    }

    /// Truncates options that are longer than the reader of a recording accepts, after a complete
    /// one.
    pub(crate) fn cut_options(&mut self) {
        let below = self.below.iter_mut().map(|(_, options)| options);
        for options in below.chain([&mut self.options]) {
            if options.len() > OPTIONS {
                let whole = options.floor_char_boundary(OPTIONS);
                options.truncate(options[..whole].rfind(',').unwrap_or(whole));
            }
        }
    }
}
