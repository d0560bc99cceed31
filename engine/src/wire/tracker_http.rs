//! Announce and scrape over HTTP (BEP 3, BEP 7, BEP 12, BEP 23, BEP 24, BEP 31, BEP 48): requests and answers, both
//! ways, for the client and for the tracker.
//!
//! Numbers come out as they were sent; whoever asked clamps them. Texts and lists are capped here.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;

use super::compact;
use crate::bencode::{self, Value};
use crate::ids::{InfoHash, PeerId};
use crate::limits::{SCRAPE_HASHES_MAX, TRACKER_ID_BYTES_MAX, TRACKER_PEERS_MAX, TRACKER_TEXT_BYTES_MAX};

/// What an announce says happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AnnounceEvent {
    /// The first announce.
    Started,
    /// The download became whole.
    Completed,
    /// The last announce.
    Stopped,
}

impl AnnounceEvent {
    /// Its name in a query.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Completed => "completed",
            Self::Stopped => "stopped",
        }
    }
}

/// An announce (BEP 3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnounceRequest {
    /// Which torrent.
    pub info_hash: InfoHash,
    /// Who.
    pub peer_id: PeerId,
    /// Where the sender accepts peers.
    pub port: u16,
    /// Payload sent since `started`, bytes.
    pub uploaded: u64,
    /// Payload received since `started`, bytes.
    pub downloaded: u64,
    /// Bytes still missing. Unknown is `u64::MAX`.
    pub left: u64,
    /// None: one of the regular announces.
    pub event: Option<AnnounceEvent>,
    /// Peers wanted; none leaves it to the tracker.
    pub numwant: Option<u32>,
    /// The same for all announces of a session, so that a change of address is no other peer.
    pub key: Option<u32>,
    /// Whether compact lists are wanted (BEP 23); none leaves it to the tracker.
    pub compact: Option<bool>,
    /// Whether peer ids may be left out of lists that are not compact.
    pub no_peer_id: bool,
    /// What the tracker gave in an earlier answer.
    pub tracker_id: Option<Bytes>,
    /// The sender's address, where it knows better than the tracker.
    pub ip: Option<IpAddr>,
}

/// Why a query is no announce or scrape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// An argument is not there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// An argument is no such thing.
    #[error("{0} is not valid")]
    Invalid(&'static str),
    /// More info-hashes than are answered at once.
    #[error("too many info-hashes")]
    TooMany,
}

impl AnnounceRequest {
    /// Path and query of the request. What `query` the URL already has (a passkey) comes first, untouched.
    pub fn path_and_query(&self, path: &str, query: Option<&str>) -> String {
        let mut out = String::with_capacity(path.len() + query.map_or(0, str::len) + 320);
        out.push_str(path);
        out.push('?');
        if let Some(query) = query.filter(|query| !query.is_empty()) {
            out.push_str(query);
            out.push('&');
        }
        out.push_str("info_hash=");
        percent_encode(&self.info_hash.0, &mut out);
        out.push_str("&peer_id=");
        percent_encode(&self.peer_id.0, &mut out);
        let Self { port, uploaded, downloaded, left, .. } = self;
        // Writing to a string cannot fail.
        let _ = write!(out, "&port={port}&uploaded={uploaded}&downloaded={downloaded}&left={left}");
        if let Some(compact) = self.compact {
            let _ = write!(out, "&compact={}", u8::from(compact));
        }
        if self.no_peer_id {
            out.push_str("&no_peer_id=1");
        }
        if let Some(numwant) = self.numwant {
            let _ = write!(out, "&numwant={numwant}");
        }
        if let Some(key) = self.key {
            let _ = write!(out, "&key={key:08X}");
        }
        if let Some(event) = self.event {
            let _ = write!(out, "&event={}", event.as_str());
        }
        if let Some(id) = &self.tracker_id {
            out.push_str("&trackerid=");
            percent_encode(id, &mut out);
        }
        if let Some(ip) = self.ip {
            out.push_str("&ip=");
            percent_encode(ip.to_string().as_bytes(), &mut out);
        }
        out
    }

