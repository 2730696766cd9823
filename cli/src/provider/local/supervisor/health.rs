//! Asks the API servers of the control planes whether they are ready, while there are several to choose
//! from: one whose etcd member does not vote yet, or has lost the others, accepts connections and
//! answers hardly anything.

use super::balancer::Balancer;
use crate::cluster::guest::Guest;
use crate::cluster::record::Record;
use futures::future::join_all;
use std::net::SocketAddr;
use std::time::Duration;

/// Between two rounds.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(4);

/// Tells the balancer who is ready, for as long as it has control planes to come.
pub(super) async fn watch<F>(balancer: Balancer, ready: impl Fn(SocketAddr) -> F)
where
    F: Future<Output = bool>,
{
    let mut targets = balancer.targets();
    loop {
        let several = targets.borrow_and_update().clone();
        let several = if several.len() > 1 { several } else { vec![] };
        let answers = join_all(several.iter().map(|server| async {
            let answer = tokio::time::timeout(ANSWER, ready(*server)).await;
            (*server, answer.unwrap_or(false))
        }));
        let answers = answers.await;
        let ready = answers.into_iter().filter(|(_, is)| *is);
        balancer.prefer(ready.map(|(server, _)| server).collect());
        if let Ok(Err(_)) = tokio::time::timeout(INTERVAL, targets.changed()).await {
            return;
        }
    }
}

/// Whether the API server at this address calls itself ready.
pub(super) async fn ready(record: &Record, server: SocketAddr) -> bool {
    match Guest::at(record, server).await {
        Ok(guest) => guest.ready().await.is_ok(),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::watch;

    #[tokio::test(start_paused = true)]
    async fn the_ready_are_preferred_while_there_is_a_choice() {
        let server = |n| SocketAddr::from(([10, 0, 0, n], 6443));
        let (tell, targets) = watch::channel(vec![server(1)]);
        let balancer = Balancer::new(targets);
        let (ask, mut asked) = tokio::sync::mpsc::unbounded_channel();
        let task = tokio::spawn(super::watch(balancer.clone(), move |server_asked| {
            ask.send(server_asked).unwrap();
            async move {
                match server_asked.ip().to_string().as_str() {
                    "10.0.0.1" => std::future::pending().await,
                    address => address == "10.0.0.3",
                }
            }
        }));
        tokio::time::sleep(INTERVAL * 2).await;
        assert!(asked.try_recv().is_err(), "nobody to choose from");
        tell.send_replace([1, 2, 3].map(server).into());
        tokio::time::sleep(ANSWER * 2).await;
        for _ in 0..3 {
            assert_eq!(balancer.first(), Some(server(3)));
        }
        drop(tell);
        drop(balancer);
        task.await.unwrap();
    }
}
