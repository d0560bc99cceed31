//! What went over the wires of a run, as a capture file (pcapng) that Wireshark reads.
//!
//! The event world moves segments and datagrams, not packets: IP, TCP and UDP headers are made for them, with addresses as
//! they are between access links. A segment is one packet however large it is, as where a network card does the cutting,
//! and stands at the time at which it has left its link. One that is lost is there once, and again when it is sent again.
//! Requests to trackers, which need no stream here, are given one.

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use etherparse::{PacketBuilder, TcpOptionElement};

use crate::plan::{Plan, WALL_SECONDS};
use crate::units::SECOND;

/// What is written down of a run.
#[derive(Debug, Default)]
pub struct Capture {
    packets: Vec<(u64, Vec<u8>)>,
    bytes: usize,
    is_full: bool,
    streams: BTreeMap<Key, [Way; 2]>,
}

/// A stream between peers, or one that was made for a request: of which host, process and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// By its number.
    Stream(u32),
    /// Of which host, its process and its request.
    Http(usize, u32, u64),
}

/// What a segment says beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flag {
    /// The first packet.
    Syn,
    /// The answer to it.
    SynAck,
    /// Bytes, or that some were read.
    Ack,
    /// Nothing comes after it.
    Fin,
    /// There is no such stream.
    Reset,
}

/// One direction of a stream.
#[derive(Debug, Default)]
struct Way {
    /// Where each segment begins, in the order of first sending.
    begins: Vec<u32>,
    /// Where the next one will, from the first byte on.
    next: u32,
    /// Where the next one will have been when those before it have left, and when they do.
    leaving: VecDeque<(u64, u32)>,
    /// Where the first one begins that has not left.
    left: u32,
    /// Bytes that the sender has read of the other direction.
    read: u32,
}

/// One packet of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'a> {
    /// When it has left its link.
    pub(crate) at: u64,
    /// Of which stream.
    pub(crate) key: Key,
    /// Whether the side that accepted sends it.
    pub(crate) is_back: bool,
    /// From where, as it is seen between links.
    pub(crate) from: SocketAddr,
    /// To where.
    pub(crate) to: SocketAddr,
    /// What it says.
    pub(crate) flag: Flag,
    /// Its place among the segments of its direction, from 1 on; none for what is no segment.
    pub(crate) number: Option<u32>,
    /// Its bytes.
    pub(crate) parts: &'a [Bytes],
}

impl Capture {
    /// A datagram leaves.
    pub(crate) fn datagram(&mut self, at: u64, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        let builder = match (from.ip(), to.ip()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => PacketBuilder::ipv4(a.octets(), b.octets(), HOPS),
            (IpAddr::V6(a), IpAddr::V6(b)) => PacketBuilder::ipv6(a.octets(), b.octets(), HOPS),
            _ => return,
        };
        let mut packet = Vec::with_capacity(payload.len() + HEADERS);
        if builder.udp(from.port(), to.port()).write(&mut packet, payload).is_ok() {
            self.push(at, packet);
        }
    }

    /// A packet of a stream leaves.
    pub(crate) fn packet(&mut self, of: Packet<'_>) {
        let payload = of.parts.concat();
        let ways = self.streams.entry(of.key).or_default();
        let read = ways[usize::from(of.is_back)].read;
        let way = &mut ways[usize::from(of.is_back)];
        let begins = match of.number.and_then(|number| (number as usize).checked_sub(1)) {
            Some(index) if index < way.begins.len() => way.begins[index],
            Some(_) => {
                let begins = way.next;
                way.begins.push(begins);
                way.next = begins.wrapping_add(payload.len() as u32);
                way.leaving.push_back((of.at, way.next));
                begins
            }
            None => {
                // Segments are booked ahead of time, and this one is not.
                while let Some((_, next)) = way.leaving.front().filter(|(at, _)| *at <= of.at) {
                    way.left = *next;
                    way.leaving.pop_front();
                }
                way.left
            }
        };
        // The first packet of either side takes up one number.
        let (sequence, acknowledged) = (begins.wrapping_add(1), read.wrapping_add(1));
        let builder = match (of.from.ip(), of.to.ip()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => PacketBuilder::ipv4(a.octets(), b.octets(), HOPS),
            (IpAddr::V6(a), IpAddr::V6(b)) => PacketBuilder::ipv6(a.octets(), b.octets(), HOPS),
            _ => return,
        };
        let (from, to) = (of.from.port(), of.to.port());
        let scale = [TcpOptionElement::WindowScale(WINDOW_SCALE)];
        let builder = match of.flag {
            Flag::Syn => builder.tcp(from, to, 0, WINDOW).syn().options(&scale).expect("it is short"),
            Flag::SynAck => {
                builder.tcp(from, to, 0, WINDOW).syn().ack(1).options(&scale).expect("it is short")
            }
            Flag::Ack if payload.is_empty() => builder.tcp(from, to, sequence, WINDOW).ack(acknowledged),
            Flag::Ack => builder.tcp(from, to, sequence, WINDOW).ack(acknowledged).psh(),
            Flag::Fin => builder.tcp(from, to, sequence, WINDOW).ack(acknowledged).fin(),
            Flag::Reset => builder.tcp(from, to, sequence, WINDOW).ack(acknowledged).rst(),
        };
        let mut packet = Vec::with_capacity(payload.len() + HEADERS);
        if builder.write(&mut packet, &payload).is_ok() {
            self.push(of.at, packet);
        }
    }

