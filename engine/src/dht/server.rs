//! Answers to other nodes (BEP 5, 33, 44, 51): pure, bounded, and small to whoever has not proved its address.
//!
//! An answer to an address that never proved itself is at most five times as long as the question (`reliability.md` D2);
//! peers are left out first, then nodes, an item, and then the answer. What all answers together may take is limited too.

mod flood;
mod items;
mod store;
mod tokens;

use core::net::SocketAddr;

use self::flood::Flood;
use self::items::Items;
use self::store::Store;
use self::tokens::Tokens;
use crate::address::is_dialable;
use crate::allowance::Allowance;
use crate::dht::item::{Item, ItemName, Signed};
use crate::ids::InfoHash;
use crate::node_id::NodeId;
use crate::rng::Rng;
use crate::time::Instant;
use crate::wire::krpc::{Ask, Body, Contact, METHOD_UNKNOWN, PROTOCOL_ERROR, Packet, Query, Response};

#[derive(Debug)]
pub(crate) struct Server {
    tokens: Tokens,
    store: Store,
    items: Items,
    flood: Flood,
    answers: Allowance,
    /// Who was stored last.
    announced: Option<(InfoHash, SocketAddr)>,
}

/// A question and where it comes from.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) remote: SocketAddr,
    pub(crate) transaction: &'a [u8],
    pub(crate) query: &'a Query,
    /// Of the packet.
    pub(crate) bytes: usize,
    /// Whether the address has answered us before.
    pub(crate) is_proved: bool,
}

