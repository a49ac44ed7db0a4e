//! A program with direct reads that are not what it thinks, and dio-trace beside it.
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

#[derive(Args, Clone, Debug)]
pub(crate) struct DemoArgs {
    /// dio-trace
    #[arg(long)]
    tool: PathBuf,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ReaderArgs {
    /// Folders to read in
    folder: Vec<PathBuf>,
}

pub(super) fn main(args: &DemoArgs) -> Result<u8> {
    let _ = args;
    Ok(0)
}

pub(super) fn reader(args: &ReaderArgs) -> Result<()> {
    let _ = args;
    Ok(())
}
