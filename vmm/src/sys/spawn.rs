//! Starting a program without a copy of this process in between, as `posix_spawn` does: the child
//! borrows this process's memory, and this thread stands still, until it has become the program. A copy
//! costs as much as the program's own start, and grows with this process.
//!
//! ```text
//! this thread   prepare ─► block signals ─► clone ····· stands still ·····─► unblock ─► Pid or error
//! child                                       └─► default handlers, session, descriptors, execve
//! ```
//! In the child nothing may allocate, lock or panic: it makes plain system calls on what was prepared.
#![expect(
    unsafe_code,
    reason = "no safe wrapper starts a program in a session of its own without a copy of this process"
)]

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use libc::{c_char, c_int, c_void};
use rustix::process::Pid;

/// Words of the child's stack, of 16 bytes as the ABI aligns it: it makes a dozen system calls.
const STACK: usize = 4096;

/// What the child reads, and the one word that it writes.
struct Child {
    argv: *const *const c_char,
    environment: *const *const c_char,
    stdio: [RawFd; 3],
    keep: *const RawFd,
    kept: usize,
    /// Why it did not become the program; 0 while nothing failed.
    error: c_int,
}

/// Starts `argv`, of which the first is a path, in a session of its own, with `stdio` as its descriptors 0 to 2, and of all
/// others exactly those of `keep`, under their own numbers. Signals do there what they do by default, but
/// for those that are ignored here.
pub(crate) fn spawn(
    argv: &[&OsStr],
    environment: impl Iterator<Item = (OsString, OsString)>,
    stdio: [OwnedFd; 3],
    keep: &[RawFd],
) -> io::Result<Pid> {
    let text = |bytes: Vec<u8>| CString::new(bytes).map_err(io::Error::from);
    let argv = argv.iter().map(|arg| text(arg.as_bytes().to_owned()));
    let argv: Vec<CString> = argv.collect::<io::Result<_>>()?;
    let environment =
        environment.map(|(name, value)| text([name.into_vec(), value.into_vec()].join(&b'=')));
    let environment: Vec<CString> = environment.collect::<io::Result<_>>()?;
    // Numbers below 3 would be overwritten before they are copied.
    let stdio = stdio.map(above_stderr);
    let [stdin, stdout, stderr] = stdio;
    let stdio = [stdin?, stdout?, stderr?];

    let argv_pointers = pointers(&argv);
    let environment_pointers = pointers(&environment);
    let mut child = Child {
        argv: argv_pointers.as_ptr(),
        environment: environment_pointers.as_ptr(),
        stdio: stdio.each_ref().map(AsRawFd::as_raw_fd),
        keep: keep.as_ptr(),
        kept: keep.len(),
        error: 0,
    };
    let mut stack = Box::<[u128]>::new_uninit_slice(STACK);
    let pid = without_signals(|| {
        let top = stack.as_mut_ptr_range().end;
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: the stack is the child's alone and grows down from its end, which is aligned. All that
        // `child` points to lives on, since this thread stands still until the child is gone from this
        // memory, by execve or by its end.
        unsafe { libc::clone(enter, top.cast(), flags, (&raw mut child).cast()) }
    })?;
    let pid = Pid::from_raw(pid).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: a plain word of ours; volatile because the child wrote it behind the compiler's back.
    match unsafe { (&raw const child.error).read_volatile() } {
        0 => Ok(pid),
        error => {
            // It has ended, or is about to.
            rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())?;
            Err(io::Error::from_raw_os_error(error))
        }
    }
}

/// The list that execve takes: it ends with a null pointer.
fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    let texts = texts.iter().map(|text| text.as_ptr());
    texts.chain(std::iter::once(std::ptr::null())).collect()
}

fn above_stderr(fd: OwnedFd) -> io::Result<OwnedFd> {
    match fd.as_raw_fd() {
        0..=2 => Ok(rustix::io::fcntl_dupfd_cloexec(&fd, 3)?),
        _ => Ok(fd),
    }
}

/// Calls `clone` while no signal is handled in this thread: a handler that ran in the child would run in
/// this process's memory. Its answer is -1 for an error.
fn without_signals(clone: impl FnOnce() -> c_int) -> io::Result<c_int> {
    let mut all = MaybeUninit::uninit();
    let mut before = MaybeUninit::uninit();
    // SAFETY: plain calls on sets of ours; the first fills `all`, the second reads it and fills `before`.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    let pid = clone();
    let error = io::Error::last_os_error();
    // SAFETY: `before` was filled above.
    unsafe {
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut());
    }
    if pid < 0 { Err(error) } else { Ok(pid) }
}

/// Where the child begins, and ends if it does not become the program.
extern "C" fn enter(child: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes its own `Child`, which nobody else touches while this runs. Only
    // async-signal-safe calls on what was prepared: nothing allocates, locks or panics.
    unsafe {
        let child = &mut *child.cast::<Child>();
        if prepare(child) {
            libc::execve(*child.argv, child.argv, child.environment);
        }
        child.error = *libc::__errno_location();
    }
    127
}

/// # Safety
/// Only in the child.
unsafe fn prepare(child: &Child) -> bool {
    // SAFETY: as in `enter`.
    unsafe {
        for signal in 1..=libc::SIGRTMAX() {
            let mut action = MaybeUninit::<libc::sigaction>::zeroed();
            let action = action.as_mut_ptr();
            let known = libc::sigaction(signal, std::ptr::null(), action) == 0;
            let ignored = (*action).sa_sigaction == libc::SIG_IGN && signal != libc::SIGPIPE;
            if known && !ignored {
                (*action).sa_sigaction = libc::SIG_DFL;
                // Fails for those that can't be handled, which have no handler.
                libc::sigaction(signal, action, std::ptr::null_mut());
            }
        }
        if libc::setsid() < 0 {
            return false;
        }
        let [stdin, stdout, stderr] = child.stdio;
        if libc::dup2(stdin, 0) < 0 || libc::dup2(stdout, 1) < 0 || libc::dup2(stderr, 2) < 0 {
            return false;
        }
        // Marked, so that those to be kept can be unmarked. On a kernel before 5.11 this fails, and
        // Rust's own descriptors are close-on-exec anyhow.
        libc::syscall(
            libc::SYS_close_range,
            3 as libc::c_uint,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC as libc::c_uint,
        );
        let mut index = 0;
        while index < child.kept {
            if libc::fcntl(*child.keep.add(index), libc::F_SETFD, 0) < 0 {
                return false;
            }
            index += 1;
        }
        let mut none = MaybeUninit::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()) == 0
    }
}
