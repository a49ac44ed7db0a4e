//! The help page: what the keys do and what the columns mean.

use ratatui::{layout::Rect, text::Line};

use crate::output::{
    text::columns::wrap,
    top::{HISTORY, MAX_FINDINGS, MAX_ROWS, Model},
};

const KEYS: &[(&str, &str)] = &[
    ("Up Down PgUp PgDn j k g G", "choose a row"),
    ("Enter", "its last findings, with cause and fix; Esc goes back"),
    ("Tab, or 1 to 7", "rows by process, file, fs, cause, verdict, container, pod"),
    ("s S, Left Right", "sort by the next or previous column; r reverses"),
    ("/", "only rows with a text; Enter keeps it, Esc clears it"),
    ("p, Space", "pause the screen; counting goes on"),
    ("q, Ctrl-C", "quit; Ctrl-Z suspends, Ctrl-L redraws"),
];

const COLUMNS: &[(&str, &str)] = &[
    ("third line", "all requests since the start, by verdict"),
    ("DIRECT", "share of the bytes that went past the page cache"),
    ("FIND/S", "fallbacks, short counts, refusals, flushes a second"),
    ("P50< P99<", "latency: upper bounds, 25 % too high at most"),
    ("in flight", "requests that have not ended"),
];

pub(super) fn text(model: &Model, area: Rect) -> Vec<Line<'static>> {
    let width = usize::from(area.width);
    let mut text = String::new();
    for (what, says) in KEYS.iter().chain(COLUMNS) {
        text += &(wrap(&format!("{what:<26} "), says, width) + "\n");
    }
    let history = format!("requests by interval, {HISTORY} at most, now at the right");
    text += &(wrap(&format!("{:<26} ", "HISTORY"), &history, width) + "\n");
    let kept = format!("{MAX_ROWS} rows of each, {MAX_FINDINGS} kinds of findings");
    text += &(wrap(&format!("{:<26} ", "kept"), &kept, width) + "\n");
    text += &(wrap(&format!("{:<26} ", "probes"), &model.about.probes, width) + "\n");
    for missing in &model.about.missing {
        text += &(wrap(&format!("{:<26} ", "not seen"), missing, width) + "\n");
    }
    text.lines().take(usize::from(area.height)).map(|line| Line::raw(line.to_owned())).collect()
}
