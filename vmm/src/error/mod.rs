//! The crate's one error, and what Cloud Hypervisor itself answered.
//!
//! Evidence sits in the variants: the call, the path, the argv, the exit, the last lines. A cause is
//! a `source`, never repeated in the text. Remedies are the caller's business.

mod api;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub use api::{ApiError, Kind};

use crate::capability::Unsupported;
use crate::info::VmState;
use crate::process::{Death, Identity};
use crate::validate::Problem;

/// What can go wrong between this crate and a VM.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(
    clippy::error_impl_error,
    reason = "the crate's one error: callers write knest_vmm::Error"
)]
pub enum Error {
    /// Cloud Hypervisor refused a call.
    #[error("{call} was refused")]
    Api {
        /// The call, such as `vm.boot`.
        call: &'static str,
        /// Its answer.
        #[source]
        source: ApiError,
    },
    /// The connection failed, or ended before the answer did.
    #[error("{call} on {} failed", socket.display())]
    Transport {
        /// The call.
        call: &'static str,
        /// The API socket.
        socket: PathBuf,
        /// What the connection said.
        #[source]
        source: io::Error,
    },
    /// All connections of Cloud Hypervisor stayed taken until the deadline.
    #[error("{call} on {} found Cloud Hypervisor busy for {waited:?}", socket.display())]
    Busy {
        /// The call.
        call: &'static str,
        /// The API socket.
        socket: PathBuf,
        /// How long it was tried.
        waited: Duration,
    },
    /// No answer in time. Cloud Hypervisor may be busy and may still do what was asked.
    #[error("{call} on {} had no answer within {waited:?}", socket.display())]
    Timeout {
        /// The call.
        call: &'static str,
        /// The API socket.
        socket: PathBuf,
        /// The deadline.
        waited: Duration,
    },
    /// An answer that is not what the call answers.
    #[error("{call} had an answer that can't be read: {excerpt:?}")]
    Decode {
        /// The call.
        call: &'static str,
        /// The answer's first bytes.
        excerpt: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// An answer larger than this crate reads.
    #[error("{call} had an answer of more than {limit} bytes")]
    AnswerTooLarge {
        /// The call.
        call: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A request that can't be written as JSON: a path that is not UTF-8.
    #[error("{call} can't be encoded: {reason}")]
    Encode {
        /// The call.
        call: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A request that Cloud Hypervisor would refuse for its size, and lose its place doing so.
    #[error("{call} has a body of {size} bytes, and this Cloud Hypervisor takes {limit}")]
    RequestTooLarge {
        /// The call.
        call: &'static str,
        /// Bytes of the body.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The running version would drop these fields without a word, or has no such call.
    #[error("Cloud Hypervisor {version} can't do what is asked: {}", join(missing))]
    Unsupported {
        /// The version that runs.
        version: String,
        /// What it lacks.
        missing: Vec<Unsupported>,
    },
    /// A configuration that can't boot.
    #[error("the VM's configuration is wrong: {}", join(problems))]
    Invalid {
        /// What is wrong.
        problems: Vec<Problem>,
    },
    /// The call makes no sense in the VM's state.
    #[error("can't {verb} a VM that is {state}")]
    WrongState {
        /// What was to be done.
        verb: &'static str,
        /// The state.
        state: VmState,
    },
    /// Descriptors that were sent beside a call did not arrive. Cloud Hypervisor has put something of
    /// its own in their place and said nothing.
    #[error("{call} sent {device} {sent} descriptors, and it has {found}")]
    Lost {
        /// The call.
        call: &'static str,
        /// The device's id.
        device: String,
        /// Descriptors sent.
        sent: usize,
        /// Descriptors that the device has.
        found: usize,
    },
    /// A socket path that doesn't fit a socket address.
    #[error("{} is {} bytes long, and a socket's path has at most 107", path.display(), path.as_os_str().len())]
    SocketPath {
        /// The path.
        path: PathBuf,
    },
    /// A program could not be started.
    #[error("can't start {}", argv.join(" "))]
    Spawn {
        /// The program and its arguments.
        argv: Vec<String>,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Cloud Hypervisor ended, or was never there.
    #[error("Cloud Hypervisor {death}")]
    Died {
        /// How, with its last words.
        death: Box<Death>,
    },
    /// Cloud Hypervisor runs but doesn't answer on its socket.
    #[error("Cloud Hypervisor (pid {pid}) did not answer on {} within {waited:?}", socket.display())]
    NotReady {
        /// The process.
        pid: u32,
        /// The API socket.
        socket: PathBuf,
        /// How long it was tried.
        waited: Duration,
        /// The last attempt's error.
        #[source]
        last: Option<Box<Error>>,
    },
    /// The process is not there, or its number belongs to another one now.
    #[error("no process {identity}")]
    NoProcess {
        /// What was looked for.
        identity: Identity,
    },
    /// Another process serves the socket.
    #[error("{} is served by process {found}, not by {expected}", socket.display())]
    WrongPeer {
        /// The API socket.
        socket: PathBuf,
        /// What was looked for.
        expected: Identity,
        /// What the process that answers calls itself.
        found: i64,
    },
    /// Every rung of the ladder was tried and the process is still there.
    #[error("process {pid} outlived every way of stopping it")]
    Unstoppable {
        /// The process.
        pid: u32,
    },
    /// What was waited for didn't come.
    #[error("{what} did not happen within {waited:?}; last seen: {last}")]
    Deadline {
        /// What was waited for.
        what: &'static str,
        /// How long.
        waited: Duration,
        /// The last observation.
        last: String,
    },
    /// A file or a system call.
    #[error("{what}")]
    Io {
        /// What was being done, to which file.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// What kind of failure it is, as far as callers decide by it.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Api { source, .. } => source.kind(),
            Self::Busy { .. } | Self::Timeout { .. } | Self::NotReady { .. } => Kind::Busy,
            Self::Died { .. } | Self::NoProcess { .. } => Kind::Died,
            Self::WrongState { .. } => Kind::InvalidState,
            Self::Unsupported { .. }
            | Self::Invalid { .. }
            | Self::Encode { .. }
            | Self::RequestTooLarge { .. }
            | Self::SocketPath { .. } => Kind::Validation,
            Self::Transport { .. } | Self::Io { .. } | Self::Spawn { .. } => Kind::Io,
            Self::Decode { .. }
            | Self::AnswerTooLarge { .. }
            | Self::Lost { .. }
            | Self::WrongPeer { .. }
            | Self::Unstoppable { .. }
            | Self::Deadline { .. } => Kind::Other,
        }
    }

    pub(crate) fn io(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io {
            what: what.into(),
            source: source.into(),
        }
    }
}

fn join<T: ToString>(items: &[T]) -> String {
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}