    /// Reads the query of a request. Unknown arguments are ignored, of repeated ones the first counts.
    ///
    /// # Errors
    /// When the info-hash, peer id or port is missing or wrong. Other arguments are as if absent when they are wrong.
    pub fn parse(query: &str) -> Result<Self, RequestError> {
        let (mut info_hash, mut peer_id, mut port) = (None, None, None);
        let (mut uploaded, mut downloaded, mut left) = (None, None, None);
        let (mut event, mut numwant, mut key, mut compact) = (None, None, None, None);
        let (mut no_peer_id, mut tracker_id, mut ip) = (None, None, None);
        for (name, value) in arguments(query) {
            let slot = match name {
                "info_hash" => &mut info_hash,
                "peer_id" => &mut peer_id,
                "port" => &mut port,
                "uploaded" => &mut uploaded,
                "downloaded" => &mut downloaded,
                "left" => &mut left,
                "event" => &mut event,
                "numwant" => &mut numwant,
                "key" => &mut key,
                "compact" => &mut compact,
                "no_peer_id" => &mut no_peer_id,
                "trackerid" => &mut tracker_id,
                "ip" => &mut ip,
                _ => continue,
            };
            slot.get_or_insert(value);
        }
        let event = match event {
            Some("started") => Some(AnnounceEvent::Started),
            Some("completed") => Some(AnnounceEvent::Completed),
            Some("stopped") => Some(AnnounceEvent::Stopped),
            _ => None,
        };
        let number = |value: Option<&str>| value.and_then(|value| value.parse::<u64>().ok());
        Ok(Self {
            info_hash: InfoHash(twenty(info_hash, "info_hash")?),
            peer_id: PeerId(twenty(peer_id, "peer_id")?),
            port: port
                .ok_or(RequestError::Missing("port"))?
                .parse()
                .map_err(|_| RequestError::Invalid("port"))?,
            uploaded: number(uploaded).unwrap_or(0),
            downloaded: number(downloaded).unwrap_or(0),
            left: number(left).unwrap_or(u64::MAX),
            event,
            // A negative or absurd wish is no wish.
            numwant: numwant.and_then(|value| value.parse().ok()),
            key: key.and_then(|value| u32::from_str_radix(value, 16).ok()),
            compact: compact.and_then(|value| match value {
                "0" => Some(false),
                "1" => Some(true),
                _ => None,
            }),
            no_peer_id: no_peer_id == Some("1"),
            tracker_id: tracker_id
                .and_then(percent_decode)
                .filter(|id| id.len() <= TRACKER_ID_BYTES_MAX)
                .map(Bytes::from),
            ip: ip.and_then(percent_decode).and_then(|text| core::str::from_utf8(&text).ok()?.parse().ok()),
        })
    }
}

/// Whether a query has arguments of an announce, so that a request to it would say things we did not.
pub fn imitates_announce(query: &str) -> bool {
    let ours =
        ["info_hash", "peer_id", "port", "uploaded", "downloaded", "left", "event", "numwant", "key", "ip"];
    arguments(query).any(|(name, _)| {
        percent_decode(name)
            .is_none_or(|name| ours.iter().any(|our| name.eq_ignore_ascii_case(our.as_bytes())))
    })
}

/// Whether a query names a torrent.
pub fn names_torrent(query: &str) -> bool {
    arguments(query).any(|(name, _)| name == "info_hash")
}

/// Reads the query of a scrape (BEP 48): the torrents asked for, none for all.
///
/// # Errors
/// When an info-hash is not 20 bytes, or there are too many.
pub fn parse_scrape_query(query: &str) -> Result<Vec<InfoHash>, RequestError> {
    let mut hashes = Vec::new();
    for (_, value) in arguments(query).filter(|(name, _)| *name == "info_hash") {
        if hashes.len() == SCRAPE_HASHES_MAX {
            return Err(RequestError::TooMany);
        }
        hashes.push(InfoHash(twenty(Some(value), "info_hash")?));
    }
    Ok(hashes)
}

