//! What each behaviour does: when a connection is open, when a message comes, and on its own beat.

use std::collections::BTreeSet;

use bytes::{BufMut as _, Bytes, BytesMut};
use taipei_engine::limits::BLOCK_BYTES;
use taipei_engine::wire::lsd::GROUP_V4;
use taipei_engine::wire::{ExtendedHandshake, Handshake, LsdAnnounce, Message, MetadataMessage, Request};
use taipei_engine::{BlockData, ConnectionId, InfoHash};

use super::{Act, FLOOD_BEAT, Puppet, RESERVED, SHOUTS_PER_SECOND, UNSENT_MAX, grammar};
use crate::scenario::Behaviour;
use crate::units::{MILLISECOND, SECOND};

impl Puppet {
    /// A connection is there, at either end.
    pub(super) fn open(&mut self, now: u64, id: ConnectionId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.open = true;
        let (mood, dialled) = (link.mood, link.torrent.is_some());
        match self.behaviour {
            Behaviour::Silent if mood.is_multiple_of(2) => {}
            Behaviour::SlowLoris if mood % 3 == 0 => {
                link.beat_at = Some(now);
                link.torrent = link.torrent.or(Some(0));
                let hello = self.hello(id).map(|hello| self.encoded(&hello)).unwrap_or_default();
                if let Some(link) = self.links.get_mut(&id) {
                    (link.said_hello, link.drip) = (true, hello.into());
                }
            }
            Behaviour::IllegalMessages if mood.is_multiple_of(8) => self.nonsense(id),
            _ if dialled => self.greet(id),
            _ => {}
        }
    }

    /// A message came.
    pub(super) fn react(&mut self, now: u64, id: ConnectionId, message: Message) {
        match message {
            Message::Handshake(_) => {
                if self.links.get(&id).is_some_and(|link| !link.said_hello) {
                    match self.behaviour {
                        Behaviour::Silent if self.mood(id).is_multiple_of(2) => return,
                        _ => self.greet(id),
                    }
                }
                self.introduce(now, id);
            }
            Message::Request(request) => self.answer(now, id, request),
            Message::Extended { id: UT_METADATA, payload } => self.tell_metadata(id, &payload),
            Message::Choke | Message::Unchoke | Message::Have(_) | Message::HaveAll => self.download(id),
            Message::Bitfield(_) | Message::Piece { .. } | Message::RejectRequest(_) => self.download(id),
            _ => {}
        }
    }

    /// Its own time has come.
    pub(super) fn beat(&mut self, now: u64, id: ConnectionId) {
        let Some(every) = self.beat_every() else { return };
        let Some(link) = self.links.get_mut(&id) else { return };
        link.beat_at = Some(now + every);
        if link.unsent > UNSENT_MAX {
            return;
        }
        link.beats += 1;
        match self.behaviour {
            Behaviour::HaveFlood => {
                self.flood(id, |puppet, pieces| Message::Have(puppet.rng.below(u64::from(pieces)) as u32))
            }
            Behaviour::KeepAliveFlood => self.flood(id, |_, _| Message::KeepAlive),
            Behaviour::RequestFlood => self.flood(id, |puppet, pieces| {
                let piece = puppet.rng.below(u64::from(pieces)) as u32;
                let same = puppet.rng.below(2) == 0;
                let piece = if same { 0 } else { piece };
                Message::Request(Request { piece, begin: 0, length: BLOCK_BYTES })
            }),
            Behaviour::AllowedFastDrainer => self.drain(id),
            Behaviour::ChokeFlapper => self.flap(id),
            Behaviour::SlowLoris => {
                if let Some(byte) = link.drip.pop_front() {
                    self.send(id, vec![byte]);
                }
            }
            Behaviour::IllegalMessages => self.nonsense(id),
            Behaviour::OversizeMessage => self.go_on_with_gigabytes(id),
            Behaviour::HaveAllThenNone => self.waver(id),
            Behaviour::UnaskedPieces => self.push_block(id),
            Behaviour::PexSpam(count) => self.name_peers(id, count),
            Behaviour::MetadataBomb => self.push_metadata(id),
            Behaviour::Deaf => self.turn_deaf(id),
            _ => {}
        }
    }

