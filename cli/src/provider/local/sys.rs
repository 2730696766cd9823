//! The system calls that have no safe wrapper: making TAP devices.

use nix::libc::{IFF_NO_PI, IFF_TAP, IFF_VNET_HDR, IFNAMSIZ, c_int, c_short, ifreq};
use std::io;
use std::os::fd::AsRawFd;

mod raw {
    #![allow(missing_docs, reason = "written by the macros")]
    use super::{c_int, ifreq};
    nix::ioctl_write_ptr_bad!(
        tun_set_iff,
        nix::request_code_write!(b'T', 202, size_of::<c_int>()),
        ifreq
    );
    nix::ioctl_write_int_bad!(
        tun_set_persist,
        nix::request_code_write!(b'T', 203, size_of::<c_int>())
    );
}

/// Makes a TAP device in this thread's network namespace, or finds the one of this name; it stays
/// until it is deleted or the namespace ends. The device is for one queue and for frames with a
/// virtio header, as both VMMs open it. `name` has at most 15 bytes.
#[expect(
    unsafe_code,
    reason = "TUNSETIFF and TUNSETPERSIST have no safe wrapper"
)]
pub(super) fn persistent_tap(name: &str) -> io::Result<()> {
    if name.is_empty() || name.len() >= IFNAMSIZ || name.contains('\0') {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not an interface name",
        ));
    }
    let device = fs_err::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    // SAFETY: all of ifreq is plain data for which zeroes are a value.
    let mut request: ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags =
        c_short::try_from(flags).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the descriptor is open for the whole call, `request` is a live ifreq that the kernel
    // reads and writes within its size, and its name ends in a zero byte (checked above).
    unsafe { raw::tun_set_iff(device.as_raw_fd(), &raw const request) }?;
    // SAFETY: takes an integer and touches no memory of ours.
    unsafe { raw::tun_set_persist(device.as_raw_fd(), 1) }?;
    Ok(())
}
