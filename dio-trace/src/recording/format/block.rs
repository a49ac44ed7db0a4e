//! Blocks of a recording: each has a header with lengths and checksums, is compressed, and can be
//! read without the others.

use std::io::{self, Read, Seek, SeekFrom};

use crate::recording::format::{Kind, MAGIC, PREFIX, VERSION, bounds};

/// Bytes of a block's header.
pub(super) const HEAD: usize = 24;
/// First bytes of every block. A reader searches for them after damage.
const MARKER: [u8; 4] = *b"\xd1oB\n";
/// Most bytes of one block, before and after compression. A reader must be able to hold them.
const MAX_RAW: usize = bounds::BLOCK;
const CODEC_NONE: u8 = 0;
const CODEC_ZSTD: u8 = 1;
/// Compression level: fast, and close to the best ratio for columns.
const LEVEL: i32 = 1;

/// The first bytes of a file of this version.
pub(super) fn prefix(version: u32) -> [u8; PREFIX] {
    let mut out = [0; PREFIX];
    out[..8].copy_from_slice(&MAGIC);
    out[8..12].copy_from_slice(&version.to_le_bytes());
    let check = crc32fast::hash(&out[..12]);
    out[12..].copy_from_slice(&check.to_le_bytes());
    out
}

/// Checks the first bytes of a file. Returns its version, or why it cannot be read.
pub(super) fn check_prefix(bytes: &[u8]) -> Result<u32, String> {
    if bytes.is_empty() {
        return Err("empty: nothing was written to it".to_owned());
    }
    if !MAGIC.iter().zip(bytes).all(|(wanted, byte)| wanted == byte) {
        return Err("not a recording of dio-trace: its first bytes are wrong".to_owned());
    }
    let Some(version) = bytes.get(8..12).and_then(word).filter(|_| bytes.len() >= PREFIX) else {
        return Err(format!("cut within its first {PREFIX} bytes"));
    };
    if bytes.get(12..16).and_then(word) != Some(crc32fast::hash(&bytes[..12])) {
        return Err("damaged in its first 16 bytes (the check sum is wrong)".to_owned());
    }
    if !(1..=VERSION).contains(&version) {
        return Err(format!(
            "format version {version}, and this dio-trace reads up to {VERSION}: use a newer one"
        ));
    }
    Ok(version)
}

