//! The table of rows: one row per process, file, file system, verdict or cause.

use ratatui::{
    layout::Rect,
    style::Style,
    text::{Line, Span},
};

use crate::{
    flow::{group::By, timeline::sparkline},
    output::{
        text::{
            columns::{head, tail, wrap},
            groups::subject,
        },
        top::{
            HISTORY, Model, Row, Sort,
            draw::{BOLD, DIM, REVERSED, Theme, details, rate, share},
        },
    },
    util::figures::{about, counted, duration},
};

/// A column with its width in characters.
#[derive(Clone, Copy)]
enum Column {
    Number(Sort, &'static str, usize),
    History(usize),
    Name(usize),
}

/// The columns that fit the width. The least important are left out first.
fn columns(width: usize) -> Vec<Column> {
    let mut columns = vec![Column::Number(Sort::Requests, "REQ/S", 7)];
    if width >= 52 {
        columns.push(Column::Number(Sort::Bytes, "BYTES/S", 7));
    }
    columns.push(Column::Number(Sort::Direct, "DIRECT", 6));
    columns.push(Column::Number(Sort::Findings, "FIND/S", 6));
    if width >= 60 {
        columns.push(Column::Number(Sort::P50, "P50<", 6));
    }
    if width >= 45 {
        columns.push(Column::Number(Sort::P99, "P99<", 6));
    }
    let wide = |column: &Column| match column {
        Column::Number(_, _, width) | Column::History(width) | Column::Name(width) => width + 1,
    };
    let used: usize = columns.iter().map(wide).sum();
    let mut left = width.saturating_sub(used);
    if width >= 72 {
        let history = (left / 4).clamp(8, HISTORY);
        columns.push(Column::History(history));
        left -= history + 1;
    }
    columns.push(Column::Name(left));
    columns
}

/// Maximum number of lines for findings below the rows.
const MOST: usize = 9;
/// Minimum number of lines for findings; with less room none are shown.
const WORTH: usize = 4;
/// Height of the body from which the minimum is shown even if rows must give way.
const HIGH: usize = 16;

/// The heading and the rows, and below them, if there is room, the findings of the selected row.
pub(super) fn text(model: &Model, theme: Theme, area: Rect) -> Vec<Line<'static>> {
    let rows = model.rows();
    let columns = columns(usize::from(area.width));
    let mut lines = vec![heading(model, &columns)];
    let height = usize::from(area.height);
    let below = below(height, rows.len());
    let room = height.saturating_sub(1 + below);
    let Some(selected) = model.selected(&rows) else {
        let text = wrap("", &nothing(model), usize::from(area.width));
        lines.extend(text.lines().map(|line| Line::raw(line.to_owned())));
        return lines;
    };
    let first = selected.saturating_sub(room.saturating_sub(1));
    for (at, row) in rows.iter().enumerate().skip(first).take(room) {
        let line = draw(row, model, theme, &columns);
        lines.push(if at == selected { line.patch_style(REVERSED) } else { line });
    }
    if below > 0 {
        lines.resize(height - below, Line::default());
        let name = &rows[selected].last.name;
        let area = Rect { height: below as u16, ..area };
        lines.extend(details::latest(model, name, theme, area));
    }
    lines
}

/// Number of lines for findings: those that the rows leave, but at least [`WORTH`] in a high
/// window.
fn below(height: usize, rows: usize) -> usize {
    let left = height.saturating_sub(rows + 2).min(MOST);
    match left {
        left if left >= WORTH => left,
        _ if height >= HIGH => WORTH,
        _ => 0,
    }
}

/// Says why there are no rows. Before the counters are read, the number of requests is unknown, not
/// zero.
fn nothing(model: &Model) -> String {
    let all = &model.status.all;
    if !model.text.is_empty() {
        return "No row has that text in its name: Esc shows all.".to_owned();
    }
    if !model.counted {
        return "Attached; collecting what is counted …".to_owned();
    }
    match model.by {
        By::Cause if all.findings != 0 => format!(
            "{} counted: the causes come with the requests themselves, none of which has arrived.",
            counted(all.findings, "finding")
        ),
        By::Cause => "No finding so far: nothing needs a cause.".to_owned(),
        _ => format!(
            "No O_DIRECT request ended so far. Files that are open with O_DIRECT have the bit 0{:o} in \
             the octal flags of /proc/PID/fdinfo/*.",
            libc::O_DIRECT
        ),
    }
}

fn heading(model: &Model, columns: &[Column]) -> Line<'static> {
    let style = |sorts: Option<Sort>| if sorts == Some(model.sort) { REVERSED } else { BOLD };
    let mut line = Line::default();
    for column in columns {
        let (text, sort) = match column {
            Column::Number(sort, label, width) => (format!("{label:>width$}"), Some(*sort)),
            Column::History(width) => (format!("{:<width$}", "HISTORY"), None),
            Column::Name(_) => (subject(model.by).to_owned(), Some(Sort::Name)),
        };
        line.push_span(Span::styled(text, style(sort)));
        line.push_span(Span::raw(" "));
    }
    line
}

fn draw(row: &Row, model: &Model, theme: Theme, columns: &[Column]) -> Line<'static> {
    let last = &row.last;
    let mut line = Line::default();
    for column in columns {
        let (text, style) = match column {
            Column::Number(sort, _, width) => {
                let (text, style) = number(*sort, row, model, theme);
                (format!("{text:>width$}"), style)
            }
            Column::History(width) => (history(row, *width), Style::new()),
            Column::Name(width) => (format!("{:<width$}", name(row, *width)), Style::new()),
        };
        line.push_span(Span::styled(text, style));
        line.push_span(Span::raw(" "));
    }
    if last.requests == 0 && last.findings == 0 { line.patch_style(DIM) } else { line }
}

/// The name of a row, "?" for a file system whose name was lost; and as much as fits of its title.
fn name(row: &Row, width: usize) -> String {
    /// A title that is cut to less says nothing.
    const LEAST: usize = 6;
    let name = if row.last.name.is_empty() { "?" } else { &row.last.name };
    let room = width.saturating_sub(name.chars().count() + 2);
    match &row.title {
        Some(title) if room >= LEAST => format!("{name}  {}", head(title, room)),
        _ => tail(name, width),
    }
}

fn number(sort: Sort, row: &Row, model: &Model, theme: Theme) -> (String, Style) {
    let last = &row.last;
    let time = |ns: Option<u64>| ns.filter(|ns| *ns != 0).map_or_else(|| "-".to_owned(), duration);
    let plain = |text| (text, Style::new());
    match sort {
        Sort::Requests => plain(rate(model.per_second(last.requests))),
        Sort::Bytes => plain(about(model.per_second(last.bytes.total) as u64)),
        Sort::Direct => share(&last.bytes, theme),
        Sort::Findings => {
            let style = match last.findings {
                0 => Style::new(),
                some if some * 2 > last.requests => theme.bad(),
                _ => theme.odd(),
            };
            (rate(model.per_second(last.findings)), style)
        }
        Sort::P50 => plain(time(last.latency_p50_ns)),
        Sort::P99 => plain(time(last.latency_p99_ns)),
        Sort::Name => plain(String::new()),
    }
}

/// Requests per interval as a bar chart, the latest at the right.
fn history(row: &Row, width: usize) -> String {
    let skipped = row.history.len().saturating_sub(width);
    let numbers: Vec<u64> = row.history.iter().copied().skip(skipped).collect();
    format!("{:>width$}", sparkline(&numbers))
}
