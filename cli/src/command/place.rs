//! Where clusters live: which provider takes a new one, and why; where one of a name is found; and
//! all there are. The flags for it are every verb's.
//!
//! ```text
//! create:  --provider ─► KNEST_PROVIDER ─► knest config ─► a flag that only virtink has
//!          ─► what the current context serves ─► local
//! others:  on this machine, or where the index says; both is refused; neither: as create
//! ```

use super::Env;
use crate::cluster::name::ClusterName;
use crate::failure::{Failure, Result};
use crate::paths::Paths;
use crate::provider::Provider;
use crate::provider::local::Local;
use crate::provider::virtink::{Host, HostName, Place, Virtink, current_context, places};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What every context that knest makes begins with.
const OURS: &str = "knest-";
/// The variable that names a provider.
const VARIABLE: &str = "KNEST_PROVIDER";
const HEADING: &str = "Where clusters live";

/// Where machines live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// On this machine
    Local,
    /// On a Kubernetes cluster with Virtink
    Virtink,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Local => "local",
            Self::Virtink => "virtink",
        })
    }
}

/// The flags.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Where {
    /// What runs the machines [default: what `knest config` says, else what fits]
    #[arg(long, value_enum, value_name = "PROVIDER", help_heading = HEADING)]
    pub(super) provider: Option<Kind>,
    /// The host cluster's kubeconfig context [default: the current one]
    #[arg(long, value_name = "CONTEXT", help_heading = HEADING)]
    host_context: Option<String>,
    /// The kubeconfig that has it [default: as kubectl finds its own]
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    host_kubeconfig: Option<PathBuf>,
    /// The host cluster's namespace [default: the context's]
    #[arg(
        short,
        long,
        alias = "target-namespace",
        value_name = "NAMESPACE",
        help_heading = HEADING
    )]
    namespace: Option<String>,
}

impl Where {
    /// A flag that only host clusters have.
    fn flag(&self) -> Option<&'static str> {
        let given = [
            ("--host-context", self.host_context.is_some()),
            ("--host-kubeconfig", self.host_kubeconfig.is_some()),
            ("--namespace", self.namespace.is_some()),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(f, _)| f)
    }

    /// Whether it is a host cluster that is meant, in so many words.
    pub(super) fn names_host(&self) -> bool {
        self.provider == Some(Kind::Virtink) || self.provider.is_none() && self.flag().is_some()
    }

    fn host(&self) -> Result<HostName> {
        let kubeconfig =
            match &self.host_kubeconfig {
                Some(path) => Some(std::path::absolute(path).map_err(|e| {
                    Failure::usage(format!("the path {}", path.display())).because(e)
                })?),
                None => None,
            };
        Ok(HostName {
            context: self.host_context.clone(),
            kubeconfig,
            namespace: self.namespace.clone(),
        })
    }
}

/// A provider of either kind.
pub(super) enum Home {
    Local(Local),
    Virtink(Box<Virtink>),
}

impl Home {
    fn local(paths: &Paths) -> Self {
        Self::Local(Local::new(paths))
    }
    fn virtink(paths: &Paths, host: Host) -> Self {
        Self::Virtink(Box::new(Virtink::new(paths, host)))
    }
    pub(super) fn provider(&self) -> &dyn Provider {
        match self {
            Self::Local(local) => local,
            Self::Virtink(virtink) => virtink.as_ref(),
        }
    }
    /// `local`, or `CONTEXT/NAMESPACE`.
    pub(super) fn word(&self) -> String {
        match self {
            Self::Local(_) => Kind::Local.to_string(),
            Self::Virtink(virtink) => virtink.word(),
        }
    }
    fn kind(&self) -> Kind {
        match self {
            Self::Local(_) => Kind::Local,
            Self::Virtink(_) => Kind::Virtink,
        }
    }
}

/// A provider, and why it was taken.
pub(super) struct Choice {
    pub(super) home: Home,
    why: String,
}

impl Choice {
    /// The line that says so.
    pub(super) fn words(&self) -> String {
        format!("{}: {}", self.home.kind(), self.why)
    }
}