impl Server {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            tokens: Tokens::new(Rng::stream(seed, "dht tokens", 0)),
            store: Store::new(Rng::stream(seed, "dht store", 0)),
            items: Items::default(),
            flood: Flood::default(),
            answers: Allowance::new(ANSWER_BYTES_PER_SECOND, ANSWER_BYTES_BURST),
            announced: None,
        }
    }

    /// Peers of a swarm that are stored here, of both families.
    pub(crate) fn peers(&mut self, now: Instant, info_hash: InfoHash) -> Vec<SocketAddr> {
        let mut of = |ipv6| self.store.peers(now, info_hash, ipv6, false, PEERS);
        [of(false), of(true)].concat()
    }

    /// Who was stored by the question that was answered last.
    pub(crate) fn take_announced(&mut self) -> Option<(InfoHash, SocketAddr)> {
        self.announced.take()
    }

    /// Whether a host may be answered now.
    pub(crate) fn admit(&mut self, now: Instant, remote: SocketAddr) -> bool {
        self.flood.admit(now, remote.ip())
    }

    /// Swarms and peers that are stored here.
    pub(crate) fn counts(&self) -> (usize, usize) {
        self.store.counts()
    }

    /// Items that are stored here.
    pub(crate) fn items(&self) -> usize {
        self.items.len()
    }

    /// The answer to a question. `own` is who answers; `nodes` and `nodes6` are near the point that is asked for.
    pub(crate) fn answer(
        &mut self,
        now: Instant,
        asked: &Asked<'_>,
        own: NodeId,
        (nodes, nodes6): (Vec<Contact>, Vec<Contact>),
    ) -> Option<Vec<u8>> {
        let mut response = Response { nodes, nodes6, ..Response::new(own) };
        let ip = asked.remote.ip();
        let mut is_proved = asked.is_proved;
        let body = match &asked.query.ask {
            Ask::Ping | Ask::FindNode { .. } | Ask::Other { target: Some(_) } => {
                Body::Response(Box::new(response))
            }
            Ask::GetPeers { info_hash, no_seed, scrape } => {
                response.token = Some(self.tokens.make(now, ip, &info_hash.0));
                response.peers = self.store.peers(now, *info_hash, asked.remote.is_ipv6(), *no_seed, PEERS);
                if *scrape {
                    response.blooms = self.store.blooms(now, *info_hash).map(Box::new);
                }
                Body::Response(Box::new(response))
            }
            Ask::AnnouncePeer { info_hash, port, implied_port, seed, token } => {
                let port = if *implied_port { asked.remote.port() } else { *port };
                let peer = SocketAddr::new(ip, port);
                if self.tokens.holds(now, ip, &info_hash.0, token) && is_dialable(peer) {
                    is_proved = true;
                    self.store.announce(now, *info_hash, peer, *seed);
                    self.announced = Some((*info_hash, peer));
                    Body::Response(Box::new(Response::new(own)))
                } else {
                    Body::Error { code: PROTOCOL_ERROR }
                }
            }
            Ask::SampleInfohashes { .. } => {
                response.samples = Some(self.store.samples(now));
                Body::Response(Box::new(response))
            }
            Ask::Get { target, newer_than, .. } => {
                response.token = Some(self.tokens.make(now, ip, &target.0));
                if let Some(item) = self.items.at(now, target) {
                    show(item, *newer_than, &mut response);
                }
                Body::Response(Box::new(response))
            }
            Ask::Put { item, cas, token } => {
                let target = ItemName::of(item).target();
                let taken = if self.tokens.holds(now, ip, &target.0, token) {
                    is_proved = true;
                    self.items.put(now, ip, item.as_ref().clone(), *cas)
                } else {
                    Err(PROTOCOL_ERROR)
                };
                match taken {
                    Ok(()) => Body::Response(Box::new(Response::new(own))),
                    Err(code) => Body::Error { code },
                }
            }
            Ask::Other { target: None } => Body::Error { code: METHOD_UNKNOWN },
        };
        self.finish(now, asked, body, is_proved)
    }

    /// Refuses a question that makes no sense.
    pub(crate) fn refuse(
        &mut self,
        now: Instant,
        (remote, bytes): (SocketAddr, usize),
        transaction: Vec<u8>,
        code: i64,
    ) -> Option<Vec<u8>> {
        let packet =
            Packet { transaction, body: Body::Error { code }, read_only: false, external: Some(remote) };
        let packet = packet.encode();
        (packet.len() <= bytes * FACTOR_MAX && self.answers.take(now, packet.len() as u64)).then_some(packet)
    }

    fn finish(&mut self, now: Instant, asked: &Asked<'_>, body: Body, is_proved: bool) -> Option<Vec<u8>> {
        let bytes_max =
            if is_proved { ANSWER_BYTES_MAX } else { (asked.bytes * FACTOR_MAX).min(ANSWER_BYTES_MAX) };
        let mut packet = Packet {
            transaction: asked.transaction.to_vec(),
            body,
            read_only: false,
            external: Some(asked.remote),
        };
        let mut encoded = packet.encode();
        while encoded.len() > bytes_max {
            let Body::Response(response) = &mut packet.body else { return None };
            shorten(response, encoded.len() - bytes_max)?;
            encoded = packet.encode();
        }
        self.answers.take(now, encoded.len() as u64).then_some(encoded)
    }
}

/// An item, or its number alone where only a newer one is wanted.
fn show(item: &Item, newer_than: Option<i64>, response: &mut Response) {
    if let (Some(sequence), Some(than)) = (item.sequence(), newer_than)
        && sequence <= than
    {
        response.sequence = Some(sequence);
        return;
    }
    let signed = item.signed.clone().map(|signed| Signed { salt: Vec::new(), ..signed });
    response.item = Some(Item { value: item.value.clone(), signed });
}

