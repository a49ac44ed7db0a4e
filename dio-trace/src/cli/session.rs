//! Runs one tracing session: resolves the subject, attaches the probes, handles events until the
//! end, and writes the summary or ends the recording.

use std::time::Duration;

use anyhow::{Result, bail};
use caps::Capability;
use dio_trace_common::abi::Stat;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    cli::{
        gate::Gating,
        interactive,
        live_table::LiveTable,
        metrics::{Asked, Exporter},
        output::{Nothing, Output},
        record::RecordArgs,
        subject::Subject,
        top::{TopOptions, Wake},
        trace::{Common, Trace},
        watch::{EndSignals, Ending, Family, Watch, any_runs, cannot_run, watch},
    },
    enrich::Enricher,
    flow::{
        alignment_probe::Sight,
        answer::{Basis, Included, conclude},
        explained::{ExplainedRequest, WatchedEffects},
        group::By,
        lost::{LostRequests, LostRow, with_events},
        pipeline::Pipeline,
        side_events::{MixedAccess, RejectedOpenRow},
        sink::Sink,
        summary::Scope,
        unasked::Expected,
    },
    kernel::{page_size, release},
    model::{AttachMode, Event, RequestFilter, Totals},
    recording::recorder::Recorder,
    system::{cgroup::is_populated, open_files::direct_fds},
    tracer::{Options, Purpose, Tracer},
    util::{
        clock::Clock,
        privilege::{self, READING_MAPS, give_up_but, works_without},
        stdio::note,
    },
};

/// Number of events that are handled before timers and signals are looked at.
const BATCH: usize = 256;
/// Maximum time that a line waits in the output buffer.
const FLUSH_EVERY: Duration = Duration::from_millis(200);
/// How often lost events are looked for.
const COMPARE_EVERY: Duration = Duration::from_secs(1);
/// Longest time that events are taken before the totals are shown.
const CATCH_UP: Duration = Duration::from_millis(200);

