//! What a torrent is given from above with every call: the time, the settings, and the way out.

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::alert::Alert;
use crate::bandwidth::{Bandwidth, Dials};
use crate::config::Config;
use crate::disk::Job;
use crate::ids::{ConnectionId, HttpId, JobId, PeerId, ResolveId, TorrentId};
use crate::limits::{JOBS_MAX, TRACKER_REQUESTS_MAX};
use crate::museum::OldBug;
use crate::output::{HttpGet, Output};
use crate::time::Instant;
use crate::timers::Timers;
use crate::udp_trackers::{UdpAsk, UdpAskId, UdpTrackers};

/// Everything of the engine that a torrent may use.
pub(crate) struct Context<'a> {
    pub(crate) now: Instant,
    pub(crate) config: &'a Config,
    pub(crate) our_id: PeerId,
    /// Sent to trackers so that they know us when our address changes.
    pub(crate) key: u32,
    /// Where peers can reach us.
    pub(crate) port: Option<u16>,
    pub(crate) outputs: &'a mut VecDeque<Output>,
    pub(crate) timers: &'a mut Timers<Wake>,
    pub(crate) bandwidth: &'a mut Bandwidth,
    pub(crate) dials: &'a mut Dials,
    /// No dial may go out before.
    pub(crate) dials_from: Instant,
    pub(crate) routes: &'a mut Routes,
    pub(crate) udp_trackers: &'a mut UdpTrackers,
    pub(crate) external: &'a mut External,
    /// Addresses that were banned now, for all other torrents to shun.
    pub(crate) bans_new: &'a mut Vec<SocketAddr>,
    /// Where peers say that their DHT nodes are; none where we have none ourselves.
    pub(crate) dht_nodes_new: Option<&'a mut Vec<SocketAddr>>,
}

/// Who asks trackers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    Torrent(TorrentId),
    Scraper,
    Dht,
}

/// Our address as others see it, one a family; the last that was said.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct External {
    v4: Option<IpAddr>,
    v6: Option<IpAddr>,
}

/// Who a deadline belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wake {
    Torrent(TorrentId),
    Connection(ConnectionId),
    /// A grant is paid for.
    Bandwidth,
    Scraper,
    Queue,
    UdpTrackers,
    Dht,
    Lsd,
}

/// Which torrent everything under way belongs to.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    pub(crate) connections: BTreeMap<ConnectionId, TorrentId>,
    pub(crate) jobs: BTreeMap<JobId, TorrentId>,
    pub(crate) lookups: BTreeMap<ResolveId, Asker>,
    pub(crate) requests: BTreeMap<HttpId, Asker>,
    pub(crate) questions: BTreeMap<UdpAskId, Asker>,
    /// Torrents that would ask a tracker if fewer look-ups and requests were under way, those who came first in front.
    line: BTreeSet<(u64, TorrentId)>,
    /// Torrents with a tracker that could not be reached, or that find no peer.
    pub(crate) unreached: BTreeSet<TorrentId>,
    /// Torrents that would dial if fewer peers were connected.
    pub(crate) crowded_out: BTreeSet<TorrentId>,
    /// Jobs that wait for one of [`JOBS_MAX`] to end.
    pub(crate) jobs_waiting: VecDeque<(JobId, Job)>,
    pub(crate) jobs_out: usize,
    issued: u64,
}

impl Routes {
    fn issue(&mut self) -> u64 {
        self.issued += 1;
        self.issued
    }

    fn may_ask(&self) -> usize {
        TRACKER_REQUESTS_MAX.saturating_sub(self.lookups.len() + self.requests.len())
    }

    /// Wakes as many of those in line as may ask now. They stay there until they have asked, so that a place is not lost
    /// with a torrent that is gone.
    pub(crate) fn call_next(&mut self, timers: &mut Timers<Wake>, now: Instant) {
        for (_, torrent) in self.line.iter().take(self.may_ask()) {
            timers.set(Wake::Torrent(*torrent), Some(now));
        }
    }

    /// Gives waiting jobs to the driver while there is room.
    pub(crate) fn release_jobs(&mut self, outputs: &mut VecDeque<Output>) {
        while self.jobs_out < JOBS_MAX
            && let Some((job, work)) = self.jobs_waiting.pop_front()
        {
            self.jobs_out += 1;
            outputs.push_back(Output::Job { job, work });
        }
    }
}

