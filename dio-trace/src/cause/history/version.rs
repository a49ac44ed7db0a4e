//! [`KernelVersion`]: the version of a kernel, as far as its name says it.

use std::{error::Error, fmt, str::FromStr};

/// A series, such as 6.12: a mainline release and the stable releases after it (6.12.1, 6.12.2…).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    pub major: u16,
    pub minor: u16,
}

impl Series {
    pub(super) const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The version of a kernel: its series and its stable release. A release candidate counts as its
/// release, whose changes it has already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion {
    pub series: Series,
    /// The third number; 0 for the mainline release itself, which "6.12" means.
    ///
    /// `None` if a distribution keeps it out of the name: the kernel that Debian calls
    /// 6.1.0-56-amd64 is 6.1.192.
    pub sublevel: Option<u16>,
}

impl KernelVersion {
    /// A stable release.
    pub(super) const fn new(major: u16, minor: u16, sublevel: u16) -> Self {
        Self { series: Series::new(major, minor), sublevel: Some(sublevel) }
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sublevel {
            None => write!(f, "{}.y", self.series),
            Some(0) => write!(f, "{}", self.series),
            Some(sublevel) => write!(f, "{}.{sublevel}", self.series),
        }
    }
}

/// A text is not the version of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAVersion;

impl fmt::Display for NotAVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a kernel version looks like 7.2 or 6.12.77, or as `uname -r` prints it")
    }
}

impl Error for NotAVersion {}

/// Reads "7.2", "6.12.77" or `uname -r`, such as "6.12.117+deb12-amd64" and "7.3.0-rc2".
impl FromStr for KernelVersion {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        parse(text).ok_or(NotAVersion)
    }
}

fn parse(text: &str) -> Option<KernelVersion> {
    let (major, rest) = number(text)?;
    let (minor, rest) = number(rest.strip_prefix('.')?)?;
    let (sublevel, rest) = match rest.strip_prefix('.') {
        Some(rest) => number(rest)?,
        None => (0, rest),
    };
    if rest.starts_with(|next: char| !"-+~_.".contains(next)) {
        return None;
    }
    let series = Series { major, minor };
    let is_hidden = sublevel == 0 && text.starts_with(&format!("{series}.0-")) && numbered(rest);
    Some(KernelVersion { series, sublevel: (!is_hidden).then_some(sublevel) })
}

/// The number that a text begins with, and what follows it.
fn number(text: &str) -> Option<(u16, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    digits.parse().ok().map(|number| (number, rest))
}

/// Whether a distribution's own number follows: "-56-amd64" of Debian, "-45-generic" of Ubuntu,
/// "-427.el9" of Red Hat.
fn numbered(rest: &str) -> bool {
    rest.strip_prefix('-').is_some_and(|own| own.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(u16, u16, Option<u16>)> {
        let version: KernelVersion = text.parse().ok()?;
        Some((version.series.major, version.series.minor, version.sublevel))
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(read("7.2"), Some((7, 2, Some(0))));
        assert_eq!(read("6.12.77"), Some((6, 12, Some(77))));
        assert_eq!(read("6.12.117+deb12-amd64"), Some((6, 12, Some(117))));
        assert_eq!(read("6.11.4-301.fc41.x86_64"), Some((6, 11, Some(4))));
        assert_eq!(read("7.3.0-rc2+"), Some((7, 3, Some(0))));
        assert_eq!(read("7.3-rc2"), Some((7, 3, Some(0))));
    }

    #[test]
    fn a_distribution_s_number_hides_the_sublevel() {
        for name in ["6.1.0-56-amd64", "6.1.0-45-generic", "6.1.0-427.el9.x86_64"] {
            assert_eq!(read(name), Some((6, 1, None)), "{name}");
        }
    }

    #[test]
    fn other_texts_are_not_versions() {
        let texts = ["", "7", "7.", "7.x", "7.2.", "7.2.y", "v7.2", "7.2a", "7.2 8", "70000.1"];
        for text in texts {
            assert_eq!(read(text), None, "{text}");
        }
        assert!(NotAVersion.to_string().contains("6.12.77"));
    }

    #[test]
    fn versions_are_in_order() {
        let order = ["5.10", "5.10.262", "6.1", "6.12.77", "6.12.117", "7.0", "7.2.12", "7.3"];
        let versions: Vec<KernelVersion> = order.iter().map(|text| text.parse().unwrap()).collect();
        assert!(versions.is_sorted());
        let shown: Vec<String> = versions.iter().map(ToString::to_string).collect();
        assert_eq!(shown, order);
        let hidden: KernelVersion = "6.1.0-56-amd64".parse().unwrap();
        assert_eq!(hidden.to_string(), "6.1.y");
    }
}
