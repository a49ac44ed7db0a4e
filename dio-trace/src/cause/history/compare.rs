//! What differs between two kernels: the one that made the requests, and another.

use dio_trace_common::abi::Op;
use serde::{Serialize, Serializer};

use crate::cause::history::{
    change::{Change, Effect, Holds, Turn},
    table::TABLES,
    version::{KernelVersion, NotAVersion},
};

/// Two kernels to compare.
#[derive(Clone, Debug)]
pub struct Kernels {
    /// The name of the kernel that made the requests, as `uname -r` prints it.
    pub name: String,
    pub here: KernelVersion,
    /// The kernel that it is compared with.
    pub there: KernelVersion,
}

impl Kernels {
    /// `upstream` is the version of the kernel `name`, where it is known apart from the name.
    ///
    /// # Errors
    /// If the name is not that of a kernel.
    pub fn new(
        name: &str,
        upstream: Option<&str>,
        there: KernelVersion,
    ) -> Result<Self, NotAVersion> {
        let known = upstream.and_then(|text| text.parse().ok());
        let here = known.map_or_else(|| name.parse(), Ok)?;
        Ok(Self { name: name.to_owned(), here, there })
    }

    /// The differences between the two kernels that `concerns` finds to matter.
    pub fn compare(&self, concerns: impl Fn(&Difference) -> bool) -> Comparison {
        let all = TABLES.iter().copied().flatten().filter_map(|change| self.difference(change));
        Comparison { kernels: self.clone(), differences: all.filter(concerns).collect() }
    }

    /// `None` if both kernels behave alike, or only what is told of a file differs.
    fn difference(&self, change: &'static Change) -> Option<Difference> {
        let (here, there) = (change.applies(self.here), change.applies(self.there));
        let later = self.there > self.here;
        (here != there && change.effect != Effect::Reported).then_some(Difference {
            change,
            here,
            there,
            later,
            kernel: self.there,
        })
    }
}

/// The differences between two kernels. In JSON it is the array of the differences.
#[derive(Clone, Debug)]
pub struct Comparison {
    pub kernels: Kernels,
    pub differences: Vec<Difference>,
}

impl Serialize for Comparison {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.differences.iter().map(Row::of))
    }
}

#[cfg(test)]
impl schemars::JsonSchema for Comparison {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "KernelChanges".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Vec::<Row>::json_schema(generator)
    }
}

/// A behaviour that one of two kernels has and the other has not, as far as is known.
#[derive(Clone, Copy, Debug)]
pub struct Difference {
    pub change: &'static Change,
    /// Whether the kernel that made the requests has it.
    pub here: Holds,
    /// Whether the other kernel has it.
    pub there: Holds,
    /// The other kernel is the later one.
    later: bool,
    /// The other kernel.
    kernel: KernelVersion,
}

impl Difference {
    /// Whether it concerns a cause that was found on a file system. Which file system is below an
    /// overlay is not asked here.
    #[must_use]
    pub fn concerns(&self, cause: &str, fs: &str) -> bool {
        self.change.causes.contains(&cause) && (self.change.is_on(fs) || fs == "overlay")
    }

    /// Whether the other kernel begins to behave so, or may, for such requests on a file system
    /// that the change names.
    #[must_use]
    pub fn begins(&self, fs: &str, op: Op) -> bool {
        let begins = self.here != Holds::Yes && self.there != Holds::No;
        begins && self.change.on.contains(&fs) && self.change.is_of(op)
    }

    /// One sentence: "on 7.2: … (since 6.15, until 7.3)".
    #[must_use]
    pub fn text(&self) -> String {
        let Change { fact, note, .. } = self.change;
        let note = if note.is_empty() { String::new() } else { format!("; {note}") };
        let behaviour = format!("{fact} ({}{note})", self.change.range());
        let kernel = self.kernel;
        match (self.here, self.there) {
            (_, Holds::NotKnown) => format!("not established for {kernel}: {behaviour}"),
            (Holds::NotKnown, Holds::Yes) => {
                format!("on {kernel}, here not established: {behaviour}")
            }
            (Holds::NotKnown, Holds::No) => {
                format!("not on {kernel}, here not established: {behaviour}")
            }
            (Holds::No, _) => format!("on {kernel}: {behaviour}"),
            (Holds::Yes, _) if self.later => format!("no longer on {kernel}: {behaviour}"),
            (Holds::Yes, _) => format!("not yet on {kernel}: {behaviour}"),
        }
    }
}

