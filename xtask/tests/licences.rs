//! Checks the policy of deny.toml: each package comes from crates.io or from this workspace and has
//! an allowed licence, and each allowed licence is needed.
//!
//! cargo-deny reads the same file. This test checks its most important part in every `cargo test`.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde::Deserialize;
use spdx::{Expression, Licensee, ParseMode};

/// The part of deny.toml that this test checks.
#[derive(Deserialize)]
struct Policy {
    graph: Graph,
    licenses: Licences,
}

#[derive(Deserialize)]
struct Graph {
    targets: Vec<String>,
    exclude: Vec<String>,
}

#[derive(Deserialize)]
struct Licences {
    allow: Vec<String>,
}

/// The part of the output of `cargo metadata` that this test needs.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: BTreeSet<String>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    /// `None` for a package in a local path.
    source: Option<String>,
    dependencies: Vec<Dependency>,
}

/// A dependency as Cargo.toml declares it.
#[derive(Deserialize)]
struct Dependency {
    source: Option<String>,
    /// `None` for crates.io.
    registry: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Link>,
}

#[derive(Deserialize)]
struct Link {
    pkg: String,
}

impl Package {
    fn title(&self) -> String {
        format!("{} {}", self.name, self.version)
    }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn policy() -> Policy {
    let path = workspace().join("deny.toml");
    toml::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Runs cargo and returns its stdout. `--offline` is not used, because a fresh checkout has not
/// downloaded the packages of the eBPF crate yet; `--locked` needs no network once all are there.
fn cargo(words: &[&str]) -> String {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo).args(words).current_dir(workspace()).output().unwrap();
    assert!(output.status.success(), "cargo: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn metadata(policy: &Policy) -> Metadata {
    let mut words = vec!["metadata", "--format-version", "1", "--locked"];
    for target in &policy.graph.targets {
        words.extend(["--filter-platform", target]);
    }
    serde_json::from_str(&cargo(&words)).unwrap()
}

/// The packages that the workspace depends on, except excluded packages and those reached only
/// through them.
fn reached<'a>(metadata: &'a Metadata, exclude: &[String]) -> Vec<&'a Package> {
    let packages: BTreeMap<&str, &Package> =
        metadata.packages.iter().map(|package| (&*package.id, package)).collect();
    let nodes: BTreeMap<&str, &Node> =
        metadata.resolve.nodes.iter().map(|node| (&*node.id, node)).collect();
    let mut waiting: Vec<&str> = metadata.workspace_members.iter().map(String::as_str).collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if !exclude.contains(&packages[id].name) && seen.insert(id) {
            waiting.extend(nodes[id].deps.iter().map(|link| &*link.pkg));
        }
    }
    seen.into_iter().map(|id| packages[id]).collect()
}

fn parsed(allow: &[String]) -> Vec<Licensee> {
    allow.iter().map(|licence| Licensee::parse(licence).unwrap()).collect()
}

/// Whether the allowed licences satisfy an SPDX expression, which may have `/` for OR as in old
/// crates.
fn is_allowed(licence: &str, allow: &[Licensee]) -> bool {
    let mode = ParseMode { allow_slash_as_or_operator: true, ..ParseMode::STRICT };
    Expression::parse_mode(licence, mode).is_ok_and(|expression| {
        expression.evaluate(|wanted| allow.iter().any(|licensee| licensee.satisfies(wanted)))
    })
}

#[test]
fn every_licence_is_allowed_and_every_allowed_licence_is_needed() {
    let policy = policy();
    let metadata = metadata(&policy);
    let packages = reached(&metadata, &policy.graph.exclude);
    let rejected = |allow: &[Licensee]| -> Vec<String> {
        let wrong = |package: &&&Package| {
            !package.license.as_ref().is_some_and(|licence| is_allowed(licence, allow))
        };
        let shown = |package: &&Package| format!("{}: {:?}", package.title(), package.license);
        packages.iter().filter(wrong).map(shown).collect()
    };
    let allow = parsed(&policy.licenses.allow);
    assert_eq!(rejected(&allow), Vec::<String>::new(), "licences that deny.toml does not allow");
    for left_out in 0..allow.len() {
        let mut fewer = allow.clone();
        let licence = fewer.remove(left_out);
        assert!(!rejected(&fewer).is_empty(), "no package needs {licence}: remove it");
    }
}

#[test]
fn every_package_comes_from_crates_io_or_this_workspace() {
    let policy = policy();
    let metadata = metadata(&policy);
    // What Cargo calls crates.io: the source of declared dependencies that name no other registry.
    let declared = metadata.packages.iter().flat_map(|package| &package.dependencies);
    let crates_io: BTreeSet<&str> = declared
        .filter(|dependency| dependency.registry.is_none())
        .filter_map(|dependency| dependency.source.as_deref())
        .filter(|source| source.starts_with("registry+"))
        .collect();
    assert_eq!(crates_io.len(), 1, "{crates_io:?}");
    let is_known = |package: &&Package| match &package.source {
        Some(source) => crates_io.contains(&**source),
        None => metadata.workspace_members.contains(&package.id),
    };
    let unknown: Vec<String> =
        metadata.packages.iter().filter(|package| !is_known(package)).map(Package::title).collect();
    assert_eq!(unknown, Vec::<String>::new(), "sources that deny.toml does not allow");
}

/// Licences of excluded packages are not checked, so they must not be compiled.
#[test]
fn excluded_packages_are_not_compiled() {
    let policy = policy();
    for target in &policy.graph.targets {
        let tree = cargo(&["tree", "--workspace", "--locked", "--target", target, "--prefix=none"]);
        for name in &policy.graph.exclude {
            let compiled = tree.lines().any(|line| line.split(' ').next() == Some(name));
            assert!(!compiled, "{name} is compiled for {target}: deny.toml must not exclude it");
        }
    }
}

#[test]
fn licence_expressions_are_evaluated() {
    let allow = parsed(&["MIT".to_owned(), "Unicode-3.0".to_owned()]);
    for licence in [
        "MIT",
        "MIT OR Apache-2.0",
        "Apache-2.0/MIT",
        "(MIT OR Apache-2.0) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
    ] {
        assert!(is_allowed(licence, &allow), "{licence}");
    }
    for licence in ["GPL-2.0-only", "MIT AND ISC", "MIT WITH LLVM-exception", "no licence", ""] {
        assert!(!is_allowed(licence, &allow), "{licence}");
    }
}
