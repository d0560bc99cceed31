//! One connection's bytes, both ways: framing, and caps by message kind (BEP 3, BEP 6, BEP 10).
//!
//! The receiving side first expects the 68 bytes of a handshake, then length-prefixed messages. A length is judged
//! by its message's kind as soon as both are there, before anything is kept for it. The sending side has no state
//! but a scratch buffer, so a reader task and a writer task each have a `Stream` of their own.

use std::collections::VecDeque;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::extended::ExtendedHandshake;
use super::message::{Handshake, Message, Request, Reserved};
use crate::block::BlockData;
use crate::ids::{InfoHash, PeerId};
use crate::limits::{BITFIELD_BYTES_MAX, BLOCK_BYTES, EXTENDED_BYTES_MAX};

/// A connection's framing. Pure: bytes in, messages out, and the other way round.
#[derive(Debug, Default)]
pub struct Stream {
    /// What was received and belongs to no complete message yet, at most one message long between calls.
    chunks: VecDeque<Bytes>,
    buffered: usize,
    handshaken: bool,
    scratch: BytesMut,
}

/// What came is no BitTorrent, or too much of it. The connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum WireError {
    /// The first bytes are not those of a BitTorrent handshake.
    #[error("not a BitTorrent handshake")]
    NotBitTorrent,
    /// A length that its kind of message cannot have.
    #[error("message {id} with a length of {length}")]
    Length {
        /// The kind.
        id: u8,
        /// As it came, the kind's byte included.
        length: u32,
    },
    /// The extended handshake is not a bencoded dictionary.
    #[error("malformed extended handshake")]
    ExtendedHandshake,
}

impl Stream {
    /// Takes bytes as they came. Complete messages are appended to `messages`; a block's bytes stay where they are,
    /// shared with `chunk`, if that is not a crumb.
    ///
    /// # Errors
    /// When what came cannot be BitTorrent, or a message is longer than its kind allows. Messages before it are in
    /// `messages`. Nothing more may be given after an error.
    pub fn handle_bytes(&mut self, chunk: Bytes, messages: &mut Vec<Message>) -> Result<(), WireError> {
        if !chunk.is_empty() {
            self.buffered += chunk.len();
            match self.chunks.back_mut() {
                // What comes in crumbs would need more memory for its parts than it has bytes.
                Some(last) if last.len() + chunk.len() <= TOGETHER_BYTES_MAX => {
                    *last = [&last[..], &chunk[..]].concat().into();
                }
                _ => self.chunks.push_back(chunk),
            }
        }
        if !self.handshaken {
            match self.decode_handshake()? {
                None => return Ok(()),
                Some(handshake) => messages.push(Message::Handshake(handshake)),
            }
            self.handshaken = true;
        }
        while let Some(message) = self.decode_message()? {
            messages.push(message);
        }
        Ok(())
    }

