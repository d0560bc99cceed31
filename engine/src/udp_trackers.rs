//! Questions to trackers over UDP, of all torrents together (BEP 15): connecting, asking again, and who may answer.
//!
//! A question is *waiting* for a connection id or *asked*; each may take 15 s, then once more 30 s, and then it has failed.
//! More of the BEP's tries, which go on for two hours, are not made here: after 45 s of silence the next address or tier has
//! its turn, and whoever asks comes again by its own back-off, which grows no further than 30 minutes, so that an outage is
//! over soon after its end.
//!
//! A connection id is used for a minute, by every question to the same address. It is asked for anew when a tracker refuses
//! it, or ignores one from before the question: a tracker that was restarted does not know its old ones. An answer counts
//! only when it came from the address that was asked, has the transaction id that was drawn for the question, and is of its
//! kind; nothing else has any effect.

use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::ids::InfoHash;
use crate::input::NetError;
use crate::limits::{UDP_CONNECTION_TIME, UDP_CONNECTIONS_MAX};
use crate::rng::Rng;
use crate::time::Instant;
use crate::wire::tracker_http::AnnounceRequest;
use crate::wire::tracker_udp::{UdpAnswer, UdpRequest};

/// All questions under way.
#[derive(Debug)]
pub(crate) struct UdpTrackers {
    rng: Rng,
    connections: BTreeMap<SocketAddr, Connection>,
    asked: BTreeMap<UdpAskId, Asked>,
    /// What may come from whom; none is the answer to a connect.
    expected: BTreeMap<(SocketAddr, u32), Option<UdpAskId>>,
    deadlines: BTreeSet<(Instant, UdpAskId)>,
    packets: VecDeque<(SocketAddr, Bytes)>,
    issued: u64,
}

/// A name for a question. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct UdpAskId(u64);

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UdpAsk {
    /// Answered by [`UdpAnswer::Announced`].
    Announce {
        /// What is announced.
        announce: Box<AnnounceRequest>,
        /// Path and query of the tracker's URL (BEP 41).
        url_data: Vec<u8>,
    },
    /// Answered by [`UdpAnswer::Scraped`].
    Scrape {
        /// At most [`crate::limits::SCRAPE_UDP_HASHES_MAX`].
        info_hashes: Vec<InfoHash>,
    },
}

/// What came of a question. An [`UdpAnswer::Failed`] is an answer.
pub(crate) type Outcome = (UdpAskId, Result<UdpAnswer, NetError>);

#[derive(Clone, Copy, Debug)]
enum Connection {
    Asked { transaction: u32, at: Instant },
    Open { id: u64, until: Instant },
}

#[derive(Debug)]
struct Asked {
    remote: SocketAddr,
    ask: UdpAsk,
    tries: u32,
    deadline: Instant,
    /// Drawn when it first went out; later copies have the same, so that a late answer counts.
    transaction: Option<u32>,
    /// The connection id was asked for after the question.
    fresh: bool,
}

impl UdpTrackers {
    pub(crate) fn new(rng: Rng) -> Self {
        Self {
            rng,
            connections: BTreeMap::new(),
            asked: BTreeMap::new(),
            expected: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            packets: VecDeque::new(),
            issued: 0,
        }
    }

    /// Asks. The outcome comes from one of the `handle_` methods, later.
    pub(crate) fn ask(&mut self, now: Instant, remote: SocketAddr, ask: UdpAsk) -> UdpAskId {
        self.issued += 1;
        let id = UdpAskId(self.issued);
        let remote = plain(remote);
        let asked = Asked { remote, ask, tries: 0, deadline: now, transaction: None, fresh: false };
        self.asked.insert(id, asked);
        self.try_once(now, id);
        id
    }

