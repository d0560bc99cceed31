//! A node of the DHT (BEP 5), over IPv4 and IPv6 (BEP 32): finds the peers of a swarm without a tracker, and serves others.
//!
//! [`Dht`] is a plain machine: datagrams and the time in, datagrams and events out. It keeps one table a family, with an
//! id for each address (BEP 42, 45), and stores what others announce or put. It answers questions (BEP 5, 33, 44,
//! 51), unless it is read-only (BEP 43): from the start, or while nobody seems to reach it.
//!
//! What it never does: read a clock, draw from anything but its seed, resolve a name (whoever owns it is asked by
//! [`Event::Lonely`]), or send more than five bytes for one to an address that has not proved itself.

pub mod item;
mod node;
pub mod saved;
mod server;

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use self::item::{Item, ItemName};
pub(crate) use self::node::BUCKET_NODES;
use self::node::{Node, NodeEvent};
use self::server::{Asked, FACTOR_MAX, Server};
use crate::address::is_dialable;
use crate::ids::InfoHash;
use crate::node_id::NodeId;
use crate::rng::Rng;
use crate::time::Instant;
use crate::wire::krpc::{Ask, Body, Contact, Packet, Query, Unread};

/// A node in both families.
#[derive(Debug)]
pub struct Dht {
    nodes: [Option<Box<Node>>; 2],
    server: Server,
    searches: BTreeMap<SearchId, (u32, Report)>,
    issued: u64,
    events: VecDeque<Event>,
}

/// A name for a search. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SearchId(u64);

/// What is searched for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The nodes nearest to a point.
    Nodes {
        /// Which.
        target: NodeId,
    },
    /// The peers of a swarm.
    Peers {
        /// Which.
        info_hash: InfoHash,
        /// Tell the nodes nearest to it that we are in it as well.
        announce: Option<Announce>,
    },
    /// Swarms that the nodes nearest to a point know (BEP 51).
    InfoHashes {
        /// Which.
        target: NodeId,
    },
    /// What is stored under a name (BEP 44): of several versions the latest.
    Item {
        /// Which.
        name: ItemName,
    },
    /// The nodes nearest to its name store this (BEP 44).
    Put {
        /// Its name.
        name: ItemName,
        /// What.
        item: Box<Item>,
        /// Only where this is the number stored now, or nothing is.
        cas: Option<i64>,
    },
}

/// What is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announce {
    /// Where peers reach us.
    pub port: u16,
    /// Where our packets come from, whatever `port` says.
    pub implied_port: bool,
    /// We have everything (BEP 33).
    pub seed: bool,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A search has found peers. There may be more.
    Peers {
        /// Which.
        search: SearchId,
        /// Who named them.
        from: SocketAddr,
        /// Each once, of a scope no more local than whoever named it.
        peers: Vec<SocketAddr>,
    },
    /// Somebody has told us, as the node to store it, that it is in a swarm: now, or before a search for the same began.
    Announced {
        /// Which.
        info_hash: InfoHash,
        /// Who. It has proved its address.
        peer: SocketAddr,
    },
    /// A search has found swarms. There may be more.
    InfoHashes {
        /// Which.
        search: SearchId,
        /// Each once in a family.
        info_hashes: Vec<InfoHash>,
    },
    /// A search is over.
    Done {
        /// Which.
        search: SearchId,
        /// What came of it.
        report: Report,
    },
    /// There are nodes, in one of the families.
    Joined,
    /// There are hardly any nodes: names should be resolved and given to [`Dht::add_node`].
    Lonely,
    /// Our address as many others see it.
    External(IpAddr),
}

/// What came of a search, over both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Nodes asked.
    pub asked: u32,
    /// The longest way to a node that answered, in steps.
    pub hops: u32,
    /// Nodes that took our announce, or our item.
    pub told: u32,
    /// Why others did not: the code of one that said so.
    pub refused: Option<i64>,
    /// Peers found.
    pub peers: u32,
    /// Swarms found.
    pub info_hashes: u32,
    /// What is stored under the name that was asked for. It holds.
    pub item: Option<Item>,
    /// The nearest nodes that answered; for a ping, who answered.
    pub nearest: Vec<Contact>,
}

/// Figures of one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Nodes in the tables of IPv4 and IPv6.
    pub nodes: [usize; 2],
    /// Buckets of those tables.
    pub depth: [usize; 2],
    /// Swarms that others announced to us.
    pub swarms: usize,
    /// Peers in them.
    pub peers: usize,
    /// Items that others put here.
    pub items: usize,
}

impl Goal {
    fn target(&self) -> NodeId {
        match self {
            Self::Nodes { target } | Self::InfoHashes { target } => *target,
            Self::Peers { info_hash, .. } => (*info_hash).into(),
            Self::Item { name } | Self::Put { name, .. } => name.target(),
        }
    }

