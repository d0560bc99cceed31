//! One iterative look-up (BEP 5): asks the nodes nearest to a point who is nearer, until the nearest have answered.
//!
//! A node is *fresh*, *asked*, *slow* (asked, and no longer waited for), *answered* or *silent*. Those nearest that count
//! are chosen with room for each network limited, so that a crowd of one network next to the point cannot be all that is
//! found: two nodes of a network, and only one whose id does not fit its address (BEP 42).
//!
//! One of the nearest that has not answered is asked once more when all others have: a packet may have been lost. Nobody is
//! asked a third time, nor more than [`ASKED_MAX`] in all, and the farthest are forgotten when liars name many.

use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};

use super::network::Network;
use super::table::BUCKET_NODES;
use crate::node_id::NodeId;
use crate::wire::krpc::Contact;

#[derive(Debug)]
pub(crate) struct Lookup {
    target: NodeId,
    /// Nearest first.
    nodes: Vec<(NodeId, Node)>,
    /// Addresses to begin with whose ids are not known, not yet asked.
    starts: Vec<SocketAddr>,
    /// Of those, who was asked and is still waited for.
    starting: BTreeSet<SocketAddr>,
    waiting: usize,
    asked: u32,
    hops: u32,
}

#[derive(Clone, Debug)]
struct Node {
    contact: Contact,
    network: Option<Network>,
    fits: bool,
    /// How often it was asked.
    asked: u32,
    /// Steps from where the look-up began.
    hops: u32,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Fresh,
    Asked,
    Slow,
    Answered { token: Option<Vec<u8>> },
    Silent,
}

impl Node {
    /// What it says counts for nothing, and it is not asked again.
    fn refuse(&mut self) {
        (self.state, self.asked) = (State::Silent, ASKED_TIMES);
    }

    /// It was asked and has not answered; it may yet.
    fn has_failed(&self) -> bool {
        matches!(self.state, State::Silent | State::Slow)
    }
}

/// A node that answered, and the token it gave.
pub(crate) type Answerer = (Contact, Option<Vec<u8>>);

impl Lookup {
    pub(crate) fn new(target: NodeId, nearest: Vec<Contact>, starts: Vec<SocketAddr>) -> Self {
        let mut this = Self {
            target,
            nodes: Vec::new(),
            starts,
            starting: BTreeSet::new(),
            waiting: 0,
            asked: 0,
            hops: 0,
        };
        nearest.into_iter().for_each(|contact| this.add(contact, 0));
        this
    }

    /// Who to ask next, if anybody may be asked now.
    pub(crate) fn next_to_ask(&self) -> Option<(SocketAddr, Option<NodeId>)> {
        if self.waiting >= ASKED_AT_ONCE || self.asked >= ASKED_MAX {
            return None;
        }
        let chosen = self.chosen();
        if let Some(at) = chosen.iter().find(|at| self.nodes[**at].1.state == State::Fresh) {
            let contact = self.nodes[*at].1.contact;
            return Some((contact.address, Some(contact.id)));
        }
        if let Some(start) = self.open_start().filter(|_| chosen.len() < BUCKET_NODES) {
            return Some((start, None));
        }
        let is_open = |at: &usize| self.nodes[*at].1.state == State::Asked && self.nodes[*at].1.asked == 1;
        let at = self.missed().filter(|_| !chosen.iter().any(is_open))?;
        let contact = self.nodes[at].1.contact;
        Some((contact.address, Some(contact.id)))
    }

    /// It was asked: whom [`Self::next_to_ask`] named.
    pub(crate) fn on_asked(&mut self, address: SocketAddr) {
        self.waiting += 1;
        self.asked += 1;
        match self.nodes.iter_mut().find(|(_, node)| node.contact.address == address) {
            Some((_, node)) if node.asked < ASKED_TIMES => {
                node.state = State::Asked;
                node.asked += 1;
            }
            _ => {
                self.starting.insert(address);
            }
        }
        self.starts.retain(|start| *start != address);
    }

