//! All machines behind one value: routes what happens to the torrent it belongs to, and decides nothing itself.

mod local;
mod questions;
mod trackerless;
mod trackers;

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use tracing::{debug, info};

use self::questions::Question;
use self::trackerless::Trackerless;
use crate::address::{Scope, is_dialable};
use crate::alert::{AddError, Alert};
use crate::bandwidth::{Bandwidth, Dials};
use crate::bitfield::Bitfield;
use crate::command::{AddTorrent, Command, TorrentSource};
use crate::config::{Config, StartValues};
use crate::context::{Context, External, Routes, Wake};
use crate::disk::{JobResult, Place, files_to_allocate};
use crate::ids::{ConnectionId, InfoHash, JobId, PeerId, TorrentId};
use crate::input::Input;
use crate::limits::{HANDSHAKE_TIMEOUT, STRANGERS_MAX, STRANGERS_PER_RANGE_MAX};
use crate::lsd::Lsd;
use crate::metainfo::{Layout, Magnet, MagnetError, Metainfo, MetainfoError, PathRules};
use crate::museum::OldBug;
use crate::output::Output;
use crate::queue::Queue;
use crate::rng::Rng;
use crate::scraper::Scraper;
use crate::silence::{self, Silence};
use crate::suspend;
use crate::time::Instant;
use crate::timers::Timers;
use crate::torrent::{Pending, Range, Start, Torrent, info_of};
use crate::udp_trackers::UdpTrackers;
use crate::wire::Message;

/// The whole client behind one value.
///
/// Inputs go in with their time, outputs come out in order; after each input take all outputs. Time never goes back.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    start: StartValues,
    our_id: PeerId,
    key: u32,
    /// Where we listen.
    port: Option<u16>,
    /// The port of a router that forwards to it.
    mapped_port: Option<u16>,
    torrents: BTreeMap<TorrentId, Torrent>,
    by_info_hash: BTreeMap<InfoHash, TorrentId>,
    /// Who connected to us and has not named a torrent yet.
    strangers: BTreeMap<ConnectionId, Stranger>,
    outputs: VecDeque<Output>,
    timers: Timers<Wake>,
    bandwidth: Bandwidth,
    queue: Queue,
    dials: Dials,
    routes: Routes,
    udp_trackers: UdpTrackers,
    scraper: Scraper,
    trackerless: Trackerless,
    /// None: switched off, or we do not listen yet.
    lsd: Option<Lsd>,
    external: External,
    silence: Silence,
    /// Who is not talked to in any torrent, and those of them that not every torrent knows of yet.
    bans: BTreeSet<SocketAddr>,
    bans_new: Vec<SocketAddr>,
    /// Where peers say that their DHT nodes are.
    dht_nodes_new: Vec<SocketAddr>,
    now: Instant,
    stopping: bool,
    stopped: bool,
}

/// What is known of a torrent that is added. Of a magnet: no piece, and no info dictionary.
struct New {
    info_hash: InfoHash,
    info: Bytes,
    is_private: bool,
    /// None of a private torrent.
    dht_nodes: Vec<(String, u16)>,
    layout: Layout,
    piece_hashes: Vec<[u8; 20]>,
    tracker_tiers: Vec<Vec<String>>,
    peers: Vec<SocketAddr>,
    /// Indices of files; none: all.
    select_only: Vec<u32>,
}

#[derive(Debug)]
struct Stranger {
    remote: SocketAddr,
    since: Instant,
}

impl Engine {
    /// An engine without torrents.
    pub fn new(config: Config, start: StartValues) -> Self {
        let mut rng = Rng::stream(start.seed, "session", 0);
        Self {
            our_id: peer_id(&mut rng),
            key: rng.next_u32(),
            port: None,
            mapped_port: None,
            torrents: BTreeMap::new(),
            by_info_hash: BTreeMap::new(),
            strangers: BTreeMap::new(),
            outputs: VecDeque::new(),
            timers: Timers::default(),
            bandwidth: Bandwidth::new(config.buffer_bytes, config.limits),
            queue: Queue::new(config.active_max),
            dials: Dials::new(config.dials_per_second_max),
            routes: Routes::default(),
            udp_trackers: UdpTrackers::new(Rng::stream(start.seed, "udp trackers", 0)),
            scraper: Scraper::default(),
            trackerless: Trackerless::new(start.seed),
            lsd: None,
            external: External::default(),
            silence: Silence::default(),
            bans: BTreeSet::new(),
            bans_new: Vec::new(),
            dht_nodes_new: Vec::new(),
            now: Instant::START,
            stopping: false,
            stopped: false,
            config,
            start,
        }
    }

