//! The routing table of one family (BEP 5): nodes that have answered us, many near our own id and few far away.
//!
//! Bucket `n` holds nodes that share exactly `n` leading bits with our id, the last one those that share more; it splits
//! when it is full. A node is *good* while it answered or asked within 15 minutes and owes nothing, *questionable* when it
//! was silent longer, *bad* when it left two questions unanswered and another could take its place.
//!
//! Never here: a node that has not answered us, our own id, two nodes of one public address, more than two of one network
//! in a bucket or ten in the table (`reliability.md` D1).

use core::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::network::Network;
use crate::node_id::NodeId;
use crate::rng::Rng;
use crate::time::Instant;
use crate::wire::krpc::Contact;

#[derive(Debug)]
pub(crate) struct Table {
    own: NodeId,
    buckets: Vec<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    live: Vec<Entry>,
    /// Who takes the place of a bad one, the latest last.
    spare: Vec<Entry>,
    /// Something in it changed, or was looked for.
    touched: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    contact: Contact,
    /// The last answer or question.
    heard: Instant,
    failures: u8,
    /// Its id may be had at its address (BEP 42).
    fits: bool,
}

impl Table {
    pub(crate) fn new(own: NodeId, now: Instant) -> Self {
        Self { own, buckets: vec![Bucket::new(now)] }
    }

    pub(crate) fn own(&self) -> NodeId {
        self.own
    }

    /// Nodes in use.
    pub(crate) fn len(&self) -> usize {
        self.buckets.iter().map(|bucket| bucket.live.len()).sum()
    }

    /// Nodes in use that owe no answer.
    pub(crate) fn sound(&self) -> usize {
        self.live().filter(|entry| entry.failures == 0).count()
    }

    /// How many buckets there are.
    pub(crate) fn depth(&self) -> usize {
        self.buckets.len()
    }

    /// Whether a node at this address is in use: it has answered us from there.
    pub(crate) fn has_address(&self, address: SocketAddr) -> bool {
        self.live().any(|entry| entry.contact.address == address)
    }

    /// It answered.
    pub(crate) fn on_answer(&mut self, now: Instant, contact: Contact) {
        if contact.id == self.own {
            return;
        }
        let at = self.bucket_of(&contact.id);
        if let Some(entry) = self.buckets[at].live.iter_mut().find(|entry| entry.contact.id == contact.id) {
            // Whoever takes the name of another has to wait until that one is gone.
            if entry.contact.address == contact.address || entry.failures > 0 {
                *entry = Entry::new(now, contact);
            }
            return;
        }
        self.remove_at(contact.address);
        if self.is_crowded(at, contact.address) {
            return;
        }
        self.insert(now, Entry::new(now, contact));
    }

    /// It asked us something.
    pub(crate) fn on_query(&mut self, now: Instant, contact: Contact) {
        let at = self.bucket_of(&contact.id);
        let found = self.buckets[at].live.iter_mut().find(|entry| entry.contact == contact);
        if let Some(entry) = found.filter(|entry| entry.failures == 0) {
            entry.heard = now;
        }
    }

    /// It left a question unanswered. True when it has left the table with that.
    pub(crate) fn on_silence(&mut self, now: Instant, address: SocketAddr) -> bool {
        let mut has_left = false;
        for bucket in &mut self.buckets {
            bucket.spare.retain(|entry| entry.contact.address != address);
            let Some(at) = bucket.live.iter().position(|entry| entry.contact.address == address) else {
                continue;
            };
            let failures = bucket.live[at].failures.saturating_add(1);
            bucket.live[at].failures = failures;
            if failures >= FAILURES_BAD
                && let Some(spare) = bucket.spare.pop()
            {
                bucket.live[at] = spare;
                bucket.touched = now;
                has_left = true;
            } else if failures >= FAILURES_MAX {
                bucket.live.remove(at);
                has_left = true;
            }
        }
        has_left
    }

    /// Whether a node that we do not know could get a place.
    pub(crate) fn has_room_for(&self, contact: &Contact) -> bool {
        if contact.id == self.own {
            return false;
        }
        let at = self.bucket_of(&contact.id);
        let bucket = &self.buckets[at];
        let room =
            bucket.live.len() < BUCKET_NODES || self.can_split(at) || bucket.spare.len() < BUCKET_NODES;
        room && !self.is_crowded(at, contact.address)
    }

