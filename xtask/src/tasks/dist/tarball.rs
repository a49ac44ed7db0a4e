//! The tarball: everything that a package has, below one folder, for any distribution.
use std::path::Path;

use anyhow::{Context, Result};
use tar::{Builder, EntryType, Header};

use super::{Arch, VERSION, files::Installed, write};

/// The level of zstd. Higher ones need more memory to unpack.
const LEVEL: i32 = 19;

/// Writes `dio-trace-VERSION-ARCH-linux.tar.zst`.
pub(super) fn make(arch: &Arch, files: &[Installed], into: &Path, epoch: u64) -> Result<()> {
    let name = format!("dio-trace-{VERSION}-{}-linux", arch.name);
    let mut tar = Tar::new(epoch);
    for file in files {
        tar.file(&format!("{name}/{}", flat(&file.path)), file.mode, &file.content)?;
    }
    let packed = zstd::encode_all(&*tar.end()?, LEVEL).context("cannot compress the tarball")?;
    write(&into.join(format!("{name}.tar.zst")), &packed)
}

/// The place of a file in the tarball, which is unpacked anywhere: the program is at the top, the
/// rest below share/ and lib/.
fn flat(path: &str) -> &str {
    match path {
        "usr/bin/dio-trace" => "dio-trace",
        _ => path.trim_start_matches("usr/"),
    }
}

/// A tar archive whose bytes depend only on names, modes and contents.
pub(super) struct Tar {
    builder: Builder<Vec<u8>>,
    epoch: u64,
}

impl Tar {
    pub(super) fn new(epoch: u64) -> Self {
        Self { builder: Builder::new(Vec::new()), epoch }
    }

    pub(super) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.entry(EntryType::Regular, path, mode, content)
    }

    pub(super) fn folder(&mut self, path: &str, mode: u32) -> Result<()> {
        self.entry(EntryType::Directory, path, mode, &[])
    }

    fn entry(&mut self, kind: EntryType, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(self.epoch);
        header.set_size(content.len() as u64);
        self.builder
            .append_data(&mut header, path, content)
            .with_context(|| format!("cannot add {path} to a tar archive"))
    }

    pub(super) fn end(self) -> Result<Vec<u8>> {
        self.builder.into_inner().context("cannot end a tar archive")
    }
}
