//! Parquet: one typed column per field.

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, Write},
    mem,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{Builder, JoinHandle},
};

use ahash::HashMap;
use anyhow::{Context as _, Error, Result, anyhow};
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

/// Maximum number of requests in a row group. Two are held in memory: one is filled while the other
/// is encoded.
const GROUP: usize = 1 << 16;
/// Maximum bytes of memory for the texts of a row group: a hostile recording may hold any amount.
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
    /// One of a few words.
    Word(fn(&ExplainedRequest) -> &'static str),
    MaybeWord(fn(&ExplainedRequest) -> Option<&'static str>),
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
            Self::Word(_) | Self::Text(_) => ("required binary", " (STRING)"),
            Self::MaybeWord(_) | Self::MaybeText(_) => ("optional binary", " (STRING)"),
        }
    }

    /// True if the column has texts other than words. Their smallest and largest are not written: finding
    /// them takes longer than all else, and nearly every row group has most of them.
    const fn is_text(&self) -> bool {
        matches!(self, Self::Text(_) | Self::MaybeText(_))
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
    field("op", Value::Word(|r| r.op.as_str())),
    field("api", Value::Word(|r| r.api.as_str())),
    field("dev", Value::Text(|r| &r.dev)),
    field("ino", Value::Unsigned(|r| r.ino)),
    field("fs", Value::Text(|r| &r.fs)),
    field("path", Value::Text(|r| &r.path)),
    field("offset", Value::Spread(|r| r.offset)),
    field("len", Value::Unsigned(|r| r.len)),
    field("ret", Value::Signed(|r| r.ret)),
    field("latency_ns", Value::UnsignedSpread(|r| r.latency_ns)),
    field("verdict", Value::Word(|r| r.verdict.as_str())),
    field("direct_bytes", Value::Unsigned(|r| r.direct_bytes)),
    field("cached_bytes", Value::Unsigned(|r| r.cached_bytes)),
    field("outcome", Value::MaybeWord(|r| r.outcome.map(Outcome::as_str))),
    field("errno", Value::MaybeText(|r| some(r.errno.as_deref()))),
    field("cause", Value::MaybeWord(|r| r.cause)),
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

/// The values of a column in a row group.
enum Column {
    Long(Vec<i64>),
    Int(Vec<i32>),
    MaybeInt { values: Vec<i32>, present: Present },
    Flag(Vec<bool>),
    Text(Texts),
    MaybeText { texts: Texts, present: Present },
}

/// Which requests have a value of an optional column.
#[derive(Default)]
struct Present {
    /// Requests without a value before the first one that has one: most columns never have any.
    none_before: usize,
    /// 1 for each of the others that has a value, else 0.
    levels: Vec<i16>,
}

impl Present {
    fn push(&mut self, is_some: bool) {
        if is_some || !self.levels.is_empty() {
            self.levels.push(i16::from(is_some));
        } else {
            self.none_before += 1;
        }
    }

    /// 1 for each request that has a value, else 0.
    fn levels(self) -> Vec<i16> {
        let mut levels = vec![0; self.none_before];
        levels.extend(self.levels);
        levels
    }
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
            Value::MaybeInt(_) => {
                Self::MaybeInt { values: Vec::new(), present: Present::default() }
            }
            Value::Flag(_) => Self::Flag(Vec::new()),
            Value::Word(_) | Value::Text(_) => Self::Text(Texts::default()),
            Value::MaybeWord(_) | Value::MaybeText(_) => {
                Self::MaybeText { texts: Texts::default(), present: Present::default() }
            }
        }
    }

    /// Adds a request's value; returns how many bytes of memory its text takes.
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
                present.push(value.is_some());
                values.extend(value.map(|n| n as i32));
            }
            (Self::Flag(values), Value::Flag(of)) => values.push(of(record)),
            (Self::Text(texts), Value::Word(of)) => texts.word(of(record)),
            (Self::MaybeText { texts, present }, Value::MaybeWord(of)) => {
                let word = of(record);
                present.push(word.is_some());
                if let Some(word) = word {
                    texts.word(word);
                }
            }
            (Self::Text(texts), Value::Text(of)) => return texts.push(of(record)),
            (Self::MaybeText { texts, present }, Value::MaybeText(of)) => {
                let text = of(record);
                present.push(text.is_some());
                return text.map_or(0, |text| texts.push(&text));
            }
            _ => unreachable!("made by Column::of from the same value"),
        }
        0
    }

    /// Writes the values as the next column.
    fn write<W: Write + Send>(self, out: &mut SerializedRowGroupWriter<'_, W>) -> Result<()> {
        match self {
            Self::Long(values) => next::<_, Int64Type>(out, &values, None),
            Self::Int(values) => next::<_, Int32Type>(out, &values, None),
            Self::MaybeInt { values, present } => next::<_, Int32Type>(out, &values, Some(present)),
            Self::Flag(values) => next::<_, BoolType>(out, &values, None),
            Self::Text(texts) => next::<_, ByteArrayType>(out, &texts.values(), None),
            Self::MaybeText { texts, present } => {
                next::<_, ByteArrayType>(out, &texts.values(), Some(present))
            }
        }
    }
}

