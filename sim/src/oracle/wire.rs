//! What may be said on one connection, seen from our end: S4, S5 and S6.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use taipei_engine::limits::{BLOCK_BYTES, PIECES_MAX, REQQ_DEFAULT, REQUESTS_OUT_MAX};
use taipei_engine::wire::{Message, Request};

use super::Broken;
use super::ledger::End;
use crate::plan::{Material, Materials};

/// One end of a connection, as its messages tell it. What every message touches is in one line of the cache.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct ConnectionWatch {
    pub(super) end: End,
    /// When it was last heard of.
    pub(super) heard_at: u64,
    /// Payload that waits for the socket.
    unsent: u64,
    /// Whose address that is where it leads to.
    pub(super) host: Option<usize>,
    /// Where it leads to.
    pub(super) remote: IpAddr,
    is_accepted: bool,
    am_choking: bool,
    peer_interested: bool,
    /// Since when the peer is interested and choked.
    waits_since: Option<u64>,
    reqq: usize,
    torrent: Option<usize>,
    handshake_sent: bool,
    first_said: bool,
    fast_ours: bool,
    fast_theirs: bool,
    peer_has: Pieces,
    peer_has_all: bool,
    peer_choking: bool,
    fast_for_us: BTreeSet<u32>,
    /// What we asked for and did not take back, and when; after that, the same may be asked again.
    asked: BTreeMap<Request, u64>,
    /// Requests that were taken back and that a peer with the fast extension answers all the same, the oldest first.
    owed: VecDeque<(Request, u64)>,
    /// What was asked of us, and how often: each request has its answer (BEP 6).
    wanted: BTreeMap<Request, u32>,
}

/// What a message claims to have, for the owner of the truth to check.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// Nothing.
    None,
    /// Everything of a torrent.
    All(usize),
    /// One piece of a torrent.
    Piece(usize, u32),
    /// A block of a piece, whose bytes may be older than the piece's end.
    Block(usize, u32),
    /// The pieces of a bitfield.
    Bits(usize, Vec<u32>),
}

/// A request that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    Surely,
    /// It may have been taken for lost.
    Perhaps,
}

impl ConnectionWatch {
    pub(super) fn new(now: u64, end: End, remote: IpAddr, host: Option<usize>, is_accepted: bool) -> Self {
        Self {
            end,
            remote,
            host,
            is_accepted,
            heard_at: now,
            unsent: 0,
            am_choking: true,
            peer_interested: false,
            waits_since: None,
            reqq: REQQ_DEFAULT as usize,
            torrent: None,
            handshake_sent: false,
            first_said: false,
            fast_ours: false,
            fast_theirs: false,
            peer_has: Pieces::default(),
            peer_has_all: false,
            peer_choking: true,
            fast_for_us: BTreeSet::new(),
            asked: BTreeMap::new(),
            owed: VecDeque::new(),
            wanted: BTreeMap::new(),
        }
    }

    /// What it is about, once a handshake has said so.
    pub(super) fn torrent(&self) -> Option<usize> {
        self.torrent
    }

    /// Whether it was accepted and has not been answered.
    pub(super) fn is_stranger(&self) -> bool {
        self.is_accepted && !self.handshake_sent
    }

    /// Whether both have said who they are.
    pub(super) fn is_up(&self) -> bool {
        self.handshake_sent && self.torrent.is_some()
    }

    /// Whether the peer may ask us.
    pub(super) fn is_served(&self) -> bool {
        !self.am_choking
    }

    /// Since when the peer is interested and not served.
    pub(super) fn waits_since(&self) -> Option<u64> {
        self.waits_since
    }

    /// Whether we may ask the peer.
    pub(super) fn serves(&self) -> bool {
        !self.peer_choking
    }

    /// Whether the peer has a piece, as it said.
    pub(super) fn has(&self, piece: u32) -> bool {
        self.peer_has_all || self.peer_has.has(piece)
    }

    /// Requests of ours that wait for an answer.
    pub(super) fn asked_count(&self) -> usize {
        self.asked.len()
    }

