//! A node in the network of one family: what it asks, whom it knows, what its look-ups come to. Answers to others are
//! the server's.
//!
//! It is *joining* until a look-up for its own id has found nodes: saved nodes, addresses it was told of and names are
//! tried again and again, with growing pauses, for ever; so being offline at the start heals by itself. Then it is
//! *joined*, looks into buckets that have room, and from then on asks only what was silent for 15 minutes. When nobody in
//! the table answers any more it is joining again. A network of a few nodes may be a part that was cut off when it began:
//! names, and whoever did not answer, are asked from time to time.
//!
//! A question counts as *slow* after 1.5 s, so that others are asked meanwhile, and fails after 10 s. An answer counts only
//! when it comes from the address that was asked and brings back the 32 random bits of the question.

mod lookup;
mod network;
mod reach;
mod search;
mod table;
mod votes;

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use self::lookup::Lookup;
use self::reach::Reach;
use self::search::{Found, Search};
pub(crate) use self::table::BUCKET_NODES;
use self::table::Table;
use self::votes::Votes;
use super::server::FILL_BYTES;
use super::{Goal, Report, SearchId};
use crate::address::{is_acceptable, is_dialable};
use crate::allowance::Allowance;
use crate::ids::InfoHash;
use crate::node_id::NodeId;
use crate::rng::Rng;
use crate::time::Instant;
use crate::wire::krpc::{Ask, Body, Contact, Packet, Query, Response, Want};

#[derive(Debug)]
pub(crate) struct Node {
    ipv6: bool,
    read_only: bool,
    rng: Rng,
    table: Table,
    reach: Reach,
    votes: Votes,
    pending: BTreeMap<u32, Pending>,
    deadlines: BTreeSet<(Instant, u32)>,
    searches: BTreeMap<Key, Search>,
    /// Searches that begin when others have ended.
    line: VecDeque<(Key, Goal)>,
    /// Addresses to begin with.
    starts: VecDeque<SocketAddr>,
    queries: Allowance,
    /// A search could not ask as it wanted; when it may.
    starved_until: Option<Instant>,
    /// When to look for our own id again.
    join_at: Option<Instant>,
    /// Our id has changed meanwhile.
    join_again: bool,
    join_failures: u32,
    joined: bool,
    /// When names and silent addresses are asked again, if the network is small.
    knock_at: Instant,
    maintain_at: Instant,
    issued: u64,
    packets: VecDeque<(SocketAddr, Bytes)>,
    events: VecDeque<NodeEvent>,
}

