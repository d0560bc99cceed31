//! Puppets as processes of the event world: what happens on their machine goes in, what they do is done.

use taipei_engine::{ConnectionId, Input};

use super::host::Mind;
use super::{Todo, World};
use crate::puppet::{Act, Puppet};
use crate::trace::{Kind, digest};

impl World {
    /// What an engine would be told, told to a puppet.
    pub(super) fn step_puppet(&mut self, host: usize, input: &Input) {
        let now = self.now;
        self.with_puppet(host, |puppet| match input {
            Input::Timeout => puppet.handle_timeout(now),
            Input::Connected { connection, .. } => puppet.handle_connected(now, *connection),
            Input::Accepted { connection, remote } => puppet.handle_accepted(now, *connection, *remote),
            Input::Sent { connection, written_bytes } => {
                puppet.handle_sent(*connection, u64::from(*written_bytes));
            }
            Input::Closed { connection, .. } => puppet.handle_closed(*connection),
            _ => {}
        });
        if let Input::Connected { connection, .. } | Input::Accepted { connection, .. } = input
            && let Some((stream, side)) = self.connection(host, *connection)
            && let Some(end) = self.streams.end(stream, side)
        {
            end.grant(ALL, ALL);
            self.todo.push_back(Todo::Write(stream, side));
            self.todo.push_back(Todo::Read(stream, side));
        }
    }

    /// What came for a puppet, as it came.
    pub(super) fn give_puppet(&mut self, host: usize, connection: ConnectionId, bytes: bytes::Bytes) {
        let now = self.now;
        self.with_puppet(host, |puppet| puppet.handle_bytes(now, connection, bytes));
    }

    fn with_puppet(&mut self, host: usize, tell: impl FnOnce(&mut Puppet)) {
        let Some(Mind::Puppet(puppet)) = self.hosts[host].process.as_mut().map(|process| &mut process.mind)
        else {
            return;
        };
        tell(puppet);
        loop {
            let process = self.hosts[host].process.as_mut();
            let Some(Mind::Puppet(puppet)) = process.map(|process| &mut process.mind) else { break };
            let Some(act) = puppet.poll_act() else { break };
            self.act(host, act);
        }
        self.arm(host);
    }

    fn act(&mut self, host: usize, act: Act) {
        match act {
            Act::Announce { torrent } => self.enlist(host, torrent),
            Act::Shout { bytes } => {
                self.watch.trace.event(self.now, host as u32 + 1, Kind::Output, [SHOUTS, digest(&bytes), 0]);
                let own = self.plan.hosts[host].address;
                self.send_to_neighbours(host, own, &bytes);
            }
            Act::Connect { link, remote } => self.connect(host, link, remote),
            Act::Send { link, bytes } => {
                self.watch.trace.event(self.now, host as u32 + 1, Kind::Output, [SENDS, digest(&bytes), 0]);
                if let Some((stream, side)) = self.connection(host, link)
                    && let Some(end) = self.streams.end(stream, side)
                {
                    end.push(bytes);
                    self.todo.push_back(Todo::Write(stream, side));
                }
            }
            Act::Deafen { link } => {
                if let Some((stream, side)) = self.connection(host, link)
                    && let Some(end) = self.streams.end(stream, side)
                {
                    end.revoke(ALL, 0);
                }
            }
            Act::Close { link } => {
                let process = self.hosts[host].process.as_mut();
                if let Some((stream, side)) = process.and_then(|process| process.connections.remove(&link)) {
                    self.end_by_system(stream, side);
                }
            }
        }
    }

    /// On the lists of all trackers of a torrent.
    fn enlist(&mut self, host: usize, torrent: usize) {
        let now = self.now;
        let address = self.plan.hosts[host].address;
        let Some(Mind::Puppet(puppet)) = self.hosts[host].process.as_mut().map(|process| &mut process.mind)
        else {
            return;
        };
        let material = &self.materials.torrents[torrent];
        let left = if puppet.has_all() { 0 } else { material.content.len() };
        let peer_id = puppet.peer_id();
        for tracker in material.tiers.iter().flatten() {
            let peers = self.trackers[*tracker].enlist(now, address, peer_id, material.info_hash, left);
            puppet.handle_peers(now, torrent, peers);
        }
    }
}

/// More than any run moves.
const ALL: u64 = 1 << 50;
/// The number of a puppet's bytes among outputs in the trace.
const SENDS: u64 = 100;
/// The same of what it tells the local network.
const SHOUTS: u64 = 101;
