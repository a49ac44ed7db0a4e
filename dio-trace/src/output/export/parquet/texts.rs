//! [`Texts`]: the texts of a row group, each of them once.

use std::{array, sync::Arc};

use ahash::HashMap;
use parquet::data_type::ByteArray;

use crate::system::stack::Stack;

/// The place of a text in its [`Texts`].
pub(super) type Id = u32;

/// The texts of all columns of a row group.
#[derive(Default)]
pub(super) struct Texts {
    distinct: Vec<ByteArray>,
    known: HashMap<String, Id>,
    words: Recent<&'static str>,
    names: Recent<Arc<str>>,
    stacks: Recent<Arc<Stack>>,
    bytes: usize,
}

impl Texts {
    /// Bytes of memory that the texts take.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The text with this id.
    pub(super) fn get(&self, id: Id) -> ByteArray {
        self.distinct[id as usize].clone()
    }

    /// The id of one of a few words.
    pub(super) fn word(&mut self, word: &'static str) -> Id {
        if let Some(id) = self.words.get(&word) {
            return id;
        }
        let id = self.text(word);
        self.words.keep(&word, id);
        id
    }

    /// The id of a name that many requests share.
    pub(super) fn name(&mut self, name: &Arc<str>) -> Id {
        if let Some(id) = self.names.get(name) {
            return id;
        }
        let id = self.text(name);
        self.names.keep(name, id);
        id
    }

    /// The id of the frames of a stack.
    pub(super) fn stack(&mut self, stack: &Arc<Stack>) -> Id {
        if let Some(id) = self.stacks.get(stack) {
            return id;
        }
        let id = self.text(&stack.folded());
        self.stacks.keep(stack, id);
        id
    }

    /// The id of any text.
    pub(super) fn text(&mut self, text: &str) -> Id {
        if let Some(id) = self.known.get(text) {
            return *id;
        }
        let id = self.distinct.len() as Id;
        self.distinct.push(ByteArray::from(text));
        self.known.insert(text.to_owned(), id);
        // In `distinct`, and in `known`.
        self.bytes += 2 * text.len() + size_of::<(String, ByteArray)>();
        id
    }
}

/// A thing that is known by its address.
trait Placed: Clone {
    fn address(&self) -> usize;
    fn is(&self, other: &Self) -> bool;
}

impl Placed for &'static str {
    fn address(&self) -> usize {
        self.as_ptr().addr()
    }

    fn is(&self, other: &Self) -> bool {
        std::ptr::eq(*self, *other)
    }
}

impl<T: ?Sized> Placed for Arc<T> {
    fn address(&self) -> usize {
        Self::as_ptr(self).cast::<()>().addr()
    }

    fn is(&self, other: &Self) -> bool {
        Self::ptr_eq(self, other)
    }
}

/// Size of a table of recent things.
const SLOTS: usize = 1 << 8;

/// The ids of things that were seen lately, by their address, which is compared faster than a text.
/// The table holds the things, so that no new one gets the address of one that was freed.
struct Recent<T>([Option<(T, Id)>; SLOTS]);

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self(array::from_fn(|_| None))
    }
}

impl<T: Placed> Recent<T> {
    fn get(&self, thing: &T) -> Option<Id> {
        let (known, id) = self.0[slot(thing)].as_ref()?;
        known.is(thing).then_some(*id)
    }

    fn keep(&mut self, thing: &T, id: Id) {
        self.0[slot(thing)] = Some((thing.clone(), id));
    }
}

/// The slot of a thing: the upper bits of a product, which depend on all bits of its address.
fn slot(thing: &impl Placed) -> usize {
    ((thing.address() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_have_one_id() {
        let mut texts = Texts::default();
        let names: Vec<Arc<str>> = (0..1_000).map(|n| format!("/data/{n}").into()).collect();
        let ids: Vec<Id> = names.iter().map(|name| texts.name(name)).collect();
        for (name, id) in names.iter().zip(ids) {
            assert_eq!((texts.name(name), texts.text(name)), (id, id));
            assert_eq!(texts.name(&Arc::from(&**name)), id);
            assert_eq!(texts.get(id).data(), name.as_bytes());
        }
        assert_eq!(texts.word("read"), texts.word("read"));
        assert!(texts.bytes() > 2 * 1_000 * "/data/0".len());
    }
}