/// The answer to an announce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnnounceAnswer {
    /// It was taken.
    Taken(Box<Announced>),
    /// It was refused.
    Refused {
        /// Why, in the tracker's words, cut to a cap. Not escaped.
        reason: String,
        /// When to come again (BEP 31).
        retry: Option<RetryIn>,
    },
}

/// When to come again after a refusal (BEP 31).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryIn {
    /// After so many minutes.
    Minutes(i64),
    /// Not at all.
    Never,
}

/// What a tracker says to an announce that it took. Numbers as they came; texts are cut to a cap, not escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// Seconds to the next announce.
    pub interval: Option<i64>,
    /// Seconds before which no announce is welcome.
    pub min_interval: Option<i64>,
    /// To be sent with later announces.
    pub tracker_id: Option<Bytes>,
    /// A word to the user.
    pub warning: Option<String>,
    /// Peers that have everything.
    pub complete: Option<i64>,
    /// Peers that do not.
    pub incomplete: Option<i64>,
    /// How often the torrent was downloaded.
    pub downloaded: Option<i64>,
    /// Our address as the tracker sees it (BEP 24).
    pub external_ip: Option<IpAddr>,
    /// Peers, of both families. Addresses as they came.
    pub peers: Vec<TrackerPeer>,
    /// Whether some of the peers could not be read.
    pub peers_malformed: bool,
}

/// A peer in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackerPeer {
    /// Where.
    pub address: SocketAddr,
    /// Who; compact lists do not say.
    pub peer_id: Option<PeerId>,
}

/// Why an answer cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// It is no bencode, or too deep or too large.
    #[error("the answer is not valid bencode")]
    NotBencode,
    /// It is bencode, but no dictionary.
    #[error("the answer is not a dictionary")]
    NotADict,
    /// It has neither an interval nor peers nor a failure reason.
    #[error("the answer has no peers and no interval")]
    Empty,
    /// It says nothing of any torrent.
    #[error("the answer lists no torrents")]
    NoFiles,
}

impl AnnounceAnswer {
    /// Reads the body of an answer. A field of a wrong type is as if absent; of the peers, those that can be read
    /// are taken.
    ///
    /// # Errors
    /// When it is no answer to an announce.
    pub fn parse(body: &[u8]) -> Result<Self, AnswerError> {
        let root = bencode::parse(body).map_err(|_| AnswerError::NotBencode)?;
        if root.as_dict().is_none() {
            return Err(AnswerError::NotADict);
        }
        let number = |key: &[u8]| root.get(key).and_then(Value::as_int);
        let bytes = |key: &[u8]| root.get(key).and_then(Value::as_bytes);
        if let Some(reason) = bytes(b"failure reason") {
            // A number or `never`; the examples of BEP 31 have the number as a string.
            let retry = match bytes(b"retry in").map(core::str::from_utf8) {
                Some(Ok("never")) => Some(RetryIn::Never),
                Some(Ok(minutes)) => minutes.parse().ok().map(RetryIn::Minutes),
                _ => number(b"retry in").map(RetryIn::Minutes),
            };
            return Ok(Self::Refused { reason: text(reason), retry });
        }
        if root.get(b"interval").is_none() && root.get(b"peers").is_none() && root.get(b"peers6").is_none() {
            return Err(AnswerError::Empty);
        }
        let mut announced = Announced {
            interval: number(b"interval"),
            min_interval: number(b"min interval"),
            tracker_id: bytes(b"tracker id")
                .filter(|id| id.len() <= TRACKER_ID_BYTES_MAX)
                .map(Bytes::copy_from_slice),
            warning: bytes(b"warning message").map(text),
            complete: number(b"complete"),
            incomplete: number(b"incomplete"),
            downloaded: number(b"downloaded"),
            external_ip: bytes(b"external ip").and_then(address_of),
            peers: Vec::new(),
            peers_malformed: false,
        };
        match root.get(b"peers") {
            None => (),
            Some(list) => match (list.as_bytes(), list.as_list()) {
                (Some(list), _) => announced.take_compact(compact::parse_v4(list, TRACKER_PEERS_MAX)),
                (_, Some(list)) => announced.take_dictionaries(list),
                _ => announced.peers_malformed = true,
            },
        }
        match root.get(b"peers6").map(|list| list.as_bytes()) {
            None => (),
            Some(Some(list)) => announced.take_compact(compact::parse_v6(list, TRACKER_PEERS_MAX)),
            Some(None) => announced.peers_malformed = true,
        }
        announced.peers.truncate(TRACKER_PEERS_MAX);
        Ok(Self::Taken(Box::new(announced)))
    }

