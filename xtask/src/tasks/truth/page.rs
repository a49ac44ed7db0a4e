//! The text of docs/truth.md.
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use super::columns::{Column, Count};

/// The most columns of one table, so that it is readable without scrolling sideways.
const WIDTH: usize = 10;
/// The most disagreements listed for one column.
const LISTED: usize = 20;

const HEAD: &str = "# Truth report

Written by `cargo xtask truth`. Each cell is a system call made on a real kernel in a virtual machine:
dio-trace's verdict, outcome, count, errno, bytes by path, file, process, cause and side effects
against what that kernel was measured to do without eBPF, the program's own tally, mincore(2) and
/proc/self/io. Every cell is made twice, under `attach -p --all` and under `run`, and counts twice.
";

const SETUPS: &str = "
A number says that so many cells were checked and all agree, `a/b` that a of b agree, `-` that the
set-up cannot be made or was not measured there. Beside the set-ups each run compares dio-trace's
totals and losses with the program's.
";

/// The file, relative to the checkout.
pub(super) const PAGE: &str = "docs/truth.md";

/// The page for these columns.
pub(super) fn page(columns: &[Column]) -> String {
    let sum = |part: fn(&Column) -> u64| columns.iter().map(part).sum::<u64>();
    let mut text = format!(
        "{HEAD}\n{} cells: {} wrong, {} missed, {} extra.\n\n## Kernels\n\n",
        sum(|column| column.cells),
        sum(|column| column.wrong),
        sum(|column| column.missed),
        sum(|column| column.extra),
    );
    text.push_str(&kernels(columns));
    let _ = writeln!(text, "\n## Set-ups\n{SETUPS}");
    text.push_str(&matrices(columns));
    text.push_str("\n## Disagreements\n\n");
    if columns.iter().all(|column| column.complaints.is_empty()) {
        text.push_str("None.\n");
    }
    for column in columns {
        for complaint in column.complaints.iter().take(LISTED) {
            let _ = writeln!(text, "- {}: {complaint}", column.name());
        }
        let more = column.complaints.len().saturating_sub(LISTED);
        if more > 0 {
            let _ = writeln!(text, "- {}: and {more} more", column.name());
        }
    }
    text
}

/// One row for each column. `object` tells apart which state of the probes a column is of.
fn kernels(columns: &[Column]) -> String {
    let mut text =
        "| kernel | version | architecture | page | attached by | object | cells | wrong | \
                    missed | extra |\n|---|---|---|--:|---|---|--:|--:|--:|--:|\n"
            .to_owned();
    for column in columns {
        let page = match column.page_size {
            0 => "?".to_owned(),
            bytes => format!("{} KiB", bytes >> 10),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {page} | {} | {} | {} | {} | {} | {} |",
            column.kernel,
            column.version,
            column.arch,
            column.attach,
            column.object,
            column.cells,
            column.wrong,
            column.missed,
            column.extra
        );
    }
    text
}

/// The tables of fixtures and kernels, each with some of the columns.
pub(super) fn matrices(columns: &[Column]) -> String {
    let tables: Vec<String> = columns.chunks(WIDTH).map(matrix).collect();
    tables.join("\n")
}

/// A Markdown table, aligned so that it is readable on a terminal too.
fn matrix(columns: &[Column]) -> String {
    let setups: BTreeSet<&String> =
        columns.iter().flat_map(|column| column.setups.keys()).collect();
    let width = setups.iter().map(|name| name.len()).max().unwrap_or(0).max(7);
    let names: Vec<String> = columns.iter().map(Column::name).collect();
    let wide = names.iter().map(String::len).max().unwrap_or(0).max(11);
    let mut text = format!("| {:<width$} |", "set-up");
    for name in &names {
        let _ = write!(text, " {name:>wide$} |");
    }
    let _ = write!(text, "\n|-{:-<width$}-|", "");
    for _ in columns {
        let _ = write!(text, "-{:->wide$}:|", "");
    }
    text.push('\n');
    for setup in setups {
        let _ = write!(text, "| {setup:<width$} |");
        for column in columns {
            let _ = write!(text, " {:>wide$} |", word(&column.setups, setup));
        }
        text.push('\n');
    }
    text
}

/// The text of one cell of the matrix: `8` if all 8 agree, `7/8` if 7 do, `-` if not measured.
fn word(counts: &BTreeMap<String, Count>, setup: &str) -> String {
    match counts.get(setup) {
        None => "-".to_owned(),
        Some(count) if count.agree == count.cells => count.cells.to_string(),
        Some(count) => format!("{}/{}", count.agree, count.cells),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{host::paths, tasks::truth::columns};

    fn column(kernel: &str, wrong: u64) -> Column {
        Column {
            kernel: kernel.to_owned(),
            attach: "fentry".to_owned(),
            version: format!("{kernel}.9"),
            arch: "x86_64".to_owned(),
            page_size: 16 << 10,
            object: "abc".to_owned(),
            cells: 8,
            wrong,
            missed: 0,
            extra: 0,
            setups: BTreeMap::from([("ext4".to_owned(), Count { agree: 8 - wrong, cells: 8 })]),
            complaints: (0..wrong).map(|n| format!("complaint {n}")).collect(),
        }
    }

    #[test]
    fn the_page_is_of_the_kept_columns() {
        let (made, path) =
            (page(&columns::kept().unwrap()), paths::workspace().unwrap().join(PAGE));
        if std::env::var_os("BLESS").is_some() {
            fs::write(&path, &made).unwrap();
        }
        let there = fs::read_to_string(&path).unwrap();
        assert!(there == made, "{PAGE} is not what its columns make: BLESS=1 cargo test -p xtask");
    }

    #[test]
    fn the_page_lists_kernels_and_disagreements() {
        let page = page(&[column("6.1", 0), column("6.12", 1)]);
        assert!(page.contains("16 cells: 1 wrong, 0 missed, 0 extra"), "{page}");
        assert!(page.contains("| 6.1 | 6.1.9 | x86_64 | 16 KiB | fentry | abc | 8 |"), "{page}");
        assert!(page.contains("| ext4    |           8 |         7/8 |"), "{page}");
        assert!(page.contains("- 6.12 fentry: complaint 0"), "{page}");
    }
}
