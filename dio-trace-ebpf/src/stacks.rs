//! The program's own stack at the issue of each request, if `--stack` asks for it.
//!
//! At the issue, as an asynchronous request may complete in an interrupt on top of any thread.

use aya_ebpf::{bindings::BPF_F_USER_STACK, btf_maps::StackTrace};
use dio_trace_common::abi::{API_IO_URING, Stat};

use crate::{
    config::STACKS, in_flight::RequestRef, kernel_memory::Args, maps::count, task::starts_with_iou,
};

/// Stacks by the kernel's hash of them; without `--stack` the loader leaves room for one.
/// [`Request::stack`] has room for these numbers.
const STACKS_MAX: usize = 16384;
/// Another stack with the same hash is in the map.
const EEXIST: i32 = -17;

#[aya_ebpf::macros::btf_map]
static STACK_TRACES: StackTrace<STACKS_MAX> = StackTrace::new();

/// Puts the number of the current stack into a request that the current thread issues.
#[inline(always)]
pub fn take<A: Args>(ctx: &A, request: RequestRef) {
    if STACKS.load() == 0 {
        return;
    }
    // io-wq and SQPOLL threads run no code of the program.
    if request.api().get() == API_IO_URING && starts_with_iou(request) {
        return;
    }
    match ctx.stack_id(&STACK_TRACES, BPF_F_USER_STACK) {
        Ok(id) => request.stack().set(id as u16 + 1),
        Err(EEXIST) => count(Stat::LostStack),
        Err(_) => {} // a kernel thread has none
    }
}
