//! Fitting text into columns.

/// `text` in at most `width` characters; what is too long loses its beginning (a path's end says
/// more than its start).
#[must_use]
pub(super) fn tail(text: &str, width: usize) -> String {
    let len = text.chars().count();
    if len <= width || width == 0 {
        return text.to_owned();
    }
    let kept: String = text.chars().skip(len - (width - 1)).collect();
    format!("…{kept}")
}

/// `text` in at most `width` characters; what is too long loses its end.
#[must_use]
pub(super) fn head(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// A number of bytes: with a binary suffix where that is exact and shorter, else in full.
#[must_use]
pub(super) fn bytes(n: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")];
    let fits = UNITS.iter().find(|(unit, _)| n != 0 && n.is_multiple_of(*unit));
    fits.map_or_else(|| n.to_string(), |(unit, name)| format!("{}{name}", n / unit))
}

/// A number of bytes, rounded to three digits.
#[must_use]
pub(super) fn about(n: u64) -> String {
    const UNITS: [(u64, &str); 4] =
        [(1 << 40, "T"), (1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")];
    let Some((unit, name)) = UNITS.iter().find(|(unit, _)| n >= *unit) else {
        return n.to_string();
    };
    scaled(n as f64 / *unit as f64, name)
}

/// A duration in ns, rounded to three digits.
#[must_use]
pub(super) fn duration(ns: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")];
    let Some((unit, name)) = UNITS.iter().find(|(unit, _)| ns >= *unit) else {
        return format!("{ns}ns");
    };
    scaled(ns as f64 / *unit as f64, name)
}

fn scaled(value: f64, unit: &str) -> String {
    if value < 10.0 { format!("{value:.1}{unit}") } else { format!("{value:.0}{unit}") }
}

/// A count with thousands separated.
#[must_use]
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `text` broken into lines of at most `width` characters; the first one begins with `label`, the
/// others with as much space.
#[must_use]
pub(super) fn wrap(label: &str, text: &str, width: usize) -> String {
    let indent = " ".repeat(label.chars().count());
    let mut out = label.to_owned();
    let mut column = label.chars().count();
    let mut first = true;
    for word in text.split(' ') {
        let len = word.chars().count();
        if !first && column + 1 + len > width {
            out.push('\n');
            out.push_str(&indent);
            column = indent.len();
        } else if !first {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += len;
        first = false;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_where_they_say_least() {
        assert_eq!(tail("/var/lib/db/file", 8), "…db/file");
        assert_eq!(tail("/short", 8), "/short");
        assert_eq!(head("iou-wrk-123456", 6), "iou-w…");
    }

    #[test]
    fn numbers_are_short_and_true() {
        assert_eq!(
            (bytes(4096).as_str(), bytes(100).as_str(), bytes(0).as_str()),
            ("4K", "100", "0")
        );
        assert_eq!((bytes(3 << 20).as_str(), bytes(4097).as_str()), ("3M", "4097"));
        assert_eq!((about(1536).as_str(), about(42 << 30).as_str()), ("1.5K", "42G"));
        assert_eq!((duration(999).as_str(), duration(131_072).as_str()), ("999ns", "131us"));
        assert_eq!((count(1_234_567).as_str(), count(12).as_str()), ("1,234,567", "12"));
    }

    #[test]
    fn wrapped_text_keeps_its_column() {
        assert_eq!(wrap("  why: ", "one two three", 14), "  why: one two\n       three");
    }
}
