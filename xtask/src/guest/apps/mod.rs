//! Traces real programs and compares dio-trace's counts with a reference: the program's own count,
//! or that of strace and ftrace.
//!
//! - [`table`]: the list of the programs
//! - [`stage`]: the environment of a program, and the output of its rows
//! - [`watch`]: runs dio-trace while a program runs
//! - [`reference`]: the reference count where the program has none: [`strace`], and [`ring`] for
//!   io_uring
//! - [`fio`], [`qemu`], [`rocksdb`], [`mariadb`], [`postgres`], [`clickhouse`]: one program each
//! - [`server`]: helpers for database servers
mod clickhouse;
mod fio;
mod mariadb;
pub(super) mod postgres;
mod qemu;
mod reference;
mod ring;
mod rocksdb;
mod server;
mod stage;
mod strace;
pub(crate) mod table;
mod watch;

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result};
use clap::Args;

use crate::{
    guest::{
        apps::{
            stage::{Rows, Stage},
            table::{APPS, App},
        },
        contract::apps::Row,
        fixtures::{self, ROOT},
    },
    host::cmd::say,
};

#[derive(Args, Clone, Debug)]
pub(crate) struct AppsArgs {
    /// Path of the dio-trace binary
    #[arg(long)]
    tool: PathBuf,
    /// File to append the rows to, one line of JSON per row
    #[arg(long)]
    out: PathBuf,
    /// A program of the table, as NAME, or NAME=FOLDER if it was fetched to a folder
    #[arg(long, required = true)]
    app: Vec<String>,
}

pub(super) fn main(args: &AppsArgs) -> Result<()> {
    let mut file = File::options().append(true).create(true).open(&args.out)?;
    for word in &args.app {
        let (name, fetched) = match word.split_once('=') {
            Some((name, folder)) => (name, Some(PathBuf::from(folder))),
            None => (word.as_str(), None),
        };
        let app = APPS.iter().find(|app| app.name == name);
        let app = app.with_context(|| format!("no program of the table is called {name}"))?;
        let mut rows = Rows { app: app.name, file: file.try_clone()? };
        let start = Instant::now();
        if let Err(error) = run(app, args, fetched, &mut rows) {
            rows.add(&Row::failed(app.name, &format!("{error:#}")))?;
        }
        say(format!("{name}: {:.0} s", start.elapsed().as_secs_f32()));
    }
    file.flush().context("cannot write the rows")
}

fn run(app: &App, args: &AppsArgs, fetched: Option<PathBuf>, rows: &mut Rows) -> Result<()> {
    let places = fixtures::make_bare(&["ext4-512", "xfs-512"])?;
    let stage = Stage { tool: args.tool.clone(), places, fetched };
    (app.run)(&stage, rows)?;
    fixtures::clear(Path::new(ROOT))
}
