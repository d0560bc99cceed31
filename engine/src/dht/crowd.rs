//! Networks of thousands of nodes in one queue of events: honest ones, dead ones, liars, and a newcomer.
//!
//! Nodes that have been here for long are made when the first packet reaches them, their tables filled as years of life
//! would have done; so a network costs what is used of it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::*;
use crate::wire::krpc::Response;

mod tests;

/// A network.
pub(super) struct Crowd {
    pub(super) now: Instant,
    pub(super) hosts: Vec<Host>,
    by_address: BTreeMap<SocketAddr, usize>,
    /// Ids of honest nodes that are there, ascending; of IPv4 and IPv6.
    by_id: [Vec<(NodeId, usize)>; 2],
    queue: BinaryHeap<Reverse<Queued>>,
    sequence: u64,
    rng: Rng,
    seed: u64,
    /// Of a thousand packets.
    pub(super) lost_permille: u64,
    /// Nothing goes anywhere.
    pub(super) is_cut: bool,
    pub(super) packets: u64,
    /// Settled nodes know these as well.
    pub(super) known_to_all: Vec<Contact>,
}

type Arrival = (SocketAddr, Bytes);
/// When, in which order, at which host; none: it wants to be woken.
type Queued = (Instant, u64, usize, Option<Arrival>);

pub(super) struct Host {
    pub(super) address: SocketAddr,
    /// In the other family, of whoever is in both.
    address6: Option<SocketAddr>,
    pub(super) id: NodeId,
    kind: Kind,
    pub(super) dht: Option<Dht>,
    pub(super) events: Vec<Event>,
    /// Behind a box that lets in only what comes from where packets went within five minutes.
    pub(super) is_hidden: bool,
    sent_to: BTreeMap<SocketAddr, Instant>,
    pub(super) bytes_in: usize,
    pub(super) bytes_out: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Honest,
    Dead,
    /// Names others of its kind, and peers that are nowhere.
    Sybil,
    /// Names nodes that are not there, as near as can be to whatever is asked for.
    Liar,
    /// Has an item for whatever is asked for, newer than any, which its writer never signed.
    Forger,
}