/// Writes the next column of a row group.
fn next<W: Write + Send, T: DataType>(
    out: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
    present: Option<Present>,
) -> Result<()> {
    let Some(mut column) = out.next_column()? else {
        anyhow::bail!("the schema has fewer columns than a request");
    };
    let levels = present.map(Present::levels);
    column.typed::<T>().write_batch(values, levels.as_deref(), None)?;
    column.close()?;
    Ok(())
}

/// The texts of a column, each of them once.
#[derive(Default)]
struct Texts {
    distinct: Vec<ByteArray>,
    /// Where a text is in `distinct`.
    known: HashMap<String, u32>,
    /// The same of words, by their address.
    words: Vec<(&'static str, u32)>,
    /// The place of each value in `distinct`.
    places: Vec<u32>,
}

impl Texts {
    /// Adds a text, and returns how many bytes of memory it takes.
    fn push(&mut self, text: &str) -> usize {
        let last = self.places.last().copied();
        let is_last = |place: &u32| self.distinct[*place as usize].data() == text.as_bytes();
        let known = last.filter(is_last).or_else(|| self.known.get(text).copied());
        if let Some(place) = known {
            self.places.push(place);
            return 0;
        }
        let place = self.keep(text);
        self.known.insert(text.to_owned(), place);
        self.places.push(place);
        2 * text.len() + size_of::<(String, ByteArray)>() // in `distinct`, and in `known`
    }

    fn word(&mut self, word: &'static str) {
        let known = self.words.iter().find(|(known, _)| std::ptr::eq(*known, word));
        let place = if let Some((_, place)) = known {
            *place
        } else {
            let place = self.keep(word);
            self.words.push((word, place));
            place
        };
        self.places.push(place);
    }

    fn keep(&mut self, text: &str) -> u32 {
        self.distinct.push(ByteArray::from(text));
        self.distinct.len() as u32 - 1
    }

    /// The values.
    fn values(&self) -> Vec<ByteArray> {
        self.places.iter().map(|place| self.distinct[*place as usize].clone()).collect()
    }
}

/// Writes requests as a Parquet file.
pub struct Parquet<W: Write + Send + 'static> {
    encoder: Encoder<W>,
    /// Those of the row group that is not full.
    columns: Vec<Column>,
    rows: usize,
    /// Bytes of memory for the texts of the row group.
    text: usize,
}

impl<W: Write + Send> Parquet<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// Errors of the output.
    pub fn new(out: W) -> Result<Self> {
        let schema = Arc::new(parse_message_type(&schema())?);
        let writer = SerializedFileWriter::new(out, schema, properties()?).map_err(plain)?;
        Ok(Self { encoder: Encoder::Here(writer), columns: columns(), rows: 0, text: 0 })
    }

    /// Completes the file, and returns the output.
    ///
    /// # Errors
    /// Errors of the output.
    pub fn finish(self) -> Result<W> {
        let mut writer = self.encoder.stop().map_err(plain)?;
        if self.rows != 0 {
            write_group(&mut writer, self.columns).map_err(plain)?;
        }
        writer.into_inner().map_err(plain)
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
        if self.rows < GROUP && self.text < MAX_TEXT {
            return Ok(());
        }
        (self.rows, self.text) = (0, 0);
        self.encoder.write(mem::replace(&mut self.columns, columns())).map_err(plain)
    }
}

/// Encodes row groups, which takes as long as all else: from the first full one on in a thread of
/// its own.
enum Encoder<W: Write + Send + 'static> {
    Here(SerializedFileWriter<W>),
    Beside(Beside<W>),
    /// It failed, and said so.
    Failed,
}

impl<W: Write + Send> Encoder<W> {
    fn write(&mut self, group: Vec<Column>) -> Result<()> {
        if let Self::Here(_) = self
            && let Self::Here(writer) = mem::replace(self, Self::Failed)
        {
            *self = Self::Beside(Beside::start(writer)?);
        }
        match self {
            Self::Beside(beside) if beside.send(group).is_ok() => Ok(()),
            // It does not take groups any more: it says why.
            _ => mem::replace(self, Self::Failed).stop().map(drop),
        }
    }

    /// Waits until all groups are written.
    fn stop(self) -> Result<SerializedFileWriter<W>> {
        match self {
            Self::Here(writer) => Ok(writer),
            Self::Beside(beside) => beside.stop(),
            Self::Failed => Err(anyhow!("an earlier row group could not be written")),
        }
    }
}

/// The thread of an [`Encoder`]. Dropping it waits until the thread has dropped the output.
struct Beside<W: Write + Send + 'static> {
    /// `None` once there are no more groups.
    groups: Option<SyncSender<Vec<Column>>>,
    /// `None` once it was waited for.
    thread: Option<JoinHandle<Result<SerializedFileWriter<W>>>>,
}

