//! Verified instructions of each program and kernel, held to the committed ones.
//!
//! The suite of each kernel writes them (see [`VERIFIED`]); `xtask/bench/verified.tsv` has
//! those that are accepted, and `cargo xtask test --write-verified` writes it.
use std::{collections::BTreeMap, fmt::Write as _, fs};

use anyhow::{Context, Result};

use crate::{
    guest::contract::suite::VERIFIED,
    host::{paths, step_runner::Outcome},
    tasks::suites::{Done, Run},
};

/// The committed numbers, relative to the checkout.
const KEPT: &str = "xtask/bench/verified.tsv";
const HEADING: &str = "kernel\tattach\tprogram\tverified instructions\n";
/// A number may grow by this share before the test fails.
const TOLERANCE: f64 = 0.1;

/// Kernel series, how dio-trace attached, and the program's name.
type Key = (String, String, String);
type Numbers = BTreeMap<Key, u64>;

/// Compares what these runs wrote with the committed numbers. A program that is not committed, or
/// that the kernel verified with more instructions than allowed, fails.
///
/// # Errors
/// If the committed numbers cannot be read.
pub(crate) fn check(done: &[Done]) -> Result<Outcome> {
    let found = measured(done);
    if found.is_empty() {
        return Ok(Outcome::Skipped("no kernel that ran says them (5.16 on)".to_owned()));
    }
    let path = paths::workspace()?.join(KEPT);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {KEPT}"))?;
    let grown = grown(&parse(&text), &found);
    Ok(if grown.is_empty() { Outcome::Passed } else { Outcome::Failed(grown.join("; ")) })
}

/// Puts what these runs wrote into the committed numbers; those of other runs stay.
///
/// # Errors
/// If the file cannot be written.
pub(crate) fn keep(done: &[Done]) -> Result<()> {
    let path = paths::workspace()?.join(KEPT);
    let mut numbers = parse(&fs::read_to_string(&path).unwrap_or_default());
    let found = measured(done);
    let measured: Vec<(&str, &str)> =
        done.iter().map(|done| (done.run.kernel, done.run.attach)).collect();
    numbers.retain(|(kernel, attach, _), _| !measured.contains(&(kernel, attach)));
    numbers.extend(found);
    let mut text = HEADING.to_owned();
    for ((kernel, attach, program), verified) in numbers {
        let _ = writeln!(text, "{kernel}\t{attach}\t{program}\t{verified}");
    }
    fs::write(&path, text).with_context(|| format!("cannot write {KEPT}"))
}

fn measured(done: &[Done]) -> Numbers {
    let of = |run: &Run| {
        let path = paths::target().ok()?.join("vm-test").join(run.name()).join(VERIFIED);
        let numbers = parse(&fs::read_to_string(path).ok()?);
        // The guest knows its series, and not the kernel's flavour and architecture.
        let named =
            |((_, attach, program), number)| ((run.kernel.to_owned(), attach, program), number);
        Some(numbers.into_iter().map(named).collect::<Numbers>())
    };
    done.iter().filter_map(|done| of(&done.run)).flatten().collect()
}

fn parse(text: &str) -> Numbers {
    let row = |line: &str| {
        let [kernel, attach, program, verified] = line.split('\t').collect::<Vec<_>>()[..] else {
            return None;
        };
        let key = (kernel.to_owned(), attach.to_owned(), program.to_owned());
        Some((key, verified.parse().ok()?))
    };
    text.lines().filter_map(row).collect()
}

/// What is new or has grown too much, one text each.
fn grown(kept: &Numbers, found: &Numbers) -> Vec<String> {
    let text = |(key, now): (&Key, &u64)| {
        let (kernel, attach, program) = key;
        let name = format!("{program} on {kernel} by {attach}");
        match kept.get(key) {
            None => Some(format!("{name} is not in {KEPT} ({now} instructions)")),
            Some(before) if *now as f64 > *before as f64 * (1.0 + TOLERANCE) => {
                Some(format!("{name} grew from {before} to {now} instructions"))
            }
            Some(_) => None,
        }
    };
    found.iter().filter_map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_beyond_the_tolerance_and_new_programs_fail() {
        let kept = parse("kernel\tattach\tprogram\tverified instructions\n6.12\tfentry\ta\t1000\n");
        let found = |program: &str, n| {
            Numbers::from([(("6.12".to_owned(), "fentry".to_owned(), program.to_owned()), n)])
        };
        assert!(grown(&kept, &found("a", 1_100)).is_empty());
        assert!(grown(&kept, &found("a", 10)).is_empty());
        assert_eq!(grown(&kept, &found("a", 1_101)).len(), 1);
        assert_eq!(grown(&kept, &found("b", 1)).len(), 1);
    }
}
