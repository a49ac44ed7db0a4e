//! The running tracer: start it, read its events and totals, stop it.

use std::{
    ops::Range,
    process, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Error, Result, anyhow};
use aya::{
    Ebpf,
    maps::{MapData, RingBuf, StackTraceMap},
};
use aya_log::EbpfLogger;
use dio_trace_common::abi::{
    BufferedUse, CacheUser, Counter, CounterKey, FileId, Stat, UnaskedSum,
};
use tokio::{
    io::unix::AsyncFd,
    task::coop::consume_budget,
    time::{Interval, MissedTickBehavior, interval},
};

use crate::{
    kernel::{preflight, release},
    model::{AttachMode, CacheTotals, Event, Gap, MissingProbe, Totals, in_flight},
    system::symbols::Stacks,
    tracer::{
        Options, Purpose, Scope,
        attach::{Coverage, Progress, attach_all},
        cache,
        decode::decode,
        info::skipped_runs,
        load::{self, Kernel},
        selftest, targets, totals, unasked,
    },
    util::{clock::Clock, stdio::note},
};

/// How long an event may wait in the ring buffer before it is read. The probes wake the reader only
/// when 64 KiB are waiting.
const FETCH_EVERY: Duration = Duration::from_millis(20);
/// How long requests in flight may take to complete once tracing ends.
const IN_FLIGHT: Duration = Duration::from_millis(500);
/// How long an event may wait if it has a stack. Shorter, because addresses cannot be resolved once
/// the process has exited.
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
    log: Option<EbpfLogger<ProbeLog>>,
    /// When all probes were attached (CLOCK_MONOTONIC in ns). Before and after, a direct request whose
    /// issue is not probed looks like buffered access.
    complete: Range<u64>,
    /// See [`Options::expect_direct`].
    expects_direct: bool,
}

/// The probes' messages, as lines on stderr.
struct ProbeLog;

impl log::Log for ProbeLog {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        note!("probe: {}", record.args());
    }

    fn flush(&self) {}
}

