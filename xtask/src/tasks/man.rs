//! `cargo xtask man`: writes the man pages and completions that a package installs with the
//! program.
use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};
use clap::Args;

use crate::host::{
    build,
    cmd::{self, say, text},
    paths,
};

/// Each shell, and the name of its completion file.
const SHELLS: &[(&str, &str)] =
    &[("bash", "dio-trace.bash"), ("zsh", "_dio-trace"), ("fish", "dio-trace.fish")];

/// Write man pages to target/man and completions to target/completions
#[derive(Args)]
pub(crate) struct ManArgs {}

pub(crate) fn main(_: &ManArgs) -> Result<()> {
    let tool = build::release(&["dio-trace"])?.join("dio-trace");
    let (man, completions) = (paths::target()?.join("man"), paths::target()?.join("completions"));
    write(&tool, &man, &completions)?;
    say(format!("man pages are in {}, completions in {}", man.display(), completions.display()));
    Ok(())
}

/// Has the program `tool` write its man pages and completions into these folders, which are emptied
/// first.
pub(super) fn write(tool: &Path, man: &Path, completions: &Path) -> Result<()> {
    paths::fresh(man)?;
    paths::fresh(completions)?;
    cmd::run(Command::new(tool).args(["man", text(man)?]))?;
    for (shell, name) in SHELLS {
        let script = cmd::output(Command::new(tool).args(["completions", shell]))?;
        let file = completions.join(name);
        fs::write(&file, script).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}
