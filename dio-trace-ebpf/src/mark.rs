//! Markers: entry of a function that may begin a request, seen through `rw_verify_area`.

use dio_trace_common::abi::{API_IO_URING, API_LIBAIO, API_READV, REQ_VECTORED};

use crate::{
    begin::mark,
    kernel::{
        AIO_IOCB_BUF, AIO_IOCB_NBYTES, AIO_IOCB_OPCODE, Args, IO_KIOCB_OPCODE, IO_RW_ADDR,
        IO_RW_LEN, KIOCB_KI_FILP, read,
    },
};

/// `ssize_t vfs_readv(struct file *, const struct iovec __user *, unsigned long vlen, …)` and
/// `vfs_writev`; which of them `rw_verify_area` says.
#[inline(always)]
pub fn vfs_iov<A: Args>(ctx: &A) {
    mark(ctx, ctx.arg(0), API_READV, 0, ctx.arg(1), ctx.arg(2) as u32, REQ_VECTORED);
}

/// `int aio_read(struct kiocb *, const struct iocb *, bool vectored, bool compat)` and
/// `aio_write`; position and flags of the kiocb are not set yet, its file is.
#[inline(always)]
pub fn aio_rw<A: Args>(ctx: &A) {
    const IOCB_CMD_PREADV: u16 = 7; // include/uapi/linux/aio_abi.h
    const IOCB_CMD_PWRITEV: u16 = 8;
    let kiocb = ctx.arg(0);
    let iocb = ctx.arg(1);
    let file: u64 = ctx.load(kiocb, &KIOCB_KI_FILP);
    let user: u64 = ctx.load(iocb, &AIO_IOCB_BUF);
    let nbytes: u64 = ctx.load(iocb, &AIO_IOCB_NBYTES);
    let opcode: u16 = ctx.load(iocb, &AIO_IOCB_OPCODE);
    if matches!(opcode, IOCB_CMD_PREADV | IOCB_CMD_PWRITEV) {
        mark(ctx, file, API_LIBAIO, kiocb, user, nbytes as u32, REQ_VECTORED);
    } else {
        mark(ctx, file, API_LIBAIO, kiocb, user, 1, 0);
    }
}

/// `int io_read(struct io_kiocb *, …)` and `io_write`; the kiocb is the request's first member.
#[inline(always)]
pub fn io_rw<A: Args>(ctx: &A) {
    const IORING_OP_READV: u8 = 1; // include/uapi/linux/io_uring.h
    const IORING_OP_WRITEV: u8 = 2;
    let req = ctx.arg(0);
    let file: u64 = ctx.load(req, &KIOCB_KI_FILP);
    if !crate::begin::is_direct(ctx, file) {
        return;
    }
    // `struct io_rw` overlays the request's command area; BTF does not know that.
    let user: u64 = read(req, &IO_RW_ADDR);
    let len: u32 = read(req, &IO_RW_LEN);
    let opcode: u8 = read(req, &IO_KIOCB_OPCODE);
    if matches!(opcode, IORING_OP_READV | IORING_OP_WRITEV) {
        mark(ctx, file, API_IO_URING, req, user, len, REQ_VECTORED);
    } else {
        mark(ctx, file, API_IO_URING, req, user, 1, 0);
    }
}
