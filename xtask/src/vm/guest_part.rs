//! Runs a command of `cargo xtask guest` in its own VM, and reads the rows (lines of JSON) that it
//! writes.
use std::{fs, time::Duration};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

use crate::{
    cross,
    host::paths,
    vm::{boot::Setup, interrupts, kernels::Kernel, qemu::Machine, running::to_terminal},
};

/// A command of `cargo xtask guest` that writes rows of JSON, and the VM to run it in.
pub(crate) struct Part<'a> {
    /// The name of the command, and part of the name of the folder for its rows.
    pub(crate) name: &'static str,
    /// Further arguments.
    pub(crate) words: Vec<String>,
    pub(crate) kernel: &'a Kernel,
    /// The longest time that the command may take.
    pub(crate) limit: Duration,
}

impl Part<'_> {
    /// Boots the kernel, runs the command and returns its rows. `machine` adjusts the VM first.
    pub(crate) fn rows<T: DeserializeOwned>(
        self,
        machine: impl FnOnce(&mut Machine),
    ) -> Result<Vec<T>> {
        interrupts::catch_interrupts();
        let release = cross::programs(self.kernel.arch)?;
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
            bail!("the command in the guest failed with exit code {code}");
        }
        let text = fs::read_to_string(out.join("rows")).context("the guest wrote nothing")?;
        paths::remove(&out)?;
        let row = |line| serde_json::from_str(line).context("the guest wrote an invalid row");
        text.lines().map(row).collect()
    }
}
