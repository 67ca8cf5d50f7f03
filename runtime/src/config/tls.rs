//! TLS with the rules of stock `Security`: both sides show a certificate signed by the configured CA, host names are not
//! compared (clusters use IP addresses and a CA of their own), TLS 1.2 is the lowest version unless configured.

use super::SchedulerConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    ALL_VERSIONS, CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName,
    Error as RustlsError, ProtocolVersion, RootCertStore, ServerConfig, SignatureScheme,
    SupportedCipherSuite, SupportedProtocolVersion,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::sync::Arc;

/// Certificates and rules, as configured. Paths and PEM texts are interchangeable (a text contains line breaks).
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// CA certificates.
    pub ca: String,
    /// This process's certificate chain.
    pub cert: String,
    /// Its key; absent when the certificate's file holds it.
    pub key: Option<String>,
    /// Allowed TLS 1.2 ciphers, an OpenSSL list.
    pub ciphers: Option<String>,
    /// Lowest version, 1.2 or 1.3.
    pub min_version: Option<f64>,
    /// Highest version, 1.2 or 1.3.
    pub max_version: Option<f64>,
}

impl TlsSettings {
    /// The settings for clients and workers; `None` unless both CA and certificate are configured.
    #[must_use]
    pub fn from_config(config: &SchedulerConfig) -> Option<Self> {
        Some(Self {
            ca: config.tls_ca_file.clone()?,
            cert: config.tls_cert.clone()?,
            key: config.tls_key.clone(),
            ciphers: config.tls_ciphers.clone(),
            min_version: config.tls_min_version,
            max_version: config.tls_max_version,
        })
    }
}

/// The two sides of a configuration.
#[derive(Clone, Debug)]
pub struct TlsConfigs {
    /// For listening.
    pub server: Arc<ServerConfig>,
    /// For connecting.
    pub client: Arc<ClientConfig>,
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read.
    #[error("cannot read the {what} {path:?}: {error}")]
    Read {
        /// Which file.
        what: &'static str,
        /// Its path.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// A file that is no PEM, or holds nothing of the kind.
    #[error("the {what} {source_name} holds no {wanted} in PEM format{detail}")]
    Pem {
        /// Which file.
        what: &'static str,
        /// Its path, or "(in memory)".
        source_name: String,
        /// What it should hold.
        wanted: &'static str,
        /// More, if known.
        detail: String,
    },
    /// None of the configured ciphers is known.
    #[error("distributed.comm.tls.ciphers {0:?} names no cipher this scheduler has; it has: {1}")]
    Ciphers(String, String),
    /// Lowest above highest.
    #[error("distributed.comm.tls.min-version is above max-version")]
    Versions,
    /// Certificate and key that do not fit, and the like.
    #[error("the TLS certificate or key cannot be used: {0}")]
    Rustls(#[from] RustlsError),
    /// The CA file cannot serve.
    #[error("the TLS CA cannot be used: {0}")]
    Ca(String),
}

/// Builds both sides.
pub fn build(settings: &TlsSettings) -> Result<TlsConfigs, TlsError> {
    let provider = Arc::new(provider(settings.ciphers.as_deref())?);
    let versions = versions(settings.min_version, settings.max_version)?;
    let ca = certificates("TLS CA file", &settings.ca)?;
    let chain = certificates("TLS certificate", &settings.cert)?;
    let key = private_key(settings)?;
    let verifier = Arc::new(ChainVerifier::new(&ca, &provider)?);
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions)?
        .with_client_cert_verifier(verifier.clone())
        .with_single_cert(chain.clone(), key.clone_key())?;
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(chain, key)?;
    Ok(TlsConfigs {
        server: Arc::new(server),
        client: Arc::new(client),
    })
}

/// HTTPS for the dashboard: a certificate for the server, none asked of browsers.
pub fn dashboard(cert: &str, key: Option<&str>) -> Result<Arc<ServerConfig>, TlsError> {
    let settings = TlsSettings {
        ca: String::new(),
        cert: cert.to_owned(),
        key: key.map(str::to_owned),
        ciphers: None,
        min_version: None,
        max_version: None,
    };
    let mut server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(ALL_VERSIONS)?
        .with_no_client_auth()
        .with_single_cert(
            certificates("dashboard certificate", cert)?,
            private_key(&settings)?,
        )?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(server))
}

/// The name to give rustls when connecting to `host`; it is not compared with the certificate.
#[must_use]
pub fn server_name(host: &str) -> ServerName<'static> {
    ServerName::try_from(host.to_owned()).unwrap_or(ServerName::IpAddress(
        std::net::Ipv4Addr::UNSPECIFIED.into(),
    ))
}

fn read(what: &'static str, source: &str) -> Result<(Vec<u8>, String), TlsError> {
    if source.contains('\n') {
        return Ok((source.as_bytes().to_vec(), "(in memory)".to_owned()));
    }
    match std::fs::read(source) {
        Ok(bytes) => Ok((bytes, format!("{source:?}"))),
        Err(error) => Err(TlsError::Read {
            what,
            path: source.to_owned(),
            error,
        }),
    }
}

