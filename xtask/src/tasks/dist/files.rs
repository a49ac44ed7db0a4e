//! What an installation consists of, and where each file goes.
use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};

use super::{file_name, read};
use crate::{host::paths, tasks::man};

/// A file of an installation.
pub(super) struct Installed {
    /// Absolute, without the leading slash.
    pub(super) path: String,
    pub(super) mode: u32,
    pub(super) content: Vec<u8>,
}

/// Shell completions: the file that `cargo xtask man` writes, and where the shell looks for it.
const COMPLETIONS: &[(&str, &str)] = &[
    ("dio-trace.bash", "usr/share/bash-completion/completions/dio-trace"),
    ("_dio-trace", "usr/share/zsh/site-functions/_dio-trace"),
    ("dio-trace.fish", "usr/share/fish/vendor_completions.d/dio-trace.fish"),
];

/// Files of the checkout, and where they go.
const CHECKOUT: &[(&str, &str)] = &[
    ("packaging/dio-trace.service", "usr/lib/systemd/system/dio-trace.service"),
    ("packaging/dio-trace.tmpfiles", "usr/lib/tmpfiles.d/dio-trace.conf"),
    ("README.md", "usr/share/doc/dio-trace/README.md"),
    ("CHANGELOG.md", "usr/share/doc/dio-trace/CHANGELOG.md"),
    ("docs/limitations.md", "usr/share/doc/dio-trace/limitations.md"),
    ("docs/causes.md", "usr/share/doc/dio-trace/causes.md"),
    ("docs/json.md", "usr/share/doc/dio-trace/json.md"),
    ("LICENSE-MIT", "usr/share/doc/dio-trace/LICENSE-MIT"),
    ("LICENSE-APACHE", "usr/share/doc/dio-trace/LICENSE-APACHE"),
    ("packaging/copyright", "usr/share/doc/dio-trace/copyright"),
];

/// Man pages and completions, which the program itself writes.
pub(super) struct Documents {
    man: PathBuf,
    completions: PathBuf,
}

impl Documents {
    /// Has `program` write them.
    pub(super) fn make(program: &Path) -> Result<Self> {
        let folder = paths::target()?.join("dist-documents");
        let made = Self { man: folder.join("man"), completions: folder.join("completions") };
        man::write(program, &made.man, &made.completions)?;
        Ok(made)
    }
}

/// The files of an installation, by path.
pub(super) fn installed(program: &Path, documents: &Documents) -> Result<Vec<Installed>> {
    let mut files = vec![file("usr/bin/dio-trace", 0o755, read(program)?)];
    let pages = fs::read_dir(&documents.man).context("no man pages were written")?;
    for page in pages {
        let page = page.context("cannot read the man pages")?.path();
        let path = format!("usr/share/man/man1/{}.gz", file_name(&page));
        files.push(file(&path, 0o644, gzip(&read(&page)?)?));
    }
    for (name, path) in COMPLETIONS {
        files.push(file(path, 0o644, read(&documents.completions.join(name))?));
    }
    let checkout = paths::workspace()?;
    for (name, path) in CHECKOUT {
        files.push(file(path, 0o644, read(&checkout.join(name))?));
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn file(path: &str, mode: u32, content: Vec<u8>) -> Installed {
    Installed { path: path.to_owned(), mode, content }
}

/// Compresses as `gzip -9n` does: without a name or a time.
pub(super) fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
    gzip.write_all(bytes).context("cannot compress")?;
    gzip.finish().context("cannot compress")
}

/// Writes the files below `root`.
pub(super) fn lay_out(files: &[Installed], root: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    for file in files {
        let path = root.join(&file.path);
        super::write(&path, &file.content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode))
            .with_context(|| format!("cannot change {}", path.display()))?;
    }
    Ok(())
}
