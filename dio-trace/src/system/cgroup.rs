//! Finds cgroups (v2) by path, by container id and by systemd unit.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    system::container::{Containers, id_in},
    util::escape::{self, escape},
};

/// Where the unified hierarchy is mounted.
const ROOT: &str = "/sys/fs/cgroup";
/// Fewest characters of a container id that are accepted.
const SHORTEST: usize = 4;

/// A cgroup as the kernel identifies it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cgroup {
    /// Inode number of the cgroup's directory; 0: no cgroup.
    pub id: u64,
    /// Depth in the hierarchy; the root has 0.
    pub level: u32,
}

/// The cgroup at `path`, which is absolute or relative to the root of the hierarchy (as in
/// /proc/PID/cgroup).
///
/// # Errors
/// If there is no such cgroup, or no unified hierarchy.
pub fn of_path(path: &Path) -> Result<Cgroup> {
    cgroup(root()?, &folder_of_path(path)?)
}

/// The directory of the cgroup at `path`, which has the forms that [`of_path`] accepts.
///
/// # Errors
/// Those of [`of_path`].
pub fn folder_of_path(path: &Path) -> Result<PathBuf> {
    let root = root()?;
    let below = path.strip_prefix(root).or_else(|_| path.strip_prefix("/")).unwrap_or(path);
    root.join(below).canonicalize().with_context(|| {
        format!(
            "there is no cgroup {} (`cat /proc/PID/cgroup` shows that of a process)",
            escape::path(path)
        )
    })
}

/// The directory of a container's cgroup, found by the container id, a prefix of it or the
/// container's name: docker, podman, containerd and Kubernetes name the directory after the id.
///
/// # Errors
/// If no cgroup or several match.
pub fn folder_of_container(wanted: &str) -> Result<PathBuf> {
    let root = root()?;
    let shown = escape(wanted.as_bytes());
    let mut found = Vec::new();
    if wanted.len() >= SHORTEST {
        search(root, &|name| is_container(name, wanted), &mut found);
    }
    if found.is_empty() {
        let mut containers = Containers::default();
        search(root, &|name| id_in(name).is_some(), &mut found);
        found.retain(|folder| containers.name_of(root, folder).as_deref() == Some(wanted));
    }
    match &found[..] {
        [one] => Ok(one.clone()),
        [] => bail!(
            "no cgroup below {ROOT} has the container {shown} (its name, or at least {SHORTEST} \
             characters of its id, as `docker ps` or `crictl ps` shows it; --cgroup takes a path)"
        ),
        [one, two, ..] => bail!(
            "{shown} may be {} or {}: give more of the id",
            escape::path(one),
            escape::path(two)
        ),
    }
}

/// The directory of a systemd unit's cgroup: systemd names it after the unit
/// (systemd.resource-control(5)). A name without a suffix means a service.
///
/// # Errors
/// If no cgroup or several match.
pub fn folder_of_unit(unit: &str) -> Result<PathBuf> {
    const SUFFIXES: &[&str] = &[".service", ".scope", ".slice", ".socket", ".mount", ".swap"];
    let named = SUFFIXES.iter().any(|suffix| unit.ends_with(suffix));
    let file = if named { unit.to_owned() } else { format!("{unit}.service") };
    let shown = escape(file.as_bytes());
    let mut found = Vec::new();
    search(root()?, &|name| name == file, &mut found);
    match &found[..] {
        [one] => Ok(one.clone()),
        [] => bail!(
            "no cgroup below {ROOT} is the unit {shown}'s: `systemctl status {shown}` shows whether \
             it runs (--cgroup takes a path)"
        ),
        [one, two, ..] => bail!(
            "{shown} may be {} or {}: give one of them to --cgroup",
            escape::path(one),
            escape::path(two)
        ),
    }
}

/// True while a process is in the cgroup of this directory or in a descendant of it.
#[must_use]
pub fn is_populated(folder: &Path) -> bool {
    let events = fs::read_to_string(folder.join("cgroup.events"));
    // The root of the hierarchy has no such file.
    events.map_or_else(|_| folder.exists(), |text| text.lines().any(|line| line == "populated 1"))
}

