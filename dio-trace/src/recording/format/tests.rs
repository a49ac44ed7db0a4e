//! Tests that a recording is read back as it was written, and that damage loses only what it hit.

use std::io::Cursor;

use dio_trace_common::{
    abi::{FileId, OP_READ, OP_WRITE, Request},
    evidence::{Evidence, seen},
};
use proptest::prelude::*;

use crate::{
    enrich::Enricher,
    flow::sink::Discard,
    recording::{
        format::{
            End, Fact, FileFact, Header, Item, Kind, Reader, Recorded, TaskFact, TotalsFact,
            VERSION, Writer,
            block::{HEAD, encode, prefix},
            columns::Columns,
        },
        replay::{Recording, Replay, Selection},
    },
    system::file_attrs::FileAttrs,
    testing::fixtures,
};

fn read(bytes: &[u8]) -> anyhow::Result<Replay> {
    Recording::open(Cursor::new(bytes))?.replay(Selection::ALL, &mut Discard)
}

fn header() -> Header {
    Header { host: "db1".to_owned(), kernel: "6.12".to_owned(), all: true, ..Header::default() }
}

fn recorded(n: u64) -> Recorded {
    let mut request = fixtures::request();
    let file = 1 + n % 3;
    request.begin_ns += n * 20_000;
    request.end_ns += n * 20_000;
    request.pos = (n as i64 * 7919 % 100_000) * 4096;
    request.size_begin = 1 << 40;
    request.size_end = 1 << 40;
    if n.is_multiple_of(5) {
        request.evidence = Evidence {
            cached_bytes: 4096,
            seen: seen::BUFFERED_READ,
            attempts: 1,
            ..Evidence::default()
        };
    }
    Recorded { request, file, task: 1, extents: n.is_multiple_of(10).then_some(0x2000), stack: 0 }
}

fn file(number: u64) -> Fact {
    let key = FileId { inode: number, ino: 12, dev: 8 << 20 | 1, generation: 0 };
    let mut enricher = Enricher::recorded();
    enricher.know(key, "/data/\u{1b}[2Jtable.db", "ext4", "rw", FileAttrs::default());
    let info = enricher.file(key, 42).clone();
    Fact::File(Box::new(FileFact { file: number, ino: 12, dev: key.dev, generation: 0, info }))
}

/// A complete recording of `n` requests in blocks of 10.
fn recording(n: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out, &header()).unwrap();
    for number in 1..=3 {
        writer.fact(&file(number)).unwrap();
    }
    let task = TaskFact { task: 1, pid: 42, tid: 43, comm: b"postgres".to_vec() };
    writer.fact(&Fact::Task(task)).unwrap();
    for i in 0..n {
        writer.request(&recorded(i)).unwrap();
        if i % 10 == 9 {
            writer.flush().unwrap();
        }
    }
    writer.totals(TotalsFact { time: 1, ..TotalsFact::default() }).unwrap();
    writer.end(&End { time: 2, why: "done".to_owned() }).unwrap();
    out
}

#[test]
fn a_recording_comes_back() {
    let bytes = recording(1_000);
    let replayed = read(&bytes).unwrap();
    assert_eq!(
        (replayed.recorded, replayed.shown, replayed.integrity.damaged_bytes),
        (1_000, 1_000, 0)
    );
    assert!(replayed.integrity.end.is_some());
    assert_eq!(replayed.header.host, "db1");
}

#[test]
fn a_cut_recording_counts_what_is_there_and_its_names_are_safe() {
    let bytes = recording(1_000);
    let replayed = read(&bytes[..bytes.len() - 40]).unwrap();
    assert_eq!((replayed.recorded, replayed.by_requests), (1_000, true));
    assert!(replayed.integrity.end.is_none());
    assert_eq!(replayed.summary.findings, 200);
    assert_eq!(replayed.summary.requests["direct"], 800);
    let row = &replayed.summary.files[0];
    assert_eq!((&*row.comm, &*row.path), ("postgres", "/data/\\x1b[2Jtable.db"));
}

