//! Between torrents and the DHT: which swarms are looked up and announced when, and with whom the DHT begins.
//!
//! A torrent is looked up when it opens to the DHT, then every 15 minutes, and sooner while it has nobody or few nodes know
//! of it; a private one never is.

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tracing::{debug, info};

use super::Engine;
use super::questions::Question;
use crate::alert::{Alert, DhtStats};
use crate::context::{Asker, Wake};
use crate::dht::{Announce, BUCKET_NODES, Dht, Event, Goal, Report, SearchId};
use crate::ids::{ResolveId, TorrentId};
use crate::input::NetError;
use crate::limits::DHT_NODES_MAX;
use crate::museum::OldBug;
use crate::node_id::NodeId;
use crate::output::Output;
use crate::rng::Rng;
use crate::time::Instant;

/// The DHT, and what it is used for.
#[derive(Debug)]
pub(super) struct Trackerless {
    /// None: switched off, or we do not listen yet.
    pub(super) dht: Option<Dht>,
    rng: Rng,
    torrents: BTreeMap<TorrentId, LookedFor>,
    due: BTreeSet<(Instant, TorrentId)>,
    pub(super) searches: BTreeMap<SearchId, Purpose>,
    /// Nodes told of before we listened.
    early: Vec<SocketAddr>,
    /// Names of nodes: the configured ones are in the configuration, these are of torrents.
    names: Vec<(String, u16)>,
    to_resolve: VecDeque<(String, u16)>,
    resolving: BTreeMap<ResolveId, u16>,
    save_at: Option<Instant>,
}

/// A torrent that is open to the DHT.
#[derive(Debug, Default)]
struct LookedFor {
    under_way: Option<SearchId>,
    /// Look-ups in a row after which fewer nodes than there should be knew that we are in the swarm.
    thin: u32,
}

/// What a search is for.
#[derive(Debug)]
pub(super) enum Purpose {
    Torrent(TorrentId),
    /// Asked for by the embedder.
    Asked(Question),
}

impl Trackerless {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            dht: None,
            rng: Rng::stream(seed, "dht announces", 0),
            torrents: BTreeMap::new(),
            due: BTreeSet::new(),
            searches: BTreeMap::new(),
            early: Vec::new(),
            names: Vec::new(),
            to_resolve: VecDeque::new(),
            resolving: BTreeMap::new(),
            save_at: None,
        }
    }

    /// Whether the DHT is used.
    pub(super) fn is_on(&self) -> bool {
        self.dht.is_some()
    }

    /// A torrent is open to the DHT, or no longer.
    pub(super) fn set_open(&mut self, now: Instant, torrent: TorrentId, is_open: bool) {
        if is_open && !self.torrents.contains_key(&torrent) {
            self.torrents.insert(torrent, LookedFor::default());
            self.due.insert((now, torrent));
        } else if !is_open && let Some(looked_for) = self.torrents.remove(&torrent) {
            self.due.retain(|(_, other)| *other != torrent);
            if let (Some(dht), Some(search)) = (&mut self.dht, looked_for.under_way) {
                dht.cancel(now, search);
                self.searches.remove(&search);
            }
        }
    }

    /// Any point of the DHT.
    pub(super) fn draw_point(&mut self) -> NodeId {
        NodeId::random(&mut self.rng)
    }

    fn add_node(&mut self, now: Instant, address: SocketAddr) {
        match &mut self.dht {
            Some(dht) => dht.add_node(now, address),
            None if self.early.len() < DHT_NODES_MAX => self.early.push(address),
            None => {}
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let dht = self.dht.as_ref()?;
        let due = self.due.first().map(|(at, _)| *at);
        [dht.poll_timeout(), due, self.save_at].into_iter().flatten().min()
    }
}

impl LookedFor {
    /// Until the next look-up: a DHT that few have joined yet is likely to grow, and who joins has not heard of us.
    fn interval(&self) -> Duration {
        match self.thin {
            0 => LOOK_AGAIN,
            thin => (LOOK_AGAIN_THIN * 2_u32.saturating_pow(thin - 1)).min(LOOK_AGAIN),
        }
    }
}

impl Engine {
    /// We listen: the DHT begins, if it is to be used.
    pub(super) fn start_dht(&mut self, families: (bool, bool)) {
        let Some(settings) = self.config.dht.as_ref() else { return };
        if self.trackerless.is_on() {
            return;
        }
        let mut dht = Dht::new(self.now, self.start.seed, families, settings.read_only);
        self.trackerless.early.drain(..).for_each(|node| dht.add_node(self.now, node));
        self.trackerless.dht = Some(dht);
        self.trackerless.save_at = Some(self.now + SAVE_INTERVAL);
        let torrents: Vec<_> = self.torrents.keys().copied().collect();
        torrents.into_iter().for_each(|id| self.note_open(id));
    }

    /// Looks whether a torrent is open to the DHT.
    pub(super) fn note_open(&mut self, id: TorrentId) {
        let is_open = self.torrents.get(&id).is_some_and(|torrent| torrent.is_open());
        self.trackerless.set_open(self.now, id, is_open && !self.stopping && self.trackerless.is_on());
    }

