//! One connection's bytes, both ways: framing, and caps by message kind.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::message::Message;

/// A connection's framing. Pure: bytes in, messages out, and the other way round.
#[derive(Debug, Default)]
pub struct Stream {}

/// What came is no BitTorrent, or too much of it. The connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum WireError {
    /// The first bytes are not those of a BitTorrent handshake.
    #[error("not a BitTorrent handshake")]
    NotBitTorrent,
}

impl Stream {
    /// Takes bytes as they came. Complete messages are appended to `messages`; a block's bytes stay where they are,
    /// shared with `chunk`.
    ///
    /// # Errors
    /// When what came cannot be BitTorrent, or a message is longer than its kind allows. Messages before it are in
    /// `messages`.
    pub fn handle_bytes(&mut self, _chunk: Bytes, _messages: &mut Vec<Message>) -> Result<(), WireError> {
        todo!()
    }

    /// Appends the bytes of `message` to `chunks`, in order; blocks are shared, not copied.
    pub fn encode(&mut self, _message: &Message, _chunks: &mut VecDeque<Bytes>) {
        todo!()
    }
}
