//! Bytes to messages, and back.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use taipei_engine::BlockData;
use taipei_engine::limits::BLOCK_BYTES;
use taipei_engine::wire::{Handshake, Message, Request, Reserved, Stream};
use taipei_engine::{InfoHash, PeerId};

/// Decodes, cut as reads cut it.
pub(super) fn decode(times: u64) -> String {
    let mut stream = Stream::default();
    let mut messages = Vec::new();
    let handed = stream.handle_bytes(together(&[handshake()]), &mut messages);
    assert_eq!((handed, messages.len()), (Ok(()), 1), "a handshake comes first");
    let bytes = together(&typical());
    let (mut read_bytes, mut decoded, mut block_bytes) = (0u64, 0u64, 0u64);
    let mut cuts = CUTS.iter().cycle();
    for _ in 0..times {
        let mut rest = bytes.clone();
        while !rest.is_empty() {
            let cut = cuts.next().map_or(rest.len(), |cut| rest.len().min(*cut));
            read_bytes += cut as u64;
            messages.clear();
            stream.handle_bytes(rest.split_to(cut), &mut messages).expect("it is BitTorrent");
            decoded += messages.len() as u64;
            for message in &messages {
                if let Message::Piece { data, .. } = message {
                    block_bytes += u64::from(data.len());
                }
            }
        }
    }
    assert_eq!(decoded, times * typical().len() as u64, "no message is lost");
    assert_eq!(block_bytes, times * u64::from(BLOCKS * BLOCK_BYTES), "blocks are whole");
    format!("{decoded} messages, {} blocks, from {read_bytes} bytes", block_bytes / u64::from(BLOCK_BYTES))
}

/// Encodes.
pub(super) fn encode(times: u64) -> String {
    let mut stream = Stream::default();
    let (messages, want) = (typical(), together(&typical()).len() as u64);
    let (mut chunks, mut bytes, mut slices) = (VecDeque::new(), 0u64, 0u64);
    for _ in 0..times {
        stream.encode(&messages, &mut chunks);
        slices += chunks.len() as u64;
        bytes += chunks.drain(..).map(|chunk| chunk.len() as u64).sum::<u64>();
    }
    assert_eq!(bytes, times * want, "every message goes out");
    format!(
        "{} messages, {} blocks, to {bytes} bytes in {slices} slices",
        times * messages.len() as u64,
        times * u64::from(BLOCKS)
    )
}

/// What goes over a busy connection in both ways: a block, four pieces that somebody has, a request, and so on.
fn typical() -> Vec<Message> {
    let data = BlockData::from(Bytes::from(vec![0; BLOCK_BYTES as usize]));
    let mut messages = Vec::new();
    for block in 0..BLOCKS {
        let begin = block * BLOCK_BYTES;
        messages.push(Message::Piece { piece: 7, begin, data: data.clone() });
        messages.extend((0..4).map(|n| Message::Have(4 * block + n)));
        messages.push(Message::Request(Request { piece: 8, begin, length: BLOCK_BYTES }));
    }
    messages
}

fn handshake() -> Message {
    let (info_hash, peer_id) = (InfoHash([7; 20]), PeerId([8; 20]));
    Message::Handshake(Handshake { reserved: Reserved::OURS, info_hash, peer_id })
}

/// The bytes of messages, one after the other.
fn together(messages: &[Message]) -> Bytes {
    let mut chunks = VecDeque::new();
    Stream::default().encode(messages, &mut chunks);
    let mut bytes = BytesMut::new();
    chunks.iter().for_each(|chunk| bytes.extend_from_slice(chunk));
    bytes.freeze()
}

const BLOCKS: u32 = 16;
/// What reads give, one after the other: a full buffer, some segments, one segment, much at once.
const CUTS: [usize; 4] = [16_384, 4344, 1448, 65_536];
