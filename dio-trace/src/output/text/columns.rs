//! Helpers that fit text into columns: truncation, wrapping, and short byte counts.

/// `text` in at most `width` characters. A longer text loses its beginning, because the end of a
/// path says more; a path loses whole names, if its last name fits.
#[must_use]
pub(crate) fn tail(text: &str, width: usize) -> String {
    let len = text.chars().count();
    if len <= width || width == 0 {
        return text.to_owned();
    }
    let cut = text.char_indices().nth(len - (width - 1)).map_or(text.len(), |(at, _)| at);
    let kept = &text[cut..];
    let whole = kept.find('/').map_or(kept, |at| &kept[at..]);
    // Not "…/" for a name that only just does not fit.
    let kept = if whole.len() > 1 { whole } else { kept };
    format!("…{kept}")
}

/// Fewest columns in which a path is truncated; with less room it has a line of its own.
const LEAST: usize = 16;

/// `path` after the columns `fixed`, in lines of at most `width` characters.
#[must_use]
pub(crate) fn with_path(mut fixed: String, used: usize, path: &str, width: usize) -> String {
    let room = width.saturating_sub(used);
    let len = path.chars().count();
    if len <= room {
        fixed.push_str(path);
    } else if room < LEAST {
        fixed.truncate(fixed.trim_end().len());
        fixed.push_str("\n  ");
        fixed.push_str(&tail(path, width.saturating_sub(2)));
    } else {
        fixed.push_str(&tail(path, room));
    }
    fixed
}

/// Appends `text` and at least enough blanks for `width` characters.
pub(crate) fn left(line: &mut String, text: &str, width: usize) {
    line.push_str(text);
    blanks(line, text, width);
}

/// Appends `text` after enough blanks for `width` characters.
pub(crate) fn right(line: &mut String, text: &str, width: usize) {
    blanks(line, text, width);
    line.push_str(text);
}

fn blanks(line: &mut String, text: &str, width: usize) {
    line.extend(std::iter::repeat_n(' ', width.saturating_sub(text.chars().count())));
}

/// `text` in at most `width` characters. A longer text loses its end.
#[must_use]
pub(crate) fn head(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// A number of bytes, with a binary suffix if it is a whole multiple of the unit.
#[must_use]
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")];
    let fits = UNITS.iter().find(|(unit, _)| n != 0 && n.is_multiple_of(*unit));
    let (number, name) = fits.map_or((n, ""), |(unit, name)| (n / unit, *name));
    number.to_string() + name
}

/// `text` wrapped into lines of at most `width` characters. The first line begins with `label`; the
/// others are indented by its width.
#[must_use]
pub(crate) fn wrap(label: &str, text: &str, width: usize) -> String {
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
        assert_eq!(tail("/var/lib/db/file", 9), "…/db/file");
        assert_eq!(tail("/var/lib/db/file", 8), "…/file");
        assert_eq!(tail("/var/lib/db/file", 5), "…file");
        assert_eq!(tail("/var/lib/db/file", 4), "…ile");
        assert_eq!(tail("/dir/", 3), "…r/");
        assert_eq!(tail("/short", 8), "/short");
        assert_eq!(head("iou-wrk-123456", 6), "iou-w…");
    }

    #[test]
    fn a_path_without_room_has_its_own_line() {
        let path = "/var/lib/postgresql/base/16384/2619";
        assert_eq!(with_path("12 R ".into(), 5, path, 60), format!("12 R {path}"));
        assert_eq!(with_path("12 R ".into(), 5, path, 30), "12 R …/base/16384/2619");
        let fixed = format!("{:50}", "12 R");
        assert_eq!(with_path(fixed.clone(), 50, path, 60), format!("12 R\n  {path}"));
        assert_eq!(with_path(fixed.clone(), 50, "/short", 60), format!("{fixed}/short"));
    }

    #[test]
    fn bytes_are_short_and_exact() {
        assert_eq!(
            (bytes(4096).as_str(), bytes(100).as_str(), bytes(0).as_str()),
            ("4K", "100", "0")
        );
        assert_eq!((bytes(3 << 20).as_str(), bytes(4097).as_str()), ("3M", "4097"));
    }

    #[test]
    fn wrapped_text_keeps_its_column() {
        assert_eq!(wrap("  why: ", "one two three", 14), "  why: one two\n       three");
    }
}
