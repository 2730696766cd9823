//! Who the user is to a registry, as other tools have stored it: Docker's `config.json`,
//! containers' `auth.json`, and the credential helpers that both name.
//!
//! ```text
//! {"auths": {"HOST[/PATH]": {"auth": base64(user:password), "identitytoken": …}},
//!  "credHelpers": {"HOST": NAME}, "credsStore": NAME}     NAME: docker-credential-NAME get
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fs_err as fs;
use serde::Deserialize;

use super::problem::RegistryProblem as Problem;
use crate::source::reference::{DEFAULT_REGISTRY, known_as};

/// What Docker calls its own registry in these files.
const HUB: &str = "https://index.docker.io/v1/";
/// Most bytes of a file or of a helper's answer.
const LIMIT: u64 = 1 << 20;
/// How long a helper may take: it may ask the user to unlock something.
const HELPER_TIME: Duration = Duration::from_secs(60);
/// How long it may live on after its answer, and between two looks at that.
const EXIT_TIME: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);
/// A helper's user name for a token that is not a password.
const TOKEN_USER: &str = "<token>";

/// What proves who the user is.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    Password {
        user: String,
        password: String,
    },
    /// A refresh token of OAuth 2.
    Token(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

impl Credentials {
    /// The value of an `Authorization` header.
    pub(super) fn basic(&self) -> Option<String> {
        match self {
            Credentials::Password { user, password } => Some(format!(
                "Basic {}",
                STANDARD.encode(format!("{user}:{password}"))
            )),
            Credentials::Token(_) => None,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default)]
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// Looks through the files in order for the most exact entry.
pub(super) fn find(
    files: &[PathBuf],
    registry: &str,
    repository: &str,
) -> Result<Option<Credentials>, Problem> {
    let failed = |reason: String| Problem::Credentials {
        host: registry.to_owned(),
        reason,
    };
    for path in files {
        let Some(bytes) = read(path).map_err(failed)? else {
            continue;
        };
        // Parsers' messages may quote what they read.
        let file: File = serde_json::from_slice(&bytes)
            .map_err(|_| failed(format!("{} is malformed", path.display())))?;
        let found = file.find(registry, repository);
        let found = found.map_err(|reason| failed(format!("{}: {reason}", path.display())))?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let mut bytes = Vec::new();
    match fs::File::open(path) {
        Ok(file) => file
            .take(LIMIT)
            .read_to_end(&mut bytes)
            .map_err(|error| error.to_string())?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    Ok(Some(bytes))
}

impl File {
    fn find(&self, registry: &str, repository: &str) -> Result<Option<Credentials>, String> {
        let helper = self
            .cred_helpers
            .iter()
            .find(|(key, _)| host(key) == registry);
        if let Some((_, helper)) = helper {
            return ask(helper, registry);
        }
        // `a.b/team/image` before `a.b/team` before `a.b`.
        let full = format!("{registry}/{repository}");
        let mut keys: Vec<_> = full
            .match_indices('/')
            .map(|(end, _)| &full[..end])
            .chain([full.as_str()])
            .collect();
        keys.reverse();
        for key in keys {
            let entry = self.auths.iter().find(|(name, _)| {
                if key == registry {
                    host(name) == registry
                } else {
                    name.as_str() == key
                }
            });
            if let Some(found) = entry.map(|(_, entry)| entry.read()).transpose()?.flatten() {
                return Ok(Some(found));
            }
        }
        match &self.creds_store {
            Some(store) if !store.is_empty() => ask(store, registry),
            _ => Ok(None),
        }
    }
}

impl Entry {
    fn read(&self) -> Result<Option<Credentials>, String> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = given(&self.identitytoken) {
            return Ok(Some(Credentials::Token(token)));
        }
        if let Some(auth) = given(&self.auth) {
            let malformed = || "an entry's auth is not base64 of user:password".to_owned();
            let bytes = STANDARD.decode(auth.trim()).map_err(|_| malformed())?;
            let text = String::from_utf8(bytes).map_err(|_| malformed())?;
            let (user, password) = text.split_once(':').ok_or_else(malformed)?;
            return Ok(Some(Credentials::Password {
                user: user.to_owned(),
                password: password.trim_end_matches('\0').to_owned(),
            }));
        }
        Ok(given(&self.username)
            .zip(given(&self.password))
            .map(|(user, password)| Credentials::Password { user, password }))
    }
}

/// The registry that a key means: keys may be URLs, and Docker's own has several.
fn host(key: &str) -> &str {
    known_as(
        key.strip_prefix("https://")
            .or_else(|| key.strip_prefix("http://"))
            .map_or(key, |rest| rest.split('/').next().unwrap_or(rest)),
    )
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks a helper; `None` when it says that it knows nothing.
fn ask(name: &str, registry: &str) -> Result<Option<Credentials>, String> {
    if name.contains('/') {
        return Err(format!("{name:?} is no credential helper's name"));
    }
    let program = format!("docker-credential-{name}");
    let server = if registry == DEFAULT_REGISTRY {
        HUB
    } else {
        registry
    };
    let (status, said) = run(&program, server).map_err(|reason| format!("{program}: {reason}"))?;
    if !status.success() {
        let words = String::from_utf8_lossy(&said);
        let words = words.trim();
        // The one sentence that every helper has for it.
        if words.contains("credentials not found") {
            return Ok(None);
        }
        return Err(match words {
            "" => format!("{program} get: {status}"),
            words => format!("{program} get: {words}"),
        });
    }
    let answer: Answer = serde_json::from_slice(&said)
        .map_err(|_| format!("{program} get: its answer is malformed"))?;
    Ok(Some(match answer.username.as_str() {
        TOKEN_USER => Credentials::Token(answer.secret),
        _ => Credentials::Password {
            user: answer.username,
            password: answer.secret,
        },
    }))
}

/// How it ended, and its standard output, where helpers write their errors too.
fn run(program: &str, input: &str) -> Result<(ExitStatus, Vec<u8>), String> {
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read is a helper that fails.
        drop(stdin.write_all(input.as_bytes()));
    }
    let (tell, told) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut said = Vec::new();
            drop(stdout.take(LIMIT).read_to_end(&mut said));
            // Nobody listens any more after the time is over.
            tell.send(said).ok();
        });
    }
    let said = told.recv_timeout(HELPER_TIME);
    if said.as_ref().is_ok_and(|said| (said.len() as u64) < LIMIT) {
        end(&mut child);
    }
    drop(child.kill());
    let status = child.wait().map_err(|error| error.to_string())?;
    let said = said.map_err(|_| format!("no answer within {} s", HELPER_TIME.as_secs()))?;
    Ok((status, said))
}

