//! Counts direct requests with strace: system calls on descriptors that are open with O_DIRECT.
//!
//! A descriptor is identified by its number in the descriptor table of its process, which threads
//! share. Not covered are descriptors that are sent over sockets, and requests that are submitted
//! to an io_uring ([`super::ring`]).
use std::{
    collections::HashMap,
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::guest::contract::apps::Ops;

/// All system calls that open, copy or close a descriptor, that read or write, or that make or
/// replace a process. The traced programs use neither splice nor sendfile on files.
const CALLS: &str = "open,openat,openat2,creat,close,close_range,dup,dup2,dup3,fcntl,read,write,\
    pread64,pwrite64,readv,writev,preadv,pwritev,preadv2,pwritev2,io_submit,\
    clone,clone3,fork,vfork,execve";

/// A program under strace.
pub(super) struct Traced {
    child: Child,
    file: PathBuf,
}

impl Traced {
    /// Starts a command under strace as `user` (root if `None`); its output goes to `talk`.
    pub(super) fn start(command: &[&str], user: Option<&str>, talk: &Path) -> Result<Self> {
        let file = PathBuf::from("/tmp/apps.strace");
        let talk = File::create(talk)?;
        let mut strace = Command::new("strace");
        strace.args(["-f", "-y", "-v", "-s", "0", "-a", "1", "--seccomp-bpf", "-e", "signal=none"]);
        strace.args(["-e", &format!("trace={CALLS}"), "-o"]).arg(&file);
        if let Some(user) = user {
            strace.args(["-u", user]);
        }
        // A separate process group, so that strace can be killed together with the program.
        strace.arg("--").args(command).process_group(0).stdin(Stdio::null());
        strace.stdout(talk.try_clone()?).stderr(talk);
        Ok(Self { child: strace.spawn().context("cannot start strace")?, file })
    }

    /// What strace has written so far.
    pub(super) fn so_far(&self) -> Result<String> {
        fs::read_to_string(&self.file).context("strace wrote nothing")
    }

    pub(super) fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits until the program exits; returns all that strace wrote.
    pub(super) fn end(mut self) -> Result<String> {
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the program failed ({status})");
        }
        self.so_far()
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // SAFETY: the group's leader is strace, our child, which has not been waited for.
            unsafe { libc::killpg(self.child.id() as libc::pid_t, libc::SIGKILL) };
            // A failure leaves nothing more to do.
            let _ = self.child.wait();
        }
    }
}

/// Counts the requests by file. Requests in the first `from` bytes are not counted; these lines
/// serve only to track descriptors.
pub(super) fn requests(text: &str, from: usize) -> HashMap<String, Ops> {
    let mut reader = Reader::new(parents(text));
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        at += line.len();
        reader.counting = at > from;
        reader.line(line.trim_end());
    }
    reader.requests
}

/// A call that has returned.
struct Call<'a> {
    name: &'a str,
    args: &'a str,
    /// The text after the equals sign.
    result: &'a str,
}

impl<'a> Call<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (name, rest) = text.split_once('(')?;
        let (args, result) = rest.rsplit_once(" = ")?;
        Some(Self { name, args: args.trim_end().strip_suffix(')')?, result })
    }

    /// Parses a call that has not returned yet.
    fn begun(text: &'a str) -> Option<Self> {
        let (name, args) = text.split_once('(')?;
        Some(Self { name, args, result: "" })
    }

    /// Whether the call takes effect when it starts, not when it returns. close is one of these:
    /// once it is in the kernel, another thread may get the number long before strace sees the
    /// call return.
    fn counts_when_begun(&self) -> bool {
        let reads = ["read", "readv", "pread64", "preadv", "preadv2"];
        let writes = ["write", "writev", "pwrite64", "pwritev", "pwritev2"];
        self.name == "close" || reads.contains(&self.name) || writes.contains(&self.name)
    }

    fn returned(&self) -> Option<i64> {
        let end = self.result.find(|c: char| !c.is_ascii_digit() && c != '-');
        self.result[..end.unwrap_or(self.result.len())].parse().ok()
    }

    fn arg(&self, number: usize) -> &'a str {
        self.args.split(", ").nth(number).unwrap_or_default()
    }

    /// The descriptor number of an argument.
    fn fd(&self, number: usize) -> Option<i64> {
        fd(self.arg(number))
    }

    /// Whether a flag occurs in the arguments.
    fn says(&self, flag: &str) -> bool {
        self.args.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == flag)
    }

    /// Whether the call makes a thread or process.
    fn forks(&self) -> bool {
        matches!(self.name, "clone" | "clone3" | "fork" | "vfork")
    }
}

