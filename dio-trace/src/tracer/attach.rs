//! Attaches every probe of the probe table, by fentry/fexit or by kprobe/kretprobe, and records
//! which ones could not be attached.

use anyhow::{Context as _, Error, Result, anyhow};
use aya::{
    Ebpf,
    programs::{FEntry, FExit, KProbe, Program, ProgramError, RawTracePoint},
};

use crate::{
    kernel::{
        preflight::{NO_KPROBES, has_kprobes, lacks_perf_events},
        probes::{Duty, Probe, Tracepoint, When},
    },
    model::{AttachMode, Gap, MissingProbe},
    tracer::{Options, load::Kernel},
};

/// The probes that were attached, and those that could not be.
pub(super) struct Coverage {
    pub(super) attach: AttachMode,
    pub(super) attached: Vec<String>,
    pub(super) missing: Vec<MissingProbe>,
    /// Names of the attached programs, in the order of attachment.
    pub(super) programs: Vec<&'static str>,
}

/// Called with the number of probes attached so far and the total.
pub(super) type Progress<'a> = dyn FnMut(usize, usize) + 'a;

/// Attaches tracepoints, then evidence and completions, then issues. Calls `forks_are_seen` after
/// the tracepoints: from then on, the fork probe adds the children of a traced process.
///
/// # Errors
/// If a probe that every verdict needs cannot be attached, and those of `forks_are_seen`. Programs
/// attached so far are detached when `bpf` is dropped.
pub(super) fn attach_all(
    bpf: &mut Ebpf,
    kernel: &Kernel,
    options: &Options,
    progress: &mut Progress<'_>,
    forks_are_seen: impl FnOnce(&mut Ebpf) -> Result<()>,
) -> Result<Coverage> {
    let attach = choose(bpf, kernel, options)?;
    let mut coverage =
        Coverage { attach, attached: Vec::new(), missing: Vec::new(), programs: Vec::new() };
    let wanted = |when| match when {
        When::Always => true,
        When::Filtered => options.is_filtered(),
        When::Kprobe => attach == AttachMode::Kprobe,
    };
    let copies = attach == AttachMode::Fentry && kernel.preemptible;
    let of_mode = |probe: &&Probe| {
        (copies || !probe.copies)
            && (attach == AttachMode::Kprobe || !probe.kprobe_only)
            && probe.only_with.is_none_or(|switch| options.has(switch))
    };
    let table = options.table();
    let tracepoints: Vec<_> = table.tracepoints.iter().filter(|t| wanted(t.when)).collect();
    let probes: Vec<_> = table.probes.iter().filter(of_mode).collect();
    let all = tracepoints.len() + probes.len() + table.last.len();
    for (done, tracepoint) in tracepoints.iter().enumerate() {
        progress(done, all);
        coverage.tracepoint(bpf, kernel, tracepoint)?;
    }
    forks_are_seen(bpf)?;
    for (done, probe) in probes.iter().enumerate() {
        progress(tracepoints.len() + done, all);
        coverage.probe(bpf, kernel, probe)?;
    }
    for tracepoint in table.last {
        coverage.tracepoint(bpf, kernel, tracepoint)?;
    }
    Ok(coverage)
}

/// Chooses fentry if the kernel supports it, else kprobe. Tests this by attaching one program.
fn choose(bpf: &mut Ebpf, kernel: &Kernel, options: &Options) -> Result<AttachMode> {
    let wish = options.attach;
    if wish == Some(AttachMode::Kprobe) && !has_kprobes() {
        return Err(anyhow!("--attach kprobe: {NO_KPROBES}; try --attach fentry"));
    }
    if let Some(attach) = wish {
        return Ok(attach);
    }
    let (trial, function) = options.table().trial;
    let fentry = attach_fentry(bpf, kernel, trial, function);
    if let Some(program) = bpf.program_mut(trial) {
        let _ = unload(program);
    }
    match fentry {
        Ok(()) => Ok(AttachMode::Fentry),
        Err(refused) => {
            if !has_kprobes() {
                return Err(anyhow!(
                    "this kernel can be probed neither by fentry ({}) nor by kprobes ({NO_KPROBES}): \
                     use a kernel with one of them, such as a distribution's; inside a container \
                     or sandbox, run dio-trace outside of it",
                    plain(&refused)
                ));
            }
            Ok(AttachMode::Kprobe)
        }
    }
}