/// The provider for a new cluster. `flag` is a given one that only virtink has.
pub(super) async fn choose(
    wanted: &Where,
    flag: Option<&'static str>,
    env: &Env,
) -> Result<Choice> {
    let flag = flag.or_else(|| wanted.flag());
    let (kind, why) = match asked(wanted, &env.paths)? {
        Some((Kind::Local, why)) => {
            return match flag {
                Some(flag) => Err(Failure::usage(format!(
                    "{flag} is for provider virtink, and {why} says local"
                ))
                .hint("give --provider virtink")),
                None => Ok(Choice {
                    home: Home::local(&env.paths),
                    why,
                }),
            };
        }
        Some((kind, why)) => (Some(kind), why),
        None => match flag {
            Some(flag) => (Some(Kind::Virtink), format!("{flag} is given")),
            None => (None, String::new()),
        },
    };
    let local = |why: String| Choice {
        home: Home::local(&env.paths),
        why,
    };
    let context = match &wanted.host_context {
        Some(context) => Some(context.clone()),
        None => current_context(wanted.host_kubeconfig.as_deref())?,
    };
    let Some(context) = context else {
        return match kind {
            Some(_) => Err(
                Failure::usage("there is no kubeconfig context to take as the host")
                    .hint("name one with --host-context and --host-kubeconfig"),
            ),
            None => Ok(local("there is no current kubeconfig context".into())),
        };
    };
    let mut name = HostName {
        context: Some(context.clone()),
        ..wanted.host()?
    };
    // Our own clusters are no hosts: theirs is.
    let mut through = String::new();
    if wanted.host_context.is_none() && context.starts_with(OURS) {
        match recorded(&context, wanted, &env.paths)? {
            Some(place) => {
                through = format!(", the host of {context}");
                name = host_of(&place);
                if wanted.namespace.is_some() {
                    name.namespace.clone_from(&wanted.namespace);
                }
            }
            None if kind.is_some() => {
                return Err(Failure::usage(format!(
                    "the current context, {context}, is of a cluster that knest made, not of a host"
                ))
                .hint("name the host cluster's with --host-context"));
            }
            None => {
                return Ok(local(format!(
                    "context {context} is of a cluster that knest made"
                )));
            }
        }
    }
    let host = match Host::of(&name).await {
        Ok(host) => host,
        Err(failure) if kind.is_some() => return Err(failure),
        Err(failure) => return Ok(local(failure.to_string())),
    };
    let found = host.context.clone();
    let why = match kind {
        Some(_) => format!("{why}; context {found}{through}"),
        None => match host.serves_virtink().await {
            Ok(true) => format!("context {found}{through} has Virtink"),
            Ok(false) => {
                return Ok(local(format!(
                    "context {found} has no Virtink; --provider virtink installs it"
                )));
            }
            Err(failure) => return Ok(local(failure.to_string())),
        },
    };
    Ok(Choice {
        home: Home::virtink(&env.paths, host),
        why,
    })
}

/// The host cluster that is meant, by a verb that is about nothing else.
pub(super) async fn host(wanted: Where, env: &Env) -> Result<Box<Virtink>> {
    if wanted.provider == Some(Kind::Local) {
        return Err(Failure::usage(
            "that is about host clusters, and --provider says local",
        ));
    }
    let wanted = Where {
        provider: Some(Kind::Virtink),
        ..wanted
    };
    match choose(&wanted, None, env).await?.home {
        Home::Virtink(virtink) => Ok(virtink),
        Home::Local(_) => Err(Failure::internal("provider virtink is another")),
    }
}

/// What was asked for in words, and where.
fn asked(wanted: &Where, paths: &Paths) -> Result<Option<(Kind, String)>> {
    if let Some(kind) = wanted.provider {
        return Ok(Some((kind, "--provider".into())));
    }
    if let Some(text) = std::env::var_os(VARIABLE).filter(|t| !t.is_empty()) {
        let text = text.to_string_lossy();
        let kind = clap::ValueEnum::from_str(&text, false).map_err(|_| {
            Failure::usage(format!("{VARIABLE} is {text:?}")).hint("it can be local or virtink")
        })?;
        return Ok(Some((kind, VARIABLE.into())));
    }
    let default = super::config::defaults(paths)?.provider;
    Ok(default.map(|kind| (kind, "knest config".into())))
}

