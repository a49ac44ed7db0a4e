//! The table of kernel struct members that the probes read.
//!
//! The eBPF side defines a `.rodata` global for each row. The loader looks up struct and member in
//! the running kernel's BTF and sets the global before the program is loaded, so that the verifier
//! treats it as a constant.

/// Value of an offset whose member does not exist in this kernel.
pub const ABSENT: u32 = u32::MAX;

/// Calls `$with!` with all rows: `NAME "struct" "member" must|may`. `may` marks a member that some
/// kernels do not have: the probe that reads it is not attached there, or tests for [`ABSENT`].
#[macro_export]
macro_rules! kernel_offsets {
    ($with:ident) => {
        $with! {
            FILE_F_FLAGS "file" "f_flags" must;
            FILE_F_INODE "file" "f_inode" must;
            FILE_F_MAPPING "file" "f_mapping" must;
            FILE_F_PATH "file" "f_path" must;
            FILE_F_POS "file" "f_pos" must;
            PATH_MNT "path" "mnt" must;
            PATH_DENTRY "path" "dentry" must;
            VFSMOUNT_MNT_ROOT "vfsmount" "mnt_root" must;
            MOUNT_MNT "mount" "mnt" must;
            MOUNT_MNT_ID "mount" "mnt_id" must;
            MOUNT_MNT_NS "mount" "mnt_ns" must;
            DENTRY_D_INODE "dentry" "d_inode" must;
            DENTRY_D_NAME "dentry" "d_name" must;
            DENTRY_D_PARENT "dentry" "d_parent" must;
            DENTRY_D_HASH "dentry" "d_hash" must;
            DENTRY_D_U "dentry" "d_u" may;
            DENTRY_D_ALIAS "dentry" "d_alias" may;
            HLIST_BL_NODE_PPREV "hlist_bl_node" "pprev" must;
            QSTR_NAME "qstr" "name" must;
            INODE_I_MODE "inode" "i_mode" must;
            INODE_I_FLAGS "inode" "i_flags" must;
            INODE_I_INO "inode" "i_ino" must;
            INODE_I_SB "inode" "i_sb" must;
            INODE_I_SIZE "inode" "i_size" must;
            INODE_I_RDEV "inode" "i_rdev" must;
            INODE_I_GENERATION "inode" "i_generation" must;
            INODE_I_NLINK "inode" "i_nlink" must;
            INODE_I_DENTRY "inode" "i_dentry" may;
            INODE_I_RWSEM "inode" "i_rwsem" must;
            RW_SEMAPHORE_OWNER "rw_semaphore" "owner" may;
            SUPER_BLOCK_S_DEV "super_block" "s_dev" must;
            SUPER_BLOCK_S_MAGIC "super_block" "s_magic" must;
            SUPER_BLOCK_S_TYPE "super_block" "s_type" must;
            FILE_SYSTEM_TYPE_NAME "file_system_type" "name" must;
            ADDRESS_SPACE_HOST "address_space" "host" must;
            ADDRESS_SPACE_I_MMAP "address_space" "i_mmap" may;
            ADDRESS_SPACE_NRPAGES "address_space" "nrpages" must;
            KIOCB_KI_FILP "kiocb" "ki_filp" must;
            KIOCB_KI_POS "kiocb" "ki_pos" must;
            KIOCB_KI_COMPLETE "kiocb" "ki_complete" must;
            KIOCB_KI_FLAGS "kiocb" "ki_flags" must;
            KIOCB_DIO_COMPLETE "kiocb" "dio_complete" may;
            BACKING_AIO_ORIG_IOCB "backing_aio" "orig_iocb" may;
            IOMAP_DIO_IOCB "iomap_dio" "iocb" must;
            IOMAP_DIO_SIZE "iomap_dio" "size" must;
            IOMAP_DIO_ERROR "iomap_dio" "error" must;
            IOMAP_DIO_SIMPLE_IOCB "iomap_dio_simple" "iocb" may;
            IOMAP_DIO_SIMPLE_SIZE "iomap_dio_simple" "size" may;
            DIO_IOCB "dio" "iocb" may;
            DIO_RESULT "dio" "result" may;
            WRITEBACK_CONTROL_NR_TO_WRITE "writeback_control" "nr_to_write" must;
            AIO_IOCB_BUF "iocb" "aio_buf" may;
            AIO_IOCB_NBYTES "iocb" "aio_nbytes" may;
            AIO_IOCB_OFFSET "iocb" "aio_offset" may;
            AIO_IOCB_OPCODE "iocb" "aio_lio_opcode" may;
            AIO_IOCB_RW_FLAGS "iocb" "aio_rw_flags" may;
            AIO_KIOCB_KI_RES "aio_kiocb" "ki_res" may;
            IO_KIOCB_OPCODE "io_kiocb" "opcode" may;
            IO_KIOCB_RESULT "io_kiocb" "result" may;
            IO_KIOCB_CTX "io_kiocb" "ctx" may;
            IO_RING_CTX_FLAGS "io_ring_ctx" "flags" may;
            IO_RW_ADDR "io_rw" "addr" may;
            IO_RW_LEN "io_rw" "len" may;
            IO_RW_FLAGS "io_rw" "flags" may;
            IO_URING_CQE_RES "io_uring_cqe" "res" may;
            PIPE_RING_SIZE "pipe_inode_info" "ring_size" may;
            TASK_GROUP_LEADER "task_struct" "group_leader" must;
            TASK_COMM "task_struct" "comm" must;
            TASK_TGID "task_struct" "tgid" must;
            TASK_PID "task_struct" "pid" must;
            TASK_FLAGS "task_struct" "flags" must;
            TASK_PENDING "task_struct" "pending" must;
            TASK_CGROUPS "task_struct" "cgroups" may;
            CSS_SET_DFL_CGRP "css_set" "dfl_cgrp" may;
            CGROUP_KN "cgroup" "kn" may;
            KERNFS_NODE_ID "kernfs_node" "id" may;
            IOV_ITER_COUNT "iov_iter" "count" may;
            VM_FAULT_VMA "vm_fault" "vma" may;
            VM_FAULT_PGOFF "vm_fault" "pgoff" may;
            VMA_VM_FILE "vm_area_struct" "vm_file" may;
            SIGPENDING_SIGNAL "sigpending" "signal" must;
            FOLIO_MAPPING "page" "mapping" must;
            FOLIO_INDEX "folio" "index" may;
            FOLIO_INDEX_OLD "page" "index" may;
            FOLIO_FLAGS "page" "flags" must;
            FOLIO_NR_PAGES "folio" "_nr_pages" may;
            FOLIO_NR_PAGES_OLD "folio" "_folio_nr_pages" may;
        }
    };
}
