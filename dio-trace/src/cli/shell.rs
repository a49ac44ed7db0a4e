//! Shell completions and man pages, generated from the definition of the command line.

use std::{io::Write as _, path::Path};

use anyhow::{Context as _, Result};
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::{
    cli::{args, manual},
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
    clap_complete::generate(shell, &mut args::command(), "dio-trace", &mut text);
    Ok(stdio::print(&String::from_utf8(text)?)?)
}

/// Writes man pages to a directory: one for the program and one for each verb.
pub(super) fn man(folder: &Path) -> Result<()> {
    let shown = || format!("cannot write man pages to {}", escape::path(folder));
    std::fs::create_dir_all(folder).with_context(shown)?;
    private_file::remove_at_signals();
    let mut command = args::command().disable_help_subcommand(true);
    command.build();
    pages(command, folder).with_context(shown)
}

fn pages(command: Command, folder: &Path) -> Result<()> {
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        pages(verb.clone(), folder)?;
    }
    let name = command.get_display_name().unwrap_or_default().to_owned();
    let verb = name.strip_prefix("dio-trace").unwrap_or_default().trim_start_matches('-');
    let has_verbs = command.has_subcommands();
    let page = Man::new(command).source(concat!("dio-trace ", env!("CARGO_PKG_VERSION")));
    let mut out = Whole::shared(&folder.join(page.get_filename()))?;
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    if has_verbs {
        page.render_subcommands_section(&mut text)?;
    }
    manual::sections(verb).to_writer(&mut text)?;
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
        let mut command = args::command().disable_help_subcommand(true);
        command.build();
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            let text = page(&format!("dio-trace-{}.1", verb.get_name()));
            assert!(text.starts_with(".ie") && text.contains(".SH NAME"), "{text}");
        }
        assert!(page("dio-trace.1").contains("3 \\-\\-fail\\-on"), "{}", page("dio-trace.1"));
        for name in ["dio-trace.1", "dio-trace-attach.1", "dio-trace-record-run.1"] {
            for section in ["EXAMPLES", "EXIT STATUS", "OVERHEAD", "SEE ALSO"] {
                assert!(
                    page(name).contains(&format!(".SH {section}"))
                        || page(name).contains(&format!(".SH \"{section}\"")),
                    "{name}: {}",
                    page(name)
                );
            }
        }
        assert!(page("dio-trace-top.1").contains("interval"));
    }
}