/// The number of a descriptor that strace shows as `5</path>`.
fn fd(word: &str) -> Option<i64> {
    word.split('<').next()?.parse().ok()
}

/// The path of a descriptor that strace shows as `5</path>`.
fn path(word: &str) -> &str {
    let path = word.split_once('<').map_or("", |(_, path)| path);
    path.rsplit_once('>').map_or(path, |(path, _)| path)
}

/// Splits a line `TID TEXT`.
fn split(line: &str) -> Option<(u32, &str)> {
    let (tid, rest) = line.split_once(' ')?;
    Some((tid.parse().ok()?, rest.trim_start()))
}

/// Joins the two lines of a call that strace splits when another thread's line comes between.
#[derive(Default)]
struct Whole<'a> {
    begun: HashMap<u32, &'a str>,
}

impl<'a> Whole<'a> {
    /// The thread and its complete call, once that has returned.
    fn line(&mut self, line: &'a str) -> Option<(u32, String)> {
        let (tid, text) = split(line)?;
        if let Some(begun) = text.strip_suffix("<unfinished ...>") {
            self.begun.insert(tid, begun);
            return None;
        }
        let Some(rest) = text.strip_prefix("<... ") else { return Some((tid, text.to_owned())) };
        let (_, rest) = rest.split_once(" resumed>")?;
        Some((tid, self.begun.remove(&tid)?.to_owned() + rest))
    }
}

/// The creator of each thread, and whether both share a descriptor table.
type Parents = HashMap<u32, (u32, bool)>;

fn parents(text: &str) -> Parents {
    let mut whole = Whole::default();
    let mut parents = Parents::new();
    for (tid, text) in text.lines().filter_map(|line| whole.line(line)) {
        let Some(call) = Call::parse(&text).filter(Call::forks) else { continue };
        if let Some(child) = call.returned().and_then(|child| u32::try_from(child).ok()) {
            parents.insert(child, (tid, call.says("CLONE_FILES")));
        }
    }
    parents
}

/// A descriptor that is open with O_DIRECT.
#[derive(Clone)]
struct Direct {
    path: String,
    /// Whether the descriptor is closed on execve.
    cloexec: bool,
}

/// Reads strace's output, tracks descriptors and counts requests.
struct Reader<'a> {
    parents: Parents,
    whole: Whole<'a>,
    /// The index in `direct` of each thread's descriptor table.
    tables: HashMap<u32, usize>,
    /// The descriptors with O_DIRECT, by number, of each table.
    direct: Vec<HashMap<i64, Direct>>,
    counting: bool,
    requests: HashMap<String, Ops>,
}

impl<'a> Reader<'a> {
    fn new(parents: Parents) -> Self {
        Self {
            parents,
            whole: Whole::default(),
            tables: HashMap::new(),
            direct: Vec::new(),
            counting: false,
            requests: HashMap::new(),
        }
    }

    fn line(&mut self, line: &'a str) {
        let Some((tid, text)) = split(line) else { return };
        // Assigns the table first: a child may have a line before its parent's call has returned.
        let table = self.table(tid);
        if let Some(call) = text.strip_suffix("<unfinished ...>").and_then(Call::begun)
            && call.counts_when_begun()
        {
            return self.call(table, &call);
        }
        if let Some((_, text)) = self.whole.line(line)
            && let Some(call) = Call::parse(&text)
        {
            self.call(table, &call);
        }
    }

    /// The table of a thread. A new thread shares its parent's table or gets a copy.
    fn table(&mut self, tid: u32) -> usize {
        if let Some(&table) = self.tables.get(&tid) {
            return table;
        }
        let parent = self.parents.get(&tid).copied();
        let parent = parent.and_then(|(tid, shares)| Some((*self.tables.get(&tid)?, shares)));
        let table = match parent {
            Some((table, true)) => table,
            other => {
                let copy = other.map(|(table, _)| self.direct[table].clone());
                self.direct.push(copy.unwrap_or_default());
                self.direct.len() - 1
            }
        };
        self.tables.insert(tid, table);
        table
    }

    fn call(&mut self, table: usize, call: &Call<'_>) {
        match call.name {
            "io_submit" => self.submit(table, call),
            "read" | "readv" | "pread64" | "preadv" | "preadv2" => {
                self.request(table, call.fd(0), Ops { reads: 1, writes: 0 });
            }
            "write" | "writev" | "pwrite64" | "pwritev" | "pwritev2" => {
                self.request(table, call.fd(0), Ops { reads: 0, writes: 1 });
            }
            "close" => {
                call.fd(0).and_then(|fd| self.direct[table].remove(&fd));
            }
            _ => self.descriptor(table, call),
        }
    }

