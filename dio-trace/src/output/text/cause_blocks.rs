//! The causes at the end of a run and of a report: each with its reason, its remedy and its files.

use crate::{
    flow::causes::{CauseRow, FILES, ReasonRow},
    output::text::{
        Style,
        columns::{tail, wrap},
    },
    util::figures::{count, counted},
};

/// Causes that have a block; the others have a line.
const BLOCKS: usize = 3;
/// Causes that have a block or a line.
const MAX_CAUSES: usize = 10;

/// The blocks of the causes. The most important cause is the last one: it is still on the screen
/// when the run has ended.
#[must_use]
pub(super) fn cause_blocks(rows: &[CauseRow], style: Style) -> String {
    let (blocks, all) = if style.verbose { (usize::MAX, usize::MAX) } else { (BLOCKS, MAX_CAUSES) };
    // All blocks together must leave room on the screen.
    let files = match rows.len().min(blocks) {
        0 | 1 => FILES,
        2 => FILES / 2,
        _ if style.verbose => FILES,
        _ => 3,
    };
    let text = |(at, row): (usize, &CauseRow)| {
        if at < blocks { block(row, files, style) } else { heading(row, style) }
    };
    let mut out = String::new();
    if rows.len() > all {
        let causes = counted((rows.len() - all) as u64, "more cause");
        out += &format!("… {causes} (--verbose or --json has all)\n");
    }
    let text: Vec<String> = rows.iter().take(all).enumerate().map(text).collect();
    out + &text.into_iter().rev().collect::<String>()
}

/// The line of a cause.
fn heading(row: &CauseRow, style: Style) -> String {
    let (requests, files) = (counted(row.requests, "request"), counted(row.file_count, "file"));
    let text = format!("{}, {requests} on {files}: {}", row.cause, row.title);
    wrap("cause:  ", &text, style.width) + "\n"
}

fn block(row: &CauseRow, files: usize, style: Style) -> String {
    let mut out = heading(row, style);
    let mut last_fix = "";
    for reason in &row.reasons {
        out += &why(reason, row.reason_count, style);
        if reason.fix != last_fix {
            out += &(wrap("  fix: ", &reason.fix, style.width) + "\n");
            last_fix = &reason.fix;
        }
    }
    match row.reason_count.saturating_sub(row.reasons.len() as u64) {
        0 => {}
        n => out += &format!("       … {} of this cause\n", counted(n, "more reason")),
    }
    let mut label = "  on: ";
    for file in row.files.iter().take(files) {
        let fixed = format!("{label} {:>9}  ", count(file.requests));
        let room = if style.cut { style.width.saturating_sub(fixed.len()) } else { usize::MAX };
        out += &format!("{fixed}{}\n", tail(&file.path, room));
        label = "      ";
    }
    match row.file_count.saturating_sub(files as u64) {
        0 => {}
        n => out += &format!("       … {}\n", counted(n, "more file")),
    }
    out
}

/// A reason; with its count if there are several.
fn why(reason: &ReasonRow, of: u64, style: Style) -> String {
    let text = match of {
        1 => reason.why.clone(),
        _ => format!("{}: {}", counted(reason.requests, "request"), reason.why),
    };
    wrap("  why: ", &text, style.width) + "\n"
}