/// The destination of a trace.
#[derive(Clone, Copy)]
pub(super) enum To<'a> {
    /// Text or JSON lines, as the verb's options select.
    Output,
    Recording(&'a RecordArgs),
    /// Text or JSON lines, without the requests.
    Sums,
    /// Metrics alone.
    Nothing,
    Top(&'a TopOptions),
}

/// Runs a verb that traces, and returns the exit code.
pub(super) async fn run(verb: &Trace, to: To<'_>) -> Result<u8> {
    let common = verb.common();
    let record = if let To::Recording(args) = to { Some(args) } else { None };
    if let Trace::Run { command, .. } = verb
        && let Some(code) = cannot_run(&command[0])
    {
        return Ok(code);
    }
    let subject = Subject::of(verb)?;
    record.map_or(Ok(()), |args| args.check(verb))?;
    let output = match to {
        To::Top(options) => Output::top(options)?,
        To::Output => Output::open(common, common.output.as_deref())?,
        To::Recording(_) => Output::open(common, None)?,
        To::Sums => Output::open(common, None)?.without_requests(),
        To::Nothing => Output::Nothing(Nothing),
    };
    let gate = Gating::open(verb)?;
    let wanted = common.filters.wanted()?;
    let selected = wanted != RequestFilter::ALL || !common.filter().is_open();
    let all = common.all || record.is_some_and(RecordArgs::wants_all);
    let options = Options {
        purpose: Purpose::DirectIo,
        scope: subject.scope(),
        attach: common.attach.wish(),
        all,
        cached: common.cached,
        why_eagain: common.why_eagain,
        expect_direct: !common.expect_direct.is_empty(),
        verify_stable: common.verify_stable,
        stacks: common.stack || common.by == Some(By::Stack),
        ring: common.ring,
        log: common.verbose > 1,
        wanted,
    };
    // Before attaching, which takes seconds: an address in use is an error at once.
    let exporter = Exporter::open(&common.metrics).await?;
    let mut tracer = interactive::with_progress(|progress| Tracer::start(&options, progress))?;
    if !common.force_blind {
        refuse_if_blind(&tracer)?;
    }
    let recorder = record.map(|args| args.start(verb, &subject, &tracer)).transpose()?;
    let family = Family::of(&subject, &tracer)?;
    let started = Instant::now(); // before the command begins
    let (watch, text) = watch(verb, &subject, &family, &mut tracer)?;
    let ends = EndSignals::new()?; // before the user is told to press Ctrl-C
    announce(&tracer, &text, common);
    list_open(&family.all(), common.verbose > 0);
    let mut enricher = Enricher::with_stacks(tracer.stacks(&options)?);
    enricher.look_around(&family.all());
    give_up_privilege(&tracer);
    let watched = WatchedEffects::by(tracer.coverage().0, page_size());
    let mut pipeline = Pipeline::new(enricher, Clock::now(), watched, common.filter())
        .with_sight(Sight { sees_all: all, shows_all: all });
    // Counters do not know the cause of a request.
    if recorder.is_none() && output.has_every_line() && common.filter().causes.is_empty() {
        pipeline.lost = Some(LostRequests::default());
    }
    let scope = family.scope(text.clone());
    let family = (common.verbose > 0).then_some(family);
    let table = LiveTable::new(common);
    let mut session = Session {
        tracer,
        pipeline,
        output,
        gate,
        table,
        exporter,
        recorder,
        family,
        scope,
        expected: Expected(common.expect_direct.clone()),
        all,
        idle_at: 0,
        compared: started,
        selected,
        started,
    };
    let dump_signal =
        record.filter(|args| args.is_flight_recorder()).map(|_| SignalKind::user_defined1());
    session.output.start(&session.tracer, &text)?;
    let dump_signal = dump_signal.map(signal).transpose()?;
    let code = session.run(Ending::new(watch, common.duration, ends), dump_signal).await?;
    session.output.stop();
    session.output.sink().flush()?;
    interactive::quit_at_next_signal();
    match record {
        Some(_) => session.finish_recording().map(|()| code.unwrap_or(0)),
        None => session.finish(code),
    }
}

/// # Errors
/// If the self-test saw none of its own requests through an API: no result would be true of it.
fn refuse_if_blind(tracer: &Tracer) -> Result<()> {
    let blind: Vec<&str> = tracer.blind().collect();
    if blind.is_empty() {
        return Ok(());
    }
    let (way, other) = match tracer.attach() {
        AttachMode::Fentry => ("fentry", "kprobe"),
        AttachMode::Kprobe => ("kprobe", "fentry"),
    };
    bail!(
        "blind to requests by {}: with {way}, the probes do not see this program's own test reads \
         on this kernel ({}): try --attach {other}; `sudo dio-trace doctor` shows the probes, and \
         --force-blind traces all the same",
        blind.join(", "),
        release()
    )
}

/// Drops the capabilities that are not needed to read maps, /proc and files. The attached probes
/// are not affected.
pub(super) fn give_up_privilege(tracer: &Tracer) {
    const EITHER: &[Capability] = &[READING_MAPS, Capability::CAP_SYS_ADMIN];
    let result = works_without(EITHER, || tracer.is_readable()).and_then(|readable| {
        let maps = if readable { &[][..] } else { &[READING_MAPS] };
        give_up_but(&[privilege::LOOKING, maps].concat())
    });
    if let Err(error) = result {
        note!("note: keeps all its capabilities: {error}");
    }
}

/// Notes on stderr what is traced, and with how many probes.
pub(super) fn say_what(tracer: &Tracer, subject: &str, is_limited: bool) {
    let until = if is_limited { "" } else { "; Ctrl-C to stop" };
    note!(
        "tracing {subject} with {} probes by {}{until}",
        tracer.coverage().0.len(),
        tracer.attach().as_str()
    );
}

/// Notes on stderr what is traced, with which probes, and which probes are missing.
fn announce(tracer: &Tracer, subject: &str, common: &Common) {
    say_what(tracer, subject, common.duration.is_some());
    let (attached, missing) = tracer.coverage();
    for gap in missing.iter().chain(tracer.dark()) {
        note!("note: {}: {}", gap.probe, gap.why);
    }
    if common.verbose > 0 {
        note!("probes: {}", attached.join(" "));
    }
}

struct Session {
    tracer: Tracer,
    pipeline: Pipeline,
    output: Output,
    gate: Option<Gating>,
    table: LiveTable,
    /// Gives the metrics to who asks for them.
    exporter: Option<Exporter>,
    /// Receives the events instead of the output.
    recorder: Option<Recorder>,
    /// The processes that are traced by id; `None` if new ones need not be noted on stderr.
    family: Option<Family>,
    scope: Scope,
    /// The files of `--expect-direct`.
    expected: Expected,
    /// Every request has an event, not only findings.
    all: bool,
    /// When the ring buffer was last seen empty, CLOCK_MONOTONIC in ns.
    idle_at: u64,
    /// When lost events were last looked for.
    compared: Instant,
    /// True if filters select requests.
    selected: bool,
    /// When tracing began.
    started: Instant,
}

impl Session {
    /// Handles events until the run ends. `dump_signal` makes a flight recorder write its memory.
    /// Returns the exit code of the command; `None` if there is none or it has not ended.
    async fn run(
        &mut self,
        mut ending: Ending,
        mut dump_signal: Option<Signal>,
    ) -> Result<Option<u8>> {
        let mut flush = interval(FLUSH_EVERY);
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = self.tracer.next() => {
                    self.take(event?)?;
                    self.take_waiting()?;
                    continue;
                }
                wake = self.output.wake() => {
                    if self.woken(wake)? {
                        return Ok(None);
                    }
                }
                asked = Exporter::asked(&mut self.exporter) => self.export(asked)?,
                _ = flush.tick() => {
                    if self.flush()? || self.is_left(&ending.watch)? {
                        return Ok(None);
                    }
                }
                () = received(&mut dump_signal) => self.dump("SIGUSR1 asked for it")?,
                code = ending.reached() => return code,
            }
        }
    }

    /// Tells of requests whose own lines were lost, once their number is known.
    fn tell_lost(&mut self) -> Result<()> {
        let Self { tracer, pipeline, output, gate, table, exporter, all, idle_at, .. } = self;
        let Some(lost) = &mut pipeline.lost else { return Ok(()) };
        let rows = lost.found(*idle_at);
        if self.compared.elapsed() >= COMPARE_EVERY {
            self.compared = Instant::now();
            let count = tracer.lost_events()?;
            if lost.wants_counters(count) {
                let counters = tracer.counters()?;
                lost.compare_with((count, Clock::monotonic()), with_events(&counters, *all));
            }
        }
        let mut sink = Gated { gate, table, exporter, sink: output.sink() };
        pipeline.lost_requests(rows, &mut sink)
    }

    /// Handles the events that are waiting, but not so many that timers and signals have to wait.
    fn take_waiting(&mut self) -> Result<()> {
        for _ in 0..BATCH {
            let Some(event) = self.tracer.waiting() else {
                self.idle_at = Clock::monotonic();
                return self.output.sink().flush();
            };
            self.take(event)?;
        }
        Ok(())
    }

    fn take(&mut self, event: Event) -> Result<()> {
        let Self { expected, pipeline, tracer, .. } = self;
        match expected.file_of(&event, &mut pipeline.enricher) {
            None | Some((_, Some(true))) => {}
            Some((file, fits)) => {
                if fits == Some(false) {
                    tracer.rule_out(file);
                }
                if let Event::BufferedUse(event) = &event {
                    tracer.forget(&event.buffered_use);
                }
                return Ok(());
            }
        }
        let Self { pipeline, output, gate, table, exporter, recorder, .. } = self;
        match recorder {
            Some(recorder) => {
                recorder.take(event, &mut pipeline.enricher);
                Ok(())
            }
            None => {
                let mut sink = Gated { gate, table, exporter, sink: output.sink() };
                pipeline.event(&event, &mut sink)?;
                if let Some(exporter) = exporter {
                    exporter.settle(&mut pipeline.enricher);
                }
                Ok(())
            }
        }
    }

    /// Handles a request of the live screen; returns true if the run is to end.
    fn woken(&mut self, wake: Wake) -> Result<bool> {
        if let Wake::Look = wake {
            let totals = self.totals()?;
            self.output.look(&totals, &mut self.pipeline.enricher)?;
        }
        Ok(matches!(wake, Wake::Quit))
    }

    /// Gives the metrics to who asked for them.
    fn export(&mut self, asked: Asked) -> Result<()> {
        let totals = self.totals()?;
        let Some(exporter) = &mut self.exporter else { return Ok(()) };
        exporter.answer(asked, &totals, &mut self.pipeline.enricher)
    }

    /// The totals of this moment, of the requests that the filters take.
    fn totals(&mut self) -> Result<Totals> {
        let mut totals = self.tracer.totals()?;
        // What is counted and held back is known only once its event was taken. Events may come
        // faster than they are taken.
        let end = Instant::now() + CATCH_UP;
        while let Some(event) = self.tracer.waiting() {
            self.take(event)?;
            if Instant::now() >= end {
                break;
            }
        }
        self.keep_expected(&mut totals);
        self.pipeline.change_counters(&mut totals.counters);
        let Pipeline { filter, enricher, .. } = &mut self.pipeline;
        filter.retain(&mut totals, enricher);
        Ok(totals)
    }

    /// The totals of this moment, whatever the filters take.
    fn all_totals(&mut self) -> Result<Totals> {
        let mut totals = self.tracer.totals()?;
        self.keep_expected(&mut totals);
        Ok(totals)
    }

    /// Removes the uses that did not ask for direct I/O of other files than those of
    /// `--expect-direct`. The probes count them until the files are ruled out.
    fn keep_expected(&mut self, totals: &mut Totals) {
        let Self { expected, pipeline, tracer, .. } = self;
        totals.unasked.retain(|(unasked, _)| {
            let fits = expected.takes(unasked, &pipeline.enricher);
            if fits == Some(false) {
                tracer.rule_out(unasked.file);
                tracer.forget(unasked);
            }
            fits == Some(true)
        });
    }

    /// Updates the traced processes; returns true if none of the watched ones is left.
    fn is_left(&mut self, watch: &Watch) -> Result<bool> {
        let descendants = matches!(watch, Watch::Descendants);
        if let Watch::Cgroup(folder) = watch {
            return Ok(!is_populated(folder));
        }
        if !descendants && self.family.is_none() {
            return Ok(false);
        }
        let now = self.tracer.processes()?;
        if let Some(family) = &mut self.family {
            family.update(&now);
        }
        Ok(descendants && !any_runs(&now))
    }

    /// Flushes buffered output; returns true if the recorder stopped early.
    fn flush(&mut self) -> Result<bool> {
        self.settle_probes()?;
        self.tell_lost()?;
        self.output.sink().flush()?;
        if self.recorder.as_mut().is_some_and(Recorder::wants_totals) {
            let totals = self.all_totals()?;
            let Some(recorder) = &mut self.recorder else { return Ok(false) };
            recorder.totals(&totals, &mut self.pipeline.enricher);
        }
        let Some(recorder) = &mut self.recorder else { return Ok(false) };
        let stopped = recorder.tick(&mut self.pipeline.enricher).is_some();
        if recorder.wants_dump() {
            self.dump("a finding matched --dump-on")?;
        }
        Ok(stopped)
    }

    /// Passes on the requests that were held back for long enough.
    fn settle_probes(&mut self) -> Result<()> {
        let Self { tracer, pipeline, output, gate, table, exporter, .. } = self;
        let mut sink = Gated { gate, table, exporter, sink: output.sink() };
        if pipeline.expire_probes(Clock::monotonic(), &mut sink)? {
            pipeline.decide_probes(&tracer.totals()?.counters, &mut sink)?;
        }
        Ok(())
    }

    /// Writes the memory of a flight recorder to a file.
    fn dump(&mut self, why: &str) -> Result<()> {
        let totals = self.all_totals()?;
        let Some(recorder) = &mut self.recorder else { return Ok(()) };
        recorder.dump(&totals, &mut self.pipeline.enricher, why);
        note!("wrote the last requests: {why}");
        Ok(())
    }

    /// Stops tracing, ends the recording with the final totals, and detaches the probes.
    fn finish_recording(self) -> Result<()> {
        let Self { mut tracer, mut pipeline, recorder, expected, .. } = self;
        let Some(mut recorder) = recorder else { return Ok(()) };
        let enricher = &mut pipeline.enricher;
        let mut totals = tracer.stop(&mut |event| {
            if expected.takes_event(&event, enricher) {
                recorder.take(event, enricher);
            }
        })?;
        expected.conclude(&mut totals, enricher);
        let result = RecordArgs::finished(&recorder.finish(&totals, enricher));
        detach(tracer);
        result
    }

    /// What the figures of the summary stand for.
    fn basis(&self) -> Basis {
        let filter = &self.pipeline.filter;
        let included = match (filter.causes.is_empty(), filter.takes_decisions()) {
            (false, _) => Included::Causes,
            (true, false) => Included::Verdicts,
            (true, true) => Included::Every,
        };
        Basis {
            included,
            selected: self.selected,
            lasted_ns: u64::try_from(self.started.elapsed().as_nanos()).ok(),
            ..Basis::LIVE
        }
    }

    /// Stops tracing, writes the summary, detaches the probes, and returns the exit code. `code` is the
    /// command's exit code; `None` if there is none or it has not ended.
    fn finish(self, code: Option<u8>) -> Result<u8> {
        let basis = self.basis();
        let Self {
            mut tracer,
            mut pipeline,
            mut output,
            mut gate,
            mut table,
            mut exporter,
            scope,
            expected,
            all,
            ..
        } = self;
        let mut result = Ok(());
        let mut totals = tracer.stop(&mut |event| {
            if result.is_ok() && expected.takes_event(&event, &mut pipeline.enricher) {
                let mut sink = Gated {
                    gate: &mut gate,
                    table: &mut table,
                    exporter: &mut exporter,
                    sink: output.sink(),
                };
                result = pipeline.event(&event, &mut sink);
            }
        })?;
        result?;
        expected.conclude(&mut totals, &pipeline.enricher);
        let counters = totals.counters.iter().map(|(key, counter)| (key, counter));
        let mut sink = Gated {
            gate: &mut gate,
            table: &mut table,
            exporter: &mut exporter,
            sink: output.sink(),
        };
        pipeline.finish_probes(counters, &mut sink)?;
        if let Some(lost) = &mut pipeline.lost {
            let rows = lost
                .rest(totals.stats[Stat::LostEvent as usize], with_events(&totals.counters, all));
            pipeline.lost_requests(rows, &mut sink)?;
        }
        pipeline.change_counters(&mut totals.counters);
        let mut summary = pipeline.summary(&mut totals, &[], u32::MAX);
        summary.scope = scope;
        conclude(&mut summary, &pipeline.causes, &basis);
        summary.groups = table.groups(&totals, &mut pipeline.enricher);
        output.sink().summary(&summary)?;
        let code = gate.map_or(Ok(code.unwrap_or(0)), |gate| gate.end(&summary, code));
        detach(tracer);
        code
    }
}

