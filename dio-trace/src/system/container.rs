//! The container and the Kubernetes pod of a process.
//!
//! The process's cgroup has the container's id and the pod's uid in its path: docker, containerd,
//! CRI-O and podman, with the systemd and with the cgroupfs driver, in cgroup v1 and v2. Names come
//! from files that runtimes and the kubelet write on the host; no API server is asked:
//!
//! - `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log` (kubelet)
//! - `/var/log/pods/NAMESPACE_POD_UID` (kubelet)
//! - `config.json` of the OCI bundle, whose annotations have the names (containerd, CRI-O)
//! - `/var/lib/docker/containers/ID/config.v2.json` (docker)
//! - `containers.json` of containers/storage (podman)

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::util::escape::escape;

/// Digits of a container's id, and how many of them are shown, as `docker ps` does.
const ID_DIGITS: usize = 64;
const SHOWN_DIGITS: usize = 12;
/// Longest text in bytes that is taken from a recording.
const LONGEST: usize = 1024;

/// Where a process runs. All texts are escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Path of the process's cgroup.
    pub cgroup: String,
    /// The container's id: 64 hexadecimal digits, or the first of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The container's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The pod's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

impl Container {
    /// The container's name, or the first digits of its id; None if the process is in no container.
    #[must_use]
    pub fn short_name(&self) -> Option<&str> {
        let id = || self.id.as_deref().map(|id| id.get(..SHOWN_DIGITS).unwrap_or(id));
        self.name.as_deref().or_else(id)
    }

    /// The container in words, or else the cgroup.
    #[must_use]
    pub fn shown(&self) -> String {
        match (self.short_name(), &self.pod, &self.namespace) {
            (Some(name), Some(pod), Some(namespace)) => format!("{namespace}/{pod}/{name}"),
            (Some(name), ..) => format!("container {name}"),
            (None, ..) => self.cgroup.clone(),
        }
    }

    /// The pod with its namespace.
    #[must_use]
    pub fn pod_shown(&self) -> Option<String> {
        Some(format!("{}/{}", self.namespace.as_deref()?, self.pod.as_deref()?))
    }

    /// True if nothing more can be found out.
    fn is_whole(&self) -> bool {
        self.id.is_none() || self.name.is_some()
    }

    /// Escapes texts that were read from a recording, and cuts them to [`LONGEST`].
    pub(crate) fn clean(&mut self) {
        let optional = [&mut self.id, &mut self.name, &mut self.pod, &mut self.namespace];
        for text in optional.into_iter().flatten().chain([&mut self.cgroup]) {
            text.truncate(text.floor_char_boundary(LONGEST));
            *text = escape(text.as_bytes());
        }
    }
}

/// Finds the containers of processes, and remembers the names of those it has found.
#[derive(Debug, Default)]
pub(crate) struct Containers {
    /// The host's root directory; `None` until it is needed.
    root: Option<PathBuf>,
    known: HashMap<String, Named>,
}

/// The names of a container, and when they were looked for.
#[derive(Clone, Debug)]
struct Named {
    names: Names,
    at: Instant,
}

/// What the files of the host say of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Names {
    container: Option<String>,
    pod: Option<String>,
    namespace: Option<String>,
}

impl Names {
    fn pod(namespace: &str, pod: &str) -> Self {
        Self {
            container: None,
            pod: Some(escape(pod.as_bytes())),
            namespace: Some(escape(namespace.as_bytes())),
        }
    }

    fn or(self, other: impl FnOnce() -> Option<Self>) -> Self {
        if self.container.is_some() {
            return self;
        }
        let other = other().unwrap_or_default();
        Self {
            container: other.container,
            pod: self.pod.or(other.pod),
            namespace: self.namespace.or(other.namespace),
        }
    }
}

/// The host's root directory. In a container with the host's process ids, the host's files are below
/// the root of its first process.
fn host_root() -> PathBuf {
    let host = Path::new("/proc/1/root/");
    let is_readable = fs::read_dir(host).is_ok();
    if is_readable { host } else { Path::new("/") }.to_path_buf()
}

impl Containers {
    /// Most containers whose names are kept.
    const MAX: usize = 4096;
    /// A container whose name was not found is looked for again after this time: the kubelet makes
    /// its files after the container has started.
    const AGAIN: Duration = Duration::from_secs(5);

