//! One component of a host: it is looked for, made where that is to be done, and waited for.

use super::found::{Act, Found};
use super::kinds::Kinds;
use super::manifest::{Manifest, Object, Release, base, image};
use super::source::Sources;
use crate::failure::Result;
use crate::paths::Paths;
use crate::provider::virtink::FIELD_MANAGER;
use crate::provider::virtink::host::{Host, together};
use crate::ui::{Reporter, step};
use crate::wait::{Seen, wait_until};
use futures::FutureExt;
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind, TypeMeta};
use std::time::Duration;
use tokio::time::Instant;

const INTERVAL: Duration = Duration::from_secs(1);

/// What an installation came to, for one component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    pub(crate) version: Option<String>,
    pub(crate) was: &'static str,
}

/// Sees to both components, cert-manager first. Returns when both work.
pub(crate) async fn install(
    host: &Host,
    sources: &Sources,
    paths: &Paths,
    reporter: &dyn Reporter,
    deadline: Instant,
) -> Result<Vec<Outcome>> {
    let certificates = sources.cert_manager(paths).await?;
    let virtink = sources.virtink(paths).await?;
    Ok(vec![
        see_to(host, "cert-manager", &certificates, reporter, deadline).await?,
        see_to(host, "Virtink", &virtink, reporter, deadline).await?,
    ])
}

async fn see_to(
    host: &Host,
    name: &'static str,
    manifest: &Manifest,
    reporter: &dyn Reporter,
    deadline: Instant,
) -> Result<Outcome> {
    let kinds = Kinds::default();
    let title = format!("Looking for {name}");
    let looked = step(reporter, &title, look(host, &kinds, manifest));
    let found = looked.await?;
    let act = found.act(manifest.version);
    if act == Act::Make {
        let word = match found.was() {
            "missing" => "Installing",
            _ => "Repairing",
        };
        let version = manifest.version.map_or(String::new(), |v| format!(" {v}"));
        let title = format!("{word} {name}{version}");
        let made = make(host, &kinds, manifest, reporter, deadline);
        step(reporter, &title, made).await?;
    }
    if act == Act::Make || found.late > 0 {
        let title = format!("Waiting for {name}");
        let works = works(host, name, &kinds, manifest, reporter, deadline);
        step(reporter, &title, works).await?;
    }
    let version = match act {
        Act::Make => manifest.version,
        _ => found.version,
    };
    Ok(Outcome {
        name,
        version: version.map(|v| v.to_string()),
        was: found.was(),
    })
}

async fn look(host: &Host, kinds: &Kinds, manifest: &Manifest) -> Result<Found> {
    let mut looks = vec![];
    for object in &manifest.objects {
        looks.push(see(host, kinds, object).boxed());
    }
    let seen = together(looks).await?;
    let mut found = Found {
        total: seen.len(),
        elsewhere: elsewhere(host, manifest).await?,
        ..Found::default()
    };
    for (object, there) in manifest.objects.iter().zip(seen) {
        let Some(there) = there else {
            found.missing += 1;
            continue;
        };
        if object.has_pods() {
            found.late += usize::from(late(&there).is_some());
            let release = image(&there).and_then(Release::of_image);
            found.version = found.version.or(release);
        }
    }
    Ok(found)
}

async fn see(host: &Host, kinds: &Kinds, object: &Object) -> Result<Option<DynamicObject>> {
    let what = format!("looking for {}", object.words());
    let name = object.object.name_any();
    host.call_opt(&what, || async {
        let api = kinds.api(&host.client, object).await?;
        match api {
            Some(api) => api.get_opt(&name).await,
            None => Ok(None),
        }
    })
    .await
    .map(Option::flatten)
}

/// A namespace where the manifest's programs run that is not the manifest's own.
async fn elsewhere(host: &Host, manifest: &Manifest) -> Result<Option<String>> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", "Deployment"));
    let api: Api<DynamicObject> = Api::all_with(host.client.clone(), &kind);
    let all = ListParams::default();
    let found = host
        .call("looking for Deployments", || api.list(&all))
        .await?;
    let workloads = || manifest.objects.iter().filter(|o| o.has_pods());
    let own =
        |there: &DynamicObject| workloads().any(|o| o.object.namespace() == there.namespace());
    let same = |there: &DynamicObject| {
        let theirs = image(there).map(base);
        theirs.is_some() && workloads().any(|o| o.image().map(base) == theirs)
    };
    let mut others = found.items.iter().filter(|d| same(d) && !own(d));
    Ok(others.next().and_then(ResourceExt::namespace))
}

