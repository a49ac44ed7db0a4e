//! Width and colours for text output.

use std::io::IsTerminal;

use crate::output::text::Style;

/// The style of the lines of a trace or report.
pub(super) fn style(terminal: bool, all: bool, verbose: bool) -> Style {
    Style { width: width(terminal), colour: terminal && colours(), cut: terminal, all, verbose }
}

/// True unless NO_COLOR turns colours off (no-color.org).
pub(super) fn colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Width of a page of text in columns; at most 100, because longer lines are hard to read.
pub(super) fn page_width(out: &impl IsTerminal) -> usize {
    width(out.is_terminal()).min(100)
}

/// Width in columns: COLUMNS if set, else the terminal's width, else 80.
fn width(terminal: bool) -> usize {
    let set = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let asked = || {
        let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the kernel writes one winsize, to `size`.
        let failed = unsafe { libc::ioctl(1, libc::TIOCGWINSZ, &raw mut size) } != 0;
        (terminal && !failed && size.ws_col > 0).then(|| usize::from(size.ws_col))
    };
    set.or_else(asked).unwrap_or(80).clamp(60, 400)
}