    /// The body of an answer. Peers without an id are left without one in every form.
    pub fn encode(&self, form: PeersForm) -> Vec<u8> {
        match self {
            Self::Taken(announced) => announced.encode(form),
            Self::Refused { reason, retry } => {
                let retry = retry.map(|retry| match retry {
                    RetryIn::Minutes(minutes) => Value::Int(minutes),
                    RetryIn::Never => Value::text("never"),
                });
                encode([("failure reason", Some(Value::text(reason))), ("retry in", retry)])
            }
        }
    }
}

/// How peers are listed in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeersForm {
    /// Two strings, one a family (BEP 23, BEP 7).
    Compact,
    /// One list of dictionaries (BEP 3).
    Dictionaries,
}

impl Announced {
    fn take_compact(&mut self, list: compact::CompactPeers) {
        self.peers_malformed |= list.spare_bytes > 0;
        self.peers.extend(list.peers.into_iter().map(|address| TrackerPeer { address, peer_id: None }));
    }

    fn take_dictionaries(&mut self, list: &[Value<'_>]) {
        for entry in list.iter().take(TRACKER_PEERS_MAX) {
            // A host name is allowed by BEP 3 and used by nobody; a tracker shall not make us look names up.
            let ip = entry.get(b"ip").and_then(Value::as_bytes).and_then(|ip| core::str::from_utf8(ip).ok());
            let ip = ip.and_then(|ip| ip.parse::<IpAddr>().ok());
            let port = entry.get(b"port").and_then(Value::as_int).and_then(|port| u16::try_from(port).ok());
            let (Some(ip), Some(port)) = (ip, port) else {
                self.peers_malformed = true;
                continue;
            };
            let peer_id = entry.get(b"peer id").and_then(Value::as_bytes).and_then(|id| id.try_into().ok());
            self.peers.push(TrackerPeer { address: SocketAddr::new(ip, port), peer_id: peer_id.map(PeerId) });
        }
    }

    fn encode(&self, form: PeersForm) -> Vec<u8> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        let (peers, peers6) = match form {
            PeersForm::Compact => {
                self.peers.iter().for_each(|peer| compact::encode(peer.address, &mut v4, &mut v6));
                (Value::bytes(v4), (!v6.is_empty()).then(|| Value::bytes(v6)))
            }
            PeersForm::Dictionaries => (Value::List(self.peers.iter().map(peer_value).collect()), None),
        };
        let number = |value: Option<i64>| value.map(Value::Int);
        let external_ip = self.external_ip.map(|ip| match ip {
            IpAddr::V4(ip) => Value::bytes(ip.octets().to_vec()),
            IpAddr::V6(ip) => Value::bytes(ip.octets().to_vec()),
        });
        encode([
            ("complete", number(self.complete)),
            ("downloaded", number(self.downloaded)),
            ("external ip", external_ip),
            ("incomplete", number(self.incomplete)),
            ("interval", number(self.interval)),
            ("min interval", number(self.min_interval)),
            ("peers", Some(peers)),
            ("peers6", peers6),
            ("tracker id", self.tracker_id.as_deref().map(Value::bytes)),
            ("warning message", self.warning.as_deref().map(Value::text)),
        ])
    }
}

/// What a tracker knows of one torrent (BEP 48).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrapeEntry {
    /// Peers that have everything.
    pub complete: u64,
    /// How often it was downloaded.
    pub downloaded: u64,
    /// Peers that do not have everything.
    pub incomplete: u64,
}

