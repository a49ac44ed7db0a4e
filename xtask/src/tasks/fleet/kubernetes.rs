//! Validates packaging/kubernetes against the schemas of Kubernetes.
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::host::{
    cmd::output,
    paths,
    pypi::{self, Package},
    step_runner::Outcome,
};

const VALIDATOR: Package = Package { name: "kubernetes-validate", version: "1.37.0" };
const FILES: &[&str] = &["namespace.yaml", "daemonset.yaml"];
/// The oldest version that knows all fields, and the newest one.
const VERSIONS: &[&str] = &["1.30", "1.37"];

/// Reads each document of a file and validates it strictly: an unknown field is an error.
const SCRIPT: &str = "\
import kubernetes_validate, sys, yaml
version, *files = sys.argv[1:]
kinds = []
for file in files:
    for document in yaml.safe_load_all(open(file)):
        kubernetes_validate.validate(document, version, strict=True)
        kinds.append(document['kind'])
print(' '.join(kinds))
";

pub(super) fn validate() -> Result<Outcome> {
    let python = pypi::python(&pypi::environment(VALIDATOR)?);
    let folder = paths::workspace()?.join("packaging/kubernetes");
    for version in VERSIONS {
        let mut validator = Command::new(&python);
        validator.args(["-c", SCRIPT, version]).args(FILES).current_dir(&folder);
        let kinds = output(&mut validator)
            .with_context(|| format!("a manifest is not valid for Kubernetes {version}"))?;
        ensure!(
            kinds.trim() == "Namespace ServiceAccount DaemonSet",
            "the manifests have other objects: {kinds}"
        );
    }
    // A field that no version has must not pass.
    let wrong = "import kubernetes_validate as k\n\
        k.validate({'apiVersion': 'v1', 'kind': 'Namespace', 'metadata': {'nam': 'x'}}, '1.30', \
        strict=True)";
    let mut validator = Command::new(&python);
    ensure!(output(validator.args(["-c", wrong])).is_err(), "the validator accepts anything");
    Ok(Outcome::Passed)
}