/// A sink that also passes requests to the gate, if there is one, and to the closing table.
struct Gated<'a> {
    gate: &'a mut Option<Gating>,
    table: &'a mut LiveTable,
    exporter: &'a mut Option<Exporter>,
    sink: &'a mut dyn Sink,
}

impl Sink for Gated<'_> {
    fn request(&mut self, record: &ExplainedRequest) -> Result<()> {
        if let Some(gate) = self.gate {
            gate.take(record);
        }
        self.table.count(record);
        if let Some(exporter) = self.exporter {
            exporter.count(record);
        }
        self.sink.request(record)
    }

    fn rejected_open(&mut self, row: &RejectedOpenRow) -> Result<()> {
        if let Some(exporter) = self.exporter {
            exporter.count_rejected_open(row);
        }
        self.sink.rejected_open(row)
    }

    fn mixed_access(&mut self, mixing: &MixedAccess) -> Result<()> {
        self.sink.mixed_access(mixing)
    }

    fn lost_requests(&mut self, row: &LostRow) -> Result<()> {
        self.sink.lost_requests(row)
    }
}

/// Detaches the probes, once everything is said.
fn detach(tracer: Tracer) {
    interactive::say_to_person("detaching…");
    drop(tracer);
}

/// Waits for the signal; without one, waits for ever.
async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            let _ = signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Notes on stderr which descriptors are already open with O_DIRECT: the first few, or `all`.
fn list_open(pids: &[u32], all: bool) {
    const SHOWN: usize = 8;
    let open = pids.iter().flat_map(|pid| direct_fds(*pid).into_iter().map(move |fd| (pid, fd)));
    let mut more = 0;
    for (n, (pid, open)) in open.enumerate() {
        if all || n < SHOWN {
            note!("open with O_DIRECT: process {pid} fd {} {}", open.fd, open.path);
        } else {
            more += 1;
        }
    }
    if more != 0 {
        note!("open with O_DIRECT: {more} more descriptors (-v lists them)");
    }
}
