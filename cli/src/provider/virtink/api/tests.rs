//! The schema that the types give is Virtink's: field by field, with types, enumerations and what
//! is required. Where Kubernetes' own types begin, of which Virtink has older ones, everything of
//! theirs must be in ours.

use super::*;
use kube::CustomResourceExt;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The schema as a file, for the tests' host where Virtink's own is not at hand.
const CHECKED_IN: &str = "src/provider/virtink/virtualmachines.crd.yaml";

fn ours() -> Value {
    serde_json::to_value(VirtualMachine::crd()).unwrap()
}

fn schema(crd: &Value) -> &Value {
    &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
}

fn theirs() -> Option<Value> {
    use serde::Deserialize;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = ["../../shared/data", "../../../shared/data"].map(|p| root.join(p));
    let named = std::env::var_os("KNEST_SHARED_DATA").map(PathBuf::from);
    let path = named
        .into_iter()
        .chain(places)
        .map(|p| p.join("virtink-v0.17.0-crds.yaml"))
        .find(|p| p.exists())?;
    let text = fs_err::read_to_string(path).unwrap();
    serde_yaml_ng::Deserializer::from_str(&text)
        .map(|d| Value::deserialize(d).unwrap())
        .find(|d| d["spec"]["names"]["kind"] == "VirtualMachine")
}

/// A node of Virtink's schema that is one of Kubernetes' own types.
fn is_kubernetes(path: &str) -> bool {
    const TYPES: [&str; 6] = [
        "/spec/affinity",
        "/spec/livenessProbe",
        "/spec/readinessProbe",
        "/spec/resources",
        "/spec/tolerations",
        "/status/conditions",
    ];
    TYPES.iter().any(|t| path.starts_with(t))
}

fn names(value: &Value) -> Vec<String> {
    let mut names: Vec<String> = match value {
        Value::Object(map) => map.keys().cloned().collect(),
        Value::Array(list) => list.iter().map(ToString::to_string).collect(),
        _ => vec![],
    };
    names.sort();
    names
}

fn compare(path: &str, ours: &Value, theirs: &Value, differences: &mut Vec<String>) {
    let mut differ = |what: &str, a: &Value, b: &Value| {
        differences.push(format!("{path}: {what}: ours {a}, theirs {b}"));
    };
    // A quantity is written as a string and may be a number.
    let quantity = theirs["x-kubernetes-int-or-string"] == true;
    if !quantity && ours["type"] != theirs["type"] {
        differ("type", &ours["type"], &theirs["type"]);
    }
    if !is_kubernetes(path) {
        if names(&ours["properties"]) != names(&theirs["properties"]) {
            differ(
                "properties",
                &names(&ours["properties"]).into(),
                &names(&theirs["properties"]).into(),
            );
        }
        if names(&ours["required"]) != names(&theirs["required"]) {
            differ("required", &ours["required"], &theirs["required"]);
        }
        let without_null = |list: &Value| -> Vec<String> {
            names(list).into_iter().filter(|n| n != "null").collect()
        };
        if without_null(&ours["enum"]) != without_null(&theirs["enum"]) {
            differ("enum", &ours["enum"], &theirs["enum"]);
        }
    }
    for (name, inner) in theirs["properties"].as_object().into_iter().flatten() {
        let below = format!("{path}/{name}");
        match ours["properties"].get(name) {
            Some(mine) => compare(&below, mine, inner, differences),
            None => differences.push(format!("{below}: missing")),
        }
    }
    if theirs["items"].is_object() {
        let below = format!("{path}/*");
        compare(&below, &ours["items"], &theirs["items"], differences);
    }
}

#[test]
fn the_schema_is_virtinks() {
    let Some(theirs) = theirs() else {
        eprintln!("SKIP the_schema_is_virtinks: Virtink's CRDs are not beside this repository");
        return;
    };
    let ours = ours();
    let mut differences = vec![];
    assert_eq!(schema(&ours)["required"], schema(&theirs)["required"]);
    // What else there is at the top is every object's, and the API server knows it.
    for part in ["spec", "status"] {
        let of = |crd| &schema(crd)["properties"][part];
        let path = format!("/{part}");
        compare(&path, of(&ours), of(&theirs), &mut differences);
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    for field in ["group", "names", "scope"] {
        let (mut a, mut b) = (ours["spec"][field].clone(), theirs["spec"][field].clone());
        for side in [&mut a, &mut b] {
            if let Some(map) = side.as_object_mut() {
                map.remove("categories");
                map.remove("listKind");
            }
        }
        assert_eq!(a, b, "{field}");
    }
}

#[test]
fn the_definition_is_checked_in() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(CHECKED_IN);
    let text = format!(
        "# What provider `virtink` takes Virtink's VirtualMachine to be. Made by a test from the \
         types in api.rs:\n# KNEST_WRITE=1 cargo test -p knest the_definition_is_checked_in\n{}",
        serde_yaml_ng::to_string(&VirtualMachine::crd()).unwrap()
    );
    if std::env::var_os("KNEST_WRITE").is_some() {
        fs_err::write(&path, &text).unwrap();
    }
    assert!(
        fs_err::read_to_string(&path).is_ok_and(|t| t == text),
        "{CHECKED_IN} is not what the types give: see its first lines"
    );
}