impl<W: Write + Send> Beside<W> {
    fn start(writer: SerializedFileWriter<W>) -> Result<Self> {
        // No queue: two groups are in memory, the one that is filled and the one that is encoded.
        let (groups, taken) = sync_channel(0);
        let encode = move || encode(writer, &taken);
        let thread = Builder::new().name("parquet".to_owned()).spawn(encode);
        let thread = thread.context("cannot start the thread that encodes Parquet")?;
        Ok(Self { groups: Some(groups), thread: Some(thread) })
    }

    /// Fails if the thread has ended.
    fn send(&self, group: Vec<Column>) -> Result<()> {
        let groups = self.groups.as_ref().ok_or_else(|| anyhow!("the file is complete"))?;
        groups.send(group).map_err(|_| anyhow!("the thread has ended"))
    }

    fn stop(mut self) -> Result<SerializedFileWriter<W>> {
        self.join().unwrap_or_else(|| Err(anyhow!("the thread that encodes Parquet has died")))
    }

    fn join(&mut self) -> Option<Result<SerializedFileWriter<W>>> {
        self.groups = None;
        self.thread.take()?.join().ok()
    }
}

impl<W: Write + Send> Drop for Beside<W> {
    fn drop(&mut self) {
        drop(self.join());
    }
}

/// Writes the groups until there are no more.
fn encode<W: Write + Send>(
    mut writer: SerializedFileWriter<W>,
    groups: &Receiver<Vec<Column>>,
) -> Result<SerializedFileWriter<W>> {
    for group in groups {
        write_group(&mut writer, group)?;
    }
    Ok(writer)
}

fn write_group<W: Write + Send>(
    writer: &mut SerializedFileWriter<W>,
    columns: Vec<Column>,
) -> Result<()> {
    let mut group = writer.next_row_group()?;
    for column in columns {
        column.write(&mut group)?;
    }
    group.close()?;
    Ok(())
}

fn columns() -> Vec<Column> {
    FIELDS.iter().map(|field| Column::of(&field.value)).collect()
}

/// How the columns are encoded.
fn properties() -> Result<Arc<WriterProperties>> {
    let mut properties = WriterProperties::builder()
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?));
    for Field { name, value } in FIELDS {
        let column = ColumnPath::from(*name);
        if value.is_text() {
            properties = properties.set_column_statistics_enabled(column, EnabledStatistics::None);
        } else if value.is_spread() {
            properties = properties
                .set_column_dictionary_enabled(column.clone(), false)
                .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
        }
    }
    Ok(Arc::new(properties.build()))
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
        Ok(ParquetError::External(error)) => match error.downcast::<io::Error>() {
            Ok(error) => Error::new(*error),
            Err(error) => Error::from_boxed(error),
        },
        Ok(error) => error.into(),
        Err(error) => error,
    }
}

#[cfg(test)]
mod tests {
    use parquet::{
        file::reader::{FileReader as _, SerializedFileReader},
        record::RowAccessor as _,
    };

    use super::*;
    use crate::testing::golden::run;

    #[test]
    fn an_empty_file_is_one() {
        let out = Parquet::new(Vec::new()).unwrap().finish().unwrap();
        assert!(out.starts_with(b"PAR1") && out.ends_with(b"PAR1"));
    }

    /// Ends as it is told to, once it has taken that many bytes.
    struct Full {
        left: usize,
        end: fn() -> io::Error,
    }

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.left = self.left.checked_sub(bytes.len()).ok_or_else(self.end)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Writes row groups until an error comes out.
    fn error_of(end: fn() -> io::Error) -> Error {
        let (records, _) = run();
        let mut table = Parquet::new(Full { left: 1 << 10, end }).unwrap();
        let result = records.iter().cycle().take(4 * GROUP).try_for_each(|r| table.request(r));
        result.and_then(|()| table.finish().map(drop)).unwrap_err()
    }

    #[test]
    fn an_error_in_the_thread_comes_out_as_it_is() {
        let error = error_of(|| io::ErrorKind::StorageFull.into());
        let error = error.downcast_ref::<io::Error>();
        assert_eq!(error.map(io::Error::kind), Some(io::ErrorKind::StorageFull));
        assert!(error_of(|| panic!("for a test")).to_string().contains("has died"));
    }

    #[test]
    fn row_groups_of_a_thread_hold_what_was_pushed() {
        let (records, _) = run();
        let (mut table, rows) = (Parquet::new(tempfile::tempfile().unwrap()).unwrap(), GROUP + 7);
        records.iter().cycle().take(rows).for_each(|r| table.request(r).unwrap());
        let file = SerializedFileReader::new(table.finish().unwrap()).unwrap();
        assert_eq!(file.metadata().file_metadata().num_rows(), rows as i64);
        let column = |name| FIELDS.iter().position(|field| field.name == name).unwrap();
        let (path, verdict, cause) = (column("path"), column("verdict"), column("cause"));
        for (row, record) in file.get_row_iter(None).unwrap().zip(records.iter().cycle()) {
            let row = row.unwrap();
            assert_eq!(row.get_string(path).unwrap(), &*record.path);
            assert_eq!(row.get_string(verdict).unwrap(), record.verdict.as_str());
            assert_eq!(row.get_string(cause).ok().map(String::as_str), record.cause);
        }
    }
}
