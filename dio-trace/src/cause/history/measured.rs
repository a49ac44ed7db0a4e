//! The table agrees with what kernels were measured to do: `measured.tsv`, whose lines in turn agree
//! with the cells of xtask/scenarios/ that docs/truth.md counts.

use std::{fs, path::PathBuf};

use super::{Holds, changes};

const TEXT: &str = include_str!("measured.tsv");
/// Columns before those of the kernels.
const BEFORE: usize = 5;
/// Series of the columns of xtask/scenarios/, which are the kernels of measured.tsv.
const SERIES: [&str; 5] = ["5.10", "6.1", "6.12", "6.18", "7.3"];

/// One line of measured.tsv.
struct Line<'a> {
    change: &'a str,
    setup: &'a str,
    case: &'a str,
    api: &'a str,
    shows: &'a str,
    /// Kernels, with `yes`, `no` or `-`.
    seen: Vec<(&'a str, &'a str)>,
    from: &'a str,
}

fn lines(text: &str) -> Vec<Line<'_>> {
    let head = text.lines().find(|line| line.starts_with("#change")).unwrap();
    let kernels: Vec<&str> = head.split('\t').skip(BEFORE).take(SERIES.len()).collect();
    let line = |line| {
        let fields: Vec<&str> = str::split(line, '\t').collect();
        let [change, setup, case, api, shows, seen @ .., from] = &fields[..] else {
            panic!("{line}");
        };
        assert_eq!(seen.len(), kernels.len(), "{line}");
        let seen = kernels.iter().copied().zip(seen.iter().copied()).collect();
        Line { change, setup, case, api, shows, seen, from }
    };
    text.lines().filter(|line| !line.starts_with('#')).map(line).collect()
}

/// Where the table says something else than what was seen.
fn disagreements(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for Line { change, seen, .. } in lines(text) {
        let Some(known) = changes().find(|known| known.id == change) else {
            wrong.push(format!("there is no change {change}"));
            continue;
        };
        for (kernel, seen) in seen {
            let expected = match seen {
                "yes" => Holds::Yes,
                "no" => Holds::No,
                _ => continue,
            };
            let said = known.applies(kernel.parse().unwrap());
            if said != expected {
                wrong.push(format!("{change} on {kernel}: seen {seen}, the table says {said:?}"));
            }
        }
    }
    wrong
}

#[test]
fn the_table_agrees_with_the_kernels() {
    assert_eq!(disagreements(TEXT), Vec::<String>::new());
}

#[test]
fn a_disagreement_is_found() {
    let wrong = |from: &str, to: &str| {
        let text = TEXT.replace(from, to);
        assert_ne!(text, TEXT, "{from}");
        disagreements(&text)
    };
    let cell = "btrfs-checksums-cached\tbtrfs\tw_over4k\tpwrite\tfallback\tno\tno\t";
    let changed = "btrfs-checksums-cached\tbtrfs\tw_over4k\tpwrite\tfallback\tno\tyes\t";
    let found = wrong(cell, changed);
    assert_eq!(found, ["btrfs-checksums-cached on 6.1.192: seen yes, the table says No"]);
    // Without its backport, 6.12 has no fallback for checksums.
    let found = wrong("\t6.12.117\t", "\t6.12.76\t");
    assert_eq!(found[0], "btrfs-checksums-cached on 6.12.76: seen yes, the table says No");
    assert_eq!(wrong("tmpfs-no-effect", "tmpfs-none"), ["there is no change tmpfs-none"]);
}

/// The cells of xtask/scenarios/ for a line, one for each series.
fn cells(line: &Line<'_>) -> Vec<String> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../xtask/scenarios");
    let text = fs::read_to_string(folder.join(format!("{}.tsv", line.setup))).unwrap();
    let head = text.lines().next().unwrap();
    assert!(head.ends_with(&SERIES.join("\t")), "{head}");
    let begin = format!("{}\t{}\t", line.case, line.api);
    let row = text.lines().find(|row| row.starts_with(&begin)).unwrap_or_else(|| panic!("{begin}"));
    row.split('\t').skip(BEFORE).map(str::to_owned).collect()
}

#[test]
fn the_lines_agree_with_the_scenarios() {
    for line in lines(TEXT) {
        let Line { change, shows, seen, .. } = &line;
        match line.from {
            "truth" => continue,
            from => assert_eq!(from, "scenarios", "{change}"),
        }
        for ((kernel, seen), cell) in seen.iter().zip(cells(&line)) {
            let verdict = cell.split(' ').next().unwrap();
            match *seen {
                "yes" => assert_eq!(verdict, *shows, "{change} on {kernel}"),
                "no" => assert!(verdict != *shows && verdict != "?", "{change} on {kernel}"),
                _ => {}
            }
        }
    }
}

#[test]
fn a_column_is_the_kernel_of_its_series() {
    for (kernel, _) in &lines(TEXT)[0].seen {
        let series = SERIES.iter().filter(|series| kernel.starts_with(&format!("{series}.")));
        assert_eq!(series.count(), 1, "{kernel}");
    }
}
