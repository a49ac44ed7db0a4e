//! Real programs under dio-trace, each held to a count that is not dio-trace's.
//!
//! - [`table`]: the programs
//! - [`row`]: what is written down of a run, and the comparison
//! - [`watch`]: dio-trace meanwhile
//! - [`reference`]: who counts too, where the program does not itself: [`strace`], and [`ring`] for
//!   io_uring
//! - [`fio`], [`qemu`], [`rocksdb`], [`mariadb`], [`postgres`], [`clickhouse`]: a program each
//! - [`server`]: what databases need
mod clickhouse;
mod fio;
mod mariadb;
mod postgres;
mod qemu;
mod reference;
mod ring;
mod rocksdb;
mod row;
mod server;
mod strace;
mod table;
mod watch;

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result};
use clap::Args;

pub(crate) use row::{Counted, Latency, Ops, Row};
pub(crate) use table::{APPS, App};

use crate::{
    guest::setups::{self, Place, ROOT},
    host::cmd::say,
};

#[derive(Args, Clone, Debug)]
pub(crate) struct AppsArgs {
    /// dio-trace
    #[arg(long)]
    tool: PathBuf,
    /// Where rows go, a line of JSON each
    #[arg(long)]
    out: PathBuf,
    /// A program of the table; NAME=FOLDER where it was fetched
    #[arg(long, required = true)]
    app: Vec<String>,
}

/// What a program runs on.
pub(super) struct Stage {
    tool: PathBuf,
    /// An ext4 and an xfs that nobody else uses.
    places: Vec<Place>,
    /// Where the program was unpacked.
    fetched: Option<PathBuf>,
}

/// Where rows are written, as they come: a guest that dies leaves those before.
pub(super) struct Rows {
    app: &'static str,
    file: File,
}

impl Rows {
    fn add(&mut self, row: &Row) -> Result<()> {
        say(format!("{}: {row}", self.app));
        row.wrong().iter().for_each(say);
        writeln!(self.file, "{}", serde_json::to_string(row)?)?;
        self.file.sync_all().context("cannot write a row")
    }
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
    let places = setups::make_bare(&["ext4-512", "xfs-512"])?;
    let stage = Stage { tool: args.tool.clone(), places, fetched };
    (app.run)(&stage, rows)?;
    setups::clear(Path::new(ROOT))
}
