//! `cargo xtask bench file`: measures how fast a recording is written and read, and its size.
//!
//! The requests resemble those of a database: 4 KiB to 16 KiB at random offsets of 20 files of some
//! GiB, by 8 threads, a few microseconds apart. One in a thousand is a finding.

mod draw;
mod memory;

use std::{
    fs::File,
    io::BufReader,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use dio_trace::{
    flow::{explained::ExplainedRequest, sink::Sink},
    output::export::parquet::Parquet,
    recording::{
        format::{End, Header, Recorded, Writer},
        replay::{Recording, Selection, Window},
    },
};
use dio_trace_common::{
    abi::{API_IO_URING, API_READ, Request},
    evidence::{Evidence, seen},
};
use draw::Draw;
use memory::peak;

struct Load {
    draw: Draw,
    now: u64,
}

impl Load {
    fn request(&mut self) -> Recorded {
        let draw = &mut self.draw;
        self.now += 500 + draw.below(8_000);
        // Most requests take about 80 us, some far longer.
        let tail = if draw.below(50) == 0 { draw.below(2_000_000) } else { 0 };
        let latency = 60_000 + draw.below(20_000) + draw.below(20_000) + tail;
        let file = 1 + draw.below(20);
        let len = [4096, 4096, 4096, 8192, 16384][draw.below(5) as usize];
        let size = (1 + file as i64 % 4) << 31;
        let found = draw.below(1000) == 0;
        let write = draw.below(4) == 0;
        let mut evidence = Evidence { attempts: 1, ..Evidence::default() };
        if found {
            (evidence.cached_bytes, evidence.seen) = (len, seen::BUFFERED_READ);
        } else {
            (evidence.direct_bytes, evidence.seen) = (len, seen::IOMAP_DIO);
        }
        let request = Request {
            nr_segs: 1,
            begin_ns: self.now - latency.min(self.now),
            end_ns: self.now,
            user: draw.below(16) << 12,
            pos: (draw.below(size as u64 / 4096 - 4) * 4096) as i64,
            len,
            ret: len as i64,
            size_begin: size,
            size_end: size,
            evidence,
            magic: 0xef53,
            op: u8::from(write && !found),
            api: if draw.below(2) == 0 { API_READ } else { API_IO_URING },
            ..Request::EMPTY
        };
        let task = 1 + draw.below(8) as u32;
        Recorded { request, file, task, extents: None, stack: 0 }
    }
}

struct Findings;

impl Sink for Findings {
    fn request(&mut self, _: &ExplainedRequest) -> Result<()> {
        Ok(())
    }
}

fn rate(n: u64, took: Duration) -> f64 {
    n as f64 / took.as_secs_f64() / 1e6
}

fn write(path: &Path, n: u64) -> Result<(Duration, u64)> {
    let header = Header { all: true, ..Header::default() };
    let mut load = Load { draw: Draw::new(), now: 10_000_000 };
    // Made before the clock starts, so that making them is not measured.
    let made: Vec<Recorded> = (0..1 << 18).map(|_| load.request()).collect();
    let mut writer = Writer::new(File::create(path)?, &header)?;
    let began = Instant::now();
    for recorded in made.iter().cycle().take(n as usize) {
        writer.request(recorded)?;
    }
    writer.end(&End { time: 0, why: End::DONE.to_owned() })?;
    Ok((began.elapsed(), writer.written()))
}

/// Reads the recording in a new process; returns the time, the number of requests and the peak
/// memory in KiB.
fn read(path: &Path) -> Result<(Duration, u64, u64)> {
    let out = Command::new(std::env::current_exe()?).arg("--read").arg(path).output()?;
    let text = String::from_utf8(out.stdout)?;
    let numbers: Result<Vec<u64>, _> = text.split_whitespace().map(str::parse).collect();
    match numbers?[..] {
        [took, requests, memory] => Ok((Duration::from_nanos(took), requests, memory)),
        _ => bail!("the reader failed: {}", String::from_utf8_lossy(&out.stderr)),
    }
}

fn reader(path: &Path) -> Result<()> {
    let began = Instant::now();
    let input = BufReader::with_capacity(1 << 18, File::open(path)?);
    let part = Selection { window: Window { since: 1, until: u64::MAX }, ..Selection::ALL };
    let replayed = Recording::open(input)?.replay(part, &mut Findings)?;
    println!("{} {} {}", began.elapsed().as_nanos(), replayed.shown, peak()?);
    Ok(())
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let folder = match &args[..] {
        [word, path] if word == "--read" => return reader(Path::new(path)),
        [folder] => Path::new(folder),
        _ => bail!("usage: bench_file FOLDER"),
    };
    let path = folder.join("bench.dio");
    let (small, large) = (2_000_000, 20_000_000);
    write(&path, small)?;
    let (_, _, little) = read(&path)?;
    let (took, bytes) = write(&path, large)?;
    let each = bytes as f64 / large as f64;
    println!("write    {:>6.1} M requests/s, {each:.1} bytes each", rate(large, took));
    let (took, shown, much) = read(&path)?;
    ensure!(shown == large, "{shown} of {large} requests came back");
    println!("report   {:>6.1} M requests/s", rate(large, took));
    println!("memory   {little} KiB for {small} requests, {much} KiB for {large}");
    export(&path, &folder.join("bench.parquet"), small)
}

fn export(path: &Path, table: &Path, requests: u64) -> Result<()> {
    write(path, requests)?;
    let mut parquet = Parquet::new(File::create(table)?)?;
    let began = Instant::now();
    let input = BufReader::with_capacity(1 << 18, File::open(path)?);
    Recording::open(input)?.replay(Selection::ALL, &mut parquet)?;
    parquet.finish()?;
    let each = std::fs::metadata(table)?.len() as f64 / requests as f64;
    println!(
        "parquet  {:>6.1} M requests/s, {each:.1} bytes each",
        rate(requests, began.elapsed())
    );
    Ok(())
}
