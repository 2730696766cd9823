//! The same for a host cluster: whether clusters can be made there.

use super::check::{Check, Grade};
use super::render::lines;
use crate::command::Env;
use crate::command::place::{Where, host};
use crate::failure::{Failure, Result};
use crate::provider::virtink::{Line, survey};
use crate::ui::Output;

pub(super) async fn run(place: Where, env: &Env) -> Result<()> {
    let virtink = host(place, env).await?;
    let found = survey(virtink.host()).await?;
    let fit = found.iter().all(|line| line.found.is_ok() || !line.needed);
    let checks: Vec<Check> = found.iter().map(check).collect();
    match env.printer.output {
        Output::Json => env
            .printer
            .json(&serde_json::json!({"checks": checks, "fit": fit})),
        Output::Table => {
            let mut text = lines(&checks);
            if fit {
                let command = "knest create --provider virtink";
                text.push_str(&format!("\nClusters can be made there: {command}.\n"));
            }
            env.printer.answer(&text)
        }
    }?;
    match fit {
        true => Ok(()),
        false => Err(Failure::host(format!(
            "no cluster can be made in {} yet",
            virtink.word()
        ))),
    }
}

fn check(line: &Line) -> Check {
    match &line.found {
        Ok(found) => Check::ok(line.name, found.clone()),
        Err(failure) => {
            let grade = match line.needed {
                true => Grade::Failure,
                false => Grade::Warning,
            };
            Check::failed(line.name, grade, failure)
        }
    }
}
