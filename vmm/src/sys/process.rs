//! What the kernel tells of processes, and pidfds.
#![expect(
    unsafe_code,
    reason = "system calls without a safe wrapper, each justified"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::process::ExitReason;

/// `struct pidfd_info` of linux/pidfd.h, first version, whose last word is the exit code since 6.15.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;
/// `_IOWR(0xff, 11, struct pidfd_info)`.
const PIDFD_GET_INFO: libc::Ioctl =
    ((3 << 30) | (size_of::<PidfdInfo>() << 16) | (0xff << 8) | 11) as libc::Ioctl;
const SO_PEERPIDFD: libc::c_int = 77;

/// A pidfd of the process that listens at the other end of a connected Unix socket (Linux 6.5).
pub(crate) fn peer_pidfd(socket: impl AsFd) -> io::Result<OwnedFd> {
    let mut fd: libc::c_int = -1;
    let mut size: libc::socklen_t = 4;
    // SAFETY: the kernel writes one int into `fd`, whose size it is told.
    let done = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut size,
        )
    };
    if done < 0 || fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// How a reaped process ended, asked of its pidfd (Linux 6.15). `None` when the kernel can't tell.
pub(crate) fn pidfd_exit(pidfd: impl AsFd) -> Option<ExitReason> {
    let mut info = PidfdInfo {
        mask: PIDFD_INFO_EXIT,
        ..PidfdInfo::default()
    };
    // SAFETY: the request's number says the structure's size, and the kernel writes no more.
    let done = unsafe { libc::ioctl(pidfd.as_fd().as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    (done == 0 && info.mask & PIDFD_INFO_EXIT != 0)
        .then(|| ExitReason::from_wait_status(info.exit_code))
}

/// Registers `fd` with the runtime.
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor stays the same one until it is dropped, and it is dropped only
    // after its registration.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(io::Error::from)
}