/// The paths of cgroups by their ids. One that has been seen keeps its path after its end.
#[derive(Debug, Default)]
pub(crate) struct CgroupPaths {
    known: HashMap<u64, Arc<str>>,
    /// When the hierarchy was last walked.
    walked: Option<Instant>,
}

impl CgroupPaths {
    /// Shortest time between two walks.
    const AGAIN: Duration = Duration::from_secs(1);
    /// Most cgroups that are kept.
    const MAX: usize = 1 << 16;

    /// The path of a cgroup below the root of the hierarchy, escaped.
    pub(crate) fn path(&mut self, id: u64) -> Option<Arc<str>> {
        if let Some(path) = self.known.get(&id) {
            return Some(path.clone());
        }
        if id == 0 || self.walked.is_some_and(|at| at.elapsed() < Self::AGAIN) {
            return None;
        }
        self.walked = Some(Instant::now());
        if let Ok(root) = root() {
            self.walk(root, root);
        }
        self.known.get(&id).cloned()
    }

    fn walk(&mut self, root: &Path, folder: &Path) {
        if self.known.len() >= Self::MAX {
            self.known.clear();
        }
        if let Ok(found) = fs::metadata(folder) {
            let below = folder.strip_prefix(root).unwrap_or(folder);
            let path = format!("/{}", escape::path(below));
            self.known.insert(found.ino(), path.into());
        }
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.walk(root, &entry.path());
            }
        }
    }
}

fn root() -> Result<&'static Path> {
    let root = Path::new(ROOT);
    if !root.join("cgroup.controllers").exists() {
        bail!("{ROOT} is not a cgroup v2 hierarchy: filter by process instead (attach -p)");
    }
    Ok(root)
}

fn cgroup(root: &Path, path: &Path) -> Result<Cgroup> {
    let path = path.canonicalize()?;
    let below = path.strip_prefix(root).context("not in the hierarchy")?;
    let level = u32::try_from(below.components().count()).unwrap_or(u32::MAX);
    Ok(Cgroup { id: fs::metadata(&path)?.ino(), level })
}

/// Collects the outermost directories below `folder` whose names fit.
fn search(folder: &Path, fits: &dyn Fn(&str) -> bool, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if fits(&entry.file_name().to_string_lossy()) {
            found.push(entry.path());
        } else {
            search(&entry.path(), fits, found);
        }
    }
}

/// True for "docker-ID.scope", "cri-containerd-ID.scope", "libpod-ID.scope" and "ID", where `id` is
/// a prefix of ID.
fn is_container(name: &str, id: &str) -> bool {
    let name = name.strip_suffix(".scope").unwrap_or(name);
    let bare = name.rsplit_once('-').map_or(name, |(_, id)| id);
    name.starts_with(id) || bare.starts_with(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_name_their_cgroups_alike() {
        for name in
            ["docker-3f4a9c.scope", "cri-containerd-3f4a9c.scope", "libpod-3f4a9c", "3f4a9c"]
        {
            assert!(is_container(name, "3f4a"), "{name}");
        }
        assert!(!is_container("docker-13f4a9c.scope", "3f4a"));
        assert!(!is_container("system.slice", "3f4a"));
    }

    #[test]
    fn cgroups_are_known_by_the_numbers_of_their_directories() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("system.slice/db.service");
        fs::create_dir_all(&inner).unwrap();
        let mut paths = CgroupPaths::default();
        paths.walk(root.path(), root.path());
        paths.walked = Some(Instant::now());
        let id = fs::metadata(&inner).unwrap().ino();
        fs::remove_dir_all(&inner).unwrap();
        assert_eq!(paths.path(id).as_deref(), Some("/system.slice/db.service"));
        assert_eq!(paths.path(u64::MAX), None);
    }

    #[test]
    fn a_container_is_found_at_any_depth_once() {
        let root = std::env::temp_dir().join(format!("dio-trace-cgroup-{}", std::process::id()));
        let inner = root.join("kubepods.slice/pod1.slice/cri-containerd-abcdef.scope/init");
        fs::create_dir_all(&inner).unwrap();
        let mut found = Vec::new();
        search(&root, &|name| is_container(name, "abcd"), &mut found);
        let level = cgroup(&root, &found[0]).unwrap().level;
        fs::remove_dir_all(&root).unwrap();
        assert_eq!((found.len(), level), (1, 3));
    }
}
