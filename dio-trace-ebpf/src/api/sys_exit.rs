//! Completion at the return of the system call, where fexit is unavailable.

use dio_trace_common::abi::{API_LIBAIO, Stat};

use crate::{
    aio_reap,
    config::O_APPEND,
    evidence::direct::completes_elsewhere,
    kernel_memory::{ADDRESS_SPACE_HOST, FILE_F_FLAGS, INODE_I_SIZE, read},
    maps::count,
    open_rejected,
    preempt::PreemptGuard,
    request::finish::{appended, end_async, finish, leave, leave_sync},
    thread_table::{self, ASYNC},
};

/// Return of any system call of a thread that has a record: completes its synchronous request. Its
/// position was on the stack of that call, and is gone. Also the return of io_submit: an error
/// there is that of its first request, which never reached its callback.
#[inline(always)]
pub fn returned(ret: i64) {
    let Some(thread) = thread_table::current() else { return };
    let _guard = PreemptGuard::new();
    open_rejected::returned(thread, ret);
    if let Some((request, result)) = aio_reap::still_open(thread, ret) {
        completes_elsewhere(request);
        end_async(request, result, 0);
        return; // a thread that waits for events submits nothing meanwhile
    }
    if thread.state().get() == ASYNC {
        if let Some(request) = leave(thread) {
            if ret < 0 && request.api().get() == API_LIBAIO {
                end_async(request, ret, 1);
            }
        }
        return;
    }
    if leave_sync(thread) {
        let request = thread.request();
        if ret > request.len().get() as i64 {
            // The return of the request's own call was missed: this is a later one.
            count(Stat::Unmatched);
            return;
        }
        let file = thread.file().get();
        let flags: u32 = read(file, &FILE_F_FLAGS);
        if flags & O_APPEND.load() != 0 {
            let host: u64 = read(request.mapping().get(), &ADDRESS_SPACE_HOST);
            appended(request, ret, || read(host, &INODE_I_SIZE));
        }
        finish(request, ret, file, 1);
    }
}
