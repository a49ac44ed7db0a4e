//! A trace for ui.perfetto.dev and its trace processor: processes and their files as tracks,
//! requests as slices, findings as instants. Field numbers are from protos/perfetto/trace of
//! perfetto.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Write},
};

use anyhow::Result;
use dio_trace_common::{abi::FileId, verdict::Outcome};

use crate::{
    flow::{
        explained::ExplainedRequest,
        side_events::{MixedAccess, RejectedOpenRow},
        sink::Sink,
    },
    output::export::protobuf::Message,
};

/// Maximum number of tracks. Requests that would need more are left out and counted.
const MAX_TRACKS: usize = 1 << 16;
/// trusted_packet_sequence_id of all packets, which have one writer.
const SEQUENCE: u64 = 1;
/// trace_packet.proto: SEQ_INCREMENTAL_STATE_CLEARED.
const CLEARED: u64 = 1;
/// builtin_clock.proto: clock ids.
const REALTIME: u64 = 1;
const BOOTTIME: u64 = 6;

/// track_event.proto: TrackEvent.Type.
#[derive(Clone, Copy)]
enum Kind {
    Begin = 1,
    End = 2,
    Instant = 3,
}

/// Writes a trace. Times are wall-clock times: ns since the epoch.
pub struct Perfetto<W> {
    out: W,
    next: u64,
    /// By process id: its track, and the track of its findings.
    processes: HashMap<u32, (u64, u64)>,
    /// By process and file: its tracks, keyed by the end of their last slice. Overlapping requests
    /// need several tracks.
    files: HashMap<(u32, FileId), BTreeMap<u64, Vec<u64>>>,
    begun: bool,
    left_out: u64,
}

impl<W: Write> Perfetto<W> {
    pub fn new(out: W) -> Self {
        let (processes, files) = (HashMap::new(), HashMap::new());
        Self { out, next: 0, processes, files, begun: false, left_out: 0 }
    }

    /// Number of requests and instants left out for lack of a track.
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Flushes the output.
    ///
    /// # Errors
    /// Errors of the output.
    pub fn finish(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn finding(&mut self, r: &ExplainedRequest) -> io::Result<()> {
        let said = [
            ("cause", r.cause.unwrap_or(r.verdict.as_str())),
            ("file", &*r.path),
            ("verdict", r.verdict.as_str()),
            ("why", r.why.as_deref().unwrap_or_default()),
            ("fix", r.fix.as_deref().unwrap_or_default()),
        ];
        self.instant(r.time, (r.pid, &r.comm), &said)
    }

    /// Writes an instant with the annotations `said`; its name is the value of the first.
    fn instant(&mut self, time: u64, who: (u32, &str), said: &[(&str, &str)]) -> io::Result<()> {
        self.clocks(time)?;
        let Some((_, track)) = self.process(who)? else {
            self.left_out += 1;
            return Ok(());
        };
        let name = said.first().map_or("", |(_, name)| *name);
        let event = said
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .fold(event(Kind::Instant, track, name, "finding"), |event, (name, value)| {
                event.message(4, &text(name, value))
            });
        self.packet(time, &event)
    }

    /// A track of the request's file on which no slice overlaps with the request; None if there is
    /// no room for another track. Requests come in the order of their ends, so the best fit is the
    /// track whose last slice ended latest before this request began.
    fn file(&mut self, r: &ExplainedRequest, begin: u64) -> io::Result<Option<u64>> {
        let Some((parent, _)) = self.process((r.pid, &r.comm))? else { return Ok(None) };
        let full = self.next as usize >= MAX_TRACKS;
        if full && !self.files.contains_key(&(r.pid, r.file)) {
            return Ok(None);
        }
        let tracks = self.files.entry((r.pid, r.file)).or_default();
        let free = tracks
            .range_mut(..=begin)
            .next_back()
            .and_then(|(end, tracks)| Some((*end, tracks.pop()?)));
        let track = if let Some((end, track)) = free {
            if tracks.get(&end).is_some_and(Vec::is_empty) {
                tracks.remove(&end);
            }
            track
        } else if full {
            return Ok(None);
        } else {
            self.next += 1;
            self.next
        };
        tracks.entry(r.time).or_default().push(track);
        if free.is_none() {
            // The viewer merges tracks with the same name and parent.
            self.describe(&track_of(track, &r.path).number(5, parent))?;
        }
        Ok(Some(track))
    }

    fn process(&mut self, (pid, comm): (u32, &str)) -> io::Result<Option<(u64, u64)>> {
        if let Some(tracks) = self.processes.get(&pid) {
            return Ok(Some(*tracks));
        }
        if self.next as usize + 2 > MAX_TRACKS {
            return Ok(None);
        }
        let (process, findings) = (self.next + 1, self.next + 2);
        self.next = findings;
        self.processes.insert(pid, (process, findings));
        let about = Message::default().number(1, u64::from(pid)).text(6, comm);
        self.describe(&Message::default().number(1, process).message(3, &about))?;
        self.describe(&track_of(findings, "findings").number(5, process))?;
        Ok(Some((process, findings)))
    }

    fn describe(&mut self, track: &Message) -> io::Result<()> {
        self.write(Message::default().message(60, track))
    }

    fn packet(&mut self, time: u64, event: &Message) -> io::Result<()> {
        self.write(Message::default().number(8, time).message(11, event))
    }

    /// Writes the clock snapshot once, before all other packets: the trace's clock is wall-clock
    /// time.
    fn clocks(&mut self, time: u64) -> io::Result<()> {
        if std::mem::replace(&mut self.begun, true) {
            return Ok(());
        }
        let clock = |id| Message::default().number(1, id).number(2, time);
        let both = Message::default().message(1, &clock(REALTIME)).message(1, &clock(BOOTTIME));
        self.write(Message::default().number(13, CLEARED).message(6, &both))
    }

    fn write(&mut self, packet: Message) -> io::Result<()> {
        let packet = packet.number(10, SEQUENCE);
        self.out.write_all(Message::default().message(1, &packet).as_bytes())
    }
}

fn track_of(track: u64, name: &str) -> Message {
    Message::default().number(1, track).text(2, name)
}

fn event(kind: Kind, track: u64, name: &str, category: &str) -> Message {
    let event = Message::default().number(9, kind as u64).number(11, track);
    event.text(22, category).text(23, name)
}

/// debug_annotation.proto: an annotation with an integer value.
fn number(name: &str, value: i64) -> Message {
    Message::default().number(4, value as u64).text(10, name)
}

/// debug_annotation.proto: an annotation with a string value.
fn text(name: &str, value: &str) -> Message {
    Message::default().text(6, value).text(10, name)
}

impl<W: Write> Sink for Perfetto<W> {
    fn wants_all(&self) -> bool {
        true
    }

