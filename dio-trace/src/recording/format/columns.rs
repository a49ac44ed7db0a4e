//! The encoding of requests in columns: similar values are stored together, and a constant column
//! takes almost no space.
//!
//! Each column is a list of unsigned integers. It is encoded as one value for all rows, as a common
//! value and the few rows that differ, or as one value per row.

use dio_trace_common::{
    abi::{OP_WRITE, Request},
    evidence::Evidence,
};

use crate::{
    recording::format::varint::{fold, get, put, unfold},
    util::errno,
};

/// Most requests in one block.
pub(super) const MAX_ROWS: usize = 1 << 15;
/// The bits of a buffer's address that are recorded: those that matter for alignment.
const ADDRESS: u64 = 0xffff;

/// Encoding of a column: one value for all rows.
const ONE: u8 = 0;
/// Encoding of a column: one value for all rows except a few.
const FEW: u8 = 1;
/// Encoding of a column: one value per row.
const EACH: u8 = 2;

/// The columns in their order in the file (docs/trace-format.md).
#[derive(Clone, Copy)]
enum Column {
    End,
    Latency,
    Task,
    File,
    What,
    Offset,
    Len,
    Missing,
    SizeBegin,
    SizeEnd,
    Address,
    Segments,
    DoneBefore,
    Magic,
    LowerMagic,
    Direct,
    Cached,
    Seen,
    DirectError,
    BufferedError,
    Attempts,
    Flushed,
    Invalidated,
    Added,
    AddressBits,
    LengthBits,
    SegmentsSeen,
    Extents,
    Stack,
    InodeFlags,
    CallFlags,
}

const COLUMNS: usize = Column::CallFlags as usize + 1;
/// Columns of files of version 1, and of blocks without stacks in files of version 2.
const COLUMNS_1: usize = Column::Stack as usize;
/// Columns of blocks with stacks in files of version 2.
const COLUMNS_2: usize = COLUMNS_1 + 1;

/// A request as it is recorded, with ids of the recording for its file and its thread.
#[derive(Clone, Copy, Debug)]
pub struct Recorded {
    /// The request. The fields that identify its file and its thread are not recorded.
    pub request: Request,
    /// Id of the file.
    pub file: u64,
    /// Id of the thread.
    pub task: u32,
    /// Flags of the extents in the request's range; `None` if unknown.
    pub extents: Option<u32>,
    /// Id of the stack; 0: none was captured.
    pub stack: u32,
}

/// Values of the previous request that the next one is encoded relative to.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    /// Completion time in ns.
    end: u64,
    /// File size in bytes.
    size: i64,
    /// End of its range in bytes, where a sequential request would begin.
    stop: i64,
}

impl Before {
    const fn of(request: &Request) -> Self {
        let stop = request.pos.wrapping_add(request.len as i64);
        Self { end: request.end_ns, size: request.size_begin, stop }
    }
}

/// The requests of a block, by column.
#[derive(Debug)]
pub struct Columns {
    columns: [Vec<u64>; COLUMNS],
    before: Before,
    rows: usize,
}

impl Default for Columns {
    fn default() -> Self {
        Self { columns: [const { Vec::new() }; COLUMNS], before: Before::default(), rows: 0 }
    }
}

impl Columns {
    #[must_use]
    pub const fn len(&self) -> usize {
        self.rows
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rows == 0
    }

    pub(super) const fn is_full(&self) -> bool {
        self.rows >= MAX_ROWS
    }

    /// Adds a request.
    pub(crate) fn push(&mut self, recorded: &Recorded) {
        let (r, e) = (&recorded.request, &recorded.request.evidence);
        let write = u64::from(r.op == OP_WRITE);
        let what = write | u64::from(r.api) << 1 | u64::from(r.flags) << 9;
        let row: [u64; COLUMNS] = [
            fold(r.end_ns.wrapping_sub(self.before.end) as i64),
            fold(r.end_ns.wrapping_sub(r.begin_ns) as i64),
            u64::from(recorded.task),
            recorded.file,
            what,
            short(r.pos.wrapping_sub(self.before.stop)),
            r.len,
            fold((r.len as i64).wrapping_sub(r.ret)),
            fold(r.size_begin.wrapping_sub(self.before.size)),
            fold(r.size_end.wrapping_sub(r.size_begin)),
            r.user & ADDRESS,
            u64::from(r.nr_segs),
            r.done_before,
            u64::from(r.magic),
            u64::from(r.lower_magic),
            fold((e.direct_bytes as i64).wrapping_sub(r.ret.max(0))),
            e.cached_bytes,
            u64::from(e.seen),
            u64::from(e.direct_err as u32),
            u64::from(e.buffered_err as u32),
            u64::from(e.attempts),
            u64::from(e.flushed_pages),
            u64::from(e.invalidated_pages),
            u64::from(e.added_pages),
            u64::from(e.addr_bits),
            u64::from(e.len_bits),
            u64::from(e.segments),
            recorded.extents.map_or(0, |flags| u64::from(flags) + 1),
            u64::from(recorded.stack),
            u64::from(r.inode_flags),
            u64::from(r.rw_flags) | u64::from(r.ring) << 16 | u64::from(r.would_block) << 24,
        ];
        for (column, value) in self.columns.iter_mut().zip(row) {
            column.push(value);
        }
        self.before = Before::of(r);
        self.rows += 1;
    }