    /// Appends the bytes of `messages` to `chunks`, in order. Blocks are shared, everything between them is put
    /// together.
    pub fn encode<'a>(
        &mut self,
        messages: impl IntoIterator<Item = &'a Message>,
        chunks: &mut VecDeque<Bytes>,
    ) {
        for message in messages {
            encode_message(message, &mut self.scratch);
            if let Message::Piece { data, .. } = message {
                chunks.push_back(self.scratch.split().freeze());
                chunks.extend(data.parts().iter().cloned());
            }
        }
        if !self.scratch.is_empty() {
            chunks.push_back(self.scratch.split().freeze());
        }
    }

    fn decode_handshake(&mut self) -> Result<Option<Handshake>, WireError> {
        let mut head = [0; PROTOCOL.len()];
        let seen = self.peek(&mut head);
        if head[..seen] != PROTOCOL[..seen] {
            return Err(WireError::NotBitTorrent);
        }
        if self.buffered < HANDSHAKE_BYTES {
            return Ok(None);
        }
        self.skip(PROTOCOL.len());
        let mut reserved = [0; 8];
        let mut info_hash = [0; 20];
        let mut peer_id = [0; 20];
        self.take(&mut reserved);
        self.take(&mut info_hash);
        self.take(&mut peer_id);
        Ok(Some(Handshake {
            reserved: Reserved(reserved),
            info_hash: InfoHash(info_hash),
            peer_id: PeerId(peer_id),
        }))
    }

    fn decode_message(&mut self) -> Result<Option<Message>, WireError> {
        let mut head = [0; 5];
        let seen = self.peek(&mut head);
        if seen < 4 {
            return Ok(None);
        }
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        if length == 0 {
            self.skip(4);
            return Ok(Some(Message::KeepAlive));
        }
        if seen < 5 {
            return Ok(None);
        }
        let id = head[4];
        if !lengths_of(id).contains(&length) {
            return Err(WireError::Length { id, length });
        }
        if self.buffered < 4 + length as usize {
            return Ok(None);
        }
        self.skip(5);
        let body = length - 1;
        Ok(Some(match id {
            CHOKE => Message::Choke,
            UNCHOKE => Message::Unchoke,
            INTERESTED => Message::Interested,
            NOT_INTERESTED => Message::NotInterested,
            HAVE => Message::Have(self.take_u32()),
            BITFIELD => Message::Bitfield(self.take_bytes(body as usize)),
            REQUEST => Message::Request(self.take_request()),
            PIECE => {
                let (piece, begin) = (self.take_u32(), self.take_u32());
                Message::Piece { piece, begin, data: self.take_block(body as usize - 8) }
            }
            CANCEL => Message::Cancel(self.take_request()),
            PORT => {
                let mut port = [0; 2];
                self.take(&mut port);
                Message::Port(u16::from_be_bytes(port))
            }
            SUGGEST_PIECE => Message::SuggestPiece(self.take_u32()),
            HAVE_ALL => Message::HaveAll,
            HAVE_NONE => Message::HaveNone,
            REJECT_REQUEST => Message::RejectRequest(self.take_request()),
            ALLOWED_FAST => Message::AllowedFast(self.take_u32()),
            EXTENDED => {
                let mut payload = self.take_bytes(body as usize);
                match payload.get_u8() {
                    0 => Message::ExtendedHandshake(Box::new(
                        ExtendedHandshake::decode(&payload).ok_or(WireError::ExtendedHandshake)?,
                    )),
                    id => Message::Extended { id, payload },
                }
            }
            id => {
                self.skip(body as usize);
                Message::Unknown(id)
            }
        }))
    }

    /// Copies the first bytes out without taking them; gives how many there were.
    fn peek(&self, into: &mut [u8]) -> usize {
        let mut done = 0;
        for chunk in &self.chunks {
            let count = chunk.len().min(into.len() - done);
            into[done..done + count].copy_from_slice(&chunk[..count]);
            done += count;
            if done == into.len() {
                break;
            }
        }
        done
    }

    /// The next bytes, shared. The callers have checked that they are there.
    fn next_part(&mut self, at_most: usize) -> Bytes {
        let first = self.chunks.front_mut().expect("checked to be buffered");
        let part = first.split_to(first.len().min(at_most));
        if first.is_empty() {
            self.chunks.pop_front();
        }
        self.buffered -= part.len();
        part
    }

    fn skip(&mut self, mut count: usize) {
        while count > 0 {
            count -= self.next_part(count).len();
        }
    }

    fn take(&mut self, into: &mut [u8]) {
        let mut done = 0;
        while done < into.len() {
            let part = self.next_part(into.len() - done);
            into[done..done + part.len()].copy_from_slice(&part);
            done += part.len();
        }
    }

    fn take_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.take(&mut bytes);
        u32::from_be_bytes(bytes)
    }

    fn take_request(&mut self) -> Request {
        Request { piece: self.take_u32(), begin: self.take_u32(), length: self.take_u32() }
    }

    fn take_bytes(&mut self, count: usize) -> Bytes {
        if count == 0 {
            return Bytes::new();
        }
        let first = self.next_part(count);
        if first.len() == count {
            return first;
        }
        let mut bytes = BytesMut::with_capacity(count);
        bytes.put(first);
        while bytes.len() < count {
            bytes.put(self.next_part(count - bytes.len()));
        }
        bytes.freeze()
    }

    fn take_block(&mut self, count: usize) -> BlockData {
        if count == 0 {
            return BlockData::default();
        }
        let first = self.next_part(count);
        if first.len() == count {
            return BlockData::from(first);
        }
        let mut left = count - first.len();
        let mut parts = vec![first];
        while left > 0 {
            let part = self.next_part(left);
            left -= part.len();
            parts.push(part);
        }
        BlockData::from_parts(parts)
    }
}

/// The lengths that a message of this kind can have, its kind's byte included.
fn lengths_of(id: u8) -> core::ops::RangeInclusive<u32> {
    match id {
        CHOKE | UNCHOKE | INTERESTED | NOT_INTERESTED | HAVE_ALL | HAVE_NONE => 1..=1,
        HAVE | SUGGEST_PIECE | ALLOWED_FAST => 5..=5,
        REQUEST | CANCEL | REJECT_REQUEST => 13..=13,
        BITFIELD => 1..=1 + BITFIELD_BYTES_MAX,
        PIECE => 9..=9 + BLOCK_BYTES,
        PORT => 3..=3,
        EXTENDED => 2..=2 + EXTENDED_BYTES_MAX,
        _ => 1..=1 + EXTENDED_BYTES_MAX,
    }
}

