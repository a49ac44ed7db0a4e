//! Parquet: one typed column per field.

use std::{borrow::Cow, collections::HashMap, fmt::Write as _, io::Write, sync::Arc};

use anyhow::{Error, Result};
use dio_trace_common::verdict::Outcome;
use parquet::{
    basic::{Compression, Encoding, ZstdLevel},
    data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int32Type, Int64Type},
    errors::ParquetError,
    file::{
        properties::{EnabledStatistics, WriterProperties},
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::{parser::parse_message_type, types::ColumnPath},
};

use crate::flow::{explained::ExplainedRequest, sink::Sink};

/// Maximum number of requests in a row group, which is held in memory.
const GROUP: usize = 1 << 16;
/// Maximum bytes of text in a row group: a hostile recording may hold any amount.
const MAX_TEXT: usize = 24 << 20;

/// A column: its name, and its value in a request.
struct Field {
    name: &'static str,
    value: Value,
}

/// The type of a column, and how a request's value is found.
enum Value {
    /// ns since 1970
    Time(fn(&ExplainedRequest) -> u64),
    Signed(fn(&ExplainedRequest) -> i64),
    /// A number that is seldom the same twice.
    Spread(fn(&ExplainedRequest) -> i64),
    Unsigned(fn(&ExplainedRequest) -> u64),
    /// As `Spread`, without a sign.
    UnsignedSpread(fn(&ExplainedRequest) -> u64),
    Int(fn(&ExplainedRequest) -> u32),
    MaybeInt(fn(&ExplainedRequest) -> Option<u32>),
    Flag(fn(&ExplainedRequest) -> bool),
    Text(for<'a> fn(&'a ExplainedRequest) -> &'a str),
    MaybeText(for<'a> fn(&'a ExplainedRequest) -> Option<Cow<'a, str>>),
}

impl Value {
    /// The column's type, as the text form of a schema has it.
    const fn in_schema(&self) -> (&'static str, &'static str) {
        match self {
            Self::Time(_) => ("required int64", " (TIMESTAMP(NANOS,true))"),
            Self::Signed(_) | Self::Spread(_) => ("required int64", ""),
            Self::Unsigned(_) | Self::UnsignedSpread(_) => {
                ("required int64", " (INTEGER(64,false))")
            }
            Self::Int(_) => ("required int32", " (INTEGER(32,false))"),
            Self::MaybeInt(_) => ("optional int32", " (INTEGER(32,false))"),
            Self::Flag(_) => ("required boolean", ""),
            Self::Text(_) => ("required binary", " (STRING)"),
            Self::MaybeText(_) => ("optional binary", " (STRING)"),
        }
    }

    /// True if differences are shorter than a dictionary.
    const fn is_spread(&self) -> bool {
        matches!(self, Self::Time(_) | Self::Spread(_) | Self::UnsignedSpread(_))
    }
}

const fn field(name: &'static str, value: Value) -> Field {
    Field { name, value }
}

/// An optional text that is borrowed.
fn some(text: Option<&str>) -> Option<Cow<'_, str>> {
    text.map(Cow::Borrowed)
}

