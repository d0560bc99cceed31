//! The trackers of one torrent: whom to tell what, when (BEP 3, BEP 12, BEP 31).
//!
//! States: *idle* until [`Announcer::start`]; *running*; *stopping* from [`Announcer::stop`] until
//! [`Action::Stopped`]. While running at most one announce is under way. Tiers are tried in order, a tracker that
//! answered moves to the front of its tier, and the next tier is asked only when all of this one have failed and wait
//! for their next try. A failure is retried after 5 s, doubling to 30 min with jitter, whatever the interval was: after
//! an outage nothing waits for an interval.
//!
//! Each tracker is told `started` once, with the first announce that it takes; one tracker is told `completed`, once,
//! preferably one that knows us; those that took `started` are told `stopped`, all at once.
//!
//! Redirects and addresses are judged here, on the address that is connected to: never more local than where the
//! redirect came from, and on this machine only below `/announce`, so that a torrent cannot make us talk to a service
//! of ours. It never resolves a name that is an address, never asks before the minimum interval (events excepted), and
//! never holds more than one answer.

use core::net::{IpAddr, SocketAddr};
use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use url::{Host, Url};

use crate::address::{Scope, is_acceptable, is_dialable};
use crate::ids::{InfoHash, PeerId};
use crate::input::{HttpResponse, NetError};
use crate::limits::{
    ANNOUNCE_INTERVAL, ANNOUNCE_INTERVAL_MAX, ANNOUNCE_INTERVAL_MIN, ANNOUNCE_MIN_INTERVAL,
    ANNOUNCE_RETRY_FIRST, ANNOUNCE_RETRY_MAX, HTTP_TIMEOUT, REDIRECTS_MAX, TRACKER_ADDRESSES_MAX,
    TRACKER_BODY_BYTES_MAX, TRACKER_URL_BYTES_MAX, TRACKERS_MAX,
};
use crate::rng::Rng;
use crate::time::Instant;
use crate::wire::tracker_http::{
    AnnounceAnswer, AnnounceEvent, AnnounceRequest, Announced, AnswerError, RetryIn, imitates_announce,
    names_torrent,
};

/// The trackers of one torrent.
#[derive(Debug)]
pub(crate) struct Announcer {
    /// By tier, within a tier in the order in which they are tried.
    trackers: Vec<Tracker>,
    /// At most one while running; at most one a tracker while stopping.
    attempts: Vec<Attempt>,
    queue: VecDeque<Queued>,
    rng: Rng,
    token_next: u32,
    phase: Phase,
    completed: Completed,
    /// When the next regular announce is due. In the past while none was taken.
    due_at: Instant,
    /// When to look again for something to do.
    wake_at: Option<Instant>,
}

/// What an announce says of us; as it is when the request goes out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    /// Which torrent.
    pub(crate) info_hash: InfoHash,
    /// Who we are.
    pub(crate) peer_id: PeerId,
    /// The same for all announces of a session.
    pub(crate) key: u32,
    /// Where we accept peers.
    pub(crate) port: u16,
    /// Payload sent, bytes.
    pub(crate) uploaded: u64,
    /// Payload received, bytes.
    pub(crate) downloaded: u64,
    /// Bytes missing.
    pub(crate) left: u64,
    /// Peers wanted. With `stopped` none are.
    pub(crate) numwant: u32,
}

/// A name for a look-up or request, chosen here; the torrent maps it to what the engine allots. Never used twice. One
/// that was answered, cancelled or is otherwise out of date is ignored when it comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Token(pub(crate) u32);

/// What the torrent is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Look a name up; answered with [`Announcer::handle_resolved`].
    Resolve {
        /// Our name for it.
        token: Token,
        /// Never an address.
        host: String,
    },
    /// One HTTP request; answered with [`Announcer::handle_http`]. Its deadline is kept here.
    Get(Box<Get>),
    /// Forget a look-up or request; no answer is waited for.
    Cancel {
        /// Which.
        token: Token,
    },
    /// Addresses from a tracker, all of which may be dialled.
    Peers(Vec<SocketAddr>),
    /// For the user.
    Report(Box<Report>),
    /// After [`Announcer::stop`]: everybody was told, or gave up. Nothing follows.
    Stopped,
}

