//! Packets of the DHT (BEP 5, with BEP 32, 33, 42, 43, 44 and 51): bencoded dictionaries, both ways.
//!
//! Lists and strings are capped here; entries of a wrong shape are left out where the packet can do without, and a list of
//! nodes that is no multiple of its entries is left out whole. Whether a packet answers what was asked, and whether an
//! address may be talked to, is for whoever asked to judge.

use core::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::compact::{self, COMPACT_V4_BYTES, COMPACT_V6_BYTES};
use crate::bencode::{self, Dict, Value};
use crate::ids::InfoHash;
use crate::limits::{
    DHT_ITEM_BYTES_MAX, DHT_PACKET_BYTES_MAX, DHT_PACKET_NODES_MAX, DHT_PACKET_PEERS_MAX,
    DHT_PACKET_SAMPLES_MAX, DHT_SALT_BYTES_MAX, DHT_TOKEN_BYTES_MAX, DHT_TRANSACTION_BYTES_MAX,
};
use crate::node_id::NodeId;

/// One packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Chosen by who asks; comes back with the answer.
    pub transaction: Vec<u8>,
    /// What it says.
    pub body: Body,
    /// Whether the sender answers nobody and is in no table (BEP 43).
    pub read_only: bool,
    /// Where the packet that this answers came from (BEP 42).
    pub external: Option<SocketAddr>,
}

/// What a packet says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A question.
    Query(Query),
    /// The answer to one.
    Response(Box<Response>),
    /// The refusal of one.
    Error {
        /// 201 generic, 202 server, 203 protocol, 204 unknown method; 205 to 207 and 301, 302 of BEP 44.
        code: i64,
    },
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Who asks.
    pub id: NodeId,
    /// Which nodes are wanted; neither: those of the packet's family (BEP 32).
    pub want: Want,
    /// What.
    pub ask: Ask,
}

/// Families of nodes (BEP 32).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

/// The kinds of questions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Are you there?
    Ping,
    /// Who is near this point?
    FindNode {
        /// Which.
        target: NodeId,
    },
    /// Who is in this swarm?
    GetPeers {
        /// Which.
        info_hash: InfoHash,
        /// Seeds are not wanted (BEP 33).
        no_seed: bool,
        /// The size of the swarm is wanted (BEP 33).
        scrape: bool,
    },
    /// I am in this swarm.
    AnnouncePeer {
        /// Which.
        info_hash: InfoHash,
        /// Where peers reach the sender.
        port: u16,
        /// The port that the packet came from is meant instead.
        implied_port: bool,
        /// The sender has everything (BEP 33).
        seed: bool,
        /// From the answer to `GetPeers`.
        token: Vec<u8>,
    },
    /// What is stored here (BEP 44)?
    Get {
        /// Where.
        target: NodeId,
        /// Only something newer than this is wanted.
        newer_than: Option<i64>,
        /// Bytes of filling, so that an item may come to who has not proved its address: an entry of our own, which others
        /// pass over.
        fill_bytes: usize,
    },
    /// Store this (BEP 44).
    Put {
        /// What.
        item: Box<Item>,
        /// Only if this is the number stored there now.
        cas: Option<i64>,
        /// From the answer to `Get`.
        token: Vec<u8>,
    },
    /// Which swarms do you know (BEP 51)?
    SampleInfohashes {
        /// Nodes near this point are wanted as well.
        target: NodeId,
    },
    /// A method of which we know nothing.
    Other {
        /// A point that it names, and nodes near it serve as an answer.
        target: Option<NodeId>,
    },
}

/// Something stored (BEP 44).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Item {
    /// One bencoded value, as it came.
    pub value: Vec<u8>,
    /// By whom, where it can be changed.
    pub signed: Option<Signed>,
}

/// What makes an item changeable.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Signed {
    /// Of the writer.
    pub public_key: [u8; 32],
    /// Tells items of one writer apart; absent in answers.
    pub salt: Vec<u8>,
    /// Grows with each change.
    pub sequence: i64,
    /// Over salt, number and value.
    #[serde(with = "halves")]
    pub signature: [u8; 64],
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Who answers.
    pub id: NodeId,
    /// Nodes near the point that was asked for.
    pub nodes: Vec<Contact>,
    /// The same over IPv6.
    pub nodes6: Vec<Contact>,
    /// Allows an announce or a put.
    pub token: Option<Vec<u8>>,
    /// Peers of the swarm.
    pub peers: Vec<SocketAddr>,
    /// What is stored.
    pub item: Option<Item>,
    /// Its number, where the item itself was not wanted.
    pub sequence: Option<i64>,
    /// The size of the swarm, seeds apart from others.
    pub blooms: Option<Box<Blooms>>,
    /// Swarms known there.
    pub samples: Option<Samples>,
}

