//! The rule table. Rules are tried in its order, and the first that fits is taken.
//!
//! The order is: errors; reasons why bytes went through the page cache, proven ones before likely
//! ones; short counts; side effects; ends of files; notes on healthy requests. The last rule takes
//! every finding that is left.

mod alignment;
mod attributes;
mod blocks;
mod btrfs;
mod client;
mod efault;
mod errors;
mod f2fs;
mod flags;
mod invalidation;
mod memory;
pub(super) mod notes;
mod ntfs3;
mod short_io;
mod side_effects;
pub(super) mod side_events;
mod stacked;
mod unknown;
mod would_block;
mod xfs;

use crate::cause::Rule;
pub use alignment::{Limits, limits_of};
pub use errors::IO_ERRORS;
pub use would_block::WAITS;

/// Id of the rule for requests that must not wait.
pub const WOULD_BLOCK: &str = would_block::WOULD_BLOCK.id;

/// Id of the rule for requests that io_uring handed to a worker thread.
pub const PUNTED: &str = would_block::PUNTED.id;

/// Id of the rule for buffers that changed while they were written.
pub const BUFFER_CHANGED: &str = side_effects::BUFFER_CHANGED.id;

/// Id of the note on buffered loop devices.
pub const LOOP_BUFFERED: &str = notes::LOOP_BUFFERED.id;

/// Id of the note on alignment probes.
pub const ALIGNMENT_PROBE: &str = notes::ALIGNMENT_PROBE.id;

/// Id of the rule for findings that no other rule explains.
pub const NOT_EXPLAINED: &str = unknown::NOT_EXPLAINED.id;

/// Rules that depend only on lasting attributes of a file, so that they can forecast before there
/// is a request.
pub(super) const LASTING: &[Rule] = &[
    attributes::DATA_JOURNAL,
    attributes::ENCRYPTED,
    attributes::VERITY,
    attributes::INLINE_DATA,
    f2fs::COMPRESSED,
    f2fs::ZONED,
    f2fs::CHECKPOINT_OFF,
    alignment::NO_DIRECT_IO,
    stacked::EROFS_FILE_BACKED,
    btrfs::COMPRESSED,
    blocks::ALLOCATING_WRITE,
];

/// Notes on healthy requests, in the order of [`RULES`], which has them too.
pub(super) const NOTES: &[Rule] =
    &[notes::LOOP_BUFFERED, notes::BOUNCED, notes::SERVER_MAY_CACHE, would_block::PUNTED];

/// The rule table, in the order in which rules are tried.
pub const RULES: &[Rule] = &[
    // The request failed: it moved no bytes.
    errors::DAEMON_REFUSED,
    flags::ATOMIC_WRITE,
    alignment::MISALIGNED,
    errors::INVALID_REQUEST,
    errors::COMPRESSED_REFUSED,
    flags::FLAG_UNSUPPORTED,
    would_block::WOULD_BLOCK,
    errors::NO_SPACE,
    efault::EFAULT,
    errors::INTERRUPTED,
    errors::IO_ERROR,
    errors::OTHER_ERROR,
    // The storage is memory.
    memory::TMPFS,
    memory::DAX,
    // Through the page cache, because the file is of a kind that has no direct path.
    attributes::DATA_JOURNAL,
    attributes::ENCRYPTED,
    attributes::VERITY,
    attributes::INLINE_DATA, // only likely, for a write
    // … because the request is not aligned to blocks.
    btrfs::MISALIGNED,
    ntfs3::MISALIGNED,
    // … because of a rule of its file system; f2fs checks for whole blocks last.
    f2fs::COMPRESSED,
    f2fs::ZONED,
    f2fs::CHECKPOINT_OFF,
    f2fs::MISALIGNED,
    f2fs::MULTI_DEVICE,
    alignment::NO_DIRECT_IO, // also explains EINVAL
    stacked::EROFS_FILE_BACKED,
    invalidation::CACHE_NOT_INVALIDATED,
    xfs::UNALIGNED_COW,
    stacked::BELOW_BUFFERED,
    client::READ_ON,
    blocks::NILFS2_WRITE,
    blocks::ALLOCATING_WRITE,
    blocks::READ_PAST_END,
    blocks::CUT_SHORT,
    btrfs::COMPRESSED,
    btrfs::RACING,
    btrfs::BUFFER_FAULT,
    btrfs::LARGE_BLOCK,
    btrfs::CHECKSUMS,
    btrfs::COPIES,
    stacked::OVERLAY,
    unknown::FILE_GONE,
    side_effects::DIRTY_LEFT,
    // The path was not observed.
    unknown::MISSED_PROBE,
    unknown::UNSEEN_PATH,
    // Fewer bytes than asked for.
    short_io::FAULT,
    short_io::SIGNAL,
    short_io::MEDIA,
    short_io::SERVER,
    short_io::RACE,
    short_io::MAX_RW,
    short_io::OTHER,
    // Side effects.
    side_effects::BUFFER_CHANGED,
    side_effects::DIRTY_FLUSH,
    side_effects::CACHE_INVALIDATED,
    // Expected short counts: the end of the file or device.
    short_io::DEVICE_END,
    short_io::END_OF_FILE,
    // Notes on healthy requests.
    notes::LOOP_BUFFERED,
    notes::BOUNCED,
    notes::SERVER_MAY_CACHE,
    would_block::PUNTED,
    // The cause of several requests together.
    notes::ALIGNMENT_PROBE,
    // Causes of side events, not of requests.
    side_events::OPEN_REFUSED,
    side_events::MIXED_ACCESS,
    side_events::NOT_ASKED,
    side_events::NOT_ASKED_MMAP,
    side_events::MIXED_SELF,
    unknown::NOT_EXPLAINED,
];
