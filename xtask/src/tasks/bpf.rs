//! `cargo xtask bpf`: builds the eBPF objects, or checks the committed ones.
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use crate::bpf::{self, Checked};

/// Build the eBPF objects that are committed in dio-trace/bpf, one for each architecture
///
/// bpf-toolchain.toml pins the toolchain. Missing parts are fetched: rust-src from Debian's archive
/// (unless the toolchain has it: `rustup component add rust-src`), and bpf-linker from crates.io,
/// which is linked against the LLVM inside rustc. If rustup is installed, the pinned rustc is used
/// whatever the default is.
///
/// Without Debian and without the pinned rustc, `--toolchain nightly` (with `rustup component add
/// rust-src --toolchain nightly`) builds objects for experiments, which differ
/// from the committed ones.
#[derive(Args)]
pub(crate) struct BpfArgs {
    /// Rebuild in target/bpf-check and compare with the committed objects, byte for byte
    #[arg(long)]
    check: bool,
    /// Use this rustup toolchain instead of the pinned one; not for commits
    #[arg(long, conflicts_with = "check")]
    toolchain: Option<String>,
    /// Write the objects to this folder instead
    #[arg(long, value_name = "DIR", conflicts_with = "check")]
    output: Option<PathBuf>,
}

pub(crate) fn main(args: &BpfArgs) -> Result<()> {
    if args.check {
        return match bpf::check()? {
            Checked::Same => {
                println!("the committed objects are what their source builds");
                Ok(())
            }
            Checked::Unable(why) => bail!("{why}"),
        };
    }
    bpf::write(args.toolchain.as_deref(), args.output.as_deref())
}