/// One HTTP request; the fields of [`crate::output::HttpGet`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Get {
    /// Our name for it.
    pub(crate) token: Token,
    /// Where to connect.
    pub(crate) target: SocketAddr,
    /// Whether over TLS.
    pub(crate) tls: bool,
    /// The name in the URL, for TLS; an address without brackets.
    pub(crate) host: String,
    /// The `Host` header.
    pub(crate) authority: String,
    /// Path and query.
    pub(crate) path: String,
    /// The most of the body to take.
    pub(crate) body_bytes_max: u32,
}

/// What came of an announce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// The tracker's URL as the torrent has it.
    pub(crate) url: String,
    /// What it was to be told.
    pub(crate) event: Option<AnnounceEvent>,
    /// Peers received, those not usable included, or what went wrong.
    pub(crate) result: Result<u32, TrackerError>,
    /// A word from the tracker to the user, not escaped.
    pub(crate) warning: Option<String>,
}

/// What is wrong with a tracker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TrackerError {
    /// No URL, or a very long one.
    #[error("not a usable URL")]
    BadUrl,
    /// UDP, WebSocket and others.
    #[error("{0} trackers are not supported yet")]
    Unsupported(String),
    /// A URL that would make us say what we did not say.
    #[error("its URL imitates an announce")]
    Imitation,
    /// A service of this machine, or one that pretends to be a tracker.
    #[error("a tracker on this machine must have a path that begins with /announce")]
    LoopbackPath,
    /// A redirect into somebody's local network.
    #[error("redirected from a public to a local address")]
    RedirectToLocal,
    /// A redirect that leads nowhere.
    #[error("redirected to something that is no http or https URL")]
    RedirectTarget,
    /// A loop, most likely.
    #[error("redirected more than {REDIRECTS_MAX} times")]
    TooManyRedirects,
    /// An address where no host can be.
    #[error("its address cannot be connected to")]
    BadAddress,
    /// The network.
    #[error(transparent)]
    Net(#[from] NetError),
    /// Neither an answer nor a redirect.
    #[error("HTTP status {0}")]
    Status(u16),
    /// What it said is no answer.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// In its own words, cut to a cap, not escaped.
    #[error("{0}")]
    Refused(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Running,
    Stopping,
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Completed {
    No,
    /// To be told.
    Pending,
    Told,
}

#[derive(Debug)]
struct Tracker {
    /// Its place at first; a name.
    id: usize,
    tier: usize,
    /// As the torrent has it.
    text: String,
    url: Result<Url, TrackerError>,
    tracker_id: Option<Bytes>,
    /// It took `started` and was not told `stopped`.
    started: bool,
    failures: u32,
    /// After a failure: not before.
    retry_at: Instant,
    /// After a success: not before, events excepted.
    welcome_at: Instant,
}

/// One announce, over all its redirects and addresses.
#[derive(Debug)]
struct Attempt {
    token: Token,
    tracker: usize,
    event: Option<AnnounceEvent>,
    /// Where it is now, after redirects.
    url: Url,
    redirects: u32,
    /// The widest scope it was redirected from; nothing more local may follow.
    scope_min: Scope,
    /// Addresses not tried yet, in reverse.
    addresses: Vec<IpAddr>,
    /// Where the request under way went; none while a name is looked up.
    target: Option<SocketAddr>,
    deadline: Instant,
}

/// An action in wait. A request is put together when it is taken, so that its figures are current.
#[derive(Debug)]
enum Queued {
    Get(Token),
    Ready(Action),
}

/// What to do while running.
enum Plan {
    Announce(usize, Option<AnnounceEvent>),
    Wait(Instant),
    Nothing,
}

impl Announcer {
    /// For the trackers of a torrent. Those that cannot be used stay in the list and are reported once, at the start.
    pub(crate) fn new(tiers: &[Vec<String>], mut rng: Rng) -> Self {
        let mut trackers: Vec<Tracker> = Vec::new();
        for (tier, urls) in tiers.iter().enumerate() {
            let first = trackers.len();
            for text in urls {
                if trackers.len() == TRACKERS_MAX {
                    break;
                }
                if trackers.iter().all(|known| known.text != *text) {
                    trackers.push(Tracker::new(trackers.len(), tier, text));
                }
            }
            rng.shuffle(trackers.get_mut(first..).unwrap_or_default());
        }
        Self {
            trackers,
            attempts: Vec::new(),
            queue: VecDeque::new(),
            rng,
            token_next: 0,
            phase: Phase::Idle,
            completed: Completed::No,
            due_at: Instant::START,
            wake_at: None,
        }
    }

    /// Begins. The first announce goes out at once.
    pub(crate) fn start(&mut self, now: Instant) {
        assert_eq!(self.phase, Phase::Idle, "a torrent starts once");
        self.phase = Phase::Running;
        self.due_at = now;
        for tracker in &self.trackers {
            if let Err(error) = &tracker.url {
                self.queue.push_back(report(&tracker.text, None, Err(error.clone()), None));
            }
        }
        self.advance(now);
    }

    /// The last piece was downloaded. Not to be said of a torrent that was whole from the start. Once; later calls
    /// change nothing.
    pub(crate) fn completed(&mut self, now: Instant) {
        if self.completed == Completed::No {
            self.completed = Completed::Pending;
        }
        self.advance(now);
    }

    /// Tells `stopped` to every tracker that took `started`, after `completed` where that is still to be told. Ends
    /// with [`Action::Stopped`]; who cannot wait for it says [`Self::give_up`].
    pub(crate) fn stop(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Idle | Phase::Running) {
            return;
        }
        self.phase = Phase::Stopping;
        // What may have been taken already is waited for, because `stopped` depends on it.
        for attempt in self.attempts.extract_if(.., |attempt| attempt.event.is_none()) {
            self.queue.push_back(Queued::Ready(Action::Cancel { token: attempt.token }));
        }
        let started: Vec<usize> =
            self.trackers.iter().filter(|tracker| tracker.started).map(|one| one.id).collect();
        for tracker in started {
            self.say_last(now, tracker);
        }
        self.advance(now);
    }

    /// Cancels all that is under way and says [`Action::Stopped`], unless that was said.
    pub(crate) fn give_up(&mut self) {
        if self.phase == Phase::Stopped {
            return;
        }
        self.phase = Phase::Stopped;
        self.wake_at = None;
        for attempt in self.attempts.drain(..) {
            self.queue.push_back(Queued::Ready(Action::Cancel { token: attempt.token }));
        }
        self.queue.push_back(Queued::Ready(Action::Stopped));
    }

    /// More peers would be welcome: announces before the interval is over, but not before the minimum interval.
    pub(crate) fn need_peers(&mut self, now: Instant) {
        self.due_at = self.due_at.min(now);
        self.advance(now);
    }

    /// The machine slept, or the network changed: what was waited for is due, and nothing that is under way will end.
    pub(crate) fn renew(&mut self, now: Instant) {
        for tracker in &mut self.trackers {
            tracker.failures = 0;
            tracker.retry_at = now;
        }
        self.need_peers(now);
    }

    /// A look-up is done.
    pub(crate) fn handle_resolved(
        &mut self,
        now: Instant,
        token: Token,
        result: Result<Vec<IpAddr>, NetError>,
    ) {
        let Some(at) = self.attempts.iter().position(|one| one.token == token && one.target.is_none()) else {
            return;
        };
        let mut attempt = self.attempts.swap_remove(at);
        match result {
            Ok(addresses) => {
                attempt.addresses = addresses.into_iter().take(TRACKER_ADDRESSES_MAX).collect();
                attempt.addresses.reverse();
                self.try_address(now, attempt, NetError::NotFound.into());
            }
            Err(error) => self.fail(now, &attempt, error.into(), None),
        }
        self.advance(now);
    }

    /// A request is done.
    pub(crate) fn handle_http(&mut self, now: Instant, token: Token, result: Result<HttpResponse, NetError>) {
        let asked = |one: &Attempt| if one.token == token { one.target } else { None };
        let found = self.attempts.iter().enumerate().find_map(|(at, one)| Some((at, asked(one)?)));
        let Some((at, target)) = found else { return };
        let attempt = self.attempts.swap_remove(at);
        match result {
            Ok(response) => self.handle_response(now, attempt, target, response),
            Err(error) => self.try_address(now, attempt, error.into()),
        }
        self.advance(now);
    }

    /// The time of [`Self::poll_timeout`] has come. Early calls do nothing.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let late: Vec<Attempt> = self.attempts.extract_if(.., |attempt| attempt.deadline <= now).collect();
        for attempt in late {
            self.queue.push_back(Queued::Ready(Action::Cancel { token: attempt.token }));
            self.try_address(now, attempt, NetError::TimedOut.into());
        }
        self.advance(now);
    }

    /// When [`Self::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.attempts.iter().map(|attempt| attempt.deadline).chain(self.wake_at).min()
    }

    /// What is to be done, in order; none when all was taken.
    pub(crate) fn poll_action(&mut self, figures: &Figures) -> Option<Action> {
        loop {
            match self.queue.pop_front()? {
                Queued::Ready(action) => return Some(action),
                Queued::Get(token) => {
                    // A request may have been given up before it was taken.
                    let attempt = self.attempts.iter().find(|attempt| attempt.token == token);
                    if let Some(get) = attempt.and_then(|attempt| self.request(attempt, figures)) {
                        return Some(Action::Get(Box::new(get)));
                    }
                }
            }
        }
    }

    fn request(&self, attempt: &Attempt, figures: &Figures) -> Option<Get> {
        let Attempt { token, url, event, target, .. } = attempt;
        let host = url.host_str()?;
        // A redirect that names the torrent has all that was said before; one that does not gets it again.
        let path = match url.query() {
            Some(query) if attempt.redirects > 0 && names_torrent(query) => format!("{}?{query}", url.path()),
            query => AnnounceRequest {
                info_hash: figures.info_hash,
                peer_id: figures.peer_id,
                port: figures.port,
                uploaded: figures.uploaded,
                downloaded: figures.downloaded,
                left: figures.left,
                event: *event,
                numwant: Some(if *event == Some(AnnounceEvent::Stopped) { 0 } else { figures.numwant }),
                key: Some(figures.key),
                compact: Some(true),
                no_peer_id: true,
                tracker_id: self.tracker(attempt.tracker).tracker_id.clone(),
                ip: None,
            }
            .path_and_query(url.path(), query),
        };
        Some(Get {
            token: *token,
            target: (*target)?,
            tls: url.scheme() == "https",
            host: host.trim_matches(['[', ']']).to_owned(),
            authority: url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")),
            path,
            body_bytes_max: TRACKER_BODY_BYTES_MAX,
        })
    }

    /// Begins what is due, and finds out when the next thing is.
    fn advance(&mut self, now: Instant) {
        self.wake_at = None;
        match self.phase {
            Phase::Idle | Phase::Stopped => {}
            Phase::Stopping => {
                if self.attempts.is_empty() {
                    self.phase = Phase::Stopped;
                    self.queue.push_back(Queued::Ready(Action::Stopped));
                }
            }
            Phase::Running => {
                while self.attempts.is_empty() {
                    match self.plan(now) {
                        // One that fails at once waits for its next try, so this ends.
                        Plan::Announce(tracker, event) => self.begin(now, tracker, event),
                        Plan::Wait(at) => {
                            self.wake_at = Some(at);
                            break;
                        }
                        Plan::Nothing => break,
                    }
                }
                assert!(self.attempts.len() <= 1, "one announce at a time");
            }
        }
    }

    fn plan(&self, now: Instant) -> Plan {
        let completing = self.completed == Completed::Pending;
        let usable = || self.trackers.iter().filter(|tracker| tracker.url.is_ok());
        if completing && let Some(tracker) = usable().find(|one| one.started && one.retry_at <= now) {
            return Plan::Announce(tracker.id, Some(AnnounceEvent::Completed));
        }
        let due_at = if completing { now } else { self.due_at };
        let mut wait = None;
        for tracker in usable() {
            let failed = tracker.retry_at > now;
            let welcome_at = if completing { now } else { tracker.welcome_at };
            let at = due_at.max(if failed { tracker.retry_at } else { welcome_at });
            if at <= now {
                return Plan::Announce(tracker.id, (!tracker.started).then_some(AnnounceEvent::Started));
            }
            wait = Some(wait.map_or(at, |wait: Instant| wait.min(at)));
            if !failed {
                break;
            }
        }
        wait.map_or(Plan::Nothing, Plan::Wait)
    }

    fn begin(&mut self, now: Instant, tracker: usize, event: Option<AnnounceEvent>) {
        let Ok(url) = self.tracker(tracker).url.clone() else { return };
        let attempt = Attempt {
            token: self.token(),
            tracker,
            event,
            url,
            redirects: 0,
            scope_min: Scope::Loopback,
            addresses: Vec::new(),
            target: None,
            deadline: now,
        };
        self.look_up(now, attempt);
    }

    /// What a tracker that took `started` is told while stopping.
    fn say_last(&mut self, now: Instant, tracker: usize) {
        if self.attempts.iter().any(|attempt| attempt.tracker == tracker) {
            return;
        }
        let completing = self.attempts.iter().any(|attempt| attempt.event == Some(AnnounceEvent::Completed));
        if self.completed == Completed::Pending && !completing {
            self.begin(now, tracker, Some(AnnounceEvent::Completed));
        } else {
            self.begin(now, tracker, Some(AnnounceEvent::Stopped));
        }
    }

    fn look_up(&mut self, now: Instant, mut attempt: Attempt) {
        attempt.token = self.token();
        attempt.target = None;
        attempt.addresses.clear();
        let address = match attempt.url.host() {
            Some(Host::Ipv4(ip)) => IpAddr::V4(ip),
            Some(Host::Ipv6(ip)) => IpAddr::V6(ip),
            Some(Host::Domain(host)) => {
                let action = Action::Resolve { token: attempt.token, host: host.to_owned() };
                self.queue.push_back(Queued::Ready(action));
                attempt.deadline = now + HTTP_TIMEOUT;
                self.attempts.push(attempt);
                return;
            }
            None => return self.fail(now, &attempt, TrackerError::BadUrl, None),
        };
        attempt.addresses.push(address);
        self.try_address(now, attempt, TrackerError::BadAddress);
    }

    /// Asks at the next address that is permitted. With none left the announce has failed, for the reason given or
    /// the last one found here.
    fn try_address(&mut self, now: Instant, mut attempt: Attempt, mut error: TrackerError) {
        while let Some(ip) = attempt.addresses.pop() {
            let port = attempt.url.port_or_known_default().unwrap_or(0);
            let target = SocketAddr::new(ip.to_canonical(), port);
            match attempt.permits(target) {
                Ok(()) => {
                    attempt.token = self.token();
                    attempt.target = Some(target);
                    attempt.deadline = now + HTTP_TIMEOUT;
                    self.queue.push_back(Queued::Get(attempt.token));
                    self.attempts.push(attempt);
                    return;
                }
                Err(refusal) => error = refusal,
            }
        }
        self.fail(now, &attempt, error, None);
    }

    fn handle_response(
        &mut self,
        now: Instant,
        attempt: Attempt,
        target: SocketAddr,
        response: HttpResponse,
    ) {
        let HttpResponse { status, location, body, .. } = response;
        if let (301 | 302 | 303 | 307 | 308, Some(location)) = (status, location) {
            return self.redirect(now, attempt, target, &location);
        }
        match AnnounceAnswer::parse(&body) {
            Ok(AnnounceAnswer::Taken(announced)) if status == 200 => {
                self.take(now, &attempt, target, *announced)
            }
            // Some trackers refuse with a status as well.
            Ok(AnnounceAnswer::Refused { reason, retry }) => {
                self.fail(now, &attempt, TrackerError::Refused(reason), retry);
            }
            Err(error) if status == 200 => self.fail(now, &attempt, error.into(), None),
            _ => self.fail(now, &attempt, TrackerError::Status(status), None),
        }
    }

    fn redirect(&mut self, now: Instant, mut attempt: Attempt, target: SocketAddr, location: &str) {
        attempt.redirects += 1;
        if attempt.redirects > REDIRECTS_MAX {
            return self.fail(now, &attempt, TrackerError::TooManyRedirects, None);
        }
        let url =
            (location.len() <= TRACKER_URL_BYTES_MAX).then(|| attempt.url.join(location).ok()).flatten();
        let Some(url) = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) else {
            return self.fail(now, &attempt, TrackerError::RedirectTarget, None);
        };
        attempt.url = url;
        attempt.scope_min = attempt.scope_min.max(Scope::of(target.ip()));
        self.look_up(now, attempt);
    }

    fn take(&mut self, now: Instant, attempt: &Attempt, target: SocketAddr, announced: Announced) {
        let interval = clamp(announced.interval, ANNOUNCE_INTERVAL);
        let least = clamp(announced.min_interval, ANNOUNCE_MIN_INTERVAL.min(interval));
        let tracker = self.tracker_mut(attempt.tracker);
        tracker.failures = 0;
        tracker.retry_at = now;
        tracker.welcome_at = now + least;
        if announced.tracker_id.is_some() {
            tracker.tracker_id = announced.tracker_id;
        }
        match attempt.event {
            Some(AnnounceEvent::Started) => tracker.started = true,
            Some(AnnounceEvent::Stopped) => tracker.started = false,
            Some(AnnounceEvent::Completed) | None => {}
        }
        let url = tracker.text.clone();
        if attempt.event == Some(AnnounceEvent::Completed) {
            assert_eq!(self.completed, Completed::Pending, "completed is told once");
            self.completed = Completed::Told;
        }
        self.due_at = now + interval.max(least);
        self.move_to_front(attempt.tracker);
        let count = announced.peers.len() as u32;
        self.queue.push_back(report(&url, attempt.event, Ok(count), announced.warning));
        if self.phase == Phase::Stopping {
            if attempt.event != Some(AnnounceEvent::Stopped) {
                self.say_last(now, attempt.tracker);
            }
            return;
        }
        let peers: Vec<SocketAddr> = announced
            .peers
            .iter()
            .map(|peer| SocketAddr::new(peer.address.ip().to_canonical(), peer.address.port()))
            .filter(|peer| is_acceptable(*peer, target.ip()))
            .collect();
        if !peers.is_empty() {
            self.queue.push_back(Queued::Ready(Action::Peers(peers)));
        }
    }

    fn fail(&mut self, now: Instant, attempt: &Attempt, error: TrackerError, retry: Option<RetryIn>) {
        let draw = self.rng.next_u64();
        let tracker = self.tracker_mut(attempt.tracker);
        let wait = ANNOUNCE_RETRY_FIRST.saturating_mul(1 << tracker.failures.min(16)).min(ANNOUNCE_RETRY_MAX);
        let jitter = Duration::from_nanos(draw % (wait.as_nanos() as u64 / 2));
        // BEP 31. Never is not believed for longer than a day: trackers, too, are mended.
        let asked = match retry {
            None => Duration::ZERO,
            Some(RetryIn::Minutes(minutes)) => clamp(Some(minutes.saturating_mul(60)), Duration::ZERO),
            Some(RetryIn::Never) => ANNOUNCE_INTERVAL_MAX,
        };
        tracker.failures = tracker.failures.saturating_add(1);
        tracker.retry_at = now + asked.max(wait + jitter);
        let report = report(&tracker.text, attempt.event, Err(error), None);
        self.queue.push_back(report);
        if self.phase == Phase::Stopping && self.tracker(attempt.tracker).started {
            match attempt.event {
                // It was told enough; and one that does not take `completed` may still take `stopped`.
                Some(AnnounceEvent::Completed) => {
                    self.begin(now, attempt.tracker, Some(AnnounceEvent::Stopped))
                }
                _ => self.tracker_mut(attempt.tracker).started = false,
            }
        }
    }

    /// BEP 12: the one that answered comes first in its tier from now on.
    fn move_to_front(&mut self, id: usize) {
        let Some(at) = self.trackers.iter().position(|tracker| tracker.id == id) else { return };
        let tier = self.trackers.get(at).map(|tracker| tracker.tier);
        let first = self.trackers.iter().position(|tracker| Some(tracker.tier) == tier).unwrap_or(at);
        if let Some(part) = self.trackers.get_mut(first..=at) {
            part.rotate_right(1);
        }
    }

    fn tracker(&self, id: usize) -> &Tracker {
        self.trackers.iter().find(|tracker| tracker.id == id).expect("trackers are never removed")
    }

    fn tracker_mut(&mut self, id: usize) -> &mut Tracker {
        self.trackers.iter_mut().find(|tracker| tracker.id == id).expect("trackers are never removed")
    }

    fn token(&mut self) -> Token {
        self.token_next = self.token_next.wrapping_add(1);
        Token(self.token_next)
    }
}

