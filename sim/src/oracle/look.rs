//! What an engine says of itself, compared with what was seen from outside: S16, S22 and S23. In the event world only,
//! where the engine is at hand.

use taipei_engine::limits::{BLOCK_BYTES, READ_WINDOW_BYTES};
use taipei_engine::{Engine, TorrentId};

use super::Watch;
use crate::observer::Near;
use crate::units::SECOND;

impl Watch {
    /// An engine has done what an input asked for.
    pub fn on_stepped(&mut self, now: u64, host: usize, engine: &Engine) {
        if !self.is_looking {
            return;
        }
        self.check_memory(now, host, engine.buffered_bytes());
        let watch = &mut self.hosts[host];
        if now < watch.look_at {
            return;
        }
        watch.look_at = now + LOOK;
        for number in 0..self.materials.torrents.len() {
            let torrent = TorrentId(number as u32);
            if let Some(availability) = engine.availability(torrent) {
                self.check_availability(now, host, number, &availability);
            }
            if let Some(requests) = engine.requests_out(torrent) {
                self.check_requests(now, host, number, requests);
            }
        }
    }

    /// S16. What came over a connection that is gone since is there until it is written, and had its window.
    pub(super) fn check_memory(&mut self, now: u64, host: usize, buffered: u64) {
        let budget = self.plan.hosts[host].config.buffer_bytes;
        let Some(process) = &mut self.hosts[host].process else { return };
        let connections = process.connections.len() as u64 + std::mem::take(&mut process.closed);
        if let Some(observer) = &mut self.observer {
            let most = budget + connections * OVER_BUDGET_BYTES;
            observer.on_near("S16", "blocks in memory of one host", Near::bytes(buffered, most));
        }
        if buffered <= budget {
            process.windows = 0;
            return;
        }
        process.windows = process.windows.max(connections);
        let windows = process.windows;
        if buffered > budget + windows * OVER_BUDGET_BYTES {
            let message =
                format!("{buffered} bytes in memory, with a budget of {budget} and {windows} connections");
            self.break_rule("S16", now, Some(host), message);
        }
    }

    /// S22.
    pub(super) fn check_availability(&mut self, now: u64, host: usize, torrent: usize, availability: &[u32]) {
        let Some(process) = &self.hosts[host].process else { return };
        let peers = process.connections.values().filter(|peer| peer.torrent() == Some(torrent));
        let peers: Vec<_> = peers.collect();
        let wrong = (0u32..).zip(availability).find_map(|(piece, count)| {
            let seen = peers.iter().filter(|peer| peer.has(piece)).count() as u32;
            (seen != *count)
                .then(|| format!("counts {count} peers with piece {piece}, and {seen} have said so"))
        });
        if let Some(message) = wrong {
            self.break_rule("S22", now, Some(host), message);
        }
    }

    /// S23.
    pub(super) fn check_requests(&mut self, now: u64, host: usize, torrent: usize, requests: usize) {
        let whole = self.has_all(&self.hosts[host]);
        let Some(process) = &mut self.hosts[host].process else { return };
        process.whole_since = whole.then(|| process.whole_since.unwrap_or(now));
        let peers = process.connections.values().filter(|peer| peer.torrent() == Some(torrent));
        let open: usize = peers.map(|peer| peer.asked_count()).sum();
        if requests > open {
            let message = format!("waits for {requests} blocks, and {open} were asked for and did not come");
            self.break_rule("S23", now, Some(host), message);
        } else if requests > 0 && process.whole_since.is_some_and(|since| now > since + QUIESCENT) {
            let message = format!("waits for {requests} blocks, and has had everything for long");
            self.break_rule("S23", now, Some(host), message);
        }
    }
}

/// Between looks at one engine.
const LOOK: u64 = 10 * SECOND;
/// After this a request that nobody answers counts as lost, whatever came before.
const QUIESCENT: u64 = 180 * SECOND;

/// What may come over a connection when the budget is used up: its window, and the block that had come in part before it.
const OVER_BUDGET_BYTES: u64 = READ_WINDOW_BYTES + BLOCK_BYTES as u64;
