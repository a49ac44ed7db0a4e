//! Assigns ids to files, tasks and stacks. The fact that describes an id is emitted before the id
//! is first used.

use std::sync::Arc;

use ahash::{HashMap, HashSet};
use dio_trace_common::abi::FileId;

use crate::{
    enrich::Enricher,
    recording::format::{Fact, FileFact, ProcessFact, TaskFact},
    system::{container::Container, stack::Stack},
};

/// Most ids that are remembered of each kind. A file or task that is forgotten gets a new id.
const MAX_NUMBERS: usize = 1 << 18;

/// The ids in use. They stand for kernel addresses and names.
#[derive(Default)]
pub(super) struct Ids {
    pub(super) files: HashMap<FileId, u64>,
    tasks: HashMap<(u32, u32, [u8; 16]), u32>,
    /// Process ids that were emitted, with their titles and containers at that time.
    processes: HashMap<u32, (Option<Arc<str>>, Option<Container>)>,
    /// Stacks that were emitted.
    stacks: HashSet<u32>,
    /// Ids of files with counters. These must not change: a reader would count such a file twice.
    counted: HashSet<u64>,
    next_file: u64,
    next_task: u32,
}

impl Ids {
    /// An empty table whose ids continue after those of `self`.
    pub(super) fn after(&self) -> Self {
        Self { next_file: self.next_file, next_task: self.next_task, ..Self::default() }
    }

    /// Continues after the ids that `other` has assigned.
    pub(super) const fn skip(&mut self, other: &Self) {
        (self.next_file, self.next_task) = (other.next_file, other.next_task);
    }

    /// Forgets all ids and all waiting facts except those of files with counters. Returns how many
    /// rejected opens and mixed-access events were lost.
    pub(super) fn forget(&mut self, waiting: &mut Vec<Fact>) -> u64 {
        let counted = &self.counted;
        let mut lost = 0;
        waiting.retain(|fact| {
            lost += u64::from(matches!(fact, Fact::RejectedOpen(_) | Fact::BufferedUse(_)));
            matches!(fact, Fact::File(file) if counted.contains(&file.file))
        });
        self.files.retain(|_, number| counted.contains(number));
        self.tasks.clear();
        self.processes.clear();
        self.stacks.clear();
        lost
    }

    /// The id of a file; a new one is emitted to `facts`.
    pub(super) fn file(
        &mut self,
        key: FileId,
        tgid: u32,
        enricher: &mut Enricher,
        facts: &mut Vec<Fact>,
    ) -> u64 {
        if let Some(number) = self.files.get(&key) {
            return *number;
        }
        if self.files.len() >= MAX_NUMBERS {
            self.files.retain(|_, number| self.counted.contains(number));
        }
        self.next_file += 1;
        self.files.insert(key, self.next_file);
        facts.push(file_fact(self.next_file, key, tgid, enricher));
        self.next_file
    }

    /// The id of a file that has counters, which is never forgotten. Bounded by the number of
    /// counters.
    pub(super) fn counted(
        &mut self,
        key: FileId,
        tgid: u32,
        enricher: &mut Enricher,
        facts: &mut Vec<Fact>,
    ) -> u64 {
        let number = self.file(key, tgid, enricher, facts);
        self.counted.insert(number);
        self.process(tgid, None, enricher, facts);
        number
    }

    /// The id of a thread (pid, tid, comm); a new one is emitted to `facts`.
    pub(super) fn task(
        &mut self,
        task: (u32, u32, [u8; 16]),
        enricher: &mut Enricher,
        facts: &mut Vec<Fact>,
    ) -> u32 {
        if let Some(number) = self.tasks.get(&task) {
            return *number;
        }
        if self.tasks.len() >= MAX_NUMBERS {
            self.tasks.clear();
        }
        self.next_task += 1;
        self.tasks.insert(task, self.next_task);
        let (pid, tid, comm) = task;
        // The process's name may differ from this thread's, it may have a title or a container.
        if tid != pid || enricher.title(pid).is_some() || enricher.container(pid).is_some() {
            self.process(pid, Some((tid, &comm)), enricher, facts);
        }
        let len = comm.iter().position(|byte| *byte == 0).unwrap_or(comm.len());
        let comm = comm[..len].to_vec();
        facts.push(Fact::Task(TaskFact { task: self.next_task, pid, tid, comm }));
        self.next_task
    }

    /// Emits the name and title of a process if they are new. Done early, while the process still
    /// runs. `seen` is the id and the name of one of its threads.
    fn process(
        &mut self,
        pid: u32,
        seen: Option<(u32, &[u8; 16])>,
        enricher: &mut Enricher,
        facts: &mut Vec<Fact>,
    ) {
        if self.processes.len() >= MAX_NUMBERS {
            self.processes.clear();
        }
        let name = enricher.process(pid, seen);
        let title = enricher.title(pid);
        let container = enricher.container(pid).cloned();
        let about = (title, container);
        if self.processes.get(&pid) != Some(&about) {
            let (title, container) = about.clone();
            self.processes.insert(pid, about);
            facts.push(Fact::Process(ProcessFact { pid, name, title, container }));
        }
    }

    /// The id of a stack, which the tracer has assigned; a new one is emitted to `facts`.
    pub(super) fn stack(&mut self, stack: &Stack, facts: &mut Vec<Fact>) -> u32 {
        if self.stacks.len() >= MAX_NUMBERS {
            self.stacks.clear();
        }
        if self.stacks.insert(stack.id) {
            facts.push(Fact::Stack(stack.clone()));
        }
        stack.id
    }
}

/// The fact that describes the file with the id `file`.
pub(super) fn file_fact(file: u64, key: FileId, tgid: u32, enricher: &mut Enricher) -> Fact {
    let mut info = enricher.file(key, tgid).clone();
    info.cut_options();
    let FileId { ino, dev, generation, .. } = key;
    Fact::File(Box::new(FileFact { file, ino, dev, generation, info }))
}