/// The columns: the fields of docs/json.md.
const FIELDS: &[Field] = &[
    field("time", Value::Time(|r| r.time)),
    field("pid", Value::Int(|r| r.pid)),
    field("tid", Value::Int(|r| r.tid)),
    field("comm", Value::Text(|r| &r.comm)),
    field("op", Value::Text(|r| r.op.as_str())),
    field("api", Value::Text(|r| r.api.as_str())),
    field("dev", Value::Text(|r| &r.dev)),
    field("ino", Value::Unsigned(|r| r.ino)),
    field("fs", Value::Text(|r| &r.fs)),
    field("path", Value::Text(|r| &r.path)),
    field("offset", Value::Spread(|r| r.offset)),
    field("len", Value::Unsigned(|r| r.len)),
    field("ret", Value::Signed(|r| r.ret)),
    field("latency_ns", Value::UnsignedSpread(|r| r.latency_ns)),
    field("verdict", Value::Text(|r| r.verdict.as_str())),
    field("direct_bytes", Value::Unsigned(|r| r.direct_bytes)),
    field("cached_bytes", Value::Unsigned(|r| r.cached_bytes)),
    field("outcome", Value::MaybeText(|r| some(r.outcome.map(Outcome::as_str)))),
    field("errno", Value::MaybeText(|r| some(r.errno.as_deref()))),
    field("cause", Value::MaybeText(|r| some(r.cause))),
    field("why", Value::MaybeText(|r| some(r.why.as_deref()))),
    field("fix", Value::MaybeText(|r| some(r.fix.as_deref()))),
    field("flushed_pages", Value::MaybeInt(|r| r.effects.flushed_pages)),
    field("invalidated_pages", Value::MaybeInt(|r| r.effects.invalidated_pages)),
    field("readahead_pages", Value::MaybeInt(|r| r.effects.readahead_pages)),
    field("dirty_left_pages", Value::MaybeInt(|r| r.effects.dirty_left_pages)),
    field("approximate", Value::Flag(|r| r.effects.approximate)),
    field("attempts", Value::Int(|r| r.attempts)),
    field("finding", Value::Flag(|r| r.finding)),
    field("stack", Value::MaybeText(|r| Some(r.stack.as_ref()?.folded().into()))),
    field("flags", Value::MaybeText(|r| words(&r.flags))),
    field("would_block", Value::MaybeText(|r| words(&r.would_block))),
    field("container", Value::MaybeText(|r| some(r.container.as_deref()))),
    field("pod", Value::MaybeText(|r| some(r.pod.as_deref()))),
    field("namespace", Value::MaybeText(|r| some(r.namespace.as_deref()))),
    field("volume", Value::MaybeText(|r| some(r.volume.as_deref()))),
];

/// The values of a column in the present row group. For an optional one, `present` has a 1 for each
/// request with a value.
enum Column {
    Long(Vec<i64>),
    Int(Vec<i32>),
    MaybeInt { values: Vec<i32>, present: Vec<i16> },
    Flag(Vec<bool>),
    Text(Texts),
    MaybeText { texts: Texts, present: Vec<i16> },
}

impl Column {
    fn of(value: &Value) -> Self {
        match value {
            Value::Time(_)
            | Value::Signed(_)
            | Value::Spread(_)
            | Value::Unsigned(_)
            | Value::UnsignedSpread(_) => Self::Long(Vec::new()),
            Value::Int(_) => Self::Int(Vec::new()),
            Value::MaybeInt(_) => Self::MaybeInt { values: Vec::new(), present: Vec::new() },
            Value::Flag(_) => Self::Flag(Vec::new()),
            Value::Text(_) => Self::Text(Texts::default()),
            Value::MaybeText(_) => Self::MaybeText { texts: Texts::default(), present: Vec::new() },
        }
    }

    /// Adds a request's value; returns the bytes of its text.
    fn push(&mut self, value: &Value, record: &ExplainedRequest) -> usize {
        match (self, value) {
            (Self::Long(values), Value::Signed(of) | Value::Spread(of)) => values.push(of(record)),
            (
                Self::Long(values),
                Value::Time(of) | Value::Unsigned(of) | Value::UnsignedSpread(of),
            ) => values.push(of(record) as i64),
            (Self::Int(values), Value::Int(of)) => values.push(of(record) as i32),
            (Self::MaybeInt { values, present }, Value::MaybeInt(of)) => {
                let value = of(record);
                present.push(i16::from(value.is_some()));
                values.extend(value.map(|n| n as i32));
            }
            (Self::Flag(values), Value::Flag(of)) => values.push(of(record)),
            (Self::Text(texts), Value::Text(of)) => return texts.push(of(record)),
            (Self::MaybeText { texts, present }, Value::MaybeText(of)) => {
                let text = of(record);
                present.push(i16::from(text.is_some()));
                return text.map_or(0, |text| texts.push(&text));
            }
            _ => unreachable!("made by Column::of from the same value"),
        }
        0
    }

    /// Writes the values as the next column, and forgets them.
    fn write<W: Write + Send>(&mut self, out: &mut SerializedRowGroupWriter<'_, W>) -> Result<()> {
        match self {
            Self::Long(values) => next::<_, Int64Type>(out, values, None),
            Self::Int(values) => next::<_, Int32Type>(out, values, None),
            Self::MaybeInt { values, present } => next::<_, Int32Type>(out, values, Some(present)),
            Self::Flag(values) => next::<_, BoolType>(out, values, None),
            Self::Text(texts) => next::<_, ByteArrayType>(out, texts.values(), None),
            Self::MaybeText { texts, present } => {
                next::<_, ByteArrayType>(out, texts.values(), Some(present))
            }
        }
    }
}

