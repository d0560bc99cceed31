//! What the world tells a capture, where there is one. Nothing here changes what happens.

use core::net::SocketAddr;

use bytes::Bytes;
use taipei_engine::output::HttpGet;

use super::World;
use super::http::Reply;
use super::stream::{Mark, Segment, Side};
use crate::capture::{Flag, Key, Packet};

impl World {
    /// The two ends of a stream as they are seen between links, that of `side` first.
    fn seen_ends(&self, stream: u32, side: Side) -> Option<(SocketAddr, SocketAddr)> {
        let this = self.streams.get(stream)?;
        Some(match side {
            Side::Dialler => (this.seen_as, this.remote),
            Side::Acceptor => (this.remote, this.seen_as),
        })
    }

    /// A packet leaves now that is no segment.
    pub(super) fn capture_flag(&mut self, stream: u32, side: Side, flag: Flag) {
        self.capture_packet(stream, side, flag, None, self.now, &[]);
    }

    /// A segment has left its link.
    pub(super) fn capture_segment(&mut self, stream: u32, side: Side, segment: &Segment, at: u64) {
        let flag = if segment.mark == Mark::Last { Flag::Fin } else { Flag::Ack };
        self.capture_packet(stream, side, flag, Some(segment.number), at, &segment.parts);
    }

    /// A side says that it has read more.
    pub(super) fn capture_read(&mut self, stream: u32, side: Side, bytes: u32) {
        if let Some(capture) = &mut self.capture {
            capture.on_read(Key::Stream(stream), side == Side::Acceptor, bytes);
            self.capture_flag(stream, side, Flag::Ack);
        }
    }

    fn capture_packet(
        &mut self,
        stream: u32,
        side: Side,
        flag: Flag,
        number: Option<u32>,
        at: u64,
        parts: &[Bytes],
    ) {
        if self.capture.is_none() {
            return;
        }
        let Some((from, to)) = self.seen_ends(stream, side) else { return };
        if let Some(capture) = &mut self.capture {
            let (key, is_back) = (Key::Stream(stream), side == Side::Acceptor);
            capture.packet(Packet { at, key, is_back, from, to, flag, number, parts });
        }
    }

    /// A datagram has left its link.
    pub(super) fn capture_datagram(&mut self, at: u64, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        if let Some(capture) = &mut self.capture {
            capture.datagram(at, from, to, payload);
        }
    }

    /// A request is at its tracker: the stream that it would have come by.
    pub(super) fn capture_request(&mut self, host: usize, incarnation: u32, from: SocketAddr, get: &HttpGet) {
        let Some(capture) = &mut self.capture else { return };
        // Requests come from one port here; a stream has one of its own.
        let from = SocketAddr::new(from.ip(), http_port(from.port(), get.request.0));
        let text = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", get.path, get.authority);
        let (at, key) = (self.now, Key::Http(host, incarnation, get.request.0));
        let ask = |flag, number, parts| Packet {
            at,
            key,
            is_back: false,
            from,
            to: get.target,
            flag,
            number,
            parts,
        };
        capture.packet(ask(Flag::Syn, None, &[]));
        let back = Packet { is_back: true, from: get.target, to: from, ..ask(Flag::SynAck, None, &[]) };
        capture.packet(back);
        capture.packet(ask(Flag::Ack, None, &[]));
        let length = text.len() as u32;
        capture.packet(ask(Flag::Ack, Some(1), &[Bytes::from(text)]));
        capture.on_read(key, true, length);
    }

    /// An answer leaves its tracker.
    pub(super) fn capture_answer(&mut self, answer: &Reply) {
        let Some(capture) = &mut self.capture else { return };
        let key = Key::Http(answer.host, answer.incarnation, answer.request.0);
        let (from, to) = (answer.tracker_at, answer.asked_from);
        let to = SocketAddr::new(to.ip(), http_port(to.port(), answer.request.0));
        let packet = Packet {
            at: self.now,
            key,
            is_back: true,
            from,
            to,
            flag: Flag::Reset,
            number: None,
            parts: &[],
        };
        let Ok(response) = &answer.result else { return capture.packet(packet) };
        let encoding = if response.gzip { "Content-Encoding: gzip\r\n" } else { "" };
        let location = response.location.as_ref();
        let location = location.map_or_else(String::new, |location| format!("Location: {location}\r\n"));
        let head = format!(
            "HTTP/1.1 {} OK\r\nContent-Type: text/plain\r\n{encoding}{location}Content-Length: {}\r\n\r\n",
            response.status,
            response.body.len()
        );
        let parts = [Bytes::from(head), response.body.clone()];
        capture.packet(Packet { flag: Flag::Fin, number: Some(1), parts: &parts, ..packet });
    }
}

/// Of one request, at a port of its own.
fn http_port(first: u16, request: u64) -> u16 {
    first.wrapping_add((request % 700) as u16)
}
