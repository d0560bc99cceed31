//! Peer exchange (BEP 11): what we tell our peers of each other, and what we believe of what they tell.
//!
//! Each minute in which something changed every peer that speaks it is told who came and who went since it was last told,
//! fifty of each at most; the rest comes a minute later. A peer is told of those whom it may dial: they have a known
//! port, and are no more local than it is. Of what a peer tells no more is read than an honest one says, and no more
//! often; what it names counts against its share of the candidates.
//!
//! Nothing of this happens in a private torrent (BEP 27), nor where it is switched off.

use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::time::Duration;

use tracing::debug;

use super::Torrent;
use super::candidates::Origin;
use super::swarm::Fault;
use crate::address::is_acceptable;
use crate::context::Context;
use crate::ids::ConnectionId;
use crate::peer::Peer;
use crate::time::Instant;
use crate::wire::ut_pex::{PEX_REACHABLE, PEX_SEED};
use crate::wire::{Message, PexMessage, PexPeer};

/// When peers of one torrent are told of each other.
#[derive(Debug)]
pub(super) struct Pex {
    /// Switched on, and the torrent is not private as far as is known.
    is_on: bool,
    /// Something changed since everybody was told, or does not fit into what they were told.
    round_at: Option<Instant>,
    last_round: Option<Instant>,
}

impl Pex {
    pub(super) fn new(is_on: bool) -> Self {
        Self { is_on, round_at: None, last_round: None }
    }

    /// Whether peers are told of each other.
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Somebody came or went.
    pub(super) fn on_changed(&mut self, now: Instant) {
        if !self.is_on {
            return;
        }
        let earliest = self.last_round.map_or(now + SETTLE, |last| last + EVERY);
        self.round_at.get_or_insert(earliest.max(now + SETTLE));
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.round_at
    }
}

impl Torrent {
    /// Tells everybody who came and went, if it is time.
    pub(super) fn exchange_if_due(&mut self, context: &mut Context<'_>) {
        if self.pex.round_at.take_if(|at| *at <= context.now).is_none() {
            return;
        }
        self.pex.last_round = Some(context.now);
        let connected: BTreeMap<SocketAddr, u8> =
            self.peers.values().filter(|peer| peer.is_up()).filter_map(as_told).collect();
        let mut more = false;
        for (connection, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.is_up()) {
            let Some(id) = peer.ut_pex else { continue };
            let (remote, own) = (peer.remote.ip(), peer.listens_at);
            let for_it = connected
                .iter()
                .filter(|(address, _)| Some(**address) != own && is_acceptable(**address, remote));
            let for_it = for_it.map(|(address, flags)| (*address, *flags)).collect();
            let (message, is_cut) = peer.pex.tell(&for_it);
            more |= is_cut;
            if let Some(message) = message
                && peer.send(Message::Extended { id, payload: message.encode() })
            {
                self.unsent.push(*connection);
            }
        }
        if more {
            self.pex.on_changed(context.now);
        }
    }

    /// A peer tells of its peers.
    pub(super) fn on_pex(
        &mut self,
        context: &mut Context<'_>,
        connection: ConnectionId,
        payload: &[u8],
    ) -> Result<(), Fault> {
        let Some(peer) = self.peers.get_mut(&connection) else { return Ok(()) };
        let message = PexMessage::decode(payload);
        let believed = if self.pex.is_on { peer.pex.hear(context.now) } else { None };
        let (Some(message), Some(believed)) = (message, believed) else {
            return if peer.on_idle_message(context.now) { Ok(()) } else { Err(Fault::Flood) };
        };
        let source = peer.remote.ip();
        // Seeds have nothing to do with each other.
        let whole = self.begun && self.selection.is_complete();
        let of_use = |peer: &&PexPeer| !whole || peer.flags & PEX_SEED == 0;
        let named = message.added.iter().take(believed).filter(of_use).map(|peer| peer.address);
        let named: Vec<_> = named
            .filter(|address| is_acceptable(*address, source) && !context.is_ourselves(*address))
            .collect();
        debug!(torrent = %self.info_hash.short(), count = named.len(), "a peer named peers");
        for address in named {
            self.candidates.add(context.now, address, Origin::Pex(source));
        }
        Ok(())
    }

    /// It is known now that the torrent is private: whom only other peers, the DHT or the local network have named is nobody
    /// of ours.
    pub(super) fn stop_exchange(&mut self, context: &mut Context<'_>) {
        self.pex = Pex::new(false);
        for address in self.candidates.forget_exchanged() {
            let there = self.peers.iter().filter(|(_, peer)| peer.listens_at == Some(address));
            let there: Vec<_> = there.map(|(connection, _)| *connection).collect();
            there.into_iter().for_each(|connection| self.close_peer(context, connection));
        }
    }
}

/// A peer as others are told of it.
fn as_told(peer: &Peer) -> Option<(SocketAddr, u8)> {
    let seed = if peer.fetches_nothing() { PEX_SEED } else { 0 };
    let reachable = if peer.connection.is_accepted() { 0 } else { PEX_REACHABLE };
    peer.listens_at.map(|address| (address, seed | reachable))
}

/// Between rounds (BEP 11: no more than one message a minute).
const EVERY: Duration = Duration::from_secs(60);
/// After a change, so that those who come together are told of together.
const SETTLE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_a_minute_apart_and_only_after_changes() {
        let mut pex = Pex::new(true);
        let at = |seconds: u64| Instant(seconds * 1_000_000_000);
        assert_eq!(pex.deadline(), None);
        pex.on_changed(at(10));
        pex.on_changed(at(12));
        assert_eq!(pex.deadline(), Some(at(15)));
        (pex.round_at, pex.last_round) = (None, Some(at(15)));
        pex.on_changed(at(20));
        assert_eq!(pex.deadline(), Some(at(75)));
        (pex.round_at, pex.last_round) = (None, Some(at(75)));
        pex.on_changed(at(500));
        assert_eq!(pex.deadline(), Some(at(505)));
    }
}
