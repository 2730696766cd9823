//! One pseudo terminal for several readers: virtio-console (hvc0) behind a Unix socket.
//!
//! ```text
//! guest hvc0 ◄──► Cloud Hypervisor ◄── pty ──► pump ──► the last 64 KiB ──► every client
//!                                               ▲                             │
//!                                               └──── what any of them types ─┘
//! ```
//! The pump always reads, so a console that nobody looks at never stalls its guest; and it never waits
//! for a client: one that is slow misses bytes. A client first gets what was said last, then all that
//! follows. What goes through is bytes, both ways; terminals are the client's business.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Bytes;
use rustix::fs::{Mode, OFlags};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::client::Client;
use crate::config::ConsoleMode;
use crate::error::{Error, Result};
use crate::hypervisor::unlink;
use crate::validate::SOCKET_PATH;

/// What a new client gets to see of the past.
const BACKLOG: usize = 64 << 10;
/// What is read from the terminal, or from a client, at a time.
const PIECE: usize = 4096;
/// Pieces that a client may be behind.
const BEHIND: usize = 64;
/// Pieces of input that may wait for the guest; then clients wait.
const TYPED: usize = 16;
/// Clients at a time.
const CLIENTS: usize = 32;
/// The pause before a terminal that is gone is looked for again: a machine that is shut down has none.
const REOPEN: Duration = Duration::from_millis(500);

/// A console that is being served. Dropping it ends the serving: clients see the end of the stream.
#[derive(Debug)]
pub struct Console {
    socket: PathBuf,
    tasks: [JoinHandle<()>; 2],
}

impl Console {
    /// Listens on `socket`, in place of what may be there, and serves the pseudo terminal that `vm.info`
    /// names, also when a reboot changes it. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// [`Error::SocketPath`]; [`Error::Io`] for the socket.
    pub fn start(client: Client, socket: &Path) -> Result<Self> {
        if socket.as_os_str().len() > SOCKET_PATH {
            return Err(Error::SocketPath {
                path: socket.to_owned(),
            });
        }
        unlink(socket)?;
        let fail = |source| Error::io(format!("listen on {}", socket.display()), source);
        let listener = UnixListener::bind(socket).map_err(fail)?;
        std::fs::set_permissions(socket, PermissionsExt::from_mode(0o600)).map_err(fail)?;
        let (typed, input) = mpsc::channel(TYPED);
        let screen = Arc::new(Screen::default());
        let tasks = [
            tokio::spawn(pump(client, Arc::clone(&screen), input)),
            tokio::spawn(accept(listener, screen, typed)),
        ];
        Ok(Self {
            socket: socket.to_owned(),
            tasks,
        })
    }

    /// Where clients connect.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        if let Err(error) = unlink(&self.socket) {
            tracing::warn!(%error, "the console's socket is left behind");
        }
    }
}

/// What the guest said: the last of it, and a channel for the rest.
#[derive(Debug)]
struct Screen {
    past: Mutex<VecDeque<u8>>,
    live: broadcast::Sender<Bytes>,
}

impl Default for Screen {
    fn default() -> Self {
        Self {
            past: Mutex::default(),
            live: broadcast::channel(BEHIND).0,
        }
    }
}

impl Screen {
    fn show(&self, bytes: &[u8]) {
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        past.extend(bytes);
        let excess = past.len().saturating_sub(BACKLOG);
        past.drain(..excess);
        // Without a client nobody misses it.
        drop(self.live.send(Bytes::copy_from_slice(bytes)));
    }

    /// The past and all that follows it: nothing comes between, since both change under the lock.
    fn watch(&self) -> (Vec<u8>, broadcast::Receiver<Bytes>) {
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        (past.iter().copied().collect(), self.live.subscribe())
    }
}

async fn pump(client: Client, screen: Arc<Screen>, mut input: mpsc::Receiver<Bytes>) {
    loop {
        if let Some(path) = terminal(&client).await {
            match open(&path) {
                Ok(pty) => carry(&pty, &screen, &mut input).await,
                Err(error) => tracing::warn!(%error, pty = %path.display(), "no console"),
            }
        }
        sleep(REOPEN).await;
    }
}

/// The pseudo terminal of the machine as it is now.
async fn terminal(client: &Client) -> Option<PathBuf> {
    match client.info().await.ok()?.config.console?.mode {
        ConsoleMode::Pty { file } => file,
        _ => None,
    }
}

fn open(path: &Path) -> std::io::Result<AsyncFd<OwnedFd>> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let pty = rustix::fs::open(path, flags, Mode::empty())?;
    crate::sys::watch(pty, Interest::READABLE | Interest::WRITABLE)
}

/// Carries bytes both ways until the terminal is gone.
async fn carry(pty: &AsyncFd<OwnedFd>, screen: &Screen, input: &mut mpsc::Receiver<Bytes>) {
    let mut piece = [0; PIECE];
    let mut unsent = Bytes::new();
    loop {
        tokio::select! {
            ready = pty.readable() => {
                let Ok(mut ready) = ready else { return };
                match ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut piece)?)) {
                    Ok(Ok(size @ 1..)) => screen.show(piece.get(..size).unwrap_or_default()),
                    Ok(_) => return,
                    // Not ready after all.
                    Err(_) => {}
                }
            }
            ready = pty.writable(), if !unsent.is_empty() => {
                let Ok(mut ready) = ready else { return };
                match ready.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), &unsent)?)) {
                    Ok(Ok(size)) => drop(unsent.split_to(size)),
                    Ok(Err(_)) => return,
                    Err(_) => {}
                }
            }
            Some(typed) = input.recv(), if unsent.is_empty() => unsent = typed,
        }
    }
}

async fn accept(listener: UnixListener, screen: Arc<Screen>, typed: mpsc::Sender<Bytes>) {
    let mut clients = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if clients.len() < CLIENTS => match accepted {
                Ok((stream, _)) => drop(clients.spawn(serve(stream, Arc::clone(&screen), typed.clone()))),
                Err(error) => {
                    tracing::warn!(%error, "accepting a reader of the console");
                    sleep(REOPEN).await;
                }
            },
            Some(_) = clients.join_next() => {}
        }
    }
}

/// Serves one client until it goes. One that only closes its own writing half goes on reading.
async fn serve(stream: UnixStream, screen: Arc<Screen>, typed: mpsc::Sender<Bytes>) {
    let (mut read, mut write) = stream.into_split();
    let hear = async {
        let mut piece = [0; PIECE];
        while let Ok(size @ 1..) = read.read(&mut piece).await {
            let bytes = piece.get(..size).map(Bytes::copy_from_slice);
            if typed.send(bytes.unwrap_or_default()).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let say = async {
        let (past, mut live) = screen.watch();
        if write.write_all(&past).await.is_err() {
            return;
        }
        loop {
            match live.recv().await {
                Ok(bytes) => {
                    if write.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    };
    tokio::select! { () = say => {} () = hear => {} }
}