/// The JSON of a difference (docs/json.md).
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "KernelChange"))]
struct Row {
    kernel: String,
    change: &'static str,
    causes: &'static [&'static str],
    here: Option<bool>,
    there: Option<bool>,
    fact: &'static str,
    since: Option<String>,
    until: Option<String>,
    text: String,
}

impl Row {
    fn of(difference: &Difference) -> Self {
        let Difference { change, here, there, kernel, .. } = difference;
        Self {
            kernel: kernel.to_string(),
            change: change.id,
            causes: change.causes,
            here: here.known(),
            there: there.known(),
            fact: change.fact,
            since: change.since.as_ref().map(Turn::releases),
            until: change.until.as_ref().map(Turn::releases),
            text: difference.text(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(here: &str, there: &str, cause: &str, fs: &str) -> Vec<String> {
        let kernels = Kernels::new(here, None, there.parse().unwrap()).unwrap();
        let compared = kernels.compare(|difference| difference.concerns(cause, fs));
        compared.differences.iter().map(Difference::text).collect()
    }

    #[test]
    fn a_cause_ends_on_a_later_kernel() {
        let texts = compare("6.12.117+deb12-amd64", "7.3", "btrfs-checksums", "btrfs");
        assert_eq!(
            texts[0],
            "no longer on 7.3: btrfs writes of files with checksums go through the page cache \
             (since 6.15 and 6.12.77, until 7.3)"
        );
        assert!(texts[1].starts_with("no longer on 7.3: all btrfs writes"), "{texts:?}");
        assert_eq!(texts.len(), 2);
    }

    #[test]
    fn a_cause_has_not_begun_on_an_earlier_kernel() {
        let texts = compare("6.12.117", "6.12", "btrfs-checksums", "btrfs");
        assert!(texts.iter().all(|text| text.starts_with("not yet on 6.12: ")), "{texts:?}");
        let texts = compare("6.14", "7.2", "btrfs-checksums", "btrfs");
        assert!(texts.iter().all(|text| text.starts_with("on 7.2: ")), "{texts:?}");
        assert_eq!(texts.len(), 2);
        assert!(compare("7.0", "7.2", "btrfs-checksums", "btrfs").is_empty());
    }

    #[test]
    fn what_is_not_established_is_said() {
        let texts = compare("7.2", "7.2.13", "btrfs-checksums", "btrfs");
        assert!(texts[0].starts_with("not established for 7.2.13: "), "{texts:?}");
        let texts = compare("6.12.0-5-amd64", "6.15", "btrfs-checksums", "btrfs");
        assert!(texts[0].starts_with("on 6.15, here not established: "), "{texts:?}");
    }

    #[test]
    fn an_upstream_version_counts_before_a_name_that_hides_it() {
        let there = "7.3".parse().unwrap();
        let kernels = Kernels::new("6.1.0-56-amd64", Some("6.1.192"), there).unwrap();
        assert_eq!(kernels.here.to_string(), "6.1.192");
        let kernels = Kernels::new("6.1.0-56-amd64", Some("?"), there).unwrap();
        assert_eq!(kernels.here.to_string(), "6.1.y");
        assert_eq!(Kernels::new("linux", None, there).unwrap_err(), NotAVersion);
    }

    #[test]
    fn only_named_file_systems_and_operations_begin() {
        let kernels = Kernels::new("6.14", None, "7.2".parse().unwrap()).unwrap();
        let begin = |fs, op| {
            let compared = kernels.compare(|difference| difference.begins(fs, op));
            compared.differences.iter().map(|each| each.change.id).collect::<Vec<_>>()
        };
        assert!(begin("btrfs", Op::Write).contains(&"btrfs-copies-cached"));
        assert!(!begin("btrfs", Op::Read).contains(&"btrfs-copies-cached"));
        assert!(!begin("ext4", Op::Write).contains(&"btrfs-copies-cached"));
        assert!(begin("vfat", Op::Read).is_empty());
    }

    #[test]
    fn files_on_an_overlay_keep_their_causes() {
        assert_eq!(compare("6.12.117", "7.3", "btrfs-checksums", "overlay").len(), 2);
        assert!(compare("6.12.117", "7.3", "btrfs-checksums", "ext4").is_empty());
    }
}
