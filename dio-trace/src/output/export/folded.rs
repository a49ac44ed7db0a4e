//! Folded stacks, the input of flame graph programs: one line per distinct list of frames,
//! separated by `;` and followed by a count.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use anyhow::Result;
use dio_trace_common::verdict::Outcome;

use crate::{
    flow::{explained::ExplainedRequest, sink::Sink},
    system::stack::one_frame,
};

/// Maximum number of lines kept. Further requests are counted in the line [`OTHERS`].
const MAX_LINES: usize = 1 << 18;
/// Maximum bytes of memory for the lines.
const MAX_BYTES: usize = 40 << 20;
/// Bytes of memory that a line takes in addition to its text.
const LINE: usize = 80;
const OTHERS: &str = "(others)";

/// Counts requests by folded line.
#[derive(Default)]
pub struct Folded {
    lines: BTreeMap<String, u64>,
    bytes: usize,
}

impl Folded {
    fn add(&mut self, r: &ExplainedRequest) {
        let verdict = match r.outcome.filter(|outcome| *outcome != Outcome::Full) {
            Some(outcome) => format!("{} {outcome}", r.verdict),
            None => r.verdict.to_string(),
        };
        let stack = r.stack.as_ref().map_or_else(String::new, |stack| stack.folded() + ";");
        let (comm, path) = (one_frame(&r.comm), one_frame(&r.path));
        let mut line = format!("{comm}/{};{stack}{path};{}/{};{verdict}", r.pid, r.op, r.api);
        if let Some(cause) = r.cause {
            line.push(';');
            line.push_str(cause);
        }
        if !self.lines.contains_key(&line) {
            let bytes = self.bytes + LINE + line.len();
            if self.lines.len() >= MAX_LINES || bytes > MAX_BYTES {
                OTHERS.clone_into(&mut line);
            } else {
                self.bytes = bytes;
            }
        }
        *self.lines.entry(line).or_default() += 1;
    }

    /// Writes all lines.
    ///
    /// # Errors
    /// Errors of the output.
    pub fn finish(&self, mut out: impl Write) -> io::Result<()> {
        self.lines.iter().try_for_each(|(line, requests)| writeln!(out, "{line} {requests}"))
    }
}

impl Sink for Folded {
    fn wants_all(&self) -> bool {
        true
    }

    fn request(&mut self, record: &ExplainedRequest) -> Result<()> {
        self.add(record);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::golden;

    #[test]
    fn requests_are_counted_by_what_they_share() {
        let mut folded = Folded::default();
        let mut records = golden::run().0;
        records[0].path = "/data/a;b c".into();
        records.iter().for_each(|record| folded.request(record).unwrap());
        folded.request(&records[0]).unwrap();
        let mut out = Vec::new();
        folded.finish(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("postgres/42;/data/a\\x3bb c;read/read;direct 2\n"), "{text}");
        assert!(text.contains(";direct short:eof;end-of-file 1\n"), "{text}");
        let counts = text.lines().map(|line| line.rsplit_once(' ').unwrap().1);
        assert_eq!(counts.map(|n| n.parse::<usize>().unwrap()).sum::<usize>(), records.len() + 1);
    }
}
