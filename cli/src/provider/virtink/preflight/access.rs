//! What the user may do on the host: everything that is missing is told at once.

use crate::failure::{Failure, Result};
use crate::provider::virtink::host::{Host, together};
use futures::FutureExt;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::{Api, PostParams};

/// Group, resource and verbs that knest needs in the cluster's namespace.
const ACCESS: [(&str, &str, &[&str]); 6] = [
    (
        "",
        "secrets",
        &[
            "get",
            "list",
            "create",
            "update",
            "patch",
            "delete",
            "deletecollection",
        ],
    ),
    (
        "",
        "services",
        &["list", "watch", "create", "patch", "delete"],
    ),
    ("", "pods", &["list", "watch"]),
    ("", "pods/log", &["get"]),
    (
        "coordination.k8s.io",
        "leases",
        &["get", "create", "update", "delete"],
    ),
    (
        "virt.virtink.smartx.com",
        "virtualmachines",
        &[
            "list",
            "watch",
            "create",
            "patch",
            "delete",
            "deletecollection",
        ],
    ),
];

/// What it needs beside that for persistent machines.
const PERSISTENT: [(&str, &str, &[&str]); 3] = [
    (
        "",
        "persistentvolumeclaims",
        &["list", "create", "patch", "delete", "deletecollection"],
    ),
    (
        "batch",
        "jobs",
        &["list", "create", "patch", "delete", "deletecollection"],
    ),
    ("", "events", &["list"]),
];

/// Everything that is missing, at once.
pub(in crate::provider::virtink) async fn check(host: &Host, persistent: bool) -> Result<()> {
    let mut questions = vec![];
    let more = PERSISTENT.into_iter().filter(|_| persistent);
    for (group, resource, verbs) in ACCESS.into_iter().chain(more) {
        for verb in verbs {
            questions.push(may(host, group, resource, verb).boxed());
        }
    }
    let answers = together(questions).await?;
    let missing: Vec<String> = answers.into_iter().flatten().collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::host(format!(
        "you may not do all that knest needs in namespace {}: {}",
        host.namespace,
        missing.join(", ")
    ))
    .hint("ask the host cluster's administrator for a role that grants it"))
}

/// What may not be done, if it may not.
async fn may(host: &Host, group: &str, resource: &str, verb: &str) -> Result<Option<String>> {
    let api: Api<SelfSubjectAccessReview> = Api::all(host.client.clone());
    let (name, sub) = resource.split_once('/').unwrap_or((resource, ""));
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                namespace: Some(host.namespace.clone()),
                group: Some(group.into()),
                resource: Some(name.into()),
                subresource: (!sub.is_empty()).then(|| sub.into()),
                verb: Some(verb.into()),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let post = PostParams::default();
    let answer = host
        .call("asking what you may do", || api.create(&post, &review))
        .await?;
    let allowed = answer.status.is_some_and(|s| s.allowed);
    Ok((!allowed).then(|| format!("{verb} {resource}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::rbac::v1::ClusterRole;
    use serde::Deserialize;

    /// What administrators apply grants what is asked for here, and the rest is for looking only.
    #[test]
    fn the_role_for_users_is_what_is_needed() {
        let text = include_str!("../../../../../docs/virtink-rbac.yaml");
        let mut roles = serde_yaml_ng::Deserializer::from_str(text)
            .map(|document| ClusterRole::deserialize(document).unwrap());
        let rules = roles.next().unwrap().rules.unwrap();
        let granted: Vec<_> = rules
            .iter()
            .map(|rule| {
                let first = |list: &Option<Vec<String>>| list.clone().unwrap()[0].clone();
                let verbs = rule.verbs.clone();
                (first(&rule.api_groups), first(&rule.resources), verbs)
            })
            .collect();
        let (needed, rest) = granted.split_at(ACCESS.len() + PERSISTENT.len());
        let words = |verbs: &[&str]| verbs.iter().map(|v| (*v).to_owned()).collect();
        let asked: Vec<_> = ACCESS
            .into_iter()
            .chain(PERSISTENT)
            .map(|(group, resource, verbs)| (group.to_owned(), resource.to_owned(), words(verbs)))
            .collect();
        assert_eq!(needed, asked);
        assert!(rest.iter().all(|(_, _, verbs)| verbs == &["list"]));
        let looking = roles.next().unwrap().rules.unwrap();
        assert!(looking.iter().all(|rule| {
            let verbs = &rule.verbs;
            verbs.iter().all(|verb| verb == "get" || verb == "list")
        }));
    }
}
