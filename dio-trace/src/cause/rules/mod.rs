//! The rule table: its order is the order of decision, the first that fits is taken.
//!
//! Errors first; then why bytes went through the page cache, what is proven before what is likely;
//! then short counts; then what a request cost beside; then ends of files, and notes on healthy
//! requests. The last one takes what is left.

mod alignment;
mod attributes;
mod blocks;
mod btrfs;
mod client;
mod errors;
mod f2fs;
mod invalidation;
mod memory;
pub(super) mod notes;
mod ntfs3;
mod short_io;
mod side_effects;
pub(super) mod side_events;
mod stacked;
mod unknown;
mod xfs;

use crate::cause::Rule;
pub use alignment::{Limits, limits_of};
pub use errors::IO_ERRORS;

/// Id of the rule that takes what no other explains.
pub const NOT_EXPLAINED: &str = unknown::NOT_EXPLAINED.id;

/// What can be told of a file before there is a request: properties that keep its requests from
/// being direct.
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

/// The rule table.
pub const RULES: &[Rule] = &[
    // No byte moved.
    alignment::MISALIGNED,
    errors::INVALID_REQUEST,
    errors::COMPRESSED_REFUSED,
    errors::FLAG_UNSUPPORTED,
    errors::WOULD_BLOCK,
    errors::NO_SPACE,
    errors::EFAULT,
    errors::INTERRUPTED,
    errors::IO_ERROR,
    errors::OTHER_ERROR,
    // Memory is the storage.
    memory::TMPFS,
    memory::DAX,
    // Through the page cache: the file is of a kind that has no direct path.
    attributes::DATA_JOURNAL,
    attributes::ENCRYPTED,
    attributes::VERITY,
    attributes::INLINE_DATA, // likely, for a write
    // … the request does not keep to blocks.
    btrfs::MISALIGNED,
    ntfs3::MISALIGNED,
    // … a rule of its file system; f2fs asks for its blocks last.
    f2fs::COMPRESSED,
    f2fs::ZONED,
    f2fs::CHECKPOINT_OFF,
    f2fs::MISALIGNED,
    f2fs::MULTI_DEVICE,
    alignment::NO_DIRECT_IO, // or refused for it
    stacked::EROFS_FILE_BACKED,
    invalidation::CACHE_NOT_INVALIDATED,
    xfs::UNALIGNED_COW,
    stacked::BELOW_BUFFERED,
    client::READ_ON,
    blocks::NILFS2_WRITE,
    blocks::ALLOCATING_WRITE,
    blocks::READ_PAST_END,
    btrfs::COMPRESSED,
    btrfs::RACING,
    btrfs::BUFFER_FAULT,
    btrfs::CHECKSUMS,
    blocks::CUT_SHORT,
    stacked::OVERLAY,
    side_effects::DIRTY_LEFT,
    // Nobody saw how.
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
    // What it cost beside.
    side_effects::DIRTY_FLUSH,
    side_effects::CACHE_INVALIDATED,
    // Ends that are in the nature of the file.
    short_io::DEVICE_END,
    short_io::END_OF_FILE,
    // Healthy, and worth knowing.
    notes::LOOP_BUFFERED,
    notes::BOUNCED,
    notes::SERVER_MAY_CACHE,
    // Of files and processes, not of requests.
    side_events::OPEN_REFUSED,
    side_events::MIXED_ACCESS,
    side_events::MIXED_SELF,
    unknown::NOT_EXPLAINED,
];
