//! A file as it is shown, and who uses it through the page cache.

use std::path::PathBuf;

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

/// Who uses a file through the page cache that is used directly.
#[derive(Clone, Debug, Default)]
pub struct BufferedUsers {
    /// By reading, or by a mapping.
    pub readers: Vec<BufferedUser>,
    pub writers: Vec<BufferedUser>,
}

/// A file as it is shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FileInfo {
    /// Escaped, absolute as its process sees it; "(deleted)" behind it if it has no name left.
    pub path: String,
    /// File system type; "" if unknown.
    pub fs: String,
    /// Options of the file system, comma-separated.
    pub options: String,
    /// "major:minor" as stat(2) shows it.
    pub dev: String,
    #[serde(rename = "facts")]
    pub attrs: FileAttrs,
    /// Of an overlay: type and options of the file system that its layers lie on.
    pub(crate) below: Option<(String, String)>,
    #[serde(skip)]
    pub buffered_users: BufferedUsers,
    /// Unescaped: where the tracer may find it. Through its process first, whose mount namespace
    /// may be another; by itself once that process is gone.
    #[serde(skip)]
    pub(crate) places: Vec<PathBuf>,
    /// Its number, and the kernel's of its device.
    #[serde(skip)]
    pub(crate) traced: (u64, u32),
}

impl FileInfo {
    /// Type and options of the file system that decides: the one below an overlay, if known.
    #[must_use]
    pub fn deciding(&self) -> (&str, &str) {
        let own = (self.fs.as_str(), self.options.as_str());
        self.below.as_ref().map_or(own, |(fs, options)| (fs, options))
    }

    /// Makes safe to show what came from a file.
    pub(crate) fn clean(&mut self) {
        let below = self.below.iter_mut().flat_map(|(fs, options)| [fs, options]);
        for text in [&mut self.path, &mut self.fs, &mut self.options, &mut self.dev]
            .into_iter()
            .chain(below)
        {
            *text = escape(text.as_bytes());
        }
        for layer in &mut self.attrs.device.layers {
            layer.name = escape(layer.name.as_bytes());
            if let LayerKind::Loop { file, .. } = &mut layer.kind {
                *file = escape(file.as_bytes());
            }
        }
    }

    /// Memory that its texts take.
    pub(crate) fn bytes(&self) -> usize {
        let Self { path, fs, options, dev, below, attrs, .. } = self;
        let below = below.iter().flat_map(|(fs, options)| [fs, options]);
        let texts = [path, fs, options, dev].into_iter().chain(below).map(String::len);
        texts.chain(attrs.device.layers.iter().map(Layer::bytes)).sum()
    }
}
