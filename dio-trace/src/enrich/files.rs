//! What is known of files, of no more than memory is to hold.

use dio_trace_common::abi::FileId;
use std::collections::{HashMap, hash_map::Entry};

use crate::model::FileInfo;

/// Files that stay for as long as it runs: those told first.
///
/// The kernel side tells a file's name when a counter is new, and never again; there are 16,384
/// counters at most, taken by who comes first (dio-trace-ebpf/src/counters.rs).
const KEPT: usize = 32_768;
/// Files beyond those, forgotten all at once: with no counter left, the kernel side tells their
/// names at every request.
const PASSING: usize = 32_768;
/// Files of a recording that have names.
const RECORDED: usize = 1 << 20;

/// Files by their identity.
pub(super) struct Files {
    kept: HashMap<FileId, FileInfo>,
    passing: HashMap<FileId, FileInfo>,
    most: (usize, usize),
}

impl Default for Files {
    fn default() -> Self {
        Self::of((KEPT, PASSING))
    }
}

impl Files {
    fn of(most: (usize, usize)) -> Self {
        Self { kept: HashMap::new(), passing: HashMap::new(), most }
    }

    /// Those of a recording, which has names for so many.
    pub(super) fn recorded() -> Self {
        Self::of((RECORDED, PASSING))
    }

    pub(super) fn get(&self, key: &FileId) -> Option<&FileInfo> {
        self.kept.get(key).or_else(|| self.passing.get(key))
    }

    pub(super) fn get_mut(&mut self, key: &FileId) -> Option<&mut FileInfo> {
        let Self { kept, passing, .. } = self;
        kept.get_mut(key).or_else(|| passing.get_mut(key))
    }

    /// The place of a file; others may have to make room for it.
    pub(super) fn entry(&mut self, key: FileId) -> Entry<'_, FileId, FileInfo> {
        let (kept, passing) = self.most;
        if self.kept.len() < kept || self.kept.contains_key(&key) {
            return self.kept.entry(key);
        }
        if self.passing.len() >= passing && !self.passing.contains_key(&key) {
            self.passing.clear();
        }
        self.passing.entry(key)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::lost_name, *};

    fn key(ino: u64) -> FileId {
        FileId { inode: ino, ino, dev: 1, generation: 0 }
    }

    #[test]
    fn those_told_first_stay_and_memory_has_an_end() {
        let mut files = Files::of((2, 3));
        for ino in 0..100 {
            files.entry(key(ino)).insert_entry(lost_name(key(ino), None));
            assert_eq!(files.get(&key(ino)).map(|info| info.traced.0), Some(ino));
            assert!(files.kept.len() + files.passing.len() <= 5);
        }
        assert!(files.get(&key(0)).is_some() && files.get(&key(1)).is_some());
        assert!(files.get(&key(2)).is_none());
    }

    #[test]
    fn a_file_told_again_keeps_its_place() {
        let mut files = Files::of((1, 1));
        for ino in [0, 1, 0] {
            files.entry(key(ino)).insert_entry(lost_name(key(ino), None));
        }
        assert_eq!((files.kept.len(), files.passing.len()), (1, 1));
        assert!(files.get_mut(&key(1)).is_some());
    }
}