fn host_of(place: &Place) -> HostName {
    HostName {
        context: Some(place.context.clone()),
        kubeconfig: place.host_kubeconfig.clone(),
        namespace: Some(place.namespace.clone()),
    }
}

/// Where the cluster is whose context this is; `None` if not on a host.
fn recorded(context: &str, wanted: &Where, paths: &Paths) -> Result<Option<Place>> {
    let of = |p: &Place| p.name.context() == context;
    let mut found: Vec<Place> = places(paths)?.into_iter().filter(of).collect();
    if let Some(namespace) = &wanted.namespace {
        // The namespace is to be another: any of them tells the host.
        found.sort_by_key(|p| p.namespace != *namespace);
    }
    Ok(found.into_iter().next())
}

/// Where the cluster of this name is; where there is none, the place that a new one would have.
pub(super) async fn find(name: &ClusterName, wanted: &Where, env: &Env) -> Result<Home> {
    let local = Local::new(&env.paths);
    let on_host = wanted.names_host();
    let here = !on_host && local.exists(name).await?;
    let fits = |p: &Place| {
        p.name == *name
            && wanted.provider != Some(Kind::Local)
            && wanted.host_context.as_ref().is_none_or(|c| *c == p.context)
            && wanted.namespace.as_ref().is_none_or(|n| *n == p.namespace)
    };
    let there: Vec<Place> = places(&env.paths)?.into_iter().filter(fits).collect();
    match (here, &there[..]) {
        (true, []) => Ok(Home::Local(local)),
        (false, [place]) => {
            let host = HostName {
                kubeconfig: wanted
                    .host()?
                    .kubeconfig
                    .or_else(|| place.host_kubeconfig.clone()),
                ..host_of(place)
            };
            Ok(Home::virtink(&env.paths, Host::of(&host).await?))
        }
        (false, []) => Ok(choose(wanted, None, env).await?.home),
        _ => {
            let mut all: Vec<String> = there.iter().map(ToString::to_string).collect();
            if here {
                all.insert(0, "this machine".into());
            }
            Err(Failure::usage(format!(
                "there are {} clusters {name}: {}",
                all.len(),
                all.join("; ")
            ))
            .hint("say which: --provider local, or --host-context and -n"))
        }
    }
}

/// This machine and every namespace of the hosts that there are to look at: those of the index, and
/// the one that a new cluster would have; or the host that is named alone.
pub(super) async fn everywhere(wanted: &Where, env: &Env) -> Result<Vec<Home>> {
    let mut homes = all(wanted, env).await?;
    if wanted.provider != Some(Kind::Local) {
        homes.push(choose(wanted, None, env).await?.home);
    }
    let (mut found, mut seen) = (vec![], vec![]);
    for home in homes {
        match home {
            Home::Local(local) if found.is_empty() => found.push(Home::Local(local)),
            Home::Local(_) => {}
            Home::Virtink(virtink) => {
                let host = virtink.host();
                let name = (host.context.clone(), host.kubeconfig.clone());
                if seen.contains(&name) {
                    continue;
                }
                seen.push(name);
                match virtink.everywhere().await {
                    Ok(all) => found.extend(all.into_iter().map(|v| Home::Virtink(Box::new(v)))),
                    Err(failure) => env.printer.note(&format!("note: {failure}")),
                }
            }
        }
    }
    Ok(found)
}

/// Every place that there is to look at: this machine, and those of the index; or the host that is
/// named alone.
pub(super) async fn all(wanted: &Where, env: &Env) -> Result<Vec<Home>> {
    let mut homes = vec![];
    if wanted.names_host() {
        return Ok(vec![choose(wanted, None, env).await?.home]);
    }
    homes.push(Home::local(&env.paths));
    if wanted.provider == Some(Kind::Local) {
        return Ok(homes);
    }
    let mut seen: Vec<HostName> = vec![];
    for place in places(&env.paths)? {
        let name = host_of(&place);
        if seen.contains(&name) {
            continue;
        }
        match Host::of(&name).await {
            Ok(host) => homes.push(Home::virtink(&env.paths, host)),
            Err(failure) => env.printer.note(&format!("note: in {place}: {failure}")),
        }
        seen.push(name);
    }
    Ok(homes)
}