    /// Encodes the block's contents and empties the columns.
    pub(crate) fn encode(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, self.rows as u64);
        put(&mut out, COLUMNS as u64);
        for column in &self.columns {
            pack(column, &mut out);
        }
        self.columns.iter_mut().for_each(Vec::clear);
        (self.rows, self.before) = (0, Before::default());
        out
    }

    /// Replaces the columns by those of a block; `None` if its contents are malformed.
    pub(crate) fn decode(&mut self, mut bytes: &[u8]) -> Option<()> {
        self.rows = 0;
        let rows = usize::try_from(get(&mut bytes)?).ok().filter(|rows| *rows <= MAX_ROWS)?;
        // More columns require a newer format version.
        let columns = usize::try_from(get(&mut bytes)?).ok()?;
        matches!(columns, COLUMNS_1 | COLUMNS_2 | COLUMNS).then_some(())?;
        let (there, missing) = self.columns.split_at_mut(columns);
        for column in there {
            unpack(&mut bytes, rows, column)?;
        }
        for column in missing {
            column.clear();
            column.resize(rows, 0);
        }
        bytes.is_empty().then_some(())?;
        self.rows = rows;
        Some(())
    }

    /// Passes each request to `take`, in order. Its file, thread and stack are ids that facts
    /// describe.
    pub fn each<E>(&self, mut take: impl FnMut(&mut Recorded) -> Result<(), E>) -> Result<(), E> {
        let mut before = Before::default();
        let columns: [&[u64]; COLUMNS] = std::array::from_fn(|i| &self.columns[i][..self.rows]);
        (0..self.rows).try_for_each(|row| {
            let mut recorded = request(&|column| columns[column as usize][row], before);
            before = Before::of(&recorded.request);
            take(&mut recorded)
        })
    }
}

/// Decodes one row to a request.
#[inline]
fn request(at: &impl Fn(Column) -> u64, before: Before) -> Recorded {
    use Column::*;
    let small = |column: Column| at(column) as u32;
    let len = at(Len);
    let ret = (len as i64).wrapping_sub(unfold(at(Missing))).max(-errno::MAX);
    let end_ns = before.end.wrapping_add(unfold(at(End)) as u64);
    let size_begin = before.size.wrapping_add(unfold(at(SizeBegin)));
    let what = at(What);
    let flags = at(CallFlags);
    let request = Request {
        nr_segs: small(Segments),
        begin_ns: end_ns.wrapping_sub(unfold(at(Latency)) as u64),
        end_ns,
        user: at(Address) & ADDRESS,
        pos: before.stop.wrapping_add(long(at(Offset))),
        len,
        ret,
        done_before: at(DoneBefore),
        size_begin,
        size_end: size_begin.wrapping_add(unfold(at(SizeEnd))),
        evidence: Evidence {
            direct_bytes: ret.max(0).wrapping_add(unfold(at(Direct))) as u64,
            cached_bytes: at(Cached),
            seen: small(Seen),
            direct_err: small(DirectError) as i32,
            buffered_err: small(BufferedError) as i32,
            attempts: small(Attempts),
            flushed_pages: small(Flushed),
            invalidated_pages: small(Invalidated),
            added_pages: small(Added),
            addr_bits: small(AddressBits),
            len_bits: small(LengthBits),
            segments: small(SegmentsSeen),
        },
        magic: small(Magic),
        lower_magic: small(LowerMagic),
        op: (what & 1) as u8,
        api: (what >> 1) as u8,
        flags: (what >> 9) as u8,
        inode_flags: small(InodeFlags),
        rw_flags: flags as u16,
        ring: (flags >> 16) as u8,
        would_block: (flags >> 24) as u8,
        ..Request::EMPTY
    };
    let extents = at(Extents).checked_sub(1).map(|flags| flags as u32);
    Recorded { request, file: at(File), task: small(Task), extents, stack: small(Stack) }
}

fn pack(column: &[u64], out: &mut Vec<u8>) {
    let common = common(column);
    let others = column.iter().filter(|value| **value != common).count();
    if others == 0 {
        out.push(ONE);
        put(out, common);
    } else if others <= column.len() / 8 {
        out.push(FEW);
        put(out, common);
        put(out, others as u64);
        let mut next = 0;
        for (at, value) in column.iter().enumerate().filter(|(_, value)| **value != common) {
            put(out, (at - next) as u64);
            put(out, *value);
            next = at + 1;
        }
    } else {
        out.push(EACH);
        for value in column {
            put(out, *value);
        }
    }
}

/// The value of the majority of rows, if there is a majority; else any value (Boyer-Moore).
fn common(column: &[u64]) -> u64 {
    let (mut best, mut votes) = (0, 0);
    for value in column {
        if votes == 0 {
            best = *value;
        }
        if *value == best { votes += 1 } else { votes -= 1 }
    }
    best
}

fn unpack(bytes: &mut &[u8], rows: usize, column: &mut Vec<u64>) -> Option<()> {
    let (&code, rest) = bytes.split_first()?;
    *bytes = rest;
    column.clear();
    match code {
        ONE => column.resize(rows, get(bytes)?),
        FEW => {
            column.resize(rows, get(bytes)?);
            let mut next = 0usize;
            for _ in 0..get(bytes)? {
                let at = next.checked_add(usize::try_from(get(bytes)?).ok()?)?;
                *column.get_mut(at)? = get(bytes)?;
                next = at + 1;
            }
        }
        EACH => {
            column.reserve(rows);
            for _ in 0..rows {
                column.push(get(bytes)?);
            }
        }
        _ => return None,
    }
    Some(())
}

/// Encodes an offset relative to the expected one. Most are multiples of 512, whose low zero bits
/// are not stored. Exact for magnitudes up to 2^61.
const fn short(value: i64) -> u64 {
    let folded = fold(value);
    if value % 512 == 0 { (folded / 512) << 1 } else { folded << 1 | 1 }
}

/// Decodes [`short`].
const fn long(value: u64) -> i64 {
    let folded = value >> 1;
    if value & 1 == 0 { unfold(folded).wrapping_mul(512) } else { unfold(folded) }
}
