//! A file as words of memory.

#![expect(
    unsafe_code,
    reason = "the only way to memory that outlives the process; nothing else in the crate has it"
)]

use std::fs::File;
use std::io;
use std::ptr;
use std::slice;
use std::sync::atomic::AtomicU64;

use rustix::mm::{MapFlags, ProtFlags, mmap};

/// Maps the whole of `file`, shared and for good: it is never unmapped.
pub(super) fn map(file: &File) -> io::Result<&'static [AtomicU64]> {
    let bytes = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the address is the kernel's choice, so no memory in use is replaced.
    let start = unsafe { mmap(ptr::null_mut(), bytes, access, MapFlags::SHARED, file, 0) }?;
    // SAFETY: the mapping has `bytes` bytes, begins at a page's start, so aligned for any type, and
    // lasts until the process ends. Every value of a word is a valid `AtomicU64`, and the process
    // reaches these words through this slice alone. The file is locked and its room allocated; one
    // that is cut short by another program all the same ends the process with SIGBUS.
    Ok(unsafe { slice::from_raw_parts(start.cast::<AtomicU64>(), bytes / size_of::<AtomicU64>()) })
}
