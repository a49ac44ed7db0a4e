//! QEMU's block layer with cache mode `none` (O_DIRECT): qemu-img bench with each AIO mode.
use std::process::Command;

use anyhow::Result;

use crate::{
    guest::{
        apps::{
            reference,
            stage::{Rows, Stage},
            watch::Watch,
        },
        contract::apps::{Counted, Row},
        direct_io::files::fill,
    },
    host::cmd::{self, text},
};

const WAYS: &[&str] = &["threads", "native", "io_uring"];
const BYTES: usize = 8 << 20;

pub(super) fn run(stage: &Stage, rows: &mut Rows) -> Result<()> {
    let version = cmd::output(Command::new("qemu-img").arg("--version"))?;
    let version = version.split(" (").next().unwrap_or_default().replace("version ", "");
    let mut files = Vec::new();
    for place in &stage.places {
        for way in WAYS {
            for write in [false, true] {
                let name = format!("{way}-{}", if write { "write" } else { "read" });
                let file = place.path.join(name);
                fill(&file, BYTES)?;
                files.push((place.setup.fs, *way, write, file));
            }
        }
    }
    let watch = Watch::audit(stage)?;
    let mut counted = Vec::new();
    for (_, way, write, file) in &files {
        let mut command = vec!["qemu-img", "bench", "-f", "raw", "-t", "none", "-i", way];
        command.extend(["-c", "500", "-d", "16", "-s", "8192"]);
        command.extend(write.then_some("-w"));
        command.push(text(file)?);
        counted.push(reference::run(&command));
    }
    let seen = watch.end()?;
    for ((fs, way, write, file), counted) in files.iter().zip(&counted) {
        let mut row = Counted {
            program: version.clone(),
            case: format!("bench -t none -i {way}{}", if *write { " -w" } else { "" }),
            fs: (*fs).to_owned(),
            watched: "audit".to_owned(),
            ..Counted::default()
        };
        reference::compare(&mut row, counted, &seen, file);
        rows.add(&Row::Counted(row))?;
    }
    Ok(())
}
