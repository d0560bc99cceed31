//! What a scripted tracker says, as an answer of hyper's server.

use core::pin::Pin;
use core::task::{Context, Poll};
use std::io;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CONTENT_ENCODING, LOCATION};
use hyper::http::HeaderValue;
use hyper::{Response, StatusCode};

use crate::tracker::Reply;

/// A body that may end in the middle, and the connection with it.
pub(super) struct ReplyBody {
    left: Bytes,
    length: u64,
    cut: bool,
}

/// The answer.
pub(super) fn response(reply: Reply) -> Response<ReplyBody> {
    let length = reply.body.len() as u64;
    let half = reply.body.slice(..reply.body.len() / 2);
    let left = if reply.cut { half } else { reply.body };
    let mut response = Response::new(ReplyBody { left, length, cut: reply.cut });
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(location) = reply.location.and_then(|location| HeaderValue::from_str(&location).ok()) {
        response.headers_mut().insert(LOCATION, location);
    }
    if reply.gzip {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if !self.left.is_empty() {
            let left = std::mem::take(&mut self.left);
            return Poll::Ready(Some(Ok(Frame::data(left))));
        }
        Poll::Ready(self.cut.then(|| Err(io::ErrorKind::ConnectionAborted.into())))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty() && !self.cut
    }
}