    /// Takes in what happened at `now`. Outputs are then waiting in [`Self::poll_output`].
    pub fn handle_input(&mut self, now: Instant, input: Input) {
        let has_slept = self.has_slept(now);
        self.now = self.now.max(now);
        if has_slept {
            self.renew();
        }
        let is_heard = silence::is_heard(&input) && !local::is_local(&input);
        match input {
            Input::Timeout => self.handle_timeout(),
            Input::Command(command) => self.handle_command(command),
            Input::Listening { port, families } => {
                self.port = Some(port);
                self.start_dht(families);
                self.start_lsd(families);
            }
            Input::Accepted { connection, remote } => self.handle_accepted(connection, remote),
            Input::Connected { connection, local } => {
                self.with_connection(connection, |torrent, context| {
                    torrent.handle_connected(context, connection, local);
                });
            }
            Input::Closed { connection, reason } => {
                if self.strangers.remove(&connection).is_some() {
                    self.split(|_, context| context.forget(connection));
                }
                self.with_connection(connection, |torrent, context| {
                    torrent.handle_closed(context, connection, &reason);
                });
            }
            Input::Received { connection, read_bytes, messages } => {
                self.handle_received(connection, read_bytes, messages);
            }
            Input::Sent { connection, written_bytes } => {
                self.bandwidth.on_written(connection, u64::from(written_bytes));
                self.with_connection(connection, |torrent, context| {
                    torrent.handle_sent(context, connection, written_bytes);
                });
            }
            Input::JobDone { job, result } => self.handle_job(job, result),
            Input::Resolved { query, result } => self.handle_resolved(query, result),
            Input::Datagram { remote, payload } => self.handle_datagram(remote, &payload),
            Input::HttpDone { request, result } => self.handle_http(request, result),
        }
        if is_heard && let Some(since) = self.silence.on_heard(self.now) {
            self.on_reachable(since);
        }
        self.spread_bans();
        self.settle_dht();
        self.settle_lsd();
        self.send_datagrams();
        self.begin_queued();
        self.bandwidth.settle(self.now, &mut self.outputs);
        self.timers.set(Wake::Bandwidth, self.bandwidth.deadline());
        self.stop_if_empty();
    }

    /// Whether an input at `now` tells that nobody ran for long: everything that was under way on the network is then
    /// begun anew, and answers to it are not heard. The first input after it tells; the deadlines that passed meanwhile
    /// are overdue for those that follow too.
    pub fn has_slept(&self, now: Instant) -> bool {
        suspend::has_slept(self.now, now, || self.poll_timeout())
    }

    /// What is asked of the world, in order; none when all was taken.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Timeout`] is due, at the latest. None: never, until something else happens.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// The pieces of a torrent that are on disk and verified. For oracles and embedders.
    pub fn have(&self, torrent: TorrentId) -> Option<&Bitfield> {
        self.torrents.get(&torrent).map(Torrent::have)
    }

    /// Payload received and not yet on disk, over all torrents: what [`Config::buffer_bytes`] bounds. What waits for a
    /// failing disk is left out.
    pub fn buffered_bytes(&self) -> u64 {
        self.bandwidth.buffered_bytes()
    }

    /// Blocks of a torrent that peers were asked for and may still send.
    pub fn requests_out(&self, torrent: TorrentId) -> Option<usize> {
        self.torrents.get(&torrent).map(Torrent::requests_out)
    }

    /// How many connected peers have each piece of a torrent, in the order of pieces; none before it has begun.
    pub fn availability(&self, torrent: TorrentId) -> Option<Vec<u32>> {
        self.torrents.get(&torrent).map(Torrent::availability)
    }