impl Tracker {
    fn new(id: usize, tier: usize, text: &str) -> Self {
        Self {
            id,
            tier,
            text: text.to_owned(),
            url: usable_url(text),
            tracker_id: None,
            started: false,
            failures: 0,
            retry_at: Instant::START,
            welcome_at: Instant::START,
        }
    }
}

impl Attempt {
    fn permits(&self, target: SocketAddr) -> Result<(), TrackerError> {
        if !is_dialable(target) {
            return Err(TrackerError::BadAddress);
        }
        let scope = Scope::of(target.ip());
        if scope < self.scope_min {
            return Err(TrackerError::RedirectToLocal);
        }
        if scope == Scope::Loopback && !self.url.path().starts_with("/announce") {
            return Err(TrackerError::LoopbackPath);
        }
        Ok(())
    }
}

fn usable_url(text: &str) -> Result<Url, TrackerError> {
    if text.len() > TRACKER_URL_BYTES_MAX {
        return Err(TrackerError::BadUrl);
    }
    let url = Url::parse(text).map_err(|_| TrackerError::BadUrl)?;
    match url.scheme() {
        "http" | "https" if !url.has_host() => Err(TrackerError::BadUrl),
        "http" | "https" if url.query().is_some_and(imitates_announce) => Err(TrackerError::Imitation),
        "http" | "https" => Ok(url),
        scheme => Err(TrackerError::Unsupported(scheme.chars().take(16).collect())),
    }
}

/// Seconds from outside, within what is believed.
fn clamp(seconds: Option<i64>, default: Duration) -> Duration {
    let asked = seconds.map_or(default, |seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
    asked.clamp(ANNOUNCE_INTERVAL_MIN, ANNOUNCE_INTERVAL_MAX)
}

fn report(
    url: &str,
    event: Option<AnnounceEvent>,
    result: Result<u32, TrackerError>,
    warning: Option<String>,
) -> Queued {
    Queued::Ready(Action::Report(Box::new(Report { url: url.to_owned(), event, result, warning })))
}

#[cfg(test)]
mod tests;