/// The path and query of a scrape. What `query` the URL already has (a passkey) comes first, untouched.
pub fn scrape_path_and_query(path: &str, query: Option<&str>, info_hashes: &[InfoHash]) -> String {
    let mut out = path.to_owned();
    let mut separator = '?';
    if let Some(query) = query.filter(|query| !query.is_empty()) {
        out.push('?');
        out.push_str(query);
        separator = '&';
    }
    for hash in info_hashes {
        out.push(separator);
        out.push_str("info_hash=");
        percent_encode(&hash.0, &mut out);
        separator = '&';
    }
    out
}

/// The answer to a scrape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScrapeAnswer {
    /// What the tracker knows, of no more torrents than were to be taken.
    Taken(BTreeMap<InfoHash, ScrapeEntry>),
    /// It was refused, in the tracker's words, cut to a cap. Not escaped.
    Refused(String),
}

impl ScrapeAnswer {
    /// Reads the body of an answer; of its torrents those that `wanted` names. Counts of a wrong type or below zero are
    /// zero.
    ///
    /// # Errors
    /// When it is no answer to a scrape.
    pub fn parse(body: &[u8], wanted: &[InfoHash]) -> Result<Self, AnswerError> {
        let root = bencode::parse(body).map_err(|_| AnswerError::NotBencode)?;
        if root.as_dict().is_none() {
            return Err(AnswerError::NotADict);
        }
        if let Some(reason) = root.get(b"failure reason").and_then(Value::as_bytes) {
            return Ok(Self::Refused(text(reason)));
        }
        let files = root.get(b"files").filter(|files| files.as_dict().is_some());
        let files = files.ok_or(AnswerError::NoFiles)?;
        let entry = |hash: &InfoHash| {
            let counts = files.get(&hash.0)?;
            let count = |key: &[u8]| {
                counts
                    .get(key)
                    .and_then(Value::as_int)
                    .and_then(|count| u64::try_from(count).ok())
                    .unwrap_or(0)
            };
            let (complete, downloaded, incomplete) =
                (count(b"complete"), count(b"downloaded"), count(b"incomplete"));
            Some((*hash, ScrapeEntry { complete, downloaded, incomplete }))
        };
        Ok(Self::Taken(wanted.iter().filter_map(entry).collect()))
    }
}

/// The body of the answer to a scrape.
pub fn encode_scrape(files: &BTreeMap<InfoHash, ScrapeEntry>) -> Vec<u8> {
    let number = |count: u64| Value::Int(i64::try_from(count).unwrap_or(i64::MAX));
    let entry = |entry: &ScrapeEntry| {
        Value::dict([
            (&b"complete"[..], number(entry.complete)),
            (b"downloaded", number(entry.downloaded)),
            (b"incomplete", number(entry.incomplete)),
        ])
    };
    let files = Value::dict(files.iter().map(|(hash, counts)| (&hash.0[..], entry(counts))));
    encode([("files", Some(files))])
}

fn peer_value(peer: &TrackerPeer) -> Value<'static> {
    let ip = Value::bytes(peer.address.ip().to_string().into_bytes());
    let id = peer.peer_id.map(|id| (&b"peer id"[..], Value::bytes(id.0.to_vec())));
    let port = Value::Int(i64::from(peer.address.port()));
    Value::dict([(&b"ip"[..], ip), (b"port", port)].into_iter().chain(id))
}

fn encode<'a>(entries: impl IntoIterator<Item = (&'a str, Option<Value<'a>>)>) -> Vec<u8> {
    let present = entries.into_iter().filter_map(|(key, value)| Some((key.as_bytes(), value?)));
    bencode::encode(&Value::dict(present))
}

/// Outside text, cut at a character to the cap. What is no UTF-8 is replaced.
fn text(bytes: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(bytes.get(..TRACKER_TEXT_BYTES_MAX).unwrap_or(bytes)).into_owned();
    let fits = (0..=TRACKER_TEXT_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(fits.unwrap_or(0));
    text
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::V4(Ipv4Addr::from(octets)));
    }
    <[u8; 16]>::try_from(bytes).ok().map(|octets| IpAddr::V6(Ipv6Addr::from(octets)))
}