    fn handle_timeout(&mut self) {
        // Each once: what is due again at once waits for the next input.
        let due: Vec<_> = std::iter::from_fn(|| self.timers.pop_due(self.now)).collect();
        for wake in due {
            match wake {
                // Grants are settled after every input.
                Wake::Bandwidth => {}
                Wake::Torrent(id) => {
                    self.with_torrent(id, |torrent, context| torrent.handle_timeout(context))
                }
                Wake::Queue => self.look_at_queue(),
                Wake::Scraper => self.with_scraper(Scraper::handle_timeout),
                Wake::UdpTrackers => self.handle_udp_timeout(),
                Wake::Dht => self.handle_dht_timeout(),
                Wake::Lsd => self.handle_lsd_timeout(),
                Wake::Connection(connection) if self.strangers.contains_key(&connection) => {
                    self.close_stranger(connection);
                }
                Wake::Connection(connection) => self.with_connection(connection, |torrent, context| {
                    torrent.handle_connection_timeout(context, connection);
                }),
            }
        }
    }

    fn handle_command(&mut self, command: Command) {
        match command {
            Command::AddTorrent(add) => {
                let torrent = add.torrent;
                if let Err(error) = self.add(*add) {
                    self.outputs.push_back(Output::Alert(Alert::AddFailed { torrent, error }));
                }
            }
            Command::AddPeers { torrent, peers } => {
                self.with_torrent(torrent, |torrent, context| torrent.add_peers(context, peers));
            }
            Command::SetPriorities { torrent, priorities } => {
                self.with_torrent(torrent, |torrent, context| torrent.set_priorities(context, &priorities));
            }
            Command::SetLimits { torrent, limits } => {
                if torrent.is_none_or(|torrent| self.torrents.contains_key(&torrent)) {
                    self.bandwidth.limit(self.now, torrent, limits, &mut self.outputs);
                }
            }
            Command::Unban { address } => {
                self.bans.remove(&address);
                let torrents: Vec<_> = self.torrents.keys().copied().collect();
                for torrent in torrents {
                    self.with_torrent(torrent, |torrent, context| torrent.unban(context, address));
                }
            }
            Command::AddDhtNodes { nodes } => self.add_dht_nodes(nodes),
            Command::DhtPing { address } => self.ask_dht(Question::Ping(address)),
            Command::DhtLookup { info_hash, announce } => self.ask_dht(Question::Peers(info_hash, announce)),
            Command::DhtGet { name } => self.ask_dht(Question::Get(name)),
            Command::DhtPut { item, cas } => self.ask_dht(Question::Put(item, cas)),
            Command::DhtSample { target } => {
                let target = target.unwrap_or_else(|| self.trackerless.draw_point());
                self.ask_dht(Question::Sample(target));
            }
            Command::ReportDht => self.report_dht(),
            Command::Mapped { port, external_ip } => self.on_mapped(port, external_ip),
            Command::Scrape { tracker, info_hashes } => self.scrape(tracker, info_hashes),
            Command::ReportStats { torrent } => {
                if let Some(torrent) = self.torrents.get(&torrent) {
                    let stats = Box::new(torrent.stats(self.now));
                    self.outputs.push_back(Output::Alert(Alert::Stats(stats)));
                }
            }
            Command::RemoveTorrent { torrent } => {
                self.with_torrent(torrent, |torrent, context| torrent.stop(context));
            }
            Command::Shutdown => {
                self.stopping = true;
                self.with_scraper(Scraper::stop);
                self.stop_dht();
                self.stop_lsd();
                let torrents: Vec<_> = self.torrents.keys().copied().collect();
                for torrent in torrents {
                    self.with_torrent(torrent, |torrent, context| torrent.stop(context));
                }
                let strangers: Vec<_> = self.strangers.keys().copied().collect();
                strangers.into_iter().for_each(|connection| self.close_stranger(connection));
            }
        }
    }