impl Crowd {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            now: Instant::START + Duration::from_secs(3600),
            hosts: Vec::new(),
            by_address: BTreeMap::new(),
            by_id: [Vec::new(), Vec::new()],
            queue: BinaryHeap::new(),
            sequence: 0,
            rng: Rng::stream(seed, "crowd", 0),
            seed,
            lost_permille: 10,
            is_cut: false,
            packets: 0,
            known_to_all: Vec::new(),
        }
    }

    /// Nodes at addresses all over the world, with ids that fit them.
    pub(super) fn settle(&mut self, count: usize, dead_percent: u64) {
        self.settle_in(false, count, dead_percent);
    }

    pub(super) fn settle_in(&mut self, ipv6: bool, count: usize, dead_percent: u64) {
        for _ in 0..count {
            let address = if ipv6 { self.anywhere6() } else { self.anywhere() };
            let id = NodeId::for_address(address.ip(), self.rng.next_u32() as u8, &mut self.rng);
            let kind = if self.rng.below(100) < dead_percent { Kind::Dead } else { Kind::Honest };
            self.add(address, id, kind);
        }
        let there = |host: &Host| host.kind == Kind::Honest && host.address.is_ipv6() == ipv6;
        let honest = self.hosts.iter().enumerate().filter(|(_, host)| there(host));
        let by_id = &mut self.by_id[usize::from(ipv6)];
        *by_id = honest.map(|(at, host)| (host.id, at)).collect();
        by_id.sort();
    }

    pub(super) fn add(&mut self, address: SocketAddr, id: NodeId, kind: Kind) -> usize {
        let at = self.hosts.len();
        let host = Host {
            address,
            address6: None,
            id,
            kind,
            dht: None,
            events: Vec::new(),
            is_hidden: false,
            sent_to: BTreeMap::new(),
            bytes_in: 0,
            bytes_out: 0,
        };
        self.hosts.push(host);
        assert!(self.by_address.insert(address, at).is_none());
        at
    }

    /// A node of IPv4 that knows nobody but these.
    pub(super) fn newcomer(&mut self, starts: &[SocketAddr]) -> usize {
        self.newcomer_in((true, false), starts)
    }

    pub(super) fn newcomer_in(&mut self, families: (bool, bool), starts: &[SocketAddr]) -> usize {
        let address = if families.0 { self.anywhere() } else { self.anywhere6() };
        let seed = self.rng.next_u64();
        let mut dht = Dht::new(self.now, seed, families, false);
        starts.iter().for_each(|start| dht.add_node(self.now, *start));
        let id = dht.id(!families.0).unwrap();
        let at = self.add(address, id, Kind::Honest);
        if families == (true, true) {
            let address6 = self.anywhere6();
            self.hosts[at].address6 = Some(address6);
            self.by_address.insert(address6, at);
        }
        self.hosts[at].dht = Some(dht);
        self.after(at);
        at
    }

    pub(super) fn anywhere(&mut self) -> SocketAddr {
        loop {
            let address = SocketAddr::from((self.rng.next_u32().to_be_bytes(), 6881));
            let is_public = crate::address::Scope::of(address.ip()) == crate::address::Scope::Public;
            if is_public && is_dialable(address) && !self.by_address.contains_key(&address) {
                return address;
            }
        }
    }

    pub(super) fn anywhere6(&mut self) -> SocketAddr {
        let mut ip = [0x2a; 16];
        self.rng.fill(&mut ip[1..]);
        (ip, 6881).into()
    }

    pub(super) fn some_honest(&mut self) -> usize {
        self.some_honest_in(false)
    }

    pub(super) fn some_honest_in(&mut self, ipv6: bool) -> usize {
        loop {
            let by_id = &self.by_id[usize::from(ipv6)];
            let at = by_id[self.rng.below(by_id.len() as u64) as usize].1;
            if self.hosts[at].kind == Kind::Honest {
                return at;
            }
        }
    }

    /// The honest nodes of IPv4 nearest to a point.
    pub(super) fn truly_nearest(&self, target: &NodeId, count: usize) -> Vec<NodeId> {
        let mut ids: Vec<_> = self.by_id[0].iter().map(|(id, _)| *id).collect();
        ids.sort_by_key(|id| id.distance(target));
        ids.truncate(count);
        ids
    }

    pub(super) fn search(&mut self, host: usize, goal: Goal) -> SearchId {
        self.wake_up(host);
        let search = self.hosts[host].dht.as_mut().unwrap().search(self.now, goal);
        self.after(host);
        search
    }

    /// Runs until a search is over, two minutes at most.
    pub(super) fn report(&mut self, host: usize, search: SearchId) -> Report {
        let limit = self.now + Duration::from_secs(120);
        loop {
            let done = self.hosts[host].events.iter().find_map(|event| match event {
                Event::Done { search: its, report } if *its == search => Some(report.clone()),
                _ => None,
            });
            if let Some(report) = done {
                return report;
            }
            assert!(self.step(limit), "a search does not end");
        }
    }

    pub(super) fn peers_of(&self, host: usize, search: SearchId) -> Vec<SocketAddr> {
        let peers = self.hosts[host].events.iter().filter_map(|event| match event {
            Event::Peers { search: its, peers, .. } if *its == search => Some(peers.clone()),
            _ => None,
        });
        peers.flatten().collect()
    }

    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
        self.now = until;
    }

    /// Something arrives, as if it came from this address.
    pub(super) fn throw(&mut self, from: SocketAddr, to: usize, payload: Bytes) {
        self.sequence += 1;
        self.queue.push(Reverse((self.now, self.sequence, to, Some((from, payload)))));
    }

    fn step(&mut self, until: Instant) -> bool {
        if self.queue.peek().is_none_or(|Reverse((at, ..))| *at > until) {
            return false;
        }
        let Some(Reverse((at, _, to, arrival))) = self.queue.pop() else { return false };
        self.now = self.now.max(at);
        match arrival {
            Some((from, payload)) => self.arrive(to, from, &payload),
            None => {
                let dht = self.hosts[to].dht.as_mut().unwrap();
                if dht.poll_timeout().is_some_and(|due| due <= self.now) {
                    dht.handle_timeout(self.now);
                    self.after(to);
                }
            }
        }
        true
    }

    fn arrive(&mut self, to: usize, from: SocketAddr, payload: &Bytes) {
        let is_let_in = |at: &Instant| self.now.since(*at) < Duration::from_secs(300);
        if self.hosts[to].is_hidden && !self.hosts[to].sent_to.get(&from).is_some_and(is_let_in) {
            return;
        }
        match self.hosts[to].kind {
            Kind::Dead => {}
            Kind::Honest => {
                self.hosts[to].bytes_in += payload.len();
                self.wake_up(to);
                let answer = self.hosts[to].dht.as_mut().unwrap().handle_datagram(self.now, from, payload);
                if let Some(answer) = answer {
                    self.carry(to, from, answer);
                }
                self.after(to);
            }
            Kind::Sybil | Kind::Liar | Kind::Forger => {
                let Ok(Packet { body: Body::Query(query), transaction, .. }) = Packet::parse(payload) else {
                    return;
                };
                let response = self.lie(to, &query);
                let body = Body::Response(Box::new(response));
                let packet = Packet { transaction, body, read_only: false, external: Some(from) };
                self.carry(to, from, packet.encode().into());
            }
        }
    }

    fn lie(&mut self, host: usize, query: &Query) -> Response {
        let mut response = Response::new(self.hosts[host].id);
        let target = match query.ask {
            Ask::FindNode { target } => target,
            Ask::GetPeers { info_hash, .. } => info_hash.into(),
            Ask::Get { target, .. } => target,
            _ => return response,
        };
        response.token = Some(b"false".to_vec());
        if self.hosts[host].kind == Kind::Forger {
            let mut item = Item::mutable(&[7; 32], Vec::new(), 9, b"i9e".to_vec()).unwrap();
            item.value = b"i8e".to_vec();
            response.item = Some(item);
        } else if self.hosts[host].kind == Kind::Sybil {
            let others = self.hosts.iter().filter(|host| host.kind == Kind::Sybil);
            let others = others.map(|host| Contact { id: host.id, address: host.address });
            response.nodes = others.take(20).collect();
            response.peers = vec!["192.0.2.1:1".parse().unwrap()];
        } else {
            for _ in 0..8 {
                let address = self.anywhere();
                let id = target.random_sharing(30, &mut self.rng);
                response.nodes.push(Contact { id, address });
            }
        }
        response
    }

    /// Makes a settled node that was not needed before.
    fn wake_up(&mut self, at: usize) {
        if self.hosts[at].dht.is_some() {
            return;
        }
        let own = self.hosts[at].id;
        let ipv6 = self.hosts[at].address.is_ipv6();
        let by_id = &self.by_id[usize::from(ipv6)];
        let mut known: Vec<_> = self.known_to_all.iter().skip(at % 5).step_by(5).copied().collect();
        for bits in 0..160 {
            let first = own.random_sharing(bits, &mut self.rng);
            let sharing = |(id, _): &(NodeId, usize)| id.shared_bits(&first) > bits;
            let from = by_id.partition_point(|entry| !sharing(entry) && entry.0 < first);
            let count = by_id[from..].iter().take_while(|entry| sharing(entry)).count();
            let mut places: Vec<_> = (from..from + count).collect();
            self.rng.shuffle(&mut places);
            let nodes = places.into_iter().take(10).map(|place| by_id[place].1);
            known.extend(
                nodes.map(|host| Contact { id: self.hosts[host].id, address: self.hosts[host].address }),
            );
            let nearer = |(id, _): &&(NodeId, usize)| id.shared_bits(&own) > bits && *id != own;
            if by_id.iter().skip(from.saturating_sub(64)).take(count + 128).filter(nearer).count() == 0 {
                break;
            }
        }
        let mut dht = Dht::new(self.now, self.seed ^ at as u64, (!ipv6, ipv6), false);
        dht.nodes[usize::from(ipv6)].as_mut().unwrap().settle(self.now, own, known);
        self.hosts[at].dht = Some(dht);
        self.after(at);
    }

    /// What a node sends and when it wants to be woken.
    pub(super) fn after(&mut self, at: usize) {
        let mut dht = self.hosts[at].dht.take().unwrap();
        while let Some((to, payload)) = dht.poll_packet() {
            self.carry(at, to, payload);
        }
        while let Some(event) = dht.poll_event() {
            self.hosts[at].events.push(event);
        }
        if let Some(due) = dht.poll_timeout() {
            self.sequence += 1;
            self.queue.push(Reverse((due.max(self.now), self.sequence, at, None)));
        }
        self.hosts[at].dht = Some(dht);
    }

    fn carry(&mut self, from: usize, to: SocketAddr, payload: Bytes) {
        self.packets += 1;
        self.hosts[from].bytes_out += payload.len();
        if self.hosts[from].is_hidden {
            self.hosts[from].sent_to.insert(to, self.now);
        }
        let lost = self.rng.below(1000) < self.lost_permille;
        let latency = Duration::from_millis(10 + self.rng.below(120));
        let Some(there) = self.by_address.get(&to).copied().filter(|_| !lost && !self.is_cut) else { return };
        self.sequence += 1;
        let Host { address, address6, .. } = &self.hosts[from];
        let arrival = Some((address6.filter(|_| to.is_ipv6()).unwrap_or(*address), payload));
        self.queue.push(Reverse((self.now + latency, self.sequence, there, arrival)));
    }
}