/// Writes the next column of a row group, and empties its values.
fn next<W: Write + Send, T: DataType>(
    out: &mut SerializedRowGroupWriter<'_, W>,
    values: &mut Vec<T::T>,
    present: Option<&mut Vec<i16>>,
) -> Result<()> {
    let Some(mut column) = out.next_column()? else {
        anyhow::bail!("the schema has fewer columns than a request");
    };
    column.typed::<T>().write_batch(values, present.as_deref().map(Vec::as_slice), None)?;
    column.close()?;
    values.clear();
    if let Some(present) = present {
        present.clear();
    }
    Ok(())
}

/// The texts of a column. Equal ones share their memory: most requests have those of another one.
#[derive(Default)]
struct Texts {
    values: Vec<ByteArray>,
    known: HashMap<String, ByteArray>,
}

impl Texts {
    fn push(&mut self, text: &str) -> usize {
        let shared = match self.values.last().filter(|last| last.data() == text.as_bytes()) {
            Some(last) => last.clone(),
            None => self.shared(text),
        };
        self.values.push(shared);
        text.len()
    }

    fn shared(&mut self, text: &str) -> ByteArray {
        if let Some(known) = self.known.get(text) {
            return known.clone();
        }
        let new = ByteArray::from(text);
        self.known.insert(text.to_owned(), new.clone());
        new
    }

    /// The values, for a row group that ends here.
    fn values(&mut self) -> &mut Vec<ByteArray> {
        self.known.clear();
        &mut self.values
    }
}

/// Writes requests as a Parquet file.
pub struct Parquet<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    columns: Vec<Column>,
    rows: usize,
    /// Bytes of the texts of the row group.
    text: usize,
}

impl<W: Write + Send> Parquet<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// Errors of the output.
    pub fn new(out: W) -> Result<Self> {
        let schema = Arc::new(parse_message_type(&schema())?);
        let mut properties = WriterProperties::builder()
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?));
        for field in FIELDS.iter().filter(|field| field.value.is_spread()) {
            let column = ColumnPath::from(field.name);
            properties = properties
                .set_column_dictionary_enabled(column.clone(), false)
                .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
        }
        let properties = Arc::new(properties.build());
        let writer = SerializedFileWriter::new(out, schema, properties).map_err(plain)?;
        let columns = FIELDS.iter().map(|field| Column::of(&field.value)).collect();
        Ok(Self { writer, columns, rows: 0, text: 0 })
    }

    /// Completes the file, and returns the output.
    ///
    /// # Errors
    /// Errors of the output.
    pub fn finish(mut self) -> Result<W> {
        if self.rows != 0 {
            self.group().map_err(plain)?;
        }
        self.writer.into_inner().map_err(plain)
    }

    /// Writes a row group.
    fn group(&mut self) -> Result<()> {
        (self.rows, self.text) = (0, 0);
        let mut group = self.writer.next_row_group()?;
        for column in &mut self.columns {
            column.write(&mut group)?;
        }
        group.close()?;
        Ok(())
    }
}

impl<W: Write + Send> Sink for Parquet<W> {
    fn wants_all(&self) -> bool {
        true
    }

    fn request(&mut self, record: &ExplainedRequest) -> Result<()> {
        for (column, field) in self.columns.iter_mut().zip(FIELDS) {
            self.text += column.push(&field.value, record);
        }
        self.rows += 1;
        let full = self.rows >= GROUP || self.text >= MAX_TEXT;
        if full { self.group().map_err(plain) } else { Ok(()) }
    }
}

fn schema() -> String {
    let mut text = "message dio_trace {\n".to_owned();
    for Field { name, value } in FIELDS {
        let (kind, annotation) = value.in_schema();
        let _ = writeln!(text, "  {kind} {name}{annotation};");
    }
    text + "}"
}

/// Words with a space between them; null if there are none.
fn words<'a>(words: &[&str]) -> Option<Cow<'a, str>> {
    (!words.is_empty()).then(|| words.join(" ").into())
}

/// Unwraps an error of the output from the Parquet error that contains it.
fn plain(error: impl Into<Error>) -> Error {
    match error.into().downcast::<ParquetError>() {
        Ok(ParquetError::External(error)) => Error::from_boxed(error),
        Ok(error) => error.into(),
        Err(error) => error,
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
