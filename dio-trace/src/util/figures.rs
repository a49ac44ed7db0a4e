//! Formats counts, bytes, durations and shares, the same way for the screen, the HTML page and
//! every table. `output/html/format.js` implements the same formats for the page; a test compares
//! the two.

use crate::util::clock::Zone;

/// A count with thousands separators: `1,234,567`.
#[must_use]
pub fn count(n: u64) -> String {
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

/// `1 request`, `2 requests`.
#[must_use]
pub fn counted(n: u64, one: &str) -> String {
    format!("{} {one}{}", count(n), if n == 1 { "" } else { "s" })
}

/// A number of bytes in binary units, rounded to two digits or more: `1.5K`.
#[must_use]
pub fn about(n: u64) -> String {
    const UNITS: [(u64, &str); 5] =
        [(1, ""), (1 << 10, "K"), (1 << 20, "M"), (1 << 30, "G"), (1 << 40, "T")];
    scaled(n, &UNITS)
}

/// A duration, given in ns, rounded to two digits or more: `131us`.
#[must_use]
pub fn duration(ns: u64) -> String {
    const UNITS: [(u64, &str); 7] = [
        (1, "ns"),
        (1_000, "us"),
        (1_000_000, "ms"),
        (1_000_000_000, "s"),
        (60_000_000_000, "min"),
        (3_600_000_000_000, "h"),
        (86_400_000_000_000, "d"),
    ];
    scaled(ns, &UNITS)
}

/// `n` in the largest unit that makes it at least 1 after rounding: 999.6us is shown as 1.0ms.
fn scaled(n: u64, units: &[(u64, &str)]) -> String {
    let fits = |at: &usize| {
        let lower = units[at.saturating_sub(1)].0;
        *at == 0 || whole(n, lower) * u128::from(lower) >= u128::from(units[*at].0)
    };
    match (0..units.len()).rev().find(fits).map(|at| units[at]) {
        None | Some((1, "")) => n.to_string(),
        Some((1, name)) => format!("{n}{name}"),
        Some((unit, name)) => match tenths(n, unit) {
            tenths if tenths < 100 => format!("{}.{}{name}", tenths / 10, tenths % 10),
            _ => format!("{}{name}", whole(n, unit)),
        },
    }
}

/// `n / unit`, rounded to the nearest integer; halves are rounded up.
fn whole(n: u64, unit: u64) -> u128 {
    (u128::from(n) + u128::from(unit / 2)) / u128::from(unit)
}

fn tenths(n: u64, unit: u64) -> u128 {
    (u128::from(n) * 10 + u128::from(unit / 2)) / u128::from(unit)
}

/// `part` as a percentage of `whole`. Only nothing is shown as 0.0% and only everything as 100.0%;
/// `-` if `whole` is 0.
#[must_use]
pub fn percent(part: u64, whole: u64) -> String {
    let tenths = match u128::from(whole) {
        0 => return "-".to_owned(),
        whole => (u128::from(part) * 1_000 + whole / 2) / whole,
    };
    match tenths {
        0 if part != 0 => "<0.1%".to_owned(),
        1_000 if part < whole => ">99.9%".to_owned(),
        tenths => format!("{}.{}%", tenths / 10, tenths % 10),
    }
}

/// `12 direct, 3 eof`: the counts of a headline, which add up to its total.
#[must_use]
pub fn parts(parts: &[(&str, u64)]) -> String {
    let text = |(name, n): &(&str, u64)| format!("{} {name}", count(*n));
    parts.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// A start time and a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// ns since the epoch.
    pub began: u64,
    pub lasted_ns: u64,
}

impl Span {
    /// `2026-01-02T03:04:05+00:00, 5.7s`
    #[must_use]
    pub fn text(&self, zone: &Zone) -> String {
        format!("{}, {}", zone.iso(self.began), duration(self.lasted_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_true() {
        assert_eq!((about(1536), about(42 << 30)), ("1.5K".into(), "42G".into()));
        assert_eq!((duration(999), duration(131_072)), ("999ns".into(), "131us".into()));
        assert_eq!((count(1_234_567), count(12)), ("1,234,567".into(), "12".into()));
        assert_eq!(
            (counted(1, "request"), counted(0, "request")),
            ("1 request".into(), "0 requests".into())
        );
    }

    #[test]
    fn a_rounded_number_has_the_unit_that_it_is_rounded_to() {
        assert_eq!((duration(999_600), duration(9_960)), ("1.0ms".into(), "10us".into()));
        assert_eq!((duration(10_500), duration(11_500)), ("11us".into(), "12us".into()));
        assert_eq!(
            (duration(1_200_000_000_000), duration(5_400_000_000_000)),
            ("20min".into(), "1.5h".into())
        );
        assert_eq!(
            (about(0), about(1023), about((1 << 20) - 1)),
            ("0".into(), "1023".into(), "1.0M".into())
        );
    }

    #[test]
    fn only_all_is_100_percent_and_only_nothing_is_0() {
        assert_eq!(
            (percent(0, 0), percent(0, 9), percent(9, 9)),
            ("-".into(), "0.0%".into(), "100.0%".into())
        );
        assert_eq!((percent(1, 9_999), percent(9_998, 9_999)), ("<0.1%".into(), ">99.9%".into()));
        assert_eq!(percent(u64::MAX / 2, u64::MAX), "50.0%");
    }
}
