//! The labels of a request.

use clap::ValueEnum;
use dio_trace_common::abi::{CounterKey, Op};

use super::family::Labels;
use crate::{enrich::Enricher, flow::explained::ExplainedRequest};

/// Labels that are left out unless they are asked for: their values have no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Extra {
    /// The file's path
    Path,
    /// The process id
    Pid,
}

/// The operation of a counter; a read if a recording has a number that this version does not know.
pub(super) fn op(key: &CounterKey) -> Op {
    Op::from_u8(key.op).unwrap_or(Op::Read)
}

/// Makes the labels of requests.
#[derive(Debug)]
pub(super) struct Names {
    extra: Vec<Extra>,
}

impl Names {
    pub(super) const fn new(extra: Vec<Extra>) -> Self {
        Self { extra }
    }

    /// The labels of a counter, but for the container.
    pub(super) fn of_counter(&self, key: &CounterKey, enricher: &mut Enricher) -> Labels {
        let comm = enricher.process(key.tgid, None);
        let file = enricher.file(key.file, key.tgid);
        let mut labels = shared(&comm, op(key), &file.fs, &file.dev, file.volume.as_deref());
        self.extend(&mut labels, &file.path, key.tgid);
        labels
    }

    /// The labels of a request, but for the container.
    pub(super) fn of_record(&self, record: &ExplainedRequest) -> Labels {
        let volume = record.volume.as_deref();
        let mut labels = shared(&record.comm, record.op, &record.fs, &record.dev, volume);
        self.extend(&mut labels, &record.path, record.pid);
        labels
    }

    fn extend(&self, labels: &mut Labels, path: &str, pid: u32) {
        if self.extra.contains(&Extra::Path) {
            labels.push(("path", path.to_owned()));
        }
        if self.extra.contains(&Extra::Pid) {
            labels.push(("pid", pid.to_string()));
        }
    }
}

fn shared(comm: &str, op: Op, fs: &str, device: &str, volume: Option<&str>) -> Labels {
    let mut labels = vec![
        ("comm", comm.to_owned()),
        ("operation", op.as_str().to_owned()),
        ("fs", fs.to_owned()),
        ("device", device.to_owned()),
    ];
    labels.extend(volume.map(|volume| ("volume", volume.to_owned())));
    labels
}

/// Adds the labels of a process's container: its name or id, or the cgroup, and the pod if there is
/// one.
pub(super) fn add_container(labels: &mut Labels, pid: u32, enricher: &mut Enricher) {
    let Some(container) = enricher.container(pid) else {
        labels.push(("container", "(not known)".to_owned()));
        return;
    };
    labels.push(("container", container.short_name().unwrap_or(&container.cgroup).to_owned()));
    let pod = [("pod", &container.pod), ("namespace", &container.namespace)];
    labels.extend(pod.into_iter().filter_map(|(label, name)| Some((label, name.clone()?))));
}
