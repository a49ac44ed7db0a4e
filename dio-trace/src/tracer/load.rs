//! Loads the eBPF object: sets its constants (struct offsets, filters, options) and map sizes,
//! links kernel functions, and creates the maps.

use std::{borrow::Cow, fs};

use anyhow::{Context as _, Error, Result, anyhow};
use aya::{Btf, Ebpf, EbpfLoader};
use dio_trace_common::{
    abi::Counter,
    kfunc::{CAST, PREEMPTION, WORD},
    offsets::ABSENT,
    verdict::max_rw_count,
};

use crate::{
    kernel::{
        btf::Types,
        cache_probes::PERFORM_WRITE,
        page_size,
        preempt::preemptible,
        preflight::lacks_locked_memory,
        probes::{self, Table},
    },
    tracer::{Options, Purpose, Scope, kfunc},
};

/// Aligns the embedded object: an ELF file must start on an 8-byte boundary.
#[repr(C, align(32))]
struct Aligned<T: ?Sized>(T);

static ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!(env!("DIO_TRACE_OBJECT")));

/// The committed eBPF object for this architecture, on which the registers of a kprobe's arguments
/// depend (build.rs finds it). `cargo xtask bpf --check` verifies that it matches its source.
pub static OBJECT: &[u8] = &ALIGNED.0;

/// Bytes of the ring buffer: for each CPU, and in all at least and at most. If only findings are
/// emitted, which are rare; and if all requests are.
const RING_FINDINGS: (u32, u32, u32) = (1 << 20, 4 << 20, 64 << 20);
const RING_ALL: (u32, u32, u32) = (4 << 20, 16 << 20, 256 << 20);
/// The part of the memory that the ring buffer takes at most, if that is more than the least.
const RING_SHARE: u64 = 64;

/// Most bytes that the counters of all CPUs may take together, and the fewest and most counters
/// (dio-trace-ebpf/src/counters.rs:COUNTERS_MAX).
const COUNTER_BYTES: usize = 128 << 20;
const COUNTERS: (usize, usize) = (1024, 16_384);

/// The maps of `dio-trace cache`.
const CACHE_MAPS: [&str; 6] =
    ["PAGE_USES", "PAGE_USES_REST", "CACHE_FILES", "CACHE_USERS", "RECENT", "AHEAD"];

/// A struct member whose offset is set as a constant of the object.
struct Offset {
    global: &'static str,
    strukt: &'static str,
    member: &'static str,
    must: bool,
}

macro_rules! rows {
    ($($name:ident $struct:literal $member:literal $duty:ident;)*) => {
        &[$(Offset {
            global: stringify!($name),
            strukt: $struct,
            member: $member,
            must: matches!(stringify!($duty).as_bytes(), b"must"),
        },)*]
    };
}
const OFFSETS: &[Offset] = dio_trace_common::kernel_offsets!(rows);

/// The running kernel's properties that loading depends on.
pub(super) struct Kernel {
    /// Our index of the kernel's types.
    pub(super) types: Types,
    /// The same BTF as parsed by aya, for loading.
    pub(super) btf: Btf,
    /// The kernel may preempt a task inside a probe.
    pub(super) preemptible: bool,
    /// The JIT compiler is enabled. Interpreted programs cannot call kernel functions.
    compiles: bool,
}

impl Kernel {
    /// Reads and indexes /sys/kernel/btf/vmlinux.
    pub(super) fn read(table: Table) -> Result<Self> {
        const PATH: &str = "/sys/kernel/btf/vmlinux";
        let data = fs::read(PATH).with_context(|| format!("cannot read {PATH}"))?;
        let mut names = probes::names(table);
        names.extend(OFFSETS.iter().map(|offset| Cow::Borrowed(offset.strukt)));
        names.extend(PREEMPTION.iter().chain(CAST).map(|(_, name)| Cow::Borrowed(*name)));
        names.extend([Cow::Borrowed(WORD.0), Cow::Borrowed("thread_info")]);
        let types = Types::parse(data, |name| names.contains(name))
            .with_context(|| format!("cannot parse {PATH}"))?;
        let btf = Btf::parse(&types.with_indexed_names(), aya::Endianness::default())
            .with_context(|| format!("cannot parse {PATH}"))?;
        Ok(Self { types, btf, preemptible: preemptible(), compiles: compiles() })
    }

    /// The BTF id of [`WORD`], the struct that kernel memory is read as; `None` if programs cannot
    /// call the cast function.
    fn word(&self) -> Option<u32> {
        let (strukt, member) = WORD;
        let can = self.compiles && CAST.iter().all(|(_, name)| self.types.has_func(name));
        let first = self.types.offset(strukt, member).is_ok_and(|offset| offset == 0);
        self.types.struct_id(strukt).filter(|_| can && first)
    }
}