    /// Forgets a question: no outcome follows.
    pub(crate) fn cancel(&mut self, id: UdpAskId) {
        let Some(asked) = self.asked.remove(&id) else { return };
        self.deadlines.remove(&(asked.deadline, id));
        if let Some(transaction) = asked.transaction {
            self.expected.remove(&(asked.remote, transaction));
        }
        let Some(Connection::Asked { transaction, .. }) = self.connections.get(&asked.remote) else { return };
        if self.asked.values().all(|other| other.remote != asked.remote) {
            self.expected.remove(&(asked.remote, *transaction));
            self.connections.remove(&asked.remote);
        }
    }

    /// Our address may be another one: connection ids, which hold for one address, are asked for anew.
    pub(crate) fn renew(&mut self) {
        self.connections.retain(|_, connection| matches!(connection, Connection::Asked { .. }));
    }

    /// A datagram came that looks as if a tracker had sent it.
    pub(crate) fn handle_datagram(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        payload: &[u8],
    ) -> Vec<Outcome> {
        let remote = plain(remote);
        let Some(answer) = UdpAnswer::parse(payload, remote.is_ipv6()) else { return Vec::new() };
        let key = (remote, answer.transaction());
        match (self.expected.get(&key).copied(), answer) {
            (Some(None), UdpAnswer::Connected { connection_id, .. }) => {
                self.expected.remove(&key);
                self.make_room(now);
                let until = now + UDP_CONNECTION_TIME;
                self.connections.insert(remote, Connection::Open { id: connection_id, until });
                let of_it = self.asked.iter().filter(|(_, asked)| asked.remote == remote);
                let waiting: Vec<_> = of_it.map(|(id, _)| *id).collect();
                for id in waiting {
                    self.begin_clock_anew(now, id);
                    self.send(id, connection_id);
                }
                Vec::new()
            }
            (Some(None), answer @ UdpAnswer::Failed { .. }) => {
                let of_it = self.asked.iter().filter(|(_, asked)| asked.remote == remote);
                let waiting: Vec<_> = of_it.map(|(id, _)| *id).collect();
                waiting.iter().for_each(|id| self.cancel(*id));
                waiting.into_iter().map(|id| (id, Ok(answer.clone()))).collect()
            }
            (Some(Some(id)), answer) => self.handle_answer(now, id, answer).into_iter().collect(),
            _ => Vec::new(),
        }
    }