    fn add(&mut self, add: AddTorrent) -> Result<(), AddError> {
        if self.stopping {
            return Err(AddError::Stopping);
        }
        let new = self.read_source(&add)?;
        let info_hash = new.info_hash;
        if self.by_info_hash.contains_key(&info_hash) || self.torrents.contains_key(&add.torrent) {
            return Err(AddError::Duplicate);
        }
        let dht_nodes = new.dht_nodes;
        let mut tiers = if add.use_trackers { new.tracker_tiers } else { Vec::new() };
        tiers.iter_mut().for_each(|tier| tier.retain(|url| !add.exclude_trackers.contains(url)));
        tiers.extend(add.extra_trackers.iter().map(|url| vec![url.clone()]));
        let allocate = files_to_allocate(&new.layout, &add.priorities, add.allocation);
        let believes_all = self.config.planted.is(OldBug::BelievedAfterPowerCut);
        let pending = new.info.is_empty().then(|| Box::new(Pending::new(info_hash, new.select_only, &add)));
        let start = Start {
            id: add.torrent,
            info_hash,
            place: Place {
                info_hash,
                root: add.output,
                state_root: self.config.state_directory.clone(),
                layout: new.layout,
                piece_hashes: new.piece_hashes,
                boot_id: if believes_all { [0; 16] } else { self.start.boot_id },
            },
            info: new.info,
            is_private: new.is_private,
            pending,
            tiers,
            resume: add.resume,
            peers: new.peers,
            priorities: add.priorities,
            sequential: add.sequential,
            allocate,
            seed_goal: add.seed_goal,
            seed: self.start.seed,
        };
        let torrent = self.split(|_, context| Torrent::new(context, start));
        self.torrents.insert(add.torrent, torrent);
        for address in self.bans.clone() {
            self.with_torrent(add.torrent, |torrent, context| torrent.shun(context, address));
        }
        self.by_info_hash.insert(info_hash, add.torrent);
        self.bandwidth.limit(self.now, Some(add.torrent), add.limits, &mut self.outputs);
        self.queue.add(add.torrent);
        self.add_dht_names(dht_nodes);
        Ok(())
    }

    /// What the torrent file says, or the magnet link.
    fn read_source(&self, add: &AddTorrent) -> Result<New, AddError> {
        let peers = add.peers.iter().copied();
        match &add.source {
            TorrentSource::TorrentFile(torrent_file) => {
                let rules = if self.config.windows_paths { PathRules::Windows } else { PathRules::Unix };
                let metainfo = Metainfo::parse(torrent_file, rules)?;
                Ok(New {
                    info_hash: metainfo.info_hashes.v1.ok_or(MetainfoError::V2Only)?,
                    info: info_of(torrent_file),
                    is_private: metainfo.private,
                    dht_nodes: if metainfo.private { Vec::new() } else { metainfo.dht_nodes },
                    layout: metainfo.layout,
                    piece_hashes: metainfo.piece_hashes,
                    tracker_tiers: metainfo.tracker_tiers,
                    peers: peers.collect(),
                    select_only: Vec::new(),
                })
            }
            TorrentSource::Magnet(link) => {
                let magnet = Magnet::parse(link)?;
                Ok(New {
                    info_hash: magnet.info_hashes.v1.ok_or(MagnetError::V2Only)?,
                    info: Bytes::new(),
                    is_private: false,
                    dht_nodes: Vec::new(),
                    layout: Layout::empty(),
                    piece_hashes: Vec::new(),
                    tracker_tiers: magnet.trackers.into_iter().map(|url| vec![url]).collect(),
                    peers: magnet.peers.into_iter().chain(peers).collect(),
                    select_only: magnet.select_only,
                })
            }
        }
    }

    /// Torrents begin as others leave them a place.
    fn begin_queued(&mut self) {
        while !self.stopping
            && let Some(torrent) = self.queue.poll()
        {
            self.with_torrent(torrent, |torrent, context| torrent.begin(context));
        }
        if let Some(at) = self.queue.look_at(self.now) {
            self.timers.set(Wake::Queue, Some(at));
        }
    }

    /// Those that get nowhere give their places up.
    fn look_at_queue(&mut self) {
        for torrent in self.queue.look() {
            self.with_torrent(torrent, |_, _| ());
        }
    }

