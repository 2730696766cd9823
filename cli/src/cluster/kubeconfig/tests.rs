//! What is ours goes in and out, what is somebody else's stays; kubectl, where it is found, reads
//! the result.

use super::*;
use crate::cluster::fixture;
use crate::cluster::pki::Pki;
use proptest::prelude::*;
use std::process::{Command, Stdio};

/// Another cluster's file, with fields that knest knows nothing of.
const THEIRS: &str = "\
apiVersion: v1
clusters:
- cluster:
    server: https://work.example:6443
    proxy-url: http://proxy.example
  name: work
contexts:
- context:
    cluster: work
    namespace: team
    user: me
  name: work
current-context: work
kind: Config
preferences: {}
users:
- name: me
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1
      command: login
extensions:
- name: some.vendor
  extension: {depth: [1, 2.5, null, 'x']}
";

fn ours() -> String {
    let mut record = fixture::record(1, 0);
    record.pki = Some(Pki::generate(OffsetDateTime::now_utc()).unwrap());
    for_record(&record).unwrap()
}

fn parse(text: &str) -> Mapping {
    file::parse(text).unwrap()
}

fn scratch(content: Option<&str>) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config");
    if let Some(content) = content {
        fs_err::write(&path, content).unwrap();
    }
    (dir, path)
}

fn read(path: &Path) -> Mapping {
    parse(&fs_err::read_to_string(path).unwrap())
}

#[test]
fn of_one_cluster() {
    let text = ours();
    let hide = |line: &str| match line.split_once("-data: ") {
        Some((key, _)) => format!("{key}-data: (base64)\n"),
        None => format!("{line}\n"),
    };
    insta::assert_snapshot!(text.lines().map(hide).collect::<String>());
    let config = serde_yaml_ng::from_str::<Value>(&text).unwrap();
    let data = config["users"][0]["user"]["client-key-data"]
        .as_str()
        .unwrap();
    let pem = BASE64_STANDARD.decode(data).unwrap();
    assert!(pem.starts_with(b"-----BEGIN PRIVATE KEY-----"));
}

#[test]
fn a_record_without_keys_has_none() {
    let mut record = fixture::record(1, 0);
    record.pki = None;
    assert_eq!(
        for_record(&record).unwrap_err().to_string(),
        "the record has no keys yet"
    );
}

#[test]
fn merged_it_is_chosen_and_removed_it_is_gone() {
    let (_dir, path) = scratch(Some(THEIRS));
    let ours = ours();
    merge(&path, &ours).unwrap();
    let both = read(&path);
    assert_eq!(both["current-context"], "knest-demo");
    for (list, _) in LISTS {
        assert_eq!(both[list].as_sequence().unwrap().len(), 2);
        assert_eq!(both[list][0], parse(THEIRS)[list][0]);
    }
    assert_eq!(both["extensions"], parse(THEIRS)["extensions"]);
    // Again: nothing changes, not even the file.
    let before = fs_err::read_to_string(&path).unwrap();
    merge(&path, &ours).unwrap();
    assert_eq!(fs_err::read_to_string(&path).unwrap(), before);

    remove(&path, "knest-demo").unwrap();
    let mut expected = parse(THEIRS);
    expected.insert("current-context".into(), "".into());
    assert_eq!(read(&path), expected);
}

#[test]
fn another_current_context_is_kept_on_removal() {
    let (_dir, path) = scratch(Some(THEIRS));
    merge(&path, &ours()).unwrap();
    let chosen = fs_err::read_to_string(&path)
        .unwrap()
        .replace("current-context: knest-demo", "current-context: work");
    fs_err::write(&path, chosen).unwrap();
    remove(&path, "knest-demo").unwrap();
    assert_eq!(read(&path), parse(THEIRS));
}

#[test]
fn a_namespace_set_in_our_context_survives_new_credentials() {
    let (_dir, path) = scratch(None);
    merge(&path, &ours()).unwrap();
    let named = fs_err::read_to_string(&path).unwrap().replace(
        "    user: knest-demo\n",
        "    user: other\n    namespace: mine\n",
    );
    fs_err::write(&path, named).unwrap();
    let renewed = ours();
    merge(&path, &renewed).unwrap();
    let config = read(&path);
    let context = &config["contexts"][0]["context"];
    assert_eq!(
        (&context["namespace"], &context["user"]),
        (&"mine".into(), &"knest-demo".into())
    );
    assert_eq!(config["users"], parse(&renewed)["users"]);
}

