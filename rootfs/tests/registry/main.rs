//! Images out of a registry that does what registries should not: `server.rs` plays it.

#![allow(
    unreachable_pub,
    clippy::allow_attributes,
    reason = "a test's own module"
)]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod server;

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use knest_rootfs::source::registry::{Patience, Registry, RegistryOptions, RegistryProblem};
use knest_rootfs::source::{Memory, Reference};
use knest_rootfs::{
    BuildOptions, Compression, Descriptor, Error, Image, Platform, Result, Store, Wishes, build,
};
use server::{Reply, Request, Server};

/// Larger than what counts as progress, and than a socket's buffers.
const LARGE: usize = 3 << 20;

/// Two layers: a large one that hardly packs, and a small one.
fn image() -> Memory {
    let mut word = 1_u32;
    let noise = (0..LARGE).map(|_| {
        word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        word.to_be_bytes()[0]
    });
    let tar = |name: &str, content: &[u8]| {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content).unwrap();
        builder.into_inner().unwrap()
    };
    let layers = [
        (tar("noise", &noise.collect::<Vec<_>>()), Compression::Gzip),
        (tar("word", b"hello"), Compression::Zstd),
    ];
    Memory::from_layers(&Platform::host(), layers).unwrap()
}

/// The large layer of it.
fn large(image: &Memory) -> Descriptor {
    let image = Image::resolve(image, &Platform::host()).unwrap();
    image.layers[0].blob.clone()
}

/// Everything short, so that giving up takes no time.
fn options(servers: &[&Server]) -> RegistryOptions {
    RegistryOptions {
        plain_http: servers
            .iter()
            .map(|server| server.address.clone())
            .collect(),
        patience: Patience {
            connect: Duration::from_secs(2),
            idle: Duration::from_millis(400),
            total: Duration::from_millis(1500),
            pause: Duration::from_millis(5),
        },
        ..RegistryOptions::default()
    }
}

struct Bench {
    directory: tempfile::TempDir,
    store: Store,
}

impl Bench {
    fn new() -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("store")).unwrap();
        Bench { directory, store }
    }

    fn pull(&self, server: &Server, options: &RegistryOptions) -> Result<Image> {
        let reference: Reference = format!("{}/a/b:v1", server.address).parse()?;
        let registry = Registry::open(&reference, options)?;
        self.store
            .load(&registry, "image", &Platform::host(), Wishes::default())
    }

    fn partial(&self) -> Vec<PathBuf> {
        let directory = self.directory.path().join("store/partial");
        let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
        files.map(|file| file.path()).collect()
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Nothing has the name, and nothing half-done is left.
    fn nothing(&self) {
        assert!(self.store.list().unwrap().is_empty());
        assert_eq!(self.partial(), Vec::<PathBuf>::new());
    }
}

/// An error with its causes.
fn text(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

fn well(_: &Request, _: usize, reply: Reply) -> Reply {
    reply
}

/// Spoils the first so many answers about the large layer.
fn spoil(
    image: &Memory,
    times: usize,
    how: impl Fn(Reply) -> Reply + Send + Sync + 'static,
) -> impl Fn(&Request, usize, Reply) -> Reply + Send + Sync + 'static {
    let hex = large(image).digest.hex();
    move |request, count, reply| {
        let spoilt = request.path.contains(&hex) && count <= times;
        if spoilt { how(reply) } else { reply }
    }
}

#[test]
fn an_image_comes_whole_and_nothing_is_fetched_twice() {
    let (image, bench) = (image(), Bench::new());
    let server = Server::of(&image, well);
    let pulled = bench.pull(&server, &options(&[&server])).unwrap();
    let there = Image::resolve(&image, &Platform::host()).unwrap();
    assert_eq!(pulled.digest(), there.digest());
    let asked = server.requests().len();
    assert_eq!(
        asked, 5,
        "manifest, config (to know it, to keep it), two layers"
    );
    bench.pull(&server, &options(&[&server])).unwrap();
    assert_eq!(server.requests().len() - asked, 2, "the documents");
    assert_eq!(bench.partial(), Vec::<PathBuf>::new());
    let by_digest = format!("{}/a/b@{}", server.address, there.digest());
    let by_digest = Registry::open(&by_digest.parse().unwrap(), &options(&[&server])).unwrap();
    assert_eq!(
        Image::resolve(&by_digest, &Platform::host()).unwrap(),
        there
    );
}

