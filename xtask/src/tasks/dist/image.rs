//! The OCI image: the static program alone, for all architectures, as an OCI image layout in a tar
//! archive (image-spec 1.1, image-layout.md). `skopeo copy oci-archive:…`, `podman load` and
//! `ctr image import` read it.
use std::{path::Path, path::PathBuf, str::FromStr as _};

use anyhow::{Context, Result};
use oci_spec::image::{
    ANNOTATION_REF_NAME, ConfigBuilder, Descriptor, DescriptorBuilder, ImageConfigurationBuilder,
    ImageIndexBuilder, ImageManifestBuilder, MediaType, OciLayoutBuilder, PlatformBuilder,
    RootFsBuilder, SCHEMA_VERSION, Sha256Digest,
};
use serde::Serialize;

use super::{Arch, VERSION, files, read, sha256, tarball::Tar, write};

/// The program's place in the image.
const PROGRAM: &str = "usr/bin/dio-trace";
const LABELS: &[(&str, &str)] = &[
    ("org.opencontainers.image.title", "dio-trace"),
    ("org.opencontainers.image.licenses", env!("CARGO_PKG_LICENSE")),
    ("org.opencontainers.image.source", env!("CARGO_PKG_REPOSITORY")),
    ("org.opencontainers.image.version", VERSION),
];

/// Writes `dio-trace-VERSION-oci.tar`.
pub(super) fn make(programs: &[(&Arch, PathBuf)], into: &Path, epoch: u64) -> Result<()> {
    let mut layout = Layout { tar: Tar::new(epoch) };
    layout.tar.folder("blobs/", 0o755)?;
    layout.tar.folder("blobs/sha256/", 0o755)?;
    let mut manifests = Vec::new();
    for (arch, program) in programs {
        manifests.push(layout.image(arch, program, epoch)?);
    }
    let index = ImageIndexBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageIndex)
        .manifests(manifests)
        .build()?;
    // One name for all architectures: an index of the index.
    let mut named = layout.blob(MediaType::ImageIndex, &json(&index)?)?;
    named.set_annotations(Some(
        [(ANNOTATION_REF_NAME.to_owned(), VERSION.to_owned())].into_iter().collect(),
    ));
    let top = ImageIndexBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageIndex)
        .manifests(vec![named])
        .build()?;
    let version = OciLayoutBuilder::default().image_layout_version("1.0.0".to_owned()).build()?;
    layout.tar.file("index.json", 0o644, &json(&top)?)?;
    layout.tar.file("oci-layout", 0o644, &json(&version)?)?;
    write(&into.join(format!("dio-trace-{VERSION}-oci.tar")), &layout.tar.end()?)
}

struct Layout {
    tar: Tar,
}

impl Layout {
    /// Adds a blob, and returns what names it.
    fn blob(&mut self, kind: MediaType, bytes: &[u8]) -> Result<Descriptor> {
        let hash = sha256(bytes);
        self.tar.file(&format!("blobs/sha256/{hash}"), 0o644, bytes)?;
        DescriptorBuilder::default()
            .media_type(kind)
            .size(bytes.len() as u64)
            .digest(Sha256Digest::from_str(&hash)?)
            .build()
            .context("cannot describe a blob")
    }

    /// Adds the image for one architecture, and returns what names its manifest.
    fn image(&mut self, arch: &Arch, program: &Path, epoch: u64) -> Result<Descriptor> {
        let mut layer = Tar::new(epoch);
        layer.folder("usr/", 0o755)?;
        layer.folder("usr/bin/", 0o755)?;
        layer.file(PROGRAM, 0o755, &read(program)?)?;
        // `check` and `record` make their temporary files there.
        layer.folder("tmp/", 0o1777)?;
        let layer = layer.end()?;
        let uncompressed = format!("sha256:{}", sha256(&layer));
        let layer = self.blob(MediaType::ImageLayerGzip, &files::gzip(&layer)?)?;
        let labels = LABELS.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let config = ConfigBuilder::default()
            .entrypoint(vec![format!("/{PROGRAM}")])
            .env(vec!["PATH=/usr/bin".to_owned()])
            .labels(labels.collect::<std::collections::HashMap<_, _>>())
            .build()?;
        let files = RootFsBuilder::default()
            .typ("layers".to_owned())
            .diff_ids(vec![uncompressed])
            .build()?;
        let config = ImageConfigurationBuilder::default()
            .created(created(epoch)?)
            .architecture(arch.oci)
            .os("linux")
            .config(config)
            .rootfs(files)
            .build()?;
        let config = self.blob(MediaType::ImageConfig, &json(&config)?)?;
        let manifest = ImageManifestBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageManifest)
            .config(config)
            .layers(vec![layer])
            .build()?;
        let mut named = self.blob(MediaType::ImageManifest, &json(&manifest)?)?;
        named.set_platform(Some(
            PlatformBuilder::default().architecture(arch.oci).os("linux").build()?,
        ));
        Ok(named)
    }
}

/// The time of the image, as RFC 3339 has it.
fn created(epoch: u64) -> Result<String> {
    Ok(jiff::Timestamp::from_second(i64::try_from(epoch)?)?.to_string())
}

/// As JSON with its keys in order, for labels are kept in a hash map.
fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(&serde_json::to_value(value)?)?)
}