fn encode_message(message: &Message, out: &mut BytesMut) {
    let head = |out: &mut BytesMut, id: u8, body: u32| {
        out.put_u32(1 + body);
        out.put_u8(id);
    };
    let request = |out: &mut BytesMut, id: u8, request: &Request| {
        head(out, id, 12);
        out.put_u32(request.piece);
        out.put_u32(request.begin);
        out.put_u32(request.length);
    };
    let index = |out: &mut BytesMut, id: u8, index: u32| {
        head(out, id, 4);
        out.put_u32(index);
    };
    match message {
        Message::Handshake(handshake) => {
            out.put_slice(PROTOCOL);
            out.put_slice(&handshake.reserved.0);
            out.put_slice(&handshake.info_hash.0);
            out.put_slice(&handshake.peer_id.0);
        }
        Message::KeepAlive => out.put_u32(0),
        Message::Choke => head(out, CHOKE, 0),
        Message::Unchoke => head(out, UNCHOKE, 0),
        Message::Interested => head(out, INTERESTED, 0),
        Message::NotInterested => head(out, NOT_INTERESTED, 0),
        Message::Have(piece) => index(out, HAVE, *piece),
        Message::Bitfield(bits) => {
            head(out, BITFIELD, bits.len() as u32);
            out.put_slice(bits);
        }
        Message::Request(which) => request(out, REQUEST, which),
        Message::Piece { piece, begin, data } => {
            head(out, PIECE, 8 + data.len());
            out.put_u32(*piece);
            out.put_u32(*begin);
        }
        Message::Cancel(which) => request(out, CANCEL, which),
        Message::Port(port) => {
            head(out, PORT, 2);
            out.put_u16(*port);
        }
        Message::SuggestPiece(piece) => index(out, SUGGEST_PIECE, *piece),
        Message::HaveAll => head(out, HAVE_ALL, 0),
        Message::HaveNone => head(out, HAVE_NONE, 0),
        Message::RejectRequest(which) => request(out, REJECT_REQUEST, which),
        Message::AllowedFast(piece) => index(out, ALLOWED_FAST, *piece),
        Message::ExtendedHandshake(handshake) => {
            let payload = handshake.encode();
            head(out, EXTENDED, 1 + payload.len() as u32);
            out.put_u8(0);
            out.put_slice(&payload);
        }
        Message::Extended { id, payload } => {
            head(out, EXTENDED, 1 + payload.len() as u32);
            out.put_u8(*id);
            out.put_slice(payload);
        }
        Message::Unknown(id) => head(out, *id, 0),
    }
}

/// What came is put together up to this.
const TOGETHER_BYTES_MAX: usize = 1024;
const PROTOCOL: &[u8; 20] = b"\x13BitTorrent protocol";
const HANDSHAKE_BYTES: usize = 68;

