//! The trackers of one torrent: whom to tell what, when (BEP 3, BEP 12, BEP 31).
//!
//! States: *idle* until [`Announcer::start`]; *running*; *stopping* from [`Announcer::stop`] until
//! [`Action::Stopped`]. While running at most one announce is under way. Tiers are tried in order, a tracker that
//! answered moves to the front of its tier, and the next tier is asked only when all of this one have failed and wait
//! for their next try; or when peers are needed and it knew of none, or of none that helped for a while: a swarm whose
//! trackers were down for some of its peers is in two halves, one in each tier, that would not meet before the next
//! interval. A failure is retried after 5 s, doubling to 10 min with jitter, whatever the interval was: after an outage
//! nothing waits for an interval, nor does one that could not be reached while those of another do not help, or one that
//! failed while all others know of nobody.
//!
//! When all were asked and still nothing comes, each is asked again after its minimum interval, then after twice as long
//! each time, until that is its interval. Whoever nobody can dial, and was told only of peers that give nothing, would
//! else do nothing for half an hour while the tracker has long known others.
//!
//! Each tracker is told `started` once, with the first announce that it takes; one tracker is told `completed`, once,
//! preferably one that knows us; those that took `started` are told `stopped`, all at once.
//!
//! Where a tracker's name has addresses of both families, what one of them took is said to the other as well (BEP 7), so
//! that we are known at both of our addresses and learn of peers at both; this *echo* delays nothing, is not reported,
//! and leaves out `completed`, which would be counted twice.
//!
//! It never asks before the minimum interval (events excepted), and never holds more than one answer.

use core::net::{IpAddr, SocketAddr};
use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tracing::debug;

use crate::address::is_acceptable;
use crate::exchange::{Answered, Call, Endpoint, Exchange, Step, Token, TrackerError};
use crate::ids::{InfoHash, PeerId};
use crate::input::{HttpResponse, NetError};
use crate::limits::{
    ANNOUNCE_ALONE, ANNOUNCE_HUNGRY, ANNOUNCE_INTERVAL, ANNOUNCE_INTERVAL_MAX, ANNOUNCE_INTERVAL_MIN,
    ANNOUNCE_MIN_INTERVAL, ANNOUNCE_RENEW, ANNOUNCE_RETRY_FIRST, ANNOUNCE_RETRY_MAX, TRACKERS_MAX,
};
use crate::museum::{OldBug, Planted};
use crate::rng::Rng;
use crate::time::Instant;
use crate::udp_trackers::UdpAsk;
use crate::wire::tracker_http::{
    AnnounceAnswer, AnnounceEvent, AnnounceRequest, Announced, RetryIn, TrackerPeer, names_torrent,
};
use crate::wire::tracker_udp::UdpAnswer;

/// The trackers of one torrent.
#[derive(Debug)]
pub(crate) struct Announcer {
    /// By tier, within a tier in the order in which they are tried.
    trackers: Vec<Tracker>,
    /// Echoes apart: at most one while running; at most one a tracker while stopping.
    attempts: Vec<Attempt>,
    ready: VecDeque<Action>,
    /// What waits for its turn. A request is put together when it is taken, so that its figures are current.
    calls: VecDeque<Token>,
    rng: Rng,
    token_next: u32,
    phase: Phase,
    completed: Completed,
    /// When the next regular announce is due. In the past while none was taken.
    due_at: Instant,
    /// When to look again for something to do.
    wake_at: Option<Instant>,
    /// Whether something is missing, and the port that we named: as the last announce said.
    seeking: bool,
    /// From then on others are asked as well, unless something comes by then; none while nothing is sought.
    hungry_at: Option<Instant>,
    /// When something of what is sought came last.
    fed_at: Instant,
    port: u16,
    planted: Planted,
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

/// What the torrent is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Answered with [`Announcer::handle_resolved`], [`Announcer::handle_http`] or [`Announcer::handle_udp`]. Deadlines of
    /// look-ups and HTTP requests are kept here.
    Call {
        /// Our name for it.
        token: Token,
        /// What.
        call: Call,
    },
    /// Forget a call; no answer is waited for.
    Cancel {
        /// Which.
        token: Token,
    },
    /// Addresses from a tracker, all of which may be dialled.
    Peers {
        /// By its number in the torrent.
        tracker: usize,
        /// Where they are.
        peers: Vec<SocketAddr>,
    },
    /// Our address, as a tracker sees it (BEP 24).
    ExternalIp(IpAddr),
    /// For the user.
    Report(Box<Report>),
    /// After [`Announcer::stop`]: everybody was told, or gave up. Nothing follows.
    Stopped,
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
    endpoint: Result<Endpoint, TrackerError>,
    tracker_id: Option<Bytes>,
    /// It took `started` and was not told `stopped`.
    started: bool,
    /// The same at its addresses of the other family.
    echoed: bool,
    failures: u32,
    /// It failed because nothing came of it, not because it said so.
    unreachable: bool,
    failed_at: Instant,
    /// After a failure: not before.
    retry_at: Instant,
    /// Of that, what it asked for itself.
    barred_until: Instant,
    /// After a success: not before, events excepted.
    welcome_at: Instant,
    /// When it is due, should it be asked beside one that knew of nobody.
    due_at: Instant,
    /// When it took an announce last.
    answered_at: Instant,
    /// For how long it is left alone from then on when nothing comes of what it says, and until when.
    patience: Duration,
    patient_until: Instant,
    /// It took the last announce and knew of nobody else.
    barren: bool,
}