    /// It answered; nodes that it named were judged by the caller.
    pub(crate) fn on_answer(
        &mut self,
        from: Contact,
        asked: Option<NodeId>,
        token: Option<Vec<u8>>,
        named: &[Contact],
    ) {
        let at = self.position(from.address);
        let hops = at.map_or(0, |at| self.nodes[at].1.hops);
        match at {
            Some(at) => {
                self.on_heard(at);
                // Whoever answers under another name than the one it was asked by has lied or been lied about.
                if asked == Some(from.id) {
                    self.nodes[at].1.state = State::Answered { token };
                } else {
                    self.nodes[at].1.refuse();
                }
                self.hops = self.hops.max(hops);
            }
            None => {
                self.on_start_heard(from.address);
                self.add(from, 0);
                if let Some(at) = self.position(from.address) {
                    self.nodes[at].1.state = State::Answered { token };
                }
            }
        }
        named.iter().take(BUCKET_NODES).for_each(|contact| self.add(*contact, hops + 1));
    }

    /// It has not answered for a while: others are asked meanwhile.
    pub(crate) fn on_slow(&mut self, address: SocketAddr) {
        match self.position(address) {
            Some(at) if self.nodes[at].1.state == State::Asked => {
                self.on_heard(at);
                self.nodes[at].1.state = State::Slow;
            }
            Some(_) => {}
            None => self.on_start_heard(address),
        }
    }

    /// It refused, or made no sense: asked again it would do so again.
    pub(crate) fn on_refusal(&mut self, address: SocketAddr) {
        let Some(at) = self.position(address) else { return self.on_start_heard(address) };
        self.on_heard(at);
        self.nodes[at].1.refuse();
    }

    /// It never answered.
    pub(crate) fn on_silence(&mut self, address: SocketAddr) {
        let Some(at) = self.position(address) else { return self.on_start_heard(address) };
        self.on_heard(at);
        // It may have answered another time.
        if matches!(self.nodes[at].1.state, State::Asked | State::Slow) {
            self.nodes[at].1.state = State::Silent;
        }
    }

    /// Whether all that can be found was found.
    pub(crate) fn is_done(&self) -> bool {
        let chosen = self.chosen();
        let open = chosen.iter().any(|at| matches!(self.nodes[*at].1.state, State::Fresh | State::Asked));
        let more = chosen.len() < BUCKET_NODES && self.open_start().is_some();
        let all = !open && !more && self.missed().is_none();
        self.waiting == 0 && (all || self.asked >= ASKED_MAX)
    }

    /// The nearest that answered, as they count.
    pub(crate) fn nearest(&self) -> Vec<Answerer> {
        let answered = |at: usize| match &self.nodes[at].1 {
            Node { contact, state: State::Answered { token }, .. } => Some((*contact, token.clone())),
            _ => None,
        };
        self.chosen().into_iter().filter_map(answered).collect()
    }

    /// Nodes asked.
    pub(crate) fn asked(&self) -> u32 {
        self.asked
    }

    /// The longest way to a node that answered.
    pub(crate) fn hops(&self) -> u32 {
        self.hops
    }

    /// A node is not waited for any more.
    fn on_heard(&mut self, at: usize) {
        if self.nodes[at].1.state == State::Asked {
            self.waiting -= 1;
        }
    }

    fn on_start_heard(&mut self, address: SocketAddr) {
        if self.starting.remove(&address) {
            self.waiting -= 1;
        }
    }

    /// An address to begin with that is not known by an id as well.
    fn open_start(&self) -> Option<SocketAddr> {
        self.starts.iter().rev().copied().find(|start| self.position(*start).is_none())
    }

    fn position(&self, address: SocketAddr) -> Option<usize> {
        self.nodes.iter().position(|(_, node)| node.contact.address == address)
    }

    fn add(&mut self, contact: Contact, hops: u32) {
        let distance = contact.id.distance(&self.target);
        let Err(at) = self.nodes.binary_search_by(|(other, _)| other.cmp(&distance)) else { return };
        if at >= NODES_MAX {
            return;
        }
        let network = Network::of(contact.address.ip());
        let same_host = |other: &Node| {
            let other = other.contact.address;
            other == contact.address || (network.is_some() && other.ip() == contact.address.ip())
        };
        // Who is asked already will say its id itself.
        if self.starting.contains(&contact.address) || self.nodes.iter().any(|(_, other)| same_host(other)) {
            return;
        }
        if network.is_some() {
            let of_it =
                |(_, other): &&(NodeId, Node)| other.network == network && other.state != State::Silent;
            if self.nodes.iter().filter(of_it).count() >= NETWORK_NODES_KNOWN {
                return;
            }
        }
        let fits = contact.id.fits(contact.address.ip());
        self.nodes
            .insert(at, (distance, Node { contact, network, fits, asked: 0, hops, state: State::Fresh }));
        if self.nodes.len() > NODES_MAX {
            let farthest = self.nodes.iter().rposition(|(_, node)| node.state == State::Fresh);
            farthest.map(|at| self.nodes.remove(at));
        }
    }