impl Coverage {
    fn probe(&mut self, bpf: &mut Ebpf, kernel: &Kernel, probe: &Probe) -> Result<()> {
        let Some(&function) = probe.functions.iter().find(|f| kernel.types.has_func(f)) else {
            return self.without(probe.functions[0], probe.duty, anyhow!("not in this kernel"));
        };
        match self.attach_probe(bpf, kernel, probe, function) {
            Ok(name) => {
                if !self.attached.contains(&name) {
                    self.attached.push(name);
                }
                Ok(())
            }
            Err(why) => self.without(function, probe.duty, why),
        }
    }

    /// Attaches by fentry if that is the mode and the function's prototype allows it, else by
    /// kprobe: 5.10 passes fentry programs no pointers to scalars, and the number of arguments
    /// differs between kernels. Returns the name to report.
    fn attach_probe(
        &mut self,
        bpf: &mut Ebpf,
        kernel: &Kernel,
        probe: &Probe,
        function: &'static str,
    ) -> Result<String> {
        let fits = probe.args.is_none_or(|args| {
            kernel.types.func_params(function).is_some_and(|params| params.len() == args)
        });
        if self.attach == AttachMode::Kprobe {
            if probe.tracepoint.is_some_and(|name| self.attached.iter().any(|a| a == name)) {
                return Ok(function.to_owned());
            }
            if probe.kprobe.is_empty() {
                return Err(match probe.tracepoint {
                    Some(tracepoint) => anyhow!("only the tracepoint {tracepoint} does this"),
                    None => anyhow!("only fexit does this"),
                });
            }
            self.programs_of(bpf, probe.kprobe, |bpf, name| attach_kprobe(bpf, name, function))?;
            return Ok(function.to_owned());
        }
        let refused = if fits {
            let done = self.programs.len();
            match self.programs_of(bpf, probe.fentry, |bpf, name| {
                attach_fentry(bpf, kernel, name, function)
            }) {
                Ok(()) => return Ok(function.to_owned()),
                Err(why) => {
                    for name in self.programs.drain(done..) {
                        if let Some(program) = bpf.program_mut(name) {
                            let _ = unload(program);
                        }
                    }
                    why
                }
            }
        } else {
            anyhow!("its arguments differ from the known ones")
        };
        if probe.kprobe.is_empty() || !has_kprobes() {
            return Err(refused);
        }
        self.programs_of(bpf, probe.kprobe, |bpf, name| attach_kprobe(bpf, name, function))
            .map_err(|why| anyhow!("{}; by kprobe: {}", plain(&refused), plain(&why)))?;
        Ok(format!("{function} (kprobe)"))
    }

    fn programs_of(
        &mut self,
        bpf: &mut Ebpf,
        names: &'static [&'static str],
        attach: impl Fn(&mut Ebpf, &'static str) -> Result<()>,
    ) -> Result<()> {
        for name in names {
            attach(bpf, name)?;
            self.programs.push(name);
        }
        Ok(())
    }

