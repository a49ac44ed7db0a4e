//! Width and colours for text output.

use std::{io::IsTerminal, sync::OnceLock};

use crate::{cli::values::Color, output::text::Style};

/// The value of `--color`.
static COLOR: OnceLock<Color> = OnceLock::new();

/// Sets when text is coloured; the first call decides.
pub(super) fn choose(color: Color) {
    let _ = COLOR.set(color);
}

/// The style of the lines of a trace or report.
pub(super) fn style(terminal: bool, all: bool, verbose: bool) -> Style {
    Style { width: width(terminal), colour: colours(terminal), cut: terminal, all, verbose }
}

/// True if text is coloured: on a terminal, unless NO_COLOR (no-color.org) or a dumb terminal turns
/// colours off, or as `--color` says.
pub(super) fn colours(terminal: bool) -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    match COLOR.get() {
        Some(Color::Always) => true,
        Some(Color::Never) => false,
        Some(Color::Auto) | None => {
            terminal && !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
        }
    }
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
