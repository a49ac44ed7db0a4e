//! [`FileUser`]: a process and a file that it uses, as rows of the summary name them.

use std::sync::Arc;

use dio_trace_common::abi::FileId;
use serde::Serialize;

use crate::enrich::Enricher;

/// A process and a file that it uses. Its fields are those of the JSON object that has it
/// (docs/json.md).
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FileUser {
    pub pid: u32,
    pub comm: Arc<str>,
    pub path: Arc<str>,
    pub dev: Arc<str>,
    pub ino: u64,
    pub fs: Arc<str>,
}

impl FileUser {
    /// Looks the names up. `seen` is a thread of the process and its name, if there is one.
    pub fn new(
        pid: u32,
        seen: Option<(u32, &[u8; 16])>,
        file: FileId,
        enricher: &mut Enricher,
    ) -> Self {
        let comm = enricher.process(pid, seen);
        let info = enricher.file(file, pid);
        Self {
            pid,
            comm,
            path: info.path.clone(),
            dev: info.dev.clone(),
            ino: file.ino,
            fs: info.fs.clone(),
        }
    }
}
