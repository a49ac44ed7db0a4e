//! The findings of a row: one line per finding, and the chosen one in full.

use ratatui::{
    layout::Rect,
    style::Style,
    text::{Line, Span},
};

use crate::{
    flow::explained::ExplainedRequest,
    output::{
        text::{
            columns::{head, tail, wrap},
            screen::{heading, letter, no_request, request, verdict_word},
        },
        top::{
            Finding, Model, What,
            draw::{BOLD, DIM, REVERSED, Theme, pieces},
        },
    },
    util::{
        clock::Zone,
        figures::{count, duration},
    },
};

/// Minimum number of lines of the list: its heading and two findings.
const LEAST: usize = 3;
/// Minimum width for all columns of the list.
const WIDE: usize = 70;

pub(super) fn text(model: &Model, theme: Theme, area: Rect) -> Vec<Line<'static>> {
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let found = model.found();
    let chosen = model.chosen(found.len());
    let Some(finding) = found.get(chosen) else {
        let text = wrap("", &nothing(model), width);
        return text.lines().map(|line| Line::raw(line.to_owned())).collect();
    };
    let zone = &model.about.shown.zone;
    let about = about(finding, zone, width);
    // One line separates the list from the details.
    let room = height.saturating_sub(about.len() + 1).clamp(LEAST.min(height), height);
    let mut lines = vec![Line::styled(head(&over(width), width), BOLD)];
    let first = (chosen + 2).saturating_sub(room);
    for (at, finding) in found.iter().enumerate().skip(first).take(room - 1) {
        let line = line(finding, zone, theme, width);
        lines.push(if at == chosen { line.patch_style(REVERSED) } else { line });
    }
    let place = format!("-- {} of {} ", chosen + 1, found.len());
    lines.push(Line::styled(format!("{place:-<width$}"), DIM));
    let left = height.saturating_sub(lines.len());
    let cut = about.len() > left;
    let kept = if cut { left.saturating_sub(1) } else { left };
    lines.extend(about.into_iter().take(kept).map(Line::raw));
    if cut && left > 0 {
        lines.push(Line::styled("… more in a larger window", DIM));
    }
    lines
}

fn nothing(model: &Model) -> String {
    let forgotten = match model.forgotten() {
        0 => String::new(),
        kinds => format!(" {} kinds of findings were dropped, older ones first.", count(kinds)),
    };
    format!("No findings in this row: everything counted was as it should be.{forgotten}")
}

fn over(width: usize) -> String {
    if width >= WIDE { format!("TIMES {}", heading()) } else { "TIMES VERDICT  FILE".to_owned() }
}

fn line(finding: &Finding, zone: &Zone, theme: Theme, width: usize) -> Line<'static> {
    let fixed = match &finding.what {
        What::Request(r) => request(zone, r),
        What::RejectedOpen(r) => no_request(zone, r.time, (&r.user.comm, r.user.pid), r.call),
        What::MixedAccess(m) => {
            no_request(zone, m.time, (&m.comm, m.pid), if m.writes { "W" } else { "R" })
        }
    };
    let times = times(finding);
    let fixed = if width >= WIDE { format!("{times:>5} {fixed}") } else { format!("{times:>5} ") };
    let (word, style) = word(finding, theme);
    let room = width.saturating_sub(fixed.chars().count() + word.chars().count().max(8) + 1);
    let path = format!(" {:<room$}", tail(finding.path(), room.max(1)));
    let word = Span::styled(format!("{word:<8}"), style);
    Line::from(vec![Span::raw(fixed), word, Span::raw(path)])
}

/// The latest findings of a row, one line per finding, each with the id of its cause.
pub(super) fn latest(model: &Model, name: &str, theme: Theme, area: Rect) -> Vec<Line<'static>> {
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let found = model.found_of(name);
    let number = match found.len() {
        0 => "none".to_owned(),
        n => n.to_string(),
    };
    let room = width.saturating_sub(30);
    let title = format!("-- findings of {}: {number} ", tail(name, room.max(8)));
    let mut lines = vec![Line::styled(format!("{title:-<width$}"), DIM)];
    for finding in found.into_iter().take(height.saturating_sub(1)) {
        let (word, style) = word(finding, theme);
        let cause = finding.cause().map_or("", |(cause, ..)| cause);
        let fixed = format!("{:>5} {:<5} ", times(finding), op(finding));
        let after = format!(" {cause:<20} ");
        let used = fixed.len() + word.chars().count().max(9) + after.chars().count();
        let path = tail(finding.path(), width.saturating_sub(used).max(1));
        lines.push(Line::from(vec![
            Span::raw(fixed),
            Span::styled(format!("{word:<9}"), style),
            Span::raw(after + &path),
        ]));
    }
    lines
}

/// R or W; of a rejected open the call.
fn op(finding: &Finding) -> &'static str {
    match &finding.what {
        What::Request(r) => letter(r.op),
        What::MixedAccess(m) if m.writes => "W",
        What::MixedAccess(_) => "R",
        What::RejectedOpen(r) => r.call,
    }
}

fn times(finding: &Finding) -> String {
    match finding.times {
        n if n < 100_000 => n.to_string(),
        n => super::rate(n as f64),
    }
}

fn word(finding: &Finding, theme: Theme) -> (&'static str, Style) {
    match &finding.what {
        // A short count or a side effect is less severe than a fallback or an error.
        What::Request(r) if r.ret >= 0 && r.cached_bytes == 0 => (verdict_word(r), theme.odd()),
        What::Request(r) => (verdict_word(r), theme.bad()),
        What::RejectedOpen(r) => (r.errno, theme.odd()),
        What::MixedAccess(m) => (m.word, theme.odd()),
    }
}

/// A finding in full, in lines of at most `width` characters.
fn about(finding: &Finding, zone: &Zone, width: usize) -> Vec<String> {
    let mut parts = vec![
        ("file:   ", format!("{} ({})", finding.path(), finding.fs())),
        ("when:   ", zone.iso_fine(finding.time())),
    ];
    if let What::Request(record) = &finding.what {
        parts.push(("last:   ", last(record)));
    }
    if let Some((id, why, fix)) = finding.cause() {
        parts.push(("cause:  ", id.to_owned()));
        parts.push(("why:    ", why.to_owned()));
        parts.push(("fix:    ", fix.to_owned()));
        parts.push(("more:   ", format!("dio-trace explain {id}")));
    }
    let wrapped = |(label, text): &(&str, String)| wrap(label, text, width);
    let text: Vec<String> = parts.iter().map(wrapped).collect();
    text.iter().flat_map(|text| text.lines()).flat_map(|line| pieces(line, width)).collect()
}

/// Describes the latest request of a kind.
fn last(r: &ExplainedRequest) -> String {
    let got = r.errno.clone().unwrap_or_else(|| count(r.ret.unsigned_abs()));
    let mut text = format!(
        "{} of {} bytes at {} by {}: {got} in {}",
        r.op,
        count(r.len),
        r.offset,
        r.api,
        duration(r.latency_ns)
    );
    if r.ret > 0 {
        text += &format!("; {} direct, {} cached", count(r.direct_bytes), count(r.cached_bytes));
    }
    let effects = &r.effects;
    for (pages, what) in [
        (effects.flushed_pages, "flushed first"),
        (effects.invalidated_pages, "dropped"),
        (effects.readahead_pages, "put into the cache"),
        (effects.dirty_left_pages, "left dirty"),
    ] {
        if let Some(pages) = pages.filter(|pages| *pages != 0) {
            text += &format!("; {} pages {what}", count(u64::from(pages)));
        }
    }
    text
}