fn certificates(
    what: &'static str,
    source: &str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let (pem, source_name) = read(what, source)?;
    let bad = |detail: String| TlsError::Pem {
        what,
        source_name: source_name.clone(),
        wanted: "certificate",
        detail,
    };
    let all: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| bad(format!(" ({error})")))?;
    if all.is_empty() {
        Err(bad(String::new()))
    } else {
        Ok(all)
    }
}

fn private_key(settings: &TlsSettings) -> Result<PrivateKeyDer<'static>, TlsError> {
    let source = settings.key.as_ref().unwrap_or(&settings.cert);
    let (pem, source_name) = read("TLS key", source)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| TlsError::Pem {
        what: "TLS key",
        source_name,
        wanted: "unencrypted private key",
        detail: format!(" ({error})"),
    })
}

fn versions(
    min: Option<f64>,
    max: Option<f64>,
) -> Result<Vec<&'static SupportedProtocolVersion>, TlsError> {
    let number = |version: &SupportedProtocolVersion| {
        if version.version == ProtocolVersion::TLSv1_3 {
            1.3
        } else {
            1.2
        }
    };
    let allowed: Vec<_> = ALL_VERSIONS
        .iter()
        .copied()
        .filter(|v| number(v) >= min.unwrap_or(1.2) && number(v) <= max.unwrap_or(1.3))
        .collect();
    if allowed.is_empty() {
        Err(TlsError::Versions)
    } else {
        Ok(allowed)
    }
}

/// The crypto provider, its TLS 1.2 suites cut to the OpenSSL list `ciphers`; TLS 1.3 suites stay, as in OpenSSL.
fn provider(ciphers: Option<&str>) -> Result<CryptoProvider, TlsError> {
    let mut provider = ring::default_provider();
    let Some(list) = ciphers.filter(|list| !list.is_empty()) else {
        return Ok(provider);
    };
    let tls12 = |suite: &SupportedCipherSuite| suite.tls13().is_none();
    let names: Vec<&str> = list.split([':', ',', ' ']).collect();
    let have = provider
        .cipher_suites
        .iter()
        .filter(|s| tls12(s))
        .map(openssl_name)
        .collect::<Vec<_>>()
        .join(", ");
    if !names
        .iter()
        .any(|name| matches!(*name, "DEFAULT" | "ALL" | "HIGH"))
    {
        provider
            .cipher_suites
            .retain(|suite| !tls12(suite) || names.contains(&openssl_name(suite).as_str()));
        if !provider.cipher_suites.iter().any(tls12)
            && !names.iter().any(|name| name.starts_with("TLS_"))
        {
            return Err(TlsError::Ciphers(list.to_owned(), have));
        }
    }
    Ok(provider)
}

/// `TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256` is `ECDHE-RSA-AES128-GCM-SHA256` to OpenSSL.
fn openssl_name(suite: &SupportedCipherSuite) -> String {
    let name = format!("{:?}", suite.suite());
    let name = name
        .trim_start_matches("TLS_")
        .replace("_WITH_", "_")
        .replace("AES_", "AES");
    name.replace("CHACHA20_POLY1305_SHA256", "CHACHA20_POLY1305")
        .replace('_', "-")
}

/// Checks that a peer's chain leads to the configured CA and that it owns the key; names are not compared.
#[derive(Debug)]
struct ChainVerifier {
    roots: Arc<RootCertStore>,
    ca: Vec<CertificateDer<'static>>,
    clients: Arc<dyn ClientCertVerifier>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ChainVerifier {
    fn new(
        ca: &[CertificateDer<'static>],
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for cert in ca {
            roots
                .add(cert.clone())
                .map_err(|error| TlsError::Ca(error.to_string()))?;
        }
        let roots = Arc::new(roots);
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| TlsError::Ca(error.to_string()))?;
        Ok(Self {
            roots,
            ca: ca.to_vec(),
            clients,
            algorithms: provider.signature_verification_algorithms,
        })
    }

    /// A CA certificate that is used as the peer's own, as self-signed set-ups do and OpenSSL allows: the peer proves in the
    /// handshake that it owns the key of a certificate we trust by name.
    fn is_trusted_itself(&self, cert: &CertificateDer<'_>, error: &RustlsError) -> bool {
        // webpki's error for it has no variant of its own in rustls.
        matches!(
            error,
            RustlsError::InvalidCertificate(CertificateError::Other(_))
        ) && self.ca.iter().any(|ca| ca == cert)
    }
}

impl ServerCertVerifier for ChainVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        let verified = ParsedCertificate::try_from(end_entity).and_then(|cert| {
            verify_server_cert_signed_by_trust_anchor(
                &cert,
                &self.roots,
                intermediates,
                now,
                self.algorithms.all,
            )
        });
        match verified {
            Err(error) if !self.is_trusted_itself(end_entity, &error) => Err(error),
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for ChainVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.clients.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, RustlsError> {
        match self
            .clients
            .verify_client_cert(end_entity, intermediates, now)
        {
            Err(error) if !self.is_trusted_itself(end_entity, &error) => Err(error),
            _ => Ok(ClientCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        self.clients.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        self.clients.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.clients.supported_verify_schemes()
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