    fn request(&mut self, r: &ExplainedRequest) -> Result<()> {
        let begin = r.time.saturating_sub(r.latency_ns);
        self.clocks(begin)?;
        let Some(track) = self.file(r, begin)? else {
            self.left_out += 1;
            return Ok(());
        };
        let outcome = r.outcome.filter(|outcome| *outcome != Outcome::Full);
        let word = outcome.map_or(r.verdict.as_str(), Outcome::as_str);
        let name = format!("{} {word}", r.op);
        let mut slice = event(Kind::Begin, track, &name, r.verdict.as_str());
        for (name, value) in
            [("offset", r.offset), ("len", r.len as i64), ("ret", r.ret), ("tid", i64::from(r.tid))]
        {
            slice = slice.message(4, &number(name, value));
        }
        slice = slice.message(4, &text("api", r.api.as_str()));
        if let Some(errno) = &r.errno {
            slice = slice.message(4, &text("errno", errno));
        }
        self.packet(begin, &slice)?;
        let end = Message::default().number(9, Kind::End as u64).number(11, track);
        self.packet(r.time, &end)?;
        if r.finding { Ok(self.finding(r)?) } else { Ok(()) }
    }

    fn rejected_open(&mut self, row: &RejectedOpenRow) -> Result<()> {
        let who = (row.user.pid, &*row.user.comm);
        let said = [
            ("cause", row.cause),
            ("file", &*row.user.path),
            ("call", row.call),
            ("why", &*row.why),
            ("fix", &*row.fix),
        ];
        Ok(self.instant(row.time, who, &said)?)
    }

    fn mixed_access(&mut self, m: &MixedAccess) -> Result<()> {
        let who = (m.pid, &*m.comm);
        let said = [("cause", m.cause), ("file", &*m.path), ("why", &*m.why), ("fix", &*m.fix)];
        Ok(self.instant(m.time, who, &said)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::golden;

    /// The fields of a message: number, value, bytes.
    fn fields(mut bytes: &[u8]) -> Vec<(u64, u64, &[u8])> {
        let varint = |bytes: &mut &[u8]| {
            let (mut value, mut shift) = (0, 0);
            loop {
                let (first, rest) = bytes.split_first().unwrap();
                *bytes = rest;
                value |= u64::from(first & 0x7f) << shift;
                shift += 7;
                if *first < 0x80 {
                    return value;
                }
            }
        };
        let mut out = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let value = varint(&mut bytes);
            let len = if key & 7 == 2 { value as usize } else { 0 };
            out.push((key >> 3, value, &bytes[..len]));
            bytes = &bytes[len..];
        }
        out
    }

    fn of(message: &[u8], field: u64) -> Option<(u64, &[u8])> {
        fields(message)
            .into_iter()
            .find(|(n, ..)| *n == field)
            .map(|(_, value, bytes)| (value, bytes))
    }

    #[test]
    fn every_request_is_a_slice_and_every_finding_an_instant() {
        let (records, _) = golden::run();
        let mut out = Vec::new();
        let mut trace = Perfetto::new(&mut out);
        records.iter().for_each(|record| trace.request(record).unwrap());
        let mut kinds = [0; 4];
        let mut names = Vec::new();
        for (_, _, packet) in fields(&out) {
            if let Some((_, event)) = of(packet, 11) {
                kinds[of(event, 9).unwrap().0 as usize] += 1;
                if of(event, 9).unwrap().0 == Kind::Instant as u64 {
                    names.push(String::from_utf8(of(event, 23).unwrap().1.to_vec()).unwrap());
                }
            }
        }
        let findings: Vec<&ExplainedRequest> =
            records.iter().filter(|record| record.finding).collect();
        assert_eq!(kinds, [0, records.len(), records.len(), findings.len()]);
        assert_eq!(names, findings.iter().map(|r| r.cause.unwrap()).collect::<Vec<_>>());
    }

    #[test]
    fn requests_on_one_track_do_not_overlap() {
        let mut record = golden::run().0.swap_remove(0);
        let mut out = Vec::new();
        let mut trace = Perfetto::new(&mut out);
        let mut ends: HashMap<u64, u64> = HashMap::new();
        for n in 0..1_000_u64 {
            (record.time, record.latency_ns) = (1_000 + n * 10, 5 + n * 37 % 60);
            let begin = record.time - record.latency_ns;
            let track = trace.file(&record, begin).unwrap().unwrap();
            assert!(ends.insert(track, record.time).is_none_or(|end| end <= begin));
        }
        // A request every 10 ns takes at most 64 ns: at most seven are open at once.
        assert!(ends.len() <= 7, "{}", ends.len());
    }
}