/// Where `task_struct.thread_info` says that the current system call is one of a 32-bit program: the
/// member, and the bit of its low 32 bits.
#[cfg(target_arch = "x86_64")]
const COMPAT: (&str, u32) = ("status", 1 << 1); // TS_COMPAT, arch/x86/include/asm/thread_info.h
#[cfg(not(target_arch = "x86_64"))]
const COMPAT: (&str, u32) = ("flags", 1 << 22); // TIF_32BIT, arch/arm64/include/asm/thread_info.h

/// Sets offsets and options as constants of the object, then parses it and creates its maps.
pub(super) fn load(kernel: &Kernel, options: &Options) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    loader.btf(Some(&kernel.btf));
    let offsets = resolve(&kernel.types)?;
    for (global, offset) in &offsets {
        loader.override_global(global, offset, true);
    }
    let filter = u32::from(!matches!(options.scope, Scope::System));
    let follow = u32::from(matches!(options.scope, Scope::Processes { children: true, .. }));
    let o_direct = libc::O_DIRECT as u32;
    let wanted_flag = if options.cached { 0 } else { o_direct };
    let o_append = libc::O_APPEND as u32;
    let (most, page_shift) = (max_rw_count(page_size()), page_size().ilog2());
    let thread_info = kernel.types.offset("task_struct", "thread_info")?;
    let compat = thread_info + kernel.types.offset("thread_info", COMPAT.0)?;
    let all = u32::from(options.all);
    let stacks = u32::from(options.stacks);
    let why_eagain = u32::from(options.why_eagain);
    let verify_stable = u32::from(options.verify_stable);
    let copies = u32::from(kernel.preemptible);
    let wanted = &options.wanted;
    let own = std::process::id();
    let cgroup = wanted.cgroup.unwrap_or_default();
    let filter_requests = u32::from(wanted.filters_requests());
    let filters = u32::from(filter != 0 || wanted.filters_threads());
    let pg_head = kernel.types.enumerator("PG_head").context("no PG_head in BTF")?;
    // At level 0 messages are off, and the verifier removes their code.
    let log_level = if options.log { log::Level::Trace as u8 } else { 0 };
    loader
        .override_global(aya_log::LEVEL, &log_level, true)
        .override_global("O_DIRECT", &o_direct, true)
        .override_global("WANTED_FLAG", &wanted_flag, true)
        .override_global("O_APPEND", &o_append, true)
        .override_global("MAX_RW_COUNT", &most, true)
        .override_global("PAGE_SHIFT", &page_shift, true)
        .override_global("COMPAT_WORD", &compat, true)
        .override_global("COMPAT_BIT", &COMPAT.1, true)
        .override_global("FILTER_THREADS", &filters, true)
        .override_global("FILTER_PIDS", &filter, true)
        .override_global("FOLLOW_CHILDREN", &follow, true)
        .override_global("EMIT_ALL", &all, true)
        .override_global("WHY_EAGAIN", &why_eagain, true)
        .override_global("VERIFY_STABLE", &verify_stable, true)
        .override_global("STACKS", &stacks, true)
        .override_global("COPIES", &copies, true)
        .override_global("OWN_TGID", &own, true)
        .override_global("WANTED_TID", &wanted.tid, true)
        .override_global("WANTED_CGROUP", &cgroup.id, true)
        .override_global("WANTED_CGROUP_LEVEL", &cgroup.level, true)
        .override_global("FILTER_REQUESTS", &filter_requests, true)
        .override_global("WANTED_OPS", &wanted.ops, true)
        .override_global("WANTED_APIS", &wanted.apis, true)
        .override_global("WANTED_DEV", &wanted.dev, true)
        .override_global("MIN_LATENCY", &wanted.min_latency_ns, true)
        .override_global("PG_HEAD", &pg_head, true)
        .map_max_entries("EVENTS", ring(options));
    if !options.stacks {
        loader.map_max_entries("STACK_TRACES", 1);
    }
    if !options.expect_direct {
        loader.map_max_entries("RULED_OUT", 1).map_max_entries("UNASKED_USES", 1);
    }
    if options.purpose != Purpose::PageCache {
        for map in CACHE_MAPS {
            loader.map_max_entries(map, 1);
        }
    }
    let perform_write = kernel.types.func_params(PERFORM_WRITE);
    let by_kiocb = u32::from(perform_write.is_some_and(|params| params.len() == 2));
    loader.override_global("PERFORM_WRITE_BY_KIOCB", &by_kiocb, true);
    let counters = counters()?;
    loader.override_global("COUNTER_PLACES", &counters, true);
    for map in ["COUNTERS", "COUNTED", "TAKEN", "KEYS"] {
        loader.map_max_entries(map, counters);
    }
    let word = kernel.word().unwrap_or(0);
    loader.override_global("WORD_TYPE", &word, true);
    let mut object = OBJECT.to_vec();
    // If probes cannot be preempted, the calls would only add cost.
    let id_if = |of_use: bool| move |name: &str| kernel.types.func_id(name).filter(|_| of_use);
    kfunc::link(&mut object, PREEMPTION, id_if(kernel.preemptible && kernel.compiles))?;
    kfunc::link(&mut object, CAST, id_if(word != 0))?;
    loader.load(&object).map_err(|error| {
        let error = Error::new(error).context("cannot load the eBPF object");
        let missing = is_eperm(&error).then(lacks_locked_memory).flatten();
        missing.map_or(error, |missing| anyhow!(missing))
    })
}

