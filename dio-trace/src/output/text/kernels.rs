//! The history of the kernel as text: in the page of a cause, for `--kernel`, and docs/kernels.md.

use crate::cause::history::{COVERED, Change, Comparison, Difference, Kernels, Turn, changes_of};
#[cfg(test)]
use crate::cause::{RULES, history::Commit};

/// What the table knows of a cause, one text per behaviour; empty if the cause does not depend on
/// the kernel.
#[must_use]
pub(crate) fn history(cause: &str) -> Vec<String> {
    changes_of(cause).map(behaviour).collect()
}

/// One behaviour: its fact, its releases and commits, and what is not established.
fn behaviour(change: &Change) -> String {
    let turn = |word: &str, turn: &Turn| format!("{word} {}{}", turn.releases(), aside(turn));
    let since = change.since.as_ref().map(|begun| turn("since", begun));
    let until = change.until.as_ref().map(|ended| turn("until", ended));
    let range: Vec<String> = [since, until].into_iter().flatten().collect();
    let note = if change.note.is_empty() { String::new() } else { format!("; {}", change.note) };
    format!("{}: {}{note}", change.fact, range.join(", "))
}

/// The commits of a turn, and the stable series for which it is not established.
fn aside(turn: &Turn) -> String {
    let hashes: Vec<&str> = turn.commits.iter().map(|commit| commit.hash).collect();
    let open = turn.open();
    let open = (!open.is_empty()).then(|| format!("not established: {}", open.join(", ")));
    let commits = (!hashes.is_empty()).then(|| hashes.join(", "));
    let parts: Vec<String> = commits.into_iter().chain(open).collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join("; ")) }
}

/// What would differ on another kernel, one text per line.
#[must_use]
pub fn kernel_changes(compared: &Comparison) -> Vec<String> {
    let Kernels { name, here, there } = &compared.kernels;
    let mut lines = vec![match compared.differences.len() {
        0 => format!("{there} instead of {name}: no change is known that concerns this"),
        _ => format!("{there} instead of {name}:"),
    }];
    lines.extend(compared.differences.iter().map(Difference::text));
    if here.sublevel.is_none() {
        lines.push(format!(
            "the name {name} does not say which stable release this kernel is: backports to {here} \
             are not known here"
        ));
    }
    let (first, last) = COVERED;
    for version in [here, there] {
        if version.series < first || version.series > last {
            lines.push(format!(
                "{version} is not covered: the history of docs/kernels.md is that of {first} to \
                 {last}"
            ));
        }
    }
    lines
}

/// The text of docs/kernels.md; a test compares the file with it.
#[cfg(test)]
pub(crate) fn kernel_document() -> String {
    let mut out = HEAD.to_owned();
    for rule in RULES {
        // A behaviour of several causes stands with the first.
        for change in changes_of(rule.id).filter(|change| change.causes[0] == rule.id) {
            out += &row(change);
        }
    }
    out
}

#[cfg(test)]
const HEAD: &str = "\
# Kernels

What Linux does with O_DIRECT, by release: each behaviour behind a cause of docs/causes.md that
began or ended between 5.10 and 7.3, and the commits that did it. `dio-trace explain ID` prints the
lines of one cause. `dio-trace check PATH --kernel 7.2` and `dio-trace report FILE --kernel 7.2` say
what would change on another kernel.

Generated from dio-trace/src/cause/history/: `BLESS=1 cargo test -p dio-trace golden`
regenerates it.

- *Requests*: what becomes of the requests while the behaviour lasts. `page cache`, `direct`,
  `refused` (with an error at once), `fails late` (EIO), `open refused`; `side effect`: the verdict
  is the same, the page cache is not; `limits`: other alignment is asked for; `exists`: the file
  system, or this use of it, is there; `reported`: requests are the same, the
  kernel only reports more.
- *Since*, *until*: the first mainline release with the behaviour, and the first without. `-`: older
  than these kernels, or not ended by 7.3. *about*: the release was found by the date of the commit;
  the others were named by the pull request or the tag that brought the commit.
- *Stable*: the first release of an older series that has the beginning (+) or the end (-) too. *at
  the latest*: an earlier one may have it. *?*: not established. The changelogs of 5.10.y, 6.1.y and
  6.12.y were read whole, up to 5.10.262, 6.1.192 and 6.12.118: in these a commit that is not listed
  was not backported. Of other series only what is listed is known.
