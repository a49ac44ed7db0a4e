//! Error numbers, negative as functions of the kernel return them.

/// The request would have to wait.
pub const EAGAIN: i64 = -11;
pub const EOPNOTSUPP: i64 = -95;
/// The request was queued; its completion follows (include/linux/errno.h). io_uring returns the
/// same value for "no completion to post here" (IOU_ISSUE_SKIP_COMPLETE).
pub const EIOCBQUEUED: i64 = -529;
/// IOU_REQUEUE, a kernel-internal result of io_uring (include/linux/io_uring_types.h, 6.15).
pub const IOU_REQUEUE: i64 = -3072;
/// These two and those between them never reach a program (include/linux/errno.h).
pub const ERESTARTSYS: i64 = -512;
pub const ERESTART_LAST: i64 = -516;