/// A node and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contact {
    /// What it is called.
    pub id: NodeId,
    /// Where it is.
    pub address: SocketAddr,
}

/// Bloom filters over the addresses of a swarm (BEP 33).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blooms {
    /// Of those who have everything.
    pub seeds: [u8; 256],
    /// Of the others.
    pub peers: [u8; 256],
}

/// Some of the swarms that a node knows (BEP 51).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Samples {
    /// Seconds until others are given.
    pub interval: i64,
    /// How many there are.
    pub count: i64,
    /// Some.
    pub info_hashes: Vec<InfoHash>,
}

/// Why a packet cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It is no packet of the DHT.
    Noise,
    /// It is a question that makes no sense; the sender may be told.
    Question {
        /// Comes back with the refusal.
        transaction: Vec<u8>,
        /// As in [`Body::Error`].
        code: i64,
    },
}

impl Response {
    /// An answer that says nothing but who gives it.
    pub fn new(id: NodeId) -> Self {
        Self {
            id,
            nodes: Vec::new(),
            nodes6: Vec::new(),
            token: None,
            peers: Vec::new(),
            item: None,
            sequence: None,
            blooms: None,
            samples: None,
        }
    }
}

impl Item {
    /// Its number, of a mutable one.
    pub fn sequence(&self) -> Option<i64> {
        self.signed.as_ref().map(|signed| signed.sequence)
    }
}

impl Packet {
    /// The packet's bytes: canonical bencode.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer(Vec::with_capacity(320));
        out.open();
        match &self.body {
            Body::Query(query) => {
                out.key(b"a");
                out.query(query);
                out.external(self.external);
                out.key(b"q");
                out.bytes(query.ask.method());
            }
            Body::Response(response) => {
                out.external(self.external);
                out.key(b"r");
                out.response(response);
            }
            Body::Error { code } => {
                out.key(b"e");
                out.0.push(b'l');
                out.int(*code);
                out.bytes(explain(*code));
                out.0.push(b'e');
                out.external(self.external);
            }
        }
        if self.read_only {
            out.key(b"ro");
            out.int(1);
        }
        out.entry(b"t", &self.transaction);
        out.entry(
            b"y",
            match self.body {
                Body::Query(_) => b"q",
                Body::Response(_) => b"r",
                Body::Error { .. } => b"e",
            },
        );
        out.close();
        out.0
    }

    /// Reads a packet.
    ///
    /// # Errors
    /// When it is none, or asks for something in a way that cannot be understood.
    pub fn parse(bytes: &[u8]) -> Result<Self, Unread> {
        if bytes.len() > DHT_PACKET_BYTES_MAX {
            return Err(Unread::Noise);
        }
        let packet = bencode::parse(bytes).map_err(|_| Unread::Noise)?;
        let packet = packet.as_dict().ok_or(Unread::Noise)?;
        let transaction = bytes_of(packet, b"t").ok_or(Unread::Noise)?;
        if transaction.len() > DHT_TRANSACTION_BYTES_MAX {
            return Err(Unread::Noise);
        }
        let body = match bytes_of(packet, b"y").ok_or(Unread::Noise)? {
            b"q" => {
                let arguments = packet.get(b"a").and_then(Value::as_dict).ok_or(Unread::Noise)?;
                let id = point(arguments, b"id").ok_or(Unread::Noise)?;
                let method = bytes_of(packet, b"q").ok_or(Unread::Noise)?;
                let ask = parse_ask(method, arguments, bytes)
                    .map_err(|code| Unread::Question { transaction: transaction.to_vec(), code })?;
                Body::Query(Query { id, want: parse_want(arguments), ask })
            }
            b"r" => {
                let response = packet.get(b"r").and_then(Value::as_dict).ok_or(Unread::Noise)?;
                Body::Response(Box::new(parse_response(response, bytes).ok_or(Unread::Noise)?))
            }
            b"e" => {
                let error = packet.get(b"e").and_then(Value::as_list).ok_or(Unread::Noise)?;
                let code = error.first().and_then(Value::as_int).ok_or(Unread::Noise)?;
                Body::Error { code }
            }
            _ => return Err(Unread::Noise),
        };
        Ok(Self {
            transaction: transaction.to_vec(),
            body,
            read_only: flag(packet, b"ro"),
            external: bytes_of(packet, b"ip").and_then(parse_peer),
        })
    }
}

