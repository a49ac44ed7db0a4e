//! Names of processes and threads: the kernel's name (comm), and the *title* that a process shows
//! in its command line.

use std::{
    fs::File,
    io::Read as _,
    sync::Arc,
    time::{Duration, Instant},
};

use ahash::HashMap;

use crate::{
    system::container::{Container, Containers},
    util::escape::{escape, escape_c, is_escaped_c},
};

/// Most processes whose names are kept, and longest name in bytes (title: in characters).
const MAX_NAMES: usize = 1 << 16;
const MAX_NAME: usize = 64;
/// Most bytes of a command line that are read.
const MAX_READ: u64 = 256;
/// How long the title of a process is cached. The process may change it at any time.
const TITLE_FRESH: Duration = Duration::from_secs(1);

/// The names of a process that a request shows.
pub(crate) struct ShownNames {
    pub(crate) comm: Arc<str>,
    /// The title, if it differs from the name.
    pub(crate) title: Option<Arc<str>>,
    pub(crate) container: ContainerNames,
}

/// The names of a container that a request shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct ContainerNames {
    /// The container's name, or the first digits of its id.
    pub(crate) name: Option<Arc<str>>,
    /// The Kubernetes pod, and its namespace.
    pub(crate) pod: Option<Arc<str>>,
    pub(crate) namespace: Option<Arc<str>>,
}

impl ContainerNames {
    fn of(container: &Container) -> Self {
        let shared = |text: &Option<String>| text.as_deref().map(Arc::from);
        Self {
            name: container.short_name().map(Arc::from),
            pod: shared(&container.pod),
            namespace: shared(&container.namespace),
        }
    }
}

/// The names of a process.
#[derive(Default)]
struct Name {
    /// Escaped; `None` if unknown.
    comm: Option<Arc<str>>,
    /// See [`title`]; the last known one if the process has exited.
    title: Option<Arc<str>>,
    container: Option<Container>,
    container_names: ContainerNames,
    /// When the title was last read.
    asked: Option<Instant>,
}

impl Name {
    /// The title, if it differs from the name.
    fn shown_title(&self) -> Option<Arc<str>> {
        self.title.clone().filter(|title| self.comm.as_ref() != Some(title))
    }

    fn put_in(&mut self, container: Option<Container>) {
        self.container_names = container.as_ref().map(ContainerNames::of).unwrap_or_default();
        self.container = container;
    }
}

/// The names of processes by process id.
#[derive(Default)]
pub(super) struct Names {
    known: HashMap<u32, Name>,
    containers: Containers,
    /// The names come from a recording, so nothing is read on this machine.
    recorded: bool,
}

impl Names {
    pub(super) fn recorded() -> Self {
        Self { recorded: true, ..Self::default() }
    }

    /// Sets the name of a process from a recording, if it has none yet.
    pub(super) fn name(&mut self, tgid: u32, name: &[u8]) {
        if name.is_empty() {
            return;
        }
        if let Some(entry) = self.entry(tgid) {
            entry.comm.get_or_insert_with(|| escape(&name[..name.len().min(MAX_NAME)]).into());
        }
    }

    /// Sets the title of a process from a recording; it replaces an earlier one.
    pub(super) fn entitle(&mut self, tgid: u32, title: &str) {
        if let Some(entry) = self.entry(tgid) {
            entry.title = Some(cut(&escape(title.as_bytes())).into());
        }
    }

    /// The name of a process, which is that of its main thread. `seen` is the id (0: unknown) and
    /// the comm of one of its threads. Other threads may have different names, so such a comm is
    /// only used if the main thread's name is unknown.
    pub(super) fn process(&mut self, tgid: u32, seen: Option<(u32, &[u8; 16])>) -> Arc<str> {
        self.ask_title(tgid);
        let own = seen.filter(|(tid, _)| *tid == tgid).map(|(_, comm)| comm);
        let known = self.known.get(&tgid).and_then(|entry| entry.comm.as_ref());
        if let Some(known) = known
            && own.is_none_or(|comm| is_escaped_c(comm, known))
        {
            return known.clone();
        }
        if let Some(comm) = own {
            let name: Arc<str> = escape_c(comm).into();
            if let Some(entry) = self.entry(tgid) {
                entry.comm = Some(name.clone());
            }
            return name;
        }
        let asked = if self.recorded { None } else { comm_of(tgid) };
        let name = asked.or_else(|| seen.map(|(_, comm)| escape_c(comm))).map(Arc::<str>::from);
        if let (Some(name), Some(entry)) = (&name, self.entry(tgid)) {
            entry.comm = Some(name.clone());
        }
        name.unwrap_or_default()
    }

