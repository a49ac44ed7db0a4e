//! A running tracer: start, read events, stop.

use std::{process, time::Duration};

use anyhow::{Context as _, Error, Result, anyhow};
use aya::{
    Ebpf,
    maps::{MapData, RingBuf, StackTraceMap},
};
use aya_log::EbpfLogger;
use dio_trace_common::abi::Stat;
use tokio::{
    io::unix::AsyncFd,
    task::coop::consume_budget,
    time::{Interval, MissedTickBehavior, interval},
};

use crate::{
    kernel::{preflight, release},
    model::{AttachMode, Event, MissingProbe, Totals},
    system::symbols::Stacks,
    tracer::{
        Options, Scope,
        attach::{Coverage, Progress, attach_all, unload},
        decode::decode,
        info::skipped_runs,
        load::{self, Kernel},
        selftest, targets, totals,
    },
    util::stdio::note,
};

/// How long an event may wait in the ring before it is fetched; the probes wake the reader only
/// when 64 KiB are waiting.
const FETCH_EVERY: Duration = Duration::from_millis(20);
/// The same with stacks: once their process has gone, nobody knows what was at an address.
const FETCH_STACKS_EVERY: Duration = Duration::from_millis(2);

/// Probes attached to the running kernel; dropping it detaches them.
pub struct Tracer {
    bpf: Ebpf,
    ring: AsyncFd<RingBuf<MapData>>,
    tick: Interval,
    coverage: Coverage,
    /// See [`Totals::dark`].
    dark: Vec<MissingProbe>,
    /// See [`Options::log`].
    log: Option<EbpfLogger<Talk>>,
}

/// The probes' messages, as lines on stderr.
struct Talk;

impl log::Log for Talk {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        note!("probe: {}", record.args());
    }

    fn flush(&self) {}
}

impl Tracer {
    /// Checks, loads, attaches, and tells how far it is. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// In plain words, what is missing and what to do; nothing stays attached.
    pub fn start(options: &Options, progress: &mut Progress<'_>) -> Result<Self> {
        preflight::check()?;
        let kernel = Kernel::read()?;
        let mut bpf = load::load(&kernel, options)?;
        if let Scope::Processes { pids, .. } = &options.scope {
            for pid in pids {
                targets::add(&mut bpf, *pid)?;
            }
        }
        let filtered = !matches!(options.scope, Scope::System);
        let add_descendants = |bpf: &mut Ebpf| match &options.scope {
            Scope::Processes { pids, children: true } => targets::add_descendants(bpf, pids),
            _ => Ok(()),
        };
        let coverage =
            attach_all(&mut bpf, &kernel, options.attach, filtered, progress, add_descendants)
                .map_err(|error| by_cgroup(error, options))?;
        let ring = bpf.take_map("EVENTS").context("the object has no map EVENTS")?;
        // SAFETY: the RingBuf owns its descriptor and keeps it open as long as it lives.
        let ring = unsafe { AsyncFd::register(RingBuf::try_from(ring)?) }?;
        let every = if options.stacks { FETCH_STACKS_EVERY } else { FETCH_EVERY };
        let mut tick = interval(every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let log = if options.log {
            Some(EbpfLogger::init_with_logger(&mut bpf, Talk).context("cannot read the messages")?)
        } else {
            None
        };
        let mut tracer = Self { bpf, ring, tick, coverage, dark: Vec::new(), log };
        tracer.self_test(filtered)?;
        Ok(tracer)
    }

    /// Lights the probes with requests of our own, which no report shows.
    fn self_test(&mut self, filtered: bool) -> Result<()> {
        if filtered {
            targets::add(&mut self.bpf, process::id())?;
        }
        self.dark = selftest::run(|| own_requests(&self.bpf))?;
        if filtered {
            targets::remove(&mut self.bpf, process::id())?;
        }
        Ok(())
    }

    /// Probes that the self-test could reach and that stayed dark.
    #[must_use]
    pub fn dark(&self) -> &[MissingProbe] {
        &self.dark
    }

    /// Probes attached, and those that are not.
    #[must_use]
    pub fn coverage(&self) -> (&[String], &[MissingProbe]) {
        (&self.coverage.attached, &self.coverage.missing)
    }

    /// How they are attached.
    #[must_use]
    pub const fn attach(&self) -> AttachMode {
        self.coverage.attach
    }

    /// The stacks that requests refer to, if they are taken.
    ///
    /// # Errors
    /// If the object has no map of them.
    pub fn stacks(&mut self, options: &Options) -> Result<Option<Stacks>> {
        if !options.stacks {
            return Ok(None);
        }
        let map =
            self.bpf.take_map("STACK_TRACES").context("the object has no map STACK_TRACES")?;
        let map = StackTraceMap::try_from(map)?;
        Ok(Some(Stacks::new(Box::new(move |number| {
            let stack = map.get(&u32::from(number), 0);
            stack.map_or_else(|_| Vec::new(), |s| s.frames().iter().map(|f| f.ip).collect())
        }))))
    }

    /// Adds a process to a [`Scope::Processes`].
    ///
    /// # Errors
    /// If the set is full.
    pub fn add_process(&mut self, pid: u32) -> Result<()> {
        targets::add(&mut self.bpf, pid)
    }

    /// Takes a process out again; what it started meanwhile stays in.
    ///
    /// # Errors
    /// If it is not in.
    pub fn remove_process(&mut self, pid: u32) -> Result<()> {
        targets::remove(&mut self.bpf, pid)
    }

    /// The processes that are traced now, if there is a [`Scope::Processes`].
    ///
    /// # Errors
    /// If the set cannot be read.
    pub fn processes(&self) -> Result<Vec<u32>> {
        targets::present(&self.bpf)
    }

    /// The next event; waits for one. May be cancelled without loss.
    ///
    /// # Errors
    /// If the ring buffer cannot be waited for.
    pub async fn next(&mut self) -> Result<Event> {
        loop {
            // A ring that fills as fast as it is read would keep timers and signals out for good.
            consume_budget().await;
            if let Some(item) = self.ring.get_mut().next() {
                match decode(&item).filter(foreign) {
                    Some(event) => return Ok(event),
                    None => continue,
                }
            }
            self.flush_log();
            tokio::select! {
                ready = self.ring.readable() => ready?.clear_ready(),
                _ = self.tick.tick() => {}
            }
        }
    }

    /// Detaches, hands the rest of the ring to `sink`, and reads the totals.
    ///
    /// # Errors
    /// If the maps cannot be read.
    pub fn stop(mut self, sink: &mut dyn FnMut(Event)) -> Result<Totals> {
        let skipped = self.skipped();
        // Begins were attached last and go first: what is open may still end.
        for name in self.coverage.programs.iter().rev() {
            if let Some(program) = self.bpf.program_mut(name) {
                let _ = unload(program);
            }
        }
        while let Some(item) = self.ring.get_mut().next() {
            if let Some(event) = decode(&item).filter(foreign) {
                sink(event);
            }
        }
        self.flush_log();
        self.counted(skipped)
    }

    /// True if the maps can be read, with the capabilities of this moment.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        totals::stats(&self.bpf).is_ok()
    }

