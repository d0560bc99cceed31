//! Between torrents and the local network: which are announced there, and whom it names (BEP 14).

use core::net::SocketAddr;

use super::Engine;
use crate::context::Wake;
use crate::datagram::{Protocol, classify};
use crate::ids::TorrentId;
use crate::input::Input;
use crate::lsd::Lsd;
use crate::output::Output;

/// Whether this is what the local network says, which tells nothing of how far others can be reached: our own announces
/// come back to us.
pub(super) fn is_local(input: &Input) -> bool {
    matches!(input, Input::Datagram { payload, .. } if classify(payload) == Some(Protocol::Lsd))
}

impl Engine {
    /// We listen: the local network may know, if it is to.
    pub(super) fn start_lsd(&mut self, families: (bool, bool)) {
        let Some(port) = self.port.filter(|_| self.config.lsd && self.lsd.is_none() && !self.stopping) else {
            return;
        };
        self.lsd = Some(Lsd::new(self.start.seed, port, families));
        let torrents: Vec<_> = self.torrents.keys().copied().collect();
        torrents.into_iter().for_each(|id| self.note_local(id));
    }

    /// A torrent may have become one that the local network may know of, or none any more.
    pub(super) fn note_local(&mut self, id: TorrentId) {
        let Some(lsd) = &mut self.lsd else { return };
        if let Some(torrent) = self.torrents.get(&id) {
            lsd.set_open(self.now, id, torrent.info_hash(), torrent.is_open());
        }
    }

    pub(super) fn handle_lsd_datagram(&mut self, remote: SocketAddr, payload: &[u8]) {
        let Some(lsd) = &mut self.lsd else { return };
        for (id, peer) in lsd.handle_datagram(self.now, remote, payload) {
            self.with_torrent(id, |torrent, context| torrent.add_local_peer(context, peer));
        }
    }

    pub(super) fn handle_lsd_timeout(&mut self) {
        if let Some(lsd) = &mut self.lsd {
            lsd.handle_timeout(self.now);
        }
    }

    /// The network may be another one.
    pub(super) fn renew_lsd(&mut self) {
        if let Some(lsd) = &mut self.lsd {
            lsd.renew(self.now);
        }
    }

    /// It is over: nothing more is said.
    pub(super) fn stop_lsd(&mut self) {
        self.lsd = None;
        self.timers.remove(Wake::Lsd);
    }

    /// Sends what is to be said.
    pub(super) fn settle_lsd(&mut self) {
        let Some(lsd) = &mut self.lsd else { return };
        while let Some((remote, payload)) = lsd.poll_packet() {
            self.outputs.push_back(Output::SendDatagram { remote, payload });
        }
        self.timers.set(Wake::Lsd, lsd.poll_timeout());
    }
}
