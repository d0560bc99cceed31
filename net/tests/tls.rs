//! HTTPS trackers with good and bad certificates, asked by a whole session, with an authority of our own.
//!
//! The environment names the authority, so the session is in a process of its own: this test program again.
#![allow(clippy::unwrap_used, reason = "a test ends where something does not hold")]

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command as Program;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use taipei_engine::{Alert, Command, InfoHash};
use taipei_net::Options;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const ANSWER: &str = "d5:filesdee";

/// A certificate for `name`, its key, and the certificates that go with it.
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "an authority of taipei's tests");
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn identity(name: &str, issuer: Option<&CertifiedIssuer<'static, KeyPair>>, until_year: i32) -> Identity {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(until_year, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = match issuer {
        Some(issuer) => params.signed_by(&key, issuer).unwrap(),
        None => params.self_signed(&key).unwrap(),
    };
    Identity { chain: vec![certificate.der().clone()], key: key.serialize_der() }
}

/// A tracker that answers every request; gives its port.
async fn serve(identity: Identity) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(identity.key));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(identity.chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Fails when the client turns away.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut asked = [0; 1024];
            let _ = stream.read(&mut asked).await;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", ANSWER.len());
            let _ = stream.write_all(format!("{head}{ANSWER}").as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_verified_against_an_authority_of_ones_own() {
    let authority = authority();
    let stranger = self::authority();
    let directory = std::env::temp_dir().join(format!("taipei-tls-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let roots = directory.join("roots.pem");
    fs::write(&roots, authority.pem()).unwrap();
    let cases = [
        ("good", identity("localhost", Some(&authority), 2126)),
        ("wrong name", identity("tracker.example", Some(&authority), 2126)),
        ("expired", identity("localhost", Some(&authority), 2020)),
        ("self-signed", identity("localhost", None, 2126)),
        ("another authority", identity("localhost", Some(&stranger), 2126)),
    ];
    let mut ports = Vec::new();
    let mut names = Vec::new();
    for (name, identity) in cases {
        names.push(name);
        ports.push(serve(identity).await.to_string());
    }
    let outcome = tokio::task::spawn_blocking(move || {
        let outcome = Program::new(std::env::current_exe().unwrap())
            .args(["--exact", "asks_what_the_environment_names", "--ignored", "--nocapture"])
            .env("SSL_CERT_FILE", &roots)
            .env_remove("SSL_CERT_DIR")
            .env("TAIPEI_TLS_PORTS", ports.join(","))
            .output()
            .unwrap();
        let _ = fs::remove_dir_all(roots.parent().unwrap());
        outcome
    });
    let outcome = outcome.await.unwrap();
    let said = String::from_utf8_lossy(&outcome.stdout).into_owned();
    assert!(outcome.status.success(), "{said}\n{}", String::from_utf8_lossy(&outcome.stderr));
    let refused = "TLS: the server's certificate was not accepted";
    for (at, name) in names.iter().enumerate() {
        let wanted = if at == 0 { "knows 0".to_owned() } else { format!("refused: {refused}") };
        assert!(said.contains(&format!("tracker {at} {wanted}\n")), "{name}: {said}");
    }
}

/// Prints what a session says of each tracker.
#[tokio::test]
#[ignore = "the other half of the test above, which runs it with an environment"]
async fn asks_what_the_environment_names() {
    let Ok(ports) = std::env::var("TAIPEI_TLS_PORTS") else { return };
    let urls: Vec<String> =
        ports.split(',').map(|port| format!("https://localhost:{port}/announce")).collect();
    let mut options = Options::default();
    options.bind = Some("127.0.0.1".to_owned());
    options.ports = None;
    let mut session = taipei_net::start(options).await.unwrap();
    for url in &urls {
        let scrape = Command::Scrape { tracker: url.clone(), info_hashes: vec![InfoHash([7; 20])] };
        session.handle.command(scrape).await.unwrap();
    }
    let wait = async {
        for _ in &urls {
            let alert = session.alerts.next().await;
            let Some(Alert::Scraped { tracker, result }) = alert else { panic!("{alert:?}") };
            let at = urls.iter().position(|url| *url == tracker).unwrap();
            match result {
                Ok(swarms) => println!("tracker {at} knows {}", swarms.len()),
                Err(error) => println!("tracker {at} refused: {error}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
    session.owner.abort();
}