    /// Whether a request of ours waits for an answer, and if so, whether it can be taken for lost yet: who forgot it takes its
    /// block for one that nobody asked for.
    pub(super) fn waits_for(&self, now: u64, request: &Request) -> Option<Wait> {
        let at = self.asked.get(request)?;
        Some(if now < at + LOST { Wait::Surely } else { Wait::Perhaps })
    }

    /// Bytes went out to the socket.
    pub(super) fn on_written(&mut self, bytes: u64) {
        self.unsent = self.unsent.saturating_sub(bytes);
    }

    /// Payload that waits for the socket.
    pub(super) fn unsent(&self) -> u64 {
        self.unsent
    }

    /// Whether an answer is that to a request that was taken back.
    fn settle_owed(&mut self, now: u64, request: Request) -> bool {
        while self.owed.front().is_some_and(|(_, at)| now > *at + OWED) {
            self.owed.pop_front();
        }
        let at = self.owed.iter().position(|(owed, _)| *owed == request);
        at.is_some_and(|at| self.owed.remove(at).is_some())
    }

    fn on_wait_changed(&mut self, now: u64) {
        let waits = self.am_choking && self.peer_interested;
        self.waits_since = waits.then(|| self.waits_since.unwrap_or(now));
    }

    fn fast(&self) -> bool {
        self.fast_ours && self.fast_theirs
    }

    /// A message came. Nothing of it is our fault.
    pub(super) fn on_received(&mut self, now: u64, message: &Message, materials: &Materials) {
        match message {
            Message::Interested | Message::NotInterested => {
                self.peer_interested = matches!(message, Message::Interested);
                self.on_wait_changed(now);
            }
            Message::ExtendedHandshake(theirs) => {
                let most = i64::from(REQUESTS_OUT_MAX);
                self.reqq = theirs.reqq.map_or(self.reqq, |reqq| reqq.clamp(1, most) as usize);
            }
            Message::Handshake(handshake) => {
                self.fast_theirs = handshake.reserved.fast();
                self.torrent = self.torrent.or_else(|| materials.by_info_hash(handshake.info_hash));
            }
            Message::Choke => {
                self.peer_choking = true;
                if !self.fast() {
                    self.asked.clear();
                }
            }
            Message::Unchoke => self.peer_choking = false,
            Message::Have(piece) => self.peer_has.insert(*piece),
            Message::Bitfield(bytes) => self.peer_has.add(bytes),
            Message::HaveAll => self.peer_has_all = true,
            Message::AllowedFast(piece) => {
                self.fast_for_us.insert(*piece);
            }
            Message::Request(request) => {
                *self.wanted.entry(*request).or_default() += 1;
            }
            Message::Piece { piece, begin, data } => {
                let request = Request { piece: *piece, begin: *begin, length: data.len() };
                let is_owed = self.settle_owed(now, request);
                // Asked for anew since: the block will do for that as well, and from now on another answer is owed.
                if self.asked.remove(&request).is_some() && is_owed {
                    self.owed.push_back((request, now));
                }
            }
            // An answer is to the oldest request for its block (BEP 6).
            Message::RejectRequest(request) => {
                let is_owed = self.settle_owed(now, *request);
                if !is_owed {
                    self.asked.remove(request);
                }
            }
            _ => {}
        }
    }

