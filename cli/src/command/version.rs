//! `knest version`.

use super::Env;
use crate::cluster::version;
use crate::failure::Result;
use crate::ui::Output;

pub(crate) fn run(env: &Env) -> Result<()> {
    let knest = env!("CARGO_PKG_VERSION");
    match env.printer.output {
        Output::Table => env.printer.answer(&format!(
            "knest {knest}\nKubernetes {} by default\n",
            version::DEFAULT
        )),
        Output::Json => env.printer.json(&serde_json::json!({
            "knest": knest, "kubernetesDefault": version::DEFAULT,
        })),
    }
}