impl Context<'_> {
    pub(crate) fn alert(&mut self, alert: Alert) {
        self.outputs.push_back(Output::Alert(alert));
    }

    pub(crate) fn submit(&mut self, torrent: TorrentId, work: Job) -> JobId {
        let job = JobId(self.routes.issue());
        self.routes.jobs.insert(job, torrent);
        self.routes.jobs_waiting.push_back((job, work));
        self.routes.release_jobs(self.outputs);
        job
    }

    /// Dials a peer.
    pub(crate) fn connect(&mut self, torrent: TorrentId, remote: SocketAddr) -> ConnectionId {
        let connection = ConnectionId::dialled(self.routes.issue());
        self.routes.connections.insert(connection, torrent);
        self.outputs.push_back(Output::Connect { connection, remote });
        connection
    }

    /// Drops a connection.
    pub(crate) fn close(&mut self, connection: ConnectionId) {
        self.outputs.push_back(Output::Close { connection });
        self.forget(connection);
    }

    /// A connection is gone.
    pub(crate) fn forget(&mut self, connection: ConnectionId) {
        self.routes.connections.remove(&connection);
        self.bandwidth.close(connection);
        self.timers.remove(Wake::Connection(connection));
        self.wake_crowded_out();
    }

    /// There is room for a connection: one of the torrents that have waited for it may dial.
    pub(crate) fn wake_crowded_out(&mut self) {
        if let Some(torrent) = self.routes.crowded_out.pop_first() {
            self.wake_torrent(torrent, Some(self.now));
        }
    }

    pub(crate) fn resolve(&mut self, asker: Asker, host: String) -> ResolveId {
        let query = ResolveId(self.routes.issue());
        self.routes.lookups.insert(query, asker);
        self.outputs.push_back(Output::Resolve { query, host });
        query
    }

    /// Sends an HTTP request; its id is set here.
    pub(crate) fn http_get(&mut self, asker: Asker, mut get: HttpGet) -> HttpId {
        get.request = HttpId(self.routes.issue());
        let request = get.request;
        self.routes.requests.insert(request, asker);
        self.outputs.push_back(Output::HttpGet(Box::new(get)));
        request
    }

    pub(crate) fn cancel_http(&mut self, request: HttpId) {
        if self.routes.requests.remove(&request).is_some() {
            self.outputs.push_back(Output::HttpCancel { request });
            self.routes.call_next(self.timers, self.now);
        }
    }

    /// Asks a tracker over UDP.
    pub(crate) fn ask_udp(&mut self, asker: Asker, remote: SocketAddr, ask: UdpAsk) -> UdpAskId {
        let question = self.udp_trackers.ask(self.now, remote, ask);
        self.routes.questions.insert(question, asker);
        question
    }

    pub(crate) fn cancel_udp(&mut self, question: UdpAskId) {
        self.routes.questions.remove(&question);
        self.udp_trackers.cancel(question);
    }

    /// Whether one more look-up or HTTP request may go out.
    pub(crate) fn may_ask(&self) -> bool {
        self.routes.may_ask() > 0
    }

    /// Keeps or gives up the place of a torrent that waits for [`Self::may_ask`].
    pub(crate) fn stand_in_line(&mut self, torrent: TorrentId, place: &mut Option<u64>, waits: bool) {
        match *place {
            None if waits => {
                let number = self.routes.issue();
                self.routes.line.insert((number, torrent));
                *place = Some(number);
            }
            Some(number) if !waits => {
                self.routes.line.remove(&(number, torrent));
                *place = None;
            }
            _ => {}
        }
    }

    /// Somebody says what our address is.
    pub(crate) fn learn_external(&mut self, ip: IpAddr) {
        let slot = if ip.is_ipv6() { &mut self.external.v6 } else { &mut self.external.v4 };
        *slot = Some(ip);
    }

    /// Whether this is where others reach us: address and port.
    pub(crate) fn is_ourselves(&self, address: SocketAddr) -> bool {
        let ip = Some(address.ip());
        self.port == Some(address.port()) && (ip == self.external.v4 || ip == self.external.v6)
    }

    pub(crate) fn wake_scraper(&mut self, at: Option<Instant>) {
        self.timers.set(Wake::Scraper, at);
    }

    pub(crate) fn wake_torrent(&mut self, torrent: TorrentId, at: Option<Instant>) {
        self.timers.set(Wake::Torrent(torrent), at);
    }

    pub(crate) fn wake_connection(&mut self, connection: ConnectionId, at: Instant) {
        self.timers.set(Wake::Connection(connection), Some(at));
    }

    /// Whether this engine has a bug that was planted.
    pub(crate) fn has_bug(&self, bug: OldBug) -> bool {
        self.config.planted.is(bug)
    }

    /// Whether one more peer may be connected.
    pub(crate) fn has_room(&self) -> bool {
        self.routes.connections.len() < self.config.peers_max as usize
    }
}