/// What happened to a node.
#[derive(Debug)]
pub(crate) enum NodeEvent {
    /// A search has found peers.
    Peers { search: SearchId, from: SocketAddr, peers: Vec<SocketAddr> },
    /// A search has found swarms.
    InfoHashes { search: SearchId, info_hashes: Vec<InfoHash> },
    /// A search is over in this family.
    Done { search: SearchId, report: Report },
    /// There are nodes again.
    Joined,
    /// There are too few to begin with: more addresses are needed.
    Lonely,
    /// Our address as others see it.
    External(IpAddr),
    /// A node of the other family.
    Foreign(SocketAddr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Join,
    Refresh(u64),
    Asked(SearchId),
}

#[derive(Debug)]
struct Pending {
    remote: SocketAddr,
    id: Option<NodeId>,
    purpose: Purpose,
    fails_at: Instant,
    slow: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Search(Key),
    Tell(Key),
    Check,
    Ping(SearchId),
}

impl Node {
    pub(crate) fn new(now: Instant, ipv6: bool, read_only: bool, mut rng: Rng) -> Self {
        Self {
            ipv6,
            read_only,
            table: Table::new(NodeId::random(&mut rng), now),
            rng,
            reach: Reach::default(),
            votes: Votes::default(),
            pending: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            searches: BTreeMap::new(),
            line: VecDeque::new(),
            starts: VecDeque::new(),
            queries: Allowance::new(QUERIES_PER_SECOND, QUERIES_BURST),
            starved_until: None,
            join_at: Some(now),
            join_again: false,
            join_failures: 0,
            joined: false,
            knock_at: now + KNOCK_EVERY,
            maintain_at: now + MAINTAIN_MIN,
            issued: 0,
            packets: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.table.own()
    }

    pub(crate) fn table_len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn depth(&self) -> usize {
        self.table.depth()
    }

    pub(crate) fn is_joined(&self) -> bool {
        self.joined
    }

    pub(crate) fn nearest(&self, target: &NodeId) -> Vec<Contact> {
        self.table.nearest(target, BUCKET_NODES)
    }

    pub(crate) fn has_answered(&self, address: SocketAddr) -> bool {
        self.table.has_address(address)
    }

    /// Nodes to begin with next time, and addresses that were not reached yet.
    pub(crate) fn saved(&self) -> Vec<SocketAddr> {
        let known: BTreeSet<_> = self.table.contacts().map(|contact| contact.address).collect();
        let untried = self.starts.iter().filter(|address| !known.contains(address)).copied();
        known.iter().copied().chain(untried).collect()
    }

    /// As if it had been here for long: an id, and nodes that have answered.
    #[cfg(test)]
    pub(crate) fn settle(&mut self, now: Instant, id: NodeId, known: impl IntoIterator<Item = Contact>) {
        self.table = Table::new(id, now);
        known.into_iter().for_each(|contact| self.table.on_answer(now, contact));
        (self.joined, self.join_at) = (true, None);
    }

    pub(crate) fn poll_packet(&mut self) -> Option<(SocketAddr, Bytes)> {
        self.packets.pop_front()
    }

    pub(crate) fn poll_event(&mut self) -> Option<NodeEvent> {
        self.events.pop_front()
    }

    /// A node may be there.
    pub(crate) fn add_start(&mut self, now: Instant, address: SocketAddr) {
        if !is_dialable(address) || self.starts.contains(&address) || self.table.has_address(address) {
            return;
        }
        if self.starts.len() >= STARTS_MAX {
            self.starts.pop_front();
        }
        self.starts.push_back(address);
        if self.table.sound() < BUCKET_NODES && !self.searches.contains_key(&Key::Join) {
            // Not each by itself when many come together.
            let soon = now + START_DELAY;
            self.join_at = Some(self.join_at.map_or(soon, |at| at.min(soon)));
        }
    }

    /// The network may be another one, or back: nothing is waited for.
    pub(crate) fn renew(&mut self, now: Instant) {
        self.join_failures = 0;
        self.reach.renew();
        if !self.searches.contains_key(&Key::Join) {
            self.join_at = Some(now);
        }
    }

    /// Begins a search, or puts it in line.
    pub(crate) fn search(&mut self, now: Instant, search: SearchId, goal: Goal) {
        self.enter(now, Key::Asked(search), goal);
    }

    /// Ends a search at once.
    pub(crate) fn cancel(&mut self, now: Instant, search: SearchId) {
        let key = Key::Asked(search);
        self.line.retain(|(other, _)| *other != key);
        if self.searches.remove(&key).is_some() {
            self.begin_next(now);
        }
    }

    /// Asks one address for a sign of life.
    pub(crate) fn ping(&mut self, now: Instant, search: SearchId, address: SocketAddr) {
        self.send(now, address, None, Purpose::Ping(search), Ask::Ping);
    }

    /// Whether we answer nobody, and want to be in nobody's table (BEP 43).
    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only || self.reach.is_closed()
    }

    /// Somebody asks us something.
    pub(crate) fn on_question(&mut self, now: Instant, from: SocketAddr) {
        self.reach.on_question(now, from);
    }

