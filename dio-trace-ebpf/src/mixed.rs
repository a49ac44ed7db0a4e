//! Mixed access: who uses a file through the page cache that somebody uses directly.
//!
//! Seen where pages come into the cache or become dirty, whatever brought them: a buffered call, a
//! mapping, this process or another. Bystanders on other files pay one look-up for a page that
//! changes its state, and nothing for one that is only read.

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_map_update_elem,
    generated::{bpf_get_current_comm, bpf_ktime_get_ns},
};
use dio_trace_common::abi::{EVENT_MIXER, Mixer, MixerEvent, Request, Stat};

use crate::{
    end::wakeup,
    kernel::{ADDRESS_SPACE_HOST, INODE_I_INO, read},
    maps::{DIRECT_FILES, DirectFile, EVENTS, MIXERS, add, count},
};

/// Remembers the file of a direct request by the `address_space` its data lives in.
#[inline(always)]
pub unsafe fn remember(request: *const Request, mapping: u64) {
    if mapping == 0 {
        return;
    }
    let host: u64 = read(mapping, &ADDRESS_SPACE_HOST);
    // SAFETY: per the caller, a request of a map.
    let file = unsafe {
        DirectFile {
            inode: (*request).inode,
            ino: (*request).ino,
            host_ino: read(host, &INODE_I_INO),
            dev: (*request).dev,
            generation: (*request).generation,
        }
    };
    // A full map forgets the file that was not mixed for longest; nothing else can fail.
    let _ = DIRECT_FILES.insert(mapping, &file, 0);
}

/// Pages of `mapping` changed their state, and not for an open direct request of this thread.
#[inline(always)]
pub fn pages(mapping: u64, how: u32, pages: u64) {
    let Some(file) = DIRECT_FILES.get_ptr(mapping) else { return };
    // SAFETY: a value of DIRECT_FILES.
    let file = unsafe { *file };
    let host: u64 = read(mapping, &ADDRESS_SPACE_HOST);
    let ino: u64 = read(host, &INODE_I_INO);
    if ino != file.host_ino {
        return; // another file's by now: the address was used again
    }
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let key = Mixer {
        inode: file.inode,
        ino: file.ino,
        dev: file.dev,
        tgid,
        how,
        generation: file.generation,
    };
    if let Some(sum) = MIXERS.get_ptr_mut(key) {
        // SAFETY: this CPU's value.
        unsafe { add(sum, pages) };
        return;
    }
    first(&key, pages);
}

#[inline(never)]
fn first(key: &Mixer, pages: u64) -> i32 {
    // SAFETY: key and value are of the map's sizes.
    let failed = unsafe {
        bpf_map_update_elem(
            (&raw const MIXERS).cast_mut().cast(),
            core::ptr::from_ref(key).cast_mut().cast(),
            (&raw const pages).cast_mut().cast(),
            0,
        )
    };
    if failed != 0 {
        count(Stat::LostMixer);
        return 0;
    }
    let Some(mut entry) = EVENTS.reserve_untyped::<MixerEvent>(0) else {
        return 0; // it is in the map, and in the summary
    };
    let event = entry.as_mut_ptr();
    // SAFETY: reserved above with this very size; every member is written.
    unsafe {
        (*event).kind = EVENT_MIXER;
        (*event).tid = bpf_get_current_pid_tgid() as u32;
        (*event).time_ns = bpf_ktime_get_ns();
        (*event).mixer = *key;
        bpf_get_current_comm((&raw mut (*event).comm).cast(), 16);
    }
    entry.submit(wakeup());
    0
}
