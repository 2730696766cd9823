//! Forwards connections to the API servers of the control planes: to one of those said to be ready, if
//! any, that accepts. Knows addresses and bytes only.

use rustix::net::sockopt;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

/// How long a control plane may take to accept.
const CONNECT: Duration = Duration::from_secs(3);
/// How long one that did not accept is asked last.
const SHUNNED: Duration = Duration::from_secs(5);
/// Connections at a time, of each listener.
const CONNECTIONS: usize = 1024;

/// The control planes, which of them are ready, and which did not accept lately. Clones share what
/// they learn.
#[derive(Clone, Debug)]
pub(super) struct Balancer {
    targets: watch::Receiver<Vec<SocketAddr>>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    turn: usize,
    ready: BTreeSet<SocketAddr>,
    refused: BTreeMap<SocketAddr, Instant>,
}

impl Balancer {
    pub(super) fn new(targets: watch::Receiver<Vec<SocketAddr>>) -> Self {
        Self {
            targets,
            seen: Arc::default(),
        }
    }

    /// The control planes, as they come and go.
    pub(super) fn targets(&self) -> watch::Receiver<Vec<SocketAddr>> {
        self.targets.clone()
    }

    /// From here on these are asked before others.
    pub(super) fn prefer(&self, ready: BTreeSet<SocketAddr>) {
        self.with(|seen| {
            if seen.ready != ready {
                tracing::info!(?ready, "control planes");
                seen.ready = ready;
            }
        });
    }

    /// Forwards whatever connects, for ever.
    pub(super) async fn serve(self, listener: TcpListener) {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((client, _)) => {
                    let balancer = self.clone();
                    tokio::spawn(async move {
                        if let Err(error) = balancer.forward(client).await {
                            tracing::debug!(%error, "a connection ended");
                        }
                        drop(permit);
                    });
                }
                // Out of descriptors or memory, or the client is gone: the next one may fare better.
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Both directions until both have ended, an end of one being passed on; or until its control
    /// plane is none any more: one that was stopped says no farewell, and its clients would wait for
    /// an answer.
    async fn forward(&self, mut client: TcpStream) -> io::Result<()> {
        let (target, mut server) = self.connect().await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        keep_alive(&client)?;
        keep_alive(&server)?;
        let mut targets = self.targets.clone();
        tokio::select! {
            ended = tokio::io::copy_bidirectional(&mut client, &mut server) => ended.map(drop),
            _ = targets.wait_for(|all| !all.contains(&target)) => Ok(()),
        }
    }

    async fn connect(&self) -> io::Result<(SocketAddr, TcpStream)> {
        let mut last = io::Error::new(io::ErrorKind::NotConnected, "no control plane yet");
        for target in self.order() {
            let late = || io::Error::from(io::ErrorKind::TimedOut);
            let result = tokio::time::timeout(CONNECT, TcpStream::connect(target)).await;
            match result.unwrap_or_else(|_| Err(late())) {
                Ok(stream) => {
                    self.with(|seen| seen.refused.remove(&target));
                    return Ok((target, stream));
                }
                Err(error) => {
                    self.with(|seen| seen.refused.insert(target, Instant::now()));
                    last = error;
                }
            }
        }
        Err(last)
    }

    fn order(&self) -> Vec<SocketAddr> {
        let targets = self.targets.borrow().clone();
        self.with(|seen| {
            seen.turn = seen.turn.wrapping_add(1);
            order(targets, seen, Instant::now())
        })
    }

    /// Whom the next connection goes to.
    #[cfg(test)]
    pub(super) fn first(&self) -> Option<SocketAddr> {
        self.order().first().copied()
    }

    fn with<T>(&self, act: impl FnOnce(&mut Seen) -> T) -> T {
        act(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whom to ask, in this order: each in turn first, those behind that are not ready, and those that did
/// not accept lately last.
fn order(mut targets: Vec<SocketAddr>, seen: &Seen, now: Instant) -> Vec<SocketAddr> {
    let count = targets.len().max(1);
    targets.rotate_left(seen.turn % count);
    let shunned = |t: &SocketAddr| seen.refused.get(t).is_some_and(|at| now - *at < SHUNNED);
    targets.sort_by_key(|t| (shunned(t), !seen.ready.contains(t)));
    targets
}

/// A machine that vanishes sends no farewell; after a minute of silence its connections end.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(30))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(10))?;
    sockopt::set_tcp_keepcnt(stream, 3)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn the_order_rotates_prefers_and_shuns() {
        let all: Vec<SocketAddr> = (1..=3)
            .map(|n| SocketAddr::from(([10, 0, 0, n], 6443)))
            .collect();
        let mut seen = Seen {
            turn: 1,
            ..Seen::default()
        };
        let now = Instant::now();
        assert_eq!(order(all.clone(), &seen, now), [all[1], all[2], all[0]]);
        seen.refused.insert(all[1], now);
        assert_eq!(order(all.clone(), &seen, now), [all[2], all[0], all[1]]);
        assert_eq!(
            order(all.clone(), &seen, now + SHUNNED),
            [all[1], all[2], all[0]]
        );
        assert_eq!(order(vec![], &seen, now), []);
        seen.ready.insert(all[2]);
        assert_eq!(order(all.clone(), &seen, now), [all[2], all[0], all[1]]);
        seen.refused.insert(all[2], now);
        assert_eq!(order(all.clone(), &seen, now), [all[0], all[2], all[1]]);
    }

    /// A server that answers what it read only after the client's half has ended.
    async fn server(name: &'static str) -> (SocketAddr, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut text = String::new();
                stream.read_to_string(&mut text).await.unwrap();
                stream
                    .write_all(format!("{name} {text}").as_bytes())
                    .await
                    .unwrap();
            }
        });
        (address, task)
    }

    /// What comes back, up to an end of either kind.
    async fn ask(address: SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.ok();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok();
        text
    }

    #[tokio::test]
    async fn a_dead_control_plane_is_passed_over() {
        let (first, first_task) = server("first").await;
        let (second, _second_task) = server("second").await;
        let (targets, receiver) = watch::channel(vec![]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(Balancer::new(receiver).serve(listener));

        assert_eq!(
            ask(address).await,
            "",
            "nobody to forward to: the connection just ends"
        );
        targets.send_replace(vec![first, second]);
        let answers = [ask(address).await, ask(address).await];
        assert!(
            answers.contains(&"first hello".into()) && answers.contains(&"second hello".into())
        );
        first_task.abort();
        for _ in 0..4 {
            assert_eq!(ask(address).await, "second hello");
        }

        // A connection does not outlive its control plane's being one.
        let mut open = TcpStream::connect(address).await.unwrap();
        open.write_all(b"hello").await.unwrap();
        targets.send_replace(vec![]);
        let mut nothing = vec![];
        open.read_to_end(&mut nothing).await.ok();
        assert!(nothing.is_empty());
    }
}
