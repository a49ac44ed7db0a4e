//! Look-ups made for every request.

use std::{collections::HashMap, sync::Arc};

use dio_trace_common::abi::{Counter, CounterKey};

use crate::{
    escape::escape,
    stack::{MAX_FRAMES, Stack},
};

/// Things by number. Numbers are small, but in the files of a recorder that has long been at it.
pub(super) struct Numbered<T> {
    things: Vec<Option<T>>,
    far: HashMap<u64, T>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self { things: Vec::new(), far: HashMap::new() }
    }
}

impl<T: Copy> Numbered<T> {
    /// Keeps a thing; false if there are `most`.
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

/// Bytes of all names on stacks that are kept, and of one of them.
const MAX_NAMES: usize = 64 << 20;
const MAX_NAME: usize = 2_048;

/// Stacks by their number.
#[derive(Default)]
pub(super) struct Stacks {
    stacks: HashMap<u32, Arc<Stack>>,
    bytes: usize,
}

impl Stacks {
    /// Keeps a stack, while there is room. Told again, it is the same.
    pub(super) fn keep(&mut self, mut stack: Stack) {
        if self.stacks.contains_key(&stack.id) {
            return;
        }
        stack.frames.truncate(MAX_FRAMES);
        for frame in &mut stack.frames {
            for name in [&mut frame.symbol, &mut frame.module].into_iter().flatten() {
                *name = escape(&name.as_bytes()[..name.len().min(MAX_NAME)]);
                self.bytes += name.len();
            }
        }
        self.bytes += size_of_val(&stack.frames[..]);
        if self.bytes <= MAX_NAMES {
            self.stacks.insert(stack.id, Arc::new(stack));
        }
    }

    pub(super) fn get(&self, number: u32) -> Option<Arc<Stack>> {
        self.stacks.get(&number).cloned()
    }
}

/// What rows are told apart by: file, process, op, verdict, outcome, finding.
pub(super) type RowKey = (u64, u32, (u8, u8, u8, u8));

const SLOTS: usize = 4_096;

/// Counters by row, behind a small table of those used last: most requests are like some before.
pub(super) struct Counted {
    rows: Vec<(RowKey, CounterKey, Counter)>,
    index: HashMap<RowKey, usize>,
    recent: Vec<usize>,
}

impl Default for Counted {
    fn default() -> Self {
        Self { rows: Vec::new(), index: HashMap::new(), recent: vec![usize::MAX; SLOTS] }
    }
}

impl Counted {
    /// The row's counter, made if there is none; `None` if there are `most` others.
    #[inline]
    pub(super) fn row(
        &mut self,
        key: RowKey,
        most: usize,
        make: impl FnOnce() -> CounterKey,
    ) -> Option<&mut Counter> {
        let slot = slot(&key);
        let mut at = self.recent[slot];
        if self.rows.get(at).is_none_or(|row| row.0 != key) {
            at = self.look_up(key, most, make)?;
            self.recent[slot] = at;
        }
        Some(&mut self.rows[at].2)
    }

    fn look_up(
        &mut self,
        key: RowKey,
        most: usize,
        make: impl FnOnce() -> CounterKey,
    ) -> Option<usize> {
        if let Some(at) = self.index.get(&key) {
            return Some(*at);
        }
        if self.rows.len() >= most {
            return None;
        }
        self.rows.push((key, make(), Counter::ZERO));
        self.index.insert(key, self.rows.len() - 1);
        Some(self.rows.len() - 1)
    }

    pub(super) fn take(&mut self) -> Vec<(CounterKey, Counter)> {
        self.index.clear();
        std::mem::take(&mut self.rows).into_iter().map(|(_, key, counter)| (key, counter)).collect()
    }
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
