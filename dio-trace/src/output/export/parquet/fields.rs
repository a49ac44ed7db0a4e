//! [`Field`]: a column of the table, and how its values are found in a request.

use std::{mem, sync::Arc};

use dio_trace_common::verdict::Outcome;

use crate::{
    flow::explained::ExplainedRequest,
    output::export::parquet::{
        column::{Column, Present, Values},
        texts::{Id, Texts},
    },
};

/// The columns: the fields of docs/json.md.
pub(super) fn fields() -> Vec<Field> {
    vec![
        time("time", |r| r.time),
        int("pid", |r| r.pid),
        int("tid", |r| r.tid),
        name("comm", |r| &r.comm),
        word("op", |r| r.op.as_str()),
        word("api", |r| r.api.as_str()),
        name("dev", |r| &r.dev),
        unsigned("ino", |r| r.ino),
        name("fs", |r| &r.fs),
        name("path", |r| &r.path),
        signed("offset", |r| r.offset).spread(),
        unsigned("len", |r| r.len),
        signed("ret", |r| r.ret),
        unsigned("latency_ns", |r| r.latency_ns).spread(),
        word("verdict", |r| r.verdict.as_str()),
        unsigned("direct_bytes", |r| r.direct_bytes),
        unsigned("cached_bytes", |r| r.cached_bytes),
        maybe_word("outcome", |r| r.outcome.map(Outcome::as_str)),
        maybe_text("errno", |r, texts| Some(texts.text(r.errno.as_ref()?))),
        maybe_word("cause", |r| r.cause),
        maybe_text("why", |r, texts| Some(texts.text(r.why.as_ref()?))),
        maybe_text("fix", |r, texts| Some(texts.text(r.fix.as_ref()?))),
        maybe_int("flushed_pages", |r| r.effects.flushed_pages),
        maybe_int("invalidated_pages", |r| r.effects.invalidated_pages),
        maybe_int("readahead_pages", |r| r.effects.readahead_pages),
        maybe_int("dirty_left_pages", |r| r.effects.dirty_left_pages),
        flag("approximate", |r| r.effects.approximate),
        int("attempts", |r| r.attempts),
        flag("finding", |r| r.finding),
        maybe_text("stack", |r, texts| Some(texts.stack(r.stack.as_ref()?))),
        maybe_text("flags", |r, texts| words(&r.flags, texts)),
        maybe_text("would_block", |r, texts| words(&r.would_block, texts)),
        maybe_name("container", |r| r.container.as_ref()),
        maybe_name("pod", |r| r.pod.as_ref()),
        maybe_name("namespace", |r| r.namespace.as_ref()),
        maybe_name("volume", |r| r.volume.as_ref()),
        word("asked", |r| r.asked.as_str()),
        maybe_unsigned("read_in_bytes", |r| r.read_in_bytes),
    ]
}

/// A column of the table.
pub(super) struct Field {
    pub(super) name: &'static str,
    /// The column's type, as the text form of a schema has it: before and after the name.
    pub(super) kind: (&'static str, &'static str),
    pub(super) shape: Shape,
    source: Box<dyn Source>,
}

/// What the values are like.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// A few values, each of them many times.
    Few,
    /// Numbers that are seldom the same twice: differences are shorter than a dictionary.
    Spread,
    /// Texts other than words. Their smallest and largest are not written: finding them takes
    /// longer than all else, and nearly every row group has most of them.
    Text,
}

impl Field {
    /// Adds the value of a request.
    #[inline]
    pub(super) fn push(&mut self, record: &ExplainedRequest, texts: &mut Texts) {
        self.source.push(record, texts);
    }

    /// The values of the requests since the last call.
    pub(super) fn take(&mut self) -> Column {
        self.source.take()
    }

    fn spread(self) -> Self {
        Self { shape: Shape::Spread, ..self }
    }
}

/// Collects the values of a column. A trait, so that the compiler makes one function of finding and
/// keeping a value.
trait Source {
    fn push(&mut self, record: &ExplainedRequest, texts: &mut Texts);
    fn take(&mut self) -> Column;
}

/// A column in which every request has a value.
struct Required<T, F> {
    of: F,
    values: Vec<T>,
}

impl<T, F> Source for Required<T, F>
where
    F: Fn(&ExplainedRequest, &mut Texts) -> T,
    Values: From<Vec<T>>,
{
    fn push(&mut self, record: &ExplainedRequest, texts: &mut Texts) {
        self.values.push((self.of)(record, texts));
    }

    fn take(&mut self) -> Column {
        Column { values: emptied(&mut self.values).into(), present: None }
    }
}

/// A column in which some requests have a value.
struct Optional<T, F> {
    of: F,
    values: Vec<T>,
    present: Present,
}

