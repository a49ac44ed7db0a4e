//! A part of xtask that runs in a guest and leaves rows.
use std::{fs, time::Duration};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

use crate::{
    build,
    kernels::Kernel,
    places,
    qemu::Machine,
    vm::{self, Setup},
};

/// One of xtask's own parts in a guest, which leaves rows of JSON.
pub(crate) struct Part<'a> {
    /// Its name, and that of the folder for its rows.
    pub(crate) name: &'static str,
    pub(crate) words: Vec<String>,
    pub(crate) kernel: &'a Kernel,
    pub(crate) limit: Duration,
}

impl Part<'_> {
    /// Boots the kernel on a machine, and runs it; the rows.
    pub(crate) fn rows<T: DeserializeOwned>(
        self,
        machine: impl FnOnce(&mut Machine),
    ) -> Result<Vec<T>> {
        vm::catch_interrupts();
        let release = build::release(&["dio-trace", "xtask"])?;
        let out = places::target()?.join(format!("vm-{}", self.name));
        places::fresh(&out)?;
        let mut setup = Setup::new(self.kernel.clone());
        machine(&mut setup.machine);
        setup.out = Some(out.clone());
        let program = |name: &str| release.join(name).display().to_string();
        let mut words = vec![program("xtask"), "guest".into(), self.name.into()];
        words.extend(["--tool".into(), program("dio-trace"), "--out".into(), "/out/rows".into()]);
        words.extend(self.words);
        let code = setup.once(&words, Some(self.limit), &mut vm::to_terminal)?;
        if code != 0 {
            bail!("the guest's part failed with exit code {code}");
        }
        let text = fs::read_to_string(out.join("rows")).context("the guest wrote nothing")?;
        places::remove(&out)?;
        let row = |line| serde_json::from_str(line).context("the guest wrote no row");
        text.lines().map(row).collect()
    }
}
