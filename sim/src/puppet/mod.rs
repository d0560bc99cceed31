//! A peer that is not our engine and may break any rule: one pure machine for both worlds.
//!
//! What happens goes in (`handle_*`) with the time, and what it does comes out ([`Puppet::poll_act`]); everything that it
//! sends is raw bytes. Which rules it breaks is its [`Behaviour`]: [`act`] has what each does when a connection is
//! open, when a message comes and on its own beat, [`grammar`] the messages that are wrong. It finds hosts as others do,
//! by a tracker's list, and is found there.
//!
//! It never reads a clock, never talks to another puppet, and draws from a stream of its own, so one puppet fewer shifts
//! nobody else.

mod act;
mod cast;
mod grammar;

use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use taipei_engine::rng::Rng;
use taipei_engine::wire::{Message, Request, Reserved, Stream};
use taipei_engine::{ConnectionId, PeerId};

pub(crate) use self::cast::cast;
use self::cast::is_puppet;
use crate::plan::{Material, Materials, PEER_PORT, Plan};
use crate::scenario::Behaviour;
use crate::units::{MILLISECOND, SECOND};

/// A puppet peer.
#[derive(Debug)]
pub struct Puppet {
    behaviour: Behaviour,
    has_all: bool,
    peer_id: PeerId,
    materials: Arc<Materials>,
    rng: Rng,
    links: BTreeMap<ConnectionId, Link>,
    dialled_count: u64,
    /// Where others are: of which torrent, and when to dial there next.
    known: BTreeMap<SocketAddr, (usize, u64)>,
    announce_at: u64,
    /// When it tells the local network something.
    shout_at: Option<u64>,
    /// Blocks that it got, by torrent: what a downloader need not ask for again.
    got: BTreeSet<(usize, u32, u32)>,
    acts: VecDeque<Act>,
}

/// What a puppet does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Puts itself on the trackers' lists of a torrent; who else is there is told by [`Puppet::handle_peers`].
    Announce {
        /// Which.
        torrent: usize,
    },
    /// Tells the local network something.
    Shout {
        /// Whatever it is.
        bytes: Bytes,
    },
    /// Dials.
    Connect {
        /// What it calls the connection.
        link: ConnectionId,
        /// Where.
        remote: SocketAddr,
    },
    /// Sends bytes, whatever they are.
    Send {
        /// On which connection.
        link: ConnectionId,
        /// What.
        bytes: Bytes,
    },
    /// Reads nothing more, and leaves the connection open.
    Deafen {
        /// Which.
        link: ConnectionId,
    },
    /// Hangs up.
    Close {
        /// On whom.
        link: ConnectionId,
    },
}

/// One connection.
#[derive(Debug)]
struct Link {
    remote: SocketAddr,
    /// Known from the beginning where it was dialled.
    torrent: Option<usize>,
    open: bool,
    decoder: Stream,
    encoder: Stream,
    said_hello: bool,
    fast: bool,
    /// Whether it is choking the other side, and is choked by it.
    am_choking: bool,
    peer_choking: bool,
    peer_has: BTreeSet<u32>,
    peer_has_all: bool,
    allowed_fast: Vec<u32>,
    /// Numbers of the other side for `ut_metadata` and `ut_pex`.
    ut_metadata: u8,
    ut_pex: u8,
    /// Blocks of metadata that it gave.
    told: u32,
    asked: BTreeSet<Request>,
    /// Where a downloader goes on looking for blocks, and how many it has looked at in this round.
    cursor: (u32, u32),
    /// One of several ways to behave, for those that have more than one.
    mood: u64,
    /// When it acts by itself, and how often it did.
    beat_at: Option<u64>,
    beats: u64,
    /// What goes out byte by byte.
    drip: VecDeque<u8>,
    /// Bytes that are not on the wire.
    unsent: u64,
}

impl Puppet {
    /// The puppet at a place of the plan, at `now` nanoseconds since the world began.
    ///
    /// # Panics
    /// When there is none.
    pub fn new(materials: &Arc<Materials>, plan: &Plan, host: usize, now: u64) -> Self {
        let host = &plan.hosts[host];
        let behaviour = host.puppet.expect("a puppet's place");
        let mut rng = Rng::stream(plan.seed, "puppet", host.id);
        let mut peer_id = *b"-PU0001-............";
        rng.fill(&mut peer_id[8..]);
        Self {
            behaviour,
            has_all: host.has_all,
            peer_id: PeerId(peer_id),
            materials: materials.clone(),
            links: BTreeMap::new(),
            dialled_count: 0,
            known: BTreeMap::new(),
            announce_at: now + rng.below(START_SPREAD),
            shout_at: matches!(behaviour, Behaviour::LsdStorm(_)).then_some(now),
            got: BTreeSet::new(),
            acts: VecDeque::new(),
            rng,
        }
    }