    /// The nodes nearest to a point that owe no answer, nearest first.
    pub(crate) fn nearest(&self, target: &NodeId, count: usize) -> Vec<Contact> {
        let sound = self.live().filter(|entry| entry.failures == 0);
        let mut near: Vec<_> =
            sound.map(|entry| (entry.contact.id.distance(target), entry.contact)).collect();
        near.sort_unstable_by_key(|(distance, _)| *distance);
        near.truncate(count);
        near.into_iter().map(|(_, contact)| contact).collect()
    }

    /// All nodes in use.
    pub(crate) fn contacts(&self) -> impl Iterator<Item = Contact> {
        self.live().map(|entry| entry.contact)
    }

    /// Who should be asked whether it is still there: the one that was silent longest.
    pub(crate) fn take_questionable(&mut self, now: Instant) -> Option<Contact> {
        let live = self.buckets.iter_mut().flat_map(|bucket| &mut bucket.live);
        let oldest = live.min_by_key(|entry| entry.heard)?;
        if now.since(oldest.heard) < SILENCE_MAX {
            return None;
        }
        // Not asked again at once while it does not answer.
        oldest.heard = now - SILENCE_MAX + ASK_AGAIN;
        Some(oldest.contact)
    }

    /// A point in a bucket in which nothing has happened for 15 minutes.
    pub(crate) fn take_stale(&mut self, now: Instant, rng: &mut Rng) -> Option<NodeId> {
        let (at, oldest) = self.buckets.iter_mut().enumerate().min_by_key(|(_, bucket)| bucket.touched)?;
        if now.since(oldest.touched) < SILENCE_MAX {
            return None;
        }
        oldest.touched = now;
        Some(self.own.random_sharing(at, rng))
    }

    /// Points in all buckets that have room, and in those that the last one would be split into by one more.
    pub(crate) fn thin(&mut self, now: Instant, rng: &mut Rng) -> Vec<NodeId> {
        let (own, last) = (self.own, self.buckets.len() - 1);
        let shared = self.buckets[last].live.iter().map(|entry| own.shared_bits(&entry.contact.id));
        let within_last = last + 1..=shared.min().unwrap_or(last);
        let has_room = |(at, bucket): &(usize, &mut Bucket)| *at == last || bucket.live.len() < BUCKET_NODES;
        let thin = self.buckets.iter_mut().enumerate().filter(has_room).map(|(at, bucket)| {
            bucket.touched = now;
            at
        });
        thin.chain(within_last).map(|bits| own.random_sharing(bits, rng)).collect()
    }

    /// When one of the two above has something to say.
    pub(crate) fn due(&self) -> Option<Instant> {
        let heard = self.live().map(|entry| entry.heard).min();
        let touched = self.buckets.iter().map(|bucket| bucket.touched).min();
        heard.into_iter().chain(touched).min().map(|at| at + SILENCE_MAX)
    }

    /// The same nodes around another id.
    pub(crate) fn rename(&mut self, own: NodeId, now: Instant) {
        let old = std::mem::replace(self, Self::new(own, now));
        for entry in old.buckets.into_iter().flat_map(|bucket| bucket.live) {
            if entry.contact.id != own {
                self.insert(now, entry);
            }
        }
    }

    fn live(&self) -> impl Iterator<Item = &Entry> {
        self.buckets.iter().flat_map(|bucket| &bucket.live)
    }

    fn bucket_of(&self, id: &NodeId) -> usize {
        self.own.shared_bits(id).min(self.buckets.len() - 1)
    }

    fn can_split(&self, at: usize) -> bool {
        at + 1 == self.buckets.len() && self.buckets.len() < BUCKETS_MAX
    }

