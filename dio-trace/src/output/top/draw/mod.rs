//! Draws the live screen. The result depends only on the model, the theme and the size.

mod details;
mod help;
mod rows;

use ratatui::{
    Frame,
    layout::Rect,
    style::{Color, Modifier, Style},
    text::{Line, Span, Text},
};

use crate::{
    output::{
        text::columns::{head, tail},
        top::{Bys, Model, Page},
    },
    util::{
        escape::escape,
        figures::{self, about, count, counted, duration},
    },
};

/// Minimum width and height; a smaller screen shows only a message that says so.
const LEAST: (u16, u16) = (30, 7);
/// Number of lines above the body and below it.
const OVER: u16 = 4;
const BELOW: u16 = 1;

/// Whether colours are used; not with NO_COLOR set.
#[derive(Clone, Copy, Debug)]
pub struct Theme {
    pub colour: bool,
}

impl Theme {
    const fn fg(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    fn good(self) -> Style {
        self.fg(Color::Green)
    }

    /// Also bold, to stand out without colours.
    fn odd(self) -> Style {
        self.fg(Color::Yellow).add_modifier(Modifier::BOLD)
    }

    fn bad(self) -> Style {
        self.fg(Color::Red).add_modifier(Modifier::BOLD)
    }
}

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const REVERSED: Style = Style::new().add_modifier(Modifier::REVERSED);

/// Draws the whole screen.
pub fn draw_top(frame: &mut Frame<'_>, model: &Model, theme: Theme) {
    let area = frame.area();
    let (width, height) = (area.width, area.height);
    if width < LEAST.0 || height < LEAST.1 {
        let text =
            format!("{width}x{height} is too small: {}x{} at least; q quits", LEAST.0, LEAST.1);
        let lines = pieces(&text, usize::from(width.max(1)));
        frame.render_widget(Text::from(lines.join("\n")), area);
        return;
    }
    let line = |y, height| Rect { y, height, ..area };
    let over = [
        title(model, theme, width),
        totals(model, theme, width),
        since_start(model, theme, width),
        shown(model, width),
    ];
    frame.render_widget(Text::from(over.to_vec()), line(0, OVER));
    let body = line(OVER, height - OVER - BELOW);
    let text = match model.page {
        _ if model.help => help::text(model, body),
        Page::Rows => rows::text(model, theme, body),
        Page::Findings => details::text(model, theme, body),
    };
    frame.render_widget(Text::from(text), body);
    frame.render_widget(keys(model, width), line(height - BELOW, BELOW));
}

/// The first line: whose requests are shown, the time zone and the interval.
fn title(model: &Model, theme: Theme, width: u16) -> Line<'static> {
    let right = if model.paused() {
        Span::styled(" PAUSED ", theme.odd().add_modifier(Modifier::REVERSED))
    } else {
        let every = duration((model.about.interval * 1e9) as u64);
        Span::raw(format!("{}  every {every}", model.about.shown.zone.short()))
    };
    let room = usize::from(width).saturating_sub(right.width() + 1);
    let left = head(&format!("dio-trace top: {}", model.about.subject), room);
    Line::from(vec![Span::styled(format!("{left:<room$} "), BOLD), right])
}

/// The second line: sums over the rows that are shown. The most important come first, as a narrow screen has
/// no room for all.
fn totals(model: &Model, theme: Theme, width: u16) -> Line<'static> {
    let status = &model.status;
    let odd = |n: u64| if n == 0 { Style::new() } else { theme.odd() };
    let filtered = model.filtered();
    let (requests, findings, bytes) = match &filtered {
        Some(rows) => (rows.requests, rows.findings, &rows.bytes),
        None => (status.requests, status.findings, &status.bytes),
    };
    let mut parts = vec![
        Span::raw(format!("{} req/s", rate(model.per_second(requests)))),
        Span::styled(format!("{} findings/s", rate(model.per_second(findings))), odd(findings)),
    ];
    let (text, style) = share(bytes, theme);
    parts.push(Span::styled(format!("{text} direct"), style));
    parts.push(Span::styled(format!("{} lost", count(status.lost)), odd(status.lost)));
    parts.push(Span::raw(format!("{}/s", about(model.per_second(bytes.total) as u64))));
    if filtered.is_some() {
        return fitting(parts, width);
    }
    parts.push(Span::raw(format!("{} in flight", count(status.in_flight))));
    let unknown = status.all.requests.get("unknown").copied().unwrap_or(0);
    parts.push(Span::styled(format!("{} unknown", count(unknown)), odd(unknown)));
    fitting(parts, width)
}

/// The third line: all requests since the start, by verdict, and the findings among them. The
/// numbers add up: verdicts that do not fit are summed as "other". Rows have no sums by verdict, so
/// that with a filter text only the sums are shown.
fn since_start(model: &Model, theme: Theme, width: u16) -> Line<'static> {
    if !model.counted {
        return Line::styled("since the start: collecting …", DIM);
    }
    if let Some(rows) = model.filtered() {
        let (all, found) =
            (counted(rows.all_requests, "request"), counted(rows.all_findings, "finding"));
        return Line::raw(head(&format!("{all} in these rows; {found}"), usize::from(width)));
    }
    let sums = &model.status.all;
    let (parts, width) = (sums.parts(), usize::from(width));
    let all = counted(parts.iter().map(|(_, n)| n).sum(), "request");
    let found = counted(sums.findings, "finding");
    let room = width.saturating_sub(found.chars().count() + 2);
    let named = (0..=parts.len()).rev().map(|kept| since(&all, &parts, kept));
    let Some(text) = named.into_iter().find(|text| text.chars().count() <= room) else {
        return Line::raw(head(&found, width));
    };
    let style = if sums.findings == 0 { Style::new() } else { theme.odd() };
    Line::from(vec![Span::raw(text + "; "), Span::styled(found, style)])
}

