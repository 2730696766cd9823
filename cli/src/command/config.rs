//! `knest config`: what a user always wants.
//!
//! ```text
//! config/defaults.yaml    provider: virtink
//! ```

use super::Env;
use super::place::Kind;
use crate::failure::{Context, Failure, Result};
use crate::paths::Paths;
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::PathBuf;

/// What can be set.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Set what is taken where no flag says otherwise
    SetDefault {
        #[command(subcommand)]
        what: What,
    },
    /// Print what is set
    View,
}

/// A default.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum What {
    /// Where new clusters live
    Provider {
        /// The provider; without it the default is taken back
        #[arg(value_enum)]
        provider: Option<Kind>,
    },
}

/// The defaults that a user set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Defaults {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) provider: Option<Kind>,
}

fn file(paths: &Paths) -> PathBuf {
    paths.config.join("defaults.yaml")
}

/// What is set.
pub(super) fn defaults(paths: &Paths) -> Result<Defaults> {
    let path = file(paths);
    match fs_err::read_to_string(&path) {
        Ok(text) if text.trim().is_empty() => Ok(Defaults::default()),
        Ok(text) => serde_yaml_ng::from_str(&text).map_err(|error| {
            Failure::usage(format!("reading {}", path.display()))
                .because(error)
                .hint("it has lines like `provider: virtink`")
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Defaults::default()),
        Err(error) => Err(Failure::host("reading knest's defaults").because(error)),
    }
}

pub(crate) fn run(verb: Verb, env: &Env) -> Result<()> {
    let mut now = defaults(&env.paths)?;
    match verb {
        Verb::View => {}
        Verb::SetDefault {
            what: What::Provider { provider },
        } => {
            now.provider = provider;
            let what = "writing knest's defaults";
            fs_err::create_dir_all(&env.paths.config).host(what)?;
            let text = match now == Defaults::default() {
                true => String::new(),
                false => serde_yaml_ng::to_string(&now)
                    .map_err(|e| Failure::internal(what).because(e))?,
            };
            fs_err::write(file(&env.paths), text).host(what)?;
            let words = now.provider.map_or_else(
                || "New clusters live where it fits.".to_owned(),
                |kind| format!("New clusters live with provider {kind}."),
            );
            env.printer.note(&words);
            return Ok(());
        }
    }
    match env.printer.output {
        crate::ui::Output::Json => env.printer.json(
            &serde_json::to_value(&now).map_err(|e| Failure::internal("rendering").because(e))?,
        ),
        crate::ui::Output::Table => {
            let provider = now
                .provider
                .map_or_else(|| "-".to_owned(), |k| k.to_string());
            env.printer.answer(&format!("provider   {provider}\n"))
        }
    }
}
