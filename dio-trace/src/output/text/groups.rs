//! The table of `--by`, which is also the closing table of a run.

use crate::{
    flow::group::{By, Group},
    output::text::{
        Style,
        columns::{head, with_path},
    },
    util::figures::{about, count, duration},
};

/// Most rows of a table that was asked for, and of the table at the end of every run.
pub const MAX_ROWS: usize = 40;
pub(super) const CLOSING_ROWS: usize = 10;
/// Fewest columns of a screen on which there is room for bytes per second.
const WIDE: usize = 100;

/// The table of `--by`: at most `most` rows, or all if lines are not to be left out. `lasted_ns` is
/// the time in which the requests were made, if known.
#[must_use]
pub fn groups(rows: &[Group], by: By, style: Style, most: usize, lasted_ns: Option<u64>) -> String {
    let most = if style.verbose { usize::MAX } else { most };
    let lasted_ns = lasted_ns.filter(|ns| *ns != 0 && style.width >= WIDE);
    let mut out = if by == By::Time { times(rows) } else { heading(by, lasted_ns.is_some()) };
    if by != By::Time {
        rows.iter().take(most).for_each(|row| out += &line(row, by, style, lasted_ns));
    }
    match rows.len().saturating_sub(most) {
        left_out if left_out != 0 && by != By::Time => {
            out += &format!("{:>9} more (--verbose has all)\n", count(left_out as u64));
        }
        _ => {}
    }
    out
}

fn heading(by: By, wide: bool) -> String {
    let (rate, max) = match wide {
        true => (format!(" {:>7}", "BYTES/S"), format!(" {:>6}", "MAX<")),
        false => (String::new(), String::new()),
    };
    format!(
        "{:>9} {:>9} {:>6}{rate} {:>7} {:>6} {:>6} {:>6}{max} {}\n",
        "REQUESTS",
        "FINDINGS",
        "BYTES",
        "DIRECT",
        "P50<",
        "P99<",
        "P99.9<",
        subject(by)
    )
}

fn line(row: &Group, by: By, style: Style, lasted_ns: Option<u64>) -> String {
    let rate = |ns| format!(" {:>7}", about(per_second(row.bytes.total, ns)));
    let max = |_| format!(" {:>6}", latency(row.latency_max_ns));
    let fixed = format!(
        "{:>9} {:>9} {:>6}{} {:>7} {:>6} {:>6} {:>6}{} ",
        count(row.requests),
        count(row.findings),
        about(row.bytes.total),
        lasted_ns.map_or_else(String::new, rate),
        row.bytes.direct_text(),
        latency(row.latency_p50_ns),
        latency(row.latency_p99_ns),
        latency(row.latency_p999_ns),
        lasted_ns.map_or_else(String::new, max),
    );
    let room = if style.cut { style.width.saturating_sub(fixed.len()) } else { usize::MAX };
    match by {
        By::Stack => {
            let name = head(row.name.rsplit(';').next().unwrap_or_default(), room);
            format!("{fixed}{name}\n{}", frames(&row.name, style))
        }
        _ if style.cut => {
            let used = fixed.len();
            with_path(fixed, used, &row.name, style.width) + "\n"
        }
        _ => format!("{fixed}{}\n", row.name),
    }
}

pub(super) fn per_second(bytes: u64, ns: u64) -> u64 {
    let rate = u128::from(bytes) * 1_000_000_000 / u128::from(ns.max(1));
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// The table of `--by time`, which has only counts.
fn times(rows: &[Group]) -> String {
    let mut out = format!("{:>9} {:>9} {}\n", "REQUESTS", "FINDINGS", subject(By::Time));
    for row in rows {
        out += &format!("{:>9} {:>9} {}\n", count(row.requests), count(row.findings), row.name);
    }
    out
}

/// The callers of a folded stack's innermost function.
fn frames(folded: &str, style: Style) -> String {
    let line = |name: &str| {
        let text = format!("          from {name}");
        let text = if style.cut { head(&text, style.width) } else { text };
        text + "\n"
    };
    folded.rsplit(';').skip(1).map(line).collect()
}

/// The heading of the column with the groups' names.
pub(crate) const fn subject(by: By) -> &'static str {
    match by {
        By::Process => "PROCESS/PID",
        By::Thread => "PROCESS/PID THREAD/TID",
        By::File => "FILE",
        By::Fs => "FILE SYSTEM",
        By::Cause => "CAUSE",
        By::Container => "CONTAINER OR CGROUP",
        By::Pod => "NAMESPACE/POD",
        By::Namespace => "NAMESPACE",
        By::Volume => "VOLUME",
        By::Stack => "STACK",
        By::Time => "TIME",
        By::Verdict => "VERDICT",
    }
}

/// A percentile; `-` if it is not known.
pub(crate) fn latency(ns: Option<u64>) -> String {
    ns.map_or_else(|| "-".to_owned(), duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Group> {
        let mut rows: Vec<Group> =
            (0..12).map(|n| Group::of(format!("/a/long/path/to/the/file/{n}"), n, 0)).collect();
        rows[0].bytes.total = 8 << 20;
        rows
    }

    #[test]
    fn a_table_is_bounded_and_says_how_many_rows_are_left_out() {
        let style = Style { width: 80, colour: false, cut: true, all: false, verbose: false };
        let text = groups(&rows(), By::File, style, 10, Some(4_000_000_000));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.ends_with("        2 more (--verbose has all)\n"), "{text}");
        let style = Style { verbose: true, width: 120, ..style };
        let text = groups(&rows(), By::File, style, 10, Some(4_000_000_000));
        assert_eq!(text.lines().count(), 1 + 12, "{text}");
        assert!(text.contains("BYTES/S") && text.contains("   8.0M    2.0M "), "{text}");
    }
}