const CHOKE: u8 = 0;
const UNCHOKE: u8 = 1;
const INTERESTED: u8 = 2;
const NOT_INTERESTED: u8 = 3;
const HAVE: u8 = 4;
const BITFIELD: u8 = 5;
const REQUEST: u8 = 6;
const PIECE: u8 = 7;
const CANCEL: u8 = 8;
const PORT: u8 = 9;
const SUGGEST_PIECE: u8 = 13;
const HAVE_ALL: u8 = 14;
const HAVE_NONE: u8 = 15;
const REJECT_REQUEST: u8 = 16;
const ALLOWED_FAST: u8 = 17;
const EXTENDED: u8 = 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn handshake() -> Message {
        Message::Handshake(Handshake {
            reserved: Reserved::OURS,
            info_hash: InfoHash([7; 20]),
            peer_id: PeerId(*b"-TP0100-abcdefghijkl"),
        })
    }

    fn bytes_of(messages: &[Message]) -> Vec<u8> {
        let mut chunks = VecDeque::new();
        Stream::default().encode(messages, &mut chunks);
        chunks.iter().flat_map(|chunk| chunk.to_vec()).collect()
    }

    /// Decodes `bytes` cut at every length in `cuts`, over and over.
    fn decode(bytes: &[u8], cuts: &[usize]) -> Result<Vec<Message>, WireError> {
        let mut stream = Stream::default();
        let mut messages = Vec::new();
        let mut rest = bytes;
        let mut cuts = cuts.iter().cycle();
        while !rest.is_empty() {
            let (now, later) = rest.split_at((*cuts.next().unwrap_or(&rest.len())).clamp(1, rest.len()));
            stream.handle_bytes(Bytes::copy_from_slice(now), &mut messages)?;
            rest = later;
        }
        Ok(messages)
    }

    fn any_message() -> impl Strategy<Value = Message> {
        let request = (any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(piece, begin, length)| Request {
            piece,
            begin,
            length,
        });
        let bytes = proptest::collection::vec(any::<u8>(), 0..600);
        prop_oneof![
            Just(Message::KeepAlive),
            Just(Message::Choke),
            Just(Message::Unchoke),
            Just(Message::Interested),
            Just(Message::NotInterested),
            Just(Message::HaveAll),
            Just(Message::HaveNone),
            any::<u32>().prop_map(Message::Have),
            any::<u32>().prop_map(Message::SuggestPiece),
            any::<u32>().prop_map(Message::AllowedFast),
            any::<u16>().prop_map(Message::Port),
            request.clone().prop_map(Message::Request),
            request.clone().prop_map(Message::Cancel),
            request.prop_map(Message::RejectRequest),
            bytes.clone().prop_map(|bits| Message::Bitfield(bits.into())),
            (1u8.., bytes.clone())
                .prop_map(|(id, payload)| Message::Extended { id, payload: payload.into() }),
            (any::<u32>(), any::<u32>(), bytes).prop_map(|(piece, begin, data)| Message::Piece {
                piece,
                begin,
                data: BlockData::from(Bytes::from(data))
            }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_however_it_is_cut(
            messages in proptest::collection::vec(any_message(), 0..20),
            cuts in proptest::collection::vec(1usize..700, 1..8),
        ) {
            let mut sent = vec![handshake()];
            sent.extend(messages);
            let bytes = bytes_of(&sent);
            let got = decode(&bytes, &cuts).unwrap();
            prop_assert_eq!(&got, &sent);
            prop_assert_eq!(bytes_of(&got), bytes, "payload bytes too");
        }

        #[test]
        fn junk_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400), cut in 1usize..50) {
            let mut with_handshake = bytes_of(&[handshake()]);
            with_handshake.extend(&bytes);
            let _ = decode(&with_handshake, &[cut]);
            let _ = decode(&bytes, &[cut]);
        }
    }

    #[test]
    fn a_block_is_shared_not_copied() {
        let sent =
            [handshake(), Message::Piece { piece: 1, begin: 0, data: Bytes::from(vec![9; 16384]).into() }];
        let bytes = Bytes::from(bytes_of(&sent));
        let mut messages = Vec::new();
        Stream::default().handle_bytes(bytes.clone(), &mut messages).unwrap();
        let Message::Piece { data, .. } = &messages[1] else { panic!("a piece") };
        assert!(bytes.as_ptr_range().contains(&data.parts()[0].as_ptr()));
    }

    #[test]
    fn a_block_in_crumbs_has_few_parts() {
        let block = Message::Piece { piece: 1, begin: 0, data: Bytes::from(vec![9; 16384]).into() };
        let sent = [handshake(), block];
        let (mut stream, mut messages) = (Stream::default(), Vec::new());
        for byte in bytes_of(&sent) {
            stream.handle_bytes(Bytes::copy_from_slice(&[byte]), &mut messages).unwrap();
        }
        let Message::Piece { data, .. } = &messages[1] else { panic!("a piece") };
        assert_eq!(data.len(), 16384);
        assert!(data.parts().len() <= 32, "{}", data.parts().len());
    }

    #[test]
    fn lengths_are_judged_before_the_body_comes() {
        let check = |bytes: &[u8], want| {
            let mut all = bytes_of(&[handshake()]);
            all.extend(bytes);
            assert_eq!(decode(&all, &[3]).map(|got| got.len()), want, "{bytes:?}");
        };
        check(&[0, 0, 0, 0], Ok(2));
        check(&[0xff, 0xff, 0xff, 0xff, PIECE], Err(WireError::Length { id: PIECE, length: u32::MAX }));
        check(&[0, 0, 0x40, 10, PIECE], Err(WireError::Length { id: PIECE, length: 16394 }));
        check(&[0, 0, 0, 8, PIECE], Err(WireError::Length { id: PIECE, length: 8 }));
        check(&[0, 0, 0, 2, CHOKE], Err(WireError::Length { id: CHOKE, length: 2 }));
        check(&[0, 0, 0, 1, EXTENDED], Err(WireError::Length { id: EXTENDED, length: 1 }));
        check(&[0, 0, 0, 1, 99], Ok(2));
        check(&[0, 0xff, 0xff, 0xff, 99], Err(WireError::Length { id: 99, length: 0xff_ffff }));
    }

    #[test]
    fn other_protocols_are_refused_at_the_first_wrong_byte() {
        assert_eq!(decode(b"GET / HTTP/1.1", &[1]), Err(WireError::NotBitTorrent));
        assert_eq!(decode(b"\x13BitTorrent protocoL", &[1]), Err(WireError::NotBitTorrent));
    }
}