    fn request(&mut self, table: usize, fd: Option<i64>, ops: Ops) {
        let direct = fd.and_then(|fd| self.direct[table].get(&fd));
        if let Some(direct) = direct.filter(|_| self.counting) {
            *self.requests.entry(direct.path.clone()).or_default() += ops;
        }
    }

    /// Counts as many requests of an io_submit call as it returned.
    fn submit(&mut self, table: usize, call: &Call<'_>) {
        let taken = call.returned().unwrap_or_default().max(0) as usize;
        for part in call.args.split("aio_lio_opcode=IOCB_CMD_").skip(1).take(taken) {
            let fd = part.split("aio_fildes=").nth(1).and_then(fd);
            if part.starts_with("PREAD") {
                self.request(table, fd, Ops { reads: 1, writes: 0 });
            } else if part.starts_with("PWRITE") {
                self.request(table, fd, Ops { reads: 0, writes: 1 });
            }
        }
    }

    /// Applies the call's effect on descriptors.
    fn descriptor(&mut self, table: usize, call: &Call<'_>) {
        let Some(returned) = call.returned().filter(|returned| *returned >= 0) else { return };
        let open = &mut self.direct[table];
        match call.name {
            "open" | "openat" | "openat2" | "creat" => {
                open.remove(&returned);
                if call.says("O_DIRECT") {
                    let path = path(call.result).to_owned();
                    open.insert(returned, Direct { path, cloexec: call.says("O_CLOEXEC") });
                }
            }
            "close_range" => {
                let [first, last] = [0, 1].map(|n| call.arg(n).parse().unwrap_or(i64::MAX));
                open.retain(|fd, _| *fd < first || *fd > last || call.says("CLOSE_RANGE_CLOEXEC"));
            }
            "execve" => open.retain(|_, direct| !direct.cloexec),
            // Copies the table now: the child does not get what the parent opens later.
            _ if call.forks() => {
                u32::try_from(returned).ok().map(|child| self.table(child));
            }
            "dup" | "dup2" | "dup3" => self.copy(table, call, returned, call.says("O_CLOEXEC")),
            "fcntl" if call.says("F_DUPFD") => self.copy(table, call, returned, false),
            "fcntl" if call.says("F_DUPFD_CLOEXEC") => self.copy(table, call, returned, true),
            "fcntl" if call.says("F_SETFL") => self.set_flags(table, call),
            _ => {}
        }
    }

    fn copy(&mut self, table: usize, call: &Call<'_>, to: i64, cloexec: bool) {
        let open = &mut self.direct[table];
        let from = call.fd(0).and_then(|fd| open.get(&fd).cloned());
        if call.fd(0) != Some(to) {
            open.remove(&to);
        }
        if let Some(direct) = from {
            open.insert(to, Direct { cloexec, ..direct });
        }
    }

