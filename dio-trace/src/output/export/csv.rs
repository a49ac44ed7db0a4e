//! CSV (RFC 4180): a header, then one line per request; a null field is empty. A text that a
//! spreadsheet would take for a formula gets a `'` in front, because programs choose their own
//! names.

use std::io::{self, Write};

use anyhow::Result;

use dio_trace_common::verdict::Outcome;

use crate::flow::{explained::ExplainedRequest, sink::Sink};

const HEADING: &str = "time,pid,tid,comm,op,api,dev,ino,fs,path,offset,len,ret,latency_ns,verdict,\
direct_bytes,cached_bytes,outcome,errno,cause,why,fix,flushed_pages,invalidated_pages,\
readahead_pages,dirty_left_pages,approximate,attempts,finding,stack,flags,would_block,container,pod,\
namespace,volume,asked,read_in_bytes\r\n";

/// Writes requests as CSV rows.
pub struct Csv<W> {
    out: W,
}

impl<W: Write> Csv<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// Errors of the output.
    pub fn new(mut out: W) -> io::Result<Self> {
        out.write_all(HEADING.as_bytes())?;
        Ok(Self { out })
    }
}

impl<W: Write> Sink for Csv<W> {
    fn wants_all(&self) -> bool {
        true
    }

    fn request(&mut self, r: &ExplainedRequest) -> Result<()> {
        let e = &r.effects;
        let text = |text: Option<&str>| text.map_or_else(String::new, cell);
        let number = |n: Option<u32>| n.map_or_else(String::new, |n| n.to_string());
        write!(
            self.out,
            "{},{},{},{},{},{},{},{},{},{},",
            r.time,
            r.pid,
            r.tid,
            cell(&r.comm),
            r.op,
            r.api,
            r.dev,
            r.ino,
            cell(&r.fs),
            cell(&r.path)
        )?;
        write!(
            self.out,
            "{},{},{},{},{},{},{},{},{},{},{},{},",
            r.offset,
            r.len,
            r.ret,
            r.latency_ns,
            r.verdict,
            r.direct_bytes,
            r.cached_bytes,
            text(r.outcome.map(Outcome::as_str)),
            text(r.errno.as_deref()),
            text(r.cause),
            text(r.why.as_deref()),
            text(r.fix.as_deref())
        )?;
        write!(
            self.out,
            "{},{},{},{},{},{},{},{},{},{},",
            number(e.flushed_pages),
            number(e.invalidated_pages),
            number(e.readahead_pages),
            number(e.dirty_left_pages),
            e.approximate,
            r.attempts,
            r.finding,
            text(r.stack.as_ref().map(|stack| stack.folded()).as_deref()),
            cell(&r.flags.join(" ")),
            cell(&r.would_block.join(" "))
        )?;
        write!(
            self.out,
            "{},{},{},{},{},{}\r\n",
            text(r.container.as_deref()),
            text(r.pod.as_deref()),
            text(r.namespace.as_deref()),
            text(r.volume.as_deref()),
            r.asked.as_str(),
            r.read_in_bytes.map_or_else(String::new, |n| n.to_string())
        )?;
        Ok(())
    }
}

/// A text field. A text that begins with `'` gets another one, so that removing the first `'` of
/// any field restores what was recorded.
fn cell(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\'']) {
        quoted(&format!("'{text}"))
    } else {
        quoted(text)
    }
}

/// The field, quoted if it needs to be.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::golden;

    #[test]
    fn fields_are_quoted_when_needed() {
        assert_eq!(quoted("/data/a b"), "/data/a b");
        assert_eq!(quoted("/data/a,\"b\""), "\"/data/a,\"\"b\"\"\"");
        assert_eq!(HEADING.trim_end().split(',').count(), 38);
    }

    #[test]
    fn a_name_is_not_a_formula() {
        let row = |comm: &str| {
            let mut record = golden::run().0.swap_remove(0);
            record.comm = comm.into();
            record.ret = -22;
            let mut csv = Csv::new(Vec::new()).unwrap();
            csv.request(&record).unwrap();
            let text = String::from_utf8(csv.out).unwrap();
            text.lines().nth(1).unwrap().to_owned()
        };
        for start in ["=", "+", "-", "@", "\t", "\r", "'"] {
            let line = row(&format!("{start}cmd|' /C calc'!A0"));
            let cell = line.split(',').nth(3).unwrap().trim_start_matches('"');
            assert!(cell.starts_with(&format!("'{start}cmd|")), "{line}");
        }
        assert!(row("=HYPERLINK(\"x\",1)").contains(",\"'=HYPERLINK(\"\"x\"\",1)\","));
        let plain = row("a=b");
        // Numbers and names that are not formulas are not changed.
        assert!(plain.contains(",a=b,") && plain.contains(",-22,"), "{plain}");
    }
}
