//! The one choke point for names that come from outside: command names, paths, file systems.

use std::{fmt::Write as _, path::Path};

/// Text that may be shown anywhere: valid UTF-8, one line, no control, bidirectional or
/// invisible characters. Everything else is written as `\xNN` (a byte) or `\u{N}`; a backslash
/// stays itself, for paths with one are rarer than people who paste them.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                c if c.is_ascii_control() => push_byte(&mut out, c as u8),
                c if is_deceptive(c) => {
                    let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
                }
                c => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            push_byte(&mut out, *byte);
        }
    }
    out
}

/// A path.
#[must_use]
pub fn path(path: impl AsRef<Path>) -> String {
    escape(path.as_ref().as_os_str().as_encoded_bytes())
}

/// A fixed-size, NUL-terminated kernel string.
#[must_use]
pub fn escape_c(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    escape(&bytes[..end])
}

fn push_byte(out: &mut String, byte: u8) {
    let _ = write!(out, "\\x{byte:02x}");
}

/// Characters that change what a reader sees without being seen: C1 controls, bidirectional
/// marks and overrides, zero-width and line separators, byte-order mark, and what XML cannot have.
const fn is_deceptive(c: char) -> bool {
    matches!(c,
        '\u{80}'..='\u{9f}'
        | '\u{ad}'
        | '\u{61c}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{fffe}'..='\u{ffff}'
        | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_and_readers_are_safe() {
        assert_eq!(escape(b"/data/caf\xc3\xa9 1"), "/data/café 1");
        assert_eq!(escape(b"a\x1b[31mb\nc"), "a\\x1b[31mb\\x0ac");
        assert_eq!(escape(b"\xff\xfex"), "\\xff\\xfex");
        assert_eq!(escape("a\u{202e}b\u{200b}".as_bytes()), "a\\u{202e}b\\u{200b}");
        assert_eq!(escape_c(b"fio\0rest"), "fio");
    }

    #[test]
    fn any_bytes_come_out_printable() {
        for a in 0..=255u8 {
            for b in [0, 0x1b, 0x80, 0xc2, 0xe2, 0xff, b'x'] {
                let text = escape(&[a, b, 0x80, 0xae]);
                assert!(text.chars().all(|c| !c.is_control() && !is_deceptive(c)), "{text:?}");
            }
        }
    }
}