    /// The time of [`Self::poll_timeout`] has come. Early calls do nothing.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Vec<Outcome> {
        let mut failed = Vec::new();
        while let Some((_, id)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.deadlines.pop_first();
            let Some(asked) = self.asked.get_mut(&id) else { continue };
            if asked.tries >= TRIES_MAX {
                self.cancel(id);
                failed.push((id, Err(NetError::TimedOut)));
            } else {
                // A new one was lost on its way more likely than it is refused; if it is, another is asked for.
                if !std::mem::take(&mut asked.fresh) {
                    self.forget_connection(id);
                }
                self.try_once(now, id);
            }
        }
        failed
    }

    /// When [`Self::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// The next packet to send.
    pub(crate) fn poll_packet(&mut self) -> Option<(SocketAddr, Bytes)> {
        self.packets.pop_front()
    }

    fn handle_answer(&mut self, now: Instant, id: UdpAskId, answer: UdpAnswer) -> Option<Outcome> {
        let asked = self.asked.get(&id)?;
        match (&asked.ask, &answer) {
            // A connection id from before, which it may not know any more.
            (_, UdpAnswer::Failed { .. }) if !asked.fresh => {
                self.forget_connection(id);
                self.reach(now, id);
                None
            }
            (_, UdpAnswer::Failed { .. })
            | (UdpAsk::Announce { .. }, UdpAnswer::Announced { .. })
            | (UdpAsk::Scrape { .. }, UdpAnswer::Scraped { .. }) => {
                self.cancel(id);
                Some((id, Ok(answer)))
            }
            _ => None,
        }
    }

    fn try_once(&mut self, now: Instant, id: UdpAskId) {
        let Some(asked) = self.asked.get_mut(&id) else { return };
        let wait = FIRST_WAIT * (1 << asked.tries.min(8));
        asked.tries += 1;
        asked.deadline = now + wait;
        self.deadlines.insert((asked.deadline, id));
        self.reach(now, id);
    }

    /// The tracker is there: what was not asked yet has all its time from now on.
    fn begin_clock_anew(&mut self, now: Instant, id: UdpAskId) {
        let Some(asked) = self.asked.get_mut(&id).filter(|asked| asked.transaction.is_none()) else { return };
        self.deadlines.remove(&(asked.deadline, id));
        (asked.tries, asked.deadline) = (1, now + FIRST_WAIT);
        self.deadlines.insert((asked.deadline, id));
    }

    /// Sends a question, or first asks for a connection id.
    fn reach(&mut self, now: Instant, id: UdpAskId) {
        let Some(asked) = self.asked.get_mut(&id) else { return };
        let remote = asked.remote;
        let transaction = match self.connections.get(&remote).copied() {
            Some(Connection::Open { id: connection, until }) if until > now => {
                return self.send(id, connection);
            }
            Some(Connection::Asked { transaction, at }) => {
                asked.fresh = true;
                // Others wait for the same answer; who comes later sends no connect of its own.
                if now.since(at) < FIRST_WAIT {
                    return;
                }
                transaction
            }
            Some(Connection::Open { .. }) | None => {
                asked.fresh = true;
                self.draw(remote)
            }
        };
        self.expected.insert((remote, transaction), None);
        self.connections.insert(remote, Connection::Asked { transaction, at: now });
        self.push(remote, &UdpRequest::Connect { transaction });
    }

    fn send(&mut self, id: UdpAskId, connection_id: u64) {
        let Some((remote, drawn)) = self.asked.get(&id).map(|asked| (asked.remote, asked.transaction)) else {
            return;
        };
        let transaction = drawn.unwrap_or_else(|| self.draw(remote));
        self.expected.insert((remote, transaction), Some(id));
        let Some(asked) = self.asked.get_mut(&id) else { return };
        asked.transaction = Some(transaction);
        let request = match asked.ask.clone() {
            UdpAsk::Announce { announce, url_data } => {
                UdpRequest::Announce { connection_id, transaction, announce, url_data }
            }
            UdpAsk::Scrape { info_hashes } => UdpRequest::Scrape { connection_id, transaction, info_hashes },
        };
        self.push(remote, &request);
    }

    fn push(&mut self, remote: SocketAddr, request: &UdpRequest) {
        self.packets.push_back((remote, request.encode().into()));
    }

    /// The connection id that a question was asked with is no good.
    fn forget_connection(&mut self, id: UdpAskId) {
        let Some(asked) = self.asked.get(&id) else { return };
        if let Some(Connection::Open { .. }) = self.connections.get(&asked.remote) {
            self.connections.remove(&asked.remote);
        }
    }

    /// A transaction id that is not in use at this address.
    fn draw(&mut self, remote: SocketAddr) -> u32 {
        loop {
            let transaction = self.rng.next_u32();
            if !self.expected.contains_key(&(remote, transaction)) {
                return transaction;
            }
        }
    }

    fn make_room(&mut self, now: Instant) {
        if self.connections.len() >= UDP_CONNECTIONS_MAX {
            self.connections.retain(|_, one| !matches!(one, Connection::Open { until, .. } if *until <= now));
        }
        if self.connections.len() >= UDP_CONNECTIONS_MAX {
            self.renew();
        }
    }
}

/// Address and port alone: what else an IPv6 address can carry differs between systems and directions.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The wait after the first try; doubles with each (BEP 15).
const FIRST_WAIT: Duration = Duration::from_secs(15);
/// Tries until a question has failed: 45 s.
const TRIES_MAX: u32 = 2;

#[cfg(test)]
mod tests;
