//! `dio-trace inspect`: lists the blocks of a recording.

use std::{
    io::{BufWriter, Write as _},
    path::Path,
};

use anyhow::Result;

use crate::{
    cli::input::Input,
    recording::format::Item,
    util::{escape::escape, stdio::Stdout},
};

/// Prints the header, the blocks and the damage of a recording.
pub(super) fn run(path: &Path) -> Result<()> {
    let input = Input::open(path)?;
    let mut reader = input.reader()?;
    let mut out = BufWriter::new(Stdout::new());
    writeln!(out, "{}: format version {}, {} bytes", input.name, reader.version(), reader.size())?;
    let header = serde_json::to_string_pretty(reader.header())?;
    for line in header.lines() {
        writeln!(out, "{}", escape(line.as_bytes()))?;
    }
    writeln!(out, "{:>12} {:>9} {:>9} {:<9} HOLDS", "OFFSET", "STORED", "RAW", "KIND")?;
    let (mut blocks, mut requests, mut stored, mut broken) = (1u64, 0u64, 0u64, 0u64);
    while let Some(item) = reader.item()? {
        let holds = match item {
            Item::Facts(facts) => format!("{} facts", facts.len()),
            Item::Requests(columns) => format!("{} requests", columns.len()),
            Item::Totals(totals) => format!(
                "{} counters, {} mixers, {} dropped",
                totals.counters.len(),
                totals.buffered_uses.len(),
                totals.dropped
            ),
            Item::End(end) => escape(end.why.as_bytes()),
            Item::Header => "the header again".to_owned(),
            Item::Other => "unknown to this version".to_owned(),
            Item::Damage(damage) => {
                broken += 1;
                writeln!(
                    out,
                    "{:>12} {:>9} {:>9} {:<9} {}",
                    damage.offset, damage.bytes, "-", "damage", damage.what
                )?;
                continue;
            }
        };
        let Some(info) = reader.info() else { continue };
        blocks += 1;
        let kind = info.kind.map_or("other", crate::recording::format::Kind::as_str);
        if let (Some(n), "requests") =
            (holds.split(' ').next().and_then(|n| n.parse::<u64>().ok()), kind)
        {
            (requests, stored) = (requests + n, stored + u64::from(info.stored));
        }
        let (offset, packed, raw) = (info.offset, info.stored, info.raw);
        writeln!(out, "{offset:>12} {packed:>9} {raw:>9} {kind:<9} {holds}")?;
    }
    if reader.too_large() != 0 {
        writeln!(out, "{} facts or texts exceed the reader's limits", reader.too_large())?;
    }
    let each = stored as f64 / requests.max(1) as f64;
    writeln!(out, "{blocks} blocks, {broken} damaged; {requests} requests, {each:.1} bytes each")?;
    Ok(out.flush()?)
}