impl Ask {
    /// As on the wire.
    fn method(&self) -> &'static [u8] {
        match self {
            Self::Ping => b"ping",
            Self::FindNode { .. } => b"find_node",
            Self::GetPeers { .. } => b"get_peers",
            Self::AnnouncePeer { .. } => b"announce_peer",
            Self::Get { .. } => b"get",
            Self::Put { .. } => b"put",
            Self::SampleInfohashes { .. } => b"sample_infohashes",
            Self::Other { .. } => b"other",
        }
    }
}

/// What code to refuse with, where it cannot be understood.
fn parse_ask(method: &[u8], arguments: &Dict<'_>, packet: &[u8]) -> Result<Ask, i64> {
    let target = || point(arguments, b"target").ok_or(PROTOCOL_ERROR);
    let info_hash =
        || point(arguments, b"info_hash").map(|NodeId(hash)| InfoHash(hash)).ok_or(PROTOCOL_ERROR);
    let token = || {
        let token = bytes_of(arguments, b"token").filter(|token| token.len() <= DHT_TOKEN_BYTES_MAX);
        token.map(<[u8]>::to_vec).ok_or(PROTOCOL_ERROR)
    };
    match method {
        b"ping" => Ok(Ask::Ping),
        b"find_node" => Ok(Ask::FindNode { target: target()? }),
        b"get_peers" => Ok(Ask::GetPeers {
            info_hash: info_hash()?,
            no_seed: flag(arguments, b"noseed"),
            scrape: flag(arguments, b"scrape"),
        }),
        b"announce_peer" => {
            let implied_port = flag(arguments, b"implied_port");
            let port =
                arguments.get(b"port").and_then(Value::as_int).and_then(|port| u16::try_from(port).ok());
            let port = port.or(implied_port.then_some(0)).ok_or(PROTOCOL_ERROR)?;
            let seed = flag(arguments, b"seed");
            Ok(Ask::AnnouncePeer { info_hash: info_hash()?, port, implied_port, seed, token: token()? })
        }
        b"get" => {
            let newer_than = arguments.get(b"seq").and_then(Value::as_int);
            let fill_bytes = bytes_of(arguments, b"fill").map_or(0, <[u8]>::len);
            Ok(Ask::Get { target: target()?, newer_than, fill_bytes })
        }
        b"put" => {
            let raw = bencode::raw_entry(packet, b"a").ok().flatten().ok_or(PROTOCOL_ERROR)?;
            let item = Box::new(parse_item(arguments, raw)?.ok_or(PROTOCOL_ERROR)?);
            let cas = arguments.get(b"cas").and_then(Value::as_int);
            Ok(Ask::Put { item, cas, token: token()? })
        }
        b"sample_infohashes" => Ok(Ask::SampleInfohashes { target: target()? }),
        // BEP 5 knows no more methods; what names a point is likely to want nodes.
        _ => Ok(Ask::Other { target: point(arguments, b"target").or(point(arguments, b"info_hash")) }),
    }
}

fn parse_want(arguments: &Dict<'_>) -> Want {
    let list = arguments.get(b"want").and_then(Value::as_list).unwrap_or_default();
    let has = |name: &[u8]| list.iter().take(4).any(|item| item.as_bytes() == Some(name));
    Want { v4: has(b"n4"), v6: has(b"n6") }
}

