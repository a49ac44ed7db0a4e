//! CSV (RFC 4180): a heading, then a line a request; what is null is empty.

use std::io::{self, Write};

use crate::record::Record;

const HEADING: &str = "time,pid,tid,comm,op,api,dev,ino,fs,path,offset,len,ret,latency_ns,verdict,\
direct_bytes,cached_bytes,outcome,errno,cause,why,fix,flushed_pages,invalidated_pages,\
readahead_pages,dirty_left_pages,approximate,attempts,finding,stack\r\n";

/// Writes rows.
pub struct Csv<W> {
    out: W,
}

impl<W: Write> Csv<W> {
    /// Writes the heading.
    ///
    /// # Errors
    /// Those of the output.
    pub fn new(mut out: W) -> io::Result<Self> {
        out.write_all(HEADING.as_bytes())?;
        Ok(Self { out })
    }

    /// Writes a request.
    ///
    /// # Errors
    /// Those of the output.
    pub fn record(&mut self, r: &Record) -> io::Result<()> {
        let e = &r.effects;
        let text = |text: Option<&str>| text.map_or_else(String::new, quoted);
        let number = |n: Option<u32>| n.map_or_else(String::new, |n| n.to_string());
        write!(
            self.out,
            "{},{},{},{},{},{},{},{},{},{},",
            r.time,
            r.pid,
            r.tid,
            quoted(&r.comm),
            r.op,
            r.api,
            r.dev,
            r.ino,
            quoted(&r.fs),
            quoted(&r.path)
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
            text(r.outcome),
            text(r.errno.as_deref()),
            text(r.cause),
            text(r.why.as_deref()),
            text(r.fix.as_deref())
        )?;
        write!(
            self.out,
            "{},{},{},{},{},{},{},{}\r\n",
            number(e.flushed_pages),
            number(e.invalidated_pages),
            number(e.readahead_pages),
            number(e.dirty_left_pages),
            e.approximate,
            r.attempts,
            r.finding,
            text(r.stack.as_ref().map(|stack| stack.folded()).as_deref())
        )
    }
}

/// A field in quotes where it needs them.
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

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        assert_eq!(quoted("/data/a b"), "/data/a b");
        assert_eq!(quoted("/data/a,\"b\""), "\"/data/a,\"\"b\"\"\"");
        assert_eq!(HEADING.trim_end().split(',').count(), 30);
    }
}
