//! Tells the program which commit it was built from ("unknown" outside a checkout), and where the
//! eBPF object for its architecture is.

use std::{env, path::Path, process::Command};

fn main() {
    println!("cargo:rustc-env=DIO_TRACE_COMMIT={}", commit());
    println!("cargo:rustc-env=DIO_TRACE_OBJECT={}", object());
    println!("cargo:rerun-if-changed=build.rs");
}

fn commit() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok().filter(|o| o.status.success())?;
        String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
    };
    if let Some(head) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo:rerun-if-changed={head}");
    }
    git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned())
}

/// The committed object for the architecture that is compiled for.
fn object() -> String {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let folder = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let object = format!("{folder}/bpf/dio-trace.{arch}.bpf.o");
    println!("cargo:rerun-if-changed={object}");
    if !Path::new(&object).is_file() {
        panic!("dio-trace runs on x86_64 and aarch64: it has no eBPF object for {arch} ({object})");
    }
    object
}
