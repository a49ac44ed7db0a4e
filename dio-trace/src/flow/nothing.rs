//! The text for a run in which no request was seen: the known reasons, without guesses.

use crate::{flow::summary::Summary, model::Gap};

/// Says that no request was seen, and what could have hidden one.
pub(crate) fn seen(s: &Summary) -> String {
    let mut text = format!("No O_DIRECT request ended while {} was traced.", scope(s));
    let open = s.in_flight + s.unmatched;
    if open != 0 {
        text.push_str(&format!(" {open} began whose completion was not seen."));
    }
    if s.scope.children_left_out != 0 {
        let (n, end) = (s.scope.children_left_out, plural(s.scope.children_left_out));
        text.push_str(&format!(" {n} child process{end} left out (--no-children)."));
    }
    if s.probes.missing.iter().any(|missing| missing.gap == Gap::Blind) {
        return format!("{text} That says nothing about it: the tracer was {}.", blind(s));
    }
    if s.probes.missing.iter().any(|missing| missing.gap != Gap::Untested) || s.lost_total() != 0 {
        text.push_str(" The tracer may have missed requests: see below.");
    }
    text.push_str(&format!(
        " `grep -H flags /proc/PID/fdinfo/*` shows how files are open: with O_DIRECT the octal \
         flags have the bit 0{:o}.",
        libc::O_DIRECT
    ));
    text
}

/// Which requests the tracer does not see at all, by its own test.
pub(crate) fn blind(s: &Summary) -> String {
    let blind = s.probes.missing.iter().filter(|missing| missing.gap == Gap::Blind);
    let apis: Vec<&str> = blind.map(|missing| missing.probe.as_str()).collect();
    format!("blind to requests by {}", apis.join(", "))
}

fn scope(s: &Summary) -> &str {
    if s.scope.text.is_empty() { "this" } else { &s.scope.text }
}

const fn plural(n: u64) -> &'static str {
    if n == 1 { " was" } else { "es were" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{flow::summary::Scope, testing::golden::run};

    #[test]
    fn the_program_is_not_blamed_for_what_could_be_ours() {
        let mut summary = run().1;
        summary.scope =
            Scope { text: "process 3920 and 7 descendants".to_owned(), children_left_out: 0 };
        (summary.in_flight, summary.unmatched) = (0, 0);
        summary.probes.missing.clear();
        summary.lost.values_mut().for_each(|n| *n = 0);
        let plain = seen(&summary);
        assert!(plain.starts_with(
            "No O_DIRECT request ended while process 3920 and 7 descendants was traced. `grep"
        ));
        summary.scope.children_left_out = 3;
        assert!(seen(&summary).contains("3 child processes were left out (--no-children)"));
        summary.in_flight = 2;
        assert!(seen(&summary).contains("2 began whose completion was not seen"));
        summary.probes.missing = run().1.probes.missing;
        assert!(seen(&summary).contains("may have missed requests"));
        let gap = &mut summary.probes.missing[0];
        (gap.probe, gap.gap) = ("io_uring".to_owned(), Gap::Blind);
        let blind = seen(&summary);
        assert!(blind.ends_with("the tracer was blind to requests by io_uring."), "{blind}");
    }
}