    /// A part of a storm (BEP 14): peers that do not exist in swarms that there are, peers of other swarms, nonsense.
    pub(super) fn shout(&mut self) {
        let Behaviour::LsdStorm(per_second) = self.behaviour else { return };
        for _ in 0..u64::from(per_second).div_ceil(SHOUTS_PER_SECOND) {
            let known = self.materials.torrents.iter().map(|torrent| torrent.info_hash);
            let (mut info_hashes, mut other) = (known.collect::<Vec<_>>(), [0; 20]);
            self.rng.fill(&mut other);
            match self.rng.below(3) {
                0 => info_hashes = vec![InfoHash(other)],
                1 => info_hashes.push(InfoHash(other)),
                _ => {}
            }
            let port = self.rng.below(1 << 16) as u16;
            let mut bytes = LsdAnnounce { port, info_hashes, cookie: other[..4].to_vec() }.encode(GROUP_V4);
            if self.rng.below(4) == 0 {
                let at = self.rng.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << self.rng.below(8);
            }
            if self.rng.below(50) == 0 {
                bytes.resize(6_000, b'\n');
            }
            self.acts.push_back(Act::Shout { bytes: bytes.into() });
        }
    }

    /// How often it acts by itself; none for those that only answer.
    fn beat_every(&self) -> Option<u64> {
        Some(match self.behaviour {
            Behaviour::HaveFlood | Behaviour::KeepAliveFlood | Behaviour::RequestFlood => FLOOD_BEAT,
            Behaviour::AllowedFastDrainer | Behaviour::IllegalMessages => 200 * MILLISECOND,
            Behaviour::ChokeFlapper => 300 * MILLISECOND,
            Behaviour::OversizeMessage | Behaviour::UnaskedPieces | Behaviour::Deaf => 500 * MILLISECOND,
            Behaviour::PexSpam(_) | Behaviour::MetadataBomb => SECOND,
            Behaviour::HaveAllThenNone => 2 * SECOND,
            Behaviour::SlowLoris => 3 * SECOND,
            _ => return None,
        })
    }

    fn mood(&self, id: ConnectionId) -> u64 {
        self.links.get(&id).map_or(0, |link| link.mood)
    }

    fn hello(&self, id: ConnectionId) -> Option<Message> {
        let (_, material) = self.material(id)?;
        let handshake =
            Handshake { reserved: RESERVED, info_hash: material.info_hash, peer_id: self.peer_id };
        Some(Message::Handshake(handshake))
    }

    fn encoded(&self, message: &Message) -> Vec<u8> {
        let mut chunks = Default::default();
        taipei_engine::wire::Stream::default().encode([message], &mut chunks);
        chunks.into_iter().flatten().collect()
    }

    /// Its handshake, as it should be, or of no torrent.
    fn greet(&mut self, id: ConnectionId) {
        let Some(mut hello) = self.hello(id) else { return };
        if let (Message::Handshake(hello), Behaviour::IllegalMessages) = (&mut hello, self.behaviour)
            && self.mood(id) % 8 == 1
        {
            hello.info_hash = InfoHash([0xee; 20]);
        }
        self.say(id, &[hello]);
        if let Some(link) = self.links.get_mut(&id) {
            link.said_hello = true;
        }
    }

    /// Both handshakes are done: what it claims, and what it wants.
    fn introduce(&mut self, now: u64, id: ConnectionId) {
        let every = self.beat_every();
        let Some(pieces) = self.material(id).map(|(_, material)| material.piece_count()) else { return };
        let Some(link) = self.links.get_mut(&id) else { return };
        link.beat_at = link.beat_at.or(every.map(|every| now + every));
        let (fast, mood) = (link.fast, link.mood);
        let full = || Message::Bitfield(grammar::full_bitfield(pieces).into());
        match self.behaviour {
            Behaviour::Silent => return,
            Behaviour::SlowLoris if mood % 3 == 0 => return,
            Behaviour::SlowLoris if mood % 3 == 1 => {
                // Half a bitfield, and the rest of it never.
                let bitfield = self.encoded(&full());
                return self.send(id, bitfield[..bitfield.len() / 2 + 2].to_vec());
            }
            _ => {}
        }
        let claim = match (self.has_all, fast) {
            (true, true) if mood.is_multiple_of(2) => Some(Message::HaveAll),
            (true, _) => Some(full()),
            (false, true) => Some(Message::HaveNone),
            (false, false) => None,
        };
        let size = self.material(id).map_or(0, |(_, material)| material.info.len() as i64);
        let metadata_size = match self.behaviour {
            Behaviour::MetadataBomb => Some(i64::from(u32::MAX)),
            Behaviour::MetadataLiar if mood % 4 == 1 => Some(size / 2 + 1),
            Behaviour::MetadataLiar | Behaviour::MetadataQuitter => Some(size),
            _ => None,
        };
        let speaks = matches!(self.behaviour, Behaviour::PexSpam(_)) || metadata_size.is_some();
        let extended = speaks.then(|| {
            Message::ExtendedHandshake(Box::new(ExtendedHandshake {
                m: vec![("ut_metadata".to_owned(), UT_METADATA), ("ut_pex".to_owned(), UT_PEX)],
                metadata_size,
                reqq: Some(i64::MAX),
                ..ExtendedHandshake::default()
            }))
        });
        if let Some(link) = self.links.get_mut(&id) {
            link.am_choking = false;
        }
        let wants = self.behaviour.downloads().then_some(Message::Interested);
        let messages: Vec<Message> =
            claim.into_iter().chain(extended).chain([Message::Unchoke]).chain(wants).collect();
        self.say(id, &messages);
        if self.behaviour == Behaviour::OversizeMessage {
            let mut head = BytesMut::new();
            head.put_u32(if mood.is_multiple_of(2) { u32::MAX } else { 1 << 24 });
            head.put_u8([7, 20, 5, 200][(mood / 2 % 4) as usize]);
            self.send(id, head);
        }
    }

