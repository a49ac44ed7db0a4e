//! `cargo xtask bench upkeep`: measures dio-trace's memory after many events of many files.
//!
//! Synthetic events take the path of live ones (enrich, verdict, cause, sink); the output is
//! discarded. As with the probes, files with a counter are named once, and any other file is named
//! before each of its requests. Prints the sink's name, KiB after a tenth of the events, peak KiB,
//! and events per second.

mod memory;

use std::{fs, io, process, time::Instant};

use anyhow::{Context as _, Result, bail};
use dio_trace::{
    enrich::Enricher,
    flow::{explained::WatchedEffects, filter::Filter, pipeline::Pipeline, sink::Sink},
    model::Event,
    output::json_lines::JsonLines,
    output::text::{Screen, Style},
    util::clock::{Clock, Shown},
};
use dio_trace_common::{
    abi::{API_READ, EVENT_FILE, FileEvent, FileId, NAME_BYTES, PATH_BYTES, Request, Task},
    evidence::{Evidence, seen},
    verdict::{Outcome, Verdict},
};
use memory::peak;

/// Number of files that have a counter.
const COUNTED: u64 = 16_384;
const DEV: u32 = 8 << 20 | 1;
const COMM: [u8; 16] = *b"events\0\0\0\0\0\0\0\0\0\0";

/// A file with a made-up address of its inode.
const fn id(file: u64) -> FileId {
    FileId { inode: 0xffff_8880_0000_0000 + file * 1024, ino: file, dev: DEV, generation: 1 }
}

/// This process.
fn task() -> Task {
    Task { tid: process::id(), tgid: process::id(), comm: COMM }
}

fn named(file: u64, mnt_id: i32) -> FileEvent {
    let mut names = [0; PATH_BYTES + NAME_BYTES];
    let path = format!("table-{file:08}.db\0base\0data\0");
    names[..path.len()].copy_from_slice(path.as_bytes());
    FileEvent {
        kind: EVENT_FILE,
        flags: 0,
        file: id(file),
        task: task(),
        mnt_id,
        names_len: path.len() as u32,
        fs_name: *b"ext4\0\0\0\0\0\0\0\0\0\0\0\0",
        names,
    }
}

/// A fallback, which is the most expensive request to explain.
fn request(file: u64, nth: u64) -> Request {
    let evidence = Evidence {
        cached_bytes: 4096,
        seen: seen::BUFFERED_READ | seen::LOCAL,
        attempts: 1,
        ..Evidence::default()
    };
    Request {
        nr_segs: 1,
        begin_ns: nth * 1_000,
        end_ns: nth * 1_000 + 80_000,
        file: id(file),
        pos: (nth % 1024 * 4096) as i64,
        len: 4096,
        ret: 4096,
        size_begin: 1 << 22,
        size_end: 1 << 22,
        cached_bytes: 4096,
        evidence,
        task: task(),
        magic: 0xef53,
        api: API_READ,
        verdict: Verdict::Fallback as u8,
        outcome: Outcome::Full as u8,
        finding: 1,
        ..Request::EMPTY
    }
}

fn pump(name: &str, events: u64, files: u64, sink: &mut dyn Sink) -> Result<()> {
    let (enricher, watched) = (Enricher::default(), WatchedEffects::by(&[], 4096));
    let mut pipeline = Pipeline::new(enricher, Clock::now(), watched, Filter::OPEN);
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mnt_id = mounts.split_whitespace().next().context("no mounts")?.parse()?;
    let began = Instant::now();
    let mut early = 0;
    for nth in 0..events {
        let file = nth % files;
        if nth < files || file >= COUNTED {
            pipeline.event(&Event::File(Box::new(named(file, mnt_id))), sink)?;
        }
        pipeline.event(&Event::Request(Box::new(request(file, nth))), sink)?;
        if nth == events / 10 {
            early = peak()?;
        }
    }
    let rate = events as f64 / began.elapsed().as_secs_f64();
    println!("{name} {early} {} {rate:.0}", peak()?);
    Ok(())
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [sink, events, files] = &args[..] else {
        bail!("usage: bench_events json|screen EVENTS FILES");
    };
    let (events, files) = (events.parse()?, files.parse()?);
    match &sink[..] {
        "json" => pump("json", events, files, &mut JsonLines::new(io::sink())),
        "screen" => {
            let style = Style { width: 80, colour: false, cut: true, all: true, verbose: false };
            let mut screen = Screen::new(io::sink(), style, Shown::here(true));
            pump("screen", events, files, &mut screen)
        }
        other => bail!("no sink `{other}`"),
    }
}
