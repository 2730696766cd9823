//! Memory shared with a guest of KVM.
#![expect(
    unsafe_code,
    reason = "a guest writes into this memory behind the compiler's back"
)]

use std::io;
use std::ptr::NonNull;

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;

/// Zeroed pages, mapped once, that a guest sees from its address 0 on.
#[derive(Debug)]
pub(crate) struct GuestMemory {
    base: NonNull<u8>,
    size: usize,
}

// SAFETY: the mapping belongs to this value alone and to no thread.
unsafe impl Send for GuestMemory {}

impl GuestMemory {
    /// `size` bytes, rounded up to pages by the kernel.
    pub(crate) fn new(size: usize) -> io::Result<Self> {
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing else.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(base.cast())
            .map(|base| Self { base, size })
            .ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    /// Writes `bytes` at `address`; nothing when they don't fit.
    pub(crate) fn write(&mut self, address: usize, bytes: &[u8]) {
        if address
            .checked_add(bytes.len())
            .is_some_and(|end| end <= self.size)
        {
            // SAFETY: the range lies within the mapping, checked above, and `bytes` is not in it.
            unsafe {
                let to = self.base.as_ptr().add(address);
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
            }
        }
    }

    /// The byte at `address`; 0 outside.
    pub(crate) fn read(&self, address: usize) -> u8 {
        if address >= self.size {
            return 0;
        }
        // SAFETY: within the mapping, checked above; volatile because a guest may have written it.
        unsafe { self.base.as_ptr().add(address).read_volatile() }
    }

    /// Makes it the memory of `vm`. It must outlive `vm`; the caller keeps both in one value that drops
    /// `vm` first.
    pub(crate) fn map(&self, vm: &VmFd) -> io::Result<()> {
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: self.size as u64,
            userspace_addr: self.base.as_ptr() as u64,
        };
        // SAFETY: the region is mapped and stays so as long as this value lives.
        unsafe { vm.set_user_memory_region(region) }
            .map_err(|error| io::Error::from_raw_os_error(error.errno()))
    }
}

impl Drop for GuestMemory {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this size, unmapped once.
        unsafe {
            libc::munmap(self.base.as_ptr().cast(), self.size);
        }
    }
}