/// Gives a helper that has closed its output the time to exit.
fn end(child: &mut std::process::Child) {
    let since = Instant::now();
    while matches!(child.try_wait(), Ok(None)) && since.elapsed() < EXIT_TIME {
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(user: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Password {
            user: user.into(),
            password: password.into(),
        })
    }

    fn found(file: &serde_json::Value, registry: &str, repository: &str) -> Option<Credentials> {
        let file: File = serde_json::from_value(file.clone()).unwrap();
        file.find(registry, repository).unwrap()
    }

    #[test]
    fn the_most_exact_entry_counts() {
        let auth = |text: &str| serde_json::json!({"auth": STANDARD.encode(text)});
        let file = serde_json::json!({"auths": {
            "https://index.docker.io/v1/": auth("hub:a:b"),
            "quay.io": auth("quay:1"),
            "quay.io/team": auth("team:2"),
            "https://ghcr.io": {"identitytoken": "t", "auth": STANDARD.encode("x:y")},
            "127.0.0.1:5000": {"username": "u", "password": "p"},
            "empty.io": {},
        }});
        assert_eq!(
            found(&file, "docker.io", "library/alpine"),
            password("hub", "a:b")
        );
        assert_eq!(found(&file, "quay.io", "other/x"), password("quay", "1"));
        assert_eq!(found(&file, "quay.io", "team/x"), password("team", "2"));
        assert_eq!(found(&file, "quay.io", "teams/x"), password("quay", "1"));
        assert_eq!(
            found(&file, "ghcr.io", "x"),
            Some(Credentials::Token("t".into()))
        );
        assert_eq!(found(&file, "127.0.0.1:5000", "x"), password("u", "p"));
        assert_eq!(found(&file, "empty.io", "x"), None);
        assert_eq!(found(&file, "127.0.0.1", "x"), None);
    }

    #[test]
    fn files_that_are_missing_are_passed_over_and_malformed_ones_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        let files = [directory.path().join("none"), path.clone()];
        assert_eq!(find(&files[..1], "a.b", "c").unwrap(), None);
        std::fs::write(&path, "{\"auths\": {\"a.b\": {\"auth\": \"c2VjcmV0\"}}}").unwrap();
        let error = find(&files, "a.b", "c").unwrap_err().to_string();
        assert!(
            error.contains("config.json") && !error.contains("c2VjcmV0"),
            "{error}"
        );
        std::fs::write(&path, "{\"auths\": \"hunter2\"}").unwrap();
        let error = find(&files, "a.b", "c").unwrap_err().to_string();
        assert!(
            error.contains("malformed") && !error.contains("hunter2"),
            "{error}"
        );
    }

    #[test]
    fn secrets_are_not_printed() {
        let text = format!("{:?}", password("u", "hunter2"));
        assert!(!text.contains("hunter2"), "{text}");
    }
}