    #[cfg(test)]
    fn below(root: &Path) -> Self {
        Self { root: Some(root.to_path_buf()), known: HashMap::new() }
    }

    /// The container of a process, or else its cgroup; None if the process has exited.
    pub(crate) fn of_process(&mut self, pid: u32) -> Option<Container> {
        let text = fs::read(format!("/proc/{pid}/cgroup")).ok()?;
        self.in_cgroup(&escape_lines(&text))
    }

    /// The container of the processes in the cgroup at this path, or else the cgroup.
    pub(crate) fn of_cgroup(&mut self, path: &str) -> Option<Container> {
        self.in_cgroup(&format!("0::{path}"))
    }

    /// Looks again for names that were not found.
    pub(crate) fn complete(&mut self, container: &mut Container) {
        if !container.is_whole() {
            *container = self.of_cgroup(&container.cgroup).unwrap_or_else(|| container.clone());
        }
    }

    /// The name of the container whose cgroup is this directory below the root of the hierarchy.
    pub(crate) fn name_of(&mut self, root: &Path, folder: &Path) -> Option<String> {
        let below = folder.strip_prefix(root).ok()?.to_string_lossy();
        self.in_cgroup(&format!("0::/{below}"))?.name
    }

    /// The container that /proc/PID/cgroup tells of.
    fn in_cgroup(&mut self, text: &str) -> Option<Container> {
        let path = path_in(text)?;
        let id = path.split('/').find_map(id_in);
        let lxc = || path.split('/').find_map(|part| part.strip_prefix("lxc.payload."));
        let uid = path.split('/').find_map(uid_in);
        let names = id.map(|id| self.names(id, uid.as_deref())).unwrap_or_default();
        Some(Container {
            cgroup: path.to_owned(),
            id: id.map(str::to_owned),
            name: names.container.or_else(|| lxc().map(str::to_owned)),
            pod: names.pod,
            namespace: names.namespace,
        })
    }

    fn names(&mut self, id: &str, uid: Option<&str>) -> Names {
        let now = Instant::now();
        if let Some(Named { names, at }) = self.known.get(id)
            && (names.container.is_some() || now.duration_since(*at) < Self::AGAIN)
        {
            return names.clone();
        }
        let names = self.look_up(id, uid);
        if self.known.len() >= Self::MAX {
            self.known.clear();
        }
        self.known.insert(id.to_owned(), Named { names: names.clone(), at: now });
        names
    }

    fn look_up(&mut self, id: &str, uid: Option<&str>) -> Names {
        let root = self.root.get_or_insert_with(host_root);
        let none = Names::default();
        none.or(|| container_log(root, id))
            .or(|| pod_logs(root, uid?))
            .or(|| bundle(root, id))
            .or(|| docker(root, id))
            .or(|| podman(root, id))
    }
}

/// The lines of /proc/PID/cgroup, each escaped.
fn escape_lines(text: &[u8]) -> String {
    let lines: Vec<String> = text.split(|byte| *byte == b'\n').map(escape).collect();
    lines.join("\n")
}

/// The path of the cgroup: of the hierarchy whose path has a container's id, of the unified one (v2),
/// or of systemd's. Seen from inside a cgroup namespace, it begins with `/..`.
fn path_in(text: &str) -> Option<&str> {
    let hierarchies = || {
        text.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            path.starts_with('/').then_some((controllers, path))
        })
    };
    let of = |wanted: &str| hierarchies().find(|(controllers, _)| *controllers == wanted);
    let with_id = hierarchies().find(|(_, path)| path.split('/').any(|part| id_in(part).is_some()));
    let systemd = || of("name=systemd").or_else(|| hierarchies().next());
    let unified = || of("").filter(|(_, path)| *path != "/" || hierarchies().count() == 1);
    let (_, mut path) = with_id.or_else(unified).or_else(systemd)?;
    while let Some(rest) = path.strip_prefix("/..") {
        path = rest;
    }
    Some(if path.is_empty() { "/" } else { path })
}

