//! xtask as cargo's rustc wrapper (`RUSTC_WRAPPER`), for builds that have to be the same everywhere:
//! of the eBPF object, and of the static program.
//!
//! cargo gives each crate a `-C metadata=HASH` that ends up in symbol names, and the hash of `core`
//! depends on the absolute path of its source, so that no two machines would build the same object.
//! For the eBPF target the wrapper replaces the hash by the crate's name and version.
//!
//! cargo also hashes `RUSTFLAGS` into the names of files, by which link-time optimization orders
//! functions. Flags with absolute paths are therefore handed to the wrapper (see [`FLAGS`]).
use std::{
    env,
    ffi::OsString,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

/// The environment variable that makes xtask act as this wrapper.
pub(crate) const MARK: &str = "DIO_TRACE_XTASK_IS_RUSTC";
/// The environment variable with further flags for crates that are compiled for a target, separated
/// by [`BETWEEN`]. Build scripts and procedural macros have none.
pub(crate) const FLAGS: &str = "DIO_TRACE_XTASK_RUSTC_FLAGS";
pub(crate) const BETWEEN: char = '\u{1f}';
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// Runs rustc in place of xtask. cargo calls this as `xtask RUSTC ARGS…`. Returns only if rustc
/// cannot be started.
pub(crate) fn main() -> ExitCode {
    let mut args = env::args_os().skip(1);
    let Some(rustc) = args.next() else {
        eprintln!("xtask: error: {MARK} is set, but cargo did not start xtask; unset it");
        return ExitCode::FAILURE;
    };
    let mut args: Vec<OsString> = args.collect();
    if args.iter().any(|arg| arg == TARGET) {
        let part = |name| env::var(name).unwrap_or_default();
        let identity = format!("{}-{}", part("CARGO_PKG_NAME"), part("CARGO_PKG_VERSION"));
        replace_metadata(&mut args, &identity);
    }
    add_flags(&mut args, &env::var(FLAGS).unwrap_or_default());
    let error = Command::new(&rustc).args(args).exec();
    eprintln!("xtask: error: cannot start {}: {error}", rustc.display());
    ExitCode::FAILURE
}

fn add_flags(args: &mut Vec<OsString>, flags: &str) {
    if args.iter().any(|arg| arg == "--target") {
        args.extend(flags.split(BETWEEN).filter(|flag| !flag.is_empty()).map(Into::into));
    }
}

fn replace_metadata(args: &mut [OsString], identity: &str) {
    for arg in args {
        if arg.to_str().is_some_and(|arg| arg.starts_with("metadata=")) {
            *arg = format!("metadata={identity}").into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> Vec<OsString> {
        words.iter().map(Into::into).collect()
    }

    #[test]
    fn only_metadata_changes() {
        let mut of = args(&["-C", "metadata=5264a6", "-C", "extra-filename=-5264a6"]);
        replace_metadata(&mut of, "core-0.0.0");
        assert_eq!(of, ["-C", "metadata=core-0.0.0", "-C", "extra-filename=-5264a6"]);
    }

    #[test]
    fn a_build_script_gets_no_flags() {
        let (mut script, mut library) = (args(&["build.rs"]), args(&["lib.rs", "--target", "t"]));
        for of in [&mut script, &mut library] {
            add_flags(of, "-La=b\u{1f}-x");
        }
        assert_eq!(
            (script, library),
            (args(&["build.rs"]), args(&["lib.rs", "--target", "t", "-La=b", "-x"]))
        );
        let mut none = args(&["--target", "t"]);
        add_flags(&mut none, "");
        assert_eq!(none.len(), 2);
    }
}