/// What keeps a Deployment or a DaemonSet from working, if anything does.
fn late(there: &DynamicObject) -> Option<String> {
    let number = |path: &str| there.data.pointer(path).and_then(serde_json::Value::as_i64);
    let generation = there.metadata.generation.unwrap_or_default();
    let observed = number("/status/observedGeneration").unwrap_or_default();
    let (wanted, ready) = match there.types.as_ref().map(|t| t.kind.as_str()) {
        Some("DaemonSet") => (
            number("/status/desiredNumberScheduled").unwrap_or_default(),
            number("/status/numberReady").unwrap_or_default(),
        ),
        _ => (
            number("/spec/replicas").unwrap_or(1),
            number("/status/availableReplicas").unwrap_or_default(),
        ),
    };
    let late = observed < generation || ready < wanted;
    late.then(|| format!("{}: {ready} of {wanted} pods ready", there.name_any()))
}

/// Makes all of it, stage after stage. What another part of it has to serve or to admit first is
/// tried again until the deadline.
async fn make(
    host: &Host,
    kinds: &Kinds,
    manifest: &Manifest,
    reporter: &dyn Reporter,
    deadline: Instant,
) -> Result<()> {
    for stage in manifest.stages() {
        let mut work = vec![];
        for object in stage {
            let what = format!("{} is made", object.words());
            let made = async move {
                wait_until(&what, deadline, INTERVAL, reporter, async || {
                    apply(host, kinds, object).await
                })
                .await
            };
            work.push(made.boxed_local());
        }
        together(work).await?;
    }
    Ok(())
}

async fn apply(host: &Host, kinds: &Kinds, object: &Object) -> Result<Seen<()>> {
    let ours = PatchParams::apply(FIELD_MANAGER).force();
    let mut wanted = object.object.clone();
    wanted.types = Some(TypeMeta {
        api_version: object.kind.api_version(),
        kind: object.kind.kind.clone(),
    });
    let what = format!("making {}", object.words());
    let name = object.object.name_any();
    let tried = async {
        match kinds.api(&host.client, object).await? {
            Some(api) => {
                let made = api.patch(&name, &ours, &Patch::Apply(&wanted)).await;
                made.map(|_| true)
            }
            None => Ok(false),
        }
    };
    match tried.await {
        Ok(true) => Ok(Seen::There(())),
        Ok(false) => Ok(Seen::NotYet(format!(
            "{}: the host does not serve {} yet",
            object.words(),
            object.kind.kind
        ))),
        // A namespace that is not there yet is in the same manifest; a webhook that does not answer
        // yet is one of what is being installed.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code >= 500 => Ok(
            Seen::NotYet(format!("{}: {}", object.words(), status.message)),
        ),
        Err(error) => Err(host.failure(what, &error)),
    }
}

/// Until all that has pods has them ready.
async fn works(
    host: &Host,
    name: &str,
    kinds: &Kinds,
    manifest: &Manifest,
    reporter: &dyn Reporter,
    deadline: Instant,
) -> Result<()> {
    let workloads: Vec<&Object> = manifest.objects.iter().filter(|o| o.has_pods()).collect();
    let what = format!("{name} works");
    wait_until(&what, deadline, INTERVAL, reporter, async || {
        for object in &workloads {
            // One that a newer release no longer has is nothing to wait for.
            if let Some(there) = see(host, kinds, object).await?
                && let Some(why) = late(&there)
            {
                return Ok(Seen::NotYet(why));
            }
        }
        Ok(Seen::There(()))
    })
    .await
    .map_err(|failure| {
        let namespace = workloads.iter().find_map(|o| o.object.namespace());
        failure.hint(format!(
            "what keeps its pods from running: kubectl --context {} -n {} describe pods",
            host.context,
            namespace.unwrap_or_default()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn workload(kind: &str, spec: Value, status: Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "apps/v1", "kind": kind,
            "metadata": {"name": "x", "generation": 2}, "spec": spec, "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn what_works() {
        let late = |kind, spec, status| late(&workload(kind, spec, status));
        let status = json!({"observedGeneration": 2, "availableReplicas": 1});
        assert_eq!(
            late("Deployment", json!({"replicas": 1}), status.clone()),
            None
        );
        assert_eq!(
            late("Deployment", json!({"replicas": 2}), status).unwrap(),
            "x: 1 of 2 pods ready"
        );
        let old = json!({"observedGeneration": 1, "availableReplicas": 1});
        assert!(late("Deployment", json!({}), old).is_some());
        let status =
            json!({"observedGeneration": 2, "desiredNumberScheduled": 3, "numberReady": 2});
        assert!(late("DaemonSet", json!({}), status).is_some());
        assert!(late("DaemonSet", json!({}), json!({})).is_some());
    }
}
