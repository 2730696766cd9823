//! What goes on beside a test until it is dropped: on a thread, and so in the network, of its own.

use std::path::PathBuf;
use std::thread::JoinHandle;

use kube::Client;
use tokio::sync::oneshot;

/// Runs until it is dropped, which waits for its end.
#[derive(Debug)]
pub(crate) struct Background {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// Starts `work` with a client of the API that the kubeconfig names. It is to end when it hears
    /// that it shall stop.
    pub(crate) fn start<F: Future<Output = ()>>(
        name: &str,
        kubeconfig: PathBuf,
        work: impl FnOnce(Client, oneshot::Receiver<()>) -> F + Send + 'static,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime");
                runtime.block_on(async {
                    let client = crate::host::client(&kubeconfig).await;
                    work(client, stopped).await;
                });
            })
            .expect("a thread");
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