/// Leaves out what is needed least; none when there is nothing left to leave out.
fn shorten(response: &mut Response, excess: usize) -> Option<()> {
    let peers = response.peers.len();
    if response.blooms.take().is_some() {
        return Some(());
    }
    if peers > PEERS_KEPT {
        response.peers.truncate(peers.saturating_sub(excess.div_ceil(8)).max(PEERS_KEPT));
        return Some(());
    }
    if let Some(samples) = response.samples.as_mut().filter(|samples| !samples.info_hashes.is_empty()) {
        samples.info_hashes.pop();
        return Some(());
    }
    let longer = if response.nodes6.is_empty() { &mut response.nodes } else { &mut response.nodes6 };
    let left_out = longer.pop().map(drop).or_else(|| response.peers.pop().map(drop));
    // Its number stays, so that who asked knows that there is one.
    left_out.or_else(|| response.item.take().map(|item| response.sequence = item.sequence()))
}

/// Bytes out for a byte in, to an address that has not proved itself (`reliability.md` G11).
pub(crate) const FACTOR_MAX: usize = 5;
/// An answer that passes every path whole: IPv6 guarantees 1,280 bytes with headers.
const ANSWER_BYTES_MAX: usize = 1200;
/// What makes a question for an item so long that the longest answer is no more than [`FACTOR_MAX`] times as long.
pub(crate) const FILL_BYTES: usize = 150;
/// Peers in an answer.
const PEERS: usize = 100;
/// Peers that are left out after nodes only.
const PEERS_KEPT: usize = 10;
/// What all answers together may take; libtorrent's is 8,000.
const ANSWER_BYTES_PER_SECOND: u64 = 16_000;
const ANSWER_BYTES_BURST: u64 = 64_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::krpc::{SEQUENCE_TOO_OLD, Want};

    fn check(server: &mut Server, ask: Ask, is_proved: bool) -> (usize, Packet) {
        let query = Query { id: NodeId([1; 20]), want: Want { v4: true, v6: true }, ask };
        let body = Body::Query(query.clone());
        let bytes = Packet { transaction: vec![1, 2], body, read_only: false, external: None }.encode().len();
        let remote = "203.0.113.7:6881".parse().unwrap();
        let asked = Asked { remote, transaction: &[1, 2], query: &query, bytes, is_proved };
        let contact = |v6: bool, n: u8| Contact {
            id: NodeId([n; 20]),
            address: if v6 { "[2001:db8::1]:1" } else { "198.51.100.1:1" }.parse().unwrap(),
        };
        let nodes = (0..8).map(|n| contact(false, n)).collect();
        let nodes6 = (0..8).map(|n| contact(true, n)).collect();
        let answer = server.answer(Instant::START, &asked, NodeId([9; 20]), (nodes, nodes6)).unwrap();
        assert!(answer.len() <= ANSWER_BYTES_MAX && (is_proved || answer.len() <= FACTOR_MAX * bytes));
        (answer.len(), Packet::parse(&answer).unwrap())
    }

    fn response(packet: Packet) -> Response {
        let Body::Response(response) = packet.body else { panic!("refused") };
        *response
    }

    #[test]
    fn answers_to_strangers_are_at_most_five_times_as_long() {
        let mut server = Server::new(1);
        let info_hash = InfoHash([3; 20]);
        for n in 0..200u8 {
            server.store.announce(
                Instant::START,
                info_hash,
                format!("192.0.2.{n}:1").parse().unwrap(),
                n > 100,
            );
        }
        for ask in [
            Ask::Ping,
            Ask::FindNode { target: NodeId([3; 20]) },
            Ask::GetPeers { info_hash, no_seed: false, scrape: true },
            Ask::SampleInfohashes { target: NodeId([3; 20]) },
            get(NodeId([3; 20]), 0),
            Ask::Other { target: None },
        ] {
            let (short, _) = check(&mut server, ask.clone(), false);
            let (long, _) = check(&mut server, ask, true);
            assert!(short <= long);
        }
        let scrape = Ask::GetPeers { info_hash, no_seed: true, scrape: true };
        let found = response(check(&mut server, scrape, true).1);
        assert!(found.blooms.is_none() && found.peers.len() > 50, "{}", found.peers.len());
    }

    fn get(target: NodeId, fill_bytes: usize) -> Ask {
        Ask::Get { target, newer_than: None, fill_bytes }
    }

    #[test]
    fn an_item_is_stored_for_who_has_a_token_and_shown_to_all_that_may_have_so_much() {
        let mut server = Server::new(1);
        let item =
            Item::mutable(&[7; 32], b"salt".to_vec(), 3, [b"996:", &[b'x'; 996][..]].concat()).unwrap();
        let target = ItemName::of(&item).target();
        let put = |token: Vec<u8>| Ask::Put { item: Box::new(item.clone()), cas: None, token };
        let refused = check(&mut server, put(b"guessed!".to_vec()), false).1;
        assert_eq!(refused.body, Body::Error { code: PROTOCOL_ERROR });
        let token = response(check(&mut server, get(target, 0), false).1).token.unwrap();
        let stored = response(check(&mut server, put(token.clone()), false).1);
        assert_eq!(stored, Response::new(NodeId([9; 20])));
        let to_stranger = response(check(&mut server, get(target, 0), false).1);
        assert_eq!((to_stranger.item, to_stranger.sequence), (None, Some(3)));
        for (fill_bytes, is_proved) in [(FILL_BYTES, false), (0, true)] {
            let shown = response(check(&mut server, get(target, fill_bytes), is_proved).1).item.unwrap();
            assert!(ItemName::of(&item).is_of(&shown) && shown.value == item.value, "{fill_bytes}");
            assert!(shown.signed.unwrap().salt.is_empty(), "who asks knows it");
        }
        let newer = |than| Ask::Get { target, newer_than: Some(than), fill_bytes: FILL_BYTES };
        let same = response(check(&mut server, newer(3), true).1);
        assert_eq!((same.item, same.sequence), (None, Some(3)));
        assert!(response(check(&mut server, newer(2), true).1).item.is_some());
        let older = Item::mutable(&[7; 32], b"salt".to_vec(), 2, b"i1e".to_vec()).unwrap();
        let older = Ask::Put { item: Box::new(older), cas: None, token };
        assert_eq!(check(&mut server, older, false).1.body, Body::Error { code: SEQUENCE_TOO_OLD });
    }

    #[test]
    fn an_announce_needs_a_token_of_its_own() {
        let mut server = Server::new(1);
        let info_hash = InfoHash([3; 20]);
        let ask = Ask::GetPeers { info_hash, no_seed: false, scrape: false };
        let token = response(check(&mut server, ask.clone(), false).1).token.unwrap();
        let announce = |token: Vec<u8>, implied_port| Ask::AnnouncePeer {
            info_hash,
            port: 7777,
            implied_port,
            seed: false,
            token,
        };
        let refused = check(&mut server, announce(b"guessed!".to_vec(), false), false).1;
        assert_eq!(refused.body, Body::Error { code: PROTOCOL_ERROR });
        assert!(response(check(&mut server, ask.clone(), true).1).peers.is_empty());
        check(&mut server, announce(token.clone(), false), false);
        check(&mut server, announce(token, true), false);
        let mut peers = response(check(&mut server, ask, true).1).peers;
        peers.sort();
        assert_eq!(peers, ["203.0.113.7:6881".parse().unwrap(), "203.0.113.7:7777".parse().unwrap()]);
    }

    #[test]
    fn all_answers_together_are_limited() {
        let mut server = Server::new(1);
        let query = Query { id: NodeId([1; 20]), want: Want::default(), ask: Ask::Ping };
        let remote = "203.0.113.7:6881".parse().unwrap();
        let asked = Asked { remote, transaction: b"aa", query: &query, bytes: 60, is_proved: false };
        let answer = |server: &mut Server| {
            server.answer(Instant::START, &asked, NodeId([9; 20]), (Vec::new(), Vec::new()))
        };
        let bytes: usize = (0..10_000).filter_map(|_| answer(&mut server)).map(|answer| answer.len()).sum();
        assert!((60_000..=64_000).contains(&bytes), "{bytes}");
    }
}