    /// A node that we do not know asked us something: it gets a place if it answers.
    pub(crate) fn consider(&mut self, now: Instant, contact: Contact, bytes_max: usize) {
        self.table.on_query(now, contact);
        let is_new = !self.table.has_address(contact.address) && self.table.has_room_for(&contact);
        let busy = self.pending.len() >= CONSIDERING_MAX
            || self.pending.values().any(|pending| pending.remote == contact.address);
        if is_new && !busy && bytes_max >= PING_BYTES && self.queries.take(now, 1) {
            self.send(now, contact.address, Some(contact.id), Purpose::Check, Ask::Ping);
        }
    }

    /// An answer, or a refusal.
    pub(crate) fn handle_answer(&mut self, now: Instant, remote: SocketAddr, packet: Packet) {
        let Some(transaction) = packet.transaction.try_into().ok().map(u32::from_be_bytes) else { return };
        if self.pending.get(&transaction).is_none_or(|pending| pending.remote != remote) {
            return;
        }
        let Some(pending) = self.forget(transaction) else { return };
        match packet.body {
            Body::Response(response) if response.id != self.table.own() => {
                let contact = Contact { id: response.id, address: remote };
                if pending.id.is_none_or(|id| id == response.id) {
                    self.table.on_answer(now, contact);
                } else {
                    self.on_silence(now, remote);
                }
                self.starts.retain(|start| *start != remote);
                if let Some(external) = packet.external {
                    self.on_vote(now, remote.ip(), external.ip());
                }
                self.on_response(now, &pending, contact, *response);
                self.note_joined(now);
            }
            Body::Error { code } => self.on_failed(now, &pending, Some(code), Lookup::on_refusal),
            // It gave our own id as its own.
            _ => self.on_failed(now, &pending, None, Lookup::on_refusal),
        }
    }

    /// The time of [`Self::poll_timeout`] has come. Early calls do nothing.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, transaction)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.deadlines.remove(&(at, transaction));
            let Some(pending) = self.pending.get_mut(&transaction) else { continue };
            if pending.slow {
                if let Some(pending) = self.forget(transaction) {
                    self.on_silence(now, pending.remote);
                    self.on_failed(now, &pending, None, Lookup::on_silence);
                }
                continue;
            }
            pending.slow = true;
            self.deadlines.insert((pending.fails_at, transaction));
            let (purpose, remote) = (pending.purpose, pending.remote);
            if let Purpose::Search(key) = purpose
                && let Some(search) = self.searches.get_mut(&key)
            {
                search.lookup.on_slow(remote);
                self.advance(now, key);
            }
        }
        if self.join_at.is_some_and(|at| at <= now) {
            self.join(now);
        }
        if self.maintain_at <= now {
            self.maintain(now);
        }
        if self.starved_until.is_some_and(|at| at <= now) {
            self.starved_until = None;
            let all: Vec<_> = self.searches.keys().copied().collect();
            all.into_iter().for_each(|key| self.advance(now, key));
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        [deadline, self.join_at, self.starved_until, Some(self.maintain_at)].into_iter().flatten().min()
    }

    fn on_response(&mut self, now: Instant, pending: &Pending, from: Contact, response: Response) {
        let key = match pending.purpose {
            Purpose::Search(key) => key,
            Purpose::Tell(key) => return self.on_told(now, key, Ok(())),
            Purpose::Check => return,
            Purpose::Ping(search) => {
                let report = Report { asked: 1, nearest: vec![from], ..Report::default() };
                return self.events.push_back(NodeEvent::Done { search, report });
            }
        };
        let (ours, theirs) = match self.ipv6 {
            true => (&response.nodes6, &response.nodes),
            false => (&response.nodes, &response.nodes6),
        };
        let theirs = theirs.iter().map(|contact| contact.address);
        let foreign = theirs.filter(|address| is_acceptable(*address, from.address.ip())).take(BUCKET_NODES);
        self.events.extend(foreign.map(NodeEvent::Foreign));
        let own = self.table.own();
        let Some(search) = self.searches.get_mut(&key) else { return };
        let judge = |contact: &&Contact| {
            contact.id != own
                && contact.address.is_ipv6() == self.ipv6
                && is_acceptable(contact.address, from.address.ip())
        };
        let named: Vec<_> = ours.iter().filter(judge).copied().collect();
        search.lookup.on_answer(from, pending.id, response.token.clone(), &named);
        let found = search.on_response(from.address, response);
        if let (Key::Asked(search), Some(found)) = (key, found) {
            self.events.push_back(match found {
                Found::Peers(peers) => NodeEvent::Peers { search, from: from.address, peers },
                Found::InfoHashes(info_hashes) => NodeEvent::InfoHashes { search, info_hashes },
            });
        }
        self.advance(now, key);
    }