    /// Who it says to be.
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// Whether it says to trackers that it has everything.
    pub fn has_all(&self) -> bool {
        self.has_all
    }

    /// The next thing to do.
    pub fn poll_act(&mut self) -> Option<Act> {
        self.acts.pop_front()
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> u64 {
        let dials = self.known.values().map(|(_, at)| *at);
        let beats = self.links.values().filter_map(|link| link.beat_at);
        dials.chain(beats).chain(self.shout_at).fold(self.announce_at, u64::min)
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: u64) {
        if self.announce_at <= now {
            self.announce_at = now + ANNOUNCE_EVERY;
            self.acts.extend((0..self.materials.torrents.len()).map(|torrent| Act::Announce { torrent }));
        }
        if self.shout_at.is_some_and(|at| at <= now) {
            self.shout_at = Some(now + SECOND / SHOUTS_PER_SECOND);
            self.shout();
        }
        self.dial(now);
        let due = self.links.iter().filter(|(_, link)| link.beat_at.is_some_and(|at| at <= now));
        let due: Vec<ConnectionId> = due.map(|(id, _)| *id).collect();
        for id in due {
            self.beat(now, id);
        }
    }

    /// Who is on the trackers' lists.
    pub fn handle_peers(&mut self, now: u64, torrent: usize, peers: impl IntoIterator<Item = SocketAddr>) {
        for peer in peers {
            if !is_puppet(peer.ip()) && peer.port() == PEER_PORT {
                let at = now + self.rng.below(START_SPREAD);
                self.known.entry(peer).or_insert((torrent, at));
            }
        }
    }

    fn dial(&mut self, now: u64) {
        let most = if self.behaviour == Behaviour::ConnectFlood { FLOOD_LINKS } else { 1 };
        let due: Vec<(SocketAddr, usize)> = self
            .known
            .iter()
            .filter(|(_, (_, at))| *at <= now)
            .map(|(remote, (torrent, _))| (*remote, *torrent))
            .collect();
        for (remote, torrent) in due {
            let again = now + REDIAL + self.rng.below(REDIAL);
            self.known.insert(remote, (torrent, again));
            let there = self.links.values().filter(|link| link.remote.ip() == remote.ip()).count();
            for _ in there..most {
                let id = ConnectionId::dialled(self.dialled_count);
                self.dialled_count += 1;
                let link = self.new_link(remote, Some(torrent));
                self.links.insert(id, link);
                self.acts.push_back(Act::Connect { link: id, remote });
            }
        }
    }

    fn new_link(&mut self, remote: SocketAddr, torrent: Option<usize>) -> Link {
        Link {
            remote,
            torrent,
            open: false,
            decoder: Stream::default(),
            encoder: Stream::default(),
            said_hello: false,
            fast: false,
            am_choking: true,
            peer_choking: true,
            peer_has: BTreeSet::new(),
            peer_has_all: false,
            allowed_fast: Vec::new(),
            ut_metadata: 0,
            ut_pex: 0,
            told: 0,
            asked: BTreeSet::new(),
            cursor: (self.rng.next_u32(), 0),
            mood: self.rng.next_u64(),
            beat_at: None,
            beats: 0,
            drip: VecDeque::new(),
            unsent: 0,
        }
    }

    /// A connection that it dialled is there.
    pub fn handle_connected(&mut self, now: u64, id: ConnectionId) {
        self.open(now, id);
    }

    /// Somebody connected to it.
    pub fn handle_accepted(&mut self, now: u64, id: ConnectionId, remote: SocketAddr) {
        let link = self.new_link(remote, None);
        self.links.insert(id, link);
        self.open(now, id);
    }

    /// Bytes came.
    pub fn handle_bytes(&mut self, now: u64, id: ConnectionId, bytes: Bytes) {
        let mut messages = Vec::new();
        let Some(link) = self.links.get_mut(&id) else { return };
        let result = link.decoder.handle_bytes(bytes, &mut messages);
        for message in messages {
            self.hear(now, id, message);
        }
        if result.is_err() {
            self.close(id);
        }
    }

    /// Bytes are on the wire.
    pub fn handle_sent(&mut self, id: ConnectionId, bytes: u64) {
        if let Some(link) = self.links.get_mut(&id) {
            link.unsent = link.unsent.saturating_sub(bytes);
        }
    }

    /// A connection is gone, or never came.
    pub fn handle_closed(&mut self, id: ConnectionId) {
        self.links.remove(&id);
    }

    /// What everybody keeps in mind of what is said, and then what this one does about it.
    fn hear(&mut self, now: u64, id: ConnectionId, message: Message) {
        let Some(link) = self.links.get_mut(&id) else { return };
        match &message {
            Message::Handshake(theirs) => {
                link.fast = theirs.reserved.fast();
                link.torrent = link.torrent.or_else(|| self.materials.by_info_hash(theirs.info_hash));
                if link.torrent.is_none() {
                    return self.close(id);
                }
            }
            Message::Choke => {
                link.peer_choking = true;
                link.asked.clear();
            }
            Message::Unchoke => link.peer_choking = false,
            Message::Have(piece) => {
                link.peer_has.insert(*piece);
                link.cursor.1 = 0;
            }
            Message::HaveAll => link.peer_has_all = true,
            Message::Bitfield(bits) => link.peer_has.extend(pieces_of(bits)),
            Message::AllowedFast(piece) => link.allowed_fast.push(*piece),
            Message::ExtendedHandshake(theirs) => {
                for (name, id) in &theirs.m {
                    match name.as_str() {
                        "ut_metadata" => link.ut_metadata = *id,
                        "ut_pex" => link.ut_pex = *id,
                        _ => {}
                    }
                }
            }
            Message::Piece { piece, begin, data } => {
                link.asked.remove(&Request { piece: *piece, begin: *begin, length: data.len() });
                if let Some(torrent) = link.torrent {
                    self.got.insert((torrent, *piece, *begin));
                }
            }
            Message::RejectRequest(request) => {
                link.asked.remove(request);
            }
            _ => {}
        }
        self.react(now, id, message);
    }

    fn say(&mut self, id: ConnectionId, messages: &[Message]) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let mut chunks = VecDeque::new();
        link.encoder.encode(messages, &mut chunks);
        for bytes in chunks {
            self.send(id, bytes);
        }
    }

