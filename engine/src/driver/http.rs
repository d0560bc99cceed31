//! One HTTP GET over a transport. All policy (redirects, which address, time) is the engine's.
#![allow(clippy::disallowed_macros, reason = "the driver waits; its selects are biased")]

use std::error::Error as _;
use std::io;
use std::pin::pin;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::header::{ACCEPT_ENCODING, CONNECTION, HOST, LOCATION, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

use super::doors::{ReadWrite, Transport};
use super::net_error;
use crate::input::{HttpResponse, NetError};
use crate::output::HttpGet;

/// Asks, and collects the answer up to its cap.
///
/// # Errors
/// What the network said, [`NetError::BadHttp`] when the answer makes no sense, [`NetError::TooLarge`] when there is
/// more of it than asked for.
pub(super) async fn get<T: Transport>(transport: &T, get: &HttpGet) -> Result<HttpResponse, NetError> {
    let connection = transport.connect(get.target).await?;
    if get.tls {
        exchange(transport.secure(connection, &get.host).await?, get).await
    } else {
        exchange(tokio::io::join(connection.reader, connection.writer), get).await
    }
}

async fn exchange(stream: impl ReadWrite, get: &HttpGet) -> Result<HttpResponse, NetError> {
    let request = Request::get(&get.path)
        .header(HOST, &get.authority)
        .header(USER_AGENT, concat!("taipei/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT_ENCODING, "identity")
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
    let mut answer = pin!(async move {
        let response = sender.send_request(request).await.map_err(|error| http_error(&error))?;
        collect(response, get.body_bytes_max).await
    });
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // When it fails the answer fails too, with the better error.
        _ = &mut connection => answer.await,
    }
}

async fn collect(response: Response<Incoming>, body_bytes_max: u32) -> Result<HttpResponse, NetError> {
    let status = response.status().as_u16();
    let location =
        response.headers().get(LOCATION).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let mut incoming = response.into_body();
    let mut body = BytesMut::new();
    while let Some(frame) = incoming.frame().await {
        let Ok(data) = frame.map_err(|error| http_error(&error))?.into_data() else { continue };
        if data.len() > body_bytes_max as usize - body.len() {
            return Err(NetError::TooLarge);
        }
        body.extend_from_slice(&data);
    }
    Ok(HttpResponse { status, location, body: body.freeze() })
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
