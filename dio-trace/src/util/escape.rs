//! Escapes names that come from outside (command names, paths, file systems) before they are shown.
//! Every such name goes through this module.

use std::{fmt::Write as _, path::Path};

/// Returns text that is safe to show anywhere: valid UTF-8, one line, no control, bidirectional
/// or invisible characters. Everything else is written as `\xNN` (a byte) or `\u{N}`. A backslash
/// is not escaped, so that a path that contains one can be copied and pasted.
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

/// Escapes a path, see [`escape`].
#[must_use]
pub fn path(path: impl AsRef<Path>) -> String {
    escape(path.as_ref().as_os_str().as_encoded_bytes())
}

/// Escapes a fixed-size, NUL-terminated kernel string, see [`escape`].
#[must_use]
pub fn escape_c(bytes: &[u8]) -> String {
    escape(until_nul(bytes))
}

/// True only if [`escape_c`] makes this escaped text of the kernel string: an escaped text stays as it
/// is, so that the bytes can be compared. False also where something had to be escaped.
#[must_use]
pub fn is_escaped_c(bytes: &[u8], text: &str) -> bool {
    until_nul(bytes) == text.as_bytes()
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    &bytes[..end]
}

fn push_byte(out: &mut String, byte: u8) {
    let _ = write!(out, "\\x{byte:02x}");
}

/// True for an invisible character that changes what a reader sees: C1 controls, bidirectional
/// marks and overrides, zero-width and line separators, byte-order mark, and characters that XML
/// forbids.
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
        assert!(is_escaped_c(b"fio\0rest", "fio") && !is_escaped_c(b"fio\0", "fi"));
    }

    #[test]
    fn any_bytes_come_out_printable() {
        for a in 0..=255u8 {
            for b in [0, 0x1b, 0x80, 0xc2, 0xe2, 0xff, b'x'] {
                let text = escape(&[a, b, 0x80, 0xae]);
                assert!(text.chars().all(|c| !c.is_control() && !is_deceptive(c)), "{text:?}");
                assert_eq!(escape(text.as_bytes()), text);
            }
        }
    }
}
