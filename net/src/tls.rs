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
        let connector = TlsConnector::from(Arc::clone(self.config.get_or_init(config)));
        match connector.connect(name, stream).await {
            Ok(secured) => Ok(Box::new(secured)),
            Err(error) => Err(tls_error(&error)),
        }
    }
}

fn config() -> Arc<ClientConfig> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        warn!(%error, "cannot read some of the system's root certificates");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
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
