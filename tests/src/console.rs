//! The console of a single VM, as somebody sees it who sits at it.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::{Env, wait};

/// How long something may take to appear: emulated, a guest boots for minutes.
const PATIENCE: Duration = Duration::from_secs(400);
const POLL: Duration = Duration::from_millis(100);

/// `knest vm console`, typed at and read by a test; left on drop.
#[derive(Debug)]
pub struct Console {
    child: Child,
    keys: ChildStdin,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Console {
    /// Joins the console of the VM of this name.
    #[must_use]
    pub fn join(env: &Env, name: &str) -> Self {
        let mut command = env.knest(["vm", "console", name]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("knest starts");
        let keys = child.stdin.take().expect("a pipe");
        let mut output = child.stdout.take().expect("a pipe");
        let screen = Arc::new(Mutex::new(Vec::new()));
        let shown = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(size @ 1..) = output.read(&mut piece) {
                shown.lock().expect("the screen").extend(&piece[..size]);
            }
        });
        Self {
            child,
            keys,
            screen,
        }
    }

    /// All that it has shown.
    #[must_use]
    pub fn seen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().expect("the screen")).into_owned()
    }

    /// Waits until it has shown this.
    pub fn until(&self, text: &str) {
        wait::until(text, PATIENCE, POLL, || {
            let seen = self.seen();
            if seen.contains(text) {
                Ok(())
            } else {
                Err(seen)
            }
        });
    }

    /// Types a line.
    pub fn types(&mut self, line: &str) {
        self.keys
            .write_all(format!("{line}\r").as_bytes())
            .expect("typing");
    }

    /// Whether it ends by itself, and well.
    #[must_use]
    pub fn ends(mut self) -> bool {
        let status = wait::until("its end", PATIENCE, POLL, || {
            self.child.try_wait().ok().flatten().ok_or("it runs")
        });
        status.success()
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
