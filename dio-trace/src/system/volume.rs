//! The volume that a file is on: of a Kubernetes pod, or a named one of docker or podman.
//!
//! The kubelet mounts volumes at `…/pods/UID/volumes/PLUGIN/NAME` on the host (for a persistent
//! volume, NAME is that of the volume), and containers get bind mounts of them. Named volumes lie in
//! `…/volumes/NAME/_data`.

use crate::{
    system::mounts::{Mount, Mounts},
    util::escape::escape,
};

/// The volume that a process's mount is of. `host` is the host's mount table: a volume with a file
/// system of its own is known only by its mount point there.
pub(crate) fn of_mount<'a>(
    mount: &Mount,
    host: impl FnOnce() -> Option<&'a Mounts>,
) -> Option<String> {
    if let Some(name) = name_in(&mount.root).or_else(|| name_in(&mount.point)) {
        return Some(name);
    }
    let same = |other: &&Mount| other.dev == mount.dev && is_below(&mount.root, &other.root);
    let named = host()?
        .values()
        .filter(same)
        .filter_map(|other| Some((other.root.len(), name_in(&other.point)?)));
    named.max().map(|(_, name)| name)
}

/// True if a path is `folder` or below it.
fn is_below(path: &[u8], folder: &[u8]) -> bool {
    let folder = folder.strip_suffix(b"/").unwrap_or(folder);
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

fn name_in(path: &[u8]) -> Option<String> {
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    let of_pod = || parts.windows(5).find(|part| part[0] == b"pods" && part[2] == b"volumes");
    let named = || parts.windows(3).find(|part| part[0] == b"volumes" && part[2] == b"_data");
    let name = match of_pod() {
        Some(part) => part[4],
        None => named()?[1],
    };
    (!name.is_empty()).then(|| escape(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::mounts::{parse, tests::mount};

    #[test]
    fn a_volume_s_name_is_in_the_mount_or_at_the_host_s_mount_point() {
        let host = parse(
            b"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
            2 1 259:1 / /var/lib/kubelet/pods/8dbc/volumes/kubernetes.io~csi/pvc-17/mount rw - xfs /dev/nvme1n1 rw\n\
            3 1 0:50 /a /var/lib/kubelet/pods/8dbc/volumes/kubernetes.io~nfs/one rw - nfs4 s:/a rw\n\
            4 1 0:50 /a/b /var/lib/kubelet/pods/8dbc/volumes/kubernetes.io~nfs/two rw - nfs4 s:/a/b rw\n",
        );
        for (dev, root, point, wanted) in [
            ("259:1", "/", "/data", Some("pvc-17")),
            ("259:1", "/sub", "/data", Some("pvc-17")),
            ("0:50", "/a/b/c", "/data", Some("two")),
            ("0:50", "/ab", "/data", None),
            (
                "8:1",
                "/var/lib/kubelet/pods/8dbc/volumes/kubernetes.io~empty-dir/cache",
                "/c",
                Some("cache"),
            ),
            ("8:1", "/var/lib/docker/volumes/pgdata/_data", "/var/lib/postgresql", Some("pgdata")),
            ("8:1", "/home", "/home", None),
            ("8:9", "/", "/data", None),
        ] {
            let mount = Mount { dev: dev.to_owned(), root: root.into(), ..mount(point) };
            assert_eq!(of_mount(&mount, || Some(&host)).as_deref(), wanted, "{dev} {root}");
        }
    }
}