    /// Of those that would be the nearest if they answered, one that may be asked again.
    fn missed(&self) -> Option<usize> {
        let may_answer = |node: &Node| !node.has_failed() || node.asked < ASKED_TIMES;
        self.nearest_that(may_answer).into_iter().find(|at| self.nodes[*at].1.has_failed())
    }

    /// Places of the nearest that count, nearest first.
    fn chosen(&self) -> Vec<usize> {
        self.nearest_that(|node| !node.has_failed())
    }

    fn nearest_that(&self, counts: impl Fn(&Node) -> bool) -> Vec<usize> {
        let mut networks: BTreeMap<Network, (u32, u32)> = BTreeMap::new();
        let mut chosen = Vec::with_capacity(BUCKET_NODES);
        for (at, (_, node)) in self.nodes.iter().enumerate() {
            if !counts(node) {
                continue;
            }
            if let Some(network) = node.network {
                let (all, unfit) = networks.entry(network).or_default();
                if *all >= NETWORK_NODES || (!node.fits && *unfit >= NETWORK_UNFIT) {
                    continue;
                }
                *all += 1;
                *unfit += u32::from(!node.fits);
            }
            chosen.push(at);
            if chosen.len() == BUCKET_NODES {
                break;
            }
        }
        chosen
    }
}

