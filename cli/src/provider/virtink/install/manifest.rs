//! A release's manifest: its objects, in an order in which they can be made, and its version. Pure.

use crate::failure::{Failure, Result};
use kube::ResourceExt;
use kube::core::{DynamicObject, GroupVersionKind};
use serde::Deserialize;
use serde_json::Value;

/// Larger ones are none.
pub(super) const LARGEST: u64 = 32 << 20;

/// All of a manifest.
#[derive(Clone, Debug)]
pub(super) struct Manifest {
    /// In the order in which they are made.
    pub(super) objects: Vec<Object>,
    pub(super) version: Option<Release>,
}

/// One object, with its kind at hand.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Object {
    pub(super) kind: GroupVersionKind,
    pub(super) object: DynamicObject,
}

/// A release's number, which its images bear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Release([u32; 3]);

impl std::fmt::Display for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self([major, minor, patch]) = self;
        write!(f, "v{major}.{minor}.{patch}")
    }
}

impl Release {
    /// Out of an image's tag: `v0.17.0`, `0.17.0-rc.1@sha256:…`.
    pub(super) fn of_image(image: &str) -> Option<Self> {
        let image = image.split('@').next()?;
        let (_, tag) = image.rsplit_once('/').unwrap_or(("", image));
        let (_, tag) = tag.split_once(':')?;
        let number = tag.strip_prefix('v').unwrap_or(tag);
        let number = number.split(['-', '+']).next()?;
        let mut parts = number.split('.').map(str::parse::<u32>);
        let mut next = || parts.next()?.ok();
        let release = Self([next()?, next()?, next()?]);
        parts.next().is_none().then_some(release)
    }
}

impl Object {
    /// `Deployment virt-controller`.
    pub(super) fn words(&self) -> String {
        format!("{} {}", self.kind.kind, self.object.name_any())
    }

    /// What has pods that are waited for.
    pub(super) fn has_pods(&self) -> bool {
        self.kind.group == "apps" && matches!(&*self.kind.kind, "Deployment" | "DaemonSet")
    }

    /// The image of its first container.
    pub(super) fn image(&self) -> Option<&str> {
        image(&self.object)
    }

    /// Namespaces and definitions are there before what is in them or of them; webhooks after what
    /// answers them.
    fn rank(&self) -> u8 {
        match &*self.kind.kind {
            "Namespace" => 0,
            "CustomResourceDefinition" => 1,
            "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => 3,
            _ => 2,
        }
    }
}

/// The image of the first container of a workload.
pub(super) fn image(object: &DynamicObject) -> Option<&str> {
    let containers = object
        .data
        .pointer("/spec/template/spec/containers/0/image")?;
    containers.as_str()
}

/// `virt-controller` of `registry.example/smartxworks/virt-controller:v0.17.0`.
pub(super) fn base(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    let name = image.rsplit('/').next().unwrap_or(image);
    name.split(':').next().unwrap_or(name)
}

impl Manifest {
    /// Out of its text, any number of YAML documents. `place` is where that was.
    pub(super) fn parse(text: &str, place: &str) -> Result<Self> {
        let unusable = |why: String| Failure::usage(format!("{place} is no manifest: {why}"));
        let mut objects = vec![];
        for document in serde_yaml_ng::Deserializer::from_str(text) {
            let value = Value::deserialize(document).map_err(|e| unusable(e.to_string()))?;
            if value.is_null() {
                continue;
            }
            let object: DynamicObject =
                serde_json::from_value(value).map_err(|e| unusable(e.to_string()))?;
            let types = object.types.as_ref();
            let kind = types.and_then(|t| GroupVersionKind::try_from(t).ok());
            let kind = kind.ok_or_else(|| unusable("an object has no kind".into()))?;
            if object.metadata.name.is_none() {
                return Err(unusable(format!("a {} has no name", kind.kind)));
            }
            objects.push(Object { kind, object });
        }
        objects.sort_by_key(Object::rank);
        if !objects.iter().any(Object::has_pods) {
            return Err(unusable("it has no Deployment".into()));
        }
        let workloads = objects.iter().filter(|o| o.has_pods());
        let images = workloads.filter_map(Object::image);
        let version = images.filter_map(Release::of_image).next();
        Ok(Self { objects, version })
    }

    /// Its objects, those together that can be made at the same time.
    pub(super) fn stages(&self) -> impl Iterator<Item = &[Object]> {
        self.objects.chunk_by(|a, b| a.rank() == b.rank())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r"
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: hook}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: controller, namespace: system}
spec: {template: {spec: {containers: [{name: a, image: 'r.example:5000/x/controller:v1.2.3'}]}}}
---
---
apiVersion: v1
kind: Namespace
metadata: {name: system}
";

    #[test]
    fn what_comes_first_is_made_first() {
        let manifest = Manifest::parse(TEXT, "it").unwrap();
        let words: Vec<_> = manifest.objects.iter().map(Object::words).collect();
        assert_eq!(
            words,
            [
                "Namespace system",
                "Deployment controller",
                "ValidatingWebhookConfiguration hook"
            ]
        );
        assert_eq!(manifest.stages().count(), 3);
        assert_eq!(manifest.version, Some(Release([1, 2, 3])));
    }

    #[test]
    fn releases_of_images() {
        let of = |image| Release::of_image(image).map(|r| r.to_string());
        for (image, release) in [
            ("smartxworks/virt-controller:v0.17.0", Some("v0.17.0")),
            ("r:5000/a/b:1.2.3-rc.1@sha256:00", Some("v1.2.3")),
            ("r:5000/a/b", None),
            ("a:latest", None),
            ("a:v1.2", None),
            ("a:v1.2.3.4", None),
        ] {
            assert_eq!(of(image), release.map(str::to_owned), "{image}");
        }
        assert!(Release([0, 17, 0]) < Release([0, 18, 0]));
        assert_eq!(
            base("r:5000/a/virt-controller:v1@sha256:0"),
            "virt-controller"
        );
    }

    #[test]
    fn what_is_no_manifest_is_told() {
        for (text, why) in [
            ("", "no Deployment"),
            ("a: [", "is no manifest"),
            ("just words", "is no manifest"),
            ("kind: Pod", "is no manifest"),
            (
                "apiVersion: v1\nkind: Pod\nmetadata: {}",
                "a Pod has no name",
            ),
        ] {
            let failure = Manifest::parse(text, "it").unwrap_err();
            assert!(failure.to_string().contains(why), "{text}: {failure}");
        }
    }
}