    pub(super) fn add_dht_nodes(&mut self, nodes: Vec<SocketAddr>) {
        if self.config.dht.is_some() {
            nodes.into_iter().for_each(|node| self.trackerless.add_node(self.now, node));
        }
    }

    /// A torrent, not a private one, names nodes (BEP 5).
    pub(super) fn add_dht_names(&mut self, names: Vec<(String, u16)>) {
        if self.config.dht.is_none() {
            return;
        }
        for (host, port) in names {
            if let Ok(ip) = host.parse() {
                self.trackerless.add_node(self.now, SocketAddr::new(ip, port));
            } else if self.trackerless.names.len() < DHT_NODES_MAX {
                self.trackerless.names.push((host, port));
            }
        }
    }

    pub(super) fn handle_dht_datagram(&mut self, remote: SocketAddr, payload: &[u8]) {
        let Some(dht) = &mut self.trackerless.dht else { return };
        if let Some(payload) = dht.handle_datagram(self.now, remote, payload) {
            self.outputs.push_back(Output::SendDatagram { remote, payload });
        }
    }

    pub(super) fn handle_dht_timeout(&mut self) {
        if let Some(dht) = self.trackerless.dht.as_mut().filter(|dht| dht.poll_timeout() <= Some(self.now)) {
            dht.handle_timeout(self.now);
        }
        while let Some((_, id)) = self.trackerless.due.first().copied().filter(|(at, _)| *at <= self.now) {
            self.trackerless.due.pop_first();
            self.look_up(id);
        }
        if self.trackerless.save_at.is_some_and(|at| at <= self.now) {
            self.trackerless.save_at = Some(self.now + SAVE_INTERVAL);
            self.tell_dht_nodes();
        }
    }

    /// The network may be another one.
    pub(super) fn renew_dht(&mut self) {
        if let Some(dht) = &mut self.trackerless.dht {
            dht.renew(self.now);
        }
    }

    pub(super) fn handle_dht_resolved(&mut self, query: ResolveId, result: Result<Vec<IpAddr>, NetError>) {
        let Some(port) = self.trackerless.resolving.remove(&query) else { return };
        for ip in result.unwrap_or_default().into_iter().take(ADDRESSES_PER_NAME) {
            self.trackerless.add_node(self.now, SocketAddr::new(ip, port));
        }
    }

    pub(super) fn report_dht(&mut self) {
        let stats = self.trackerless.dht.as_ref().map(|dht| {
            let figures = dht.figures();
            DhtStats {
                ids: [dht.id(false), dht.id(true)],
                nodes: figures.nodes.map(|nodes| nodes as u32),
                depth: figures.depth.map(|depth| depth as u32),
                swarms: figures.swarms as u32,
                peers: figures.peers as u32,
                items: figures.items as u32,
            }
        });
        self.outputs.push_back(Output::Alert(Alert::Dht(stats.map(Box::new))));
    }

    /// It is over: nobody is asked or answered any more.
    pub(super) fn stop_dht(&mut self) {
        self.trackerless.torrents.clear();
        self.trackerless.due.clear();
        self.trackerless.save_at = None;
        self.tell_dht_nodes();
        self.trackerless.dht = None;
        self.timers.remove(Wake::Dht);
    }

    /// Does what the DHT asks, and passes on what it found.
    pub(super) fn settle_dht(&mut self) {
        if !self.trackerless.is_on() {
            return;
        }
        for node in std::mem::take(&mut self.dht_nodes_new) {
            self.trackerless.add_node(self.now, node);
        }
        while let Some(event) = self.trackerless.dht.as_mut().and_then(Dht::poll_event) {
            self.on_dht_event(event);
        }
        while self.trackerless.resolving.len() < NAMES_AT_ONCE
            && let Some((host, port)) = self.trackerless.to_resolve.pop_front()
        {
            if let Ok(ip) = host.parse() {
                self.trackerless.add_node(self.now, SocketAddr::new(ip, port));
                continue;
            }
            let query = self.split(|_, context| context.resolve(Asker::Dht, host));
            self.trackerless.resolving.insert(query, port);
        }
        while let Some((remote, payload)) = self.poll_dht_packet() {
            self.outputs.push_back(Output::SendDatagram { remote, payload });
        }
        self.timers.set(Wake::Dht, self.trackerless.deadline());
    }

    fn poll_dht_packet(&mut self) -> Option<(SocketAddr, Bytes)> {
        self.trackerless.dht.as_mut()?.poll_packet()
    }

    fn look_up(&mut self, id: TorrentId) {
        let Some(torrent) = self.torrents.get(&id).filter(|torrent| torrent.is_open()) else { return };
        let announce =
            self.reachable_port().map(|port| Announce { port, implied_port: false, seed: torrent.is_seed() });
        let goal = Goal::Peers { info_hash: torrent.info_hash(), announce };
        let Trackerless { dht: Some(dht), torrents, .. } = &mut self.trackerless else { return };
        let Some(looked_for) = torrents.get_mut(&id) else { return };
        let issued = dht.search(self.now, goal);
        looked_for.under_way = Some(issued);
        self.trackerless.searches.insert(issued, Purpose::Torrent(id));
    }

