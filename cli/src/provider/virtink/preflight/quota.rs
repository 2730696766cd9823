//! The namespace's quotas against what a cluster would add to it.

use super::amount::{self, Amounts};
use crate::cluster::record::{NodeRecord, Record};
use crate::cluster::spec::Expose;
use crate::failure::{Failure, Result};
use crate::provider::virtink::api::GROUP;
use crate::provider::virtink::host::Host;
use crate::provider::virtink::objects::resources;
use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use kube::ResourceExt;
use kube::api::ListParams;
use std::collections::BTreeMap;

pub(super) async fn check(
    host: &Host,
    record: &Record,
    new: &[&NodeRecord],
    expose: Expose,
) -> Result<()> {
    let all = ListParams::default();
    let quotas = match host.api::<ResourceQuota>().list(&all).await {
        Ok(quotas) => quotas.items,
        Err(error) => {
            tracing::debug!(%error, "quotas");
            return Ok(());
        }
    };
    // What gives pods the limits that a quota may ask of them.
    let defaults = host.api::<LimitRange>().list(&all).await;
    let defaults = defaults.is_ok_and(|d| !d.items.is_empty());
    let asked = asked(record, new, expose);
    let mut troubles = vec![];
    for quota in &quotas {
        troubles.extend(exceeded(quota, &asked, defaults));
    }
    if troubles.is_empty() {
        return Ok(());
    }
    Err(Failure::host(format!(
        "namespace {} has no room: {}",
        host.namespace,
        troubles.join("; ")
    ))
    .hint("ask for smaller or fewer machines, or for a larger quota, or name another namespace with -n"))
}

/// What new nodes add, under every name that a quota may have for it.
fn asked(record: &Record, new: &[&NodeRecord], expose: Expose) -> Amounts {
    let mut asked = Amounts::new();
    let mut add = |name: &str, amount: u128| {
        *asked.entry(name.to_owned()).or_default() += amount;
    };
    let persistent = record.spec.provider.persistent().is_some();
    let mut machines = 0;
    for node in new {
        machines += 1000;
        let resources = resources(record.spec.machine(node.role), persistent);
        for (name, amount) in resources.requests.iter().flatten() {
            let amount = amount::parse(&amount.0).unwrap_or_default();
            add(&format!("requests.{name}"), amount);
            add(name, amount);
        }
        for (name, amount) in resources.limits.iter().flatten() {
            let amount = amount::parse(&amount.0).unwrap_or_default();
            add(&format!("limits.{name}"), amount);
        }
    }
    let machine = format!("count/virtualmachines.{GROUP}");
    for name in ["pods", "count/pods", &machine] {
        add(name, machines);
    }
    let first = u128::from(record.endpoint.is_none());
    for name in ["secrets", "count/secrets"] {
        add(name, machines + 1000 * first);
    }
    for name in ["services", "count/services"] {
        add(name, 1000 * first);
    }
    match expose {
        Expose::LoadBalancer => add("services.loadbalancers", 1000 * first),
        Expose::Auto | Expose::NodePort => {}
    }
    add("services.nodeports", 1000 * first);
    asked
}

/// What of one quota would be exceeded, in words.
fn exceeded(quota: &ResourceQuota, asked: &Amounts, defaults: bool) -> Vec<String> {
    let none = BTreeMap::new();
    let status = quota.status.as_ref();
    let spec = quota.spec.as_ref();
    let hard = spec.and_then(|s| s.hard.as_ref()).unwrap_or(&none);
    let used = status.and_then(|s| s.used.as_ref()).unwrap_or(&none);
    let amount = |amounts: &BTreeMap<String, Amount>, name: &str| {
        amounts.get(name).and_then(|a| amount::parse(&a.0))
    };
    // It is for pods that machines' are not.
    if spec.is_some_and(|s| s.scopes.is_some() || s.scope_selector.is_some()) {
        return vec![];
    }
    let name = quota.name_any();
    let mut troubles = vec![];
    for resource in hard.keys() {
        let Some(limit) = amount(hard, resource) else {
            continue;
        };
        let Some(asked) = asked.get(resource) else {
            // A quota for it makes it a must.
            if resource.starts_with("limits.") && !defaults {
                troubles.push(format!(
                    "quota {name} is for {resource}, of which machines have none"
                ));
            }
            continue;
        };
        let used = amount(used, resource).unwrap_or_default();
        if *asked > 0 && used + asked > limit {
            let words = |amount| amount::words(resource, amount);
            troubles.push(format!(
                "{resource} of quota {name}: {} of {} are used, {} more are asked for",
                words(used),
                words(limit),
                words(*asked)
            ));
        }
    }
    troubles
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fixture;
    use serde_json::{Value, json};

    fn quota(hard: Value, used: Value) -> ResourceQuota {
        serde_json::from_value(json!({
            "metadata": {"name": "team"}, "spec": {"hard": hard}, "status": {"used": used},
        }))
        .unwrap()
    }

    fn of(record: &Record, expose: Expose) -> Amounts {
        let new: Vec<&NodeRecord> = record.nodes.iter().collect();
        asked(record, &new, expose)
    }

    #[test]
    fn what_would_be_exceeded_is_all_told() {
        let record = fixture::record(1, 2);
        let asked = of(&record, Expose::Auto);
        let fits = quota(json!({"pods": "3", "count/secrets": "10"}), json!({}));
        assert_eq!(exceeded(&fits, &asked, false), Vec::<String>::new());
        let tight = quota(
            json!({"pods": "10", "requests.memory": "5Gi", "secrets": "9", "limits.cpu": "100"}),
            json!({"pods": "8", "requests.memory": "1Gi", "secrets": "5"}),
        );
        insta::assert_debug_snapshot!(exceeded(&tight, &asked, false), @r#"
        [
            "quota team is for limits.cpu, of which machines have none",
            "pods of quota team: 8 of 10 are used, 3 more are asked for",
            "requests.memory of quota team: 1024 MiB of 5120 MiB are used, 4920 MiB more are asked for",
        ]
        "#);
        assert_eq!(exceeded(&tight, &asked, true).len(), 2);
    }

    #[test]
    fn a_cluster_that_grows_adds_machines_alone() {
        let mut record = fixture::record(1, 1);
        record.endpoint = None;
        let new = of(&record, Expose::LoadBalancer);
        assert_eq!((new["secrets"], new["services"]), (3000, 1000));
        assert_eq!(new["services.loadbalancers"], 1000);
        record.endpoint = fixture::record(1, 1).endpoint;
        let grown = of(&record, Expose::Auto);
        assert_eq!((grown["secrets"], grown["services"]), (2000, 0));
    }
}