    fn handle_accepted(&mut self, connection: ConnectionId, remote: SocketAddr) {
        if self.stopping {
            self.outputs.push_back(Output::Close { connection });
            return;
        }
        let full = self.routes.connections.len() + self.strangers.len() >= self.config.peers_max as usize;
        let from = Range::of(remote.ip());
        let of_range = || self.strangers.values().filter(|other| Range::of(other.remote.ip()) == from);
        let crowd = from.is_some() && of_range().count() >= STRANGERS_PER_RANGE_MAX;
        if full || crowd || self.strangers.len() >= STRANGERS_MAX {
            // Who has said nothing for longest makes room: those who mean it speak at once, so that silence from many
            // connections keeps nobody out.
            let silent =
                self.strangers.iter().filter(|(_, other)| !crowd || Range::of(other.remote.ip()) == from);
            let silent = silent.min_by_key(|(connection, other)| (other.since, **connection));
            let Some(silent) = silent.map(|(connection, _)| *connection) else {
                self.outputs.push_back(Output::Close { connection });
                return;
            };
            self.close_stranger(silent);
        }
        self.strangers.insert(connection, Stranger { remote, since: self.now });
        self.timers.set(Wake::Connection(connection), Some(self.now + HANDSHAKE_TIMEOUT));
        self.bandwidth.open(connection, None);
    }

    fn handle_received(&mut self, connection: ConnectionId, read_bytes: u32, mut messages: Vec<Message>) {
        let known =
            self.strangers.contains_key(&connection) || self.routes.connections.contains_key(&connection);
        if !known {
            return;
        }
        self.bandwidth.on_read(connection, u64::from(read_bytes));
        if let Some(stranger) = self.strangers.get(&connection) {
            let Some(Message::Handshake(theirs)) = messages.first().cloned() else {
                if !messages.is_empty() {
                    self.close_stranger(connection);
                }
                return;
            };
            messages.remove(0);
            let (remote, waited) = (stranger.remote, self.now.since(stranger.since));
            debug!(?waited, "stranger named a torrent");
            let Some(torrent) = self.by_info_hash.get(&theirs.info_hash).copied() else {
                return self.close_stranger(connection);
            };
            self.strangers.remove(&connection);
            self.timers.remove(Wake::Connection(connection));
            self.routes.connections.insert(connection, torrent);
            self.bandwidth.assign(connection, torrent, &mut self.outputs);
            let mut let_in = false;
            self.with_torrent(torrent, |torrent, context| {
                let_in = torrent.handle_accepted(context, connection, remote, theirs);
                if !let_in {
                    context.close(connection);
                }
            });
            if !let_in {
                return;
            }
        }
        self.with_connection(connection, |torrent, context| {
            torrent.handle_messages(context, connection, messages);
        });
    }

    fn handle_job(&mut self, job: JobId, result: JobResult) {
        let Some(torrent) = self.routes.jobs.remove(&job) else { return };
        self.routes.jobs_out -= 1;
        self.routes.release_jobs(&mut self.outputs);
        self.with_torrent(torrent, |torrent, context| torrent.handle_job(context, job, result));
    }

    /// The machine slept: nothing that was under way on the network is.
    fn renew(&mut self) {
        info!("nobody ran for a while: beginning anew with all peers and trackers");
        self.renew_dht();
        self.renew_lsd();
        let strangers: Vec<_> = self.strangers.keys().copied().collect();
        strangers.into_iter().for_each(|connection| self.close_stranger(connection));
        let torrents: Vec<_> = self.torrents.keys().copied().collect();
        for torrent in torrents {
            self.with_torrent(torrent, |torrent, context| torrent.renew(context));
        }
    }

    /// Whoever lies in one torrent lies in all.
    fn spread_bans(&mut self) {
        for address in std::mem::take(&mut self.bans_new) {
            self.bans.insert(address);
            let torrents: Vec<_> = self.torrents.keys().copied().collect();
            for torrent in torrents {
                self.with_torrent(torrent, |torrent, context| torrent.shun(context, address));
            }
        }
    }

    /// Nothing was heard since then, until now.
    fn on_reachable(&mut self, since: Instant) {
        let unreached: Vec<_> = self.routes.unreached.iter().copied().collect();
        debug!(torrents = unreached.len(), "the network may be back");
        self.renew_dht();
        for torrent in unreached {
            self.with_torrent(torrent, |torrent, context| torrent.on_reachable(context, since));
        }
    }

    /// Where others reach us, if they do.
    fn reachable_port(&self) -> Option<u16> {
        self.port.map(|own| self.mapped_port.unwrap_or(own))
    }

