//! A real registry on loopback: Debian's `docker-registry`, plain, behind a password, or with TLS.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fs_err as fs;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::env::program;
use crate::wait::until;

/// The user and the password that a guarded one knows; the file has bcrypt's hash of it.
pub const USER: (&str, &str) = ("knest", "secret");
const HTPASSWD: &str = "knest:$2y$05$gC1rqe4f6w7sIFmYwaZH9uOxagivPnC.w.ifheYxy92lfHPdxnBji\n";

/// What it asks of whoever comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Plain HTTP, open to everyone.
    Open,
    /// Plain HTTP, [`USER`] only.
    Password,
    /// HTTPS by an authority of its own, open to everyone.
    Tls,
}

/// A running registry; it ends with its test.
#[derive(Debug)]
pub struct Registry {
    /// Host and port.
    pub address: String,
    directory: PathBuf,
    child: Child,
}

impl Registry {
    /// Starts one whose files are below this directory.
    #[must_use]
    pub fn start(below: &Path, guard: Guard) -> Registry {
        let directory = below.join(format!("registry-{guard:?}"));
        fs::create_dir_all(&directory).expect("the registry's directory");
        // Free a moment ago, and nothing else on loopback takes ports at random.
        let probe = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = probe.local_addr().expect("its address").to_string();
        drop(probe);
        let place = |name: &str| directory.join(name).display().to_string();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: {address}\n",
            place("data")
        );
        match guard {
            Guard::Open => {}
            Guard::Password => {
                fs::write(directory.join("htpasswd"), HTPASSWD).expect("the password file");
                let file = place("htpasswd");
                config += &format!("auth: {{htpasswd: {{realm: test, path: {file}}}}}\n");
            }
            Guard::Tls => {
                certify(&directory);
                let (certificate, key) = (place("certificate.pem"), place("key.pem"));
                config += &format!("  tls: {{certificate: {certificate}, key: {key}}}\n");
            }
        }
        fs::write(directory.join("config.yml"), config).expect("the registry's configuration");
        let log = fs::File::create(directory.join("log")).expect("the registry's log");
        let child = Command::new(program("docker-registry").expect("docker-registry"))
            .args(["serve", &place("config.yml")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.into_file())
            .spawn()
            .expect("docker-registry starts");
        let registry = Registry {
            address,
            directory,
            child,
        };
        let (limit, interval) = (Duration::from_secs(20), Duration::from_millis(20));
        let connect = || TcpStream::connect(&registry.address);
        drop(until("the registry listens", limit, interval, connect));
        registry
    }

    /// Its authority, for whoever is to trust it.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.directory.join("authority.pem")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// An authority, and a certificate for loopback.
fn certify(directory: &Path) {
    let write = |name: &str, text: &str| fs::write(directory.join(name), text).expect("a PEM file");
    let key = KeyPair::generate().expect("the authority's key");
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = authority.self_signed(&key).expect("the authority");
    write("authority.pem", &root.pem());
    let issuer = Issuer::new(authority, key);
    let key = KeyPair::generate().expect("the server's key");
    let names = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("names");
    let certificate = names.signed_by(&key, &issuer).expect("the certificate");
    write("certificate.pem", &certificate.pem());
    write("key.pem", &key.serialize_pem());
}