    fn ask(&self, fill_bytes: usize) -> Ask {
        let target = self.target();
        match self {
            Self::Nodes { .. } => Ask::FindNode { target },
            Self::Peers { info_hash, .. } => {
                Ask::GetPeers { info_hash: *info_hash, no_seed: false, scrape: false }
            }
            Self::InfoHashes { .. } => Ask::SampleInfohashes { target },
            Self::Item { .. } => Ask::Get { target, newer_than: None, fill_bytes },
            // Who has it as it is need not send it.
            Self::Put { item, .. } => Ask::Get { target, newer_than: item.sequence(), fill_bytes },
        }
    }
}

impl Dht {
    /// A node that knows nobody. `families`: IPv4, IPv6. A read-only one never serves anybody (BEP 43).
    pub fn new(now: Instant, seed: u64, families: (bool, bool), read_only: bool) -> Self {
        let node = |is_there: bool, ipv6: bool| {
            let rng = Rng::stream(seed, "dht", u64::from(ipv6));
            is_there.then(|| Box::new(Node::new(now, ipv6, read_only, rng)))
        };
        Self {
            nodes: [node(families.0, false), node(families.1, true)],
            server: Server::new(seed),
            searches: BTreeMap::new(),
            issued: 0,
            events: VecDeque::new(),
        }
    }

    /// A node may be at this address.
    pub fn add_node(&mut self, now: Instant, address: SocketAddr) {
        let address = plain(address);
        if let Some(node) = self.node_for(address) {
            node.add_start(now, address);
        }
    }

    /// Searches in every family; what comes of it is told by events. Peers that are stored here are told first: in a small
    /// network we are among the nearest nodes ourselves, and nobody else may be left who knows them.
    pub fn search(&mut self, now: Instant, goal: Goal) -> SearchId {
        let search = self.issue();
        if let Goal::Peers { info_hash, .. } = goal {
            let peers = self.server.peers(now, info_hash).into_iter();
            self.events.extend(peers.map(|peer| Event::Announced { info_hash, peer }));
        }
        let families = self.nodes.iter().flatten().count() as u32;
        self.searches.insert(search, (families, Report::default()));
        self.nodes.iter_mut().flatten().for_each(|node| node.search(now, search, goal.clone()));
        if families == 0 {
            self.end(search, Report::default());
        }
        self.take_events(now);
        search
    }

    /// Ends a search at once: nobody is asked any more, and no event follows.
    pub fn cancel(&mut self, now: Instant, search: SearchId) {
        self.searches.remove(&search);
        self.nodes.iter_mut().flatten().for_each(|node| node.cancel(now, search));
    }

    /// Asks one address for a sign of life; [`Event::Done`] names who answered.
    pub fn ping(&mut self, now: Instant, address: SocketAddr) -> SearchId {
        let address = plain(address);
        let search = self.issue();
        self.searches.insert(search, (1, Report::default()));
        match self.node_for(address) {
            Some(node) => node.ping(now, search, address),
            None => self.end(search, Report::default()),
        }
        search
    }

    /// A datagram came that looks like one of the DHT's.
    pub fn handle_datagram(&mut self, now: Instant, remote: SocketAddr, payload: &[u8]) -> Option<Bytes> {
        let remote = plain(remote);
        if !is_dialable(remote) {
            return None;
        }
        let answer = match Packet::parse(payload) {
            Err(Unread::Noise) => None,
            Err(Unread::Question { transaction, code }) => {
                if self.is_read_only(remote) || !self.server.admit(now, remote) {
                    return None;
                }
                self.server.refuse(now, (remote, payload.len()), transaction, code)
            }
            Ok(Packet { body: Body::Query(query), transaction, read_only, .. }) => {
                self.answer(now, remote, &transaction, &query, read_only, payload.len())
            }
            Ok(packet) => {
                if let Some(node) = self.node_for(remote) {
                    node.handle_answer(now, remote, packet);
                }
                None
            }
        };
        self.take_events(now);
        answer.map(Bytes::from)
    }