/// False if the JIT compiler is disabled by sysctl (Documentation/admin-guide/sysctl/net.rst).
fn compiles() -> bool {
    fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").map_or(true, |on| on.trim() != "0")
}

fn is_eperm(error: &Error) -> bool {
    let code = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error)
    };
    error.chain().any(|cause| code(cause) == Some(libc::EPERM))
}

/// Bytes of the ring buffer, a power of two.
fn ring(options: &Options) -> u32 {
    if let Some(bytes) = options.ring {
        return bytes.next_power_of_two().max(page_size() as u32);
    }
    // SAFETY: passes no pointers; a negative result is an error.
    let of = |name| u64::try_from(unsafe { libc::sysconf(name) }).unwrap_or(0);
    // Possible CPUs may be many more than there are.
    let (cpus, memory) = (of(libc::_SC_NPROCESSORS_ONLN), of(libc::_SC_PHYS_PAGES) * page_size());
    // The ring buffer counts to the memory of this process's cgroup. In a container the file is that
    // of its own cgroup.
    let limit = fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let limit = limit.and_then(|limit| limit.trim().parse().ok()).unwrap_or(u64::MAX);
    ring_of(options.all, cpus, memory.min(limit))
}

fn ring_of(all: bool, cpus: u64, memory: u64) -> u32 {
    let (each, least, most) = if all { RING_ALL } else { RING_FINDINGS };
    let cpus = u32::try_from(cpus).unwrap_or(u32::MAX);
    let share = u32::try_from(memory / RING_SHARE).unwrap_or(u32::MAX).max(RING_FINDINGS.1);
    1 << cpus.saturating_mul(each).clamp(least, most).min(share).ilog2()
}

/// The number of counters on this machine. The kernel allocates each one for every possible CPU.
fn counters() -> Result<u32> {
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| error).context("cannot count CPUs")?;
    let (least, most) = COUNTERS;
    let fit = COUNTER_BYTES / (cpus * size_of::<Counter>());
    Ok(fit.clamp(least, most) as u32)
}

fn resolve(types: &Types) -> Result<Vec<(&'static str, u32)>> {
    let mut offsets = resolve_members(types)?;
    // Before 6.8 the struct is overlayfs's own (`struct ovl_aio_req`, fs/overlayfs/file.c), which
    // is not in the BTF of vmlinux if overlayfs is a module. Its members are a kiocb, a reference
    // count, then the pointer.
    const ORIGINAL: &str = "BACKING_AIO_ORIG_IOCB";
    let original = offsets.iter_mut().find(|(name, offset)| *name == ORIGINAL && *offset == ABSENT);
    if let (Some((_, offset)), Some(kiocb)) = (original, types.size("kiocb")) {
        *offset = (kiocb + 4).next_multiple_of(8);
    }
    Ok(offsets)
}

fn resolve_members(types: &Types) -> Result<Vec<(&'static str, u32)>> {
    OFFSETS
        .iter()
        .map(|row| match types.offset(row.strukt, row.member) {
            Ok(offset) => Ok((row.global, offset)),
            Err(_) if !row.must => Ok((row.global, ABSENT)),
            Err(e) => Err(e.context(
                "this kernel's structs differ from the known ones: please report it with `uname -r`",
            )),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_buffer_grows_with_cpus_and_memory() {
        const GIB: u64 = 1 << 30;
        for (all, cpus, memory, mib) in [
            (false, 1, 2 * GIB, 4),
            (false, 48, 64 * GIB, 32),
            (false, 1_000, 64 * GIB, 64),
            (true, 1, 2 * GIB, 16),
            (true, 6, 64 * GIB, 16),
            (true, 64, 1_024 * GIB, 256),
            (true, 64, 2 * GIB, 32),
            (true, 64, GIB / 8, 4),
        ] {
            assert_eq!(ring_of(all, cpus, memory), mib << 20, "{all} {cpus} {memory}");
        }
    }
}