/// One announce, over all its redirects and addresses.
#[derive(Debug)]
struct Attempt {
    token: Token,
    tracker: usize,
    event: Option<AnnounceEvent>,
    /// To the other family of a tracker that took it.
    echo: bool,
    exchange: Exchange,
    /// The call was taken.
    out: bool,
}

/// What to do while running.
enum Plan {
    Announce(usize, Option<AnnounceEvent>),
    Wait(Instant),
    Nothing,
}

impl Announcer {
    /// For the trackers of a torrent. Those that cannot be used stay in the list and are reported once, at the start.
    pub(crate) fn new(tiers: &[Vec<String>], planted: Planted, mut rng: Rng) -> Self {
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
            ready: VecDeque::new(),
            calls: VecDeque::new(),
            rng,
            token_next: 0,
            phase: Phase::Idle,
            completed: Completed::No,
            due_at: Instant::START,
            wake_at: None,
            seeking: false,
            hungry_at: None,
            fed_at: Instant::START,
            port: 0,
            planted,
        }
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.phase != Phase::Idle
    }

    /// Begins. The first announce goes out at once.
    pub(crate) fn start(&mut self, now: Instant) {
        assert_eq!(self.phase, Phase::Idle, "a torrent starts once");
        self.phase = Phase::Running;
        self.due_at = now;
        for tracker in &self.trackers {
            if let Err(error) = &tracker.endpoint {
                self.ready.push_back(report(&tracker.text, None, Err(error.clone()), None));
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
        let idle: Vec<Attempt> = self.attempts.extract_if(.., |attempt| attempt.event.is_none()).collect();
        idle.iter().for_each(|attempt| self.cancel(attempt));
        let started: Vec<usize> =
            self.trackers.iter().filter(|tracker| tracker.started).map(|one| one.id).collect();
        for tracker in started {
            self.say_last(now, tracker);
        }
        self.advance(now);
    }

    /// Whether it was told to stop.
    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self.phase, Phase::Stopping | Phase::Stopped)
    }

    /// After a stop: begins as if it never had.
    pub(crate) fn start_again(&mut self, now: Instant) {
        self.give_up();
        self.ready.retain(|action| *action != Action::Stopped);
        for tracker in &mut self.trackers {
            tracker.started = false;
            (tracker.due_at, tracker.welcome_at) = (now, now);
        }
        (self.phase, self.due_at) = (Phase::Running, now);
        self.advance(now);
    }

    /// Cancels all that is under way and says [`Action::Stopped`], unless that was said.
    pub(crate) fn give_up(&mut self) {
        if self.phase == Phase::Stopped {
            return;
        }
        self.phase = Phase::Stopped;
        self.wake_at = None;
        let attempts = std::mem::take(&mut self.attempts);
        attempts.iter().for_each(|attempt| self.cancel(attempt));
        self.ready.push_back(Action::Stopped);
    }

    /// The network may be another one, or the machine has slept: forgets what failed, and announces again as soon as
    /// each tracker permits. What is under way begins anew.
    pub(crate) fn renew(&mut self, now: Instant) {
        if self.phase != Phase::Running {
            return;
        }
        let attempts = std::mem::take(&mut self.attempts);
        attempts.iter().for_each(|attempt| self.cancel(attempt));
        for tracker in &mut self.trackers {
            tracker.failures = 0;
            tracker.retry_at = tracker.barred_until.min(tracker.retry_at);
        }
        self.due_at = self.due_at.min(now);
        self.trackers.iter_mut().for_each(|tracker| tracker.due_at = tracker.due_at.min(now));
        self.on_helped(now);
        self.advance(now);
    }

    /// The network seems to be back: trackers that could not be reached are tried again soon, one by one, and none much
    /// more often than once in [`ANNOUNCE_RENEW`].
    pub(crate) fn on_reachable(&mut self, now: Instant) {
        if self.phase == Phase::Running {
            self.retry_soon(now);
            self.advance(now);
        }
    }

    /// Whether some tracker could not be reached when it was asked last.
    pub(crate) fn is_unreached(&self) -> bool {
        self.phase == Phase::Running && self.trackers.iter().any(|tracker| tracker.unreachable)
    }

    fn retry_soon(&mut self, now: Instant) {
        for tracker in self.trackers.iter_mut().filter(|tracker| tracker.unreachable) {
            let jitter = Duration::from_nanos(self.rng.below(ANNOUNCE_RENEW.as_nanos() as u64 / 2));
            let soon = now.max(tracker.failed_at + ANNOUNCE_RENEW) + jitter;
            tracker.retry_at = tracker.retry_at.min(soon);
        }
    }

    /// More peers would be welcome: announces before the interval is over, but not before the minimum interval.
    pub(crate) fn need_peers(&mut self, now: Instant) {
        self.due_at = self.due_at.min(now);
        self.advance(now);
    }

    /// Whether something is sought of peers. When nothing comes of it for [`ANNOUNCE_HUNGRY`], others may know better than
    /// the tracker that answered; and when all did, they may know better by now.
    pub(crate) fn set_seeking(&mut self, now: Instant, seeking: bool) {
        if seeking != self.hungry_at.is_some() {
            self.hungry_at = seeking.then_some(now + ANNOUNCE_HUNGRY);
            self.advance(now);
        }
    }

    /// Some of what is sought came.
    pub(crate) fn on_fed(&mut self, now: Instant) {
        self.fed_at = now;
        self.on_helped(now);
    }

    /// When some of what is sought came last; never: [`Instant::START`].
    pub(crate) fn fed_at(&self) -> Instant {
        self.fed_at
    }

    /// Some of it came, or an answer that may lead to it.
    fn on_helped(&mut self, now: Instant) {
        if let Some(at) = &mut self.hungry_at {
            *at = now + ANNOUNCE_HUNGRY;
        }
    }

    /// A look-up is done.
    pub(crate) fn handle_resolved(
        &mut self,
        now: Instant,
        token: Token,
        result: Result<Vec<IpAddr>, NetError>,
    ) {
        self.go_on(now, token, |exchange| exchange.handle_resolved(result));
    }

    /// A request is done.
    pub(crate) fn handle_http(&mut self, now: Instant, token: Token, result: Result<HttpResponse, NetError>) {
        self.go_on(now, token, |exchange| exchange.handle_http(result));
    }

    /// A question over UDP is answered, or was not in time.
    pub(crate) fn handle_udp(&mut self, now: Instant, token: Token, result: Result<UdpAnswer, NetError>) {
        self.go_on(now, token, |exchange| exchange.handle_udp(result));
    }

    /// The time of [`Self::poll_timeout`] has come. Early calls do nothing.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let is_late = |attempt: &mut Attempt| attempt.exchange.deadline().is_some_and(|at| at <= now);
        let late: Vec<Attempt> = self.attempts.extract_if(.., is_late).collect();
        for mut attempt in late {
            self.cancel(&attempt);
            let step = attempt.exchange.handle_timeout();
            self.take_step(now, attempt, step);
        }
        self.advance(now);
    }

    /// When [`Self::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let deadlines = self.attempts.iter().filter_map(|attempt| attempt.exchange.deadline());
        deadlines.chain(self.wake_at).min()
    }

    /// What is to be done, in order; none when all was taken, or waits until `may_ask`: whether one more look-up or HTTP
    /// request may go out.
    pub(crate) fn poll_action(&mut self, now: Instant, figures: &Figures, may_ask: bool) -> Option<Action> {
        if let Some(action) = self.ready.pop_front() {
            return Some(action);
        }
        loop {
            let token = *self.calls.front()?;
            // It may have been given up before it was taken.
            let Some(at) = self.attempts.iter().position(|attempt| attempt.token == token) else {
                self.calls.pop_front();
                continue;
            };
            let attempt = self.attempts.get(at)?;
            if attempt.exchange.is_costly() && !may_ask {
                return None;
            }
            self.calls.pop_front();
            (self.seeking, self.port) = (figures.left > 0, figures.port);
            if figures.left > 0 && self.take_completed_back(now, at) {
                return self.poll_action(now, figures, may_ask);
            }
            let attempt = self.attempts.get(at)?;
            let call = self.call(attempt, figures)?;
            let attempt = self.attempts.get_mut(at)?;
            attempt.out = true;
            attempt.exchange.on_out(now);
            return Some(Action::Call { token, call });
        }
    }

    /// Something was lost before `completed` could be said: it is said when all is there again. Whether this attempt was to
    /// say it, and is gone.
    fn take_completed_back(&mut self, now: Instant, at: usize) -> bool {
        let Some(attempt) = self.attempts.get(at).filter(|one| one.event == Some(AnnounceEvent::Completed))
        else {
            return false;
        };
        let tracker = attempt.tracker;
        self.attempts.swap_remove(at);
        self.completed = Completed::No;
        if self.phase == Phase::Stopping {
            self.say_last(now, tracker);
        }
        self.advance(now);
        true
    }

    /// Whether something waits for `may_ask`.
    pub(crate) fn is_in_line(&self) -> bool {
        !self.calls.is_empty()
    }

    fn call(&self, attempt: &Attempt, figures: &Figures) -> Option<Call> {
        let Attempt { exchange, event, .. } = attempt;
        let endpoint = exchange.endpoint();
        let Some(target) = exchange.target() else { return exchange.name().map(Call::Resolve) };
        let announce = AnnounceRequest {
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
        };
        if endpoint.is_udp() {
            let ask = UdpAsk::Announce { announce: Box::new(announce), url_data: endpoint.url_data() };
            return Some(Call::Udp(target, ask));
        }
        // A redirect that names the torrent has all that was said before; one that does not gets it again.
        let path = match endpoint.query() {
            Some(query) if exchange.is_redirected() && names_torrent(query) => {
                format!("{}?{query}", endpoint.path())
            }
            query => announce.path_and_query(endpoint.path(), query),
        };
        exchange.get(path).map(|get| Call::Get(Box::new(get)))
    }

    /// Begins what is due, and finds out when the next thing is.
    fn advance(&mut self, now: Instant) {
        self.wake_at = None;
        match self.phase {
            Phase::Idle | Phase::Stopped => {}
            Phase::Stopping => {
                if self.attempts.is_empty() {
                    self.phase = Phase::Stopped;
                    self.ready.push_back(Action::Stopped);
                }
            }
            Phase::Running => {
                while self.attempts.iter().all(|attempt| attempt.echo) {
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
                let main = self.attempts.iter().filter(|attempt| !attempt.echo);
                assert!(main.count() <= 1, "one announce at a time");
            }
        }
    }

    fn plan(&self, now: Instant) -> Plan {
        let completing = self.completed == Completed::Pending;
        let usable = || self.trackers.iter().filter(|tracker| tracker.endpoint.is_ok());
        if completing && let Some(tracker) = usable().find(|one| one.started && one.retry_at <= now) {
            return Plan::Announce(tracker.id, Some(AnnounceEvent::Completed));
        }
        let due_at = if completing { now } else { self.due_at };
        let hungry = self.hungry_at.is_some_and(|at| at <= now);
        let (mut wait, mut beside) = (self.hungry_at.filter(|_| !hungry), false);
        let nobody_helps = self.seeking && usable().all(|tracker| tracker.failures > 0 || tracker.barren);
        for tracker in usable() {
            let due_at = if tracker.failures > 0 && (nobody_helps || hungry && tracker.unreachable) {
                tracker.retry_at
            } else if beside {
                tracker.due_at
            } else {
                due_at
            };
            let failed = tracker.retry_at > now;
            let welcome_at = if completing { now } else { tracker.welcome_at };
            let at = due_at.max(if failed { tracker.retry_at } else { welcome_at });
            if at <= now {
                return Plan::Announce(tracker.id, self.event_for(tracker));
            }
            wait = Some(wait.map_or(at, |wait: Instant| wait.min(at)));
            if !failed {
                if completing || !self.seeking || !(tracker.barren || hungry) {
                    break;
                }
                beside = true;
            }
        }
        for tracker in usable().filter(|tracker| hungry && tracker.failures == 0) {
            let at = tracker.patient_until;
            if at <= now {
                return Plan::Announce(tracker.id, self.event_for(tracker));
            }
            wait = Some(wait.map_or(at, |wait: Instant| wait.min(at)));
        }
        wait.map_or(Plan::Nothing, Plan::Wait)
    }

    /// What a regular announce says.
    fn event_for(&self, tracker: &Tracker) -> Option<AnnounceEvent> {
        let is_new = !tracker.started || self.planted.is(OldBug::StartedAgain);
        is_new.then_some(AnnounceEvent::Started)
    }

    fn begin(&mut self, now: Instant, tracker: usize, event: Option<AnnounceEvent>) {
        let Ok(endpoint) = self.tracker(tracker).endpoint.clone() else { return };
        let (exchange, step) = Exchange::new(endpoint);
        let attempt = Attempt { token: Token(0), tracker, event, echo: false, exchange, out: false };
        self.take_step(now, attempt, step);
    }

    /// What `done` came to is said to the other family, or to the same again.
    fn echo(&mut self, now: Instant, done: &Attempt, event: Option<AnnounceEvent>) {
        let Some(mut exchange) = done.exchange.again(!done.echo) else { return };
        let step = exchange.next_address(TrackerError::BadAddress);
        let attempt =
            Attempt { token: Token(0), tracker: done.tracker, event, echo: true, exchange, out: false };
        self.take_step(now, attempt, step);
    }

    /// Goes on with the attempt that waits for this, if there is one.
    fn go_on(&mut self, now: Instant, token: Token, step: impl FnOnce(&mut Exchange) -> Step) {
        let Some(at) = self.attempts.iter().position(|one| one.token == token && one.out) else { return };
        let mut attempt = self.attempts.swap_remove(at);
        let step = step(&mut attempt.exchange);
        self.take_step(now, attempt, step);
        self.advance(now);
    }

    fn take_step(&mut self, now: Instant, mut attempt: Attempt, step: Step) {
        match step {
            Step::LookUp | Step::Ask => {
                self.token_next = self.token_next.wrapping_add(1);
                attempt.token = Token(self.token_next);
                attempt.out = false;
                self.calls.push_back(attempt.token);
                self.attempts.push(attempt);
            }
            Step::Answered(answered) => self.handle_answer(now, &attempt, answered),
            Step::Failed(error) => self.fail(now, &attempt, error, None),
        }
    }

    fn cancel(&mut self, attempt: &Attempt) {
        if attempt.out {
            self.ready.push_back(Action::Cancel { token: attempt.token });
        }
    }

    /// What a tracker that took `started` is told while stopping.
    fn say_last(&mut self, now: Instant, tracker: usize) {
        if self.attempts.iter().any(|attempt| attempt.tracker == tracker && !attempt.echo) {
            return;
        }
        let completing = self.attempts.iter().any(|attempt| attempt.event == Some(AnnounceEvent::Completed));
        if self.completed == Completed::Pending && !completing {
            self.begin(now, tracker, Some(AnnounceEvent::Completed));
        } else {
            self.begin(now, tracker, Some(AnnounceEvent::Stopped));
        }
    }

    fn handle_answer(&mut self, now: Instant, attempt: &Attempt, answered: Answered) {
        let Some(target) = attempt.exchange.target() else { return };
        let (status, body) = match answered {
            Answered::Http { status, body } => (status, body),
            Answered::Udp(answer) => return self.take(now, attempt, target, announced(answer)),
        };
        match AnnounceAnswer::parse(&body) {
            Ok(AnnounceAnswer::Taken(announced)) if status == 200 => {
                self.take(now, attempt, target, *announced)
            }
            // Some trackers refuse with a status as well.
            Ok(AnnounceAnswer::Refused { reason, retry }) => {
                self.fail(now, attempt, TrackerError::Refused(reason), retry);
            }
            Err(error) if status == 200 => self.fail(now, attempt, error.into(), None),
            _ => self.fail(now, attempt, TrackerError::Status(status), None),
        }
    }

    fn take(&mut self, now: Instant, attempt: &Attempt, target: SocketAddr, announced: Announced) {
        if attempt.echo {
            return self.take_echo(now, attempt, target, &announced);
        }
        let interval = clamp(announced.interval, ANNOUNCE_INTERVAL);
        let least = clamp(announced.min_interval, ANNOUNCE_MIN_INTERVAL.min(interval));
        // A lone entry with our port is most likely ourselves.
        let barren =
            announced.peers.len() <= 1 && announced.peers.iter().all(|peer| peer.address.port() == self.port);
        let wait = if self.seeking && barren {
            // A tracker that wants to be asked once a day is not believed to know nobody for hours.
            let soon = ANNOUNCE_ALONE.max((interval / 15).min(ANNOUNCE_MIN_INTERVAL));
            least.max(soon).min(interval.max(least))
        } else {
            interval.max(least)
        };
        self.due_at = now + wait;
        let fed_at = self.fed_at;
        let tracker = self.tracker_mut(attempt.tracker);
        let helped = fed_at >= tracker.answered_at;
        let patience = if helped { least } else { tracker.patience.saturating_mul(2) };
        tracker.patience = patience.clamp(least, wait);
        tracker.patient_until = now + tracker.patience;
        tracker.answered_at = now;
        tracker.failures = 0;
        let was_unreachable = std::mem::take(&mut tracker.unreachable);
        tracker.retry_at = now;
        tracker.barred_until = now;
        tracker.welcome_at = now + least;
        tracker.due_at = now + wait;
        tracker.barren = barren;
        if announced.tracker_id.is_some() {
            tracker.tracker_id.clone_from(&announced.tracker_id);
        }
        match attempt.event {
            Some(AnnounceEvent::Started) => tracker.started = true,
            Some(AnnounceEvent::Stopped) => tracker.started = false,
            Some(AnnounceEvent::Completed) | None => {}
        }
        let (url, echoed) = (tracker.text.clone(), tracker.echoed);
        if attempt.event == Some(AnnounceEvent::Completed) {
            assert_eq!(self.completed, Completed::Pending, "completed is told once");
            self.completed = Completed::Told;
        }
        self.on_helped(now);
        if was_unreachable {
            self.retry_soon(now);
        }
        self.move_to_front(attempt.tracker);
        let count = announced.peers.len() as u32;
        self.ready.push_back(report(&url, attempt.event, Ok(count), announced.warning.clone()));
        if self.phase == Phase::Stopping {
            if attempt.event != Some(AnnounceEvent::Stopped) {
                self.say_last(now, attempt.tracker);
            } else if echoed {
                self.echo(now, attempt, Some(AnnounceEvent::Stopped));
            }
            return;
        }
        self.take_addresses(attempt.tracker, target, &announced);
        // An echo that still waits is as good as another one.
        if !self.attempts.iter().any(|one| one.echo && one.tracker == attempt.tracker) {
            self.echo(now, attempt, (!echoed).then_some(AnnounceEvent::Started));
        }
    }

    fn take_echo(&mut self, now: Instant, attempt: &Attempt, target: SocketAddr, announced: &Announced) {
        let tracker = self.tracker_mut(attempt.tracker);
        match attempt.event {
            Some(AnnounceEvent::Started) => tracker.echoed = true,
            Some(AnnounceEvent::Stopped) => tracker.echoed = false,
            Some(AnnounceEvent::Completed) | None => {}
        }
        if self.phase != Phase::Stopping {
            self.take_addresses(attempt.tracker, target, announced);
        } else if attempt.event == Some(AnnounceEvent::Started) {
            self.echo(now, attempt, Some(AnnounceEvent::Stopped));
        }
    }

    /// What a tracker at `source` says of others and of us, as far as it is believed.
    fn take_addresses(&mut self, tracker: usize, source: SocketAddr, announced: &Announced) {
        let peers: Vec<SocketAddr> = announced
            .peers
            .iter()
            .map(|peer| SocketAddr::new(peer.address.ip().to_canonical(), peer.address.port()))
            .filter(|peer| is_acceptable(*peer, source.ip()))
            .collect();
        // First, because our own address may be among the peers.
        if let Some(ip) = announced.external_ip.map(|ip| ip.to_canonical())
            && is_acceptable(SocketAddr::new(ip, 1), source.ip())
        {
            self.ready.push_back(Action::ExternalIp(ip));
        }
        if !peers.is_empty() {
            self.ready.push_back(Action::Peers { tracker, peers });
        }
    }

    fn fail(&mut self, now: Instant, attempt: &Attempt, error: TrackerError, retry: Option<RetryIn>) {
        if attempt.echo {
            debug!(%error, "a tracker's other family");
            return;
        }
        let (draw, planted) = (self.rng.next_u64(), self.planted);
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
        tracker.unreachable = matches!(error, TrackerError::Net(_));
        tracker.failed_at = now;
        tracker.retry_at = now + asked.max(wait + jitter);
        if tracker.failures >= 5 && planted.is(OldBug::TrackersGivenUp) {
            tracker.retry_at = now + Duration::from_secs(68 * 365 * 86_400);
            tracker.unreachable = false;
        }
        tracker.barred_until = now + asked;
        let report = report(&tracker.text, attempt.event, Err(error), None);
        self.ready.push_back(report);
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
}

impl Tracker {
    fn new(id: usize, tier: usize, text: &str) -> Self {
        Self {
            id,
            tier,
            text: text.to_owned(),
            endpoint: Endpoint::announce(text),
            tracker_id: None,
            started: false,
            echoed: false,
            failures: 0,
            unreachable: false,
            failed_at: Instant::START,
            retry_at: Instant::START,
            barred_until: Instant::START,
            welcome_at: Instant::START,
            due_at: Instant::START,
            answered_at: Instant::START,
            patience: Duration::ZERO,
            patient_until: Instant::START,
            barren: false,
        }
    }
}

/// An answer over UDP, which says less.
fn announced(answer: UdpAnswer) -> Announced {
    let UdpAnswer::Announced { interval, leechers, seeders, peers, .. } = answer else {
        return Announced::default();
    };
    Announced {
        // Signed (BEP 15).
        interval: Some(i64::from(interval.cast_signed())),
        // BEP 15 has no minimum of its own: who needs peers asks no sooner than where a tracker over HTTP says none.
        min_interval: None,
        complete: Some(i64::from(seeders)),
        incomplete: Some(i64::from(leechers)),
        peers: peers.into_iter().map(|address| TrackerPeer { address, peer_id: None }).collect(),
        ..Announced::default()
    }
}

/// Seconds from outside, within what is believed; less than none says nothing.
fn clamp(seconds: Option<i64>, default: Duration) -> Duration {
    let asked = seconds.and_then(|seconds| u64::try_from(seconds).ok()).map_or(default, Duration::from_secs);
    asked.clamp(ANNOUNCE_INTERVAL_MIN, ANNOUNCE_INTERVAL_MAX)
}

fn report(
    url: &str,
    event: Option<AnnounceEvent>,
    result: Result<u32, TrackerError>,
    warning: Option<String>,
) -> Action {
    Action::Report(Box::new(Report { url: url.to_owned(), event, result, warning }))
}

#[cfg(test)]
mod tests;