- *Commits*: of mainline; + began it, - ended it. Each hash was seen next to its subject: in a push
  to kernel.org, a pull request, a `Fixes:` tag or an \"upstream commit\" line.

\"6.12\" is the mainline release, 6.12.117 a stable one: where a backport changed the behaviour they
differ. Distributions backport more than the stable kernels have (Red Hat, SUSE, Ubuntu), and some
keep the stable release out of `uname -r`: Debian's 6.1.0-56-amd64 is 6.1.192. `--kernel` takes the
upstream number.

What 5.10.262, 6.1.192, 6.12.117, 6.18.15 and 7.3.4 were measured to do is in
dio-trace/src/cause/history/measured.tsv and xtask/scenarios/; a test compares it with this table.

| Cause | Behaviour | Requests | Since | Until | Stable | Commits |
|---|---|---|---|---|---|---|
";

#[cfg(test)]
fn row(change: &Change) -> String {
    let causes: Vec<String> =
        change.causes.iter().map(|cause| format!("[{cause}](causes.md#{cause})")).collect();
    let note = if change.note.is_empty() { String::new() } else { format!(" ({})", change.note) };
    let release = |turn: &Option<Turn>| turn.as_ref().map_or("-".to_owned(), Turn::to_string);
    let turns = [("+", &change.since), ("-", &change.until)];
    let turns = || turns.iter().filter_map(|(sign, turn)| turn.as_ref().map(|turn| (*sign, turn)));
    format!(
        "| {} | {}{note} | {} | {} | {} | {} | {} |\n",
        causes.join(", "),
        change.fact,
        change.effect.as_str(),
        release(&change.since),
        release(&change.until),
        joined(turns().flat_map(|(sign, turn)| stable(sign, turn))),
        joined(turns().map(|(sign, turn)| commits(sign, turn))),
    )
}

/// The stable releases of a turn.
#[cfg(test)]
fn stable(sign: &str, turn: &Turn) -> Vec<String> {
    let known = turn.stable.iter().filter_map(|stable| stable.known());
    let open = turn.open().into_iter().map(|open| format!("{sign}? {open}"));
    known.map(|known| format!("{sign}{known}")).chain(open).collect()
}

#[cfg(test)]
fn commits(sign: &str, turn: &Turn) -> String {
    if turn.commits.is_empty() {
        return format!("{sign} hash not established");
    }
    let text = |Commit { hash, subject }: &Commit| format!("`{hash}` {subject}");
    let all: Vec<String> = turn.commits.iter().map(text).collect();
    format!("{sign} {}", all.join("; "))
}

/// The lines of a cell.
#[cfg(test)]
fn joined(lines: impl Iterator<Item = String>) -> String {
    lines.collect::<Vec<_>>().join("<br>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::history::changes;

    fn compared(here: &str, there: &str) -> Vec<String> {
        let kernels = Kernels::new(here, None, there.parse().unwrap()).unwrap();
        kernel_changes(&kernels.compare(|difference| difference.concerns("bounced", "btrfs")))
    }

    #[test]
    fn the_two_kernels_are_named() {
        let lines = compared("7.2.12", "7.3");
        assert_eq!(lines[0], "7.3 instead of 7.2.12:");
        assert!(lines[1].starts_with("on 7.3: btrfs copies"), "{lines:?}");
        assert_eq!(lines.len(), 2);
        assert_eq!(
            compared("6.12", "6.15"),
            ["6.15 instead of 6.12: no change is known that concerns this"]
        );
    }

    #[test]
    fn the_limits_of_the_answer_are_said() {
        let lines = compared("6.1.0-56-amd64", "7.4");
        assert!(lines.iter().any(|line| line.contains("backports to 6.1.y")), "{lines:?}");
        assert!(lines.iter().any(|line| line.starts_with("7.4 is not covered")), "{lines:?}");
    }

    #[test]
    fn a_cause_that_does_not_depend_on_the_kernel_has_no_history() {
        assert!(history("data-journal").is_empty());
        let lines = history("btrfs-checksums");
        assert_eq!(
            lines[0],
            "btrfs writes of files with checksums go through the page cache: since 6.15 and \
             6.12.77 (968f19c5b1b7; not established: 6.6.y), until 7.3 (e9b7b9d9e78e; not \
             established: 6.18.y after 6.18.15, 7.2.y after 7.2.12, other series)"
        );
    }

    #[test]
    fn the_document_has_every_change_once() {
        let rows = kernel_document().lines().filter(|line| line.starts_with("| [")).count();
        assert_eq!(rows, changes().count());
    }
}