fn word(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

/// Encodes a block: header and compressed contents.
///
/// # Errors
/// If the contents are larger than a reader accepts, or the compressor fails.
pub(super) fn encode(kind: Kind, raw: &[u8]) -> io::Result<Vec<u8>> {
    if raw.len() > MAX_RAW {
        return Err(io::Error::other("a block of the recording is too large"));
    }
    let packed = zstd::bulk::compress(raw, LEVEL)?;
    let (codec, stored) =
        if packed.len() < raw.len() { (CODEC_ZSTD, &packed[..]) } else { (CODEC_NONE, raw) };
    let mut out = Vec::with_capacity(HEAD + stored.len());
    out.extend_from_slice(&MARKER);
    out.extend_from_slice(&[kind as u8, codec, 0, 0]);
    out.extend_from_slice(&(raw.len() as u32).to_le_bytes());
    out.extend_from_slice(&(stored.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(stored).to_le_bytes());
    let check = crc32fast::hash(&out);
    out.extend_from_slice(&check.to_le_bytes());
    out.extend_from_slice(stored);
    Ok(out)
}

/// Position and size of a block.
#[derive(Clone, Copy, Debug)]
pub struct BlockInfo {
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// `None` if this version does not know the kind; such a block is skipped.
    pub kind: Option<Kind>,
    /// Bytes of the contents as stored.
    pub stored: u32,
    /// Bytes of the contents, uncompressed.
    pub raw: u32,
}

/// A part of the file that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub offset: u64,
    /// Bytes that were skipped.
    pub bytes: u64,
    pub what: String,
}

struct Head {
    kind: u8,
    codec: u8,
    raw: u32,
    stored: u32,
    check: u32,
}

impl Head {
    fn parse(bytes: &[u8; HEAD]) -> Option<Self> {
        let at = |from: usize| word(&bytes[from..from + 4]);
        let sound = bytes[..4] == MARKER && at(20)? == crc32fast::hash(&bytes[..20]);
        let head =
            Self { kind: bytes[4], codec: bytes[5], raw: at(8)?, stored: at(12)?, check: at(16)? };
        let small = head.raw as usize <= MAX_RAW && head.stored as usize <= MAX_RAW;
        (sound && small).then_some(head)
    }
}

/// One step through a file.
pub(super) enum Step {
    /// A block; its contents are in [`Blocks::raw`], uncompressed.
    Block(BlockInfo),
    Damage(Damage),
    End,
}

/// Iterates over the blocks of a file and the damage between them.
pub(super) struct Blocks<R> {
    input: R,
    version: u32,
    size: u64,
    at: u64,
    stored: Vec<u8>,
    /// Uncompressed contents of the last block.
    pub(super) raw: Vec<u8>,
}

impl<R: Read + Seek> Blocks<R> {
    /// Opens a file and checks its first bytes.
    ///
    /// # Errors
    /// If it is not a recording, or its version is not supported. The error contains the offset.
    pub(super) fn open(mut input: R) -> anyhow::Result<Self> {
        let size = input.seek(SeekFrom::End(0))?;
        input.rewind()?;
        let mut first = Vec::new();
        input.by_ref().take(PREFIX as u64).read_to_end(&mut first)?;
        let version = check_prefix(&first).map_err(|why| anyhow::anyhow!("{why} (offset 0)"))?;
        Ok(Self { input, version, size, at: PREFIX as u64, stored: Vec::new(), raw: Vec::new() })
    }

    pub(super) const fn version(&self) -> u32 {
        self.version
    }

    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Reads the next block, damage, or the end.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(super) fn next(&mut self) -> io::Result<Step> {
        let start = self.at;
        let left = self.size - start;
        if left == 0 {
            return Ok(Step::End);
        }
        let Some(head) = self.head(left)? else { return self.resync(start) };
        let whole = (HEAD as u64) + u64::from(head.stored);
        if whole > left {
            self.at = self.size;
            return Ok(damage(start, left, "the file ends within a block"));
        }
        self.at = start + whole;
        let kind = Kind::from_u8(head.kind);
        let most = bounds::of_block(kind);
        if head.raw as usize > most || head.stored as usize > most {
            let name = kind.map_or("other", Kind::as_str);
            let what = format!("a block of {name} is too large: more than {most} bytes");
            return Ok(damage(start, whole, &what));
        }
        self.stored.resize(head.stored as usize, 0);
        self.input.read_exact(&mut self.stored)?;
        if crc32fast::hash(&self.stored) != head.check {
            return Ok(damage(start, whole, "the check sum of a block is wrong"));
        }
        // Blocks of unknown kinds are not decompressed.
        let unpacked = if kind.is_some() { self.unpack(&head) } else { Ok(()) };
        if let Err(what) = unpacked {
            return Ok(damage(start, whole, &what));
        }
        Ok(Step::Block(BlockInfo { offset: start, kind, stored: head.stored, raw: head.raw }))
    }

    /// Reads the block header at the current offset; `None` if it is not valid.
    fn head(&mut self, left: u64) -> io::Result<Option<Head>> {
        if left < HEAD as u64 {
            return Ok(None);
        }
        let mut bytes = [0; HEAD];
        self.input.seek(SeekFrom::Start(self.at))?;
        self.input.read_exact(&mut bytes)?;
        Ok(Head::parse(&bytes))
    }

    fn unpack(&mut self, head: &Head) -> Result<(), String> {
        match head.codec {
            CODEC_NONE if head.raw == head.stored => {
                std::mem::swap(&mut self.raw, &mut self.stored);
            }
            CODEC_NONE => return Err("a block's two lengths differ".to_owned()),
            CODEC_ZSTD => {
                self.raw.resize(head.raw as usize, 0);
                let got = zstd::bulk::decompress_to_buffer(&self.stored, &mut self.raw[..]);
                if got.ok() != Some(head.raw as usize) {
                    return Err("a block does not unpack to the length it says".to_owned());
                }
            }
            other => return Err(format!("a block uses an unknown codec ({other})")),
        }
        Ok(())
    }

    /// Searches for the next valid block header after `start`.
    fn resync(&mut self, start: u64) -> io::Result<Step> {
        const WINDOW: usize = 64 << 10;
        let mut window = vec![0; WINDOW];
        let mut from = start + 1;
        while from + HEAD as u64 <= self.size {
            let len = usize::try_from(self.size - from).unwrap_or(WINDOW).min(WINDOW);
            self.input.seek(SeekFrom::Start(from))?;
            self.input.read_exact(&mut window[..len])?;
            let heads = window[..len].array_windows::<HEAD>();
            if let Some(at) = heads.enumerate().find_map(|(at, w)| Head::parse(w).map(|_| at)) {
                self.at = from + at as u64;
                return Ok(damage(start, self.at - start, "no block begins here"));
            }
            from += (len - HEAD + 1) as u64;
        }
        self.at = self.size;
        let left = self.size - start;
        let what = if left < HEAD as u64 {
            "the file ends within a block"
        } else {
            "no block begins here"
        };
        Ok(damage(start, left, what))
    }
}

fn damage(offset: u64, bytes: u64, what: &str) -> Step {
    Step::Damage(Damage { offset, bytes, what: what.to_owned() })
}
