//! Parquet: one typed column per field.

use std::{io::Write, sync::Arc};

use anyhow::{Error, Result};
use dio_trace_common::verdict::Outcome;
use parquet::{
    basic::{Compression, ZstdLevel},
    data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int32Type, Int64Type},
    errors::ParquetError,
    file::{
        properties::WriterProperties,
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::parser::parse_message_type,
};

use crate::flow::{explained::ExplainedRequest, sink::Sink};

/// Maximum number of requests in a row group, which is held in memory.
const GROUP: usize = 1 << 16;
/// Maximum bytes of text in a row group: a hostile recording may hold any amount.
const MAX_TEXT: usize = 24 << 20;

const SCHEMA: &str = "
message dio_trace {
  required int64 time (TIMESTAMP(NANOS,true));
  required int32 pid (INTEGER(32,false));
  required int32 tid (INTEGER(32,false));
  required binary comm (STRING);
  required binary op (STRING);
  required binary api (STRING);
  required binary dev (STRING);
  required int64 ino (INTEGER(64,false));
  required binary fs (STRING);
  required binary path (STRING);
  required int64 offset;
  required int64 len (INTEGER(64,false));
  required int64 ret;
  required int64 latency_ns (INTEGER(64,false));
  required binary verdict (STRING);
  required int64 direct_bytes (INTEGER(64,false));
  required int64 cached_bytes (INTEGER(64,false));
  optional binary outcome (STRING);
  optional binary errno (STRING);
  optional binary cause (STRING);
  optional binary why (STRING);
  optional binary fix (STRING);
  optional int32 flushed_pages (INTEGER(32,false));
  optional int32 invalidated_pages (INTEGER(32,false));
  optional int32 readahead_pages (INTEGER(32,false));
  optional int32 dirty_left_pages (INTEGER(32,false));
  required boolean approximate;
  required int32 attempts (INTEGER(32,false));
  required boolean finding;
  optional binary stack (STRING);
  optional binary flags (STRING);
  optional binary would_block (STRING);
  optional binary container (STRING);
  optional binary pod (STRING);
  optional binary namespace (STRING);
  optional binary volume (STRING);
}";

/// Writes requests as a Parquet file.
pub struct Parquet<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    rows: Vec<ExplainedRequest>,
    text: usize,
}

impl<W: Write + Send> Parquet<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// Errors of the output.
    pub fn new(out: W) -> Result<Self> {
        let schema = Arc::new(parse_message_type(SCHEMA)?);
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
            .build();
        let writer = SerializedFileWriter::new(out, schema, Arc::new(properties)).map_err(plain)?;
        Ok(Self { writer, rows: Vec::new(), text: 0 })
    }

    /// Completes the file, and returns the output.
    ///
    /// # Errors
    /// Errors of the output.
    pub fn finish(mut self) -> Result<W> {
        if !self.rows.is_empty() {
            self.group().map_err(plain)?;
        }
        self.writer.into_inner().map_err(plain)
    }

    /// Writes a row group: the columns in the order of the schema.
    fn group(&mut self) -> Result<()> {
        let rows = std::mem::take(&mut self.rows);
        self.text = 0;
        let mut group = Group { out: self.writer.next_row_group()?, rows: &rows };
        group.long(|r| r.time as i64)?;
        group.int(|r| r.pid as i32)?;
        group.int(|r| r.tid as i32)?;
        group.text(|r| &r.comm)?;
        group.text(|r| r.op.as_str())?;
        group.text(|r| r.api.as_str())?;
        group.text(|r| &r.dev)?;
        group.long(|r| r.ino as i64)?;
        group.text(|r| &r.fs)?;
        group.text(|r| &r.path)?;
        group.long(|r| r.offset)?;
        group.long(|r| r.len as i64)?;
        group.long(|r| r.ret)?;
        group.long(|r| r.latency_ns as i64)?;
        group.text(|r| r.verdict.as_str())?;
        group.long(|r| r.direct_bytes as i64)?;
        group.long(|r| r.cached_bytes as i64)?;
        group.maybe_text(|r| r.outcome.map(Outcome::as_str))?;
        group.maybe_text(|r| r.errno.as_deref())?;
        group.maybe_text(|r| r.cause)?;
        group.maybe_text(|r| r.why.as_deref())?;
        group.maybe_text(|r| r.fix.as_deref())?;
        group.maybe_int(|r| r.effects.flushed_pages)?;
        group.maybe_int(|r| r.effects.invalidated_pages)?;
        group.maybe_int(|r| r.effects.readahead_pages)?;
        group.maybe_int(|r| r.effects.dirty_left_pages)?;
        group.flag(|r| r.effects.approximate)?;
        group.int(|r| r.attempts as i32)?;
        group.flag(|r| r.finding)?;
        group.some::<ByteArrayType>(|r| Some(r.stack.as_ref()?.folded().as_str().into()))?;
        group.some::<ByteArrayType>(|r| words(&r.flags))?;
        group.some::<ByteArrayType>(|r| words(&r.would_block))?;
        group.maybe_text(|r| r.container.as_deref())?;
        group.maybe_text(|r| r.pod.as_deref())?;
        group.maybe_text(|r| r.namespace.as_deref())?;
        group.maybe_text(|r| r.volume.as_deref())?;
        group.out.close()?;
        Ok(())
    }
}