    /// The names of a process that a request of the thread `seen` shows.
    pub(super) fn shown(&mut self, tgid: u32, seen: (u32, &[u8; 16])) -> ShownNames {
        let comm = self.process(tgid, Some(seen));
        let entry = self.known.get(&tgid);
        let title = entry.and_then(Name::shown_title);
        let container = entry.map(|entry| entry.container_names.clone()).unwrap_or_default();
        ShownNames { comm, title, container }
    }

    /// The title of a process, if it differs from its name.
    pub(super) fn title(&mut self, tgid: u32) -> Option<Arc<str>> {
        self.ask_title(tgid);
        self.known.get(&tgid)?.shown_title()
    }

    /// The container of a process, as it was when the process was first seen; `None` if it is not
    /// known.
    pub(super) fn container(&mut self, tgid: u32) -> Option<&Container> {
        self.ask_title(tgid);
        self.known.get(&tgid)?.container.as_ref()
    }

    /// The container of the processes in a cgroup, which is given by its path.
    pub(super) fn container_of(&mut self, cgroup: &str) -> Option<Container> {
        if self.recorded { None } else { self.containers.of_cgroup(cgroup) }
    }

    /// Sets the container of a process from a recording.
    pub(super) fn contain(&mut self, tgid: u32, mut container: Container) {
        container.clean();
        if let Some(entry) = self.entry(tgid) {
            entry.put_in(Some(container));
        }
    }

    fn ask_title(&mut self, tgid: u32) {
        if self.recorded {
            return;
        }
        let asked = self.known.get(&tgid).and_then(|entry| entry.asked);
        if asked.is_some_and(|at| at.elapsed() < TITLE_FRESH) {
            return;
        }
        let container = match self.known.get_mut(&tgid).and_then(|entry| entry.container.take()) {
            Some(mut container) => {
                self.containers.complete(&mut container);
                Some(container)
            }
            None => self.containers.of_process(tgid),
        };
        let Some(entry) = self.entry(tgid) else { return };
        entry.asked = Some(Instant::now());
        entry.put_in(container);
        if let Some(title) = title_of(tgid) {
            entry.title = Some(title.into());
        }
    }

    /// The entry of a process; `None` if the table of a recording is full. In live tracing a full
    /// table is emptied instead, because many of its processes will have exited.
    fn entry(&mut self, tgid: u32) -> Option<&mut Name> {
        if self.known.len() >= MAX_NAMES && !self.known.contains_key(&tgid) {
            if self.recorded {
                return None;
            }
            self.known.clear();
        }
        Some(self.known.entry(tgid).or_default())
    }
}

/// The name of a thread, if it is not the main thread and its name differs from the process's.
pub(crate) fn thread(tgid: u32, tid: u32, comm: &[u8; 16], process: &str) -> Option<Arc<str>> {
    if tid == tgid || is_escaped_c(comm, process) {
        return None;
    }
    let name = escape_c(comm);
    (!name.is_empty() && name != process).then(|| name.into())
}

/// Reads the name of a process from /proc/PID/comm.
fn comm_of(tgid: u32) -> Option<String> {
    let comm = std::fs::read(format!("/proc/{tgid}/comm")).ok()?;
    Some(escape(comm.trim_ascii_end()))
}

/// Reads the title of a process from /proc/PID/cmdline; `None` for a kernel thread, which has none.
fn title_of(tgid: u32) -> Option<String> {
    let mut cmdline = Vec::new();
    let file = File::open(format!("/proc/{tgid}/cmdline")).ok()?;
    file.take(MAX_READ).read_to_end(&mut cmdline).ok()?;
    title(&cmdline)
}

/// Makes a short title from a command line: the program without its directory, and the following
/// words up to the first option, because options may contain passwords. Programs that set a title
/// overwrite the words with one text (setproctitle(3)).
fn title(cmdline: &[u8]) -> Option<String> {
    let end = cmdline.iter().rposition(|byte| *byte != 0 && !byte.is_ascii_whitespace())?;
    let cmdline = &cmdline[..=end];
    let between = if cmdline.contains(&0) { 0 } else { b' ' };
    let mut words = cmdline.split(|byte| *byte == between).filter(|word| !word.is_empty());
    let program = words.next()?;
    let program = program.strip_prefix(b"-").unwrap_or(program); // a login shell
    let name =
        if program.starts_with(b"/") { program.rsplit(|b| *b == b'/').next()? } else { program };
    let mut title = name.to_vec();
    for word in words.take_while(|word| !word.starts_with(b"-")) {
        title.push(b' ');
        title.extend_from_slice(word);
    }
    (!title.is_empty()).then(|| cut(&escape(&title)))
}