    /// A block is asked for.
    fn answer(&mut self, now: u64, id: ConnectionId, request: Request) {
        let Some((_, material)) = self.material(id) else { return };
        let is_last = request.piece + 1 == material.piece_count();
        let mood = self.mood(id);
        match self.behaviour {
            Behaviour::BitfieldLiar if mood.is_multiple_of(2) => {
                self.say(id, &[Message::RejectRequest(request)]);
            }
            Behaviour::BitfieldLiar | Behaviour::Silent => {}
            Behaviour::WithholdLastPiece if is_last => {}
            Behaviour::IllegalMessages if self.rng.below(2) == 0 => {}
            Behaviour::ChokeFlapper if self.links.get(&id).is_some_and(|link| link.am_choking) => {}
            Behaviour::SlowLoris => self.drip_block(now, id, request),
            Behaviour::Poison { part, of } => {
                let lies = self.rng.below(of) < part;
                self.serve(id, request, lies);
            }
            Behaviour::DuplicatePieces => {
                self.serve(id, request, false);
                self.serve(id, request, false);
            }
            Behaviour::DisconnectAfterEachBlock => {
                self.serve(id, request, false);
                self.close(id);
            }
            behaviour if behaviour.downloads() => {}
            _ => self.serve(id, request, false),
        }
    }

    fn block(&self, id: ConnectionId, request: Request) -> Option<Bytes> {
        let (_, material) = self.material(id)?;
        let (offset, length) = material.piece(request.piece);
        let end = u64::from(request.begin) + u64::from(request.length);
        let fits = request.piece < material.piece_count() && end <= length;
        fits.then(|| material.content.slice(offset + u64::from(request.begin), u64::from(request.length)))
    }

    fn serve(&mut self, id: ConnectionId, request: Request, lies: bool) {
        let Some(mut block) = self.block(id, request).filter(|block| !block.is_empty()) else { return };
        if lies {
            let mut wrong = block.to_vec();
            wrong[0] ^= 0x80;
            block = wrong.into();
        }
        let data = BlockData::from(block);
        self.say(id, &[Message::Piece { piece: request.piece, begin: request.begin, data }]);
    }

    /// A block by drips: it will not be through before the end of the world.
    fn drip_block(&mut self, now: u64, id: ConnectionId, request: Request) {
        let Some(block) = self.block(id, request) else { return };
        let data = BlockData::from(block);
        let message = Message::Piece { piece: request.piece, begin: request.begin, data };
        let bytes = self.encoded(&message);
        if let Some(link) = self.links.get_mut(&id).filter(|link| link.drip.is_empty()) {
            link.drip = bytes.into();
            link.beat_at = Some(now);
        }
    }

