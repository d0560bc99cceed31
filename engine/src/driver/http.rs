//! One HTTP GET over a transport. All policy (redirects, which address, how long in all) is the engine's; a server that
//! falls silent is noticed here, where its bytes are.

use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, HOST, LOCATION, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::doors::{Clock, ReadWrite, Transport};
use super::net_error;
use crate::input::{HttpResponse, NetError};
use crate::limits::HTTP_RECEIVE_TIMEOUT;
use crate::output::HttpGet;

/// Asks, and collects the answer up to its cap.
///
/// # Errors
/// What the network said, [`NetError::BadHttp`] when the answer makes no sense, [`NetError::TooLarge`] when there is
/// more of it than asked for, [`NetError::TimedOut`] when nothing came for [`HTTP_RECEIVE_TIMEOUT`].
pub async fn get<T: Transport, C: Clock>(
    transport: &T,
    clock: &C,
    get: &HttpGet,
) -> Result<HttpResponse, NetError> {
    let connection = transport.connect(get.target).await?;
    let heard = Arc::new(AtomicU64::new(0));
    if get.tls {
        let secured = unless_silent(clock, &heard, transport.secure(connection, &get.host)).await?;
        let stream = Heard { stream: secured, bytes: Arc::clone(&heard) };
        unless_silent(clock, &heard, exchange(stream, get)).await
    } else {
        let stream = tokio::io::join(connection.reader, connection.writer);
        let stream = Heard { stream, bytes: Arc::clone(&heard) };
        unless_silent(clock, &heard, exchange(stream, get)).await
    }
}

/// Does it, unless for too long nothing is heard.
async fn unless_silent<T>(
    clock: &impl Clock,
    heard: &AtomicU64,
    work: impl Future<Output = Result<T, NetError>>,
) -> Result<T, NetError> {
    let mut work = pin!(work);
    let mut before = heard.load(Ordering::Relaxed);
    loop {
        let mut asleep = pin!(clock.sleep_until(clock.now() + HTTP_RECEIVE_TIMEOUT));
        let outcome = poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            let now = heard.load(Ordering::Relaxed);
            if now != std::mem::replace(&mut before, now) {
                return Poll::Ready(None);
            }
            asleep.as_mut().poll(cx).map(|()| Some(Err(NetError::TimedOut)))
        });
        if let Some(done) = outcome.await {
            return done;
        }
    }
}

/// Counts what is received.
struct Heard<S> {
    stream: S,
    bytes: Arc<AtomicU64>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.bytes.fetch_add((buffer.filled().len() - before) as u64, Ordering::Relaxed);
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

async fn exchange(stream: impl ReadWrite, get: &HttpGet) -> Result<HttpResponse, NetError> {
    let request = Request::get(&get.path)
        .header(HOST, &get.authority)
        .header(USER_AGENT, concat!("taipei/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT_ENCODING, "gzip")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|_| NetError::BadHttp)?;
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .title_case_headers(true)
        .allow_spaces_after_header_name_in_responses(true)
        .ignore_invalid_headers_in_responses(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| http_error(&error))?;
    let mut connection = pin!(connection);
    let mut connected = true;
    let mut answer = pin!(async move {
        let response = sender.send_request(request).await.map_err(|error| http_error(&error))?;
        collect(response, get.body_bytes_max).await
    });
    poll_fn(|cx| {
        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
            return Poll::Ready(answer);
        }
        // When the connection fails, the answer fails too, with the better error.
        if connected && connection.as_mut().poll(cx).is_ready() {
            connected = false;
            return answer.as_mut().poll(cx);
        }
        Poll::Pending
    })
    .await
}

async fn collect(response: Response<Incoming>, body_bytes_max: u32) -> Result<HttpResponse, NetError> {
    let status = response.status().as_u16();
    let location =
        response.headers().get(LOCATION).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let encoding = response.headers().get(CONTENT_ENCODING).map(|value| value.as_bytes());
    let gzip = encoding
        .is_some_and(|name| name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip"));
    let mut incoming = response.into_body();
    let mut body = BytesMut::new();
    while let Some(frame) = incoming.frame().await {
        let Ok(data) = frame.map_err(|error| http_error(&error))?.into_data() else { continue };
        if data.len() > body_bytes_max as usize - body.len() {
            return Err(NetError::TooLarge);
        }
        body.extend_from_slice(&data);
    }
    Ok(HttpResponse { status, location, body: body.freeze(), gzip })
}

fn http_error(error: &hyper::Error) -> NetError {
    if error.is_parse_too_large() {
        return NetError::TooLarge;
    }
    if error.is_parse() {
        return NetError::BadHttp;
    }
    match error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        Some(error) => net_error(error),
        None if error.is_incomplete_message() => NetError::Reset,
        None => NetError::Other,
    }
}

/// Status line and headers of an answer.
const HEADER_BYTES_MAX: usize = 64 << 10;
/// Headers of an answer.
const HEADERS_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::driver::testing::{HandClock, Pipes};
    use crate::ids::HttpId;

    fn request(body_bytes_max: u32) -> HttpGet {
        HttpGet {
            request: HttpId(0),
            target: "192.0.2.1:80".parse().unwrap(),
            tls: false,
            host: "tracker.example".to_owned(),
            authority: "tracker.example:8080".to_owned(),
            path: "/announce?info_hash=%01%FF".to_owned(),
            body_bytes_max,
        }
    }

    /// What a server's bytes come to, when it closes after them; and what it was asked.
    async fn check(answer: &[u8], body_bytes_max: u32) -> (Result<HttpResponse, NetError>, String) {
        let (pipes, mut servers) = Pipes::new();
        let (request, clock) = (request(body_bytes_max), HandClock::new());
        let serve = async {
            let mut server = servers.recv().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                asked.push(server.read_u8().await.unwrap());
            }
            // A client that saw enough closes.
            let _ = server.write_all(answer).await;
            String::from_utf8(asked).unwrap()
        };
        tokio::join!(get(&pipes, &clock, &request), serve)
    }

