//! Reads a recording, including damaged and truncated ones.

use std::io::{Read, Seek};

use anyhow::{Result, bail};

use crate::recording::format::{
    BlockInfo, Columns, Damage, End, Fact, Header, Kind, TotalsFact,
    block::{Blocks, Step},
    bounds,
};

/// The contents of one block, or damage. Items are in the order in which they were written.
#[derive(Debug)]
pub enum Item<'a> {
    Facts(Vec<Fact>),
    Requests(&'a Columns),
    Totals(Box<TotalsFact>),
    End(End),
    /// A part that could not be read; reading continues after it.
    Damage(Damage),
    /// The second copy of the header.
    Header,
    /// A block of a kind that this version does not know.
    Other,
}

/// Reads a recording block by block; memory does not grow with the size of the file.
pub struct Reader<R> {
    blocks: Blocks<R>,
    columns: Columns,
    header: Header,
    /// Damage before the header, not returned as an item yet.
    before: Option<Damage>,
    /// The block that the last item came from.
    info: Option<BlockInfo>,
    /// Facts and texts that exceed the limits in [`bounds`].
    too_large: u64,
}

impl<R: Read + Seek> Reader<R> {
    /// Opens a recording and reads its header.
    ///
    /// # Errors
    /// If it is not a recording, its version is not supported, or both copies of its header are
    /// damaged. The error contains the offset.
    pub fn open(input: R) -> Result<Self> {
        let mut blocks = Blocks::open(input)?;
        let (mut header, before) = header(&mut blocks)?;
        let too_large = header.cut();
        Ok(Self { blocks, columns: Columns::default(), header, before, info: None, too_large })
    }

    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The file's format version.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.blocks.version()
    }

    #[must_use]
    pub const fn size(&self) -> u64 {
        self.blocks.size()
    }

    /// The block that the last item came from; `None` if the item was damage.
    #[must_use]
    pub const fn info(&self) -> Option<BlockInfo> {
        self.info
    }

    /// Number of facts and texts of the header that were too large so far. Such facts are skipped,
    /// and such texts truncated.
    #[must_use]
    pub const fn too_large(&self) -> u64 {
        self.too_large
    }

    /// Reads the next item; `None` at the end of the file.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn item(&mut self) -> Result<Option<Item<'_>>> {
        self.info = None;
        if let Some(damage) = self.before.take() {
            return Ok(Some(Item::Damage(damage)));
        }
        let info = match self.blocks.next()? {
            Step::End => return Ok(None),
            Step::Damage(damage) => return Ok(Some(Item::Damage(damage))),
            Step::Block(info) => info,
        };
        self.info = Some(info);
        let raw = &self.blocks.raw;
        let item = match info.kind {
            Some(Kind::Facts) => facts(raw, &mut self.too_large).map(Item::Facts),
            Some(Kind::Requests) => {
                self.columns.decode(raw).map(|()| Item::Requests(&self.columns))
            }
            Some(Kind::Totals) => totals(raw).map(Item::Totals),
            Some(Kind::End) => end(raw).map(Item::End),
            Some(Kind::Header) => Some(Item::Header),
            None => Some(Item::Other),
        };
        Ok(Some(item.unwrap_or_else(|| Item::Damage(senseless(info)))))
    }
}

/// Reads the first valid header, and the damage before it, that is, of the first copy.
fn header<R: Read + Seek>(blocks: &mut Blocks<R>) -> Result<(Header, Option<Damage>)> {
    let mut before: Option<Damage> = None;
    let behind = loop {
        let damage = match blocks.next()? {
            Step::Block(info) if info.kind == Some(Kind::Header) => {
                match serde_json::from_slice(&blocks.raw) {
                    Ok(header) => return Ok((header, before)),
                    Err(_) => senseless(info),
                }
            }
            Step::Damage(damage) => damage,
            other => break other,
        };
        // Consecutive damage is reported as one.
        before.get_or_insert(Damage { bytes: 0, ..damage }).bytes += damage.bytes;
    };
    match (before, behind) {
        (Some(Damage { offset, what, .. }), _) => {
            bail!("its header is damaged, so nothing after it can be read: offset {offset}: {what}")
        }
        (None, Step::Block(info)) => bail!("offset {}: the header is missing", info.offset),
        (None, _) => bail!("cut before its header (offset {})", blocks.size()),
    }
}

/// Reports a block with a correct checksum whose contents are malformed.
fn senseless(info: BlockInfo) -> Damage {
    let bytes = u64::from(info.stored) + super::block::HEAD as u64;
    let what = "the contents of a block cannot be decoded".to_owned();
    Damage { offset: info.offset, bytes, what }
}

/// Parses a block of facts. Unknown facts are skipped: a later version may have written them.
fn facts(raw: &[u8], too_large: &mut u64) -> Option<Vec<Fact>> {
    let text = std::str::from_utf8(raw).ok()?;
    let mut fact = |line: &str| {
        let fact = (line.len() <= bounds::LINE).then(|| serde_json::from_str::<Fact>(line));
        let small = fact.as_ref().is_some_and(|fact| fact.as_ref().is_ok_and(Fact::is_within));
        let unknown = fact.as_ref().is_some_and(Result::is_err);
        *too_large += u64::from(!small && !unknown);
        fact.filter(|_| small)?.ok()
    };
    Some(text.lines().filter_map(&mut fact).collect())
}

/// Parses a block of totals; `None` if it is malformed or has too many statistics.
fn totals(raw: &[u8]) -> Option<Box<TotalsFact>> {
    let totals: Box<TotalsFact> = serde_json::from_slice(raw).ok()?;
    let named = || totals.stats.iter().chain(&totals.skipped);
    let few = named().count() <= bounds::STATS;
    (few && named().all(|(name, _)| name.len() <= bounds::NAME)).then_some(totals)
}

fn end(raw: &[u8]) -> Option<End> {
    let end: End = serde_json::from_slice(raw).ok()?;
    (end.why.len() <= bounds::WHY).then_some(end)
}
