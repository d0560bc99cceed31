//! A torrent file from the web: one GET, with the redirects that a browser would follow and the caps that it would not.

use core::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use taipei_engine::address::Scope;
use taipei_engine::driver::{Transport as _, http_get};
use taipei_engine::input::NetError;
use taipei_engine::limits::{REDIRECTS_MAX, TORRENT_FILE_BYTES_MAX};
use taipei_engine::output::HttpGet;
use taipei_engine::wire::gzip::{InflateError, inflate};
use url::{Host, Url};

use crate::{Bind, BindError, BootClock, TcpTransport};

/// Why nothing came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The address or interface to bind to cannot be used.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// It leads nowhere.
    #[error("not an http or https URL")]
    Url,
    /// The network.
    #[error(transparent)]
    Net(#[from] NetError),
    /// It came compressed, and cannot be unpacked.
    #[error(transparent)]
    Inflate(#[from] InflateError),
    /// Not what was asked for.
    #[error("the server answered with HTTP status {0}")]
    Status(u16),
    /// A loop, most likely.
    #[error("redirected more than {REDIRECTS_MAX} times")]
    TooManyRedirects,
    /// From the open network into somebody's local one.
    #[error("redirected from a public to a local address")]
    RedirectToLocal,
}

/// Fetches what is at an http or https URL, at most as much as a torrent file may be. Certificates are checked; nothing
/// goes another way than `bind`, but the system looks up names.
///
/// # Errors
/// Says what is wrong; the URL itself is not in the words, because it may hold a passkey.
pub async fn fetch(url: &str, bind: Option<&str>) -> Result<Bytes, FetchError> {
    let bind = bind.map_or(Ok(Bind::Any), str::parse)?;
    let transport = TcpTransport::new(bind);
    match tokio::time::timeout(TIME_MAX, follow(&transport, url)).await {
        Ok(done) => done,
        Err(_) => Err(NetError::TimedOut.into()),
    }
}

async fn follow(transport: &TcpTransport, url: &str) -> Result<Bytes, FetchError> {
    let mut url = parse(url)?;
    let mut scope = None;
    for _ in 0..=REDIRECTS_MAX {
        let (response, target) = get(transport, &url, scope).await?;
        match (response.status, response.location) {
            (200, _) if response.gzip => {
                let inflated = inflate(&response.body, TORRENT_FILE_BYTES_MAX)?;
                return Ok(inflated.into());
            }
            (200, _) => return Ok(response.body),
            (301 | 302 | 303 | 307 | 308, Some(location)) => {
                scope = Some(Scope::of(target.ip()));
                url = url.join(&location).map_err(|_| FetchError::Url)?;
                check(&url)?;
            }
            (status, _) => return Err(FetchError::Status(status)),
        }
    }
    Err(FetchError::TooManyRedirects)
}

/// Asks each address of the host in turn. `from` is the scope that redirected to it.
async fn get(
    transport: &TcpTransport,
    url: &Url,
    from: Option<Scope>,
) -> Result<(taipei_engine::input::HttpResponse, SocketAddr), FetchError> {
    let host = url.host_str().ok_or(FetchError::Url)?;
    let port = url.port_or_known_default().ok_or(FetchError::Url)?;
    let addresses = match url.host() {
        Some(Host::Ipv4(ip)) => vec![IpAddr::V4(ip)],
        Some(Host::Ipv6(ip)) => vec![IpAddr::V6(ip)],
        _ => transport.resolve(host).await?,
    };
    let mut error = FetchError::Net(NetError::NotFound);
    for ip in addresses {
        if from.is_some_and(|from| Scope::of(ip) < from) {
            error = FetchError::RedirectToLocal;
            continue;
        }
        let target = SocketAddr::new(ip, port);
        let get = HttpGet {
            request: taipei_engine::HttpId(0),
            target,
            tls: url.scheme() == "https",
            host: host.trim_matches(['[', ']']).to_owned(),
            authority: url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")),
            path: url
                .query()
                .map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path())),
            body_bytes_max: TORRENT_FILE_BYTES_MAX as u32,
        };
        match http_get(transport, &BootClock::new(), &get).await {
            Ok(response) => return Ok((response, target)),
            Err(net) => error = net.into(),
        }
    }
    Err(error)
}

fn parse(url: &str) -> Result<Url, FetchError> {
    let url = Url::parse(url).map_err(|_| FetchError::Url)?;
    check(&url)?;
    Ok(url)
}

fn check(url: &Url) -> Result<(), FetchError> {
    matches!(url.scheme(), "http" | "https").then_some(()).ok_or(FetchError::Url)
}

/// From the look-up to the last byte.
const TIME_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// What comes of fetching `path` from a server that gives these answers in turn.
    fn check_fetch(path: &str, answers: &[impl AsRef<[u8]>]) -> Result<Bytes, FetchError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = server.local_addr().unwrap();
            let serve = async {
                for answer in answers {
                    let (mut stream, _) = server.accept().await.unwrap();
                    let mut asked = [0; 1024];
                    let _ = stream.read(&mut asked).await.unwrap();
                    let answer = match str::from_utf8(answer.as_ref()) {
                        Ok(text) => text.replace("HERE", &address.to_string()).into_bytes(),
                        Err(_) => answer.as_ref().to_vec(),
                    };
                    stream.write_all(&answer).await.unwrap();
                }
                std::future::pending::<()>().await;
            };
            let url = format!("http://{address}{path}");
            tokio::select! {
                done = fetch(&url, None) => done,
                () = serve => unreachable!("it waits for ever"),
            }
        })
    }

    #[test]
    fn redirects_are_followed_to_the_file() {
        let redirect = "HTTP/1.1 302 Found\r\nLocation: /b?c=d\r\nContent-Length: 0\r\n\r\n";
        let absolute = "HTTP/1.1 301 Moved\r\nLocation: http://HERE/c\r\nContent-Length: 0\r\n\r\n";
        let file = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nde";
        assert_eq!(check_fetch("/a", &[redirect, absolute, file]), Ok(Bytes::from_static(b"de")));
        assert_eq!(check_fetch("/a", &[redirect; 6]), Err(FetchError::TooManyRedirects));
    }

    #[test]
    fn a_compressed_file_is_unpacked() {
        let packed = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03KI\x05\x00\x8b)\x90}\x02\x00\x00\x00";
        let answer = |body: &[u8]| [b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", body].concat();
        assert_eq!(check_fetch("/a", &[answer(packed)]), Ok(Bytes::from_static(b"de")));
        let broken = check_fetch("/a", &[answer(&packed[..20])]);
        assert_eq!(broken, Err(FetchError::Inflate(InflateError::Damaged)));
    }

    #[test]
    fn what_is_no_file_is_refused_in_words() {
        let missing = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(check_fetch("/a", &[missing]), Err(FetchError::Status(404)));
        let elsewhere = "HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(check_fetch("/a", &[elsewhere]), Err(FetchError::Url));
        let huge = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", 40 << 20, "x".repeat(34 << 20));
        assert_eq!(check_fetch("/a", &[&huge]), Err(FetchError::Net(NetError::TooLarge)));
        assert!(parse("ftp://x/").is_err() && parse("x").is_err() && parse("https://x/").is_ok());
    }
}