    fn insert(&mut self, now: Instant, entry: Entry) {
        let mut at = self.bucket_of(&entry.contact.id);
        while self.buckets[at].live.len() >= BUCKET_NODES && self.can_split(at) {
            self.split(now);
            at = self.bucket_of(&entry.contact.id);
        }
        let bucket = &mut self.buckets[at];
        if bucket.live.len() < BUCKET_NODES {
            bucket.touched = now;
            bucket.live.push(entry);
            return;
        }
        let bad = bucket.live.iter().position(|live| live.failures >= FAILURES_BAD);
        let unfit = || bucket.live.iter().position(|live| entry.fits && !live.fits);
        let displaced = match bad.or_else(unfit) {
            Some(at) => std::mem::replace(&mut bucket.live[at], entry),
            None => entry,
        };
        if displaced.failures < FAILURES_BAD {
            bucket.spare.retain(|spare| spare.contact.id != displaced.contact.id);
            if bucket.spare.len() == BUCKET_NODES {
                bucket.spare.remove(0);
            }
            bucket.spare.push(displaced);
        }
    }

    /// The last bucket becomes two.
    fn split(&mut self, now: Instant) {
        let at = self.buckets.len() - 1;
        let mut next = Bucket::new(now);
        next.touched = self.buckets[at].touched;
        let bucket = &mut self.buckets[at];
        for (from, to) in [(&mut bucket.live, &mut next.live), (&mut bucket.spare, &mut next.spare)] {
            let (nearer, here) =
                from.drain(..).partition(|entry| self.own.shared_bits(&entry.contact.id) > at);
            (*to, *from) = (nearer, here);
        }
        self.buckets.push(next);
    }

    /// Whoever is at this address, on public networks at this host, has another name now.
    fn remove_at(&mut self, address: SocketAddr) {
        let host = Network::of(address.ip()).is_some();
        let same = |entry: &Entry| {
            let other = entry.contact.address;
            other == address || (host && other.ip() == address.ip())
        };
        for bucket in &mut self.buckets {
            bucket.live.retain(|entry| !same(entry));
            bucket.spare.retain(|entry| !same(entry));
        }
    }

    /// Whether there are enough nodes of its network already.
    fn is_crowded(&self, at: usize, address: SocketAddr) -> bool {
        let Some(network) = Network::of(address.ip()) else { return false };
        let same = |entry: &&Entry| Network::of(entry.contact.address.ip()) == Some(network);
        let bucket = &self.buckets[at];
        let near = bucket.live.iter().chain(&bucket.spare).filter(same).count();
        near >= NETWORK_NODES_PER_BUCKET || self.live().filter(same).count() >= NETWORK_NODES_MAX
    }
}

impl Bucket {
    fn new(now: Instant) -> Self {
        Self { live: Vec::new(), spare: Vec::new(), touched: now }
    }
}

impl Entry {
    fn new(now: Instant, contact: Contact) -> Self {
        Self { contact, heard: now, failures: 0, fits: contact.id.fits(ip_of(&contact)) }
    }
}

fn ip_of(contact: &Contact) -> IpAddr {
    contact.address.ip()
}