    /// The time of [`Self::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.nodes.iter_mut().flatten().for_each(|node| node.handle_timeout(now));
        self.take_events(now);
    }

    /// The network may be back, or another one.
    pub fn renew(&mut self, now: Instant) {
        self.nodes.iter_mut().flatten().for_each(|node| node.renew(now));
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.nodes.iter().flatten().filter_map(|node| node.poll_timeout()).min()
    }

    /// The next datagram to send.
    pub fn poll_packet(&mut self) -> Option<(SocketAddr, Bytes)> {
        self.nodes.iter_mut().flatten().find_map(|node| node.poll_packet())
    }

    /// What happened, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Our id in a family.
    pub fn id(&self, ipv6: bool) -> Option<NodeId> {
        self.nodes[usize::from(ipv6)].as_ref().map(|node| node.id())
    }

    /// Whether there is any node.
    pub fn is_joined(&self) -> bool {
        self.nodes.iter().flatten().any(|node| node.is_joined())
    }

    /// Figures of this moment.
    pub fn figures(&self) -> Figures {
        let figure = |of: fn(&Node) -> usize| {
            [0, 1].map(|family: usize| self.nodes[family].as_ref().map_or(0, |node| of(node)))
        };
        let (swarms, peers) = self.server.counts();
        let items = self.server.items();
        Figures { nodes: figure(Node::table_len), depth: figure(Node::depth), swarms, peers, items }
    }

    /// Where to begin next time, for [`saved::encode`].
    pub fn nodes_to_save(&self) -> Vec<SocketAddr> {
        self.nodes.iter().flatten().flat_map(|node| node.saved()).collect()
    }

    fn answer(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        transaction: &[u8],
        query: &Query,
        asker_is_read_only: bool,
        bytes: usize,
    ) -> Option<Vec<u8>> {
        self.node_for(remote)?.on_question(now, remote);
        if self.is_read_only(remote) || !self.server.admit(now, remote) {
            return None;
        }
        let node = self.node_for(remote)?;
        let (own, is_proved) = (node.id(), node.has_answered(remote));
        if query.id == own {
            // Our own question, thrown back.
            return None;
        }
        let near = self.near(&query.ask, remote.is_ipv6(), query);
        let asked = Asked { remote, transaction, query, bytes, is_proved };
        let answer = self.server.answer(now, &asked, own, near);
        if let Some((info_hash, peer)) = self.server.take_announced() {
            self.events.push_back(Event::Announced { info_hash, peer });
        }
        let answer = answer?;
        if !asker_is_read_only && let Some(node) = self.node_for(remote) {
            let left = if is_proved { usize::MAX } else { (bytes * FACTOR_MAX).saturating_sub(answer.len()) };
            node.consider(now, Contact { id: query.id, address: remote }, left);
        }
        Some(answer)
    }

    /// Nodes near what is asked for, of the families that are wanted (BEP 32).
    fn near(&self, ask: &Ask, ipv6: bool, query: &Query) -> (Vec<Contact>, Vec<Contact>) {
        let target = match ask {
            Ask::FindNode { target }
            | Ask::Get { target, .. }
            | Ask::SampleInfohashes { target }
            | Ask::Other { target: Some(target) } => *target,
            Ask::GetPeers { info_hash, .. } => (*info_hash).into(),
            _ => return (Vec::new(), Vec::new()),
        };
        let neither = !query.want.v4 && !query.want.v6;
        let nearest = |family: usize, wanted: bool| {
            let node = self.nodes[family].as_ref().filter(|_| wanted);
            node.map_or_else(Vec::new, |node| node.nearest(&target))
        };
        (nearest(0, query.want.v4 || (neither && !ipv6)), nearest(1, query.want.v6 || (neither && ipv6)))
    }

    fn take_events(&mut self, now: Instant) {
        for family in 0..2 {
            while let Some(event) = self.nodes[family].as_mut().and_then(|node| node.poll_event()) {
                match event {
                    NodeEvent::Peers { search, from, peers } => {
                        self.events.push_back(Event::Peers { search, from, peers });
                    }
                    NodeEvent::InfoHashes { search, info_hashes } => {
                        self.events.push_back(Event::InfoHashes { search, info_hashes });
                    }
                    NodeEvent::Done { search, report } => self.end(search, report),
                    NodeEvent::Joined => self.events.push_back(Event::Joined),
                    NodeEvent::Lonely => self.events.push_back(Event::Lonely),
                    NodeEvent::External(ip) => self.events.push_back(Event::External(ip)),
                    NodeEvent::Foreign(address) => {
                        if let Some(node) = self.node_for(address).filter(|node| !node.is_joined()) {
                            node.add_start(now, address);
                        }
                    }
                }
            }
        }
    }

    fn end(&mut self, search: SearchId, report: Report) {
        let Some((left, total)) = self.searches.get_mut(&search) else { return };
        total.asked += report.asked;
        total.hops = total.hops.max(report.hops);
        total.told += report.told;
        total.refused = total.refused.or(report.refused);
        total.peers += report.peers;
        total.info_hashes += report.info_hashes;
        // Without an item there is no number, and that is less than any.
        let number = |item: &Option<Item>| item.as_ref().map(Item::sequence);
        if number(&report.item) > number(&total.item) {
            total.item = report.item;
        }
        total.nearest.extend(report.nearest);
        *left = left.saturating_sub(1);
        if *left == 0
            && let Some((_, report)) = self.searches.remove(&search)
        {
            self.events.push_back(Event::Done { search, report });
        }
    }

    fn issue(&mut self) -> SearchId {
        self.issued += 1;
        SearchId(self.issued)
    }

    /// Whether nobody at an address of its family is answered.
    fn is_read_only(&self, remote: SocketAddr) -> bool {
        self.nodes[usize::from(remote.is_ipv6())].as_ref().is_none_or(|node| node.is_read_only())
    }

    fn node_for(&mut self, address: SocketAddr) -> Option<&mut Node> {
        self.nodes[usize::from(address.is_ipv6())].as_deref_mut()
    }
}

/// Address and port alone: what else an IPv6 address can carry differs between systems and directions.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod crowd;
