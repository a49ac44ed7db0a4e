//! `cargo xtask apps`: real programs under dio-trace, each held to a count that is not dio-trace's.
//!
//! - [`page`]: docs/applications.md
mod page;

use std::{fs, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    cmd::{say, text},
    guest::{APPS, App, AppRow},
    host, kernels,
    part::Part,
    places, pypi,
};

/// Run real programs under dio-trace, and compare its counts with theirs or strace's
///
/// A program that cannot be had on this machine is left out, and the table says why.
#[derive(Args)]
pub(crate) struct AppsArgs {
    /// The kernel series to boot
    #[arg(long, default_value = "6.12")]
    kernel: String,
    /// These programs alone
    #[arg(long, value_name = "APP")]
    only: Vec<String>,
    /// Write docs/applications.md
    #[arg(long, conflicts_with_all = ["only", "kernel"])]
    write: bool,
}

/// A limit on the run.
const LIMIT: Duration = Duration::from_secs(60 * 60);

/// A program that cannot be had here.
struct Skipped {
    app: &'static str,
    why: String,
}

pub(crate) fn main(args: &AppsArgs) -> Result<u8> {
    host::ensure(&[host::VM, host::SCENARIOS])?;
    let (words, skipped) = ready(&wanted(&args.only)?);
    let kernel = kernels::find(&args.kernel, None)?;
    let part = Part { name: "apps", words, kernel: &kernel, limit: LIMIT };
    let rows: Vec<AppRow> = part.rows(|machine| machine.memory = "4G".to_owned())?;
    let tables = page::tables(&rows, &skipped);
    println!("\n{tables}");
    if args.write {
        let file = places::workspace()?.join("docs/applications.md");
        fs::write(file, page::whole(&kernel.version, &tables)).context("cannot write the page")?;
    }
    let wrong: Vec<String> = rows.iter().flat_map(AppRow::wrong).collect();
    wrong.iter().for_each(say);
    Ok(u8::from(!wrong.is_empty()))
}

fn wanted(only: &[String]) -> Result<Vec<&'static App>> {
    let names: Vec<&str> = APPS.iter().map(|app| app.name).collect();
    if let Some(unknown) = only.iter().find(|only| !names.contains(&only.as_str())) {
        bail!("no program is called {unknown}; there are {}", names.join(", "));
    }
    let wanted = |app: &&App| only.is_empty() || only.iter().any(|only| only == app.name);
    Ok(APPS.iter().filter(wanted).collect())
}

/// Gets each program: the words that name them to the guest, and what could not be had.
fn ready(apps: &[&'static App]) -> (Vec<String>, Vec<Skipped>) {
    let (mut words, mut skipped) = (Vec::new(), Vec::new());
    for app in apps {
        match get(app) {
            Ok(word) => words.extend(["--app".to_owned(), word]),
            Err(error) => {
                let why = format!("{error:#}");
                say(format!("{}: left out: {why}", app.name));
                skipped.push(Skipped { app: app.name, why });
            }
        }
    }
    (words, skipped)
}

/// Its name, and where it was unpacked.
fn get(app: &App) -> Result<String> {
    host::ensure(&[app.needs])?;
    Ok(match app.fetched {
        Some(package) => format!("{}={}", app.name, text(&pypi::environment(package)?)?),
        None => app.name.to_owned(),
    })
}
