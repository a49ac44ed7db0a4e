//! Which file, and which thread: parts of every record.

/// Identifies a file while it is traced. Device and inode number are not enough on btrfs, where all
/// subvolumes share `s_dev`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    /// Kernel address of the inode.
    pub inode: u64,
    pub ino: u64,
    /// Kernel `dev_t` of the file system.
    pub dev: u32,
    /// `inode.i_generation`: changes if the inode number and the inode's memory are reused.
    pub generation: u32,
}

/// A thread and its name.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Task {
    /// Thread id, in the initial PID namespace.
    pub tid: u32,
    /// Thread-group id: the process. With `tid` before it, both are the number that
    /// bpf_get_current_pid_tgid gives.
    pub tgid: u32,
    /// The thread's name (`task_struct.comm`), NUL-padded.
    pub comm: [u8; 16],
}

impl FileId {
    pub const NONE: Self = Self { inode: 0, ino: 0, dev: 0, generation: 0 };
}

impl Task {
    pub const NONE: Self = Self { tid: 0, tgid: 0, comm: [0; 16] };
}

// No padding, see the parent module.
const _: () = {
    assert!(size_of::<FileId>() == 24);
    assert!(size_of::<Task>() == 24);
};