fn since(all: &str, parts: &[(&str, u64)], kept: usize) -> String {
    let (named, rest) = parts.split_at(kept);
    let rest: u64 = rest.iter().map(|(_, n)| n).sum();
    let named = figures::parts(named);
    match (named.is_empty(), rest) {
        (true, _) => all.to_owned(),
        (false, 0) => format!("{all}: {named}"),
        (false, rest) => format!("{all}: {named}, {} other", count(rest)),
    }
}

/// The fourth line: grouping, filter, order and number of rows.
fn shown(model: &Model, width: u16) -> Line<'static> {
    let by = Span::raw(format!("by {}", Bys::word(model.by)));
    let mut parts = vec![by];
    if model.page == Page::Findings {
        let found = match model.found().len() {
            1 => "1 kind of finding".to_owned(),
            n => format!("{n} kinds of findings"),
        };
        parts.push(Span::raw(found));
        let room = usize::from(width).saturating_sub(40);
        parts.push(Span::styled(tail(model.subject(), room.max(12)), BOLD));
        return fitting(parts, width);
    }
    let (kept, evicted) = model.kept();
    if model.typing || !model.text.is_empty() {
        let cursor = if model.typing { "_" } else { "" };
        let text = format!("filter: {}{cursor}", escape(model.text.as_bytes()));
        parts.push(Span::styled(text, REVERSED));
    }
    let order = if model.reversed { "last" } else { "first" };
    parts.push(Span::raw(format!("{} {order}", model.sort.word())));
    let rows = counted(kept as u64, "row");
    let rows = match model.filtered() {
        Some(_) => format!("{} of {rows}", count(model.rows().len() as u64)),
        None => rows,
    };
    parts.push(Span::raw(rows));
    if evicted != 0 {
        parts.push(Span::raw(format!("{} dropped", count(evicted))));
    }
    fitting(parts, width)
}

/// The last line: the keys of the current page, as many as fit.
fn keys(model: &Model, width: u16) -> Line<'static> {
    let keys: &[(&str, &str)] = if model.typing {
        &[("Enter", "keep"), ("Esc", "clear")]
    } else if model.help {
        &[("any key", "back"), ("q", "quit")]
    } else if model.page == Page::Findings {
        &[("Esc", "back"), ("q", "quit"), ("?", "help"), ("Up Down", "choose"), ("p", "pause")]
    } else {
        &[
            ("q", "quit"),
            ("?", "help"),
            ("Enter", "findings"),
            ("Tab", "by"),
            ("s", "sort"),
            ("/", "filter"),
            ("p", "pause"),
            ("r", "reverse"),
        ]
    };
    let mut line = Line::default();
    for (key, what) in keys {
        if line.width() + key.len() + what.len() + 3 > usize::from(width) {
            break;
        }
        line.push_span(Span::styled((*key).to_owned(), REVERSED));
        line.push_span(Span::raw(format!(" {what}  ")));
    }
    line
}

/// As many of `parts` as fit, separated by two spaces.
fn fitting(parts: Vec<Span<'static>>, width: u16) -> Line<'static> {
    let mut line = Line::default();
    for part in parts {
        let gap = if line.spans.is_empty() { 0 } else { 2 };
        if gap != 0 && line.width() + gap + part.width() > usize::from(width) {
            break;
        }
        line.push_span(Span::raw(" ".repeat(gap)));
        line.push_span(part);
    }
    line
}

/// The share of the bytes that was direct, and a style by severity.
fn share(bytes: &crate::flow::bytes::Bytes, theme: Theme) -> (String, Style) {
    let style = match bytes.direct_share() {
        None => Style::new(),
        Some(share) if share >= 100.0 => theme.good(),
        Some(share) if share < 50.0 => theme.bad(),
        Some(_) => theme.odd(),
    };
    (bytes.direct_text(), style)
}

/// A rate per second in at most seven characters.
fn rate(per_second: f64) -> String {
    match per_second {
        0.0 => "0".to_owned(),
        r if r < 0.05 => "<0.1".to_owned(),
        r if r < 9.95 && (r - r.round()).abs() >= 0.05 => format!("{r:.1}"),
        r if r < 99_999.5 => count(r.round() as u64),
        r if r < 999_500.0 => format!("{:.0}k", r / 1e3),
        r => format!("{:.1}M", r / 1e6),
    }
}

/// Splits `text` into pieces of at most `width` characters.
fn pieces(text: &str, width: usize) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    chars.chunks(width.max(1)).map(|piece| piece.iter().collect()).collect()
}

#[cfg(test)]
pub(super) mod tests;
