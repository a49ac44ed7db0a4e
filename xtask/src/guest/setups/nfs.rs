//! An NFS server in this machine, and its client, by the loopback interface.
use std::{fs, path::Path};

use anyhow::{Context, Result};

use crate::{
    guest::setups::make::{mount, run},
    host::cmd::text,
};

/// Where the server is steered.
const SERVER: &str = "/proc/fs/nfsd";

/// Exports a folder and mounts it elsewhere.
pub(super) fn share(from: &Path, to: &Path) -> Result<()> {
    run("modprobe", &["nfsd"])?;
    if !Path::new(SERVER).join("threads").exists() {
        run("mount", &["-t", "nfsd", "nfsd", SERVER])?;
    }
    // Version 4 alone: the older ones want a port mapper.
    let versions = ["-N", "3"];
    if run("pidof", &["rpc.mountd"]).is_err() {
        run("rpc.mountd", &versions)?;
    }
    let client = format!("127.0.0.1:{}", text(from)?);
    run("exportfs", &["-i", "-o", "rw,no_root_squash,insecure,fsid=0", &client])?;
    run("rpc.nfsd", &[&versions[..], &["4"]].concat())?;
    // There is no client of before whose locks to wait for.
    fs::write(format!("{SERVER}/v4_end_grace"), "Y").context("cannot end the grace period")?;
    mount(&["-t", "nfs4", "-o", "vers=4.2", "127.0.0.1:/"], to)
}

/// Ends what was shared, before what it lies on is unmounted.
pub(super) fn end() -> Result<()> {
    let threads = format!("{SERVER}/threads");
    if fs::read_to_string(&threads).is_ok_and(|count| count.trim() != "0") {
        run("umount", &["-a", "-t", "nfs4"])?;
        run("exportfs", &["-u", "-a"])?;
        fs::write(&threads, "0").context("cannot end the NFS server")?;
    }
    Ok(())
}