#[test]
fn a_damaged_block_loses_only_itself() {
    let bytes = recording(100);
    let mut reader = Reader::open(Cursor::new(&bytes)).unwrap();
    let mut requests = Vec::new();
    while let Some(item) = reader.item().unwrap() {
        let kept = matches!(item, Item::Requests(_));
        requests.extend(reader.info().filter(|_| kept).map(|info| info.offset as usize));
    }
    assert_eq!(requests.len(), 10);
    for at in requests {
        // In the block's header, so that the reader must search for the next block; and after it.
        for hit in [at + 9, at + HEAD + 3] {
            let mut broken = bytes.clone();
            broken[hit] ^= 0x10;
            let replayed = read(&broken).unwrap();
            assert_eq!((replayed.recorded, replayed.integrity.damage.len()), (90, 1));
            assert_eq!(replayed.integrity.damage[0].offset, at as u64);
        }
    }
}

#[test]
fn a_damaged_header_has_a_second_one() {
    let bytes = recording(100);
    let begin = 16;
    let second =
        begin + encode(Kind::Header, &serde_json::to_vec(&header()).unwrap()).unwrap().len();
    let flip = |bytes: &mut Vec<u8>, at: usize| bytes[at] ^= 0x10;
    for hit in [begin + 1, begin + HEAD + 3] {
        let mut broken = bytes.clone();
        flip(&mut broken, hit);
        let replayed = read(&broken).unwrap();
        assert_eq!((replayed.recorded, &*replayed.header.host), (100, "db1"));
        assert_eq!(replayed.integrity.damage[0].offset, begin as u64);
        flip(&mut broken, second + HEAD + 3);
        let error = format!("{:#}", read(&broken).err().unwrap());
        assert!(error.contains("header is damaged") && error.contains("offset 16"), "{error}");
    }
}

#[test]
fn other_files_and_versions_are_refused_with_the_offset() {
    let error = |bytes: &[u8]| format!("{:#}", read(bytes).err().unwrap());
    assert!(error(b"").contains("offset 0"));
    assert!(error(b"#!/bin/sh\necho no recording at all\n").contains("not a recording"));
    let mut newer = recording(1);
    newer[8] = VERSION as u8 + 1;
    let check = crc32fast::hash(&newer[..12]);
    newer[12..16].copy_from_slice(&check.to_le_bytes());
    assert!(
        error(&newer).contains(&format!("format version {}", VERSION + 1)),
        "{}",
        error(&newer)
    );
    assert!(error(&prefix(1)).contains("offset 16"));
}

#[test]
fn a_bomb_does_not_unpack() {
    // 64 MiB of zeros compressed to a few KiB; the block's header says 100 bytes.
    let mut bomb = recording(0);
    let zeros = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
    let mut block = encode(Kind::Requests, &[0; 100]).unwrap();
    block.truncate(HEAD);
    block[5] = 1;
    block[12..16].copy_from_slice(&(zeros.len() as u32).to_le_bytes());
    block[16..20].copy_from_slice(&crc32fast::hash(&zeros).to_le_bytes());
    let check = crc32fast::hash(&block[..20]);
    block[20..24].copy_from_slice(&check.to_le_bytes());
    bomb.extend_from_slice(&block);
    bomb.extend_from_slice(&zeros);
    let replayed = read(&bomb).unwrap();
    assert_eq!((replayed.recorded, replayed.integrity.damage.len()), (0, 1));
}

#[test]
fn a_block_of_rows_that_say_they_are_many_is_damage() {
    let mut out = Vec::new();
    super::varint::put(&mut out, u64::MAX);
    let mut file = recording(0);
    file.extend(encode(Kind::Requests, &out).unwrap());
    assert_eq!(read(&file).unwrap().integrity.damage.len(), 1);
}

#[test]
fn a_request_takes_few_bytes() {
    let mut columns = Columns::default();
    (0..10_000).for_each(|n| columns.push(&recorded(n)));
    let block = encode(Kind::Requests, &columns.encode()).unwrap();
    assert!(block.len() < 12 * 10_000, "{}", block.len());
}