/// What passes by itself is waited for; what was had is not fetched again.
#[test]
fn faults_that_pass() {
    type How = fn(Reply) -> Reply;
    let cases: [(&str, usize, How); 7] = [
        ("500 twice", 2, |_| Reply::new(500, "")),
        ("429", 1, |_| Reply::new(429, "").header("Retry-After", "0")),
        ("a page of 503", 1, |_| Reply::new(503, "<html>")),
        ("broken off at once", 3, |reply| reply.cut(0)),
        ("broken off twice", 2, |reply| reply.cut(1 << 20)),
        ("silent", 1, |reply| reply.stall(0)),
        ("silent half-way", 1, |reply| reply.stall(2 << 20)),
    ];
    let image = image();
    for (name, times, how) in cases {
        let bench = Bench::new();
        let server = Server::of(&image, spoil(&image, times, how));
        let pulled = bench.pull(&server, &options(&[&server]));
        assert!(pulled.is_ok(), "{name}: {}", text(&pulled.unwrap_err()));
        let asked = server.requests_for(&large(&image).digest.hex());
        assert_eq!(asked.len(), times + 1, "{name}");
        if name.ends_with("half-way") {
            assert_eq!(asked[1].header("range"), Some("bytes=2097152-"));
        }
    }
}

#[test]
fn a_server_without_ranges_sends_all_again() {
    let (image, bench) = (image(), Bench::new());
    let whole = Server::of(&image, well);
    let layer = large(&image);
    let registry = format!("{}/a/b:v1", whole.address).parse().unwrap();
    let registry = Registry::open(&registry, &options(&[&whole])).unwrap();
    let mut bytes = Vec::new();
    let mut blob = knest_rootfs::BlobSource::open(&registry, &layer).unwrap();
    std::io::Read::read_to_end(&mut blob, &mut bytes).unwrap();
    let hex = layer.digest.hex();
    let server = Server::of(&image, move |request, count, reply| {
        match request.path.contains(&hex) {
            true if count == 1 => Reply::new(200, bytes.clone()).cut(1 << 20),
            true => Reply::new(200, bytes.clone()),
            false => reply,
        }
    });
    bench.pull(&server, &options(&[&server])).unwrap();
}

