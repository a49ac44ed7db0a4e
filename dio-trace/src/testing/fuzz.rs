//! The bodies of the fuzz targets: what must hold for any input bytes. Unit tests run them on the
//! corpus found so far.

use std::io::Cursor;

use anyhow::Result;

use crate::{
    enrich::Enricher,
    flow::{
        explained::{ExplainedRequest, WatchedEffects},
        filter::Filter,
        pipeline::Pipeline,
        sink::{Discard, Sink},
    },
    model::Event,
    output::{
        export::{csv::Csv, folded::Folded, perfetto::Perfetto},
        html::{self, Gather},
    },
    recording::{
        format::{Columns, Recorded, framed},
        replay::{Recording, Replay, Selection},
    },
    tracer::decode,
    util::clock::{Clock, Shown},
};

const WATCHED: WatchedEffects =
    WatchedEffects { flushes: true, invalidations: true, additions: true, page_size: 4096 };

/// Fuzz target: an event of the ring buffer.
pub fn event(bytes: &[u8]) {
    let Some(event) = decode(bytes) else { return };
    let filter = Filter::OPEN;
    let mut pipeline = Pipeline::new(Enricher::recorded(), Clock::fixed(0), WATCHED, filter);
    assert!(pipeline.event(&event, &mut Discard).is_ok(), "no step can fail");
    if let Event::Request(request) = event {
        let recorded = Recorded { request: *request, file: 1, task: 1, extents: None, stack: 0 };
        let mut columns = Columns::default();
        columns.push(&recorded);
        let raw = columns.encode();
        let mut back = Columns::default();
        assert!(back.decode(&raw).is_some(), "what is written can be read");
    }
}

fn replay(bytes: &[u8], sink: &mut dyn Sink) -> Result<Replay> {
    Recording::open(Cursor::new(bytes))?.replay(Selection::ALL, sink)
}

/// Fuzz target: a file that may be a recording.
pub fn recording(bytes: &[u8]) {
    let mut all = Everything {
        csv: Csv::new(Vec::new()).ok(),
        trace: Perfetto::new(Vec::new()),
        folded: Folded::default(),
    };
    let _ = replay(bytes, &mut all);
    let mut gather = Gather::default();
    let Ok(mut replayed) = replay(bytes, &mut gather) else { return };
    let mut page = Vec::new();
    let shown = Shown::recorded(replayed.header.zone.as_ref(), false);
    let written = html::page(&mut page, "fuzz", &shown, &mut replayed, gather);
    assert!(written.is_ok(), "a page can always be made");
    // The page has two script elements: its data and its script.
    let scripts = page.windows(8).filter(|word| word.eq_ignore_ascii_case(b"</script")).count();
    assert_eq!(scripts, 2, "data has become markup");
}

/// Fuzz target: a well-framed recording with blocks from `bytes`, each a kind, a two-byte length
/// and that many bytes of contents.
pub fn contents(mut bytes: &[u8]) {
    let mut blocks = Vec::new();
    while let [kind, low, high, rest @ ..] = bytes {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (raw, rest) = rest.split_at(len);
        blocks.push((*kind, raw));
        bytes = rest;
    }
    if let Ok(file) = framed(&blocks) {
        recording(&file);
    }
}

struct Everything {
    csv: Option<Csv<Vec<u8>>>,
    trace: Perfetto<Vec<u8>>,
    folded: Folded,
}

impl Sink for Everything {
    fn request(&mut self, record: &ExplainedRequest) -> Result<()> {
        if let Some(csv) = &mut self.csv {
            csv.request(record)?;
        }
        self.folded.request(record)?;
        self.trace.request(record)
    }

    fn wants_all(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::{Path, PathBuf},
    };

    use super::*;
    use crate::{recording::format::unframed, testing::fixtures};

    fn corpus(target: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target)
    }

    fn seed(target: &str, name: &str, bytes: &[u8]) {
        fs::create_dir_all(corpus(target)).unwrap();
        fs::write(corpus(target).join(name), bytes).unwrap();
    }

    /// Writes the seeds of the corpus: `BLESS=1 cargo test -p dio-trace fuzz`.
    fn seeds() {
        let request = fixtures::request();
        // SAFETY: repr(C), integers only, without padding: these are the bytes of a ring-buffer
        // event.
        let bytes = unsafe {
            std::slice::from_raw_parts((&raw const request).cast::<u8>(), size_of_val(&request))
        };
        seed("event", "request", bytes);
        let v1 = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/v1.dio");
        let v1 = fs::read(v1).unwrap();
        seed("recording", "v1", &v1);
        let mut blocks = Vec::new();
        for (kind, raw) in unframed(&v1).unwrap() {
            blocks.push(kind);
            blocks.extend_from_slice(&(raw.len() as u16).to_le_bytes());
            blocks.extend_from_slice(&raw);
        }
        seed("contents", "v1", &blocks);
    }

    #[test]
    fn the_corpus_passes() {
        if std::env::var_os("BLESS").is_some() {
            seeds();
        }
        let targets = [event, recording, contents];
        for (name, target) in ["event", "recording", "contents"].into_iter().zip(targets) {
            let files: Vec<_> = fs::read_dir(corpus(name)).unwrap().flatten().collect();
            assert!(!files.is_empty(), "{name}");
            files.iter().for_each(|file| target(&fs::read(file.path()).unwrap()));
        }
    }
}
