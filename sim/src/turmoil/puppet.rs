//! Puppets on turmoil hosts: one small loop around the machine, a reader and a writer for each of its connections.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use taipei_engine::ConnectionId;
use taipei_engine::driver::{Connection, Transport};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};

use super::Shared;
use super::net::{ShapedTransport, WorldClock, lock};
use crate::plan::PEER_PORT;
use crate::puppet::{Act, Puppet};

/// What happens to a puppet, beside time.
enum Event {
    Accepted(Open),
    Dialled(ConnectionId, Option<Open>),
    Bytes(ConnectionId, Bytes),
    Sent(ConnectionId, u64),
    Over(ConnectionId),
}

type Open = Connection<<ShapedTransport as Transport>::Reader, <ShapedTransport as Transport>::Writer>;

/// The loop's end of a connection. When it is dropped, so is the connection.
struct Link {
    out: mpsc::UnboundedSender<Bytes>,
    deaf: watch::Sender<bool>,
}

struct Stage {
    shared: Arc<Shared>,
    clock: WorldClock,
    transport: ShapedTransport,
    host: usize,
    puppet: Puppet,
    links: BTreeMap<ConnectionId, Link>,
    accepted_count: u64,
    events: mpsc::Sender<Event>,
}

/// The one process of a puppet's host.
pub(super) async fn live(shared: Arc<Shared>, host: usize) -> ::turmoil::Result {
    let clock = WorldClock::new(&shared.net);
    let transport = ShapedTransport::new(&shared.net, &clock, shared.plan.hosts[host].address);
    let (events, mut happened) = mpsc::channel(EVENTS_MAX);
    for (_, mut listener) in transport.listen(PEER_PORT..=PEER_PORT).await? {
        let (transport, events) = (transport.clone(), events.clone());
        tokio::spawn(async move {
            loop {
                let Ok(connection) = transport.accept(&mut listener).await else { continue };
                if events.send(Event::Accepted(connection)).await.is_err() {
                    return;
                }
            }
        });
    }
    let puppet = Puppet::new(&shared.materials, &shared.plan, host, clock.world_now());
    let links = BTreeMap::new();
    let mut stage = Stage { shared, clock, transport, host, puppet, links, accepted_count: 0, events };
    loop {
        let wake = stage.clock.sleep_until_world(stage.puppet.poll_timeout());
        tokio::select! {
            biased;
            event = happened.recv() => match event {
                Some(event) => stage.handle(event),
                None => return Ok(()),
            },
            () = wake => stage.puppet.handle_timeout(stage.clock.world_now()),
        }
        while let Some(act) = stage.puppet.poll_act() {
            stage.act(act);
        }
    }
}

impl Stage {
    fn handle(&mut self, event: Event) {
        let now = self.clock.world_now();
        match event {
            Event::Accepted(connection) => {
                let id = ConnectionId::accepted(self.accepted_count);
                self.accepted_count += 1;
                let remote = connection.remote;
                self.serve(id, connection);
                self.puppet.handle_accepted(now, id, remote);
            }
            Event::Dialled(id, Some(connection)) => {
                self.serve(id, connection);
                self.puppet.handle_connected(now, id);
            }
            Event::Bytes(id, bytes) if self.links.contains_key(&id) => {
                self.puppet.handle_bytes(now, id, bytes);
            }
            Event::Sent(id, bytes) => self.puppet.handle_sent(id, bytes),
            Event::Dialled(id, None) | Event::Over(id) => {
                self.links.remove(&id);
                self.puppet.handle_closed(id);
            }
            Event::Bytes(..) => {}
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Announce { torrent } => {
                let now = self.clock.world_now();
                let address = self.shared.plan.hosts[self.host].address;
                let material = &self.shared.materials.torrents[torrent];
                let left = if self.puppet.has_all() { 0 } else { material.content.len() };
                for tracker in material.tiers.iter().flatten() {
                    let trackers = &mut lock(&self.shared.net.trackers);
                    let id = self.puppet.peer_id();
                    let peers = trackers[*tracker].enlist(now, address, id, material.info_hash, left);
                    self.puppet.handle_peers(now, torrent, peers);
                }
            }
            // There is no local network here.
            Act::Shout { .. } => {}
            Act::Connect { link, remote } => {
                let (transport, events) = (self.transport.clone(), self.events.clone());
                tokio::spawn(async move {
                    let connection = transport.connect(remote).await.ok();
                    let _ = events.send(Event::Dialled(link, connection)).await;
                });
            }
            Act::Send { link, bytes } => {
                if let Some(link) = self.links.get(&link) {
                    // A writer that is gone says so by an event.
                    let _ = link.out.send(bytes);
                }
            }
            Act::Deafen { link } => {
                if let Some(link) = self.links.get(&link) {
                    link.deaf.send_replace(true);
                }
            }
            Act::Close { link } => drop(self.links.remove(&link)),
        }
    }

    /// A reader and a writer for a connection, until the loop drops its end of it.
    fn serve(&mut self, id: ConnectionId, connection: Open) {
        let Connection { mut reader, mut writer, .. } = connection;
        let (out, mut waiting) = mpsc::unbounded_channel::<Bytes>();
        let (deaf, mut hears) = watch::channel(false);
        self.links.insert(id, Link { out, deaf });
        let events = self.events.clone();
        tokio::spawn(async move {
            let mut buffer = vec![0; READ_BYTES];
            loop {
                let read = tokio::select! {
                    biased;
                    changed = hears.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        // Not read from here on, but held until the loop lets go.
                        while hears.changed().await.is_ok() {}
                        return;
                    }
                    read = reader.read(&mut buffer) => read.unwrap_or(0),
                };
                let event = match read {
                    0 => Event::Over(id),
                    read => Event::Bytes(id, Bytes::copy_from_slice(&buffer[..read])),
                };
                if events.send(event).await.is_err() || read == 0 {
                    return;
                }
            }
        });
        let events = self.events.clone();
        tokio::spawn(async move {
            while let Some(bytes) = waiting.recv().await {
                let event = match writer.write_all(&bytes).await {
                    Ok(()) => Event::Sent(id, bytes.len() as u64),
                    Err(_) => Event::Over(id),
                };
                if events.send(event).await.is_err() {
                    return;
                }
            }
            let _ = writer.shutdown().await;
        });
    }
}

const EVENTS_MAX: usize = 256;
const READ_BYTES: usize = 16 << 10;
