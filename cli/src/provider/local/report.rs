//! A failure on its way from one process to another: through a socket, a pipe or a file.

use crate::failure::{Failure, Kind};
use serde::{Deserialize, Serialize};

/// A failure, written down.
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
