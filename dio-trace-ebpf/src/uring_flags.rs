//! Flags of a request of io_uring and of its ring. They are part of events only, and are read when
//! one is sent: the io_kiocb is the request's own until its CQE is posted.

use dio_trace_common::{
    abi::{API_IO_URING, ring, rwf},
    offsets::ABSENT,
};

use crate::{
    in_flight::RequestRef,
    kernel_memory::{
        IO_KIOCB_CTX, IO_RING_CTX_FLAGS, IO_RW_FLAGS, KIOCB_KI_FLAGS, read, read_fast,
    },
};

/// What of the flags is known only at the issue: before 5.18 they are in the kiocb alone
/// (fs/io_uring.c:io_prep_rw), together with those of the open and of the ring. RWF_NOWAIT is the
/// program's there, as io_uring sets its own one later.
#[inline(always)]
pub fn at_issue(req: u64) -> u16 {
    if IO_RW_FLAGS.load() != ABSENT {
        return 0;
    }
    read_fast::<u32>(req, &KIOCB_KI_FLAGS) as u16 & rwf::NOWAIT
}

/// The flags of the call: from 5.18 on all of them, before that what [`at_issue`] knows.
#[inline(always)]
pub fn of_call(req: u64) -> u16 {
    match IO_RW_FLAGS.load() {
        ABSENT => at_issue(req),
        _ => rwf::of(read(req, &IO_RW_FLAGS)),
    }
}

/// Adds the flags of the call (from 5.18 on) and of the ring to a request that is about to be sent.
#[inline(always)]
pub fn add(request: RequestRef) {
    if request.api().get() != API_IO_URING {
        return;
    }
    let req = request.kiocb().get();
    if IO_RW_FLAGS.load() != ABSENT {
        let flags = read(req, &IO_RW_FLAGS);
        request.rw_flags().set(rwf::of(flags));
    }
    if IO_KIOCB_CTX.load() != ABSENT && IO_RING_CTX_FLAGS.load() != ABSENT {
        let ctx: u64 = read(req, &IO_KIOCB_CTX);
        let flags: u32 = read(ctx, &IO_RING_CTX_FLAGS);
        request.ring().set_bits(flags as u8 & (ring::IOPOLL | ring::SQPOLL));
    }
}
