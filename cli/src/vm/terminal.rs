//! A terminal, or a pipe, joined to a VM's console. Bytes go through as they are; on a terminal `Ctrl-]`
//! leaves, and everything else, Ctrl-C too, is the guest's.

use crate::failure::{Context, Failure, Result};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use std::io::{ErrorKind, IsTerminal, Read, Write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// `Ctrl-]`.
const ESCAPE: u8 = 0x1d;
const PIECE: usize = 4096;

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// The user left; the VM goes on.
    Escaped,
    /// The console ended: the VM did, or its supervisor.
    Closed,
}

/// A terminal that passes everything through, until this is dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> Result<Self> {
        let what = "setting the terminal up";
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).host(what)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&stdin, SetArg::TCSANOW, &raw).host(what)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        tcsetattr(std::io::stdin(), SetArg::TCSADRAIN, &self.0).ok();
        // Whatever the guest left on: colours off, cursor shown, the alternate screen and mouse left.
        let sane = b"\x1b[0m\x1b[?25h\x1b[?1049l\x1b[?1000l\r\n";
        if std::io::stdout().is_terminal() {
            drop(write_out(sane));
        }
    }
}

/// Joins standard input and output to a console until either side ends. A standard input that is no
/// terminal may end before the console does.
pub(crate) async fn session(console: UnixStream) -> Result<Left> {
    let terminal = std::io::stdin().is_terminal();
    let mut hang_up = signal(SignalKind::hangup()).host("listening for SIGHUP")?;
    let mut terminate = signal(SignalKind::terminate()).host("listening for SIGTERM")?;
    let _raw = terminal.then(Raw::enter).transpose()?;
    let (mut read, mut write) = console.into_split();
    let mut typed = keyboard();
    let mut typing = true;
    let mut piece = [0; PIECE];
    loop {
        tokio::select! {
            size = read.read(&mut piece) => match size {
                // A console that is cut off has ended too.
                Ok(0) | Err(_) => return Ok(Left::Closed),
                Ok(size) => match write_out(&piece[..size]) {
                    // Whoever read us has read enough.
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(Left::Escaped),
                    other => other.host("writing the console")?,
                },
            },
            bytes = typed.recv(), if typing => {
                let bytes = bytes.unwrap_or_default();
                let (keys, escaped) = match terminal {
                    true => up_to_escape(&bytes),
                    false => (&bytes[..], false),
                };
                if bytes.is_empty() {
                    typing = false;
                    drop(write.shutdown().await);
                } else if write.write_all(keys).await.is_err() {
                    return Ok(Left::Closed);
                }
                if escaped {
                    return Ok(Left::Escaped);
                }
            }
            _ = hang_up.recv() => return Ok(Left::Escaped),
            _ = terminate.recv() => return Err(Failure::interrupted()),
        }
    }
}

/// What is typed before the escape, and whether that came.
fn up_to_escape(bytes: &[u8]) -> (&[u8], bool) {
    match bytes.iter().position(|byte| *byte == ESCAPE) {
        Some(at) => (&bytes[..at], true),
        None => (bytes, false),
    }
}

/// Standard input, read by a thread of its own: one that waits for a key can't be stopped, and must not
/// keep the process from ending.
fn keyboard() -> mpsc::Receiver<Vec<u8>> {
    let (tell, typed) = mpsc::channel(16);
    std::thread::spawn(move || {
        let mut piece = [0; PIECE];
        loop {
            let size = match std::io::stdin().lock().read(&mut piece) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other.unwrap_or(0),
            };
            if size == 0 || tell.blocking_send(piece[..size].to_vec()).is_err() {
                return;
            }
        }
    });
    typed
}

fn write_out(bytes: &[u8]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_escape_ends_what_is_typed() {
        assert_eq!(up_to_escape(b"ab\x03"), (&b"ab\x03"[..], false));
        assert_eq!(up_to_escape(b"ab\x1dcd\x1d"), (&b"ab"[..], true));
        assert_eq!(up_to_escape(b"\x1d"), (&b""[..], true));
    }
}
