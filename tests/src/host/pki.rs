//! The host cluster's keys: one authority that vouches for the API server, its clients and the
//! webhooks. ECDSA throughout, since RSA keys cost seconds on a slow machine.

use std::net::Ipv4Addr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::json;

/// The authority.
#[derive(Debug)]
pub(crate) struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, PEM.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn generate() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = params("host");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyCertSign,
        ];
        let certificate = params.self_signed(&key).expect("an authority").pem();
        Self {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    /// The authority's own certificate, PEM.
    pub(crate) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The authority's key, PEM.
    pub(crate) fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// For a server at these addresses.
    pub(crate) fn server(&self, addresses: &[Ipv4Addr]) -> Identity {
        let mut params = params("server");
        params.subject_alt_names = addresses
            .iter()
            .map(|&address| SanType::IpAddress(address.into()))
            .collect();
        self.sign(params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// For a client of this name, in this group if any.
    pub(crate) fn client(&self, name: &str, group: Option<&str>) -> Identity {
        let mut params = params(name);
        if let Some(group) = group {
            params
                .distinguished_name
                .push(DnType::OrganizationName, group);
        }
        self.sign(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Identity {
        let key = KeyPair::generate().expect("a key");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// A kubeconfig with one context, named `host`, and everything in it (JSON is YAML).
pub(crate) fn kubeconfig(server: &str, authority: &Authority, user: &Identity) -> String {
    let encoded = |text: &str| BASE64_STANDARD.encode(text);
    let document = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "host",
        "clusters": [{"name": "host", "cluster": {
            "server": server,
            "certificate-authority-data": encoded(authority.certificate()),
        }}],
        "users": [{"name": "host", "user": {
            "client-certificate-data": encoded(&user.certificate),
            "client-key-data": encoded(&user.key),
        }}],
        "contexts": [{"name": "host", "context": {"cluster": "host", "user": "host"}}],
    });
    format!("{document:#}\n")
}
