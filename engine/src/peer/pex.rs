//! Peer exchange with one peer (BEP 11): what it was told, and when it told us.

use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::limits::{PEX_FIRST_MAX, PEX_PEERS_MAX};
use crate::time::Instant;
use crate::wire::{PexMessage, PexPeer};

/// What one peer was told and told us.
#[derive(Debug, Default)]
pub(crate) struct PexState {
    told: BTreeSet<SocketAddr>,
    /// It told us last then.
    heard_at: Option<Instant>,
}

impl PexState {
    /// What to tell now of those who are connected; none when nothing changed. Also whether there is more.
    pub(crate) fn tell(&mut self, connected: &BTreeMap<SocketAddr, u8>) -> (Option<PexMessage>, bool) {
        let gone: Vec<_> = self.told.iter().filter(|peer| !connected.contains_key(peer)).copied().collect();
        let new = || connected.iter().filter(|(peer, _)| !self.told.contains(peer));
        let more = gone.len() > PEX_PEERS_MAX || new().count() > PEX_PEERS_MAX;
        let added: Vec<_> = new()
            .take(PEX_PEERS_MAX)
            .map(|(address, flags)| PexPeer { address: *address, flags: *flags })
            .collect();
        let dropped: Vec<_> = gone.into_iter().take(PEX_PEERS_MAX).collect();
        if added.is_empty() && dropped.is_empty() {
            return (None, false);
        }
        dropped.iter().for_each(|peer| _ = self.told.remove(peer));
        self.told.extend(added.iter().map(|peer| peer.address));
        (Some(PexMessage { added, dropped }), more)
    }

    /// How many peers of a message that comes now are believed; none when it comes too soon.
    pub(crate) fn hear(&mut self, now: Instant) -> Option<usize> {
        let believed = match self.heard_at {
            None => PEX_FIRST_MAX,
            Some(at) if now.since(at) >= HEARD_EVERY => PEX_PEERS_MAX,
            Some(_) => return None,
        };
        self.heard_at = Some(now);
        Some(believed)
    }
}

/// What is told sooner than this after the last time is not believed: a minute, less what the network shifts.
const HEARD_EVERY: Duration = Duration::from_secs(45);

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u32) -> SocketAddr {
        (core::net::Ipv4Addr::from(0x0101_0000 + n), 6881).into()
    }

    fn told(state: &mut PexState, connected: impl IntoIterator<Item = u32>) -> (usize, usize, bool) {
        let connected = connected.into_iter().map(|n| (address(n), 0)).collect();
        let (message, more) = state.tell(&connected);
        message.map_or((0, 0, more), |message| (message.added.len(), message.dropped.len(), more))
    }

    #[test]
    fn differences_alone_are_told_and_fifty_of_each_at_most() {
        let mut state = PexState::default();
        assert_eq!(told(&mut state, 0..3), (3, 0, false));
        assert_eq!(told(&mut state, 0..3), (0, 0, false));
        assert_eq!(told(&mut state, 1..4), (1, 1, false));
        assert_eq!(told(&mut state, 1..120), (50, 0, true));
        assert_eq!(told(&mut state, 1..120), (50, 0, true));
        assert_eq!(told(&mut state, 1..120), (16, 0, false));
        assert_eq!(told(&mut state, 200..201), (1, 50, true));
    }

    #[test]
    fn who_tells_too_often_is_not_believed() {
        let mut state = PexState::default();
        let at = |seconds: u64| Instant(seconds * 1_000_000_000);
        assert_eq!(state.hear(at(0)), Some(PEX_FIRST_MAX));
        assert_eq!((state.hear(at(1)), state.hear(at(44))), (None, None));
        assert_eq!(state.hear(at(60)), Some(PEX_PEERS_MAX));
    }
}
