//! A private apt root in the cache, to download packages of several Debian releases with apt's own
//! signature and hash checks. It needs no root privilege and does not touch the system's sources.
use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};

use crate::host::{
    cmd::{mask_hosts, output, say},
    packages, paths,
};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Suites on the main mirror. In this order they have kernel 6.1; 6.12; 6.18, 7.3 and rust-src.
const MAIN: &[&str] = &["bookworm", "bookworm-backports", "trixie-backports"];
/// Suites on the security mirror. In this order they have kernel 5.10; 6.1 and 6.12.
const SECURITY: &[&str] = &["bullseye-security", "bookworm-security"];
/// Debian's name of the architecture of the kernels that VMs boot.
const AMD64: &str = "amd64";
/// Package lists older than this are fetched again.
const STALE: Duration = Duration::from_secs(6 * 3600);

/// The private apt root, with current package lists.
pub(crate) struct Apt {
    config: PathBuf,
    _lock: fs::File,
}

impl Apt {
    /// The root for amd64.
    pub(crate) fn open() -> Result<Self> {
        Self::open_for(AMD64)
    }

    /// The root for an architecture, by Debian's name: amd64, arm64.
    pub(crate) fn open_for(architecture: &str) -> Result<Self> {
        packages::ensure(&[packages::APT])?;
        let name = match architecture {
            AMD64 => "apt".to_owned(),
            other => format!("apt-{other}"),
        };
        let lock = paths::lock(&name)?;
        let root = paths::cache()?.join(name);
        let apt = Self { config: root.join("apt.conf"), _lock: lock };
        let stamp = root.join("updated");
        let fresh = fs::metadata(&stamp)
            .and_then(|meta| meta.modified())
            .is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age < STALE));
        if !fresh {
            lay_out(&root, architecture)?;
            say("fetching Debian's package lists (a private copy, the system's apt is untouched)");
            // Without Error-Mode=any, `apt-get update` returns 0 even if a mirror does not answer.
            output(apt.command("apt-get").args([
                "-q",
                "-o",
                "APT::Update::Error-Mode=any",
                "update",
            ]))
            .context("cannot fetch Debian's package lists")?;
            fs::write(&stamp, "").with_context(|| format!("cannot write {}", stamp.display()))?;
        }
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.config).env("LC_ALL", "C");
        command
    }

    /// The names of all packages that begin with `prefix`.
    pub(crate) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let text = output(self.command("apt-cache").args(["pkgnames", prefix]))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// The available versions of a package, newest first.
    pub(crate) fn versions(&self, package: &str) -> Result<Vec<String>> {
        let text = output(self.command("apt-cache").args(["madison", package]))?;
        Ok(text
            .lines()
            .filter_map(|line| line.split('|').nth(1))
            .map(|v| v.trim().to_owned())
            .collect())
    }

    /// The names of the packages that `package` depends on directly.
    pub(crate) fn depends(&self, package: &str) -> Result<Vec<String>> {
        let text = output(self.command("apt-cache").args([
            "depends",
            "--no-recommends",
            "--no-suggests",
            "--no-conflicts",
            "--no-breaks",
            "--no-replaces",
            "--no-enhances",
            package,
        ]))?;
        Ok(text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .map(|name| name.trim().to_owned())
            .collect())
    }

    /// Downloads a package (`name` or `name=version`) into `folder`; apt checks its hash against
    /// the signed lists.
    pub(crate) fn download(&self, package: &str, folder: &Path) -> Result<PathBuf> {
        let before = debs(folder)?;
        say(format!("downloading {package}"));
        output(self.command("apt-get").args(["-q", "download", package]).current_dir(folder))
            .map_err(|error| anyhow::anyhow!("{}", mask_hosts(&format!("{error:#}"))))
            .with_context(|| format!("cannot download {package}"))?;
        debs(folder)?
            .difference(&before)
            .next()
            .cloned()
            .with_context(|| format!("apt-get download {package} left no package behind"))
    }
}

fn debs(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    Ok(entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|ext| ext == "deb"))
        .collect())
}

/// Unpacks a package, or only the files below `inside` (a path that begins with `./`).
pub(crate) fn unpack(deb: &Path, into: &Path, inside: Option<&str>) -> Result<()> {
    fs::create_dir_all(into).with_context(|| format!("cannot make {}", into.display()))?;
    let mut dpkg = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(deb)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .context("cannot start dpkg-deb")?;
    let pipe = dpkg.stdout.take().context("dpkg-deb has no output")?;
    let mut tar = Command::new("tar");
    tar.arg("-x").arg("--no-same-owner").arg("-C").arg(into).args(inside).stdin(pipe);
    let tar = tar.status().context("cannot start tar")?;
    let dpkg = dpkg.wait().context("cannot wait for dpkg-deb")?;
    if !tar.success() || !dpkg.success() {
        bail!("cannot unpack {} into {}", deb.display(), into.display());
    }
    Ok(())
}