    fn response(status: u16, body: &'static str) -> HttpResponse {
        HttpResponse { status, location: None, body: Bytes::from_static(body.as_bytes()), gzip: false }
    }

    #[tokio::test]
    async fn asks_for_what_it_was_told() {
        let (answer, asked) = check(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nde", 10).await;
        assert_eq!(answer, Ok(response(200, "de")));
        let mut lines = asked.split("\r\n");
        assert_eq!(lines.next(), Some("GET /announce?info_hash=%01%FF HTTP/1.1"));
        let mut headers: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
        headers.sort_unstable();
        let agent = concat!("User-Agent: taipei/", env!("CARGO_PKG_VERSION"));
        assert_eq!(
            headers,
            ["Accept-Encoding: gzip", "Connection: close", "Host: tracker.example:8080", agent]
        );
    }

    #[tokio::test]
    async fn a_body_may_end_with_the_connection() {
        assert_eq!(check(b"HTTP/1.0 404 Not Found\r\n\r\nno", 10).await.0, Ok(response(404, "no")));
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
        assert_eq!(check(chunked, 10).await.0, Ok(response(200, "ab")));
    }

    #[tokio::test]
    async fn a_packed_body_comes_as_it_is() {
        for (header, gzip) in
            [("Content-Encoding: gzip", true), ("content-encoding:X-GZIP", true), ("X: gzip", false)]
        {
            let answer = format!("HTTP/1.1 200 OK\r\n{header}\r\n\r\nzip");
            let expected = HttpResponse { gzip, ..response(200, "zip") };
            assert_eq!(check(answer.as_bytes(), 10).await.0, Ok(expected), "{header}");
        }
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer() {
        let redirect = b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n";
        let expected = HttpResponse { location: Some("/x".to_owned()), ..response(302, "") };
        assert_eq!(check(redirect, 10).await.0, Ok(expected));
    }

    #[tokio::test]
    async fn more_than_asked_for_is_refused() {
        assert_eq!(check(b"HTTP/1.1 200 OK\r\n\r\n12345", 5).await.0, Ok(response(200, "12345")));
        assert_eq!(check(b"HTTP/1.1 200 OK\r\n\r\n123456", 5).await.0, Err(NetError::TooLarge));
        let mut long = b"HTTP/1.1 200 OK\r\nX: ".to_vec();
        long.resize(100_000, b'x');
        assert_eq!(check(&long, 5).await.0, Err(NetError::TooLarge));
    }

    #[tokio::test]
    async fn lengths_that_overflow_are_errors() {
        for bad in [
            "Content-Length: 18446744073709551616\r\n\r\nab",
            "Content-Length: -1\r\n\r\nab",
            "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\nab\r\n0\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n-1\r\nab\r\n0\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n2\r\nab",
        ] {
            let answer = check(format!("HTTP/1.1 200 OK\r\n{bad}").as_bytes(), 10).await.0;
            assert!(answer.is_err(), "{bad:?} {answer:?}");
        }
        let huge =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n0123456789abcdef";
        assert_eq!(check(huge, 10).await.0, Err(NetError::TooLarge));
    }

    #[tokio::test]
    async fn nonsense_and_half_answers_are_errors() {
        assert_eq!(check(b"220 mail ready\r\n\r\n", 5).await.0, Err(NetError::BadHttp));
        assert_eq!(
            check(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123", 9).await.0,
            Err(NetError::Reset)
        );
        assert_eq!(check(b"", 9).await.0, Err(NetError::Reset));
    }

    #[tokio::test]
    async fn a_server_that_falls_silent_is_left_after_ten_seconds() {
        for (says, tls) in [(&b"HTTP/1.1 200 OK\r\nX: y"[..], false), (b"", false), (b"HTTP/1.1", true)] {
            let (pipes, mut servers) = Pipes::new();
            let (request, clock) = (HttpGet { tls, ..request(10) }, HandClock::new());
            let serve = async {
                let mut server = servers.recv().await.unwrap();
                // Each byte is as good as all of them.
                for byte in says {
                    server.write_all(&[*byte]).await.unwrap();
                    clock.pass(9_999).await;
                }
                let last = clock.now();
                clock.pass(10_000).await;
                (server, last)
            };
            let asked = async {
                let answer = get(&pipes, &clock, &request).await;
                (answer, clock.now())
            };
            let ((answer, ended), (_server, last)) = tokio::join!(asked, serve);
            assert_eq!(answer, Err(NetError::TimedOut));
            assert!(ended > last, "not before: {ended:?}, {last:?}");
        }
    }
}