impl<W: Write + Send> Sink for Parquet<W> {
    fn wants_all(&self) -> bool {
        true
    }

    fn request(&mut self, record: &ExplainedRequest) -> Result<()> {
        self.rows.push(record.clone());
        self.text += text(record);
        let full = self.rows.len() >= GROUP || self.text >= MAX_TEXT;
        if full { self.group().map_err(plain) } else { Ok(()) }
    }
}

/// Words with a space between them; null if there are none.
fn words(words: &[&str]) -> Option<ByteArray> {
    (!words.is_empty()).then(|| words.join(" ").as_str().into())
}

/// Bytes of the texts of unbounded length in a request.
fn text(record: &ExplainedRequest) -> usize {
    let why = record.why.as_ref().map_or(0, String::len);
    let frames = record.stack.iter().flat_map(|stack| &stack.frames);
    let stack: usize = frames.map(|frame| frame.name().len() + 1).sum();
    let place = [&record.container, &record.pod, &record.namespace, &record.volume];
    let place: usize = place.into_iter().flatten().map(String::len).sum();
    record.path.len() + record.fs.len() + why + stack + place
}

/// Unwraps an error of the output from the Parquet error that contains it.
fn plain(error: impl Into<Error>) -> Error {
    match error.into().downcast::<ParquetError>() {
        Ok(ParquetError::External(error)) => Error::from_boxed(error),
        Ok(error) => error.into(),
        Err(error) => error,
    }
}

struct Group<'a, W: Write> {
    out: SerializedRowGroupWriter<'a, W>,
    rows: &'a [ExplainedRequest],
}

impl<W: Write + Send> Group<'_, W> {
    /// Writes the next column. For an optional column, `present` has a 1 for each row with a value.
    fn column<T: DataType>(&mut self, values: &[T::T], present: Option<&[i16]>) -> Result<()> {
        let Some(mut column) = self.out.next_column()? else {
            anyhow::bail!("the schema has fewer columns than a request");
        };
        column.typed::<T>().write_batch(values, present, None)?;
        column.close()?;
        Ok(())
    }

    fn all<T: DataType>(&mut self, value: impl Fn(&ExplainedRequest) -> T::T) -> Result<()> {
        let values: Vec<T::T> = self.rows.iter().map(value).collect();
        self.column::<T>(&values, None)
    }

    fn some<T: DataType>(
        &mut self,
        value: impl Fn(&ExplainedRequest) -> Option<T::T>,
    ) -> Result<()> {
        let values: Vec<Option<T::T>> = self.rows.iter().map(value).collect();
        let present: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
        let values: Vec<T::T> = values.into_iter().flatten().collect();
        self.column::<T>(&values, Some(&present))
    }

    fn long(&mut self, value: impl Fn(&ExplainedRequest) -> i64) -> Result<()> {
        self.all::<Int64Type>(value)
    }

    fn int(&mut self, value: impl Fn(&ExplainedRequest) -> i32) -> Result<()> {
        self.all::<Int32Type>(value)
    }

    fn flag(&mut self, value: impl Fn(&ExplainedRequest) -> bool) -> Result<()> {
        self.all::<BoolType>(value)
    }

    fn text(&mut self, value: impl Fn(&ExplainedRequest) -> &str) -> Result<()> {
        self.all::<ByteArrayType>(|record| ByteArray::from(value(record)))
    }

    fn maybe_text(&mut self, value: impl Fn(&ExplainedRequest) -> Option<&str>) -> Result<()> {
        self.some::<ByteArrayType>(|record| value(record).map(ByteArray::from))
    }

    fn maybe_int(&mut self, value: impl Fn(&ExplainedRequest) -> Option<u32>) -> Result<()> {
        self.some::<Int32Type>(|record| value(record).map(|n| n as i32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_one() {
        let mut out = Vec::new();
        Parquet::new(&mut out).unwrap().finish().unwrap();
        assert!(out.starts_with(b"PAR1") && out.ends_with(b"PAR1"));
    }
}
