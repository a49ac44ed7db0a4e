//! Shell completions and man pages, generated from the definition of the command line.

use std::{io::Write as _, path::Path};

use anyhow::{Context as _, Result};
use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::{
    cli::args::Cli,
    util::{
        escape,
        private_file::{self, Whole},
        stdio,
    },
};

/// Writes a shell's completions to stdout.
pub(super) fn completions(shell: Shell) -> Result<()> {
    // clap_complete panics if a write fails; writing to memory does not.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "dio-trace", &mut text);
    Ok(stdio::print(&String::from_utf8(text)?)?)
}

/// Writes man pages to a directory: one for the program and one for each verb.
pub(super) fn man(folder: &Path) -> Result<()> {
    let shown = || format!("cannot write man pages to {}", escape::path(folder));
    std::fs::create_dir_all(folder).with_context(shown)?;
    private_file::remove_at_signals();
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    pages(command, folder).with_context(shown)
}

fn pages(command: Command, folder: &Path) -> Result<()> {
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        pages(verb.clone(), folder)?;
    }
    let page = Man::new(command);
    let mut out = Whole::shared(&folder.join(page.get_filename()))?;
    let mut text = Vec::new();
    page.render(&mut text)?;
    out.write_all(&text)?;
    out.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        man(folder.path()).unwrap();
        let page = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let mut command = Cli::command().disable_help_subcommand(true);
        command.build();
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            let text = page(&format!("dio-trace-{}.1", verb.get_name()));
            assert!(text.starts_with(".ie") && text.contains(".SH NAME"), "{text}");
        }
        assert!(page("dio-trace.1").contains("3 \\-\\-fail\\-on"), "{}", page("dio-trace.1"));
        assert!(page("dio-trace-top.1").contains("interval"));
    }
}
