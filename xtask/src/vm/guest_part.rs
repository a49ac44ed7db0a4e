//! Runs a command of `cargo xtask guest` in a VM of its own, and reads the rows that it writes.
use std::{fs, time::Duration};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

use crate::{
    host::{build, paths},
    vm::{boot::Setup, interrupts, kernels::Kernel, qemu::Machine, running::to_terminal},
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
        interrupts::catch_interrupts();
        let release = build::release(&["dio-trace", "xtask"])?;
        let out = paths::target()?.join(format!("vm-{}", self.name));
        paths::fresh(&out)?;
        let mut setup = Setup::new(self.kernel.clone());
        machine(&mut setup.machine);
        setup.out = Some(out.clone());
        let program = |name: &str| release.join(name).display().to_string();
        let mut words = vec![program("xtask"), "guest".into(), self.name.into()];
        words.extend(["--tool".into(), program("dio-trace"), "--out".into(), "/out/rows".into()]);
        words.extend(self.words);
        let code = setup.once(&words, Some(self.limit), &mut to_terminal)?;
        if code != 0 {
            bail!("the guest's part failed with exit code {code}");
        }
        let text = fs::read_to_string(out.join("rows")).context("the guest wrote nothing")?;
        paths::remove(&out)?;
        let row = |line| serde_json::from_str(line).context("the guest wrote no row");
        text.lines().map(row).collect()
    }
}
