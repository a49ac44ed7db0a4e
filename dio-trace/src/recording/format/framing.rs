//! Builds recordings from arbitrary blocks, for fuzzing.

use std::io;
#[cfg(test)]
use std::io::Cursor;

use crate::recording::format::{
    Header, Kind, VERSION,
    block::{encode, prefix},
};

/// Builds a file of blocks with valid block headers. If the first block is not a recording's
/// header, one is inserted.
pub(crate) fn framed(blocks: &[(u8, &[u8])]) -> io::Result<Vec<u8>> {
    let mut file = prefix(VERSION).to_vec();
    if blocks.first().is_none_or(|(kind, _)| Kind::from_u8(*kind) != Some(Kind::Header)) {
        file.extend(encode(Kind::Header, &serde_json::to_vec(&Header::default())?)?);
    }
    for (kind, raw) in blocks {
        if let Some(kind) = Kind::from_u8(*kind) {
            file.extend(encode(kind, raw)?);
        }
    }
    Ok(file)
}

/// Splits a file into its blocks: (kind, contents).
#[cfg(test)]
pub(crate) fn unframed(file: &[u8]) -> anyhow::Result<Vec<(u8, Vec<u8>)>> {
    use super::block::{Blocks, Step};
    let mut blocks = Blocks::open(Cursor::new(file))?;
    let mut out = Vec::new();
    while let Step::Block(info) = blocks.next()? {
        out.push((info.kind.map_or(0, |kind| kind as u8), blocks.raw.clone()));
    }
    Ok(out)
}