/// The container's id in the name of a cgroup: `docker-ID.scope`, `cri-containerd-ID.scope`,
/// `crio-ID.scope`, `libpod-ID.scope`, `SLICE:cri-containerd:ID` and `ID`. The monitor of a container
/// (conmon) is not in it.
pub(crate) fn id_in(name: &str) -> Option<&str> {
    if name.contains("-conmon-") {
        return None;
    }
    let name = name.strip_suffix(".scope").unwrap_or(name);
    let id = name.rsplit(['-', ':']).next()?;
    let is_id = id.len() == ID_DIGITS && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then_some(id)
}

/// The pod's uid in the name of a cgroup: `kubepods-burstable-podUID.slice`, where `_` stands for
/// `-`, and `podUID`. That of a static pod is a hash of 32 digits.
fn uid_in(name: &str) -> Option<String> {
    let name = name.split(':').next()?;
    let name = name.strip_suffix(".slice").unwrap_or(name);
    let (_, uid) = name.rsplit_once("pod")?;
    let uid = uid.replace('_', "-");
    let digits = uid.bytes().filter(u8::is_ascii_hexdigit).count();
    let dashes = uid.bytes().filter(|byte| *byte == b'-').count();
    (digits == 32 && digits + dashes == uid.len() && matches!(dashes, 0 | 4)).then_some(uid)
}

/// The name of a link in /var/log/containers: POD_NAMESPACE_CONTAINER-ID.log. None of the names can
/// contain `_`.
fn container_log(root: &Path, id: &str) -> Option<Names> {
    let end = format!("-{id}.log");
    let name = names_in(&root.join("var/log/containers")).find(|name| name.ends_with(&end))?;
    let mut parts = name.strip_suffix(&end)?.splitn(3, '_');
    let (pod, namespace, container) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Names { container: Some(escape(container.as_bytes())), ..Names::pod(namespace, pod) })
}

/// The name of a directory in /var/log/pods: NAMESPACE_POD_UID.
fn pod_logs(root: &Path, uid: &str) -> Option<Names> {
    let end = format!("_{uid}");
    let name = names_in(&root.join("var/log/pods")).find(|name| name.ends_with(&end))?;
    let (namespace, pod) = name.strip_suffix(&end)?.split_once('_')?;
    Some(Names::pod(namespace, pod))
}