    /// We say something: what it claims, or which rule it breaks.
    pub(super) fn on_sent(
        &mut self,
        now: u64,
        message: &Message,
        materials: &Materials,
    ) -> Result<Claim, Broken> {
        let first = !self.first_said;
        if !matches!(message, Message::Handshake(_)) {
            if !self.handshake_sent {
                return Err(("S6", "said something before the handshake".to_owned()));
            }
            // The extended handshake may stand before or after the bitfield.
            self.first_said |= !matches!(message, Message::ExtendedHandshake(_) | Message::KeepAlive);
        }
        let torrent = self
            .torrent
            .and_then(|torrent| materials.torrents.get(torrent).map(|material| (torrent, material)));
        match message {
            Message::Handshake(handshake) => {
                if std::mem::replace(&mut self.handshake_sent, true) {
                    return Err(("S6", "a second handshake".to_owned()));
                }
                self.fast_ours = handshake.reserved.fast();
                self.torrent = self.torrent.or_else(|| materials.by_info_hash(handshake.info_hash));
                Ok(Claim::None)
            }
            Message::Bitfield(_) | Message::HaveAll | Message::HaveNone if !first => {
                Err(("S6", "a bitfield that is not the first message".to_owned()))
            }
            Message::Bitfield(bytes) => {
                let (number, material) =
                    torrent.ok_or_else(|| ("S6", "a bitfield of no torrent".to_owned()))?;
                let pieces = pieces_of(bytes);
                let count = material.piece_count();
                if bytes.len() as u32 != count.div_ceil(8) || pieces.last().is_some_and(|last| *last >= count)
                {
                    return Err(("S6", "a bitfield of the wrong length, or with spare bits".to_owned()));
                }
                Ok(Claim::Bits(number, pieces))
            }
            Message::HaveAll => Ok(torrent.map_or(Claim::None, |(number, _)| Claim::All(number))),
            Message::Have(piece) => match torrent {
                Some((number, material)) if *piece < material.piece_count() => {
                    Ok(Claim::Piece(number, *piece))
                }
                _ => Err(("S6", format!("have of piece {piece}, which is none"))),
            },
            Message::Choke | Message::Unchoke => {
                self.am_choking = matches!(message, Message::Choke);
                self.on_wait_changed(now);
                if self.am_choking && !self.fast() {
                    self.wanted.clear();
                }
                Ok(Claim::None)
            }
            Message::Request(request) => {
                let Some((_, material)) = torrent else {
                    return Err(("S4", "a request of no torrent".to_owned()));
                };
                self.on_request_sent(now, *request, material).map(|()| Claim::None)
            }
            Message::Cancel(request) => {
                if self.asked.remove(request).is_some() && self.fast() {
                    self.owed.push_back((*request, now));
                }
                Ok(Claim::None)
            }
            Message::Piece { piece, begin, data } => {
                let request = Request { piece: *piece, begin: *begin, length: data.len() };
                if !self.is_answer(&request) {
                    return Err((
                        "S5",
                        format!("a block that nobody asked for, or of one choked: {request:?}"),
                    ));
                }
                self.unsent += u64::from(data.len());
                Ok(torrent.map_or(Claim::None, |(number, _)| Claim::Block(number, *piece)))
            }
            Message::RejectRequest(request) => {
                if !self.fast() || !self.is_answer(request) {
                    return Err(("S5", format!("a rejection that answers nothing: {request:?}")));
                }
                Ok(Claim::None)
            }
            _ => Ok(Claim::None),
        }
    }

    /// Whether that request waits for an answer; it has one now.
    fn is_answer(&mut self, request: &Request) -> bool {
        let Some(count) = self.wanted.get_mut(request) else { return false };
        *count -= 1;
        if *count == 0 {
            self.wanted.remove(request);
        }
        true
    }

    fn on_request_sent(&mut self, now: u64, request: Request, material: &Material) -> Result<(), Broken> {
        let broken = |what: &str| Err(("S4", format!("a request {what}: {request:?}")));
        let (_, piece_bytes) = material.piece(request.piece.min(material.piece_count()));
        if request.piece >= material.piece_count()
            || request.length == 0
            || request.length > BLOCK_BYTES
            || u64::from(request.begin) + u64::from(request.length) > piece_bytes
        {
            return broken("outside its piece");
        }
        if !self.has(request.piece) {
            return broken("for a piece that the peer does not have");
        }
        if self.peer_choking && !self.fast_for_us.contains(&request.piece) {
            return broken("while choked");
        }
        if self.asked.insert(request, now).is_some_and(|before| now < before + LOST) {
            return broken("twice to one peer");
        }
        let wait = || self.asked.values().filter(|asked| now < **asked + LOST).count();
        if self.asked.len() > self.reqq && wait() > self.reqq {
            return broken("beyond what the peer queues");
        }
        Ok(())
    }
}

/// A set of pieces, in the bits of a bitfield.
#[derive(Debug, Default)]
struct Pieces(Vec<u8>);

impl Pieces {
    fn has(&self, piece: u32) -> bool {
        self.0.get(piece as usize / 8).is_some_and(|byte| byte & (0x80 >> (piece % 8)) != 0)
    }

