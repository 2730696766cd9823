//! What is said over `supervisor.sock`: one line of JSON there, one back, then the end.

use crate::cluster::name::NodeName;
use crate::provider::local::report::Report;
use serde::{Deserialize, Serialize};

/// Another version is refused by either side.
pub(super) const VERSION: u32 = 1;

/// Longest line.
pub(super) const LINE_MAX: u64 = 1 << 20;

/// A line to the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) version: u32,
    #[serde(flatten)]
    pub(super) op: Op,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub(super) enum Op {
    /// Only an answer.
    Status,
    /// Start these machines unless they run.
    Start { machines: Vec<NodeName> },
    /// Have these machines power themselves off, each within so many seconds; what does not is
    /// stopped all the same.
    Stop {
        machines: Vec<NodeName>,
        patience: u64,
    },
    /// Stop these machines and forget them.
    Remove { machines: Vec<NodeName> },
    /// Stop every machine and the way out, and end.
    Shutdown,
}

/// A line back.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Response {
    pub(super) version: u32,
    #[serde(flatten)]
    pub(super) outcome: Outcome,
}

/// How it went.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Outcome {
    Done(Status),
    Failed(Report),
}

/// The supervisor about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    pub(crate) pid: u32,
    /// Why machines reach nothing outside, if they don't.
    pub(crate) no_way_out: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let machines = vec!["demo-worker-1".parse().unwrap()];
        let request = Request {
            version: VERSION,
            op: Op::Start { machines },
        };
        let text = serde_json::to_string(&request).unwrap();
        insta::assert_snapshot!(text, @r#"{"version":1,"op":"start","machines":["demo-worker-1"]}"#);
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        let status = Status {
            pid: 7,
            no_way_out: None,
        };
        let response = Response {
            version: VERSION,
            outcome: Outcome::Done(status),
        };
        let text = serde_json::to_string(&response).unwrap();
        insta::assert_snapshot!(text, @r#"{"version":1,"done":{"pid":7,"noWayOut":null}}"#);
    }
}