fn names_in(folder: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// Reads a file of JSON; None if there is none or it is not what is expected.
fn json<T: for<'a> Deserialize<'a>>(path: &Path) -> Option<T> {
    /// Longest file that is read.
    const MOST: u64 = 8 << 20;
    let mut text = Vec::new();
    File::open(path).ok()?.take(MOST).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// The configuration of an OCI bundle (runtime-spec, config.md).
#[derive(Deserialize)]
struct Bundle {
    #[serde(default)]
    annotations: HashMap<String, String>,
}

/// The annotations of the bundle that containerd (pkg/cri/annotations) or CRI-O
/// (pkg/annotations) has made.
fn bundle(root: &Path, id: &str) -> Option<Names> {
    let tasks = root.join("run/containerd/io.containerd.runtime.v2.task");
    let of_containerd = names_in(&tasks).map(|namespace| tasks.join(namespace).join(id));
    let storages = ["run/containers/storage", "var/lib/containers/storage"];
    let of_storage = storages
        .map(|storage| root.join(storage).join("overlay-containers").join(id).join("userdata"));
    let bundles = of_containerd.chain(of_storage);
    let found: Bundle = bundles.map(|bundle| bundle.join("config.json")).find_map(|p| json(&p))?;
    let annotation = |keys: [&str; 2]| {
        let text = keys.iter().find_map(|key| found.annotations.get(*key))?;
        (!text.is_empty()).then(|| escape(text.as_bytes()))
    };
    Some(Names {
        container: annotation(["io.kubernetes.cri.container-name", "io.kubernetes.container.name"]),
        pod: annotation(["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"]),
        namespace: annotation([
            "io.kubernetes.cri.sandbox-namespace",
            "io.kubernetes.pod.namespace",
        ]),
    })
}

/// What docker keeps of a container.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Docker {
    name: String,
    #[serde(default)]
    config: DockerConfig,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerConfig {
    #[serde(default)]
    labels: HashMap<String, String>,
}

fn docker(root: &Path, id: &str) -> Option<Names> {
    let path = root.join("var/lib/docker/containers").join(id).join("config.v2.json");
    let Docker { name, config } = json(&path)?;
    let label = |key: &str| config.labels.get(key).map(|text| escape(text.as_bytes()));
    let own = || escape(name.strip_prefix('/').unwrap_or(&name).as_bytes());
    Some(Names {
        container: label("io.kubernetes.container.name").or_else(|| Some(own())),
        pod: label("io.kubernetes.pod.name"),
        namespace: label("io.kubernetes.pod.namespace"),
    })
}

/// An entry of the list of containers in containers/storage.
#[derive(Deserialize)]
struct Stored {
    id: String,
    #[serde(default)]
    names: Vec<String>,
}

fn podman(root: &Path, id: &str) -> Option<Names> {
    let storages = ["var/lib/containers/storage", "run/containers/storage"];
    let lists = storages.iter().flat_map(|storage| {
        let folder = root.join(storage).join("overlay-containers");
        ["containers.json", "volatile-containers.json"].map(|list| folder.join(list))
    });
    let mut entries = lists.filter_map(|list| json::<Vec<Stored>>(&list)).flatten();
    let name = entries.find(|stored| stored.id == id)?.names.into_iter().next()?;
    Some(Names { container: Some(escape(name.as_bytes())), ..Names::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f4a9c0b1d2e3f4a9c0b1d2e3f4a9c0b1d2e3f4a9c0b1d2e3f4a9c0b1d2e3f4a";
    const UID: &str = "8dbc7f7c-cd3e-4c3f-9a51-0d4d8a7e9b10";

    /// A host with these files.
    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Containers) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path.replace("ID", ID).replace("UUU", UID));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text.replace("ID", ID)).unwrap();
        }
        let containers = Containers::below(root.path());
        (root, containers)
    }

    fn names(containers: &mut Containers, cgroup: &str) -> [Option<String>; 3] {
        let Container { name, pod, namespace, .. } =
            containers.in_cgroup(&cgroup.replace("ID", ID)).unwrap();
        [namespace, pod, name]
    }

    fn some(names: [&str; 3]) -> [Option<String>; 3] {
        names.map(|name| (!name.is_empty()).then(|| name.to_owned()))
    }

    #[test]
    fn every_runtime_and_driver_has_the_id_in_the_cgroup() {
        let uid = UID.replace('-', "_");
        let (_root, mut containers) = host(&[]);
        for (path, has_uid) in [
            ("0::/system.slice/docker-ID.scope", false),
            ("0::/machine.slice/libpod-ID.scope/container", false),
            (
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUUU.slice/cri-containerd-ID.scope",
                true,
            ),
            ("0::/kubepods.slice/kubepods-podUUU.slice/crio-ID.scope", true),
            ("0::/../../kubepods-podUUU.slice/cri-containerd-ID.scope", true),
            ("0::/kubepods/besteffort/podUUU/ID", true),
            (
                "0::/system.slice/containerd.service/kubepods-burstable-podUUU.slice:cri-containerd:ID",
                true,
            ),
            ("12:memory:/docker/ID\n1:name=systemd:/docker/ID\n0::/", false),
            ("4:cpu:/kubepods/podUUU/ID\n3:pids:/kubepods/podUUU/ID", true),
        ] {
            let text = path.replace("UUU", &uid).replace("ID", ID);
            let container = containers.in_cgroup(&text).unwrap();
            assert_eq!(container.short_name(), Some("3f4a9c0b1d2e"), "{path}");
            assert_eq!(container.shown(), "container 3f4a9c0b1d2e");
            assert!(!container.cgroup.starts_with("/.."), "{path}");
            let found = container.cgroup.split('/').find_map(uid_in);
            assert_eq!(found.as_deref(), has_uid.then_some(UID), "{path}");
        }
    }

    #[test]
    fn a_process_outside_of_containers_has_its_cgroup() {
        let (_root, mut containers) = host(&[]);
        for (text, cgroup) in [
            (
                "0::/system.slice/postgresql@16-main.service",
                "/system.slice/postgresql@16-main.service",
            ),
            ("0::/", "/"),
            ("0::/../../user.slice", "/user.slice"),
            ("2:pids:/a\n1:name=systemd:/user.slice/u\n0::/", "/user.slice/u"),
            ("0::/machine.slice/libpod-conmon-ID.scope", "/machine.slice/libpod-conmon-ID.scope"),
        ] {
            let container = containers.in_cgroup(&text.replace("ID", ID)).unwrap();
            assert_eq!(container.shown(), cgroup.replace("ID", ID));
            assert_eq!(container.short_name(), None);
        }
        assert_eq!(containers.in_cgroup(""), None);
        let lxc = containers.in_cgroup("0::/lxc.payload.web/system.slice").unwrap();
        assert_eq!(lxc.shown(), "container web");
        assert_eq!(uid_in("kubepods-pod0123456789abcdef0123456789abcdef.slice").unwrap().len(), 32);
        for none in ["kubepods.slice", "kubepods-burstable.slice", "podman", "pod123"] {
            assert_eq!(uid_in(none), None, "{none}");
        }
    }

    #[test]
    fn the_kubelet_s_logs_name_pods_and_containers() {
        let cgroup = format!("0::/kubepods.slice/kubepods-pod{UID}.slice/cri-containerd-ID.scope");
        let (_root, mut containers) = host(&[
            ("var/log/containers/db-0_prod_postgres-ID.log", ""),
            ("var/log/containers/db-0_prod_backup-00.log", ""),
        ]);
        assert_eq!(names(&mut containers, &cgroup), some(["prod", "db-0", "postgres"]));
        let (_root, mut containers) = host(&[("var/log/pods/prod_db-0_UUU/postgres/0.log", "")]);
        let container = containers.in_cgroup(&cgroup.replace("ID", ID)).unwrap();
        assert_eq!(container.pod_shown().as_deref(), Some("prod/db-0"));
        assert_eq!(container.shown(), "prod/db-0/3f4a9c0b1d2e");
    }

    #[test]
    fn runtimes_name_containers_in_their_own_files() {
        let kubernetes = "0::/kubepods/podX/ID";
        let (_root, mut containers) = host(&[(
            "run/containerd/io.containerd.runtime.v2.task/k8s.io/ID/config.json",
            r#"{"ociVersion":"1.1.0","annotations":{"io.kubernetes.cri.container-type":"container",
                "io.kubernetes.cri.container-name":"postgres","io.kubernetes.cri.sandbox-name":"db-0",
                "io.kubernetes.cri.sandbox-namespace":"prod"}}"#,
        )]);
        assert_eq!(names(&mut containers, kubernetes), some(["prod", "db-0", "postgres"]));
        let (_root, mut containers) = host(&[(
            "run/containers/storage/overlay-containers/ID/userdata/config.json",
            r#"{"annotations":{"io.kubernetes.container.name":"postgres",
                "io.kubernetes.pod.name":"db-0","io.kubernetes.pod.namespace":"prod"}}"#,
        )]);
        assert_eq!(names(&mut containers, kubernetes), some(["prod", "db-0", "postgres"]));
        let (_root, mut containers) = host(&[(
            "var/lib/docker/containers/ID/config.v2.json",
            r#"{"Name":"/web","Config":{"Labels":{"maintainer":"x"}},"Driver":"overlay2"}"#,
        )]);
        assert_eq!(names(&mut containers, "0::/docker/ID"), some(["", "", "web"]));
        let (_root, mut containers) = host(&[
            ("run/containers/storage/overlay-containers/ID/userdata/config.json", "{}"),
            (
                "var/lib/containers/storage/overlay-containers/containers.json",
                r#"[{"id":"00","names":["x"]},{"id":"ID","names":["web"],"layer":"1"}]"#,
            ),
        ]);
        assert_eq!(names(&mut containers, "0::/libpod-ID"), some(["", "", "web"]));
    }

    #[test]
    fn broken_files_name_nothing_and_a_name_may_come_later() {
        let (root, mut containers) =
            host(&[("var/lib/docker/containers/ID/config.v2.json", "{\"Name\":")]);
        let mut container = containers.in_cgroup(&format!("0::/docker/{ID}")).unwrap();
        assert_eq!(container.name, None);
        let path = format!("var/lib/docker/containers/{ID}/config.v2.json");
        fs::write(root.path().join(path), r#"{"Name":"/web\u001b[2J"}"#).unwrap();
        containers.complete(&mut container);
        assert_eq!(container.name, None, "not looked for again at once");
        containers.known.clear();
        containers.complete(&mut container);
        assert_eq!(container.name.as_deref(), Some("web\\x1b[2J"));
    }
}