    /// What was counted so far; what ends meanwhile may be in one number and not yet in another.
    ///
    /// # Errors
    /// If the maps cannot be read.
    pub fn totals(&self) -> Result<Totals> {
        self.counted(self.skipped())
    }

    fn counted(&self, skipped: Vec<(String, u64)>) -> Result<Totals> {
        let mut stats = totals::stats(&self.bpf)?;
        let (own, counters): (Vec<_>, Vec<_>) = totals::counters(&self.bpf)?
            .into_iter()
            .partition(|(key, _)| key.tgid == process::id());
        // The tracer's own requests (its self-test) are nobody's business.
        let own: u64 = own.iter().map(|(_, counter)| counter.requests).sum();
        let mut mixers = totals::mixers(&self.bpf)?;
        mixers.retain(|(mixer, _)| mixer.tgid != process::id());
        for stat in [Stat::Begun, Stat::Ended] {
            stats[stat as usize] = stats[stat as usize].saturating_sub(own);
        }
        Ok(Totals {
            kernel: release(),
            attach: self.coverage.attach,
            attached: self.coverage.attached.clone(),
            missing: self.coverage.missing.clone(),
            dark: self.dark.clone(),
            stats,
            skipped,
            counters,
            mixers,
        })
    }

    fn flush_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.flush();
        }
    }

    fn skipped(&self) -> Vec<(String, u64)> {
        self.coverage
            .programs
            .iter()
            .filter_map(|name| {
                let runs = skipped_runs(self.bpf.program(name)?);
                (runs != 0).then(|| ((*name).to_owned(), runs))
            })
            .collect()
    }
}

/// On 5.10 no probe can ask for the cgroup (kernel/trace/bpf_trace.c:bpf_tracing_func_proto).
fn by_cgroup(error: Error, options: &Options) -> Error {
    const HELPER: &str = "bpf_get_current_ancestor_cgroup_id";
    let missing = error.chain().any(|cause| cause.to_string().contains(HELPER));
    if options.wanted.cgroup.is_none() || !missing {
        return error;
    }
    anyhow!(
        "this kernel does not let probes ask for the cgroup (6.1 does): filter by process instead \
         (attach -p)"
    )
}

/// This process's own requests so far, and how many of them have an unknown verdict.
fn own_requests(bpf: &Ebpf) -> Result<selftest::Seen> {
    let own = totals::counters(bpf)?.into_iter().filter(|(key, _)| key.tgid == process::id());
    Ok(own.fold((0, 0), |(all, unknown), (key, counter)| {
        let dark = if selftest::is_unknown(key.verdict) { counter.requests } else { 0 };
        (all + counter.requests, unknown + dark)
    }))
}

/// True for everything but the tracer's own requests.
fn foreign(event: &Event) -> bool {
    match event {
        Event::Request(request) => request.tgid != process::id(),
        Event::File(_) => true,
        Event::Refusal(refusal) => refusal.tgid != process::id(),
        Event::Mixer(event) => event.mixer.tgid != process::id(),
    }
}