impl Tracer {
    /// Runs the preflight checks, loads and attaches the probes, and runs the self-test. Calls
    /// `progress` meanwhile. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// If a requirement is missing; the error says which, and what to do. Nothing stays attached.
    pub fn start(options: &Options, progress: &mut Progress<'_>) -> Result<Self> {
        preflight::check()?;
        let kernel = Kernel::read(options.table())?;
        if options.purpose == Purpose::PageCache {
            cache::check(&kernel)?;
        }
        let mut bpf = load::load(&kernel, options)?;
        if let Scope::Processes { pids, .. } = &options.scope {
            for pid in pids {
                targets::add(&mut bpf, *pid)?;
            }
        }
        let add_descendants = |bpf: &mut Ebpf| match &options.scope {
            Scope::Processes { pids, children: true } => targets::add_descendants(bpf, pids),
            _ => Ok(()),
        };
        let coverage = attach_all(&mut bpf, &kernel, options, progress, add_descendants)
            .map_err(|error| by_cgroup(error, options))?;
        let ring = bpf.take_map("EVENTS").context("the object has no map EVENTS")?;
        // SAFETY: the RingBuf owns its descriptor and keeps it open as long as it lives.
        let ring = unsafe { AsyncFd::register(RingBuf::try_from(ring)?) }?;
        let every = if options.stacks { FETCH_STACKS_EVERY } else { FETCH_EVERY };
        let mut tick = interval(every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let log = if options.log {
            Some(
                EbpfLogger::init_with_logger(&mut bpf, ProbeLog)
                    .context("cannot read the messages")?,
            )
        } else {
            None
        };
        let dark = Vec::new();
        let (complete, expects_direct) = (0..u64::MAX, options.expect_direct);
        let mut tracer = Self { bpf, ring, tick, coverage, dark, log, complete, expects_direct };
        if options.purpose == Purpose::DirectIo {
            tracer.self_test(options.is_filtered())?;
        }
        totals::forget_buffered_uses(&mut tracer.bpf)?;
        tracer.complete.start = Clock::monotonic();
        Ok(tracer)
    }

    /// Issues requests to see the probes fire. They are left out of all reports.
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

    /// What the self-test did not see, see [`Totals::dark`].
    #[must_use]
    pub fn dark(&self) -> &[MissingProbe] {
        &self.dark
    }

    /// The APIs of which the self-test saw none of its own requests.
    pub fn blind(&self) -> impl Iterator<Item = &str> {
        self.dark.iter().filter(|gap| gap.gap == Gap::Blind).map(|gap| gap.probe.as_str())
    }

    /// The probes that are attached, and those that could not be.
    #[must_use]
    pub fn coverage(&self) -> (&[String], &[MissingProbe]) {
        (&self.coverage.attached, &self.coverage.missing)
    }

    /// How the probes are attached.
    #[must_use]
    pub const fn attach(&self) -> AttachMode {
        self.coverage.attach
    }

    /// The stacks that requests refer to; `None` if stacks are not captured.
    ///
    /// # Errors
    /// If the object has no stack map.
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

    /// Adds a process to the traced ones of a [`Scope::Processes`].
    ///
    /// # Errors
    /// If the set of traced processes is full.
    pub fn add_process(&mut self, pid: u32) -> Result<()> {
        targets::add(&mut self.bpf, pid)
    }

    /// Removes a process from the traced ones; the children that it forked meanwhile stay traced.
    ///
    /// # Errors
    /// If the process is not traced.
    pub fn remove_process(&mut self, pid: u32) -> Result<()> {
        targets::remove(&mut self.bpf, pid)
    }

    /// The processes of a [`Scope::Processes`] that are currently traced.
    ///
    /// # Errors
    /// If the set of traced processes cannot be read.
    pub fn processes(&self) -> Result<Vec<u32>> {
        targets::present(&self.bpf)
    }

    /// The next event, if one is waiting.
    pub fn waiting(&mut self) -> Option<Event> {
        loop {
            let item = self.ring.get_mut().next()?;
            if let Some(event) = decode(&item).filter(|event| is_reported(event, &self.complete)) {
                return Some(event);
            }
        }
    }

    /// Waits for the next event and returns it. Cancel safe: no event is lost.
    ///
    /// # Errors
    /// If waiting for the ring buffer fails.
    pub async fn next(&mut self) -> Result<Event> {
        loop {
            // Yields to timers and signals even if the ring fills as fast as it is read.
            consume_budget().await;
            if let Some(item) = self.ring.get_mut().next() {
                match decode(&item).filter(|event| is_reported(event, &self.complete)) {
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

    /// Lets no more requests begin, waits a moment for those in flight, passes the rest of the ring
    /// buffer to `sink`, and reads the totals. The probes stay attached until the tracer is dropped,
    /// which takes seconds.
    ///
    /// # Errors
    /// If the maps cannot be read.
    pub fn stop(&mut self, sink: &mut dyn FnMut(Event)) -> Result<Totals> {
        let skipped = self.skipped();
        self.complete.end = Clock::monotonic();
        let (buffered_uses, unasked) = (self.buffered_uses()?, self.unasked()?);
        totals::end(&mut self.bpf)?;
        self.settle(sink)?;
        self.drain(sink);
        self.flush_log();
        Ok(Totals { buffered_uses, unasked, ..self.counted(skipped)? })
    }

    /// Passes the events that are waiting to `sink`.
    fn drain(&mut self, sink: &mut dyn FnMut(Event)) {
        while let Some(event) = self.waiting() {
            sink(event);
        }
    }

    /// Waits until no request is in flight, but not for long. Passes events to `sink` meanwhile.
    fn settle(&mut self, sink: &mut dyn FnMut(Event)) -> Result<()> {
        let end = Instant::now() + IN_FLIGHT;
        loop {
            self.drain(sink);
            let done = in_flight(&totals::stats(&self.bpf)?) == 0 || Instant::now() >= end;
            // The last ones have ended, but are perhaps not yet counted and sent.
            thread::sleep(IN_FLIGHT / 50);
            if done {
                return Ok(());
            }
        }
    }

    /// True if the maps can be read with the current capabilities.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        totals::stats(&self.bpf).is_ok()
    }

    /// The totals so far. A request that completes during the call may be in some numbers and not
    /// in others.
    ///
    /// # Errors
    /// If the maps cannot be read.
    pub fn totals(&self) -> Result<Totals> {
        self.counted(self.skipped())
    }

    /// Number of events for which the ring buffer had no room.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn lost_events(&self) -> Result<u64> {
        totals::stat(&self.bpf, Stat::LostEvent)
    }

    /// The counters so far, those of the tracer's own requests left out.
    ///
    /// # Errors
    /// If the maps cannot be read.
    pub fn counters(&self) -> Result<Vec<(CounterKey, Counter)>> {
        let mut counters = totals::counters(&self.bpf)?;
        counters.retain(|(key, _)| key.tgid != process::id());
        Ok(counters)
    }

    fn counted(&self, skipped: Vec<(String, u64)>) -> Result<Totals> {
        let mut stats = totals::stats(&self.bpf)?;
        let (own, counters): (Vec<_>, Vec<_>) = totals::counters(&self.bpf)?
            .into_iter()
            .partition(|(key, _)| key.tgid == process::id());
        // The tracer's own requests (its self-test) are left out.
        let own: u64 = own.iter().map(|(_, counter)| counter.requests).sum();
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
            buffered_uses: self.buffered_uses()?,
            unasked: self.unasked()?,
        })
    }

    /// Pages that others than the tracer brought into the cache or made dirty.
    fn buffered_uses(&self) -> Result<Vec<(BufferedUse, u64)>> {
        let mut uses = totals::buffered_uses(&self.bpf)?;
        uses.retain(|(buffered_use, _)| buffered_use.tgid != process::id());
        Ok(uses)
    }

    /// See [`Totals::unasked`].
    fn unasked(&self) -> Result<Vec<(BufferedUse, UnaskedSum)>> {
        if self.expects_direct { unasked::uses(&self.bpf) } else { Ok(Vec::new()) }
    }

    /// What came into the page cache and left it so far, see [`Purpose::PageCache`].
    ///
    /// # Errors
    /// If the maps cannot be read.
    pub fn page_cache(&self) -> Result<CacheTotals> {
        // A redundant attachment has counted what another was skipped for.
        let doubled = self.coverage.programs.contains(&"tp_cache_added_2");
        cache::totals(&self.bpf, if doubled { Vec::new() } else { self.skipped() })
    }

    /// The processes that [`Self::page_cache`] knows.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn cache_users(&self) -> Result<Vec<(u32, CacheUser)>> {
        cache::users(&self.bpf)
    }

