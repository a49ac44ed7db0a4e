//! The tables that a replay uses for every request: by id, and of counters. All are bounded.

use std::sync::Arc;

use ahash::HashMap;
use dio_trace_common::abi::{Counter, CounterKey, FileId};

use crate::{
    recording::replay::budget::{self, Budget},
    system::stack::Stack,
    util::escape::escape,
};

/// Most files, threads or rows of totals that a reader keeps, so that a hostile file cannot exhaust
/// memory. The budget (budget.rs) may allow fewer.
pub(super) const MAX_KEPT: usize = 1 << 18;

/// A table by id. Ids are small and dense, except in the later files of a long-running recorder.
pub(super) struct Numbered<T> {
    /// Values with small ids.
    things: Vec<Option<T>>,
    /// Values with large ids.
    far: HashMap<u64, T>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self { things: Vec::new(), far: HashMap::default() }
    }
}

impl<T: Copy> Numbered<T> {
    /// Stores a value. Returns false if there are `most` already.
    pub(super) fn keep(&mut self, number: u64, thing: T, most: usize) -> bool {
        let Some(at) = usize::try_from(number).ok().filter(|at| *at < most) else {
            let room = self.far.len() < most || self.far.contains_key(&number);
            if room {
                self.far.insert(number, thing);
            }
            return room;
        };
        if self.things.len() <= at {
            self.things.resize(at + 1, None);
        }
        self.things[at] = Some(thing);
        true
    }

    #[inline]
    pub(super) fn get(&self, number: u64) -> Option<T> {
        let near = usize::try_from(number).ok().and_then(|at| self.things.get(at).copied());
        near.unwrap_or_else(|| self.far.get(&number).copied())
    }
}

/// Stacks by id.
pub(super) struct Stacks {
    stacks: HashMap<u32, Arc<Stack>>,
    budget: Budget,
}

impl Default for Stacks {
    fn default() -> Self {
        Self { stacks: HashMap::default(), budget: Budget::stacks() }
    }
}

impl Stacks {
    /// Stores a stack, unless its id is known. Returns false if the budget is used up.
    pub(super) fn keep(&mut self, mut stack: Stack) -> bool {
        if self.stacks.contains_key(&stack.id) {
            return true;
        }
        let mut bytes = budget::STACK + stack.frames.len() * budget::FRAME;
        for frame in &mut stack.frames {
            for name in [&mut frame.symbol, &mut frame.module].into_iter().flatten() {
                *name = escape(name.as_bytes());
                bytes += 4 * name.len(); // here, and in the rows of --by stack
            }
        }
        let room = self.budget.take(bytes);
        if room {
            self.stacks.insert(stack.id, Arc::new(stack));
        }
        room
    }

    pub(super) fn get(&self, number: u32) -> Option<Arc<Stack>> {
        self.stacks.get(&number).cloned()
    }
}

/// Key of a row: file, process, (op, verdict, outcome, finding).
pub(super) type RowKey = (u64, u32, (u8, u8, u8, u8));

/// Size of the table of recently used rows.
const SLOTS: usize = 4_096;
/// Rows per allocation. One large vector would take twice its memory while it grows.
const PIECE: usize = 1_024;
/// The placeholder file of requests that have no row of their own.
pub(super) const OTHERS: FileId = FileId { inode: u64::MAX, ino: 0, dev: 0, generation: 0 };
/// The name that is shown for [`OTHERS`].
pub(super) const OTHERS_NAME: &str = "(others)";
/// Most rows of [`OTHERS`]: by op, verdict, outcome and finding.
const MAX_OTHERS: usize = 1_024;

type CountedRow = (RowKey, CounterKey, Counter);

/// Counters by row. A small table of recently used rows makes the lookup fast, because most
/// requests have the key of a recent one.
pub(super) struct Counted {
    rows: Vec<Vec<CountedRow>>,
    len: usize,
    others: usize,
    index: HashMap<RowKey, usize>,
    recent: Vec<usize>,
}

impl Default for Counted {
    fn default() -> Self {
        let recent = vec![usize::MAX; SLOTS];
        Self { rows: Vec::new(), len: 0, others: 0, index: HashMap::default(), recent }
    }
}

impl Counted {
    /// The counter of a row, which is created by `make` if needed; `None` if the budget is used up.
    #[inline]
    pub(super) fn row(
        &mut self,
        key: RowKey,
        budget: &mut Budget,
        make: impl FnOnce() -> CounterKey,
    ) -> Option<&mut Counter> {
        let slot = slot(&key);
        let mut at = self.recent[slot];
        if self.at(at).is_none_or(|row| row.0 != key) {
            at = self.look_up(key, budget, make)?;
            self.recent[slot] = at;
        }
        self.rows.get_mut(at / PIECE)?.get_mut(at % PIECE).map(|row| &mut row.2)
    }

    fn at(&self, at: usize) -> Option<&CountedRow> {
        self.rows.get(at / PIECE)?.get(at % PIECE)
    }

    fn look_up(
        &mut self,
        key: RowKey,
        budget: &mut Budget,
        make: impl FnOnce() -> CounterKey,
    ) -> Option<usize> {
        if let Some(at) = self.index.get(&key) {
            return Some(*at);
        }
        if key.0 == OTHERS.inode && self.others < MAX_OTHERS {
            self.others += 1;
        } else if !budget.take(budget::ROW) {
            return None;
        }
        if self.len.is_multiple_of(PIECE) {
            self.rows.push(Vec::with_capacity(PIECE));
        }
        self.rows.last_mut()?.push((key, make(), Counter::ZERO));
        self.index.insert(key, self.len);
        self.len += 1;
        Some(self.len - 1)
    }

    pub(super) fn take(&mut self) -> Vec<(CounterKey, Counter)> {
        self.index = HashMap::default();
        let mut all = Vec::with_capacity(self.len);
        for piece in std::mem::take(&mut self.rows) {
            all.extend(piece.into_iter().map(|(_, key, counter)| (key, counter)));
        }
        self.len = 0;
        all
    }
}

/// The key for requests that have no row of their own: without file and process.
pub(super) fn others(key: &CounterKey) -> CounterKey {
    CounterKey { file: OTHERS, tgid: 0, errno: 0, ..*key }
}

fn slot((file, pid, (op, verdict, outcome, finding)): &RowKey) -> usize {
    let kind = u32::from_le_bytes([*op, *verdict, *outcome, *finding]);
    let mixed = file.rotate_left(17) ^ u64::from(*pid).rotate_left(37) ^ u64::from(kind);
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52) as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_kept_while_they_are_few() {
        let mut things = Numbered::default();
        assert!(things.keep(3, 'a', 2) && things.keep(10, 'b', 2));
        assert!(!things.keep(u64::MAX, 'c', 2) && things.keep(10, 'd', 2));
        assert_eq!((things.get(3), things.get(2), things.get(u64::MAX)), (Some('a'), None, None));
        assert!(things.keep(0, 'e', 2));
        assert_eq!((things.get(0), things.get(10)), (Some('e'), Some('d')));
    }
}
