//! The page of `dio-trace cache`: what came into the page cache and left it, by file.

use std::collections::BTreeSet;

use ahash::HashMap;
use dio_trace_common::abi::PageFlow;

use crate::{
    flow::page_cache::{CacheBy, CacheReport, CacheRow, CacheUse, CachedFile, Flows},
    output::text::columns::{right, with_path, wrap},
    util::figures::{about, percent},
};

/// Most processes of a file, or files of a process, that have a line.
const MAX_PARTS: usize = 3;
/// Columns of each figure, and of what stands before a process.
const FIGURE: usize = 9;
const INDENT: &str = "      ";

/// What came in of each row in the latest seconds, by the row's name.
#[derive(Debug, Default)]
pub struct Lately {
    pub seconds: f64,
    pub bytes: HashMap<String, u64>,
}

impl Lately {
    /// Bytes per second of a row.
    fn rate(&self, row: &CacheRow<'_>) -> u64 {
        let bytes = self.bytes.get(&row.name).copied().unwrap_or(0);
        if self.seconds > 0.0 { (bytes as f64 / self.seconds) as u64 } else { 0 }
    }
}

/// How the page is laid out.
#[derive(Clone, Copy, Debug)]
pub struct CachePage<'a> {
    pub by: CacheBy,
    /// `None`: without the column of what comes in now.
    pub lately: Option<&'a Lately>,
    /// The rows of [`CacheReport::rows`], and how many of them are shown at most.
    pub rows: &'a [CacheRow<'a>],
    pub most: usize,
    pub width: usize,
}

/// The page: the run in two sentences, then the rows.
#[must_use]
pub fn page_cache(report: &CacheReport, page: &CachePage<'_>) -> String {
    let CachePage { by, lately, rows, most, width } = *page;
    let mut out = wrap("page cache: ", &headline(report), width) + "\n";
    if let Some(first) = report.files.first().filter(|file| file.bytes.came_in() != 0) {
        let most = first.bytes.came_in() * 2 > report.bytes.came_in();
        let label = if most { "mostly:     " } else { "the most:   " };
        out.push_str(&(wrap(label, &mostly(report, first), width) + "\n"));
        if let Some(again) = again(report) {
            out.push_str(&(wrap("again:      ", &again, width) + "\n"));
        }
        if let Some(fix) = fix(first) {
            out.push_str(&(wrap("fix:        ", &fix, width) + "\n"));
        }
    }
    let (shown, rest): (Vec<_>, Vec<_>) =
        rows.iter().enumerate().partition(|(n, row)| *n < most && counts(report, row));
    if !shown.is_empty() {
        out.push('\n');
        out.push_str(&heading(by, lately.is_some()));
    }
    for (_, row) in shown {
        out.push_str(&of_row(row, page));
    }
    let sum = |of: fn(&Flows) -> u64| rest.iter().map(|(_, row)| of(&row.bytes)).sum::<u64>();
    let (came_in, left) = (sum(Flows::came_in), sum(Flows::left));
    if came_in + left != 0 {
        let (more, came_in, left) = (rest.len(), about(came_in), about(left));
        out.push_str(&format!("{INDENT}{more} more, of which {came_in} came in and {left} left\n"));
    }
    out.push_str(&losses(report, width));
    out
}

/// True if a row is at least a hundredth of what came in or left.
fn counts(report: &CacheReport, row: &CacheRow<'_>) -> bool {
    const PART: u64 = 100;
    let moved = |bytes: &Flows| bytes.came_in().max(bytes.left());
    let bytes = row.moved();
    bytes != 0 && bytes.saturating_mul(PART) >= moved(&report.bytes)
}

fn headline(report: &CacheReport) -> String {
    let mut text = format!(
        "{} came in and {} left in {:.0} s ({})",
        about(report.bytes.came_in()),
        about(report.bytes.left()),
        report.seconds,
        report.subject
    );
    let again = report.bytes.get(PageFlow::Refault);
    if again != 0 {
        text += &format!("; {} of it had been reclaimed before and was needed again", about(again));
    }
    if report.memory != 0 {
        text += &format!(
            "; file pages take {} of {} memory now",
            about(report.cached),
            about(report.memory)
        );
    }
    text
}

