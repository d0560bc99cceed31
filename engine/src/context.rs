//! What a torrent is given from above with every call: the time, the settings, and the way out.

use core::net::SocketAddr;
use std::collections::{BTreeMap, VecDeque};

use crate::alert::Alert;
use crate::bandwidth::{Bandwidth, Dials};
use crate::config::Config;
use crate::disk::Job;
use crate::ids::{ConnectionId, HttpId, JobId, PeerId, ResolveId, TorrentId};
use crate::limits::JOBS_MAX;
use crate::output::{HttpGet, Output};
use crate::time::Instant;
use crate::timers::Timers;

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
}

/// Who a deadline belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wake {
    Torrent(TorrentId),
    Connection(ConnectionId),
    /// A grant is paid for.
    Bandwidth,
}

/// Which torrent everything under way belongs to.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    pub(crate) connections: BTreeMap<ConnectionId, TorrentId>,
    pub(crate) jobs: BTreeMap<JobId, TorrentId>,
    pub(crate) lookups: BTreeMap<ResolveId, TorrentId>,
    pub(crate) requests: BTreeMap<HttpId, TorrentId>,
    /// Torrents that would dial if fewer peers were connected.
    pub(crate) crowded_out: std::collections::BTreeSet<TorrentId>,
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
        if let Some(torrent) = self.routes.crowded_out.pop_first() {
            self.wake_torrent(torrent, Some(self.now));
        }
    }

    pub(crate) fn resolve(&mut self, torrent: TorrentId, host: String) -> ResolveId {
        let query = ResolveId(self.routes.issue());
        self.routes.lookups.insert(query, torrent);
        self.outputs.push_back(Output::Resolve { query, host });
        query
    }

    /// Sends an HTTP request; its id is set here.
    pub(crate) fn http_get(&mut self, torrent: TorrentId, mut get: HttpGet) -> HttpId {
        get.request = HttpId(self.routes.issue());
        let request = get.request;
        self.routes.requests.insert(request, torrent);
        self.outputs.push_back(Output::HttpGet(Box::new(get)));
        request
    }

    pub(crate) fn cancel_http(&mut self, request: HttpId) {
        if self.routes.requests.remove(&request).is_some() {
            self.outputs.push_back(Output::HttpCancel { request });
        }
    }

    pub(crate) fn wake_torrent(&mut self, torrent: TorrentId, at: Option<Instant>) {
        self.timers.set(Wake::Torrent(torrent), at);
    }

    pub(crate) fn wake_connection(&mut self, connection: ConnectionId, at: Instant) {
        self.timers.set(Wake::Connection(connection), Some(at));
    }

    /// Whether one more peer may be connected.
    pub(crate) fn has_room(&self) -> bool {
        self.routes.connections.len() < self.config.peers_max as usize
    }
}