fn parse_response(response: &Dict<'_>, packet: &[u8]) -> Option<Response> {
    let mut answer = Response::new(point(response, b"id")?);
    answer.nodes = bytes_of(response, b"nodes").map_or_else(Vec::new, parse_nodes::<NODE_V4_BYTES>);
    answer.nodes6 = bytes_of(response, b"nodes6").map_or_else(Vec::new, parse_nodes::<NODE_V6_BYTES>);
    let token = bytes_of(response, b"token").filter(|token| token.len() <= DHT_TOKEN_BYTES_MAX);
    answer.token = token.map(<[u8]>::to_vec);
    let peers = response.get(b"values").and_then(Value::as_list).unwrap_or_default().iter();
    let peers = peers.take(DHT_PACKET_PEERS_MAX).filter_map(Value::as_bytes);
    answer.peers = peers.filter_map(parse_peer).collect();
    answer.sequence = response.get(b"seq").and_then(Value::as_int);
    if response.get(b"v").is_some() {
        let raw = bencode::raw_entry(packet, b"r").ok().flatten()?;
        answer.item = parse_item(response, raw).ok().flatten();
        if answer.item.as_ref().is_some_and(|item| item.signed.is_some()) {
            answer.sequence = None;
        }
    }
    let bloom = |key| bytes_of(response, key).and_then(|bloom| <[u8; 256]>::try_from(bloom).ok());
    if let (Some(seeds), Some(peers)) = (bloom(b"BFsd"), bloom(b"BFpe")) {
        answer.blooms = Some(Box::new(Blooms { seeds, peers }));
    }
    if let Some(samples) = bytes_of(response, b"samples") {
        let hashes = samples.as_chunks::<20>().0.iter().take(DHT_PACKET_SAMPLES_MAX);
        let int = |key| response.get(key).and_then(Value::as_int).unwrap_or(0);
        answer.samples = Some(Samples {
            interval: int(b"interval"),
            count: int(b"num"),
            info_hashes: hashes.map(|hash| InfoHash(*hash)).collect(),
        });
    }
    Some(answer)
}

/// The item in a dictionary whose text is `raw`; none where there is no value.
fn parse_item(dict: &Dict<'_>, raw: &[u8]) -> Result<Option<Item>, i64> {
    let Some(value) = bencode::raw_entry(raw, b"v").ok().flatten() else { return Ok(None) };
    if value.len() > DHT_ITEM_BYTES_MAX {
        return Err(ITEM_TOO_LARGE);
    }
    let key = bytes_of(dict, b"k").and_then(|key| <[u8; 32]>::try_from(key).ok());
    let signed = match key {
        None => None,
        Some(public_key) => {
            let salt = bytes_of(dict, b"salt").unwrap_or_default();
            if salt.len() > DHT_SALT_BYTES_MAX {
                return Err(SALT_TOO_LARGE);
            }
            let signature = bytes_of(dict, b"sig").and_then(|sig| <[u8; 64]>::try_from(sig).ok());
            let sequence = dict.get(b"seq").and_then(Value::as_int);
            let (Some(signature), Some(sequence)) = (signature, sequence) else { return Err(PROTOCOL_ERROR) };
            Some(Signed { public_key, salt: salt.to_vec(), sequence, signature })
        }
    };
    Ok(Some(Item { value: value.to_vec(), signed }))
}

/// Nodes of a list; none of a list that is cut.
pub fn parse_nodes<const BYTES: usize>(list: &[u8]) -> Vec<Contact> {
    let (entries, spare) = list.as_chunks::<BYTES>();
    if !spare.is_empty() {
        return Vec::new();
    }
    let contact = |entry: &[u8; BYTES]| {
        let (id, address) = entry.split_first_chunk::<20>()?;
        Some(Contact { id: NodeId(*id), address: parse_peer(address)? })
    };
    entries.iter().take(DHT_PACKET_NODES_MAX).filter_map(contact).collect()
}

/// Appends a node to a list of its family.
pub fn encode_node(contact: &Contact, list: &mut Vec<u8>) {
    list.extend(contact.id.0);
    encode_peer(contact.address, list);
}

/// 6 bytes or 18.
fn parse_peer(bytes: &[u8]) -> Option<SocketAddr> {
    let peers = match bytes.len() {
        COMPACT_V4_BYTES => compact::parse_v4(bytes, 1),
        COMPACT_V6_BYTES => compact::parse_v6(bytes, 1),
        _ => return None,
    };
    peers.peers.first().copied()
}

fn encode_peer(peer: SocketAddr, list: &mut Vec<u8>) {
    let mut other = Vec::new();
    if peer.is_ipv6() {
        compact::encode(peer, &mut other, list)
    } else {
        compact::encode(peer, list, &mut other)
    }
}