    fn set_flags(&mut self, table: usize, call: &Call<'_>) {
        let open = &mut self.direct[table];
        let Some(fd) = call.fd(0) else { return };
        if !call.says("O_DIRECT") {
            open.remove(&fd);
        } else {
            let path = || path(call.arg(0)).to_owned();
            open.entry(fd).or_insert_with(|| Direct { path: path(), cloexec: false });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, path: &str) -> (u64, u64) {
        let ops = requests(text, 0).get(path).copied().unwrap_or_default();
        (ops.reads, ops.writes)
    }

    const OPEN: &str = "7 openat(AT_FDCWD</w>, \"f\", O_RDWR|O_DIRECT|O_CLOEXEC) = 4</m/f>\n";

    #[test]
    fn only_what_is_open_with_o_direct_counts() {
        let buffered = "7 openat(AT_FDCWD</w>, \"f\", O_RDONLY|O_DIRECTORY) = 4</m/f>\n";
        let reads = "7 pread64(4</m/f>, 0x55, 1, 0) = -1 EINVAL (Invalid argument)\n\
                     7 pread64(4</m/f>, \"\"..., 512, 0) = 512\n";
        assert_eq!(of(&format!("{OPEN}{reads}"), "/m/f"), (2, 0));
        assert_eq!(of(&format!("{buffered}{reads}"), "/m/f"), (0, 0));
        assert_eq!(of(&format!("{OPEN}7 close(4</m/f>) = 0\n{reads}"), "/m/f"), (0, 0));
        assert_eq!(of(&format!("{OPEN}{buffered}{reads}"), "/m/f"), (0, 0));
        let exec = "7 execve(\"/bin/x\", [\"x\"], []) = 0\n";
        assert_eq!(of(&format!("{OPEN}{exec}{reads}"), "/m/f"), (0, 0));
        let set = "7 fcntl(4</m/f>, F_SETFL, O_RDWR|O_DIRECT) = 0\n";
        assert_eq!(of(&format!("{buffered}{set}{reads}"), "/m/f"), (2, 0));
    }

    #[test]
    fn threads_share_and_processes_copy() {
        let thread = "7 clone3({flags=CLONE_VM|CLONE_FILES|CLONE_THREAD, stack=0x1} => {parent_tid=[8]}, 88) = 8\n";
        let write = "8 pwrite64(4</m/f>, \"\"..., 4096, 0) = 4096\n";
        assert_eq!(of(&format!("{thread}{OPEN}{write}"), "/m/f"), (0, 1));
        let process = "7 clone(child_stack=NULL, flags=CLONE_CHILD_SETTID|SIGCHLD) = 8\n";
        assert_eq!(of(&format!("{process}{OPEN}{write}"), "/m/f"), (0, 0));
        assert_eq!(of(&format!("{OPEN}{process}{write}"), "/m/f"), (0, 1));
        // The child's line comes before the parent's call has returned.
        let late = "7 clone(child_stack=NULL, flags=SIGCHLD <unfinished ...>\n";
        let resumed = "7 <... clone resumed>) = 8\n";
        assert_eq!(of(&format!("{OPEN}{late}{write}{resumed}"), "/m/f"), (0, 1));
    }

    #[test]
    fn calls_split_by_other_lines() {
        let cut = "7 pread64(4</m/f>,  <unfinished ...>\n8 write(1<pipe:[1]>, \"\"..., 8) = 8\n\
                   7 <... pread64 resumed>\"\"..., 4096, 0) = 4096\n";
        assert_eq!(of(&format!("{OPEN}{cut}"), "/m/f"), (1, 0));
    }

    #[test]
    fn a_number_reused_before_its_close_returns() {
        let closing = "8 close(4</m/e> <unfinished ...>\n";
        let closed = "8 <... close resumed>) = 0\n";
        let read = "7 read(4</m/f>, \"\"..., 512) = 512\n";
        let thread = "7 clone(child_stack=0x1, flags=CLONE_VM|CLONE_FILES) = 8\n";
        let first = OPEN.replace("/m/f", "/m/e");
        let text = format!("{thread}{first}{closing}{OPEN}{closed}{read}");
        assert_eq!(of(&text, "/m/f"), (1, 0));
        assert_eq!(of(&text, "/m/e"), (0, 0));
    }

    #[test]
    fn copies_of_a_descriptor() {
        let read = "7 read(9</m/f>, \"\"..., 512) = 512\n";
        for copy in ["dup2(4</m/f>, 9) = 9</m/f>", "fcntl(4</m/f>, F_DUPFD_CLOEXEC, 9) = 9</m/f>"] {
            assert_eq!(of(&format!("{OPEN}7 {copy}\n{read}"), "/m/f"), (1, 0), "{copy}");
        }
        let over =
            "7 dup2(1</dev/null>, 4</m/f>) = 4</dev/null>\n7 read(4</dev/null>, \"\", 1) = 0\n";
        assert_eq!(of(&format!("{OPEN}{over}"), "/m/f"), (0, 0));
    }

    #[test]
    fn what_io_submit_took() {
        let one = "{aio_data=0, aio_lio_opcode=IOCB_CMD_PWRITEV, aio_fildes=4</m/f>, aio_buf=[{iov_base=\"\"..., iov_len=4096}], aio_offset=0}";
        let two = one.replace("PWRITEV", "PREAD");
        let submit =
            |taken| format!("{OPEN}7 io_submit(0x7f, 3, [{one}, {two}, {one}]) = {taken}\n");
        assert_eq!(of(&submit(3), "/m/f"), (1, 2));
        assert_eq!(of(&submit(1), "/m/f"), (0, 1));
        assert_eq!(of(&submit(-1), "/m/f"), (0, 0));
    }

    #[test]
    fn lines_before_the_mark_only_track_descriptors() {
        let read = "7 read(4</m/f>, \"\"..., 512) = 512\n";
        let text = format!("{OPEN}{read}{read}");
        let after = requests(&text, OPEN.len() + read.len());
        assert_eq!(after["/m/f"], Ops { reads: 1, writes: 0 });
    }
}
