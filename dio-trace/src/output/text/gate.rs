//! The result of `run --fail-on` (the gate): which rules failed, and the offenders, which are the
//! processes and files that broke a rule.

use crate::{
    gate::Outcome,
    output::text::columns::{tail, wrap},
    util::figures::count,
};

/// Maximum number of offenders shown; `--report` has all of them.
const SHOWN: usize = 10;

/// The page of a gate's outcome: rules, offenders and remedies.
#[must_use]
pub fn gate_page(outcome: &Outcome, width: usize) -> String {
    let counted: Vec<String> = outcome
        .rules
        .iter()
        .map(|rule| {
            let word = if rule.failed { " FAILED" } else { "" };
            format!("{} {}{word}", rule.what, count(rule.count))
        })
        .collect();
    let word = if outcome.passed { "passed" } else { "FAILED" };
    let mut out =
        wrap("dio-trace: ", &format!("gate {word}: {}", counted.join(", ")), width) + "\n";
    out += &(wrap("dio-trace: ", &outcome.headline(), width) + "\n");
    if let Some(lost) = &outcome.incomplete {
        let text = format!("not everything was seen, which fails the gate: {lost}");
        out += &(wrap("dio-trace: ", &text, width) + "\n");
    }
    if outcome.offenders.is_empty() {
        return out;
    }
    out += &format!("{:<9} {:>9} {:<6} {:<22} FILE\n", "WHAT", "COUNT", "OP", "CAUSE");
    for o in outcome.offenders.iter().take(SHOWN) {
        let cause = o.cause.as_deref().unwrap_or("-");
        let fixed = format!("{:<9} {:>9} {:<6} {cause:<22} ", o.what, count(o.count), o.op);
        let room = width.saturating_sub(fixed.chars().count()).max(12);
        out += &format!("{fixed}{}\n", tail(&o.path, room));
    }
    let more = outcome.offenders.len().saturating_sub(SHOWN);
    if more != 0 {
        out += &format!("{more} more (--report has them all)\n");
    }
    let mut said: Vec<&str> = Vec::new();
    for o in &outcome.offenders {
        let (Some(cause), Some(fix)) = (&o.cause, &o.fix) else { continue };
        if !said.contains(&cause.as_str()) && said.len() < SHOWN {
            said.push(cause);
            out += &(wrap(&format!("fix of {cause}: "), fix, width) + "\n");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{gate::Gate, testing::golden::run};

    #[test]
    fn the_page_names_the_offenders_in_80_columns() {
        let (records, summary) = run();
        let rules = ["fallback", "refused", "mixed", "short:9"];
        let mut gate = Gate::new(rules.iter().map(|text| text.parse().unwrap()).collect());
        records.iter().for_each(|record| gate.take(record));
        let page =
            gate_page(&gate.judge(&summary, "fio", Some(0), "2026-01-02T03:04:05+00:00"), 80);
        assert!(page.contains("gate FAILED: fallback 2 FAILED, refused 3 FAILED"), "{page}");
        assert!(
            page.contains("dio-trace: 10 O_DIRECT requests: 4 direct, 2 fallback, 2 refused"),
            "{page}"
        );
        assert!(
            page.contains("data-journal") && page.contains("not everything was seen"),
            "{page}"
        );
        assert!(page.lines().all(|line| line.chars().count() <= 80), "{page}");
    }
}