    /// No answer that counts; `tell` is what a look-up makes of it.
    fn on_failed(
        &mut self,
        now: Instant,
        pending: &Pending,
        code: Option<i64>,
        tell: fn(&mut Lookup, SocketAddr),
    ) {
        match pending.purpose {
            Purpose::Search(key) => {
                if let Some(search) = self.searches.get_mut(&key) {
                    tell(&mut search.lookup, pending.remote);
                    self.advance(now, key);
                }
            }
            Purpose::Tell(key) => self.on_told(now, key, Err(code)),
            Purpose::Check => {}
            Purpose::Ping(search) => {
                let report = Report { asked: 1, ..Report::default() };
                self.events.push_back(NodeEvent::Done { search, report });
            }
        }
    }

    fn enter(&mut self, now: Instant, key: Key, goal: Goal) {
        if self.searches.len() >= SEARCHES_MAX && key != Key::Join {
            self.line.push_back((key, goal));
            return;
        }
        let target = goal.target();
        let nearest = self.table.nearest(&target, BUCKET_NODES);
        // Where nobody answers any more, whoever did is as good as any.
        let few = nearest.len() < BUCKET_NODES;
        let starts = if few { self.saved() } else { Vec::new() };
        let lookup = Lookup::new(target, nearest, starts);
        self.searches.insert(key, Search::new(goal, lookup));
        self.advance(now, key);
    }

    /// Asks as many as may be asked, and ends the look-up when it is over.
    fn advance(&mut self, now: Instant, key: Key) {
        loop {
            let Some(search) = self.searches.get_mut(&key) else { return };
            if search.is_telling() {
                return;
            }
            if search.lookup.is_done() || search.is_found() {
                return self.finish(now, key);
            }
            if self.pending.len() >= PENDING_MAX {
                self.starved_until = Some(now + SLOW_TIME);
                return;
            }
            let Some((address, id)) = search.lookup.next_to_ask() else { return };
            if !self.queries.take(now, 1) {
                self.starved_until = Some(self.queries.next_at());
                return;
            }
            search.lookup.on_asked(address);
            let ask = search.goal.ask(FILL_BYTES);
            self.send(now, address, id, Purpose::Search(key), ask);
        }
    }

    /// The look-up is over; whoever has a token is told, where that is the goal.
    fn finish(&mut self, now: Instant, key: Key) {
        let Some(search) = self.searches.get_mut(&key) else { return };
        for (contact, ask) in search.tell() {
            self.send(now, contact.address, Some(contact.id), Purpose::Tell(key), ask);
        }
        self.end_if_told(now, key);
    }

    fn on_told(&mut self, now: Instant, key: Key, result: Result<(), Option<i64>>) {
        if let Some(search) = self.searches.get_mut(&key) {
            search.on_told(result);
        }
        self.end_if_told(now, key);
    }

    fn end_if_told(&mut self, now: Instant, key: Key) {
        if !self.searches.get(&key).is_some_and(Search::is_over) {
            return;
        }
        let Some(search) = self.searches.remove(&key) else { return };
        match key {
            Key::Join => self.on_join_ended(now),
            Key::Refresh(_) => {}
            Key::Asked(id) => {
                self.events.push_back(NodeEvent::Done { search: id, report: search.report() });
            }
        }
        self.begin_next(now);
    }

