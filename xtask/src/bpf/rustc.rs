//! xtask as cargo's rustc wrapper (`RUSTC_WRAPPER`), only for the eBPF build.
//!
//! cargo gives each crate a `-C metadata=HASH` that ends up in symbol names, and the hash of `core`
//! depends on the absolute path of its source, so that no two machines would build the same object.
//! For the eBPF target the wrapper replaces the hash by the crate's name and version.
use std::{
    env,
    ffi::OsString,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

/// The environment variable that makes xtask act as this wrapper.
pub(crate) const MARK: &str = "DIO_TRACE_XTASK_IS_RUSTC";
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
    let error = Command::new(&rustc).args(args).exec();
    eprintln!("xtask: error: cannot start {}: {error}", rustc.display());
    ExitCode::FAILURE
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

    #[test]
    fn only_metadata_changes() {
        let mut args: Vec<OsString> =
            ["-C", "metadata=5264a6", "-C", "extra-filename=-5264a6"].map(Into::into).into();
        replace_metadata(&mut args, "core-0.0.0");
        assert_eq!(args, ["-C", "metadata=core-0.0.0", "-C", "extra-filename=-5264a6"]);
    }
}