#[test]
fn a_file_with_nothing_left_goes() {
    let (dir, path) = scratch(None);
    merge(&path, &ours()).unwrap();
    remove(&path, "knest-demo").unwrap();
    assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 0);
    // No file, no error, and no directory made for it.
    let missing = dir.path().join("missing/config");
    remove(&missing, "knest-demo").unwrap();
    assert!(!missing.parent().unwrap().exists());
}

#[test]
fn what_never_held_it_is_left_alone() {
    for text in [THEIRS, "", "kind: Config\n", "clusters: null\n# a remark\n"] {
        let (_dir, path) = scratch(Some(text));
        remove(&path, "knest-demo").unwrap();
        assert_eq!(fs_err::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn lists_that_are_none() {
    let (_dir, path) = scratch(Some("users: everyone\n"));
    let error = merge(&path, &ours()).unwrap_err().to_string();
    assert!(
        error.ends_with("left as it is: its users is not a list"),
        "{error}"
    );
    fs_err::write(&path, "users: null\n").unwrap();
    merge(&path, &ours()).unwrap();
    assert_eq!(read(&path)["users"].as_sequence().unwrap().len(), 1);
}

#[test]
fn where_to_write() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    fs_err::write(file("second"), "").unwrap();
    let variable = |names: &[&str]| {
        std::env::join_paths(
            names
                .iter()
                .map(|n| if n.is_empty() { "".into() } else { file(n) }),
        )
        .unwrap()
    };
    let home = Some(dir.path());
    let of = |names: &[&str]| target(None, Some(&variable(names)), home).unwrap();
    assert_eq!(of(&["first", "second", "third"]), file("second"));
    assert_eq!(of(&["first", "third"]), file("third"));
    assert_eq!(of(&["", "first", ""]), file("first"));
    assert_eq!(of(&[""]), file(".kube/config"));
    assert_eq!(target(None, None, home).unwrap(), file(".kube/config"));
    assert_eq!(
        target(Some(&file("flag")), Some(&variable(&["second"])), home).unwrap(),
        file("flag")
    );
    assert!(
        target(None, None, None)
            .unwrap_err()
            .render()
            .contains("--kubeconfig")
    );
}

#[test]
fn kubectl_agrees() {
    let found = Command::new("kubectl")
        .args(["version", "--client"])
        .stdout(Stdio::null())
        .status();
    if !found.is_ok_and(|s| s.success()) {
        eprintln!("skipped: no kubectl");
        return;
    }
    let (_dir, path) = scratch(Some(THEIRS));
    merge(&path, &ours()).unwrap();
    let view = |jsonpath: &str| {
        let mut kubectl = Command::new("kubectl");
        kubectl
            .args(["config", "view", "--minify", "-o", jsonpath, "--kubeconfig"])
            .arg(&path);
        let output = kubectl.output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(
        view("jsonpath={.clusters[0].cluster.server}"),
        "https://127.0.0.1:40000"
    );
    assert_eq!(view("jsonpath={.users[*].name}"), "knest-demo");
}

/// Any YAML that a kubeconfig could hold beside the lists.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-z:# ]{1,8}", inner, 0..4).prop_map(|map| {
                Value::Mapping(map.into_iter().map(|(k, v)| (Value::from(k), v)).collect())
            }),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_not_ours_stays(
        extra in prop::collection::hash_map("x-[a-z]{1,6}", any_value(), 0..4),
        others in prop::collection::vec(any_value(), 0..4),
    ) {
        let ours = parse(
            "clusters: [{name: knest-demo, cluster: {}}]\n\
             contexts: [{name: knest-demo, context: {}}]\n\
             users: [{name: knest-demo, user: {}}]\n\
             current-context: knest-demo\n",
        );
        let mut theirs: Mapping = extra.into_iter().map(|(k, v)| (Value::from(k), v)).collect();
        for (list, _) in LISTS {
            theirs.insert(list.into(), others.clone().into());
        }
        theirs.insert("current-context".into(), "".into());
        // Something that keeps the file from being empty.
        theirs.insert("x-kept".into(), true.into());
        let both = merged(theirs.clone(), &ours).unwrap();
        // Through text, as it really goes.
        let text = serde_yaml_ng::to_string(&both).unwrap();
        let read = file::parse(&text).unwrap();
        prop_assert_eq!(&read, &both);
        prop_assert_eq!(merged(read.clone(), &ours).unwrap(), both);
        prop_assert_eq!(removed(read, "knest-demo").unwrap(), theirs);
    }

    #[test]
    fn any_text_is_an_answer(text in "[ -~\n]{0,64}") {
        if let Ok(theirs) = file::parse(&text) {
            let _either = removed(theirs, "knest-demo");
        }
    }
}
