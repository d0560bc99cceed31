//! What a peer says of its pieces before we know how many there are: kept as it came, judged later.
//!
//! It grows with what the peer sends, and no further than the largest torrent allows.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::limits::EARLY_PIECES_MAX;
use crate::wire::Message;

/// Availability that came early.
#[derive(Debug, Default)]
pub(crate) struct Early {
    /// Bitfield, have-all or have-none; of several what they say together, as nothing is taken back by another one.
    has: Option<Message>,
    haves: BTreeSet<u32>,
    allowed_fast: BTreeSet<u32>,
}

impl Early {
    /// Takes in a message about pieces. False when there are too many of them.
    pub(crate) fn on_message(&mut self, message: Message) -> bool {
        match message {
            Message::Have(piece) => _ = self.haves.insert(piece),
            Message::AllowedFast(piece) => _ = self.allowed_fast.insert(piece),
            Message::Bitfield(bits) => match &mut self.has {
                Some(Message::HaveAll) => {}
                Some(Message::Bitfield(before)) => *before = union(before, &bits),
                // Of its own: what came with it in one read is let go.
                has => *has = Some(Message::Bitfield(Bytes::copy_from_slice(&bits))),
            },
            Message::HaveNone => _ = self.has.get_or_insert(Message::HaveNone),
            other => self.has = Some(other),
        }
        self.haves.len().max(self.allowed_fast.len()) <= EARLY_PIECES_MAX
    }

    /// All of it, as if it came now.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = Message> + use<> {
        let Self { has, haves, allowed_fast } = std::mem::take(self);
        let haves = haves.into_iter().map(Message::Have);
        has.into_iter().chain(haves).chain(allowed_fast.into_iter().map(Message::AllowedFast))
    }
}

/// Both together, as long as the longer one: which length is right is not known yet.
fn union(a: &[u8], b: &[u8]) -> Bytes {
    let (longer, shorter) = if a.len() < b.len() { (b, a) } else { (a, b) };
    let rest = shorter.iter().copied().chain(std::iter::repeat(0));
    longer.iter().zip(rest).map(|(byte, other)| byte | other).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_early_comes_again_and_no_more_of_it_than_fits() {
        let mut early = Early::default();
        let said = [Message::AllowedFast(7), Message::Have(3), Message::HaveNone, Message::Have(1)];
        assert!(said.into_iter().all(|message| early.on_message(message)));
        let again: Vec<_> = early.take().collect();
        let in_order = [Message::HaveNone, Message::Have(1), Message::Have(3), Message::AllowedFast(7)];
        assert_eq!(again, in_order);
        assert_eq!(early.take().count(), 0);
        let taken = (0..2 * EARLY_PIECES_MAX as u32).take_while(|n| early.on_message(Message::Have(*n)));
        assert_eq!(taken.count(), EARLY_PIECES_MAX);
    }

    /// fuzz-small, seed 76: of a peer that said several things the last alone was heard.
    #[test]
    fn nothing_is_taken_back_by_another_bitfield() {
        let bits = |bytes: &'static [u8]| Message::Bitfield(Bytes::from_static(bytes));
        let said = |messages: Vec<Message>| {
            let mut early = Early::default();
            messages.into_iter().for_each(|message| assert!(early.on_message(message)));
            early.take().collect::<Vec<_>>()
        };
        assert_eq!(said(vec![bits(&[0x80, 1]), bits(&[0x40]), Message::HaveNone]), [bits(&[0xc0, 1])]);
        assert_eq!(said(vec![Message::HaveAll, bits(&[0x40]), Message::HaveNone]), [Message::HaveAll]);
        assert_eq!(said(vec![Message::HaveNone, bits(&[0x40])]), [bits(&[0x40])]);
    }
}
