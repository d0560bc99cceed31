//! Peers that no tracker named: whether they are looked for, and where they go. A private torrent has none (BEP 27).

use core::net::SocketAddr;

use super::Torrent;
use super::candidates::Origin;
use crate::alert::TorrentState;
use crate::context::Context;
use crate::wire::{Handshake, Reserved};

impl Torrent {
    /// Whether others than its trackers and peers may know of it now: the DHT, the local network.
    pub(crate) fn is_open(&self) -> bool {
        let looks = match self.state {
            TorrentState::FetchingMetadata => true,
            TorrentState::Downloading | TorrentState::Seeding => self.begun,
            _ => false,
        };
        looks && !self.is_private
    }

    /// Whether it has nobody to fetch from.
    pub(crate) fn is_alone(&self) -> bool {
        self.state != TorrentState::Seeding && self.peers.values().all(|peer| !peer.is_up())
    }

    /// Whether it has everything (BEP 33).
    pub(crate) fn is_seed(&self) -> bool {
        !self.is_magnet() && self.have.is_full()
    }

    /// Whether peers may know that we have a node of the DHT.
    pub(super) fn shows_dht(&self, context: &Context<'_>) -> bool {
        !self.is_private && context.dht_nodes_new.is_some()
    }

    /// What we say first.
    pub(super) fn handshake(&self, context: &Context<'_>) -> Handshake {
        let reserved = if self.shows_dht(context) { Reserved::OURS_WITH_DHT } else { Reserved::OURS };
        Handshake { reserved, info_hash: self.info_hash, peer_id: context.our_id }
    }

    /// A peer says where its node of the DHT is (BEP 5).
    pub(super) fn on_dht_port(&self, context: &mut Context<'_>, node: SocketAddr) {
        if !self.is_private
            && let Some(nodes) = &mut context.dht_nodes_new
        {
            nodes.push(node);
        }
    }

    /// The DHT named peers.
    pub(crate) fn add_dht_peers(&mut self, context: &mut Context<'_>, peers: Vec<SocketAddr>) {
        for address in peers.into_iter().filter(|address| !context.is_ourselves(*address)) {
            self.candidates.add(context.now, address, Origin::Dht);
        }
        self.settle(context);
    }

    /// A peer on the local network says that it is there.
    pub(crate) fn add_local_peer(&mut self, context: &mut Context<'_>, peer: SocketAddr) {
        if !context.is_ourselves(peer) {
            self.candidates.add(context.now, peer, Origin::Lsd);
        }
        self.settle(context);
    }
}
