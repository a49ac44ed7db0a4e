//! Files and tasks by number, each told before it is referred to.

use dio_trace_common::abi::FileId;
use std::collections::{HashMap, HashSet};

use crate::{
    enrich::Enricher,
    recording::format::{Fact, FileFact, ProcessFact, TaskFact},
    system::stack::Stack,
};

/// Files and tasks that have a number at the same time; more get new ones.
const MAX_NUMBERS: usize = 1 << 18;

/// Numbers in place of kernel addresses and names.
#[derive(Default)]
pub(super) struct Ids {
    pub(super) files: HashMap<FileId, u64>,
    tasks: HashMap<(u32, u32, [u8; 16]), u32>,
    /// With the titles that were told of them.
    processes: HashMap<u32, Option<String>>,
    stacks: HashSet<u32>,
    /// Of files with counters, which count twice if they are told by another number.
    counted: HashSet<u64>,
    next_file: u64,
    next_task: u32,
}

impl Ids {
    /// None has been told; those to come are new ones.
    pub(super) fn after(&self) -> Self {
        Self { next_file: self.next_file, next_task: self.next_task, ..Self::default() }
    }

    /// Those given out by `other` are not given again.
    pub(super) const fn skip(&mut self, other: &Self) {
        (self.next_file, self.next_task) = (other.next_file, other.next_task);
    }

    /// Forgets all but files with counters, and facts that wait for the writer with them: what comes
    /// again gets a new number. How many refusals and mixers were lost by that.
    pub(super) fn forget(&mut self, waiting: &mut Vec<Fact>) -> u64 {
        let counted = &self.counted;
        let mut lost = 0;
        waiting.retain(|fact| {
            lost += u64::from(matches!(fact, Fact::Refusal(_) | Fact::Mixer(_)));
            matches!(fact, Fact::File(file) if counted.contains(&file.file))
        });
        self.files.retain(|_, number| counted.contains(number));
        self.tasks.clear();
        self.processes.clear();
        self.stacks.clear();
        lost
    }

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
        facts.push(told(self.next_file, key, tgid, enricher));
        self.next_file
    }

    /// The same of a file whose counters are told, as many as there are at most.
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
        // Its own name may be another, and it may have a title.
        if tid != pid || enricher.title(pid).is_some() {
            self.process(pid, Some((tid, &comm)), enricher, facts);
        }
        let len = comm.iter().position(|byte| *byte == 0).unwrap_or(comm.len());
        let comm = comm[..len].to_vec();
        facts.push(Fact::Task(TaskFact { task: self.next_task, pid, tid, comm }));
        self.next_task
    }

    /// The name is asked while the process still lives; `seen` are a thread of it and its name.
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
        if self.processes.get(&pid) != Some(&title) {
            self.processes.insert(pid, title.clone());
            facts.push(Fact::Process(ProcessFact { pid, name, title }));
        }
    }

    /// It has its number already.
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

pub(super) fn told(file: u64, key: FileId, tgid: u32, enricher: &mut Enricher) -> Fact {
    let mut info = enricher.file(key, tgid).clone();
    info.cut_options();
    let FileId { ino, dev, generation, .. } = key;
    Fact::File(Box::new(FileFact { file, ino, dev, generation, info }))
}