    /// A router forwards to us, or does no more.
    fn on_mapped(&mut self, port: Option<u16>, external_ip: Option<IpAddr>) {
        // It is what some box in a local network said.
        let is_public = |ip: &IpAddr| is_dialable(SocketAddr::new(*ip, 1)) && Scope::of(*ip) == Scope::Public;
        if let Some(ip) = external_ip.map(|ip| ip.to_canonical()).filter(is_public) {
            self.split(|_, context| context.learn_external(ip));
        }
        let before = self.reachable_port();
        self.mapped_port = port.filter(|port| *port != 0);
        if self.reachable_port() != before {
            self.look_all_up(self.now);
            let torrents: Vec<_> = self.torrents.keys().copied().collect();
            for torrent in torrents {
                self.with_torrent(torrent, |torrent, context| torrent.on_port_changed(context));
            }
        }
    }

    fn close_stranger(&mut self, connection: ConnectionId) {
        self.strangers.remove(&connection);
        self.split(|_, context| context.close(connection));
    }

    /// A closed torrent leaves.
    fn drop_closed(&mut self, id: TorrentId) {
        let Some(torrent) = self.torrents.remove(&id) else { return };
        self.by_info_hash.remove(&torrent.info_hash());
        self.timers.remove(Wake::Torrent(id));
        self.bandwidth.remove(id);
        self.queue.remove(id);
        self.routes.unreached.remove(&id);
        self.routes.crowded_out.remove(&id);
        self.trackerless.set_open(self.now, id, false);
        if let Some(lsd) = &mut self.lsd {
            lsd.set_open(self.now, id, torrent.info_hash(), false);
        }
        self.outputs.push_back(Output::Alert(Alert::Removed { torrent: id }));
    }

    /// The engine stops when the last torrent has left.
    fn stop_if_empty(&mut self) {
        if self.stopping && !self.stopped && self.torrents.is_empty() {
            self.stopped = true;
            info!("stopped");
            self.outputs.push_back(Output::Alert(Alert::Stopped));
        }
    }

    fn with_connection(
        &mut self,
        connection: ConnectionId,
        act: impl FnOnce(&mut Torrent, &mut Context<'_>),
    ) {
        if let Some(torrent) = self.routes.connections.get(&connection).copied() {
            self.with_torrent(torrent, act);
        }
    }

    fn with_torrent(&mut self, id: TorrentId, act: impl FnOnce(&mut Torrent, &mut Context<'_>)) {
        let (closed, holds_place) = self.split(|torrents, context| {
            let Some(torrent) = torrents.get_mut(&id) else { return (false, true) };
            act(torrent, context);
            (torrent.is_closed(), torrent.holds_place(context.now))
        });
        if !holds_place {
            self.queue.release(id);
        }
        if self.trackerless.is_on() {
            self.note_open(id);
        }
        self.note_local(id);
        if closed {
            self.drop_closed(id);
        }
    }

    /// Lends everything but the torrents to `act` as a context.
    fn split<T>(&mut self, act: impl FnOnce(&mut BTreeMap<TorrentId, Torrent>, &mut Context<'_>) -> T) -> T {
        let mut context = Context {
            now: self.now,
            config: &self.config,
            our_id: self.our_id,
            key: self.key,
            port: self.reachable_port(),
            outputs: &mut self.outputs,
            timers: &mut self.timers,
            bandwidth: &mut self.bandwidth,
            dials: &mut self.dials,
            dials_from: Instant::START,
            routes: &mut self.routes,
            udp_trackers: &mut self.udp_trackers,
            external: &mut self.external,
            bans_new: &mut self.bans_new,
            dht_nodes_new: self.trackerless.is_on().then_some(&mut self.dht_nodes_new),
        };
        act(&mut self.torrents, &mut context)
    }
}

/// `-TP`, the version as four digits, `-`, and twelve random characters (BEP 20).
fn peer_id(rng: &mut Rng) -> PeerId {
    let mut id = *b"-TP0000-............";
    let version =
        [env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"), env!("CARGO_PKG_VERSION_PATCH")];
    for (digit, part) in id[3..6].iter_mut().zip(version) {
        *digit = part.bytes().last().unwrap_or(b'0');
    }
    for byte in &mut id[8..] {
        *byte = ALPHABET[rng.below(ALPHABET.len() as u64) as usize];
    }
    PeerId(id)
}

const ALPHABET: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "serving_tests.rs"]
mod serving_tests;