/// Nodes in a bucket (BEP 5: K).
pub(crate) const BUCKET_NODES: usize = 8;
/// One for each bit.
const BUCKETS_MAX: usize = 160;
/// Questions left unanswered after which another takes the place.
const FAILURES_BAD: u8 = 2;
/// After which the place is given up even to nobody; libtorrent's is 20.
const FAILURES_MAX: u8 = 10;
/// How long a node is good without a word, and a bucket without a change (BEP 5).
const SILENCE_MAX: Duration = Duration::from_secs(15 * 60);
/// From a question to a node that was silent to the next one.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// Nodes of one network in a bucket, spare ones included.
const NETWORK_NODES_PER_BUCKET: usize = 2;
/// Nodes of one network in all.
const NETWORK_NODES_MAX: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn contact(own: &NodeId, bits: usize, address: &str, rng: &mut Rng) -> Contact {
        Contact { id: own.random_sharing(bits, rng), address: address.parse().unwrap() }
    }

    fn table() -> (Table, Rng) {
        let mut rng = Rng::stream(1, "test", 0);
        (Table::new(NodeId::random(&mut rng), Instant::START), rng)
    }

    #[test]
    fn the_bucket_near_ourselves_splits_and_others_keep_spares() {
        let (mut table, mut rng) = table();
        for (bits, count) in [(0, 40), (1, 20), (2, 12), (5, 3)] {
            for n in 0..count {
                let node = contact(&table.own(), bits, &format!("10.{bits}.0.{n}:1"), &mut rng);
                table.on_answer(Instant::START, node);
            }
        }
        let sizes: Vec<_> =
            table.buckets.iter().map(|bucket| (bucket.live.len(), bucket.spare.len())).collect();
        assert_eq!(sizes, [(8, 8), (8, 8), (8, 4), (3, 0)]);
        let own = table.own();
        let nearest = table.nearest(&own, 3);
        assert!(nearest.iter().all(|contact| contact.id.shared_bits(&own) == 5));
    }

    #[test]
    fn a_bad_node_gives_its_place_to_a_spare_and_no_other_does() {
        let (mut table, mut rng) = table();
        let own = table.own();
        let far: Vec<_> = (0..9).map(|n| contact(&own, 0, &format!("10.0.0.{n}:1"), &mut rng)).collect();
        let near = contact(&own, 9, "10.1.0.0:1", &mut rng);
        far.iter().chain([&near]).for_each(|node| table.on_answer(Instant::START, *node));
        assert!(!table.has_address(far[8].address));
        table.on_silence(Instant::START, far[0].address);
        assert!(table.has_address(far[0].address) && table.sound() == 8);
        table.on_silence(Instant::START, far[0].address);
        assert!(!table.has_address(far[0].address) && table.has_address(far[8].address));
        for _ in 0..9 {
            table.on_silence(Instant::START, near.address);
        }
        assert!(table.has_address(near.address), "nobody could take its place");
        table.on_silence(Instant::START, near.address);
        assert!(!table.has_address(near.address));
    }

    #[test]
    fn one_network_gets_few_places_and_one_host_one() {
        let (mut table, mut rng) = table();
        let own = table.own();
        for n in 0..200 {
            let node = contact(&own, n / 20, &format!("203.0.113.{n}:1"), &mut rng);
            table.on_answer(Instant::START, node);
        }
        assert!(table.len() <= NETWORK_NODES_MAX, "{}", table.len());
        let before = table.len();
        for port in 1..20 {
            let node = contact(&own, 3, &format!("198.51.100.1:{port}"), &mut rng);
            table.on_answer(Instant::START, node);
        }
        assert_eq!(table.len(), before + 1);
    }

    #[test]
    fn a_name_is_not_taken_from_a_node_that_answers() {
        let (mut table, mut rng) = table();
        let node = contact(&table.own(), 3, "203.0.113.1:1", &mut rng);
        let thief = Contact { address: "198.51.100.1:1".parse().unwrap(), ..node };
        table.on_answer(Instant::START, node);
        table.on_answer(Instant::START, thief);
        assert!(table.has_address(node.address) && !table.has_address(thief.address));
        let ourselves = Contact { id: table.own(), ..thief };
        table.on_answer(Instant::START, ourselves);
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn ids_that_fit_their_address_come_first() {
        let (mut table, mut rng) = table();
        let mut fitting = None;
        for n in 0..8 {
            let node = contact(&table.own(), 0, &format!("203.0.{n}.1:1"), &mut rng);
            table.on_answer(Instant::START, node);
        }
        table.on_answer(Instant::START, contact(&table.own(), 1, "10.0.0.1:1", &mut rng));
        for n in 0..100u8 {
            let address: SocketAddr = format!("198.51.{n}.1:1").parse().unwrap();
            let id = NodeId::for_address(address.ip(), n, &mut rng);
            if id.shared_bits(&table.own()) == 0 {
                fitting = Some(address);
                table.on_answer(Instant::START, Contact { id, address });
                break;
            }
        }
        assert!(table.has_address(fitting.unwrap()));
    }

    #[test]
    fn what_was_silent_for_fifteen_minutes_is_asked() {
        let (mut table, mut rng) = table();
        let node = contact(&table.own(), 3, "203.0.113.1:1", &mut rng);
        table.on_answer(Instant::START, node);
        let later = Instant::START + SILENCE_MAX;
        assert_eq!(table.due(), Some(later));
        assert_eq!(table.take_questionable(later - Duration::from_secs(1)), None);
        assert_eq!(table.take_questionable(later), Some(node));
        assert_eq!(table.take_questionable(later), None);
        assert!(table.take_stale(later, &mut rng).is_some() && table.take_stale(later, &mut rng).is_none());
        table.on_query(later, node);
        assert_eq!(table.due(), Some(later + SILENCE_MAX));
    }
}
