//! `cargo xtask demo`: shows dio-trace at work in a throwaway VM.
use std::{fs, time::Duration};

use anyhow::{Context, Result};
use clap::Args;

use crate::{
    host::{
        build,
        cmd::{say, text},
        packages, paths,
    },
    vm::{boot::Setup, interrupts, kernels, running::to_terminal},
};

/// Watch dio-trace explain a program's direct reads, in a throwaway VM
///
/// A small program reads ext4 with data=journal, xfs, btrfs with compression and a truncated file,
/// through pread and io_uring. dio-trace attaches to it by PID and reports for each read whether it
/// was direct, which file it was, why it was not direct, and what to do. Nothing on this machine is
/// changed, except that missing packages are installed and a kernel is fetched first, which takes a
/// few minutes once.
#[derive(Args)]
pub(crate) struct DemoArgs {
    /// The kernel series to boot
    #[arg(long, default_value = "6.12")]
    kernel: String,
}

pub(crate) fn main(args: &DemoArgs) -> Result<u8> {
    interrupts::catch_interrupts();
    packages::ensure(&[packages::VM, packages::SCENARIOS])?;
    let kernel = kernels::find(&args.kernel, None)?;
    say("building dio-trace");
    let tool = build::release(&["dio-trace"])?.join("dio-trace");
    let out = paths::target()?.join("demo");
    paths::fresh(&out)?;
    // The traced program is this build of xtask. It may be outside the folders that the guest sees,
    // so it is copied to /out.
    let me = paths::own_program()?;
    fs::copy(&me, out.join("xtask")).with_context(|| format!("cannot copy {}", me.display()))?;
    let mut setup = Setup::new(kernel);
    setup.out = Some(out);
    let command = ["/out/xtask", "guest", "demo", "--tool", text(&tool)?].map(str::to_owned);
    setup.once(&command, Some(Duration::from_secs(300)), &mut to_terminal)
}