    fn on_dht_event(&mut self, event: Event) {
        match event {
            Event::Peers { search, peers, .. } => match self.trackerless.searches.get(&search) {
                Some(Purpose::Torrent(id)) if self.trackerless.torrents.contains_key(id) => {
                    let id = *id;
                    self.with_torrent(id, |torrent, context| torrent.add_dht_peers(context, peers));
                }
                Some(Purpose::Asked(Question::Peers(info_hash, _))) => {
                    let info_hash = *info_hash;
                    self.outputs.push_back(Output::Alert(Alert::DhtPeers { info_hash, peers }));
                }
                _ => {}
            },
            Event::Announced { info_hash, peer } => {
                let torrent = self.by_info_hash.get(&info_hash).copied();
                if let Some(id) = torrent.filter(|id| self.trackerless.torrents.contains_key(id)) {
                    self.with_torrent(id, |torrent, context| torrent.add_dht_peers(context, vec![peer]));
                }
            }
            Event::InfoHashes { info_hashes, .. } => {
                self.outputs.push_back(Output::Alert(Alert::DhtSamples { info_hashes }));
            }
            Event::Done { search, report } => self.on_search_done(search, report),
            Event::Joined => {
                info!("the DHT has nodes");
                // Whoever looked before found nobody to ask.
                self.look_all_up(self.now + AFTER_JOINING);
            }
            Event::Lonely if self.now >= FIRST_SECOND && self.config.planted.is(OldBug::BootstrapOnce) => {}
            Event::Lonely => {
                let configured = self.config.dht.iter().flat_map(|settings| settings.bootstrap.clone());
                self.trackerless.to_resolve = configured.chain(self.trackerless.names.clone()).collect();
            }
            Event::External(ip) => self.split(|_, context| context.learn_external(ip)),
        }
    }

    fn on_search_done(&mut self, search: SearchId, report: Report) {
        match self.trackerless.searches.remove(&search) {
            Some(Purpose::Torrent(id)) => {
                debug!(asked = report.asked, peers = report.peers, announced = report.told, "looked up");
                let Some(torrent) = self.torrents.get(&id) else { return };
                let Some(looked_for) = self.trackerless.torrents.get_mut(&id) else { return };
                looked_for.under_way = None;
                let is_unreached = report.nearest.is_empty();
                looked_for.thin = match report.told {
                    told if told >= BUCKET_NODES as u32 => 0,
                    _ => looked_for.thin + u32::from(!is_unreached),
                };
                let wait = match (is_unreached, torrent.is_alone()) {
                    (true, _) => LOOK_AGAIN_UNREACHED,
                    (false, true) => LOOK_AGAIN_ALONE,
                    (false, false) => looked_for.interval(),
                };
                let jitter = self.trackerless.rng.below(wait.as_nanos() as u64 / 5);
                self.set_due(id, self.now + wait + Duration::from_nanos(jitter));
            }
            Some(Purpose::Asked(question)) => self.answer_embedder(question, report),
            None => {}
        }
    }

    /// All torrents that are not looked up now are, then.
    pub(super) fn look_all_up(&mut self, at: Instant) {
        let idle = self.trackerless.torrents.iter().filter(|(_, torrent)| torrent.under_way.is_none());
        let idle: Vec<_> = idle.map(|(id, _)| *id).collect();
        idle.into_iter().for_each(|id| self.set_due(id, at));
    }

    fn set_due(&mut self, id: TorrentId, at: Instant) {
        self.trackerless.due.retain(|(_, other)| *other != id);
        self.trackerless.due.insert((at, id));
    }

    fn tell_dht_nodes(&mut self) {
        let nodes = self.trackerless.dht.as_ref().map(Dht::nodes_to_save).unwrap_or_default();
        if !nodes.is_empty() {
            self.outputs.push_back(Output::Alert(Alert::DhtNodes { nodes }));
        }
    }
}

/// Whoever looks for nodes only when it begins does so before this.
const FIRST_SECOND: Instant = Instant(1_000_000_000);
/// Between two announces of a torrent; others forget after 30 to 45 minutes.
const LOOK_AGAIN: Duration = Duration::from_secs(15 * 60);
/// The same while there is nobody to fetch from.
const LOOK_AGAIN_ALONE: Duration = Duration::from_secs(60);
/// The same after the first announce that few nodes took; then twice as long each time.
const LOOK_AGAIN_THIN: Duration = Duration::from_secs(60);
/// The same when no node answered.
const LOOK_AGAIN_UNREACHED: Duration = Duration::from_secs(30);
/// From the first node to the first look-up: its neighbours should be known.
const AFTER_JOINING: Duration = Duration::from_secs(2);
/// Between two tellings of the nodes to save.
const SAVE_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// Names of nodes looked up at once.
const NAMES_AT_ONCE: usize = 4;
/// Addresses taken from one name.
const ADDRESSES_PER_NAME: usize = 8;