/// The file that brought in the most: its share, who, and how.
fn mostly(report: &CacheReport, file: &CachedFile) -> String {
    let mut text = format!(
        "{}: {} ({})",
        named(file),
        about(file.bytes.came_in()),
        percent(file.bytes.came_in(), report.bytes.came_in())
    );
    if let Some(user) = file.uses.first() {
        text += &format!(", by {}: {}", user.place(), ways(user));
    }
    text
}

/// The file of which the most was reclaimed and needed again, if that is at least a hundredth of what
/// came in: in whose threads it was reclaimed, and what came in meanwhile.
fn again(report: &CacheReport) -> Option<String> {
    const PART: u64 = 100;
    let of = |bytes: &Flows| bytes.get(PageFlow::Refault);
    let file = report.files.iter().max_by_key(|file| of(&file.bytes))?;
    let bytes = of(&file.bytes);
    if bytes == 0 || bytes.saturating_mul(PART) < report.bytes.came_in() {
        return None;
    }
    let most = |flow| file.uses.iter().max_by_key(|user| user.bytes.get(flow));
    let mut text = format!("{}: {} was reclaimed", named(file), about(bytes));
    if let Some(user) = most(PageFlow::Reclaimed).filter(|u| u.bytes.get(PageFlow::Reclaimed) != 0)
    {
        text += &format!(" by {}", user.process());
    }
    text += " and needed again";
    if let Some(user) = most(PageFlow::Refault) {
        text += &format!(" by {}", user.process());
    }
    // It made room for itself, or kswapd did for all.
    let reclaimer = most(PageFlow::Reclaimed);
    let other = report.files.first().filter(|first| {
        let made_room =
            |user: &CacheUse| reclaimer.is_some_and(|by| by.kernel || by.pid == user.pid);
        !std::ptr::eq(*first, file)
            && first.uses.iter().any(|user| user.bytes.came_in() != 0 && made_room(user))
    });
    if let Some(other) = other {
        text += &format!("; likely because of {}, of which the most came in", named(other));
    }
    Some(text)
}

fn named(file: &CachedFile) -> &str {
    file.path.as_deref().unwrap_or("files that there was no room for")
}

/// What can be done about it, by how most of the pages came in. `None` for little, for what a thread of
/// the kernel brought in, and where the program already gives its pages up.
fn fix(file: &CachedFile) -> Option<String> {
    const LITTLE: u64 = 1 << 20;
    use PageFlow::{
        Dontneed, Dropbehind, Fault, FaultAhead, Prefetch, Read, ReadAhead, Truncated, Write,
    };
    let came_in = file.bytes.came_in();
    let given_up: u64 =
        [Dontneed, Dropbehind, Truncated].map(|flow| file.bytes.get(flow)).iter().sum();
    let user = file.uses.first().filter(|user| !user.kernel)?;
    if came_in < LITTLE || given_up * 2 > came_in {
        return None;
    }
    let (flow, _) = *user.bytes.most_first(PageFlow::is_in).first()?;
    const DIRECT: &str =
        "open it with O_DIRECT (`dio-trace check FILE` tries whether that works there)";
    let text = match (flow, user.direct) {
        (Read | ReadAhead | Write, Some(true)) => format!(
            "it is open with O_DIRECT, and goes through the page cache all the same: `dio-trace attach \
             -p {}` says why while it runs, `dio-trace run` of its command otherwise",
            user.pid
        ),
        (Read | ReadAhead, _) => format!(
            "{DIRECT}, or give up what was read: posix_fadvise(fd, offset, length, \
             POSIX_FADV_DONTNEED)"
        ),
        (Write, _) => format!(
            "{DIRECT}, or write back and give up what was written: fdatasync(fd), then \
             posix_fadvise(fd, offset, length, POSIX_FADV_DONTNEED)"
        ),
        (Fault | FaultAhead, _) => {
            "it is mapped (mmap), which always goes through the page cache: if \
             it is data and no program, read it with O_DIRECT instead, or unmap it and give it up \
             with POSIX_FADV_DONTNEED"
                .to_owned()
        }
        (Prefetch, _) => format!(
            "the program asks for these pages in advance (POSIX_FADV_WILLNEED, MADV_WILLNEED or \
             readahead(2)): leave that out if it does not read them; else {DIRECT}"
        ),
        _ => return None,
    };
    Some(text)
}

