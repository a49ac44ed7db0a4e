//! MariaDB with its data files and its log open with O_DIRECT: with native AIO, which is io_uring,
//! and with its own I/O threads.
use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{
    guest::{
        apps::{
            reference::{self, Reference, Running},
            server::{copy, give, wait},
            stage::{Rows, Stage},
            watch::Watch,
        },
        contract::apps::{Counted, Row},
    },
    host::cmd::{self, text},
};

const SOCKET: &str = "/tmp/mariadb.sock";
/// Small sizes, so that most of the table is read again and again.
const SIZES: &[&str] = &[
    "--innodb-log-file-size=8M",
    "--innodb-buffer-pool-size=6M",
    "--innodb-flush-method=O_DIRECT",
    "--innodb-log-file-buffering=OFF",
];
const WORK: &str = "\
    create database d; use d; \
    create table t (id int primary key, a int, b char(200), key (a)) engine=innodb; \
    insert into t select seq, seq * 7919 % 10007, repeat('x', 200) from seq_1_to_8000; \
    update t set a = a + 1 where id % 10 = 0; \
    select count(*), sum(length(b)) from t; \
    select sum(length(b)) from t where a < 1000; \
    delete from t where id % 3 = 0;";

pub(super) fn run(stage: &Stage, rows: &mut Rows) -> Result<()> {
    let version = cmd::output(Command::new("mariadbd").args(["--no-defaults", "--version"]))?;
    let version = version.split_whitespace().nth(2).unwrap_or_default();
    let version = version.split('-').next().unwrap_or_default();
    let first = install(&stage.places[0].path)?;
    let mut cases = Vec::new();
    for place in &stage.places {
        for native in [false, true] {
            let folder = place.path.join(if native { "native" } else { "threads" });
            copy(&first, &folder)?;
            cases.push((place.setup.fs, native, folder));
        }
    }
    let watch = Watch::audit(stage)?;
    let counted: Vec<Result<Reference>> =
        cases.iter().map(|(_, native, folder)| work(folder, *native)).collect();
    let seen = watch.end()?;
    for ((fs, native, folder), counted) in cases.iter().zip(&counted) {
        let way = if *native { "ON" } else { "OFF" };
        let mut row = Counted {
            program: format!("MariaDB {version}"),
            case: format!("innodb_flush_method=O_DIRECT innodb_use_native_aio={way}"),
            fs: (*fs).to_owned(),
            watched: "audit".to_owned(),
            ..Counted::default()
        };
        reference::compare(&mut row, counted, &seen, folder);
        rows.add(&Row::Counted(row))?;
    }
    Ok(())
}

/// Makes a folder with an empty database.
fn install(place: &Path) -> Result<PathBuf> {
    let folder = place.join("first");
    std::fs::create_dir(&folder)?;
    let mut install = Command::new("mariadb-install-db");
    install.args(["--no-defaults", "--user=nobody", "--skip-test-db"]);
    install.args(["--auth-root-authentication-method=normal"]).args(SIZES);
    cmd::output(install.arg(format!("--datadir={}", text(&folder)?)))?;
    give(&folder)?;
    Ok(folder)
}

/// Starts the server, runs the statements, and shuts it down.
fn work(folder: &Path, native: bool) -> Result<Reference> {
    let data = format!("--datadir={}", text(folder)?);
    let socket = format!("--socket={SOCKET}");
    let aio = format!("--innodb-use-native-aio={}", u8::from(native));
    let server = ["mariadbd", "--no-defaults", "--user=nobody", "--skip-networking"];
    let command = [&server, &[data.as_str(), &socket, &aio][..], SIZES].concat();
    let mut running = Running::start(&command, None)?;
    wait(&mut running, || ask("select 1"))?;
    ask(WORK)?;
    ask("shutdown")?;
    running.end()
}

fn ask(sql: &str) -> Result<String> {
    let mut client = Command::new("mariadb");
    client.args(["--no-defaults", "--user=root", "--batch", "--socket", SOCKET]);
    cmd::output(client.args(["--execute", sql]))
}
