//! Width and colours of the terminal.

use std::io::IsTerminal;

use crate::output::text::Style;

/// How to draw lines.
pub(super) fn style(terminal: bool, all: bool) -> Style {
    Style { width: width(terminal), colour: terminal && colours(), cut: terminal, all }
}

/// Colours, as far as NO_COLOR goes (no-color.org).
pub(super) fn colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Columns of a page of text: lines longer than 100 are hard to read.
pub(super) fn page_width(out: &impl IsTerminal) -> usize {
    width(out.is_terminal()).min(100)
}

/// Columns: COLUMNS if set, the terminal's own, else 80.
fn width(terminal: bool) -> usize {
    let set = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let asked = || {
        let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the kernel writes one winsize.
        let failed = unsafe { libc::ioctl(1, libc::TIOCGWINSZ, &raw mut size) } != 0;
        (terminal && !failed && size.ws_col > 0).then(|| usize::from(size.ws_col))
    };
    set.or_else(asked).unwrap_or(80).clamp(60, 400)
}