fn heading(by: CacheBy, now: bool) -> String {
    let mut line = String::new();
    let mut word = |word| right(&mut line, word, FIGURE);
    if by == CacheBy::File {
        word("in cache");
    }
    word("came in");
    if now {
        word("in/s now");
    }
    // Pages leave a file; a process drops those of any file.
    word(if by == CacheBy::File { "left" } else { "dropped" });
    word("again");
    format!("{line}  {}\n", by.title())
}

fn of_row(row: &CacheRow<'_>, page: &CachePage<'_>) -> String {
    let mut line = String::new();
    let mut figure = |bytes: u64| {
        let text = if bytes == 0 { "-".to_owned() } else { about(bytes) };
        right(&mut line, &text, FIGURE);
    };
    if let Some(now) = row.now {
        figure(now);
    }
    figure(row.bytes.came_in());
    if let Some(lately) = page.lately {
        figure(lately.rate(row));
    }
    figure(row.bytes.left());
    figure(row.bytes.get(PageFlow::Refault));
    line.push_str("  ");
    let used = line.len();
    let mut out = with_path(line, used, &row.name, page.width) + "\n";
    let bring = || row.parts.iter().filter(|(_, user)| user.bytes.came_in() != 0);
    for (name, user) in bring().take(MAX_PARTS) {
        out.push_str(&(wrap(INDENT, &format!("{name}: {}", ways(user)), page.width) + "\n"));
    }
    let more = bring().count().saturating_sub(MAX_PARTS);
    if more != 0 {
        out.push_str(&format!("{INDENT}and {more} more\n"));
    }
    if let Some(left) = left(row) {
        let word = if page.by == CacheBy::File { "left" } else { "dropped" };
        out.push_str(&(wrap(INDENT, &format!("{word}: {left}"), page.width) + "\n"));
    }
    out
}

/// How a process brought pages in, and how it has the file open.
fn ways(user: &CacheUse) -> String {
    let mut parts: Vec<String> = Vec::new();
    for (flow, bytes) in user.bytes.most_first(PageFlow::is_in) {
        let mut part = format!("{} {}", about(bytes), in_words(flow));
        if flow == PageFlow::ReadAhead {
            part += &of_ahead(user, bytes);
        }
        parts.push(part);
    }
    let mut text = parts.join(", ");
    if let Some(open) = &user.open {
        let without = if user.direct == Some(false) { ", without O_DIRECT" } else { "" };
        text += &format!("; open {open}{without}");
    }
    text
}

/// What became of the pages that were read ahead.
fn of_ahead(user: &CacheUse, ahead: u64) -> String {
    let (used, unused) =
        (user.bytes.get(PageFlow::AheadUsed), user.bytes.get(PageFlow::AheadUnused));
    match (used, unused) {
        (0, 0) => String::new(),
        (_, 0) => format!(" ({} of it read since)", percent(used, ahead)),
        _ => format!(
            " ({} of it read since, {} left unread)",
            percent(used, ahead),
            percent(unused, ahead)
        ),
    }
}

const fn in_words(flow: PageFlow) -> &'static str {
    match flow {
        PageFlow::Read => "read",
        PageFlow::ReadAhead => "read ahead",
        PageFlow::Write => "written",
        PageFlow::Fault => "through a mapping",
        PageFlow::FaultAhead => "read ahead of a mapping",
        PageFlow::Prefetch => "asked for in advance",
        PageFlow::Reclaimed => "reclaimed",
        PageFlow::Dontneed => "given up (POSIX_FADV_DONTNEED)",
        PageFlow::Truncated => "truncated, deleted, or closed (a device)",
        PageFlow::Invalidated => "invalidated (direct write, or the file system)",
        PageFlow::Dropbehind => "dropped behind reads (RWF_DONTCACHE)",
        PageFlow::DroppedClean => "dropped while clean",
        PageFlow::OtherIn | PageFlow::OtherOut => "otherwise",
        PageFlow::Refault => "needed again",
        PageFlow::AheadUsed => "read since",
        PageFlow::AheadUnused => "left unread",
    }
}

