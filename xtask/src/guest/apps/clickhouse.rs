//! ClickHouse inside a Python process (chDB), configured so that reads and writes of any size use
//! O_DIRECT.
use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{
    guest::{
        apps::{
            reference::{self, Reference},
            stage::{Rows, Stage},
            watch::Watch,
        },
        contract::apps::{Counted, Row},
    },
    host::{cmd::text, pypi},
};

/// Values of local_filesystem_read_method: only one on each file system, because chDB takes long to
/// start.
const METHODS: &[&str] = &["pread", "pread_threadpool"];
const SCRIPT: &str = "\
import chdb.session, sys
session = chdb.session.Session(sys.argv[1])
print('ClickHouse', session.query('select version()', 'TSVRaw'))
settings = f\" settings min_bytes_to_use_direct_io = 1, local_filesystem_read_method = '{sys.argv[2]}'\"
session.query('create table t (a UInt64, b String) engine = MergeTree order by a')
for part in range(3):
    session.query(f\"insert into t select number * 3 + {part}, repeat('x', number % 100) from numbers(50000)\" + settings)
for _ in range(2):
    session.query('select sum(a), sum(length(b)) from t' + settings)
session.query('select count() from t where a > 90000 and a < 100000' + settings)
session.query('optimize table t final' + settings)
session.query('select sum(a), sum(length(b)) from t' + settings)
session.close()
";

pub(super) fn run(stage: &Stage, rows: &mut Rows) -> Result<()> {
    let fetched = stage.fetched.as_ref().context("chDB was not fetched")?;
    let script = Path::new("/tmp/clickhouse.py");
    fs::write(script, SCRIPT)?;
    let mut cases: Vec<(&str, &str, PathBuf)> = Vec::new();
    for (place, how) in stage.places.iter().zip(METHODS) {
        cases.push((place.setup.fs, how, place.path.join(how)));
    }
    let watch = Watch::audit(stage)?;
    let work = |(_, how, folder): &(&str, &str, PathBuf)| -> Result<Reference> {
        let python = pypi::python(fetched);
        reference::run(&[text(&python)?, text(script)?, text(folder)?, how])
    };
    let counted: Vec<Result<Reference>> = cases.iter().map(work).collect();
    let talk = fs::read_to_string(reference::TALK)?;
    let seen = watch.end()?;
    for ((fs, how, folder), counted) in cases.iter().zip(&counted) {
        let mut row = Counted {
            program: talk
                .lines()
                .find(|line| line.starts_with("ClickHouse "))
                .unwrap_or("ClickHouse")
                .to_owned(),
            case: format!("min_bytes_to_use_direct_io=1 local_filesystem_read_method={how}"),
            fs: (*fs).to_owned(),
            watched: "audit".to_owned(),
            ..Counted::default()
        };
        reference::compare(&mut row, counted, &seen, folder);
        rows.add(&Row::Counted(row))?;
    }
    Ok(())
}