    /// Leaves a file out that need not be used directly. If that fails, its next first use is sent.
    pub fn rule_out(&mut self, file: FileId) {
        let _ = unasked::rule_out(&mut self.bpf, file);
    }

    /// Forgets a use of a file whose name is not known: its next use is sent again, with the name.
    pub fn forget(&mut self, unasked: &BufferedUse) {
        let _ = unasked::forget(&mut self.bpf, unasked);
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

/// Explains a failure to load a program that filters by cgroup. On 5.10 the helper is not available
/// to probes (kernel/trace/bpf_trace.c:bpf_tracing_func_proto).
fn by_cgroup(error: Error, options: &Options) -> Error {
    const HELPER: &str = "bpf_get_current_ancestor_cgroup_id";
    let missing = error.chain().any(|cause| cause.to_string().contains(HELPER));
    if options.wanted.cgroup.is_none() || !missing {
        return error;
    }
    anyhow!(
        "this kernel does not let probes read the cgroup (6.1 does): filter by process instead \
         (attach -p)"
    )
}

/// Number of requests of this process so far, and how many of them have an unknown verdict.
fn own_requests(bpf: &Ebpf) -> Result<selftest::Seen> {
    let own = totals::counters(bpf)?.into_iter().filter(|(key, _)| key.tgid == process::id());
    Ok(own.fold((0, 0), |(all, unknown), (key, counter)| {
        let undecided = if selftest::is_unknown(key.verdict) { counter.requests } else { 0 };
        (all + counter.requests, unknown + undecided)
    }))
}

/// True for everything but the tracer's own requests, and buffered uses while not all probes were
/// attached.
fn is_reported(event: &Event, complete: &Range<u64>) -> bool {
    match event {
        Event::Request(request) => request.task.tgid != process::id(),
        Event::File(_) => true,
        Event::RejectedOpen(rejected_open) => rejected_open.task.tgid != process::id(),
        Event::BufferedUse(event) => {
            event.buffered_use.is_unasked()
                || event.buffered_use.tgid != process::id() && complete.contains(&event.time_ns)
        }
    }
}