/// Each error names the image, and the digest of what is not the whole of it.
#[test]
fn faults_that_stay() {
    type How = fn(Reply) -> Reply;
    let cases: [(&str, How); 10] = [
        ("wants credentials", |_| Reply::new(401, "")),
        ("answers 403: denied", |_| {
            Reply::new(403, r#"{"errors":[{"message":"denied"}]}"#)
        }),
        ("answers 404", |_| Reply::new(404, "")),
        ("attempts in 1 s: 127.0.0.1:", |_| Reply::new(500, "")),
        ("answers 429", |_| {
            Reply::new(429, "").header("Retry-After", "3600")
        }),
        ("sent nothing for 0 s", |reply| reply.stall(0)),
        ("another range", |mut reply| {
            // The first answer breaks off, the second is of another place.
            if reply.status == 206 {
                reply.headers.retain(|(name, _)| name != "Content-Range");
                return reply.header("Content-Range", "bytes 7-9/10");
            }
            reply.cut(1 << 20)
        }),
        ("its descriptor says", |reply| {
            let half = reply.body.len() / 2;
            Reply::new(200, &reply.body[..half])
        }),
        ("its descriptor says", |mut reply| {
            reply.body.extend([0; 1 << 20]);
            reply
        }),
        ("digest is", |mut reply| {
            reply.body[1 << 20] ^= 1;
            reply
        }),
    ];
    let image = image();
    let digest = large(&image).digest.to_string();
    for (words, how) in cases {
        let bench = Bench::new();
        let server = Server::of(&image, spoil(&image, usize::MAX, how));
        let error = text(&bench.pull(&server, &options(&[&server])).unwrap_err());
        assert!(
            error.contains(words) && error.contains(&digest),
            "{words}: {error}"
        );
        let image_named = error.contains(&format!("{}/a/b:v1", server.address));
        assert!(image_named || words.starts_with("its"), "{words}: {error}");
        assert!(bench.store.list().unwrap().is_empty(), "{words}");
    }
}

#[test]
fn names_that_mean_nothing() {
    let image = image();
    for (words, status) in [
        ("answers 404: gone", 404),
        ("answers 500", 500),
        ("wants", 401),
    ] {
        let server = Server::of(&image, move |_, _, _| {
            Reply::new(status, r#"{"errors":[{"message":"gone"}]}"#)
        });
        let bench = Bench::new();
        let error = text(&bench.pull(&server, &options(&[&server])).unwrap_err());
        let name = format!("cannot resolve the name of {}/a/b:v1", server.address);
        assert!(error.starts_with(&name) && error.contains(words), "{error}");
        bench.nothing();
    }
    let lying = Server::of(&image, |_, _, reply| {
        let other = format!("sha256:{}", "0".repeat(64));
        reply.header("Docker-Content-Digest", other)
    });
    let error = Bench::new().pull(&lying, &options(&[&lying])).unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    let html = Server::of(&image, |_, _, _| Reply::new(200, "<html>"));
    let error = Bench::new().pull(&html, &options(&[&html])).unwrap_err();
    assert!(matches!(error, Error::Malformed { .. }), "{error}");
    let endless = Server::of(&image, |_, _, _| Reply::new(200, vec![b' '; 5 << 20]));
    let error = text(
        &Bench::new()
            .pull(&endless, &options(&[&endless]))
            .unwrap_err(),
    );
    assert!(error.contains("more than the"), "{error}");
}

/// A registry may serve what is no image of ours: that is said before a layer is asked for.
#[test]
fn documents_of_other_kinds() {
    type Change = fn(&mut serde_json::Value);
    let cases: [(&str, Change); 5] = [
        ("linux/vax", |manifest| {
            let mut entry = serde_json::json!({"digest": manifest["config"]["digest"], "size": 2});
            entry["mediaType"] = "application/vnd.oci.image.manifest.v1+json".into();
            entry["platform"] = serde_json::json!({"os": "linux", "architecture": "vax"});
            *manifest = serde_json::json!({"schemaVersion": 2, "manifests": [entry]});
            manifest["mediaType"] = "application/vnd.oci.image.index.v1+json".into();
        }),
        ("schema version 1", |manifest| {
            *manifest = serde_json::json!({"schemaVersion": 1, "fsLayers": []});
        }),
        ("tar+gzip+encrypted", |manifest| {
            let encrypted = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted";
            manifest["layers"][0]["mediaType"] = encrypted.into();
        }),
        ("application/x-new", |manifest| {
            manifest["layers"][1]["mediaType"] = "application/x-new".into();
        }),
        ("text/plain", |manifest| {
            manifest["mediaType"] = "text/plain".into();
        }),
    ];
    let image = image();
    for (words, change) in cases {
        let server = Server::of(&image, move |request, _, mut reply| {
            if request.path.contains("/manifests/") {
                let mut manifest = serde_json::from_slice(&reply.body).unwrap();
                change(&mut manifest);
                reply.body = manifest.to_string().into_bytes();
            }
            reply
        });
        let bench = Bench::new();
        let error = text(&bench.pull(&server, &options(&[&server])).unwrap_err());
        assert!(error.contains(words), "{words}: {error}");
        let asked = server.requests_for(&large(&image).digest.hex());
        assert!(asked.is_empty(), "{words}");
        bench.nothing();
    }
}

/// What a pull that failed had got is where the next one goes on, even if a crash spoilt it.
#[test]
fn the_next_pull_goes_on() {
    let (image, bench) = (image(), Bench::new());
    let broken = Server::of(&image, spoil(&image, usize::MAX, |reply| reply.cut(0)));
    let once = Server::of(&image, spoil(&image, 1, |reply| reply.cut(2 << 20)));
    let reference = |server: &Server| format!("{}/a/b:v1", server.address);
    let hex = large(&image).digest.hex();
    let cut = Server::of(&image, {
        let hex = hex.clone();
        move |request, _, reply| match (request.path.contains(&hex), request.header("range")) {
            (true, None) => reply.cut(2 << 20),
            (true, Some(_)) => Reply::new(404, ""),
            _ => reply,
        }
    });
    assert!(
        bench.pull(&cut, &options(&[&cut])).is_err(),
        "{}",
        reference(&cut)
    );
    assert_eq!(bench.partial().len(), 1);
    assert!(bench.pull(&broken, &options(&[&broken])).is_err());
    assert_eq!(bench.partial().len(), 1, "what was there is not lost");
    let kept = std::fs::metadata(&bench.partial()[0]).unwrap().len();
    let well = Server::of(&image, well);
    bench.pull(&well, &options(&[&well])).unwrap();
    let asked = server_range(&well, &hex);
    assert_eq!(asked, [Some(format!("bytes={kept}-"))]);
    assert_eq!(bench.partial(), Vec::<PathBuf>::new());

    // A crash leaves zeros where data was to be.
    let bench = Bench::new();
    assert!(bench.pull(&cut, &options(&[&cut])).is_err());
    let partial = bench.partial().remove(0);
    let length = std::fs::metadata(&partial).unwrap().len();
    std::fs::write(&partial, vec![0; usize::try_from(length).unwrap()]).unwrap();
    bench.pull(&once, &options(&[&once])).unwrap();
    assert_eq!(bench.partial(), Vec::<PathBuf>::new());
}

fn server_range(server: &Server, part: &str) -> Vec<Option<String>> {
    let requests = server.requests_for(part);
    let range = |request: Request| request.header("range").map(str::to_owned);
    requests.into_iter().map(range).collect()
}

#[test]
fn a_disk_is_built_while_the_image_comes_in() {
    let (image, bench) = (image(), Bench::new());
    let server = Server::of(&image, spoil(&image, 1, |reply| reply.cut(1 << 20)));
    let reference = format!("{}/a/b:v1", server.address).parse().unwrap();
    let registry = Registry::open(&reference, &options(&[&server])).unwrap();
    let found = Image::resolve(&registry, &Platform::host()).unwrap();
    let path = |name: &str| bench.directory.path().join(name);
    let intake = bench
        .store
        .receive(&registry, &found, Wishes::default())
        .unwrap();
    build(&intake, &found, &path("one"), &BuildOptions::new(64 << 20)).unwrap();
    let asked = server.requests().len();
    intake.finish("image").unwrap();
    assert_eq!(
        server.requests().len() - asked,
        1,
        "only the config was not read yet"
    );
    let stored = bench.store.resolve("image").unwrap();
    let there = Image::resolve(&stored, &Platform::host()).unwrap();
    build(&stored, &there, &path("two"), &BuildOptions::new(64 << 20)).unwrap();
    assert!(read(&path("one")) == read(&path("two")));
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[test]
fn cancelling_takes_no_time() {
    let (image, bench) = (image(), Bench::new());
    let server = Server::of(
        &image,
        spoil(&image, usize::MAX, |reply| reply.stall(1 << 20)),
    );
    let cancel = Arc::new(AtomicBool::new(false));
    let mut options = options(&[&server]);
    options.patience = Patience::default();
    options.cancel = Some(Arc::clone(&cancel));
    let registry = format!("{}/a/b:v1", server.address).parse().unwrap();
    let registry = Registry::open(&registry, &options).unwrap();
    let wishes = Wishes {
        cancel: Some(&cancel),
        progress: None,
    };
    let result = std::thread::scope(|scope| {
        let load = scope.spawn(|| bench.store.load(&registry, "a", &Platform::host(), wishes));
        while server.requests_for(&large(&image).digest.hex()).is_empty() {
            std::thread::yield_now();
        }
        cancel.store(true, Ordering::Relaxed);
        load.join().unwrap()
    });
    assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
}

/// Asks for a token, as most registries do; `/token` gives it to whom it knows.
fn guarded(realm: Option<String>) -> impl Fn(&Request, usize, Reply) -> Reply + Send + Sync {
    move |request, _, reply| {
        if request.path.starts_with("/token") {
            let basic = request.header("authorization");
            let token = request.body.contains("refresh_token=r%2Ft");
            let known = token || basic == Some("Basic dXNlcjpwYXNz");
            let answer = if token {
                r#"{"access_token":"T"}"#
            } else {
                r#"{"token":"T"}"#
            };
            return if known {
                Reply::new(200, answer)
            } else {
                Reply::new(401, "")
            };
        }
        if request.header("authorization") == Some("Bearer T") {
            return reply;
        }
        let own = request.header("host").unwrap_or_default();
        let realm = realm
            .clone()
            .unwrap_or_else(|| format!("http://{own}/token?x=1"));
        let scope = "service=\"s s\",scope=\"repository:a/b:pull\"";
        let challenge = format!("Bearer realm=\"{realm}\",{scope}");
        Reply::new(401, "").header("WWW-Authenticate", challenge)
    }
}

#[test]
fn tokens_are_got_with_what_the_user_has() {
    let image = image();
    let entry =
        |server: &Server, entry: &str| format!(r#"{{"auths": {{"{}": {entry}}}}}"#, server.address);
    for (credentials, method) in [
        (r#"{"auth": "dXNlcjpwYXNz"}"#, "GET"),
        (r#"{"identitytoken": "r/t"}"#, "POST"),
    ] {
        let (server, bench) = (Server::of(&image, guarded(None)), Bench::new());
        let mut options = options(&[&server]);
        options.credentials = vec![bench.file("auth.json", &entry(&server, credentials))];
        bench.pull(&server, &options).unwrap();
        let asked = server.requests_for("/token");
        assert_eq!(asked.len(), 1, "one token for all");
        assert_eq!(asked[0].method, method);
        let fields = format!("{}{}", asked[0].path, asked[0].body);
        assert!(
            fields.contains("scope=repository%3Aa%2Fb%3Apull"),
            "{fields}"
        );
        assert!(fields.contains("service=s%20s"), "{fields}");
    }
    for (words, file) in [
        ("there are none for it", "{}".to_owned()),
        (
            "does not accept",
            r#"{"auths":{"HOST":{"auth":"dXNlcjpubw=="}}}"#.to_owned(),
        ),
        ("auth.json is malformed", "{".to_owned()),
    ] {
        let (server, bench) = (Server::of(&image, guarded(None)), Bench::new());
        let mut options = options(&[&server]);
        let file = file.replace("HOST", &server.address);
        options.credentials = vec![bench.file("auth.json", &file)];
        let error = text(&bench.pull(&server, &options).unwrap_err());
        assert!(error.contains(words), "{error}");
        bench.nothing();
    }
}

#[test]
fn secrets_go_to_whom_they_are_meant_for() {
    let image = image();
    // Blobs are elsewhere, as cloud registries have them.
    let elsewhere = Server::of(&image, well);
    let other = elsewhere.address.clone();
    let guarded_here = guarded(None);
    let server = Server::of(&image, move |request, count, reply| {
        let reply = guarded_here(request, count, reply);
        match reply.status {
            200 if request.path.contains("/blobs/") => {
                let to = format!("http://{other}{}", request.path);
                Reply::new(307, "").header("Location", to)
            }
            _ => reply,
        }
    });
    let bench = Bench::new();
    let file = format!(
        r#"{{"auths":{{"{}":{{"auth":"dXNlcjpwYXNz"}}}}}}"#,
        server.address
    );
    let mut options = options(&[&server, &elsewhere]);
    options.credentials = vec![bench.file("auth.json", &file)];
    bench.pull(&server, &options).unwrap();
    assert!(!elsewhere.requests().is_empty());
    for request in elsewhere.requests() {
        assert_eq!(request.header("authorization"), None, "{}", request.path);
    }

    // The same without leave to speak plain HTTP to that other server, or to a token server.
    options.plain_http.remove(&elsewhere.address);
    let error = Bench::new().pull(&server, &options).unwrap_err();
    let problem = error.registry().map(RegistryProblem::cause);
    assert!(
        matches!(problem, Some(RegistryProblem::PlainHttp { .. })),
        "{}",
        text(&error)
    );
    let realm = format!("http://{}/token", elsewhere.address);
    let server = Server::of(&image, guarded(Some(realm)));
    options.plain_http.insert(server.address.clone());
    let error = text(&Bench::new().pull(&server, &options).unwrap_err());
    assert!(error.contains("plain HTTP"), "{error}");
    assert_eq!(elsewhere.requests_for("/token").len(), 0);
}

#[test]
fn redirections_end() {
    let image = image();
    let server = Server::of(&image, |request, _, _| {
        Reply::new(302, "").header("Location", request.path.clone())
    });
    let error = text(
        &Bench::new()
            .pull(&server, &options(&[&server]))
            .unwrap_err(),
    );
    assert!(error.contains("redirects more than 5 times"), "{error}");
}

#[test]
fn plain_http_only_where_it_is_named() {
    let server = Server::of(&image(), well);
    let error = text(&Bench::new().pull(&server, &options(&[])).unwrap_err());
    assert!(error.contains(&server.address), "{error}");
    assert!(server.requests().is_empty());
}

#[test]
fn mirrors_come_first_and_the_registry_last() {
    let image = image();
    let registry = Server::of(&image, well);
    let empty = Server::new(Default::default(), Box::new(well));
    let pull = |mirrors: &[&Server]| {
        let mut options = options(&[&registry]);
        let places = mirrors
            .iter()
            .map(|mirror| format!("http://{}", mirror.address));
        options
            .mirrors
            .insert(registry.address.clone(), places.collect());
        Bench::new().pull(&registry, &options).unwrap();
    };
    let mirror = Server::of(&image, well);
    pull(&[&empty, &mirror]);
    assert_eq!(empty.requests().len(), 1);
    assert!(registry.requests().is_empty());
    // One that has the manifest, and fails in the middle.
    let failing = Server::of(
        &image,
        spoil(&image, usize::MAX, |reply| match reply.status {
            206 => Reply::new(404, ""),
            _ => reply.cut(1 << 20),
        }),
    );
    pull(&[&failing]);
    let asked = server_range(&registry, &large(&image).digest.hex());
    assert_eq!(asked, [Some("bytes=1048576-".to_owned())]);
}