    fn insert(&mut self, piece: u32) {
        // Whoever says more than this is cut off for it.
        let at = (piece as usize / 8).min(PIECES_MAX as usize / 8);
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        self.0[at] |= 0x80 >> (piece % 8);
    }

    fn add(&mut self, bits: &[u8]) {
        self.0.resize(self.0.len().max(bits.len()), 0);
        self.0.iter_mut().zip(bits).for_each(|(byte, more)| *byte |= more);
    }
}

/// How long an answer is owed: some clients give none to what was taken back.
const OWED: u64 = 60_000_000_000;
/// A request without a block for so long may count as lost, and the same may be asked again: 90 s after the first of
/// those that were out when the peer was snubbed, which is a minute after it was asked at the most.
const LOST: u64 = 30_000_000_000;

fn pieces_of(bytes: &[u8]) -> Vec<u32> {
    (0u32..)
        .zip(bytes)
        .flat_map(|(at, byte)| {
            (0..8).filter(move |bit| byte & (0x80 >> bit) != 0).map(move |bit| at * 8 + bit)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use taipei_engine::PeerId;
    use taipei_engine::wire::{Handshake, Reserved};

    use super::super::ledger::Ledger;
    use super::*;
    use crate::scenario::Scenario;

    fn materials() -> std::sync::Arc<Materials> {
        let text = r#"
            [scenario]
            id = "wire"
            duration = "1 s"
            [[torrent]]
            name = "a"
            size = "100 KiB"
            piece = "32 KiB"
            [[group]]
            name = "h"
            count = 1
        "#;
        Materials::new(Scenario::parse(text, "wire.toml").expect("parses"))
    }

    enum Step {
        In(Message),
        Out(Message),
    }
    use Step::{In, Out};

    /// Says all of it after both handshakes; the rule that the last message breaks.
    fn check(fast: bool, steps: Vec<Step>) -> Option<&'static str> {
        let materials = materials();
        let reserved = if fast { Reserved::OURS } else { Reserved::default() };
        let info_hash = materials.torrents[0].info_hash;
        let hello = Message::Handshake(Handshake { reserved, info_hash, peer_id: PeerId([b'x'; 20]) });
        let mut watch =
            ConnectionWatch::new(0, Ledger::default().open(), IpAddr::from([9, 9, 9, 9]), None, false);
        watch.on_sent(0, &hello, &materials).expect("a handshake is fine");
        watch.on_received(0, &hello, &materials);
        let count = steps.len();
        for (at, step) in steps.into_iter().enumerate() {
            match step {
                In(message) => watch.on_received(0, &message, &materials),
                Out(message) => match watch.on_sent(0, &message, &materials) {
                    Ok(_) => {}
                    Err((oracle, _)) if at + 1 == count => return Some(oracle),
                    Err(broken) => panic!("too early: {broken:?}"),
                },
            }
        }
        None
    }

    fn request(piece: u32, begin: u32, length: u32) -> Request {
        Request { piece, begin, length }
    }

    #[test]
    fn requests_keep_the_rules() {
        let good = request(0, 16_384, 16_384);
        let ask = Message::Request(good);
        let open = || vec![In(Message::Bitfield(vec![0b1001_0000].into())), In(Message::Unchoke)];
        let after = |more: Vec<Step>| check(true, open().into_iter().chain(more).collect());
        assert_eq!(after(vec![Out(ask.clone())]), None);
        assert_eq!(after(vec![Out(ask.clone()), Out(ask.clone())]), Some("S4"));
        assert_eq!(after(vec![Out(ask.clone()), In(Message::RejectRequest(good)), Out(ask.clone())]), None);
        assert_eq!(after(vec![In(Message::Choke), Out(ask.clone())]), Some("S4"));
        assert_eq!(after(vec![In(Message::Choke), In(Message::AllowedFast(0)), Out(ask.clone())]), None);
        for bad in [
            request(1, 0, 16_384),
            request(4, 0, 16_384),
            request(0, 20_000, 16_384),
            request(3, 0, 16_384),
            request(0, 0, 0),
        ] {
            assert_eq!(after(vec![Out(Message::Request(bad))]), Some("S4"), "{bad:?}");
        }
        // The last piece is 4 KiB.
        assert_eq!(after(vec![Out(Message::Request(request(3, 0, 4096)))]), None);
    }

    #[test]
    fn blocks_answer_requests_once() {
        let block = || Message::Piece { piece: 2, begin: 0, data: taipei_engine::BlockData::absent(100) };
        let ask = || In(Message::Request(request(2, 0, 100)));
        assert_eq!(check(true, vec![Out(block())]), Some("S5"));
        assert_eq!(check(true, vec![ask(), Out(block())]), None);
        assert_eq!(check(true, vec![ask(), Out(block()), Out(block())]), Some("S5"));
        // With the fast extension a choke drops nothing by itself, without it drops all.
        assert_eq!(check(true, vec![ask(), Out(Message::Choke), Out(block())]), None);
        assert_eq!(check(false, vec![ask(), Out(Message::Choke), Out(block())]), Some("S5"));
        assert_eq!(check(false, vec![ask(), Out(Message::RejectRequest(request(2, 0, 100)))]), Some("S5"));
    }

    #[test]
    fn an_answer_is_to_the_oldest_request() {
        let asked = request(0, 0, 16_384);
        let (ask, cancel) = (Out(Message::Request(asked)), Out(Message::Cancel(asked)));
        let again = || Out(Message::Request(asked));
        let reject = || In(Message::RejectRequest(asked));
        let open = || vec![In(Message::HaveAll), In(Message::Unchoke)];
        let after = |more: Vec<Step>| check(true, open().into_iter().chain(more).collect());
        // The reject is that of the request that was taken back: the other one still waits.
        assert_eq!(after(vec![ask, cancel, again(), reject(), again()]), Some("S4"));
        assert_eq!(after(vec![again(), reject(), again()]), None);
    }

    /// Fuzz-small, seed 343.
    #[test]
    fn a_block_that_crossed_with_a_cancel_leaves_an_answer_owed_from_then_on() {
        let asked = request(0, 0, 16_384);
        let materials = materials();
        let mut watch =
            ConnectionWatch::new(0, Ledger::default().open(), IpAddr::from([9, 9, 9, 9]), None, false);
        let info_hash = materials.torrents[0].info_hash;
        let reserved = Reserved::OURS;
        let hello = Message::Handshake(Handshake { reserved, info_hash, peer_id: PeerId([b'x'; 20]) });
        let block = Message::Piece { piece: 0, begin: 0, data: taipei_engine::BlockData::absent(16_384) };
        let (ask, cancel) = (Message::Request(asked), Message::Cancel(asked));
        for (at, step) in [
            (0, Out(hello.clone())),
            (0, In(hello)),
            (0, In(Message::HaveAll)),
            (0, In(Message::Unchoke)),
            (0, Out(ask.clone())),
            (1, Out(cancel.clone())),
            (50, Out(ask.clone())),
            (55, In(block)),
            (55, Out(cancel)),
            (56, Out(ask)),
            // To the second request, not the third.
            (70, In(Message::RejectRequest(asked))),
        ] {
            let at = at * 1_000_000_000;
            match step {
                In(message) => watch.on_received(at, &message, &materials),
                Out(message) => watch.on_sent(at, &message, &materials).map(|_| ()).expect("fine"),
            }
        }
        assert_eq!(watch.asked_count(), 1);
        assert_eq!(watch.waits_for(85_000_000_000, &asked), Some(Wait::Surely));
        assert_eq!(watch.waits_for(86_000_000_000, &asked), Some(Wait::Perhaps));
        watch.on_received(71_000_000_000, &Message::RejectRequest(asked), &materials);
        assert_eq!(watch.asked_count(), 0);
    }

    #[test]
    fn bitfields_come_first_and_fit() {
        assert_eq!(check(true, vec![Out(Message::Have(0)), Out(Message::HaveAll)]), Some("S6"));
        assert_eq!(check(true, vec![Out(Message::Have(4))]), Some("S6"));
        for bits in [vec![0b1000_1000], vec![0, 0], vec![]] {
            assert_eq!(check(false, vec![Out(Message::Bitfield(bits.into()))]), Some("S6"));
        }
        assert_eq!(check(false, vec![Out(Message::Bitfield(vec![0b1111_0000].into()))]), None);
    }
}