/// Writes the configuration and the sources of the private root.
fn lay_out(root: &Path, architecture: &str) -> Result<()> {
    if !Path::new(KEYRING).exists() {
        bail!(
            "Debian's keyring {KEYRING} is missing: install the package debian-archive-keyring, \
             or bring your own kernel with --kernel VMLINUZ --modules DIR"
        );
    }
    let folders = [
        "etc/apt.conf.d",
        "etc/preferences.d",
        "state/lists/partial",
        "cache/archives/partial",
        "log",
    ];
    for folder in folders {
        let folder = root.join(folder);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let write = |name: &str, text: &str| {
        let path = root.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    write("status", "")?;
    let (main, security) = mirrors()?;
    let mut sources = String::new();
    let mut add = |uri: &str, suites: &[&str]| {
        for suite in suites {
            sources +=
                &format!("deb [signed-by={KEYRING} arch={architecture}] {uri} {suite} main\n");
        }
    };
    add(&main, MAIN);
    match &security {
        Some(uri) => add(uri, SECURITY),
        None => say(
            "this machine's apt has no security mirror, so kernel 5.10 is not available, and 6.1 \
             and 6.12 may be older (set DIO_TRACE_DEBIAN_SECURITY to the address of a mirror)",
        ),
    }
    write("etc/sources.list", &sources)?;
    write(
        "apt.conf",
        &format!("{}{}", config(&root.display().to_string(), architecture), carried_over()?),
    )
}

fn config(root: &str, architecture: &str) -> String {
    format!(
        r#"Dir::Etc "{root}/etc/";
Dir::Etc::trusted "/dev/null";
Dir::Etc::trustedparts "/dev/null";
Dir::State "{root}/state/";
Dir::State::lists "{root}/state/lists/";
Dir::State::status "{root}/status";
Dir::Cache "{root}/cache/";
Dir::Log "{root}/log/";
APT::Architecture "{architecture}";
APT::Architectures "{architecture}";
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::Retries "3";
"#
    )
}

/// The system's apt settings for reaching its mirrors: proxies, TLS, credentials.
fn carried_over() -> Result<String> {
    let dump = output(Command::new("apt-config").arg("dump"))?;
    let mut out: String = dump
        .lines()
        .filter(|line| {
            ["Acquire::http", "Acquire::https", "Acquire::ForceIPv", "Acquire::Proxy"]
                .iter()
                .any(|prefix| line.starts_with(prefix))
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let shell = output(Command::new("apt-config").args([
        "shell",
        "NETRC",
        "Dir::Etc::netrc/f",
        "PARTS",
        "Dir::Etc::netrcparts/d",
    ]))?;
    for line in shell.lines() {
        let Some((name, value)) = line.split_once('=') else { continue };
        let value = value.trim_matches('\'');
        let key = if name == "NETRC" { "netrc" } else { "netrcparts" };
        out += &format!("Dir::Etc::{key} \"{value}\";\n");
    }
    Ok(out)
}

/// The address of the main mirror that this machine uses.
pub(crate) fn main_mirror() -> Result<String> {
    Ok(mirrors()?.0)
}

/// The addresses of the main mirror and, if there is one, of the security mirror that this machine
/// uses. `DIO_TRACE_DEBIAN` and `DIO_TRACE_DEBIAN_SECURITY` take precedence.
fn mirrors() -> Result<(String, Option<String>)> {
    // Without --no-release-info, indextargets prints nothing until `apt-get update` has run once.
    let text = output(Command::new("apt-get").args([
        "indextargets",
        "--no-release-info",
        "--format",
        "$(REPO_URI) $(RELEASE)",
    ]))?;
    let (mut main, mut security) =
        (env::var("DIO_TRACE_DEBIAN").ok(), env::var("DIO_TRACE_DEBIAN_SECURITY").ok());
    for line in text.lines() {
        let Some((uri, release)) = line.split_once(' ') else { continue };
        let path = uri.trim_end_matches('/');
        if release.ends_with("-security") && path.ends_with("security") {
            security.get_or_insert_with(|| uri.to_owned());
        } else if path.ends_with("debian") {
            main.get_or_insert_with(|| uri.to_owned());
        }
    }
    let Some(main) = main else {
        bail!(
            "this machine's apt sources name no Debian mirror. Set DIO_TRACE_DEBIAN to the address \
             of a mirror, or bring your own kernel with --kernel VMLINUZ --modules DIR"
        );
    };
    Ok((main, security))
}
