//! A peer's bytes: the same messages come out however they are cut, and what is written back reads the same.
#![no_main]

use std::collections::VecDeque;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use taipei_engine::wire::stream::{Stream, WireError};
use taipei_engine::wire::{Handshake, Message, Reserved};
use taipei_engine::{InfoHash, PeerId};

/// Messages of a connection whose bytes come in chunks of at most `step`.
fn read(data: &[u8], step: usize) -> (Vec<Message>, Result<(), WireError>) {
    let (mut stream, mut messages) = (Stream::default(), Vec::new());
    for chunk in data.chunks(step) {
        let result = stream.handle_bytes(Bytes::copy_from_slice(chunk), &mut messages);
        if result.is_err() {
            return (messages, result);
        }
    }
    (messages, Ok(()))
}

fn write(messages: &[Message]) -> Vec<u8> {
    let mut chunks = VecDeque::new();
    Stream::default().encode(messages, &mut chunks);
    chunks.iter().flat_map(|chunk| chunk.iter().copied()).collect()
}

fuzz_target!(|data: &[u8]| {
    let _ = read(data, 7);
    let handshake =
        Handshake { reserved: Reserved::OURS, info_hash: InfoHash([1; 20]), peer_id: PeerId([2; 20]) };
    let bytes = [write(&[Message::Handshake(handshake)]), data.to_vec()].concat();
    let (messages, result) = read(&bytes, bytes.len());
    assert_eq!((&messages, result), (&read(&bytes, 13).0, read(&bytes, 13).1));
    assert_eq!(read(&write(&messages), 1 << 20), (messages, Ok(())));
});
