//! What is said over `supervisor.sock`: one line of JSON there, one back, then the end.

use crate::cluster::name::NodeName;
use crate::failure::{Failure, Kind};
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

/// A failure on its way through the socket.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    kind: String,
    message: String,
    evidence: Vec<String>,
    hints: Vec<String>,
}

const KINDS: [Kind; 6] = [
    Kind::Usage,
    Kind::Host,
    Kind::Guest,
    Kind::Timeout,
    Kind::Interrupted,
    Kind::Internal,
];

impl From<&Failure> for Report {
    fn from(failure: &Failure) -> Self {
        let json = failure.json();
        let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
        let texts = |key: &str| {
            let items = json[key].as_array().into_iter().flatten();
            items
                .filter_map(|v| v.as_str().map(str::to_owned))
                .collect()
        };
        Self {
            kind: text("kind"),
            message: text("message"),
            evidence: texts("evidence"),
            hints: texts("hints"),
        }
    }
}

impl From<Report> for Failure {
    fn from(report: Report) -> Self {
        let kind = KINDS
            .into_iter()
            .find(|k| k.word() == report.kind)
            .unwrap_or(Kind::Internal);
        let failure = Failure::new(kind, report.message);
        let failure = report.evidence.into_iter().fold(failure, Failure::evidence);
        report.hints.into_iter().fold(failure, Failure::hint)
    }
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

    #[test]
    fn a_failure_survives_the_journey() {
        let failure = Failure::guest("a machine ended")
            .because(std::io::Error::other("exit code 1"))
            .evidence("last words")
            .hint("do better");
        let report = serde_json::to_string(&Report::from(&failure)).unwrap();
        let back = Failure::from(serde_json::from_str::<Report>(&report).unwrap());
        assert_eq!(back.render(), failure.render());
        assert_eq!(back.kind, Kind::Guest);
    }
}