fn twenty(value: Option<&str>, name: &'static str) -> Result<[u8; 20], RequestError> {
    let value = value.ok_or(RequestError::Missing(name))?;
    percent_decode(value).and_then(|bytes| bytes.try_into().ok()).ok_or(RequestError::Invalid(name))
}

fn arguments(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn percent_encode(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(*byte))
            }
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
}

/// None when a percent sign is not followed by two hexadecimal digits. A plus sign is itself (RFC 3986).
fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        out.push(match byte {
            b'%' => {
                let (high, low) =
                    (char::from(rest.next()?).to_digit(16)?, char::from(rest.next()?).to_digit(16)?);
                (high << 4 | low) as u8
            }
            _ => byte,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peers() -> impl Strategy<Value = Vec<TrackerPeer>> {
        let peer = (any::<IpAddr>(), any::<u16>(), any::<Option<[u8; 20]>>());
        proptest::collection::vec(peer, 0..20).prop_map(|list| {
            let peer = |(ip, port, id): (IpAddr, u16, Option<[u8; 20]>)| TrackerPeer {
                address: SocketAddr::new(ip, port),
                peer_id: id.map(PeerId),
            };
            list.into_iter().map(peer).collect()
        })
    }

    prop_compose! {
        fn announced()(
            numbers in any::<[Option<i64>; 5]>(),
            peers in peers(),
            id in any::<Option<[u8; 9]>>(),
            warning in proptest::option::of("[ -~é]{0,40}"),
            external_ip in any::<Option<IpAddr>>(),
        ) -> Announced {
            let [interval, min_interval, complete, incomplete, downloaded] = numbers;
            Announced {
                interval, min_interval, complete, incomplete, downloaded, peers, warning, external_ip,
                tracker_id: id.map(|id| Bytes::copy_from_slice(&id)),
                peers_malformed: false,
            }
        }
    }

    prop_compose! {
        fn request()(
            ids in any::<([u8; 20], [u8; 20])>(),
            port in any::<u16>(),
            figures in any::<[u64; 3]>(),
            event in 0_usize..4,
            options in any::<(Option<u32>, Option<u32>, Option<bool>, bool, Option<IpAddr>)>(),
            tracker_id in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..30)),
        ) -> AnnounceRequest {
            let [uploaded, downloaded, left] = figures;
            let (numwant, key, compact, no_peer_id, ip) = options;
            let events = [AnnounceEvent::Started, AnnounceEvent::Completed, AnnounceEvent::Stopped];
            AnnounceRequest {
                info_hash: InfoHash(ids.0), peer_id: PeerId(ids.1), port, uploaded, downloaded, left,
                event: events.get(event).copied(), numwant, key, compact, no_peer_id, ip,
                tracker_id: tracker_id.map(Bytes::from),
            }
        }
    }

    fn taken(body: &[u8]) -> Announced {
        match AnnounceAnswer::parse(body) {
            Ok(AnnounceAnswer::Taken(announced)) => *announced,
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn requests_come_back_as_they_went(request in request()) {
            let text = request.path_and_query("/announce", Some("passkey=a%20b"));
            let query = text.strip_prefix("/announce?").unwrap();
            prop_assert!(query.starts_with("passkey=a%20b&info_hash="));
            prop_assert!(query.is_ascii());
            prop_assert_eq!(AnnounceRequest::parse(query).unwrap(), request);
        }

        #[test]
        fn answers_with_dictionaries_come_back_as_they_went(announced in announced()) {
            let answer = AnnounceAnswer::Taken(Box::new(announced));
            prop_assert_eq!(AnnounceAnswer::parse(&answer.encode(PeersForm::Dictionaries)).unwrap(), answer);
        }

        #[test]
        fn compact_answers_come_back_by_family(announced in announced()) {
            let mut want = announced.clone();
            want.peers.iter_mut().for_each(|peer| peer.peer_id = None);
            want.peers.sort_by_key(|peer| peer.address.is_ipv6());
            let body = AnnounceAnswer::Taken(Box::new(announced)).encode(PeersForm::Compact);
            prop_assert_eq!(taken(&body), want);
        }

        #[test]
        fn any_bytes_are_judged(body in proptest::collection::vec(any::<u8>(), 0..200), query in "\\PC{0,60}") {
            let _ = AnnounceAnswer::parse(&body);
            let _ = ScrapeAnswer::parse(&body, &[InfoHash([0; 20])]);
            let _ = AnnounceRequest::parse(&query);
            let _ = (parse_scrape_query(&query), imitates_announce(&query));
        }
    }

    #[test]
    fn a_passkey_stays_and_binary_is_escaped() {
        let request = AnnounceRequest {
            info_hash: InfoHash(
                *b"\x12\x34\x56\x78\x9a\xbc\xde\xf1\x23\x45\x67\x89\xab\xcd\xef\x12\x34\x56\x78\x9a",
            ),
            peer_id: PeerId(*b"-TP0100-abcdefgh~_.+"),
            port: 6881,
            uploaded: 0,
            downloaded: 1,
            left: 2,
            event: Some(AnnounceEvent::Started),
            numwant: Some(50),
            key: Some(0xbeef),
            compact: Some(true),
            no_peer_id: true,
            tracker_id: None,
            ip: None,
        };
        assert_eq!(
            request.path_and_query("/a/announce", Some("pk=1")),
            "/a/announce?pk=1&info_hash=%124Vx%9A%BC%DE%F1%23Eg%89%AB%CD%EF%124Vx%9A&peer_id=-TP0100-abcdefgh~_.%2B\
             &port=6881&uploaded=0&downloaded=1&left=2&compact=1&no_peer_id=1&numwant=50&key=0000BEEF&event=started"
        );
    }

    #[test]
    fn refusals_come_back_as_they_went() {
        for retry in [None, Some(RetryIn::Minutes(7)), Some(RetryIn::Never)] {
            let answer = AnnounceAnswer::Refused { reason: "go away".into(), retry };
            assert_eq!(AnnounceAnswer::parse(&answer.encode(PeersForm::Compact)), Ok(answer));
        }
    }

    #[test]
    fn wrong_types_are_as_if_absent() {
        let announced = taken(b"d8:intervali-1e12:min interval3:abc5:peersi5e6:peers6le10:tracker idlee");
        assert_eq!((announced.interval, announced.min_interval), (Some(-1), None));
        assert!(announced.peers_malformed && announced.peers.is_empty() && announced.tracker_id.is_none());
    }

    #[test]
    fn bad_peers_are_left_out_one_by_one() {
        let announced = taken(
            b"d5:peersld2:ip8:10.0.0.14:porti80eed2:ip7:foo.bar4:porti80eed2:ip8:10.0.0.24:porti65536eed2:ip3:::14:porti81eei7eee",
        );
        let peers: Vec<String> = announced.peers.iter().map(|peer| peer.address.to_string()).collect();
        assert_eq!(peers, ["10.0.0.1:80", "[::1]:81"]);
        assert!(announced.peers_malformed);
    }

    #[test]
    fn unordered_answers_are_read() {
        let announced = taken(b"d5:peers6:\x0a\x00\x00\x01\x00\x508:intervali60ee");
        assert_eq!((announced.interval, announced.peers.len()), (Some(60), 1));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        assert_eq!(AnnounceAnswer::parse(b"<html>"), Err(AnswerError::NotBencode));
        assert_eq!(AnnounceAnswer::parse(b"le"), Err(AnswerError::NotADict));
        assert_eq!(AnnounceAnswer::parse(b"de"), Err(AnswerError::Empty));
        assert_eq!(AnnounceAnswer::parse(&b"d1:a".repeat(100_000)), Err(AnswerError::NotBencode));
        assert_eq!(AnnounceAnswer::parse(&b"l".repeat(1 << 20)), Err(AnswerError::NotBencode));
    }

    #[test]
    fn long_reasons_are_cut_at_a_character() {
        let reason = "é".repeat(600);
        let body =
            [format!("d14:failure reason{}:", reason.len()).as_bytes(), reason.as_bytes(), b"e"].concat();
        let Ok(AnnounceAnswer::Refused { reason, .. }) = AnnounceAnswer::parse(&body) else { panic!() };
        assert!(reason.len() <= TRACKER_TEXT_BYTES_MAX && reason.len() > 500);
    }

    #[test]
    fn urls_that_imitate_an_announce_are_known() {
        assert!(imitates_announce("passkey=1&info_hash=x") && imitates_announce("%69nfo_hash=x"));
        assert!(imitates_announce("iNfo_HaSh=x"), "who serves other things may mind no case");
        assert!(!imitates_announce("passkey=info_hash") && names_torrent("a=1&info_hash=2"));
    }

    #[test]
    fn retry_in_is_a_number_a_string_or_never() {
        for (text, retry) in [
            ("i5e", Some(RetryIn::Minutes(5))),
            ("1:5", Some(RetryIn::Minutes(5))),
            ("5:never", Some(RetryIn::Never)),
            ("4:soon", None),
            ("le", None),
        ] {
            let body = format!("d14:failure reason2:no8:retry in{text}e");
            let want = AnnounceAnswer::Refused { reason: "no".into(), retry };
            assert_eq!(AnnounceAnswer::parse(body.as_bytes()), Ok(want), "{text}");
        }
    }

    #[test]
    fn scrapes_come_back_as_they_went() {
        let hashes = [InfoHash([b'A'; 20]), InfoHash([0xff; 20]), InfoHash([7; 20])];
        let path = scrape_path_and_query("/scrape", Some("pk=1"), &hashes);
        let query = path.strip_prefix("/scrape?pk=1&").unwrap();
        assert_eq!(parse_scrape_query(query).as_deref(), Ok(&hashes[..]));
        assert_eq!(
            scrape_path_and_query("/s", None, &hashes[..1]),
            format!("/s?info_hash={}", "A".repeat(20))
        );
        let counts = |n| ScrapeEntry { complete: n, downloaded: n + 1, incomplete: n + 2 };
        let files =
            BTreeMap::from([(hashes[0], counts(1)), (hashes[1], counts(5)), (InfoHash([9; 20]), counts(9))]);
        let known = BTreeMap::from([(hashes[0], counts(1)), (hashes[1], counts(5))]);
        assert_eq!(ScrapeAnswer::parse(&encode_scrape(&files), &hashes), Ok(ScrapeAnswer::Taken(known)));
    }

    #[test]
    fn what_is_no_scrape_is_refused() {
        let hash = [InfoHash([b'A'; 20])];
        let parse = |body: &str| ScrapeAnswer::parse(body.as_bytes(), &hash);
        assert_eq!(parse("<html>"), Err(AnswerError::NotBencode));
        assert_eq!(parse("le"), Err(AnswerError::NotADict));
        assert_eq!(parse("d5:filesi1ee"), Err(AnswerError::NoFiles));
        assert_eq!(parse("d14:failure reason2:noe"), Ok(ScrapeAnswer::Refused("no".into())));
        let odd = format!("d5:filesd20:{}d8:completei-5e10:downloaded1:xeee", "A".repeat(20));
        let none = BTreeMap::from([(hash[0], ScrapeEntry::default())]);
        assert_eq!(parse(&odd), Ok(ScrapeAnswer::Taken(none)));
    }

    #[test]
    fn scrapes_ask_for_one_several_or_all() {
        let hash = format!("info_hash={}", "%41".repeat(20));
        assert_eq!(parse_scrape_query(""), Ok(vec![]));
        assert_eq!(parse_scrape_query(&format!("{hash}&{hash}")), Ok(vec![InfoHash([0x41; 20]); 2]));
        assert_eq!(parse_scrape_query("info_hash=abc"), Err(RequestError::Invalid("info_hash")));
        assert_eq!(parse_scrape_query(&format!("{hash}&").repeat(101)), Err(RequestError::TooMany));
        let files = BTreeMap::from([(
            InfoHash([b'A'; 20]),
            ScrapeEntry { complete: 1, downloaded: 2, incomplete: 3 },
        )]);
        assert_eq!(
            encode_scrape(&files),
            b"d5:filesd20:AAAAAAAAAAAAAAAAAAAAd8:completei1e10:downloadedi2e10:incompletei3eeee"
        );
    }
}
