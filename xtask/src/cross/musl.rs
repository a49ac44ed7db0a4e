//! The C library of the static program: musl, with LLVM's libunwind, from the Debian packages of one
//! release. rustc brings both for targets that rustup installed; a distribution's rustc does not, and
//! arm64's would have to be downloaded.
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::host::{
    apt::{self, Apt},
    arch::Arch,
    cmd::{output, run},
    paths,
};

/// Debian's packages, with the version of the release that artefacts are built with.
const PACKAGES: &[&str] = &["musl-dev", "libunwind-14-dev"];
/// The start files and libraries that rustc links into a static musl program
/// (rustc_target/src/spec/crt_objects.rs, 1.95).
const MUSL: &[&str] = &["rcrt1.o", "crt1.o", "crti.o", "crtn.o", "libc.a"];
const GCC: &[&str] = &["crtbegin.o", "crtend.o", "crtbeginS.o", "crtendS.o"];
const FORTIFY: &str = include_str!("fortify.c");

/// A C library to compile and link with.
pub(super) struct Musl {
    /// Start files and static libraries.
    pub(super) libraries: PathBuf,
    pub(super) headers: PathBuf,
}

/// musl for an architecture, unpacked once into the cache.
pub(super) fn unpacked(arch: &Arch) -> Result<Musl> {
    let folder = paths::cache()?.join(format!("dist/musl-{}", arch.name));
    let musl =
        Musl { libraries: folder.join("lib"), headers: folder.join("usr/include").join(arch.musl) };
    let _lock = paths::lock(&format!("musl-{}", arch.name))?;
    // Written last: its presence says that the rest is complete.
    let complete = folder.join("complete");
    if complete.is_file() {
        return Ok(musl);
    }
    paths::fresh(&folder)?;
    let apt = Apt::open_for(arch.debian)?;
    for package in PACKAGES {
        apt::unpack(&apt.download(package, &folder)?, &folder, None)?;
    }
    let copy = |from: &Path| {
        let to = musl.libraries.join(from.file_name().unwrap_or_default());
        fs::copy(from, to).map(drop).with_context(|| format!("cannot copy {}", from.display()))
    };
    fs::create_dir_all(&musl.libraries).context("cannot make a folder in the cache")?;
    for name in MUSL {
        copy(&folder.join("usr/lib").join(arch.musl).join(name))?;
    }
    for name in GCC {
        let path = output(Command::new(arch.gcc).arg(format!("-print-file-name={name}")))?;
        copy(Path::new(path.trim()))?;
    }
    let unwind = musl.libraries.join("libunwind.a");
    fs::copy(folder.join("usr/lib/llvm-14/lib/libunwind.a"), &unwind)
        .context("cannot copy libunwind.a")?;
    add_fortify(arch, &musl, &unwind)?;
    fs::write(complete, "").context("cannot write into the cache")?;
    Ok(musl)
}

/// Adds the function of fortify.c to libunwind.a.
fn add_fortify(arch: &Arch, musl: &Musl, archive: &Path) -> Result<()> {
    let (source, object) = (musl.libraries.join("fortify.c"), musl.libraries.join("fortify.o"));
    fs::write(&source, FORTIFY).with_context(|| format!("cannot write {}", source.display()))?;
    let mut gcc = Command::new(arch.gcc);
    gcc.args(flags(arch, musl)?).args(["-O2", "-c", "-o"]).arg(&object).arg(&source);
    run(&mut gcc)?;
    let ar = arch.gcc.replace("gcc", "ar");
    run(Command::new(ar).arg("rcsD").arg(archive).arg(&object))
}

/// The C compiler's flags to compile for musl instead of glibc, and without this machine's paths.
pub(super) fn flags(arch: &Arch, musl: &Musl) -> Result<Vec<String>> {
    let own = output(Command::new(arch.gcc).arg("-print-file-name=include"))?;
    Ok(vec![
        "-nostdinc".to_owned(),
        format!("-isystem{}", musl.headers.display()),
        format!("-isystem{}", own.trim()),
        "-U_FORTIFY_SOURCE".to_owned(),
        "-fPIC".to_owned(),
    ])
}