fn bytes_of<'a>(dict: &'a Dict<'_>, key: &[u8]) -> Option<&'a [u8]> {
    dict.get(key).and_then(Value::as_bytes)
}

fn point(dict: &Dict<'_>, key: &[u8]) -> Option<NodeId> {
    bytes_of(dict, key).and_then(|bytes| bytes.try_into().ok()).map(NodeId)
}

fn flag(dict: &Dict<'_>, key: &[u8]) -> bool {
    dict.get(key).and_then(Value::as_int).is_some_and(|flag| flag != 0)
}

/// The text beside an error's number.
fn explain(code: i64) -> &'static [u8] {
    match code {
        PROTOCOL_ERROR => b"Protocol Error",
        METHOD_UNKNOWN => b"Method Unknown",
        ITEM_TOO_LARGE => b"v too big",
        BAD_SIGNATURE => b"invalid signature",
        SALT_TOO_LARGE => b"salt too big",
        CAS_MISMATCH => b"CAS mismatch",
        SEQUENCE_TOO_OLD => b"seq less than current",
        _ => b"Error",
    }
}

/// Bencode, its keys written in order by whoever writes.
struct Writer(Vec<u8>);

impl Writer {
    fn open(&mut self) {
        self.0.push(b'd');
    }

    fn close(&mut self) {
        self.0.push(b'e');
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.push(b':');
        self.0.extend_from_slice(bytes);
    }

    fn int(&mut self, int: i64) {
        self.0.push(b'i');
        if int < 0 {
            self.0.push(b'-');
        }
        self.number(int.unsigned_abs());
        self.0.push(b'e');
    }

