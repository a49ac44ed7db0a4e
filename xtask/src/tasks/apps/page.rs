//! Writes docs/applications.md and its tables.
use std::{collections::BTreeMap, fmt::Write as _};

use crate::guest::contract::apps::{Counted, Latency, Ops, Row};

/// A line of the table: the sum of all rows with the same program, case, way of watching and
/// reference.
#[derive(Default)]
struct Line {
    fs: Vec<String>,
    wanted: Ops,
    seen: Ops,
    verdicts: BTreeMap<String, u64>,
    missing: u64,
    wrong: bool,
}

/// Program, case, way of watching, reference.
type Key<'a> = (&'a str, &'a str, &'a str, &'a str);

/// The lines of the table, in the order of their first rows.
fn lines(rows: &[Row]) -> Vec<(Key<'_>, Line)> {
    let mut lines: Vec<(Key<'_>, Line)> = Vec::new();
    for row in rows {
        let Row::Counted(row) = row else { continue };
        let key: Key<'_> = (&row.program, &row.case, &row.watched, &row.reference);
        let at = lines.iter().position(|(other, _)| *other == key);
        let at = at.unwrap_or_else(|| {
            lines.push((key, Line::default()));
            lines.len() - 1
        });
        lines[at].1.add(row);
    }
    lines
}

impl Line {
    fn add(&mut self, row: &Counted) {
        if !self.fs.contains(&row.fs) {
            self.fs.push(row.fs.clone());
        }
        self.wanted += row.wanted;
        self.seen += row.seen;
        for (verdict, count) in &row.verdicts {
            *self.verdicts.entry(verdict.clone()).or_default() += count;
        }
        self.missing = self.missing.max(row.missing.values().sum());
        self.wrong |= !row.wrong().is_empty();
    }
}

/// The table of counts, the mismatches, the latencies, and the programs that were left out.
pub(super) fn tables(rows: &[Row]) -> String {
    let mut out = String::from(
        "| program | workload | on | watched by | reference | its reads | dio-trace's | its writes | dio-trace's | verdicts | unknown | lost | |\n\
         |---|---|---|---|---|---:|---:|---:|---:|---|---:|---:|---|\n",
    );
    for ((program, case, watched, reference), line) in lines(rows) {
        let said = |(verdict, count): (&String, &u64)| format!("{verdict} {count}");
        let verdicts = line.verdicts.iter().filter(|(_, count)| **count != 0);
        let verdicts: Vec<String> = verdicts.map(said).collect();
        let unknown = line.verdicts.get("unknown").copied().unwrap_or_default();
        let (wanted, seen) = (line.wanted, line.seen);
        let word = if line.wrong { "**not exact**" } else { "exact" };
        let _ = writeln!(
            out,
            "| {program} | {case} | {} | {watched} | {reference} | {} | {} | {} | {} | {} | {unknown} | {} | {word} |",
            line.fs.join(", "),
            wanted.reads,
            seen.reads,
            wanted.writes,
            seen.writes,
            verdicts.join(", "),
            line.missing,
        );
    }
    out += &mismatches(rows);
    out += &latencies(rows);
    for row in rows {
        if let Row::LeftOut { app, why } = row {
            let _ = writeln!(out, "\n{app} was left out: {why}");
        }
    }
    out
}

fn mismatches(rows: &[Row]) -> String {
    let wrong: Vec<String> = rows.iter().flat_map(Row::wrong).collect();
    if wrong.is_empty() {
        return String::new();
    }
    let lines: String = wrong.iter().map(|what| format!("- {what}\n")).collect();
    format!("\nNot exact:\n\n{lines}")
}

/// The cost of tracing as a ratio of latencies, for pairs of runs without and with dio-trace.
fn latencies(rows: &[Row]) -> String {
    let mut out = String::new();
    for row in rows {
        let Row::Latency(Latency { program, case, pairs }) = row else { continue };
        let _ = writeln!(
            out,
            "\n{program}, {case}: {} pairs of runs, without dio-trace and under\n\
             `audit`; every other pair begins with dio-trace. The guest is emulated and has one CPU, which the server, pgbench and\n\
             dio-trace share: microseconds say little, ratios more.\n\n\
             | pair | transactions | p50 without, µs | with | ratio | p99 without, µs | with | ratio |\n\
             |---:|---:|---:|---:|---:|---:|---:|---:|",
            pairs.len()
        );
        let ratio = |with: u64, without: u64| with as f64 / without.max(1) as f64;
        for (number, (a, b)) in pairs.iter().enumerate() {
            let _ = writeln!(
                out,
                "| {} | {} + {} | {} | {} | {:.2} | {} | {} | {:.2} |",
                number + 1,
                a.count,
                b.count,
                a.p50,
                b.p50,
                ratio(b.p50, a.p50),
                a.p99,
                b.p99,
                ratio(b.p99, a.p99)
            );
        }
        let p50 = pairs.iter().map(|(a, b)| ratio(b.p50, a.p50)).collect();
        let p99 = pairs.iter().map(|(a, b)| ratio(b.p99, a.p99)).collect();
        let _ = writeln!(out, "| median | | | | {:.2} | | | {:.2} |", median(p50), median(p99));
    }
    out
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The text of docs/applications.md.
pub(super) fn whole(kernel: &str, tables: &str) -> String {
    format!(
        "# Applications\n\n\
         Made by `cargo xtask apps --write` in an emulated guest with Linux {kernel}. Each line is a workload of a real\n\
         program while dio-trace watches: the requests that the reference counted, and those that dio-trace\n\
         counted. A line is *exact* where both are the same for reads and for writes, no verdict is `unknown`, and\n\
         dio-trace reports nothing as lost, unmatched or still in flight; else the command fails.\n\n\
         References:\n\n\
         - *fio's total_ios*: what fio itself reports, for each job and direction.\n\
         - *strace*: the program runs under `strace -f`; the system calls that read or write a descriptor that is open\n  \
         with O_DIRECT at that moment are counted, and the requests that `io_submit` accepted. Those that the kernel\n  \
         refuses (EINVAL) count too: they are requests with an answer.\n\
         - *io_uring_submit_req*: the kernel's tracepoint, as a histogram of opcodes by ftrace, without eBPF. It does not\n  \
         tell files apart: the programs' rings take requests to their O_DIRECT files only.\n\n\
         {tables}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(fs: &str, seen: u64) -> Row {
        Row::Counted(Counted {
            program: "p 1".to_owned(),
            case: "c".to_owned(),
            fs: fs.to_owned(),
            wanted: Ops { reads: 5, writes: 0 },
            seen: Ops { reads: seen, writes: 0 },
            verdicts: BTreeMap::from([("direct".to_owned(), seen)]),
            ..Counted::default()
        })
    }

    #[test]
    fn one_line_for_all_parts_of_a_case() {
        let both = tables(&[row("ext4", 5), row("xfs", 5)]);
        assert!(both.contains("| p 1 | c | ext4, xfs |"), "{both}");
        assert!(both.contains("| 10 | 10 | 0 | 0 | direct 10 | 0 | 0 | exact |"), "{both}");
    }

    #[test]
    fn a_part_that_is_off_is_shown_though_the_sum_fits() {
        let off = tables(&[row("ext4", 4), row("xfs", 6)]);
        assert!(off.contains("| 10 | 10 | 0 | 0 | direct 10 | 0 | 0 | **not exact** |"), "{off}");
        assert_eq!(off.matches("\n- p 1 c, ").count(), 2, "{off}");
    }

    #[test]
    fn programs_left_out_are_listed() {
        let row = Row::LeftOut { app: "q".to_owned(), why: "there is none".to_owned() };
        assert!(tables(&[row]).contains("\nq was left out: there is none\n"));
    }
}