    fn begin_next(&mut self, now: Instant) {
        if self.searches.len() < SEARCHES_MAX
            && let Some((key, goal)) = self.line.pop_front()
        {
            self.enter(now, key, goal);
        }
    }

    fn join(&mut self, now: Instant) {
        self.join_at = None;
        if self.searches.contains_key(&Key::Join) {
            self.join_again = true;
            return;
        }
        if self.table.sound() < BUCKET_NODES {
            self.events.push_back(NodeEvent::Lonely);
        }
        self.enter(now, Key::Join, Goal::Nodes { target: self.table.own() });
    }

    fn on_join_ended(&mut self, now: Instant) {
        if std::mem::take(&mut self.join_again) {
            self.join_at = Some(now);
            return;
        }
        let sound = self.table.sound();
        if sound > 0 {
            let thin = self.table.thin(now, &mut self.rng);
            // A small network has no more than this to give.
            let few = if sound < BUCKET_NODES { 1 } else { thin.len() };
            for target in thin.into_iter().take(few) {
                self.issued += 1;
                self.enter(now, Key::Refresh(self.issued), Goal::Nodes { target });
            }
        }
        if sound >= BUCKET_NODES {
            self.join_failures = 0;
            return;
        }
        let first = if sound == 0 { JOIN_RETRY_FIRST } else { JOIN_RETRY_FEW };
        let wait = first.saturating_mul(1 << self.join_failures.min(10)).min(JOIN_RETRY_MAX);
        let jitter = Duration::from_nanos(self.rng.below(wait.as_nanos() as u64 / 4));
        self.join_failures += 1;
        self.join_at = Some(now + wait + jitter);
    }

    fn note_joined(&mut self, now: Instant) {
        let has_nodes = self.table.sound() > 0;
        if has_nodes && !self.joined {
            self.events.push_back(NodeEvent::Joined);
        }
        if !has_nodes && self.joined {
            self.join_failures = 0;
            self.join_at = Some(self.join_at.unwrap_or(now));
        }
        self.joined = has_nodes;
    }

    /// One question to whoever was silent long, one look into a bucket where nothing happens.
    fn maintain(&mut self, now: Instant) {
        self.note_joined(now);
        self.knock(now);
        self.reach.judge(now, self.table.sound());
        if let Some(contact) = self.table.take_questionable(now)
            && self.queries.take(now, 1)
        {
            let ask = Ask::FindNode { target: self.table.own() };
            self.send(now, contact.address, Some(contact.id), Purpose::Check, ask);
        }
        if self.joined
            && let Some(target) = self.table.take_stale(now, &mut self.rng)
        {
            self.issued += 1;
            self.enter(now, Key::Refresh(self.issued), Goal::Nodes { target });
        }
        let jitter = Duration::from_nanos(self.rng.below(MAINTAIN_MIN.as_nanos() as u64 / 4));
        let soonest = now + MAINTAIN_MIN + jitter;
        let latest = now + MAINTAIN_MAX;
        self.maintain_at = self.table.due().map_or(latest, |due| due.min(latest)).max(soonest);
    }

    /// Asks in a small network, now and then, whoever might know of a larger one.
    fn knock(&mut self, now: Instant) {
        let is_small = (BUCKET_NODES..SMALL_NETWORK_NODES).contains(&self.table.sound());
        if now < self.knock_at || !is_small {
            return;
        }
        self.knock_at = now + KNOCK_EVERY;
        self.events.push_back(NodeEvent::Lonely);
        let silent: Vec<_> = self.starts.iter().rev().take(KNOCKS_MAX).copied().collect();
        for address in silent {
            if self.queries.take(now, 1) {
                self.send(now, address, None, Purpose::Check, Ask::FindNode { target: self.table.own() });
            }
        }
    }

