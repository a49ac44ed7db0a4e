//! Parquet: one typed column per field.
//!
//! - [`fields`]: the columns, and how their values are found in a request
//! - [`texts`]: the texts of a row group
//! - [`column`]: the values of a column in a row group

mod column;
mod fields;
mod texts;

use std::{
    fmt::Write as _,
    io::{self, Write},
    mem,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{Builder, JoinHandle},
};

use anyhow::{Context as _, Error, Result, anyhow};
use parquet::{
    basic::{Compression, Encoding, ZstdLevel},
    errors::ParquetError,
    file::{
        properties::{EnabledStatistics, WriterProperties},
        writer::SerializedFileWriter,
    },
    schema::{parser::parse_message_type, types::ColumnPath},
};

use crate::{
    flow::{explained::ExplainedRequest, sink::Sink},
    output::export::parquet::{
        column::{Column, PART},
        fields::{Field, Shape, fields},
        texts::Texts,
    },
};

/// Maximum number of requests in a row group. Two are held in memory: one is filled while the other
/// is encoded.
const GROUP: usize = 1 << 16;
/// Maximum bytes of memory for the texts of a row group: a hostile recording may hold any amount.
const MAX_TEXT: usize = 24 << 20;

/// A full row group.
struct Group {
    columns: Vec<Column>,
    texts: Texts,
}

/// Writes requests as a Parquet file.
pub struct Parquet<W: Write + Send + 'static> {
    encoder: Encoder<W>,
    fields: Vec<Field>,
    /// Those of the row group that is not full.
    texts: Texts,
    rows: usize,
}

impl<W: Write + Send> Parquet<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// Errors of the output.
    pub fn new(out: W) -> Result<Self> {
        let fields = fields();
        let schema = Arc::new(parse_message_type(&schema(&fields))?);
        let writer = SerializedFileWriter::new(out, schema, properties(&fields)?).map_err(plain)?;
        Ok(Self { encoder: Encoder::Here(writer), fields, texts: Texts::default(), rows: 0 })
    }

    /// Completes the file, and returns the output.
    ///
    /// # Errors
    /// Errors of the output.
    pub fn finish(mut self) -> Result<W> {
        let last = (self.rows != 0).then(|| self.group());
        let mut writer = self.encoder.stop().map_err(plain)?;
        if let Some(group) = last {
            write_group(&mut writer, group).map_err(plain)?;
        }
        writer.into_inner().map_err(plain)
    }

    /// Takes the row group that was filled.
    fn group(&mut self) -> Group {
        self.rows = 0;
        let columns = self.fields.iter_mut().map(Field::take).collect();
        Group { columns, texts: mem::take(&mut self.texts) }
    }
}

impl<W: Write + Send> Sink for Parquet<W> {
    fn wants_all(&self) -> bool {
        true
    }

    fn request(&mut self, record: &ExplainedRequest) -> Result<()> {
        for field in &mut self.fields {
            field.push(record, &mut self.texts);
        }
        self.rows += 1;
        if self.rows < GROUP && self.texts.bytes() < MAX_TEXT {
            return Ok(());
        }
        let group = self.group();
        self.encoder.write(group).map_err(plain)
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
    fn write(&mut self, group: Group) -> Result<()> {
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
    groups: Option<SyncSender<Group>>,
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
    fn send(&self, group: Group) -> Result<()> {
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
    groups: &Receiver<Group>,
) -> Result<SerializedFileWriter<W>> {
    for group in groups {
        write_group(&mut writer, group)?;
    }
    Ok(writer)
}

fn write_group<W: Write + Send>(
    writer: &mut SerializedFileWriter<W>,
    Group { columns, texts }: Group,
) -> Result<()> {
    let mut group = writer.next_row_group()?;
    for column in columns {
        column.write(&texts, &mut group)?;
    }
    group.close()?;
    Ok(())
}

/// How the columns are encoded.
fn properties(fields: &[Field]) -> Result<Arc<WriterProperties>> {
    let mut properties = WriterProperties::builder()
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_write_batch_size(PART)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?));
    for field in fields {
        let column = ColumnPath::from(field.name);
        properties = match field.shape {
            Shape::Few => properties,
            Shape::Text => {
                properties.set_column_statistics_enabled(column, EnabledStatistics::None)
            }
            Shape::Spread => properties
                .set_column_dictionary_enabled(column.clone(), false)
                .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED),
        };
    }
    Ok(Arc::new(properties.build()))
}

fn schema(fields: &[Field]) -> String {
    let mut text = "message dio_trace {\n".to_owned();
    for Field { name, kind: (before, after), .. } in fields {
        let _ = writeln!(text, "  {before} {name}{after};");
    }
    text + "}"
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
        let column = |name| fields().iter().position(|field| field.name == name).unwrap();
        let (path, verdict, flushed) = (column("path"), column("verdict"), column("flushed_pages"));
        let optional = ["cause", "why", "stack", "container"].map(column);
        for (row, record) in file.get_row_iter(None).unwrap().zip(records.iter().cycle()) {
            let row = row.unwrap();
            assert_eq!(row.get_string(path).unwrap(), &*record.path);
            assert_eq!(row.get_string(verdict).unwrap(), record.verdict.as_str());
            assert_eq!(row.get_uint(flushed).ok(), record.effects.flushed_pages);
            let stack = record.stack.as_ref().map(|stack| stack.folded());
            let wanted = [
                record.cause,
                record.why.as_deref(),
                stack.as_deref(),
                record.container.as_deref(),
            ];
            let texts = optional.map(|column| row.get_string(column).ok().map(String::as_str));
            assert_eq!(texts, wanted);
        }
    }
}