/// Nodes asked at once (the paper's alpha is 3; libtorrent has 5).
const ASKED_AT_ONCE: usize = 4;
/// Nodes asked in all: an honest network of millions needs some forty.
const ASKED_MAX: u32 = 200;
/// How often one node is asked.
const ASKED_TIMES: u32 = 2;
/// Nodes known at once.
const NODES_MAX: usize = 100;
/// Nodes of one network that count.
const NETWORK_NODES: u32 = 2;
/// Of those, with ids that do not fit their address.
const NETWORK_UNFIT: u32 = 1;
/// Nodes of one network that are remembered.
const NETWORK_NODES_KNOWN: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn take_next(lookup: &mut Lookup) -> Option<(SocketAddr, Option<NodeId>)> {
        let next = lookup.next_to_ask()?;
        lookup.on_asked(next.0);
        Some(next)
    }

    fn contact(target: &NodeId, bits: usize, address: &str, rng: &mut Rng) -> Contact {
        Contact { id: target.random_sharing(bits, rng), address: address.parse().unwrap() }
    }

    #[test]
    fn a_crowd_of_one_network_leaves_room_for_others() {
        let mut rng = Rng::stream(1, "test", 0);
        let target = NodeId::random(&mut rng);
        let mut lookup = Lookup::new(target, Vec::new(), Vec::new());
        for n in 0..40 {
            lookup.add(contact(&target, 100 + n, &format!("203.0.{}.{n}:1", n % 4), &mut rng), 0);
        }
        for n in 0..8 {
            lookup.add(contact(&target, 12, &format!("198.51.{n}.1:1"), &mut rng), 0);
        }
        let honest = |at: &usize| lookup.nodes[*at].1.contact.id.shared_bits(&target) == 12;
        assert_eq!(lookup.chosen().iter().filter(|at| honest(at)).count(), 4);
    }

    #[test]
    fn it_ends_when_the_nearest_have_answered_and_waits_for_no_slow_one_before() {
        let mut rng = Rng::stream(1, "test", 0);
        let target = NodeId::random(&mut rng);
        let nodes: Vec<_> = (0..9).map(|n| contact(&target, n, &format!("10.0.0.{n}:1"), &mut rng)).collect();
        let mut lookup = Lookup::new(target, nodes.clone(), Vec::new());
        let mut asked = Vec::new();
        while let Some((address, _)) = take_next(&mut lookup) {
            asked.push(address);
        }
        assert_eq!(asked.len(), ASKED_AT_ONCE);
        lookup.on_slow(asked[0]);
        for address in &asked[1..] {
            let from = *nodes.iter().find(|node| node.address == *address).unwrap();
            lookup.on_answer(from, Some(from.id), None, &[]);
        }
        let mut more = 0;
        while let Some((address, _)) = take_next(&mut lookup) {
            more += 1;
            assert_eq!(asked.contains(&address), more == 6, "the slow one once more, at the end");
            let from = *nodes.iter().find(|node| node.address == address).unwrap();
            assert!(!lookup.is_done());
            lookup.on_answer(from, Some(from.id), None, &[]);
        }
        assert_eq!((more, lookup.is_done(), lookup.nearest().len()), (6, true, 8));
    }

    #[test]
    fn the_nearest_that_was_not_heard_is_asked_once_more() {
        let mut rng = Rng::stream(1, "test", 0);
        let target = NodeId::random(&mut rng);
        let nodes: Vec<_> = (0..8).map(|n| contact(&target, n, &format!("10.0.0.{n}:1"), &mut rng)).collect();
        let mut lookup = Lookup::new(target, nodes.clone(), Vec::new());
        // Two packets are lost, one node is dead, and one knows nothing of what it is asked.
        let (mut lost, dead) = (vec![nodes[2].address, nodes[6].address], nodes[4].address);
        let refuses = nodes[5].address;
        let mut asked = Vec::new();
        while let Some((address, id)) = take_next(&mut lookup) {
            asked.push(address);
            assert!(!lookup.is_done());
            if address == dead
                || lost.iter().position(|other| *other == address).map(|at| lost.remove(at)).is_some()
            {
                lookup.on_slow(address);
            } else if address == refuses {
                lookup.on_refusal(address);
            } else {
                lookup.on_answer(Contact { id: id.unwrap(), address }, id, None, &[]);
            }
        }
        // That its first question has failed for good is known later.
        lookup.on_silence(nodes[2].address);
        assert_eq!(asked[8..], [nodes[6].address, dead, nodes[2].address]);
        assert!(lookup.is_done());
        assert_eq!(lookup.nearest().len(), 6);
    }

    #[test]
    fn who_answers_under_another_name_does_not_count() {
        let mut rng = Rng::stream(1, "test", 0);
        let target = NodeId::random(&mut rng);
        let node = contact(&target, 3, "10.0.0.1:1", &mut rng);
        let mut lookup = Lookup::new(target, vec![node], vec!["10.0.0.2:1".parse().unwrap()]);
        let (_, asked) = take_next(&mut lookup).unwrap();
        lookup.on_answer(Contact { id: NodeId::random(&mut rng), ..node }, asked, None, &[]);
        assert!(lookup.nearest().is_empty() && !lookup.is_done());
        let (address, asked) = take_next(&mut lookup).unwrap();
        assert_eq!(asked, None);
        lookup.on_answer(Contact { id: NodeId::random(&mut rng), address }, asked, None, &[]);
        assert!(lookup.is_done() && lookup.nearest().len() == 1);
    }

    #[test]
    fn an_address_that_is_known_by_its_id_too_is_asked_once() {
        let mut rng = Rng::stream(1, "test", 0);
        let target = NodeId::random(&mut rng);
        let nodes: Vec<_> = (0..3).map(|n| contact(&target, n, &format!("10.0.0.{n}:1"), &mut rng)).collect();
        let starts = nodes.iter().map(|node| node.address).collect();
        let mut lookup = Lookup::new(target, nodes[..2].to_vec(), starts);
        let mut asked = Vec::new();
        while let Some((address, id)) = take_next(&mut lookup) {
            asked.push(address);
            let from = *nodes.iter().find(|node| node.address == address).unwrap();
            // Each names all.
            lookup.on_answer(from, id, None, &nodes);
        }
        asked.sort();
        assert_eq!(asked, nodes.iter().map(|node| node.address).collect::<Vec<_>>());
        assert!(lookup.is_done() && lookup.nearest().len() == 3);
    }

    #[test]
    fn liars_who_name_many_cost_little() {
        let mut rng = Rng::stream(1, "test", 0);
        let target = NodeId::random(&mut rng);
        let liar = contact(&target, 1, "10.0.0.1:1", &mut rng);
        let mut lookup = Lookup::new(target, vec![liar], Vec::new());
        let mut count = 0;
        while let Some((address, asked)) = take_next(&mut lookup) {
            count += 1;
            let named: Vec<_> = (0..20u32)
                .map(|n| {
                    contact(
                        &target,
                        20 + count as usize,
                        &format!("10.{n}.{}.{}:1", count / 200, count % 200),
                        &mut rng,
                    )
                })
                .collect();
            lookup.on_answer(Contact { id: asked.unwrap(), address }, asked, None, &named);
        }
        assert!(count <= ASKED_MAX && lookup.nodes.len() <= NODES_MAX && lookup.is_done(), "{count}");
    }
}