    /// Asks for blocks as an honest peer would, where it is let.
    fn download(&mut self, id: ConnectionId) {
        if !matches!(self.behaviour, Behaviour::FreeRider) {
            return;
        }
        let Some((torrent, material)) = self.material(id) else { return };
        let (piece_bytes, pieces) = (material.piece_bytes, material.piece_count());
        let blocks_a_piece = piece_bytes.div_ceil(u64::from(BLOCK_BYTES)) as u32;
        let total = pieces * blocks_a_piece;
        // Each block of one host at a time.
        let out: BTreeSet<Request> =
            self.links.values().flat_map(|link| link.asked.iter().copied()).collect();
        let Some(link) = self.links.get_mut(&id) else { return };
        let mut requests = Vec::new();
        while !link.peer_choking && link.asked.len() < PIPELINE && link.cursor.1 < total {
            let at = (link.cursor.0 % total + link.cursor.1) % total;
            link.cursor.1 += 1;
            let (piece, begin) = (at / blocks_a_piece, at % blocks_a_piece * BLOCK_BYTES);
            let (_, length) = self.materials.torrents[torrent].piece(piece);
            let there = link.peer_has_all || link.peer_has.contains(&piece);
            if u64::from(begin) >= length || !there || self.got.contains(&(torrent, piece, begin)) {
                continue;
            }
            let length = (length - u64::from(begin)).min(u64::from(BLOCK_BYTES)) as u32;
            let request = Request { piece, begin, length };
            if !out.contains(&request) && link.asked.insert(request) {
                requests.push(Message::Request(request));
            }
        }
        self.say(id, &requests);
    }

    /// A hundred messages at once.
    fn flood(&mut self, id: ConnectionId, mut message: impl FnMut(&mut Self, u32) -> Message) {
        let Some(pieces) = self.material(id).map(|(_, material)| material.piece_count()) else { return };
        let messages: Vec<Message> = (0..FLOOD_MESSAGES).map(|_| message(self, pieces)).collect();
        self.say(id, &messages);
    }

    /// What may be fetched while choked, over and over.
    fn drain(&mut self, id: ConnectionId) {
        let Some(link) = self.links.get(&id) else { return };
        let asks = link.allowed_fast.iter().flat_map(|piece| {
            (0..4).map(|block| {
                let request = Request { piece: *piece, begin: block * BLOCK_BYTES, length: BLOCK_BYTES };
                Message::Request(request)
            })
        });
        let asks: Vec<Message> = asks.collect();
        self.say(id, &asks);
    }

    fn flap(&mut self, id: ConnectionId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.am_choking = !link.am_choking;
        let message = if link.am_choking { Message::Choke } else { Message::Unchoke };
        self.say(id, &[message]);
    }

    /// One to five messages, most of them legal by themselves.
    fn nonsense(&mut self, id: ConnectionId) {
        let material = self.material(id).map(|(_, material)| {
            let (pieces, piece_bytes) = (material.piece_count(), material.piece_bytes as u32);
            grammar::Shape { info_hash: material.info_hash, pieces, piece_bytes }
        });
        let shape = material.unwrap_or(grammar::Shape {
            info_hash: InfoHash([0; 20]),
            pieces: 1,
            piece_bytes: BLOCK_BYTES,
        });
        let mut bytes = Vec::new();
        for _ in 0..=self.rng.below(5) {
            grammar::message(&mut self.rng, &shape, &mut bytes);
        }
        self.send(id, bytes);
    }

    /// What it announced goes on and on.
    fn go_on_with_gigabytes(&mut self, id: ConnectionId) {
        let mut junk = vec![0; JUNK_BYTES];
        self.rng.fill(&mut junk);
        self.send(id, junk);
    }

    fn waver(&mut self, id: ConnectionId) {
        let Some(pieces) = self.material(id).map(|(_, material)| material.piece_count()) else { return };
        let mut half = grammar::full_bitfield(pieces);
        let middle = half.len() / 2;
        half[middle..].fill(0);
        let beats = self.links.get(&id).map_or(0, |link| link.beats);
        let message = match beats % 3 {
            0 => Message::HaveAll,
            1 => Message::HaveNone,
            _ => Message::Bitfield(half.into()),
        };
        self.say(id, &[message]);
    }

    /// A block that nobody asked for: right, wrong, or of no piece.
    fn push_block(&mut self, id: ConnectionId) {
        let Some((_, material)) = self.material(id) else { return };
        let (pieces, piece_bytes) = (material.piece_count(), material.piece_bytes);
        let piece = self.rng.below(u64::from(pieces)) as u32;
        let blocks = piece_bytes.div_ceil(u64::from(BLOCK_BYTES));
        let begin = self.rng.below(blocks) as u32 * BLOCK_BYTES;
        let (_, length) = self.materials.torrents[self.links[&id].torrent.unwrap_or(0)].piece(piece);
        let length = length.saturating_sub(u64::from(begin)).min(u64::from(BLOCK_BYTES)) as u32;
        let lies = self.rng.below(2) == 0;
        self.serve(id, Request { piece, begin, length }, lies);
    }

