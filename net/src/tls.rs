//! TLS over a stream, with the certificate always verified against the system's roots.

use std::io;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use taipei_engine::driver::{ReadWrite, SecureStream};
use taipei_engine::input::NetError;
use tokio_rustls::TlsConnector;
use tracing::warn;

use crate::platform;

/// The system's roots, read when first needed (`SSL_CERT_FILE` and `SSL_CERT_DIR` name others).
#[derive(Debug, Default)]
pub(crate) struct Tls {
    config: OnceLock<Arc<ClientConfig>>,
}

impl Tls {
    /// Puts TLS over a stream to the host of this name or address.
    pub(crate) async fn secure(
        &self,
        stream: impl ReadWrite + 'static,
        host: &str,
    ) -> Result<SecureStream, NetError> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| NetError::Certificate)?;
        let connector = TlsConnector::from(Arc::clone(self.config.get_or_init(system_config)));
        match connector.connect(name, stream).await {
            Ok(secured) => Ok(Box::new(secured)),
            Err(error) => Err(tls_error(&error)),
        }
    }
}

/// Trusts the system's roots.
fn system_config() -> Arc<ClientConfig> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        warn!(%error, "cannot read some of the system's root certificates");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        warn!(
            "this system has no root certificates, so no server is trusted: install them (often the package \
               ca-certificates), or name a file of them in SSL_CERT_FILE"
        );
    }
    config(roots)
}

fn config(roots: RootCertStore) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring brings the suites of these versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

fn tls_error(error: &io::Error) -> NetError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            NetError::Certificate
        }
        Some(_) => NetError::BadHttp,
        None => platform::net_error(error),
    }
}

#[cfg(test)]
mod tests {
    use rustls::ServerConfig;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// For `tracker.example` and 192.0.2.7, signed by itself, good until 2126. Made for these tests alone.
    const CERTIFICATE: &[u8] = include_bytes!("tls/certificate.der");
    const KEY: &[u8] = include_bytes!("tls/key.der");

    fn trusting_certificate() -> Tls {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(CERTIFICATE)).unwrap();
        Tls { config: OnceLock::from(config(roots)) }
    }

    /// What the server's greeting comes to.
    async fn check(tls: &Tls, host: &str) -> Result<String, NetError> {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from(CERTIFICATE)],
                PrivateKeyDer::from(PrivatePkcs8KeyDer::from(KEY)),
            )
            .unwrap();
        let serve = async {
            // Fails when the client turns away.
            if let Ok(mut stream) = TlsAcceptor::from(Arc::new(server)).accept(theirs).await {
                let _ = stream.write_all(b"hello").await;
                let _ = stream.shutdown().await;
            }
        };
        let ask = async {
            let mut stream = tls.secure(ours, host).await?;
            let mut greeting = String::new();
            stream.read_to_string(&mut greeting).await.map_err(|_| NetError::Other)?;
            Ok(greeting)
        };
        tokio::join!(ask, serve).0
    }

    #[tokio::test]
    async fn a_certificate_holds_for_its_names_alone() {
        let tls = trusting_certificate();
        assert_eq!(check(&tls, "tracker.example").await, Ok("hello".to_owned()));
        assert_eq!(check(&tls, "192.0.2.7").await, Ok("hello".to_owned()));
        assert_eq!(check(&tls, "other.example").await, Err(NetError::Certificate));
        assert_eq!(check(&tls, "192.0.2.8").await, Err(NetError::Certificate));
        assert_eq!(check(&tls, "no name").await, Err(NetError::Certificate));
    }

    #[tokio::test]
    async fn a_certificate_that_nobody_vouches_for_is_refused() {
        assert_eq!(check(&Tls::default(), "tracker.example").await, Err(NetError::Certificate));
    }

    #[tokio::test]
    async fn a_server_that_speaks_no_tls_is_told_apart() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        theirs.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let outcome = trusting_certificate().secure(ours, "tracker.example").await;
        assert!(matches!(outcome, Err(NetError::BadHttp)));
    }
}
