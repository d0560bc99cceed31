//! Who makes room when connections are used up.
//!
//! While the torrent is nearly full and somebody waits to be dialled, every five minutes the worst peers leave: one in
//! twenty-five, as libtorrent does, and at least one. Whoever connects to a full torrent takes the place of the worst. The
//! worst are of no use to either side: first those where neither wants anything of the other, then those that give us
//! nothing and want nothing, then those that have given us nothing for long. Who sends or is sent something, who is new,
//! and who waits for its turn with a seed stays, so a torrent whose peers are all of use stays as it is.

use std::time::Duration;

use super::Torrent;
use super::swarm::Fault;
use crate::context::Context;
use crate::ids::ConnectionId;
use crate::peer::Peer;
use crate::time::Instant;

impl Torrent {
    /// Keeps the time of the next turnover: it runs while it is called for.
    pub(super) fn watch_turnover(&mut self, context: &Context<'_>) {
        let slots = context.config.peers_per_torrent_max as usize;
        let nearly_full = self.peers.len() * 10 >= slots * 9 || !context.has_room();
        let waits = self.candidates.next_at().is_some_and(|at| at <= context.now);
        self.turnover_at = match self.turnover_at {
            at @ Some(_) if nearly_full && waits => at,
            None if nearly_full && waits => Some(context.now + TURNOVER),
            _ => None,
        };
    }

    /// Some of the worst leave, if it is time.
    pub(super) fn turn_over_if_due(&mut self, context: &mut Context<'_>) {
        if self.turnover_at.take_if(|at| *at <= context.now).is_none() {
            return;
        }
        let count = (self.peers.len() / ONE_IN).max(1);
        for connection in self.useless(context.now).into_iter().take(count) {
            self.drop_peer(context, connection, &Fault::Displaced);
        }
    }

    /// Makes room for one that is there. False if all others are of use.
    pub(super) fn displace_one(&mut self, context: &mut Context<'_>) -> bool {
        let worst = self.useless(context.now).first().copied();
        if let Some(worst) = worst {
            self.drop_peer(context, worst, &Fault::Displaced);
        }
        worst.is_some()
    }

    /// Peers that may leave, the worst first.
    fn useless(&self, now: Instant) -> Vec<ConnectionId> {
        let fetching = self.is_fetching();
        let rank = |peer: &Peer| Some((uselessness(peer, now, fetching)?, peer.since, peer.connection));
        let mut ranked: Vec<_> = self.peers.values().filter_map(rank).collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|(.., connection)| connection).collect()
    }
}

/// How a peer is of no use, the worst first; none if it is of some, or may soon be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Uselessness {
    WantsNothing,
    GivesNothing,
    GaveNothingForLong,
}

fn uselessness(peer: &Peer, now: Instant, fetching: bool) -> Option<Uselessness> {
    let moves = peer.download_steady.per_second(now) + peer.upload_steady.per_second(now) > 0;
    let age = now.since(peer.since);
    if !peer.is_up() || moves || age < NEW {
        return None;
    }
    let silent = now.since(peer.requests.last_block().unwrap_or(peer.since));
    match (peer.am_interested, peer.peer_interested) {
        (false, false) => Some(Uselessness::WantsNothing),
        (true, false) if silent >= GIVES_NOTHING => Some(Uselessness::GivesNothing),
        (_, true) if fetching && silent >= NOTHING_FOR_LONG => Some(Uselessness::GaveNothingForLong),
        _ => None,
    }
}

/// libtorrent's `peer_turnover_interval`.
const TURNOVER: Duration = Duration::from_secs(300);
/// libtorrent's `peer_turnover`, 4 %.
const ONE_IN: usize = 25;
/// As long as a newcomer has better chances with a choker.
const NEW: Duration = Duration::from_secs(90);
const GIVES_NOTHING: Duration = Duration::from_secs(180);
const NOTHING_FOR_LONG: Duration = Duration::from_secs(600);