impl<T, F> Source for Optional<T, F>
where
    F: Fn(&ExplainedRequest, &mut Texts) -> Option<T>,
    Values: From<Vec<T>>,
{
    fn push(&mut self, record: &ExplainedRequest, texts: &mut Texts) {
        let value = (self.of)(record, texts);
        self.present.push(value.is_some());
        if let Some(value) = value {
            self.values.push(value);
        }
    }

    fn take(&mut self) -> Column {
        let present = Some(mem::take(&mut self.present));
        Column { values: emptied(&mut self.values).into(), present }
    }
}

/// Takes the values; the next row group will have about as many.
fn emptied<T>(values: &mut Vec<T>) -> Vec<T> {
    let room = Vec::with_capacity(values.len());
    mem::replace(values, room)
}

fn required<T: 'static>(
    name: &'static str,
    (kind, shape): ((&'static str, &'static str), Shape),
    of: impl Fn(&ExplainedRequest, &mut Texts) -> T + 'static,
) -> Field
where
    Values: From<Vec<T>>,
{
    Field { name, kind, shape, source: Box::new(Required { of, values: Vec::new() }) }
}

fn optional<T: 'static>(
    name: &'static str,
    (kind, shape): ((&'static str, &'static str), Shape),
    of: impl Fn(&ExplainedRequest, &mut Texts) -> Option<T> + 'static,
) -> Field
where
    Values: From<Vec<T>>,
{
    let source = Optional { of, values: Vec::new(), present: Present::default() };
    Field { name, kind, shape, source: Box::new(source) }
}

const LONG: &str = "required int64";
const INT: (&str, &str) = ("required int32", " (INTEGER(32,false))");
const MAYBE_INT: (&str, &str) = ("optional int32", " (INTEGER(32,false))");
const MAYBE_LONG: (&str, &str) = ("optional int64", " (INTEGER(64,false))");
const TEXT: (&str, &str) = ("required binary", " (STRING)");
const MAYBE_TEXT: (&str, &str) = ("optional binary", " (STRING)");

/// ns since 1970
fn time(name: &'static str, of: impl Fn(&ExplainedRequest) -> u64 + 'static) -> Field {
    let kind = (LONG, " (TIMESTAMP(NANOS,true))");
    required(name, (kind, Shape::Spread), move |r, _| of(r) as i64)
}

fn signed(name: &'static str, of: impl Fn(&ExplainedRequest) -> i64 + 'static) -> Field {
    required(name, ((LONG, ""), Shape::Few), move |r, _| of(r))
}

fn unsigned(name: &'static str, of: impl Fn(&ExplainedRequest) -> u64 + 'static) -> Field {
    required(name, ((LONG, " (INTEGER(64,false))"), Shape::Few), move |r, _| of(r) as i64)
}

fn int(name: &'static str, of: impl Fn(&ExplainedRequest) -> u32 + 'static) -> Field {
    required(name, (INT, Shape::Few), move |r, _| of(r) as i32)
}

fn maybe_int(name: &'static str, of: impl Fn(&ExplainedRequest) -> Option<u32> + 'static) -> Field {
    optional(name, (MAYBE_INT, Shape::Few), move |r, _| Some(of(r)? as i32))
}

fn maybe_unsigned(
    name: &'static str,
    of: impl Fn(&ExplainedRequest) -> Option<u64> + 'static,
) -> Field {
    optional(name, (MAYBE_LONG, Shape::Few), move |r, _| Some(of(r)? as i64))
}

fn flag(name: &'static str, of: impl Fn(&ExplainedRequest) -> bool + 'static) -> Field {
    required(name, (("required boolean", ""), Shape::Few), move |r, _| of(r))
}

/// One of a few words.
fn word(name: &'static str, of: impl Fn(&ExplainedRequest) -> &'static str + 'static) -> Field {
    required(name, (TEXT, Shape::Few), move |r, texts| texts.word(of(r)))
}

fn maybe_word(
    name: &'static str,
    of: impl Fn(&ExplainedRequest) -> Option<&'static str> + 'static,
) -> Field {
    optional(name, (MAYBE_TEXT, Shape::Few), move |r, texts| Some(texts.word(of(r)?)))
}

/// A text that many requests share.
fn name(name: &'static str, of: impl Fn(&ExplainedRequest) -> &Arc<str> + 'static) -> Field {
    required(name, (TEXT, Shape::Text), move |r, texts| texts.name(of(r)))
}

fn maybe_name(
    name: &'static str,
    of: impl Fn(&ExplainedRequest) -> Option<&Arc<str>> + 'static,
) -> Field {
    optional(name, (MAYBE_TEXT, Shape::Text), move |r, texts| Some(texts.name(of(r)?)))
}

fn maybe_text(
    name: &'static str,
    of: impl Fn(&ExplainedRequest, &mut Texts) -> Option<Id> + 'static,
) -> Field {
    optional(name, (MAYBE_TEXT, Shape::Text), of)
}

/// Words with a space between them; null if there are none.
fn words(words: &[&str], texts: &mut Texts) -> Option<Id> {
    (!words.is_empty()).then(|| texts.text(&words.join(" ")))
}