    fn send(&mut self, id: ConnectionId, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        let Some(link) = self.links.get_mut(&id).filter(|link| link.open && !bytes.is_empty()) else {
            return;
        };
        link.unsent += bytes.len() as u64;
        self.acts.push_back(Act::Send { link: id, bytes });
    }

    fn close(&mut self, id: ConnectionId) {
        if self.links.remove(&id).is_some() {
            self.acts.push_back(Act::Close { link: id });
        }
    }

    /// What a connection is about, once that is known.
    fn material(&self, id: ConnectionId) -> Option<(usize, &Material)> {
        let torrent = self.links.get(&id)?.torrent?;
        Some((torrent, &self.materials.torrents[torrent]))
    }
}

/// The pieces of a bitfield.
fn pieces_of(bits: &[u8]) -> Vec<u32> {
    (0u32..)
        .zip(bits)
        .flat_map(|(at, byte)| {
            (0..8).filter(move |bit| byte & (0x80 >> bit) != 0).map(move |bit| at * 8 + bit)
        })
        .collect()
}

/// What puppets say they can do.
const RESERVED: Reserved = Reserved::OURS;
/// Puppets begin within this time.
const START_SPREAD: u64 = 2 * SECOND;
const ANNOUNCE_EVERY: u64 = 20 * SECOND;
/// Between two looks whether somebody is to be dialled again, and as much again by chance.
const REDIAL: u64 = 5 * SECOND;
/// Connections of a flood to one host.
const FLOOD_LINKS: usize = 40;
/// How often a storm breaks loose, each time with its share of a second.
const SHOUTS_PER_SECOND: u64 = 10;
/// Between two beats of a flood.
const FLOOD_BEAT: u64 = 100 * MILLISECOND;
/// A flood waits while more than this is not on the wire.
const UNSENT_MAX: u64 = 256 << 10;

#[cfg(test)]
mod tests;
