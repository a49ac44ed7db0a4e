//! The description of a file in reports, and the processes that use it through the page cache.

use std::{path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    system::{
        device::{Layer, LayerKind},
        file_attrs::FileAttrs,
    },
    util::escape::escape,
};

/// A process that uses a file through the page cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BufferedUser {
    pub pid: u32,
    /// `comm/pid`
    pub name: String,
}

/// The processes that use a file through the page cache while others use it with O_DIRECT.
#[derive(Clone, Debug, Default)]
pub struct BufferedUsers {
    /// Processes that brought pages into the page cache by a buffered read or a mapping.
    pub readers: Vec<BufferedUser>,
    /// Processes that dirtied pages by a buffered write or a mapping.
    pub writers: Vec<BufferedUser>,
}

/// The description of a file in reports and recordings.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FileInfo {
    /// Escaped absolute path as the process sees it, followed by "(deleted)" if the file has no
    /// name.
    pub path: Arc<str>,
    /// File system type; "" if unknown.
    pub fs: Arc<str>,
    /// Options of the file system, comma-separated.
    pub options: String,
    /// "major:minor" as stat(2) reports it.
    pub dev: Arc<str>,
    #[serde(rename = "facts")]
    pub attrs: FileAttrs,
    /// For a file on overlayfs: type and options of the file system that holds its layers.
    pub(crate) below: Option<(String, String)>,
    /// The volume of a container or pod that the file is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<Arc<str>>,
    #[serde(skip)]
    pub buffered_users: BufferedUsers,
    /// False if `path` has a placeholder for a name or a mount that was not found.
    #[serde(skip)]
    pub(crate) named: bool,
    /// Unescaped paths where the tracer may find the file, in the order to try: through
    /// /proc/PID/root of the process, whose mount namespace may differ; and directly, once the
    /// process has exited.
    #[serde(skip)]
    pub(crate) places: Vec<PathBuf>,
    /// Inode number, and kernel `dev_t` of the device.
    #[serde(skip)]
    pub(crate) traced: (u64, u32),
}

impl FileInfo {
    /// Type and options of the file system that decides about direct I/O: the lower one if the file
    /// is on overlayfs and the lower one is known, else the file's own.
    #[must_use]
    pub fn deciding(&self) -> (&str, &str) {
        let own = (&*self.fs, self.options.as_str());
        self.below.as_ref().map_or(own, |(fs, options)| (fs, options))
    }

    /// Escapes all texts of an entry that was read from a recording.
    pub(crate) fn clean(&mut self) {
        let shared = [&mut self.path, &mut self.fs, &mut self.dev];
        for text in shared.into_iter().chain(&mut self.volume) {
            *text = escape(text.as_bytes()).into();
        }
        let below = self.below.iter_mut().flat_map(|(fs, options)| [fs, options]);
        for text in below.chain([&mut self.options]) {
            *text = escape(text.as_bytes());
        }
        for layer in &mut self.attrs.device.layers {
            layer.name = escape(layer.name.as_bytes());
            if let LayerKind::Loop { file, .. } = &mut layer.kind {
                *file = escape(file.as_bytes());
            }
        }
    }

    /// Bytes of memory that the texts take.
    pub(crate) fn bytes(&self) -> usize {
        let Self { path, fs, options, dev, below, attrs, .. } = self;
        let below = below.iter().flat_map(|(fs, options)| [fs, options]);
        let own = [path.len(), fs.len(), options.len(), dev.len()].into_iter();
        let texts = own.chain(below.map(String::len));
        texts.chain(attrs.device.layers.iter().map(Layer::bytes)).sum()
    }
}
