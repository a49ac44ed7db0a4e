//! A bounded cache of file descriptions.

use std::collections::hash_map::Entry;

use ahash::HashMap;
use dio_trace_common::abi::FileId;

use crate::model::FileInfo;

/// Number of files that are never evicted: the first ones.
///
/// The probes emit a file's name only once, when a new counter is claimed. There are at most 16,384
/// counters, claimed in the order of first use (dio-trace-ebpf/src/counters.rs).
const KEPT: usize = 32_768;
/// Number of further files, which are evicted all at once. For files without a counter, the probes
/// emit the name with every request.
const PASSING: usize = 32_768;
/// Number of files of a recording that are never evicted.
const RECORDED: usize = 1 << 20;

/// File descriptions by file identity.
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
        Self { kept: HashMap::default(), passing: HashMap::default(), most }
    }

    /// Creates the cache for a recording, which may name more files.
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

    /// The entry of a file. If the cache is full, the evictable files are dropped for it.
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
    fn the_first_files_stay_and_memory_is_bounded() {
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
    fn a_file_that_is_emitted_again_keeps_its_entry() {
        let mut files = Files::of((1, 1));
        for ino in [0, 1, 0] {
            files.entry(key(ino)).insert_entry(lost_name(key(ino), None));
        }
        assert_eq!((files.kept.len(), files.passing.len()), (1, 1));
        assert!(files.get_mut(&key(1)).is_some());
    }
}
