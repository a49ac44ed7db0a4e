//! `--kernel` of `check` and `report`: which two kernels are compared, and for which requests.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use dio_trace_common::abi::Op;

use crate::{
    cause::history::{Difference, KernelVersion, Kernels},
    flow::summary::FileRow,
    kernel,
    output::text,
    recording::replay::Replay,
    util::escape::escape,
};

/// Maximum number of file systems that are remembered for a cause. A real recording has few.
const MAX_FS: usize = 64;

/// The running kernel, and the one to compare it with.
///
/// # Errors
/// If the running kernel's name is not that of a Linux release.
pub(super) fn running_and(other: KernelVersion) -> Result<Kernels> {
    let name = kernel::release();
    Kernels::new(&name, kernel::upstream().as_deref(), other).with_context(|| {
        let name = escape(name.as_bytes());
        format!("cannot compare with the running kernel `{name}` (leave --kernel out)")
    })
}

/// The causes that were found in a recording, with the file systems on which they were.
#[derive(Default)]
pub(super) struct Found(BTreeMap<&'static str, BTreeSet<String>>);

impl Found {
    pub(super) fn add(&mut self, cause: &'static str, fs: &str) {
        let known = self.0.entry(cause).or_default();
        if !known.contains(fs) && known.len() < MAX_FS {
            known.insert(fs.to_owned());
        }
    }

    fn concerns(&self, difference: &Difference) -> bool {
        let on = |(cause, fs): (&&'static str, &BTreeSet<String>)| {
            fs.iter().any(|fs| difference.concerns(cause, fs))
        };
        self.0.iter().any(on)
    }
}

/// What would differ on another kernel for the causes of a recording, and what would begin there for
/// its requests, by file system and operation; one text per line.
pub(super) fn lines(replayed: &Replay, found: &Found, other: KernelVersion) -> Vec<String> {
    let name = &replayed.header.kernel;
    let Ok(kernels) = Kernels::new(name, None, other) else {
        return vec![format!("cannot compare: the recording calls its kernel `{name}`")];
    };
    let key = |row: &FileRow| (row.fs.clone(), row.op);
    let requests: BTreeSet<(Arc<str>, Op)> = replayed.summary.files.iter().map(key).collect();
    let begins =
        |difference: &Difference| requests.iter().any(|(fs, op)| difference.begins(fs, *op));
    text::kernel_changes(
        &kernels.compare(|difference| found.concerns(difference) || begins(difference)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_counts_where_it_was_found() {
        let mut found = Found::default();
        found.add("inline-data", "ext4");
        let kernels = Kernels::new("6.10", None, "6.13".parse().unwrap()).unwrap();
        let ids = |found: &Found| {
            let compared = kernels.compare(|difference| found.concerns(difference));
            compared.differences.iter().map(|each| each.change.id).collect::<Vec<_>>()
        };
        assert!(ids(&found).is_empty(), "what changed is f2fs");
        found.add("inline-data", "f2fs");
        assert_eq!(ids(&found), ["f2fs-inline-read-cached"]);
    }

    #[test]
    fn a_recording_with_many_names_takes_bounded_memory() {
        let mut found = Found::default();
        (0..1000).for_each(|n| found.add("tmpfs", &n.to_string()));
        assert_eq!(found.0["tmpfs"].len(), MAX_FS);
    }

    #[test]
    fn the_running_kernel_has_a_version() {
        let kernels = running_and("7.2".parse().unwrap()).unwrap();
        assert_eq!(kernels.there.to_string(), "7.2");
    }
}