    fn tracepoint(&mut self, bpf: &mut Ebpf, kernel: &Kernel, tp: &Tracepoint) -> Result<()> {
        let known = |name: &&'static str| {
            kernel.types.tracepoint_params(name).map(|params| (*name, params))
        };
        let Some((name, params)) = tp.names.iter().find_map(known) else {
            return self.without(tp.names[0], tp.duty, anyhow!("not in this kernel"));
        };
        let Some((program, _)) = tp.programs.iter().find(|(_, fits)| fits(&params)) else {
            let why = anyhow!("its arguments differ from the known ones");
            return self.without(name, tp.duty, why);
        };
        let copies = if kernel.preemptible { tp.copies } else { &[] };
        for program in [*program].iter().chain(copies) {
            if let Err(why) = attach_tracepoint(bpf, program, name) {
                return self.without(name, tp.duty, why);
            }
            self.programs.push(program);
        }
        self.attached.push(name.to_owned());
        Ok(())
    }

    /// Records a probe that could not be attached; fails if every verdict needs it.
    fn without(&mut self, name: &str, duty: Duty, why: Error) -> Result<()> {
        let reason = plain(&why);
        let loses = match duty {
            Duty::Must => {
                return Err(anyhow!(
                    "cannot attach to {name}, which every verdict needs: {reason}"
                ));
            }
            // A kernel without the function does not have the path: nothing is lost.
            Duty::Optional => return Ok(()),
            Duty::Api(api) => format!("{reason}; {api} requests may be missed"),
            Duty::Effect(effect) => format!("{reason}; not known: {}", effect.as_str()),
        };
        self.missing.push(MissingProbe { probe: name.to_owned(), gap: Gap::Missing, why: loses });
        Ok(())
    }
}

/// The error in one line: the failed step, and the kernel's error. A verifier log has thousands of
/// lines; the reason is the last one before the closing statistics.
fn plain(error: &Error) -> String {
    /// Characters. A verifier's line can be long, and a message may contain two of these texts.
    const LONGEST: usize = 600;
    const SUMS: [&str; 3] = ["processed ", "stack depth ", "verification time "];
    let mut text = error.chain().next().map(ToString::to_string).unwrap_or_default();
    let load = error.chain().find_map(|e| e.downcast_ref::<ProgramError>());
    if let Some(ProgramError::LoadError { verifier_log, .. }) = load {
        let log = verifier_log.to_string();
        let closing = |line: &str| SUMS.iter().any(|sum| line.starts_with(sum));
        let last = |line: &&str| !line.is_empty() && !closing(line);
        if let Some(line) = log.lines().rev().map(str::trim).find(last) {
            text = format!("{text}: {line}");
        }
    }
    if let Some(kernel) = error.root_cause().downcast_ref::<std::io::Error>() {
        text = format!("{text}: {kernel}");
    }
    text.lines().next().unwrap_or_default().chars().take(LONGEST).collect()
}

fn program<'a>(bpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program> {
    bpf.program_mut(name).with_context(|| format!("the object has no program {name}"))
}

fn attach_fentry(bpf: &mut Ebpf, kernel: &Kernel, name: &str, function: &str) -> Result<()> {
    match program(bpf, name)? {
        Program::FEntry(p) => fentry(p, kernel, function),
        Program::FExit(p) => fexit(p, kernel, function),
        _ => Err(anyhow!("program {name} is not an fentry program")),
    }
}

fn fentry(program: &mut FEntry, kernel: &Kernel, function: &str) -> Result<()> {
    program.load(function, &kernel.btf).context("fentry refused at load")?;
    program.attach().context("fentry refused at attach")?;
    Ok(())
}

fn fexit(program: &mut FExit, kernel: &Kernel, function: &str) -> Result<()> {
    program.load(function, &kernel.btf).context("fexit refused at load")?;
    program.attach().context("fexit refused at attach")?;
    Ok(())
}

fn attach_kprobe(bpf: &mut Ebpf, name: &str, function: &str) -> Result<()> {
    let program: &mut KProbe = program(bpf, name)?.try_into()?;
    program.load().context("kprobe refused at load")?;
    program.attach(function, 0).map_err(|error| match lacks_perf_events() {
        Some(missing) => anyhow!(missing),
        None => Error::new(error).context("kprobe refused at attach"),
    })?;
    Ok(())
}

fn attach_tracepoint(bpf: &mut Ebpf, name: &str, tracepoint: &str) -> Result<()> {
    let program: &mut RawTracePoint = program(bpf, name)?.try_into()?;
    program.load().context("raw tracepoint refused at load")?;
    program.attach(tracepoint).context("raw tracepoint refused at attach")?;
    Ok(())
}

/// Detaches and unloads a program of any type.
fn unload(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::FEntry(p) => p.unload(),
        Program::FExit(p) => p.unload(),
        Program::KProbe(p) => p.unload(),
        Program::RawTracePoint(p) => p.unload(),
        _ => Ok(()),
    }
}
