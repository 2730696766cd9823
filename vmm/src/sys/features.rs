//! Whether the kernel lets this process use what it may not have: each asked by using it once.
#![expect(unsafe_code, reason = "system calls without a safe wrapper")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// `LANDLOCK_CREATE_RULESET_VERSION` of linux/landlock.h.
const LANDLOCK_VERSION: libc::c_uint = 1;
/// `struct io_uring_params` of linux/io_uring.h.
const IO_URING_PARAMS: usize = 120;

/// Makes an `io_uring` and drops it.
pub(crate) fn io_uring() -> io::Result<()> {
    let mut parameters = [0u64; IO_URING_PARAMS / 8];
    // SAFETY: the kernel reads and writes one structure of exactly this size; zeroes ask for nothing.
    opened(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) })
}

/// Makes a descriptor that handles faults of the kernel too, as KVM's are, and drops it.
pub(crate) fn userfaultfd() -> io::Result<()> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: takes a number and touches no memory of ours.
    opened(unsafe { libc::syscall(libc::SYS_userfaultfd, flags) })
}

/// The version of Landlock's interface.
pub(crate) fn landlock() -> io::Result<u32> {
    let none = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag there is no structure, and the answer is a plain number.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            none,
            0usize,
            LANDLOCK_VERSION,
        )
    };
    u32::try_from(version).map_err(|_| io::Error::last_os_error())
}

fn opened(fd: libc::c_long) -> io::Result<()> {
    match i32::try_from(fd) {
        Ok(fd) if fd >= 0 => {
            // SAFETY: the kernel has just made this descriptor for us.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
            Ok(())
        }
        _ => Err(io::Error::last_os_error()),
    }
}