    /// Peers that do not exist.
    fn name_peers(&mut self, id: ConnectionId, count: u32) {
        let mut added = vec![0; 6 * count as usize];
        self.rng.fill(&mut added);
        let mut payload = format!("d5:added{}:", added.len()).into_bytes();
        payload.extend(added);
        payload.push(b'e');
        let ut_pex = self.links.get(&id).map_or(0, |link| link.ut_pex);
        self.say(id, &[Message::Extended { id: ut_pex, payload: payload.into() }]);
    }

    /// A piece of metadata that nobody asked for.
    fn push_metadata(&mut self, id: ConnectionId) {
        let piece = self.links.get(&id).map_or(0, |link| link.beats);
        let mut payload = format!("d8:msg_typei1e5:piecei{piece}e10:total_sizei{}ee", u32::MAX).into_bytes();
        payload.resize(payload.len() + BLOCK_BYTES as usize, 0);
        self.say_of_metadata(id, payload.into());
    }

    /// A block of metadata is asked for.
    fn tell_metadata(&mut self, id: ConnectionId, payload: &Bytes) {
        let Some(MetadataMessage::Request { block }) = MetadataMessage::decode(payload) else { return };
        let Some((_, material)) = self.material(id) else { return };
        let (info, begin) = (material.info.clone(), (block * BLOCK_BYTES) as usize);
        let right = info.slice(begin.min(info.len())..info.len().min(begin + BLOCK_BYTES as usize));
        let (told, mood) = self.links.get(&id).map_or((0, 0), |link| (link.told, link.mood));
        let answer = |data: Bytes| MetadataMessage::Data { block, total_bytes: None, data };
        let answer = match self.behaviour {
            Behaviour::MetadataQuitter if told > 0 => return self.close(id),
            Behaviour::MetadataQuitter => answer(right),
            Behaviour::MetadataLiar => match mood % 4 {
                0 => answer(vec![0xee; right.len()].into()),
                1 => {
                    let size = info.len() / 2 + 1;
                    answer(vec![0xee; size.saturating_sub(begin).min(BLOCK_BYTES as usize)].into())
                }
                2 => MetadataMessage::Reject { block },
                _ => return,
            },
            _ => return,
        };
        if let Some(link) = self.links.get_mut(&id) {
            link.told += 1;
        }
        self.say_of_metadata(id, answer.encode());
    }

    fn say_of_metadata(&mut self, id: ConnectionId, payload: Bytes) {
        // None where the other side does not speak it.
        let number = self.links.get(&id).map_or(0, |link| link.ut_metadata);
        if number != 0 {
            self.say(id, &[Message::Extended { id: number, payload }]);
        }
    }

    /// Once it is served it asks for all it can, and reads nothing of it.
    fn turn_deaf(&mut self, id: ConnectionId) {
        let Some((_, material)) = self.material(id) else { return };
        let (pieces, blocks) =
            (material.piece_count(), (material.piece_bytes / u64::from(BLOCK_BYTES)) as u32);
        let Some(link) = self.links.get(&id).filter(|link| !link.peer_choking) else { return };
        let has = |piece: &u32| link.peer_has_all || link.peer_has.contains(piece);
        let asks = (0..pieces).filter(has).flat_map(|piece| {
            (0..blocks).map(move |block| {
                Message::Request(Request { piece, begin: block * BLOCK_BYTES, length: BLOCK_BYTES })
            })
        });
        let asks: Vec<Message> = asks.take(DEAF_REQUESTS).collect();
        if asks.is_empty() {
            return;
        }
        self.say(id, &asks);
        self.acts.push_back(Act::Deafen { link: id });
        if let Some(link) = self.links.get_mut(&id) {
            link.beat_at = None;
        }
    }
}

/// By which numbers it knows extensions.
const UT_METADATA: u8 = 2;
const UT_PEX: u8 = 1;
/// Messages of one beat of a flood.
const FLOOD_MESSAGES: u32 = 100;
/// Requests that a free rider keeps out.
const PIPELINE: usize = 16;
const JUNK_BYTES: usize = 64 << 10;
/// As many as our engine queues for one peer.
const DEAF_REQUESTS: usize = 500;
