//! [`Column`]: the values of a column in a row group.

use std::io::Write;

use anyhow::{Context as _, Result};
use parquet::{
    data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int32Type, Int64Type},
    file::writer::{SerializedColumnWriter, SerializedRowGroupWriter},
};

use crate::output::export::parquet::texts::{Id, Texts};

/// The values of a column.
pub(super) struct Column {
    pub(super) values: Values,
    /// `None` if every request has a value.
    pub(super) present: Option<Present>,
}

/// Values of one type.
pub(super) enum Values {
    Long(Vec<i64>),
    Int(Vec<i32>),
    Flag(Vec<bool>),
    Text(Vec<Id>),
}

impl From<Vec<i64>> for Values {
    fn from(values: Vec<i64>) -> Self {
        Self::Long(values)
    }
}

impl From<Vec<i32>> for Values {
    fn from(values: Vec<i32>) -> Self {
        Self::Int(values)
    }
}

impl From<Vec<bool>> for Values {
    fn from(values: Vec<bool>) -> Self {
        Self::Flag(values)
    }
}

impl From<Vec<Id>> for Values {
    fn from(ids: Vec<Id>) -> Self {
        Self::Text(ids)
    }
}

/// Which requests have a value of an optional column. In most columns all have one, or none has:
/// only the length of a run of equal requests is counted while it lasts.
#[derive(Default)]
pub(super) struct Present {
    /// For each request before the last run: 1 if it has a value, else 0.
    levels: Vec<i16>,
    /// Length of the last run, and whether its requests have a value.
    run: usize,
    is_some: bool,
}

impl Present {
    pub(super) fn push(&mut self, is_some: bool) {
        if is_some != self.is_some {
            self.end_run();
            self.is_some = is_some;
        }
        self.run += 1;
    }

    fn end_run(&mut self) {
        let level = i16::from(self.is_some);
        self.levels.resize(self.levels.len() + self.run, level);
        self.run = 0;
    }

    /// For each request: 1 if it has a value, else 0.
    fn levels(mut self) -> Vec<i16> {
        self.end_run();
        self.levels
    }
}

impl Column {
    /// Writes the values as the next column.
    pub(super) fn write<W: Write + Send>(
        self,
        texts: &Texts,
        out: &mut SerializedRowGroupWriter<'_, W>,
    ) -> Result<()> {
        let Self { values, present } = self;
        match values {
            Values::Long(values) => next::<_, Int64Type>(out, &values, present),
            Values::Int(values) => next::<_, Int32Type>(out, &values, present),
            Values::Flag(values) => next::<_, BoolType>(out, &values, present),
            Values::Text(ids) => next_texts(out, &ids, texts, present),
        }
    }
}

/// Writes the next column of a row group.
fn next<W: Write + Send, T: DataType>(
    out: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
    present: Option<Present>,
) -> Result<()> {
    let mut column = begin(out)?;
    let levels = present.map(Present::levels);
    column.typed::<T>().write_batch(values, levels.as_deref(), None)?;
    column.close()?;
    Ok(())
}

/// Writes the next column of a row group, which has texts, a part at a time.
fn next_texts<W: Write + Send>(
    out: &mut SerializedRowGroupWriter<'_, W>,
    ids: &[Id],
    texts: &Texts,
    present: Option<Present>,
) -> Result<()> {
    let mut column = begin(out)?;
    let writer = column.typed::<ByteArrayType>();
    let mut part = Part::default();
    match present.map(Present::levels) {
        None => {
            for ids in ids.chunks(PART) {
                writer.write_batch(part.of(ids, texts), None, None)?;
            }
        }
        Some(levels) => {
            let mut ids = ids;
            for levels in levels.chunks(PART) {
                let some = levels.iter().filter(|level| **level != 0).count();
                let (these, rest) = ids.split_at(some);
                writer.write_batch(part.of(these, texts), Some(levels), None)?;
                ids = rest;
            }
        }
    }
    column.close()?;
    Ok(())
}

fn begin<'a, W: Write + Send>(
    out: &'a mut SerializedRowGroupWriter<'_, W>,
) -> Result<SerializedColumnWriter<'a>> {
    out.next_column()?.context("the schema has fewer columns than a request")
}

/// Rows of a part.
pub(super) const PART: usize = 1 << 10;

/// A part of a column of texts. Most texts are equal to those in the same rows of the part before,
/// and are kept: to take and to drop a text changes its count of references.
#[derive(Default)]
struct Part {
    ids: Vec<Id>,
    values: Vec<ByteArray>,
}

impl Part {
    /// The texts with these ids.
    fn of(&mut self, ids: &[Id], texts: &Texts) -> &[ByteArray] {
        let known = self.ids.len().min(ids.len());
        let held = self.ids.iter_mut().zip(&mut self.values);
        for ((held, value), id) in held.zip(ids) {
            if held != id {
                (*held, *value) = (*id, texts.get(*id));
            }
        }
        for id in &ids[known..] {
            self.ids.push(*id);
            self.values.push(texts.get(*id));
        }
        &self.values[..ids.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_become_levels() {
        for wanted in [&[][..], &[0, 0, 0], &[1, 1], &[0, 1, 1, 0, 1], &[1, 0, 0]] {
            let mut present = Present::default();
            wanted.iter().for_each(|level| present.push(*level == 1));
            assert_eq!(present.levels(), wanted);
        }
    }

    #[test]
    fn a_part_has_the_texts_of_its_ids() {
        let mut texts = Texts::default();
        let [a, b] = ["a", "b"].map(|text| texts.text(text));
        let mut part = Part::default();
        for ids in [&[a, b][..], &[b], &[a, a, b, b], &[], &[b, a, b]] {
            let wanted: Vec<ByteArray> = ids.iter().map(|id| texts.get(*id)).collect();
            assert_eq!(part.of(ids, &texts), wanted);
        }
    }
}