/// What made the pages of a row leave, and in whose threads.
fn left(row: &CacheRow<'_>) -> Option<String> {
    let kinds = row.bytes.most_first(PageFlow::is_out);
    let parts: Vec<String> = kinds
        .into_iter()
        .map(|(flow, bytes)| {
            let by = row.parts.iter().filter(|(_, user)| user.bytes.get(flow) != 0);
            let processes: BTreeSet<u32> = by.clone().map(|(_, user)| user.pid).collect();
            let more = match processes.len() {
                0 | 1 => String::new(),
                n => format!(" and {} more", n - 1),
            };
            let by = by.max_by_key(|(_, user)| user.bytes.get(flow));
            let by =
                by.map_or_else(String::new, |(_, user)| format!(" by {}{more}", user.process()));
            format!("{} {}{by}", about(bytes), in_words(flow))
        })
        .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// What is not in the figures.
fn losses(report: &CacheReport, width: usize) -> String {
    let mut out = String::new();
    let mut note = |text: &str| out.push_str(&(wrap("note:       ", text, width) + "\n"));
    if report.lost != 0 {
        note(&format!(
            "{} came in or left that are in no figure: all sums are in use",
            about(report.lost)
        ));
    }
    let without: u64 =
        report.files.iter().filter(|f| f.path.is_none()).map(|f| f.bytes.came_in()).sum();
    if without != 0 {
        note(&format!(
            "{} came in of files that have no row: there are more files than sums; a shorter run, \
             or attach -p, tells them apart",
            about(without)
        ));
    }
    if report.lost_names != 0 {
        note(&format!("{} files have no name: they came too fast", report.lost_names));
    }
    for (program, runs) in &report.skipped {
        note(&format!("{program}: the kernel skipped this probe {runs} times"));
    }
    for missing in &report.missing {
        note(&format!("{}: {}", missing.probe, missing.why));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::page_cache::tests::report;

    fn page(report: &CacheReport, by: CacheBy, lately: Option<&Lately>, most: usize) -> String {
        page_cache(report, &CachePage { by, lately, rows: &report.rows(by), most, width: 80 })
    }

    #[test]
    fn the_page_tells_file_process_and_reason() {
        let report = report();
        let text = page(&report, CacheBy::File, None, 10);
        for part in
            ["/srv/a.sst", "reader/10", "6.3M read ahead", "without O_DIRECT", "[kswapd0]/12"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("fix:        open it with O_DIRECT"), "{text}");
    }

    #[test]
    fn rows_are_files_or_processes() {
        let report = report();
        let lately =
            Lately { seconds: 2.0, bytes: [("reader/10".into(), 8192)].into_iter().collect() };
        let text = page(&report, CacheBy::Process, Some(&lately), 10);
        let row = text.lines().find(|line| line.ends_with("  reader/10")).expect("a row");
        assert_eq!(
            row.split_whitespace().collect::<Vec<_>>(),
            ["6.3M", "4.0K", "-", "-", "reader/10"]
        );
        assert!(text.contains("/srv/a.sst: 6.3M read ahead"), "{text}");
        assert!(page(&report, CacheBy::Pod, None, 10).contains("(none)"));
    }

    #[test]
    fn rows_that_are_left_out_are_counted() {
        let mut report = report();
        for path in ["/srv/b", "/srv/c"] {
            report.files.push(CachedFile { path: Some(path.into()), ..report.files[0].clone() });
        }
        let text = page(&report, CacheBy::File, None, 1);
        assert!(text.contains("2 more, of which 13M came in and 3.8M left"), "{text}");
        assert!(text.contains("  /srv/a.sst\n") && !text.contains("/srv/b"), "{text}");
    }

    #[test]
    fn files_with_the_same_name_are_one_row() {
        let mut report = report();
        report.files.push(CachedFile { ino: 8, ..report.files[0].clone() });
        let text = page(&report, CacheBy::File, None, 10);
        assert_eq!(text.matches("  /srv/a.sst\n").count(), 1, "{text}");
    }

    #[test]
    fn no_fix_is_given_for_what_is_given_up_or_the_kernel_s() {
        let fix_of = |change: fn(&mut CachedFile)| {
            let mut file = report().files.swap_remove(0);
            change(&mut file);
            fix(&file)
        };
        assert!(fix_of(|_| ()).is_some());
        assert_eq!(fix_of(|file| file.uses[0].kernel = true), None);
        assert_eq!(fix_of(|file| file.bytes = Flows::default()), None, "little");
        assert!(
            fix_of(|file| file.uses[0].direct = Some(true)).is_some_and(|f| f.contains("attach"))
        );
    }
}
