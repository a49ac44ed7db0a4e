//! `cargo xtask apps`: runs real programs under dio-trace, and compares its counts with a reference
//! that counts independently.
//!
//! [`page`] writes docs/applications.md.
mod page;

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    guest::{
        apps::table::{APPS, App},
        contract::apps::Row,
    },
    host::{
        cmd::{say, text},
        packages, paths, pypi,
    },
    vm::{
        guest_part::Part,
        interrupts,
        kernels::{self, Kernel},
    },
};

/// Run real programs under dio-trace, and compare its counts with theirs or strace's
///
/// A program that cannot be installed on this machine is left out, and the table says why.
#[derive(Args)]
pub(crate) struct AppsArgs {
    /// The kernel series to boot
    #[arg(long, default_value = "6.12")]
    kernel: String,
    /// Only these programs
    #[arg(long, value_name = "APP")]
    only: Vec<String>,
    /// Write docs/applications.md; with --only, it keeps the other programs' rows of their last
    /// runs
    #[arg(long, conflicts_with = "kernel")]
    write: bool,
}

/// The longest time that each program's guest may take.
const LIMIT: Duration = Duration::from_secs(30 * 60);

pub(crate) fn main(args: &AppsArgs) -> Result<u8> {
    packages::ensure(&[packages::VM, packages::SCENARIOS])?;
    let kernel = kernels::find(&args.kernel, None)?;
    let mut rows = Vec::new();
    for app in wanted(&args.only)? {
        let new = match get(app) {
            Ok(word) => run(app, word, &kernel)?,
            Err(error) => vec![left_out(app, &error)],
        };
        save(app, &args.kernel, &new)?;
        rows.extend(new);
    }
    println!("\n{}", page::tables(&rows));
    if args.write {
        let rows = if args.only.is_empty() { rows.clone() } else { saved(&args.kernel)? };
        let file = paths::workspace()?.join("docs/applications.md");
        fs::write(file, page::whole(&kernel.version, &page::tables(&rows)))
            .context("cannot write the page")?;
    }
    let wrong: Vec<String> = rows.iter().flat_map(Row::wrong).collect();
    wrong.iter().for_each(say);
    Ok(u8::from(!wrong.is_empty()))
}

fn left_out(app: &App, why: &anyhow::Error) -> Row {
    let row = Row::LeftOut { app: app.name.to_owned(), why: format!("{why:#}") };
    say(format!("{}: {row}", app.name));
    row
}

/// Runs one program in its own guest, so that a crash does not affect the others.
fn run(app: &App, word: String, kernel: &Kernel) -> Result<Vec<Row>> {
    let words = vec!["--app".to_owned(), word];
    let part = Part { name: "apps", words, kernel, limit: LIMIT };
    let rows = part.rows(|machine| machine.memory = "4G".to_owned());
    interrupts::stop_if_interrupted()?;
    Ok(rows.unwrap_or_else(|error| {
        vec![Row::Failed { app: app.name.to_owned(), why: format!("{error:#}") }]
    }))
}

/// The file with the rows of a program's last run on this kernel.
fn file(app: &App, kernel: &str) -> Result<PathBuf> {
    let folder = paths::target()?.join("apps");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder.join(format!("{}-{kernel}.jsonl", app.name)))
}

fn save(app: &App, kernel: &str, rows: &[Row]) -> Result<()> {
    let file = file(app, kernel)?;
    let lines: Result<Vec<String>, _> = rows.iter().map(serde_json::to_string).collect();
    let text = lines?.join("\n");
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// The rows of the last run of every program.
fn saved(kernel: &str) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for app in APPS {
        let text = fs::read_to_string(file(app, kernel)?);
        let text = text.with_context(|| format!("{0} has not run yet: --only {0}", app.name))?;
        let row = |line| serde_json::from_str(line).context("a saved row is invalid");
        rows.extend(text.lines().map(row).collect::<Result<Vec<Row>>>()?);
    }
    Ok(rows)
}

fn wanted(only: &[String]) -> Result<Vec<&'static App>> {
    let names: Vec<&str> = APPS.iter().map(|app| app.name).collect();
    if let Some(unknown) = only.iter().find(|only| !names.contains(&only.as_str())) {
        bail!("no program is called {unknown}; there are {}", names.join(", "));
    }
    let wanted = |app: &&App| only.is_empty() || only.iter().any(|only| only == app.name);
    Ok(APPS.iter().filter(wanted).collect())
}

/// Installs or fetches a program. Returns the argument for the guest: its name, and `=` and its
/// folder if it was fetched.
fn get(app: &App) -> Result<String> {
    packages::ensure(&[app.needs])?;
    Ok(match app.fetched {
        Some(package) => format!("{}={}", app.name, text(&pypi::environment(package)?)?),
        None => app.name.to_owned(),
    })
}