    /// A side has read so much more.
    pub(crate) fn on_read(&mut self, key: Key, is_back: bool, bytes: u32) {
        let way = &mut self.streams.entry(key).or_default()[usize::from(is_back)];
        way.read = way.read.wrapping_add(bytes);
    }

    fn push(&mut self, at: u64, packet: Vec<u8>) {
        self.is_full |= self.bytes + packet.len() > CAPTURE_BYTES_MAX;
        if !self.is_full {
            self.bytes += packet.len();
            self.packets.push((at, packet));
        }
    }

    /// The file, with the names of hosts; and whether it ends before the run does.
    pub fn into_file(mut self, plan: &Plan) -> (Vec<u8>, bool) {
        // Departures are booked ahead of time.
        self.packets.sort_by_key(|(at, _)| *at);
        let mut file = Vec::with_capacity(self.bytes + self.packets.len() * 36 + 4096);
        // Section header: byte order, version 1.0, length unknown.
        let mut section = 0x1a2b_3c4du32.to_le_bytes().to_vec();
        section.extend([1, 0, 0, 0]);
        section.extend(u64::MAX.to_le_bytes());
        block(&mut file, 0x0a0d_0d0a, &section);
        // Interface: raw IP, no limit; option 9: times in nanoseconds.
        let mut interface = LINKTYPE_RAW.to_le_bytes().to_vec();
        interface.extend([0; 6]);
        interface.extend([9, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
        block(&mut file, 1, &interface);
        block(&mut file, 4, &names(plan));
        for (at, packet) in &self.packets {
            let at = WALL_SECONDS as u64 * SECOND + at;
            let mut body = vec![0; 4];
            body.extend(((at >> 32) as u32).to_le_bytes());
            body.extend((at as u32).to_le_bytes());
            body.extend((packet.len() as u32).to_le_bytes());
            body.extend((packet.len() as u32).to_le_bytes());
            body.extend(packet);
            block(&mut file, 6, &body);
        }
        (file, self.is_full)
    }
}

/// What addresses are called.
fn names(plan: &Plan) -> Vec<u8> {
    let hosts = plan.hosts.iter().flat_map(|host| {
        [Some(host.address), host.second].into_iter().flatten().map(|address| (address, host.name.as_str()))
    });
    let trackers = plan.trackers.iter().flat_map(|tracker| {
        let sockets = [Some(tracker.address), tracker.second].into_iter().flatten();
        sockets.map(|socket| (socket.ip(), tracker.name.as_str()))
    });
    let mut records = Vec::new();
    for (address, name) in hosts.chain(trackers) {
        let (kind, mut value) = match address {
            IpAddr::V4(ip) => (1u16, ip.octets().to_vec()),
            IpAddr::V6(ip) => (2, ip.octets().to_vec()),
        };
        value.extend(name.bytes().filter(|byte| *byte != 0));
        value.push(0);
        records.extend(kind.to_le_bytes());
        records.extend((value.len() as u16).to_le_bytes());
        value.resize(value.len().next_multiple_of(4), 0);
        records.extend(value);
    }
    records.extend([0; 4]);
    records
}

/// A block of the file: type, length, body filled up to whole words, length.
fn block(file: &mut Vec<u8>, kind: u32, body: &[u8]) {
    let length = (body.len().next_multiple_of(4) + 12) as u32;
    file.extend(kind.to_le_bytes());
    file.extend(length.to_le_bytes());
    file.extend(body);
    file.resize(file.len() + body.len().next_multiple_of(4) - body.len(), 0);
    file.extend(length.to_le_bytes());
}

/// Packets begin with their IP header.
const LINKTYPE_RAW: u16 = 101;
const HOPS: u8 = 64;
/// 4 MiB with its scale, as no engine waits for a window here.
const WINDOW: u16 = 1 << 15;
const WINDOW_SCALE: u8 = 7;
/// The most that IPv6 and TCP take.
const HEADERS: usize = 80;
/// Of packets; a capture that would be larger ends there.
const CAPTURE_BYTES_MAX: usize = 1 << 30;
