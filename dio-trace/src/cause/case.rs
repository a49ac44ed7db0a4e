//! All that a rule may look at, and the questions that rules ask of it.

use dio_trace_common::{
    abi::{API_SPLICE, OP_WRITE, REQ_BLOCK_DEVICE, REQ_VECTORED, Request},
    evidence::seen,
    verdict::{Decision, Outcome, Verdict, magic},
};

use crate::{
    model::BufferedUsers,
    system::{device::Layer, file_attrs::FileAttrs},
};

/// A request, what was decided about it, and what its file says.
pub struct Case<'a> {
    pub request: &'a Request,
    pub decision: &'a Decision,
    /// The file system that decides: of an overlay the one below, if it is known.
    pub fs: &'a str,
    /// Its options.
    pub options: &'a str,
    pub attrs: &'a FileAttrs,
    /// OR of the flags of the extents in the request's range, if the file system says them.
    pub extents: Option<u32>,
    /// Who else uses the file, through the page cache.
    pub buffered_users: &'a BufferedUsers,
}

impl Case<'_> {
    pub(super) const fn is_write(&self) -> bool {
        self.request.op == OP_WRITE
    }

    /// A splice that writes: how much the pipe held is not known, nor where.
    pub(super) const fn is_fed_by_pipe(&self) -> bool {
        self.is_write() && self.request.api == API_SPLICE
    }

    pub(super) const fn is_device(&self) -> bool {
        self.request.flags & REQ_BLOCK_DEVICE != 0
    }

    /// True if a server is behind it.
    pub(super) const fn is_client(&self) -> bool {
        !self.is_device() && magic::is_client(self.request.magic)
    }

    /// Some of it went through the page cache.
    pub(super) const fn cached(&self) -> bool {
        matches!(self.decision.verdict, Verdict::Fallback | Verdict::Partial)
    }

    pub(super) const fn cached_read(&self) -> bool {
        self.cached() && !self.is_write()
    }

    pub(super) const fn cached_write(&self) -> bool {
        self.cached() && self.is_write()
    }

    pub(super) fn verdict(&self, verdict: Verdict) -> bool {
        self.decision.verdict == verdict
    }

    pub(super) fn outcome(&self, outcome: Outcome) -> bool {
        self.decision.outcome == outcome
    }

    pub(super) fn on(&self, fs: &[&str]) -> bool {
        fs.contains(&self.fs)
    }

    pub(super) const fn seen(&self, bit: u32) -> bool {
        self.request.evidence.seen & bit != 0
    }

    /// A direct path was entered, whatever became of it.
    pub(super) const fn tried(&self) -> bool {
        self.seen(seen::DIRECT_TRIED)
    }

    /// The positive errno it ended with.
    pub(super) fn errno(&self) -> Option<i32> {
        (self.request.ret < 0).then(|| i32::try_from(-self.request.ret).unwrap_or(i32::MAX))
    }

    pub(super) fn failed_with(&self, errno: i32) -> bool {
        self.errno() == Some(errno)
    }

    /// Mounted with this option.
    pub(super) fn option(&self, wanted: &str) -> bool {
        self.options.split(',').any(|o| o == wanted)
    }

    /// Mounted with an option that begins so.
    pub(super) fn option_begins(&self, with: &str) -> bool {
        self.options.split(',').any(|o| o.starts_with(with))
    }

    /// True if one of the file's inode flags is set; false where they are not known.
    pub(super) fn flag(&self, bit: u32) -> bool {
        self.attrs.flags.is_some_and(|flags| flags & bit != 0)
    }

    /// True if one of these is set of the file, by FS_IOC_GETFLAGS or by statx.
    pub(super) fn marked(&self, flag: u32, attribute: u64) -> bool {
        self.flag(flag) || self.attrs.attributes.is_some_and(|bits| bits & attribute != 0)
    }

    /// True if an extent in the range has one of these flags; false where they are not known.
    pub(super) fn extent(&self, bit: u32) -> bool {
        self.extents.is_some_and(|flags| flags & bit != 0)
    }

    /// The file system's block size in bytes.
    pub(super) fn block(&self) -> u32 {
        self.attrs.block_size()
    }

    pub(super) const fn start(&self) -> u64 {
        if self.request.pos < 0 { 0 } else { self.request.pos as u64 }
    }

    /// Where the range that was asked for ends.
    pub(super) const fn stop(&self) -> u64 {
        self.start().saturating_add(self.request.len)
    }

    /// The range ends past the end that the file had.
    pub(super) const fn past_end(&self) -> bool {
        self.stop() > self.request.size_begin as u64
    }

    /// Low bits of all buffer addresses, where they are known.
    pub(super) const fn address_bits(&self) -> Option<u64> {
        let evidence = &self.request.evidence;
        if evidence.segments != 0 {
            return Some(evidence.addr_bits as u64);
        }
        if self.request.flags & REQ_VECTORED == 0 { Some(self.request.user) } else { None }
    }

    /// OR of the segments' lengths, if there are several and they were looked at.
    pub(super) const fn segment_bits(&self) -> Option<u64> {
        let evidence = &self.request.evidence;
        if evidence.segments > 1 { Some(evidence.len_bits as u64) } else { None }
    }

    /// A vector that was not looked at.
    pub(super) const fn segments_unknown(&self) -> bool {
        self.request.flags & REQ_VECTORED != 0 && self.request.evidence.segments == 0
    }

    /// The devices below, the first one first.
    pub(super) fn layers(&self) -> &[Layer] {
        &self.attrs.device.layers
    }
}