fn any_request() -> impl Strategy<Value = Recorded> {
    let numbers = proptest::collection::vec(any::<u64>(), 24);
    (numbers, any::<bool>(), any::<Option<u32>>()).prop_map(|(n, write, extents)| {
        let request = Request {
            file: FileId { inode: n[0], ..FileId::NONE },
            begin_ns: n[1],
            end_ns: n[2],
            user: n[3] & 0xffff,
            pos: n[4] as i64 >> 3,
            len: n[5] >> 20,
            ret: (n[6] as i64).max(-crate::util::errno::MAX),
            done_before: n[7],
            size_begin: n[8] as i64,
            size_end: n[9] as i64,
            nr_segs: n[10] as u32,
            magic: n[11] as u32,
            lower_magic: n[12] as u32,
            op: if write { OP_WRITE } else { OP_READ },
            api: n[13] as u8,
            flags: n[14] as u8,
            evidence: Evidence {
                direct_bytes: n[15],
                cached_bytes: n[16],
                seen: n[17] as u32,
                direct_err: n[18] as i32,
                buffered_err: n[19] as i32,
                attempts: n[20] as u32,
                flushed_pages: n[21] as u32,
                invalidated_pages: n[21] as u32 >> 3,
                added_pages: n[22] as u32,
                addr_bits: n[22] as u32 >> 3,
                len_bits: n[23] as u32,
                segments: n[23] as u32 >> 3,
            },
            ..fixtures::request()
        };
        Recorded { request, file: n[1], task: n[0] as u32, extents, stack: n[1] as u32 % 3 }
    })
}

/// The fields of a request that a recording keeps.
fn kept(r: &Recorded) -> impl PartialEq + std::fmt::Debug + use<> {
    let q = &r.request;
    let numbers = [r.file, q.begin_ns, q.end_ns, q.user, q.len, q.done_before];
    let signed = [q.pos, q.ret, q.size_begin, q.size_end];
    let small = [q.nr_segs, q.magic, q.lower_magic, r.task];
    (numbers, signed, small, (q.op, q.api, q.flags), q.evidence, r.extents)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_request_comes_back(requests in proptest::collection::vec(any_request(), 0..20)) {
        let mut columns = Columns::default();
        requests.iter().for_each(|request| columns.push(request));
        let bytes = columns.encode();
        let mut back = Vec::new();
        columns.decode(&bytes).unwrap();
        columns.each(|request| { back.push(kept(request)); Ok::<_, ()>(()) }).unwrap();
        prop_assert_eq!(back, requests.iter().map(kept).collect::<Vec<_>>());
    }

    #[test]
    fn a_file_cut_anywhere_gives_its_beginning(cut in 0..4_000usize) {
        let bytes = recording(300);
        let cut = cut % bytes.len();
        if let Ok(replayed) = read(&bytes[..cut]) {
            prop_assert!(replayed.recorded <= 300 && replayed.recorded.is_multiple_of(10));
            prop_assert!(replayed.integrity.end.is_none());
        }
    }

    #[test]
    fn flipped_bits_are_found(flips in proptest::collection::vec(any::<(u32, u8)>(), 1..8)) {
        let mut bytes = recording(300);
        for (at, bit) in flips {
            let at = at as usize % bytes.len();
            bytes[at] ^= 1 << (bit % 8);
        }
        if let Ok(replayed) = read(&bytes) {
            prop_assert!(replayed.recorded <= 300 && replayed.recorded.is_multiple_of(10));
        }
    }

    #[test]
    fn any_bytes_in_a_sound_block_do_no_harm(
        kind in 1..6u8,
        raw in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut bytes = recording(10);
        bytes.extend(encode(Kind::from_u8(kind).unwrap(), &raw).unwrap());
        prop_assert!(read(&bytes).is_ok());
    }
}

#[test]
fn blocks_of_earlier_versions_have_fewer_columns() {
    let mut columns = Columns::default();
    columns.push(&Recorded { stack: 300, ..recorded(1) });
    let whole = columns.encode();
    assert_eq!(whole[..2], [1, 31]);
    // Each of the last columns is an encoding byte and a number of one or two bytes.
    let (without_flags, without_stack) = (whole.len() - 4, whole.len() - 7);
    for (count, end, stack) in
        [(31, whole.len(), 300), (29, without_flags, 300), (28, without_stack, 0)]
    {
        let mut bytes = whole[..end].to_vec();
        bytes[1] = count;
        columns.decode(&bytes).unwrap();
        columns
            .each(|recorded| {
                assert_eq!(recorded.stack, stack);
                Ok::<_, ()>(())
            })
            .unwrap();
    }
    assert_eq!(u32::from(recording(1)[8]), VERSION);
}