    fn number(&mut self, mut number: u64) {
        let from = self.0.len();
        loop {
            self.0.push(b'0' + (number % 10) as u8);
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.0[from..].reverse();
    }

    fn key(&mut self, key: &[u8]) {
        self.bytes(key);
    }

    fn entry(&mut self, key: &[u8], value: &[u8]) {
        self.bytes(key);
        self.bytes(value);
    }

    fn int_entry(&mut self, key: &[u8], value: i64) {
        self.bytes(key);
        self.int(value);
    }

    fn external(&mut self, address: Option<SocketAddr>) {
        if let Some(address) = address {
            let mut bytes = Vec::new();
            encode_peer(address, &mut bytes);
            self.entry(b"ip", &bytes);
        }
    }

    fn query(&mut self, query: &Query) {
        self.open();
        match &query.ask {
            Ask::Put { cas: Some(cas), .. } => self.int_entry(b"cas", *cas),
            Ask::Get { fill_bytes, .. } if *fill_bytes > 0 => self.entry(b"fill", &vec![b'.'; *fill_bytes]),
            _ => {}
        }
        self.entry(b"id", &query.id.0);
        match &query.ask {
            Ask::Ping => {}
            Ask::FindNode { target }
            | Ask::SampleInfohashes { target }
            | Ask::Other { target: Some(target) } => self.entry(b"target", &target.0),
            Ask::Other { target: None } => {}
            Ask::GetPeers { info_hash, no_seed, scrape } => {
                self.entry(b"info_hash", &info_hash.0);
                if *no_seed {
                    self.int_entry(b"noseed", 1);
                }
                if *scrape {
                    self.int_entry(b"scrape", 1);
                }
            }
            Ask::AnnouncePeer { info_hash, port, implied_port, seed, token } => {
                if *implied_port {
                    self.int_entry(b"implied_port", 1);
                }
                self.entry(b"info_hash", &info_hash.0);
                self.int_entry(b"port", i64::from(*port));
                if *seed {
                    self.int_entry(b"seed", 1);
                }
                self.entry(b"token", token);
            }
            Ask::Get { target, newer_than, .. } => {
                if let Some(sequence) = newer_than {
                    self.int_entry(b"seq", *sequence);
                }
                self.entry(b"target", &target.0);
            }
            Ask::Put { item, token, .. } => self.item(item, Some(token)),
        }
        let Want { v4, v6 } = query.want;
        if v4 || v6 {
            self.key(b"want");
            self.0.push(b'l');
            if v4 {
                self.bytes(b"n4");
            }
            if v6 {
                self.bytes(b"n6");
            }
            self.0.push(b'e');
        }
        self.close();
    }

    /// The entries of an item, a token among them.
    fn item(&mut self, item: &Item, token: Option<&Vec<u8>>) {
        if let Some(signed) = &item.signed {
            self.entry(b"k", &signed.public_key);
            if !signed.salt.is_empty() {
                self.entry(b"salt", &signed.salt);
            }
            self.int_entry(b"seq", signed.sequence);
            self.entry(b"sig", &signed.signature);
        }
        if let Some(token) = token {
            self.entry(b"token", token);
        }
        self.key(b"v");
        self.0.extend_from_slice(&item.value);
    }

    fn response(&mut self, response: &Response) {
        self.open();
        if let Some(blooms) = &response.blooms {
            self.entry(b"BFpe", &blooms.peers);
            self.entry(b"BFsd", &blooms.seeds);
        }
        self.entry(b"id", &response.id.0);
        if let Some(samples) = &response.samples {
            self.int_entry(b"interval", samples.interval);
        }
        if let Some(Signed { public_key, .. }) = response.item.as_ref().and_then(|item| item.signed.as_ref())
        {
            self.entry(b"k", public_key);
        }
        for (key, nodes) in [(&b"nodes"[..], &response.nodes), (b"nodes6", &response.nodes6)] {
            if !nodes.is_empty() {
                let mut list = Vec::with_capacity(nodes.len() * NODE_V6_BYTES);
                nodes.iter().for_each(|contact| encode_node(contact, &mut list));
                self.entry(key, &list);
            }
        }
        let signed = response.item.as_ref().and_then(|item| item.signed.as_ref());
        if let Some(samples) = &response.samples {
            self.int_entry(b"num", samples.count);
        }
        if let Some(Signed { salt, .. }) = signed.filter(|signed| !signed.salt.is_empty()) {
            self.entry(b"salt", salt);
        }
        if let Some(samples) = &response.samples {
            self.key(b"samples");
            self.bytes(&samples.info_hashes.iter().flat_map(|hash| hash.0).collect::<Vec<_>>());
        }
        if let Some(sequence) = signed.map(|signed| signed.sequence).or(response.sequence) {
            self.int_entry(b"seq", sequence);
        }
        if let Some(signed) = signed {
            self.entry(b"sig", &signed.signature);
        }
        if let Some(token) = &response.token {
            self.entry(b"token", token);
        }
        if let Some(item) = &response.item {
            self.key(b"v");
            self.0.extend_from_slice(&item.value);
        }
        if !response.peers.is_empty() {
            self.key(b"values");
            self.0.push(b'l');
            for peer in &response.peers {
                let mut bytes = Vec::with_capacity(COMPACT_V6_BYTES);
                encode_peer(*peer, &mut bytes);
                self.bytes(&bytes);
            }
            self.0.push(b'e');
        }
        self.close();
    }
}

/// `serde` knows arrays of 32 bytes and no longer ones.
mod halves {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(whole: &[u8; 64], to: S) -> Result<S::Ok, S::Error> {
        let mut halves = [[0; 32]; 2];
        halves.as_flattened_mut().copy_from_slice(whole);
        halves.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 64], D::Error> {
        let halves = <[[u8; 32]; 2]>::deserialize(from)?;
        let mut whole = [0; 64];
        whole.copy_from_slice(halves.as_flattened());
        Ok(whole)
    }
}

/// An entry of `nodes` (BEP 5).
pub const NODE_V4_BYTES: usize = 20 + COMPACT_V4_BYTES;
/// An entry of `nodes6` (BEP 32).
pub const NODE_V6_BYTES: usize = 20 + COMPACT_V6_BYTES;

/// Malformed, arguments missing, or a bad token.
pub const PROTOCOL_ERROR: i64 = 203;
/// A method that is not known here.
pub const METHOD_UNKNOWN: i64 = 204;
/// An item of more than 1,000 bytes.
pub const ITEM_TOO_LARGE: i64 = 205;
/// A signature that does not hold.
pub const BAD_SIGNATURE: i64 = 206;
/// A salt of more than 64 bytes.
pub const SALT_TOO_LARGE: i64 = 207;
/// What is stored is not what the writer thinks.
pub const CAS_MISMATCH: i64 = 301;
/// Something newer is stored.
pub const SEQUENCE_TOO_OLD: i64 = 302;

#[cfg(test)]
mod tests;