    /// Whoever left the table may be back after an outage: it is a place to begin.
    fn on_silence(&mut self, now: Instant, address: SocketAddr) {
        if self.table.on_silence(now, address) {
            if self.starts.len() >= STARTS_MAX {
                self.starts.pop_front();
            }
            self.starts.push_back(address);
        }
    }

    fn on_vote(&mut self, now: Instant, voter: IpAddr, ours: IpAddr) {
        let Some(ip) = self.votes.cast(voter, ours) else { return };
        self.events.push_back(NodeEvent::External(ip));
        if !self.table.own().fits(ip) {
            let draw = self.rng.next_u32() as u8;
            let own = NodeId::for_address(ip, draw, &mut self.rng);
            self.table.rename(own, now);
            self.join_at = Some(now);
        }
    }

    fn send(&mut self, now: Instant, remote: SocketAddr, id: Option<NodeId>, purpose: Purpose, ask: Ask) {
        let transaction = loop {
            let transaction = self.rng.next_u32();
            if !self.pending.contains_key(&transaction) {
                break transaction;
            }
        };
        let pending = Pending { remote, id, purpose, fails_at: now + ANSWER_TIME, slow: false };
        self.pending.insert(transaction, pending);
        self.deadlines.insert((now + SLOW_TIME, transaction));
        let want = if self.joined { Want::default() } else { Want { v4: true, v6: true } };
        let want = if matches!(ask, Ask::FindNode { .. }) { want } else { Want::default() };
        let packet = Packet {
            transaction: transaction.to_be_bytes().to_vec(),
            body: Body::Query(Query { id: self.table.own(), want, ask }),
            read_only: self.is_read_only(),
            external: None,
        };
        self.reach.on_sent(now, remote);
        self.packets.push_back((remote, packet.encode().into()));
    }

    fn forget(&mut self, transaction: u32) -> Option<Pending> {
        let pending = self.pending.remove(&transaction)?;
        let slow_at = pending.fails_at - ANSWER_TIME + SLOW_TIME;
        self.deadlines.remove(&(if pending.slow { pending.fails_at } else { slow_at }, transaction));
        Some(pending)
    }
}

/// From a question to when others are asked meanwhile.
const SLOW_TIME: Duration = Duration::from_millis(1500);
/// From a question to when it has failed; jech's.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Look-ups at once; others wait in line.
const SEARCHES_MAX: usize = 16;
/// Questions under way.
const PENDING_MAX: usize = 256;
/// Questions under way beyond which nobody new is asked for a sign of life.
const CONSIDERING_MAX: usize = 32;
/// Our questions, over all look-ups.
const QUERIES_PER_SECOND: u64 = 50;
const QUERIES_BURST: u64 = 100;
/// Addresses to begin with.
const STARTS_MAX: usize = 100;
/// A ping, at least.
const PING_BYTES: usize = 70;
/// From an address that we were told of to asking it.
const START_DELAY: Duration = Duration::from_millis(100);
/// From a first attempt that found nobody to the next; doubles.
const JOIN_RETRY_FIRST: Duration = Duration::from_secs(2);
/// The same where there are a few nodes.
const JOIN_RETRY_FEW: Duration = Duration::from_secs(15);
const JOIN_RETRY_MAX: Duration = Duration::from_secs(2 * 60);
/// A network of fewer nodes is small.
const SMALL_NETWORK_NODES: usize = 4 * BUCKET_NODES;
const KNOCK_EVERY: Duration = Duration::from_secs(3 * 60);
/// Addresses asked at once.
const KNOCKS_MAX: usize = 8;
/// Between two looks at the table.
const MAINTAIN_MIN: Duration = Duration::from_secs(5);
const MAINTAIN_MAX: Duration = Duration::from_secs(60);
