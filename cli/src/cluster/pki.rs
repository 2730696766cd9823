//! A cluster's keys: three certificate authorities and the service accounts' key pair, all ECDSA
//! P-256 (RSA starves a slow control plane), laid out as kubeadm would have made them. Every other
//! certificate is kubeadm's work, but for the user's own, which is signed here.

use crate::failure::{Failure, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use time::{Duration, OffsetDateTime};

/// How far validity begins in the past, for guests whose clocks are behind.
const SKEW: Duration = Duration::HOUR;
const AUTHORITY_LIFE: Duration = Duration::days(3650);
const ADMIN_LIFE: Duration = Duration::days(365);

/// A cluster's keys. Secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Pki {
    pub(crate) cluster: Authority,
    pub(crate) etcd: Authority,
    pub(crate) front_proxy: Authority,
    pub(crate) service_account: KeyFiles,
}

/// A certificate authority, PEM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Authority {
    pub(crate) certificate: String,
    /// PKCS#8. Secret.
    pub(crate) key: String,
}

/// A key pair without a certificate, PEM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyFiles {
    pub(crate) public: String,
    /// PKCS#8. Secret.
    pub(crate) private: String,
}

/// A client's certificate and its key, PEM. Secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

macro_rules! redacted {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    )*};
}
redacted!(Pki, Authority, KeyFiles, Credentials);

impl Pki {
    /// Every file below `/etc/kubernetes/pki` that kubeadm takes instead of making it, by name.
    /// Secret.
    pub(crate) fn files(&self) -> [(&'static str, &str); 8] {
        [
            ("ca.crt", &self.cluster.certificate),
            ("ca.key", &self.cluster.key),
            ("etcd/ca.crt", &self.etcd.certificate),
            ("etcd/ca.key", &self.etcd.key),
            ("front-proxy-ca.crt", &self.front_proxy.certificate),
            ("front-proxy-ca.key", &self.front_proxy.key),
            ("sa.pub", &self.service_account.public),
            ("sa.key", &self.service_account.private),
        ]
    }

    /// New keys for a new cluster.
    pub(crate) fn generate(now: OffsetDateTime) -> Result<Self> {
        let account = new_key()?;
        Ok(Self {
            cluster: Authority::generate("kubernetes", now)?,
            etcd: Authority::generate("etcd-ca", now)?,
            front_proxy: Authority::generate("front-proxy-ca", now)?,
            service_account: KeyFiles {
                public: account.public_key_pem(),
                private: account.serialize_pem(),
            },
        })
    }

    /// The cluster authority's public key as kubeadm pins it: `sha256:` and the hexadecimal digest
    /// of its SubjectPublicKeyInfo.
    pub(crate) fn ca_hash(&self) -> Result<String> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(self.cluster.certificate.as_bytes())
            .map_err(|e| unreadable("certificate", e))?;
        let certificate = pem.parse_x509().map_err(|e| unreadable("certificate", e))?;
        let digest = Sha256::digest(certificate.public_key().raw);
        Ok(format!(
            "sha256:{}",
            digest
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect::<String>()
        ))
    }