/// Truncates a text to [`MAX_NAME`] characters.
fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_NAME) {
        Some(_) => text.chars().take(MAX_NAME - 1).chain(['…']).collect(),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles() {
        for (cmdline, wanted) in [
            (&b"postgres: checkpointer \0\0\0\0"[..], "postgres: checkpointer"),
            (b"postgres: io worker 1\0", "postgres: io worker 1"),
            (b"/usr/lib/postgresql/16/bin/postgres\0-D\0/var/lib/pg\0", "postgres"),
            (b"/usr/bin/python3\0/srv/app.py\0--token\0secret\0", "python3 /srv/app.py"),
            (b"/opt/chrome --type=renderer --key=secret", "chrome"),
            (b"dd\0if=/a b\0of=/dev/null\0", "dd if=/a b of=/dev/null"),
            (b"-bash\0", "bash"),
            (b"./x\x1b[2J\0", "./x\\x1b[2J"),
        ] {
            assert_eq!(title(cmdline).as_deref(), Some(wanted));
        }
        for nothing in [&b""[..], b"\0\0", b" \0", b"/bin/\0"] {
            assert_eq!(title(nothing), None);
        }
        let long = title(&[b'x'; 200]).unwrap();
        assert_eq!((long.chars().count(), long.chars().last()), (MAX_NAME, Some('…')));
    }

    #[test]
    fn a_process_has_the_name_of_its_main_thread() {
        let mut names = Names::recorded();
        let seen = |tid, name: &'static [u8; 16]| Some((tid, name));
        let worker = b"ib_io_rd-1\0\0\0\0\0\0";
        assert_eq!(&*names.process(7, seen(8, worker)), "ib_io_rd-1");
        let own = b"mysqld\0\0\0\0\0\0\0\0\0\0";
        assert_eq!(&*names.process(7, seen(7, own)), "mysqld");
        assert_eq!(&*names.process(7, seen(8, worker)), "mysqld");
        assert_eq!(&*names.process(7, None), "mysqld");
        names.name(9, b"mysqld");
        assert_eq!(&*names.process(9, seen(10, worker)), "mysqld");
    }

    #[test]
    fn titles_and_thread_names_are_given_where_they_differ_from_the_process_name() {
        let mut names = Names::recorded();
        assert_eq!(names.title(7), None);
        names.name(7, b"postgres");
        names.entitle(7, "postgres");
        assert_eq!(names.title(7), None);
        names.entitle(7, "postgres: \x1bwalwriter");
        assert_eq!(names.title(7).as_deref(), Some("postgres: \\x1bwalwriter"));
        let comm = b"MergeMutate\0\0\0\0\0";
        assert_eq!(thread(7, 8, comm, "clickhouse").as_deref(), Some("MergeMutate"));
        assert_eq!(thread(7, 7, comm, "clickhouse"), None);
        assert_eq!(thread(7, 8, comm, "MergeMutate"), None);
    }

    #[test]
    fn a_request_shows_the_container_of_its_process() {
        let mut names = Names::recorded();
        let seen = (7, b"mysqld\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(names.shown(7, seen).container.name, None);
        let pod = Some("db-\x1b0".to_owned());
        names.contain(7, Container { id: Some("0a".repeat(32)), pod, ..Container::default() });
        let ShownNames { comm, title, container } = names.shown(7, seen);
        assert_eq!((&*comm, title), ("mysqld", None));
        assert_eq!(container.name.as_deref(), Some("0a0a0a0a0a0a"));
        assert_eq!((container.pod.as_deref(), container.namespace), (Some("db-\\x1b0"), None));
    }

    #[test]
    fn a_live_process_is_asked_once_a_second() {
        let mut names = Names::default();
        let own = std::process::id();
        let title = names.title(own);
        assert!(title.is_some());
        names.known.get_mut(&own).unwrap().title = Some("remembered".into());
        assert_eq!(names.title(own).as_deref(), Some("remembered"));
        names.known.get_mut(&own).unwrap().asked = Instant::now().checked_sub(2 * TITLE_FRESH);
        assert_eq!(names.title(own), title);
        // The last title of a process that has exited is kept.
        names.known.insert(u32::MAX, Name { title: Some("last".into()), ..Name::default() });
        assert_eq!(names.title(u32::MAX).as_deref(), Some("last"));
    }
}
