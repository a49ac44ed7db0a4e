//! [`Case`]: the input of a rule, with the predicates that rules share.

use dio_trace_common::{
    abi::{API_SPLICE, OP_WRITE, REQ_BLOCK_DEVICE, REQ_VECTORED, Request, inode_flag},
    evidence::seen,
    verdict::{Decision, Outcome, Verdict, magic},
};

use crate::{
    model::BufferedUsers,
    system::{
        device::Layer,
        file_attrs::{FileAttrs, attribute, flag},
        mappings::Memory,
    },
};

/// A request, its verdict, and the attributes of its file: everything that a rule may look at.
pub struct Case<'a> {
    pub request: &'a Request,
    pub decision: &'a Decision,
    /// Type of the file system that decides whether the request is direct: for an overlay the
    /// file system of the layer, if known.
    pub fs: &'a str,
    /// Mount options of that file system, comma-separated.
    pub options: &'a str,
    pub attrs: &'a FileAttrs,
    /// Bytes in a page of the kernel.
    pub page_size: u64,
    /// OR of the flags of the extents in the request's range; None if they could not be read.
    pub extents: Option<u32>,
    /// How the buffer of a request that ended with EFAULT is mapped; None if unknown.
    pub memory: Option<&'a Memory>,
    /// Processes that use the file through the page cache.
    pub buffered_users: &'a BufferedUsers,
}

impl Case<'_> {
    pub(super) const fn is_write(&self) -> bool {
        self.request.op == OP_WRITE
    }

    /// True for a splice that writes: neither the size nor the address of the pipe's buffers is
    /// known.
    pub(super) const fn is_fed_by_pipe(&self) -> bool {
        self.is_write() && self.request.api == API_SPLICE
    }

    pub(super) const fn is_device(&self) -> bool {
        self.request.flags & REQ_BLOCK_DEVICE != 0
    }

    /// True if the file system is a network or FUSE client.
    pub(super) const fn is_client(&self) -> bool {
        !self.is_device() && magic::is_client(self.request.magic)
    }

    /// True if at least part of the request went through the page cache.
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

    /// True if a direct path was entered, even if it then moved no bytes.
    pub(super) const fn tried(&self) -> bool {
        self.seen(seen::DIRECT_TRIED)
    }

    /// The request's errno as a positive number; None if it did not fail.
    pub(super) fn errno(&self) -> Option<i32> {
        (self.request.ret < 0).then(|| i32::try_from(-self.request.ret).unwrap_or(i32::MAX))
    }

    pub(super) fn failed_with(&self, errno: i32) -> bool {
        self.errno() == Some(errno)
    }

    /// True if the file system is mounted with the option `wanted`.
    pub(super) fn option(&self, wanted: &str) -> bool {
        self.options.split(',').any(|o| o == wanted)
    }

    /// True if the file system is mounted with an option that begins with `with`.
    pub(super) fn option_begins(&self, with: &str) -> bool {
        self.options.split(',').any(|o| o.starts_with(with))
    }

    /// True if the inode flag `bit` (FS_IOC_GETFLAGS) is set; false if the flags are unknown.
    pub(super) fn flag(&self, bit: u32) -> bool {
        self.attrs.flags.is_some_and(|flags| flags & bit != 0)
    }

    /// True if the file has the inode flag `flag` (FS_IOC_GETFLAGS) or the statx(2) attribute
    /// `attribute`.
    pub(super) fn marked(&self, flag: u32, attribute: u64) -> bool {
        self.flag(flag) || self.attrs.attributes.is_some_and(|bits| bits & attribute != 0)
    }

    /// True if the file is encrypted by its file system. The inode says so of a deleted file too.
    pub(super) fn is_encrypted(&self) -> bool {
        self.request.inode_flags & inode_flag::ENCRYPTED != 0
            || self.marked(flag::ENCRYPTED, attribute::ENCRYPTED)
    }

    /// True if the file has fs-verity.
    pub(super) fn has_verity(&self) -> bool {
        self.request.inode_flags & inode_flag::VERITY != 0
            || self.marked(flag::VERITY, attribute::VERITY)
    }

    /// True if an extent in the range has one of the flags in `bit`; false if they are unknown.
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

    /// End of the requested range, exclusive, in bytes.
    pub(super) const fn stop(&self) -> u64 {
        self.start().saturating_add(self.request.len)
    }

    /// True if the range ends past the size that the file had when the request was issued.
    pub(super) const fn past_end(&self) -> bool {
        self.stop() > self.request.size_begin as u64
    }

    /// OR of the low bits of all buffer addresses; None if they are unknown.
    pub(super) const fn address_bits(&self) -> Option<u64> {
        let evidence = &self.request.evidence;
        if evidence.segments != 0 {
            return Some(evidence.addr_bits as u64);
        }
        if self.request.flags & REQ_VECTORED == 0 { Some(self.request.user) } else { None }
    }

    /// OR of the segments' lengths; None if there is one segment or they were not examined.
    pub(super) const fn segment_bits(&self) -> Option<u64> {
        let evidence = &self.request.evidence;
        if evidence.segments > 1 { Some(evidence.len_bits as u64) } else { None }
    }

    /// True for a vectored request whose segments were not examined.
    pub(super) const fn segments_unknown(&self) -> bool {
        self.request.flags & REQ_VECTORED != 0 && self.request.evidence.segments == 0
    }

    /// The block devices below the file system, topmost first.
    pub(super) fn layers(&self) -> &[Layer] {
        &self.attrs.device.layers
    }
}