    /// Credentials of the cluster's administrator, of the same name and group as kubeadm's
    /// `admin.conf`.
    pub(crate) fn admin_credentials(&self, now: OffsetDateTime) -> Result<Credentials> {
        let signing = |e: rcgen::Error| Failure::internal("signing a certificate").because(e);
        let issuer = Issuer::from_ca_cert_pem(&self.cluster.certificate, self.cluster.key_pair()?)
            .map_err(|e| unreadable("certificate", e))?;
        let key = new_key()?;
        let mut params = params("kubernetes-admin", now, ADMIN_LIFE);
        params
            .distinguished_name
            .push(DnType::OrganizationName, "kubeadm:cluster-admins");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &issuer).map_err(signing)?;
        Ok(Credentials {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

impl Authority {
    fn generate(common_name: &str, now: OffsetDateTime) -> Result<Self> {
        let key = new_key()?;
        let mut params = params(common_name, now, AUTHORITY_LIFE);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
            KeyUsagePurpose::KeyCertSign,
        ];
        let certificate = params
            .self_signed(&key)
            .map_err(|e| Failure::internal("making a certificate authority").because(e))?;
        Ok(Self {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    fn key_pair(&self) -> Result<KeyPair> {
        KeyPair::from_pem(&self.key).map_err(|e| unreadable("key", e))
    }
}

fn unreadable(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    Failure::host(format!(
        "the {what} of the certificate authority in the record is unreadable"
    ))
    .because(error)
}

/// A new P-256 key, rcgen's default.
fn new_key() -> Result<KeyPair> {
    KeyPair::generate().map_err(|e| Failure::internal("making a key").because(e))
}

fn params(common_name: &str, now: OffsetDateTime, life: Duration) -> CertificateParams {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    let mut params = CertificateParams::default();
    params.not_before = now - SKEW;
    params.not_after = now + life;
    params.distinguished_name = name;
    params
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fixture;
    use rcgen::PublicKeyData;
    use std::process::{Command, Stdio};
    use x509_parser::prelude::*;

    fn now() -> OffsetDateTime {
        OffsetDateTime::now_utc().replace_nanosecond(0).unwrap()
    }

    fn der(pem: &str) -> Vec<u8> {
        let (rest, parsed) = parse_x509_pem(pem.as_bytes()).unwrap();
        assert!(rest.iter().all(u8::is_ascii_whitespace));
        parsed.contents
    }

    #[test]
    fn authorities_are_as_kubeadm_makes_them() {
        let now = now();
        let pki = Pki::generate(now).unwrap();
        for (authority, name) in [
            (&pki.cluster, "CN=kubernetes"),
            (&pki.etcd, "CN=etcd-ca"),
            (&pki.front_proxy, "CN=front-proxy-ca"),
        ] {
            let der = der(&authority.certificate);
            let (_, certificate) = X509Certificate::from_der(&der).unwrap();
            certificate.verify_signature(None).unwrap();
            assert_eq!(certificate.subject().to_string(), name);
            assert!(certificate.is_ca());
            let usage = certificate.key_usage().unwrap().unwrap().value;
            assert!(usage.digital_signature() && usage.key_encipherment() && usage.key_cert_sign());
            let validity = certificate.validity();
            assert_eq!(
                validity.not_before.timestamp(),
                (now - SKEW).unix_timestamp()
            );
            assert_eq!(
                validity.not_after.timestamp(),
                (now + AUTHORITY_LIFE).unix_timestamp()
            );
            // P-256 on both sides: 04, x, y.
            assert_eq!(certificate.public_key().subject_public_key.data.len(), 65);
            assert!(authority.key.starts_with("-----BEGIN PRIVATE KEY-----"));
        }
        assert!(
            pki.service_account
                .public
                .starts_with("-----BEGIN PUBLIC KEY-----")
        );
        assert_ne!(pki.cluster.key, pki.etcd.key);
    }

    #[test]
    fn the_administrator_is_signed_from_stored_text() {
        let now = now();
        let stored = serde_json::to_string(&Pki::generate(now).unwrap()).unwrap();
        let pki: Pki = serde_json::from_str(&stored).unwrap();
        let admin = pki.admin_credentials(now).unwrap();
        let (ca_der, admin_der) = (der(&pki.cluster.certificate), der(&admin.certificate));
        let (_, ca) = X509Certificate::from_der(&ca_der).unwrap();
        let (_, certificate) = X509Certificate::from_der(&admin_der).unwrap();
        certificate.verify_signature(Some(ca.public_key())).unwrap();
        assert_eq!(certificate.issuer(), ca.subject());
        assert_eq!(
            certificate.subject().to_string(),
            "CN=kubernetes-admin, O=kubeadm:cluster-admins"
        );
        assert!(!certificate.is_ca());
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
        assert!(certificate.validity().time_to_expiration().is_some());
        let key = KeyPair::from_pem(&admin.key).unwrap();
        assert_eq!(key.subject_public_key_info(), certificate.public_key().raw);
    }

    #[test]
    fn the_hash_is_what_openssl_finds() {
        // openssl x509 -in ca.crt -noout -pubkey | openssl pkey -pubin -outform DER | sha256sum
        assert_eq!(
            fixture::pki().ca_hash().unwrap(),
            "sha256:9f1df3fa0b50cd4cdea82d24ee1605fdb4e992b311ed0b80e6fdbd2f714d47f6"
        );
        let damaged = Authority {
            certificate: "no PEM".into(),
            key: String::new(),
        };
        assert!(
            Pki {
                cluster: damaged,
                ..fixture::pki()
            }
            .ca_hash()
            .is_err()
        );
    }

    #[test]
    fn openssl_agrees() {
        let found = Command::new("openssl")
            .arg("version")
            .stdout(Stdio::null())
            .status();
        if !found.is_ok_and(|s| s.success()) {
            eprintln!("skipped: no openssl");
            return;
        }
        let pki = Pki::generate(now()).unwrap();
        let admin = pki.admin_credentials(now()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs_err::write(&path, text).unwrap();
            path
        };
        let ca = file("ca.crt", &pki.cluster.certificate);
        let other = file("other.crt", &pki.etcd.certificate);
        let leaf = file("admin.crt", &admin.certificate);
        let verify = |ca: &std::path::Path| {
            let mut openssl = Command::new("openssl");
            openssl.args(["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile"]);
            openssl.arg(ca).arg(&leaf).output().unwrap()
        };
        let output = verify(&ca);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(!verify(&other).status.success());
        let key = file("sa.key", &pki.service_account.private);
        let derived = Command::new("openssl")
            .args(["pkey", "-pubout", "-in"])
            .arg(key)
            .output();
        let derived = String::from_utf8(derived.unwrap().stdout).unwrap();
        let same = |pem: &str| pem.split_whitespace().collect::<String>();
        assert_eq!(same(&derived), same(&pki.service_account.public));
    }

    #[test]
    fn nothing_secret_is_shown() {
        let pki = Pki::generate(now()).unwrap();
        assert_eq!(format!("{pki:?}"), "Pki(…)");
        let damaged = Pki {
            cluster: Authority {
                key: "secret".into(),
                ..pki.cluster
            },
            ..pki
        };
        let error = damaged.admin_credentials(now()).unwrap_err().render();
        assert!(
            error.contains("unreadable") && !error.contains("secret"),
            "{error}"
        );
    }
}
