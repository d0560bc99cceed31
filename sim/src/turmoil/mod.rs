//! The turmoil world: the real driver, whole stack, on turmoil hosts with shaped links.
//!
//! Turmoil gives each host a paused runtime and ticks them in turn by a millisecond; crashes are its own. Rates,
//! latency and what a dead machine looks like are ours ([`net`]). Nothing here depends on anything but the seed: one
//! thread, biased selects, jobs executed where they are asked for and finished at a booked time.

mod net;
mod puppet;
mod reply;

use core::net::SocketAddr;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use ::turmoil::Sim;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use taipei_engine::disk::{self, Job, JobResult, sha1_each};
use taipei_engine::driver::{Jobs, Options, Recorder, Transport, start};
use taipei_engine::rng::Rng;
use taipei_engine::{Command, Input, Instant, JobId, Output};
use tokio::sync::{mpsc, watch};
use tokio::time::Sleep;

use self::net::{Net, ShapedTransport, WorldClock, lock};
use self::reply::ReplyBody;
use crate::disk::SimDisk;
use crate::events::{STOP_WITHIN, begin_commands, job_cost, start_values, wall_ns};
use crate::lies;
use crate::network::path::Sender;
use crate::oracle::Watch;
use crate::plan::{Action, Materials, PEER_PORT, Plan, WALL_SECONDS, draw};
use crate::run::{BUDGET, Outcome, Plant, RunOptions, catch};
use crate::scenario::World as WorldName;
use crate::trace::{Kind, digest};
use crate::tracker::TrackerActor;
use crate::units::TimeRange;

/// Runs a plan to its end.
pub fn run(materials: &Arc<Materials>, plan: &Arc<Plan>, options: &RunOptions) -> Outcome {
    let mut watch = Watch::new(materials.clone(), plan.clone(), options.keep_trace);
    watch.pair_by_address();
    if options.observe {
        watch.observe();
    }
    if !options.oracles {
        watch.look_away();
    }
    let shared = Arc::new(Shared {
        materials: materials.clone(),
        plan: plan.clone(),
        net: Net::new(plan),
        watch: Mutex::new(watch),
        disks: plan.hosts.iter().map(|host| Mutex::new(materials.disk(host))).collect(),
        lives: Mutex::new(vec![Life::default(); plan.hosts.len()]),
        stop: plan.hosts.iter().map(|_| watch::Sender::new(false)).collect(),
        kill: plan.hosts.iter().map(|_| watch::Sender::new(0)).collect(),
        struck: Mutex::default(),
    });
    let panicked = catch(|| drive(&shared, options)).err();
    let now = shared.net.tick();
    if let Some(panic) = panicked {
        lock(&shared.watch).break_rule("S14", now, None, panic);
    }
    let misanswered = lock(&shared.net.trackers).iter().map(TrackerActor::misanswered).sum();
    let disturbed = lock(&shared.net.senders).iter().map(Sender::disturbed).sum();
    let mut watch = lock(&shared.watch);
    watch.on_effects("script", misanswered);
    watch.on_effects("path", disturbed);
    drop(watch);
    let disks: Vec<_> = shared.disks.iter().map(lock).collect();
    let disks: Vec<&SimDisk> = disks.iter().map(|disk| &**disk).collect();
    let end_state = lock(&shared.watch).end_state(&disks);
    let watch =
        std::mem::replace(&mut *lock(&shared.watch), Watch::new(materials.clone(), plan.clone(), false));
    Outcome::new(materials, plan, WorldName::Turmoil, now, watch, end_state)
}

struct Shared {
    materials: Arc<Materials>,
    plan: Arc<Plan>,
    net: Arc<Net>,
    watch: Mutex<Watch>,
    disks: Vec<Mutex<SimDisk>>,
    lives: Mutex<Vec<Life>>,
    /// By host: whether it is to end as a user would end it.
    stop: Vec<watch::Sender<bool>>,
    /// By host: the incarnation that dies now. A runtime that is dropped drops its tasks in an order that depends on
    /// every other task of this process; so a host drops its own, in its own order, before turmoil ends it.
    kill: Vec<watch::Sender<u32>>,
    /// Calls on disks that have begun to fail, by their fault, with the time at which it is over.
    struck: Mutex<Vec<(usize, u64)>>,
}

impl Shared {
    /// Below a millisecond tokio's timers and turmoil's ticks disagree.
    fn tick(&self) -> u64 {
        self.materials.scenario.scenario.tick.0
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Life {
    incarnation: u32,
    boots: u64,
    /// The fault whose end brings it back.
    back: Option<usize>,
    /// Its engine does nothing before, and how often it would have.
    asleep_until: u64,
    put_off: u64,
    /// How wrong its wall clock is, and how many jobs looked at it meanwhile.
    clock_error_ns: i64,
    misdated: u64,
}

fn drive(shared: &Arc<Shared>, options: &RunOptions) {
    let tick = shared.tick();
    let mut sim = ::turmoil::Builder::new()
        .rng_seed(shared.plan.seed)
        .epoch(SystemTime::UNIX_EPOCH + Duration::from_secs(WALL_SECONDS as u64))
        .tick_duration(Duration::from_nanos(tick))
        .simulation_duration(Duration::from_secs(1 << 30))
        .min_message_latency(Duration::ZERO)
        .max_message_latency(Duration::ZERO)
        .fail_rate(0.0)
        .tcp_capacity(TCP_CAPACITY)
        .build();
    for (number, tracker) in shared.plan.trackers.iter().enumerate() {
        let (shared, address) = (shared.clone(), tracker.address);
        sim.host(address.ip(), move || serve_tracker(shared.clone(), number, address));
    }
    for (number, host) in shared.plan.hosts.iter().enumerate() {
        let shared = shared.clone();
        if host.puppet.is_some() {
            sim.host(host.address, move || puppet::live(shared.clone(), number));
        } else {
            sim.host(host.address, move || live(shared.clone(), number));
        }
    }
    let mut changes: Vec<(u64, Change)> = Vec::new();
    for (number, fault) in shared.plan.faults.iter().enumerate() {
        if let Some(at) = fault.at {
            plan_fault(shared, number, at, &mut changes);
        }
    }
    let mut plant = options.plant.clone();
    let mut deadlines = lock(&shared.watch).deadlines();
    let mut stop_by = None;
    let mut now = 0;
    loop {
        shared.net.set_tick(now);
        while changes.first().is_some_and(|(at, _)| *at <= now) {
            let (_, change) = changes.remove(0);
            apply(&mut sim, shared, change, now);
        }
        plant = plant.filter(|plant| !planted(plant, shared, now));
        if let Err(error) = sim.step() {
            // A host's main task panicked or failed; the first panic is what is reported.
            panic!("a host ended: {error}");
        }
        now += tick;
        let mut watch = lock(&shared.watch);
        for (number, over) in lock(&shared.struck).drain(..) {
            watch.on_struck(number, over);
            changes.push((over, Change::Over(number)));
            changes.sort_by_key(|(at, _)| *at);
            deadlines = watch.deadlines();
        }
        if watch.violation().is_some() {
            break;
        }
        while let Some(number) = watch.take_triggered(now) {
            plan_fault(shared, number, now, &mut changes);
            deadlines = watch.deadlines();
        }
        if watch.trace.count() > options.events_max {
            let message = format!("more than {} events", options.events_max);
            watch.break_rule(BUDGET, now, None, message);
            break;
        }
        match stop_by {
            None if watch.is_done() => {
                stop_by = Some(now + STOP_WITHIN);
                drop(watch);
                shared.stop.iter().for_each(|stop| {
                    stop.send_replace(true);
                });
            }
            None if deadlines.first().is_some_and(|at| *at <= now) => {
                deadlines.retain(|at| *at > now);
                watch.check_deadlines(now);
            }
            Some(_) if (0..shared.plan.hosts.len()).all(|host| watch.has_stopped(host)) => {
                let unfinished = watch.unfinished();
                drop(watch);
                unfinished.into_iter().for_each(|number| over(shared, number, now));
                let disks: Vec<_> = shared.disks.iter().map(lock).collect();
                let disks: Vec<&SimDisk> = disks.iter().map(|disk| &**disk).collect();
                lock(&shared.watch).finish(now, &disks);
                break;
            }
            Some(stop_by) if now >= stop_by => {
                let late = (0..shared.plan.hosts.len()).find(|host| !watch.has_stopped(*host));
                watch.break_rule("L7", now, late, "a shutdown takes too long".to_owned());
                break;
            }
            _ => {}
        }
    }
    shared.net.set_tick(now);
}

enum Change {
    Kill(usize),
    Killed(usize),
    Back(usize),
    Begin(usize),
    Over(usize),
}

/// Books all that a fault comes to, from `at` on.
fn plan_fault(shared: &Shared, number: usize, at: u64, changes: &mut Vec<(u64, Change)>) {
    let fault = &shared.plan.faults[number];
    let (tick, over) = (shared.tick(), at + fault.lasts);
    match fault.action {
        Action::Crash { .. } | Action::PowerCut { .. } => {
            changes.push((at, Change::Kill(number)));
            changes.push((at + tick, Change::Killed(number)));
            changes.push((over.max(at + 2 * tick), Change::Back(number)));
        }
        Action::Leave { .. } | Action::Damage { .. } => changes.push((at, Change::Begin(number))),
        _ if fault.action.waits_for_call() => changes.push((at, Change::Begin(number))),
        _ => {
            changes.push((at, Change::Begin(number)));
            changes.push((over, Change::Over(number)));
        }
    }
    changes.sort_by_key(|(at, _)| *at);
}

fn apply(sim: &mut Sim<'_>, shared: &Arc<Shared>, change: Change, now: u64) {
    match change {
        Change::Kill(number) | Change::Killed(number) | Change::Back(number) => {
            let (host, is_power_cut) = match shared.plan.faults[number].action {
                Action::Crash { host } => (host, false),
                Action::PowerCut { host } => (host, true),
                _ => return,
            };
            match change {
                Change::Kill(_) => kill(sim, shared, host, is_power_cut),
                Change::Killed(_) => killed(sim, shared, number, host, is_power_cut, now),
                _ => back(sim, shared, number, host),
            }
        }
        Change::Begin(number) => begin(shared, number, now),
        Change::Over(number) => over(shared, number, now),
    }
}

/// A process is to end itself, before turmoil ends it.
fn kill(sim: &mut Sim<'_>, shared: &Shared, host: usize, is_power_cut: bool) {
    if is_power_cut {
        // What dies says goodbye here; a machine without power does not.
        let address = shared.plan.hosts[host].address;
        shared.net.set_dark(address, true);
        for other in others(shared, address) {
            sim.partition(address, other);
        }
    }
    shared.kill[host].send_replace(lock(&shared.lives)[host].incarnation);
}

fn killed(sim: &mut Sim<'_>, shared: &Shared, number: usize, host: usize, is_power_cut: bool, now: u64) {
    let was_up = lock(&shared.watch).is_up(host);
    if was_up {
        lock(&shared.lives)[host].back = Some(number);
    }
    let mut effects = u64::from(was_up);
    sim.crash(shared.plan.hosts[host].address);
    let mut disk = lock(&shared.disks[host]);
    effects += if is_power_cut {
        let boots = {
            let life = &mut lock(&shared.lives)[host];
            life.boots += 1;
            life.boots
        };
        let id = shared.plan.hosts[host].id;
        disk.power_cut(&mut Rng::stream(shared.plan.seed, "power-cut", (id << 32) | boots))
    } else {
        disk.crash()
    } as u64;
    let mut watch = lock(&shared.watch);
    watch.on_spoiled(host, &disk.take_spoiled());
    watch.on_killed(now, number, effects);
}

/// Whoever was down already comes back in its own time.
fn back(sim: &mut Sim<'_>, shared: &Shared, number: usize, host: usize) {
    if lock(&shared.lives)[host].back != Some(number) {
        return;
    }
    let address = shared.plan.hosts[host].address;
    shared.net.set_dark(address, false);
    for other in others(shared, address) {
        sim.repair(address, other);
    }
    sim.bounce(address);
}

/// Begins a fault that leaves the process alone, or asks it to end.
fn begin(shared: &Shared, number: usize, now: u64) {
    let fault = &shared.plan.faults[number];
    let mut watch = lock(&shared.watch);
    match fault.action {
        Action::Leave { host } => {
            shared.stop[host].send_replace(true);
            let effects = watch.connection_count(host);
            watch.on_left(now, number, effects);
            return;
        }
        Action::DiskFull { host, space_bytes } => lock(&shared.disks[host]).fill_up(space_bytes),
        Action::Suspend { host } => {
            let life = &mut lock(&shared.lives)[host];
            (life.asleep_until, life.put_off) = (life.asleep_until.max(now + fault.lasts), 0);
        }
        Action::ClockJump { host, by_ns } => {
            let life = &mut lock(&shared.lives)[host];
            (life.clock_error_ns, life.misdated) = (by_ns, 0);
        }
        Action::Silence { host } => {
            shared.net.silence(shared.plan.hosts[host].address, now + fault.lasts);
        }
        Action::TrackerOutage { tracker, how } => lock(&shared.net.trackers)[tracker].go_away(how),
        Action::Cut { ref cut, .. } => shared.net.cut(number, cut.clone(), now + fault.lasts),
        Action::LossBurst { host, share } => lock(&shared.net.senders)[host].worsen(share),
        Action::SlowLink { host, rate } => {
            shared.net.slow_down(host, Some(rate));
        }
        Action::DnsOutage { host, how } => shared.net.stop_resolving(host, how),
        // These are for the event world alone.
        Action::Reset { .. } | Action::NatReboot { .. } | Action::Restart { .. } => return,
        Action::Trouble { host, trouble } => lock(&shared.disks[host]).begin_trouble(number, trouble),
        Action::Damage { host, .. } => {
            let mut disk = lock(&shared.disks[host]);
            disk.set_time(now, wall_ns(now));
            let effects = shared.materials.damage(&shared.plan, number, &mut disk);
            watch.on_spoiled(host, &disk.take_spoiled());
            watch.on_fault_begun(now, number);
            watch.on_fault_over(now, number, effects);
            return;
        }
        Action::Crash { .. } | Action::PowerCut { .. } => return,
    }
    watch.on_fault_begun(now, number);
}

/// Such a fault is over.
fn over(shared: &Shared, number: usize, now: u64) {
    let effects = match shared.plan.faults[number].action {
        Action::DiskFull { host, .. } => lock(&shared.disks[host]).make_room(),
        Action::Suspend { host } => lock(&shared.lives)[host].put_off,
        Action::ClockJump { host, .. } => {
            let life = &mut lock(&shared.lives)[host];
            life.clock_error_ns = 0;
            life.misdated
        }
        Action::Silence { host } => shared.net.silenced(shared.plan.hosts[host].address),
        Action::TrackerOutage { tracker, .. } => lock(&shared.net.trackers)[tracker].come_back(),
        Action::Trouble { host, .. } => lock(&shared.disks[host]).end_trouble(number),
        Action::Cut { .. } => shared.net.heal(number),
        Action::LossBurst { host, .. } => lock(&shared.net.senders)[host].recover(),
        Action::SlowLink { host, .. } => shared.net.slow_down(host, None),
        Action::DnsOutage { host, .. } => shared.net.resolve_again(host),
        Action::Crash { .. }
        | Action::PowerCut { .. }
        | Action::Leave { .. }
        | Action::Restart { .. }
        | Action::Reset { .. }
        | Action::NatReboot { .. }
        | Action::Damage { .. } => return,
    };
    lock(&shared.watch).on_fault_over(now, number, effects);
}

fn others(shared: &Shared, address: core::net::IpAddr) -> Vec<core::net::IpAddr> {
    let hosts = shared.plan.hosts.iter().map(|host| host.address);
    let trackers = shared.plan.trackers.iter().map(|tracker| tracker.address.ip());
    hosts.chain(trackers).filter(|other| *other != address).collect()
}

fn planted(plant: &Plant, shared: &Shared, now: u64) -> bool {
    match plant {
        Plant::Rot { host, at } if now >= *at => {
            Plant::rot(host, &shared.materials, &shared.plan, |number, at| {
                lock(&shared.disks[number]).rot(0, at)
            })
        }
        Plant::Panic { at } if now >= *at => panic!("planted"),
        _ => false,
    }
}

/// One process of a host, from its start to its end.
async fn live(shared: Arc<Shared>, host: usize) -> ::turmoil::Result {
    let clock = WorldClock::new(&shared.net);
    let now = clock.world_now();
    let plan = shared.plan.clone();
    let life = {
        let life = &mut lock(&shared.lives)[host];
        life.incarnation += 1;
        *life
    };
    lock(&shared.watch).on_start(now, host);
    let transport = ShapedTransport::new(&shared.net, &clock, plan.hosts[host].address);
    let world_clock = clock.clone();
    let jobs = InlineJobs {
        shared: shared.clone(),
        clock: clock.clone(),
        host,
        latency: plan.hosts[host].disk.latency,
        rng: Rng::stream(plan.seed, "disk", (plan.hosts[host].id << 32) | u64::from(life.incarnation)),
        lanes: [0; DISK_LANES],
    };
    let recorder = Watcher { shared: shared.clone(), clock: clock.clone(), host, now };
    let options = Options { ports: Some(PEER_PORT..=PEER_PORT), recorder: Some(Box::new(recorder)) };
    let wall_ns = wall_ns(now).saturating_add(life.clock_error_ns);
    let values = start_values(&plan, host, life.incarnation, life.boots, wall_ns);
    let mut stop = shared.stop[host].subscribe();
    let (handle, mut alerts, owner) =
        start(transport, clock, jobs, plan.hosts[host].config.clone(), values, options).await?;
    let control = async {
        for command in begin_commands(&shared.materials, &plan.hosts[host]) {
            if handle.command(command).await.is_err() {
                return;
            }
        }
        if stop.wait_for(|stop| *stop).await.is_ok() {
            // When it fails the session is over, which is what was wanted.
            let _ = handle.command(Command::Shutdown).await;
        }
        while alerts.next().await.is_some() {}
    };
    let mut kill = shared.kill[host].subscribe();
    let session = Sleeper {
        session: Box::pin(async { tokio::join!(biased; owner.run(), control) }),
        shared: shared.clone(),
        host,
        clock: world_clock,
        sleep: None,
    };
    tokio::select! {
        biased;
        _ = kill.wait_for(|dies| *dies == life.incarnation) => {}
        _ = session => {}
    }
    Ok(())
}

/// A session that does nothing while its machine sleeps. Its readers and writers fill their queues to the owner and
/// wait there, as a kernel fills the buffers of its sockets.
struct Sleeper<F> {
    session: Pin<Box<F>>,
    shared: Arc<Shared>,
    host: usize,
    clock: WorldClock,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl<F: Future> Future for Sleeper<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let asleep_until = {
            let life = &mut lock(&this.shared.lives)[this.host];
            let is_asleep = life.asleep_until > this.clock.world_now();
            life.put_off += u64::from(is_asleep);
            is_asleep.then_some(life.asleep_until)
        };
        if let Some(at) = asleep_until {
            let clock = &this.clock;
            let sleep = this.sleep.get_or_insert_with(|| Box::pin(clock.sleep_until_world(at)));
            if sleep.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
        this.sleep = None;
        this.session.as_mut().poll(context)
    }
}

/// Executes jobs where they are asked for; their results come at booked times.
struct InlineJobs {
    shared: Arc<Shared>,
    clock: WorldClock,
    host: usize,
    latency: TimeRange,
    rng: Rng,
    /// When each of the pool's threads is free.
    lanes: [u64; DISK_LANES],
}

impl Jobs for InlineJobs {
    fn submit(&mut self, id: JobId, job: Job, done: &mpsc::Sender<(JobId, JobResult)>) {
        let now = self.clock.world_now();
        let error_ns = {
            let life = &mut lock(&self.shared.lives)[self.host];
            life.misdated += u64::from(life.clock_error_ns != 0);
            life.clock_error_ns
        };
        let (cost, result) = {
            let mut disk = lock(&self.shared.disks[self.host]);
            disk.set_time(now, wall_ns(now).saturating_add(error_ns));
            let result = disk::execute(&job, &mut *disk, &sha1_each);
            let result = lies::tell(&self.shared.plan, self.host, &job, result);
            lock(&self.shared.struck).extend(disk.take_struck());
            let latency = draw(&mut self.rng, self.latency) + disk.slowness(&mut self.rng);
            (job_cost(&job, disk.take_work(), latency), result)
        };
        lock(&self.shared.watch).trace.event(now, self.host as u32 + 1, Kind::Job, [id.0, cost, 0]);
        let lane = self.lanes.iter_mut().min().expect("there are lanes");
        *lane = (*lane).max(now) + cost;
        let (sleep, done) = (self.clock.sleep_until_world(*lane), done.clone());
        tokio::spawn(async move {
            sleep.await;
            // An owner that is gone needs no result.
            let _ = done.send((id, result)).await;
        });
    }
}

/// Shows everything that goes in and out of an engine to the oracles.
struct Watcher {
    shared: Arc<Shared>,
    clock: WorldClock,
    host: usize,
    now: u64,
}

impl Recorder for Watcher {
    fn input(&mut self, now: Instant, input: &Input) {
        self.now = self.clock.world_at(now);
        lock(&self.shared.watch).on_input(self.now, self.host, input, &lock(&self.shared.disks[self.host]));
    }

    fn output(&mut self, output: &Output) {
        lock(&self.shared.watch).on_output(self.now, self.host, output, &lock(&self.shared.disks[self.host]));
    }
}

/// A tracker host: hyper's server over the same shaped streams.
async fn serve_tracker(shared: Arc<Shared>, number: usize, address: SocketAddr) -> ::turmoil::Result {
    let clock = WorldClock::new(&shared.net);
    let transport = ShapedTransport::new(&shared.net, &clock, address.ip());
    let listeners = transport.listen(address.port()..=address.port()).await?;
    let Some((_, mut listener)) = listeners.into_iter().next() else { return Ok(()) };
    if let Some(socket) = transport.open_datagrams(false, address.port()).await {
        let elsewhere = transport.open_datagrams(false, address.port() + 1).await;
        let sockets = (socket, elsewhere);
        tokio::spawn(answer_datagrams(shared.clone(), clock.clone(), transport.clone(), number, sockets));
    }
    loop {
        let Ok(connection) = transport.accept(&mut listener).await else { continue };
        let (shared, clock, from) = (shared.clone(), clock.clone(), connection.remote);
        tokio::spawn(async move {
            let stream = TokioIo::new(tokio::io::join(connection.reader, connection.writer));
            let answer =
                service_fn(|request: Request<Incoming>| answer(&shared, &clock, number, from, request));
            let mut server = hyper::server::conn::http1::Builder::new();
            // A client that goes away is no concern of the tracker's.
            let _ = server.auto_date_header(false).keep_alive(false).serve_connection(stream, answer).await;
        });
    }
}

type Datagrams = <ShapedTransport as Transport>::Datagrams;

/// The same tracker over UDP, and from another port where its script says so.
async fn answer_datagrams(
    shared: Arc<Shared>,
    clock: WorldClock,
    transport: ShapedTransport,
    number: usize,
    (socket, elsewhere): (Datagrams, Option<Datagrams>),
) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let Ok((length, from)) = transport.receive_datagram(&socket, &mut buffer).await else { continue };
        let now = clock.world_now();
        let host = shared.plan.host_at(from.ip()).map_or(0, |host| host as u32 + 1);
        let answer = lock(&shared.net.trackers)[number].answer_datagram(now, from, &buffer[..length]);
        let trace = &mut lock(&shared.watch).trace;
        trace.event(now, host, Kind::Request, [number as u64, length as u64, 1]);
        let Some(answer) = answer else { continue };
        trace.event(now, host, Kind::Answer, [0, answer.payload.len() as u64, 1]);
        let socket = if answer.from_elsewhere { elsewhere.as_ref().unwrap_or(&socket) } else { &socket };
        let (transport, socket, clock) = (transport.clone(), socket.clone(), clock.clone());
        tokio::spawn(async move {
            clock.sleep_until_world(now + answer.after).await;
            transport.send_datagram(&socket, from, &answer.payload);
        });
    }
}

async fn answer(
    shared: &Shared,
    clock: &WorldClock,
    number: usize,
    from: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, core::convert::Infallible> {
    let now = clock.world_now();
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let host = shared.plan.host_at(from.ip()).map_or(0, |host| host as u32 + 1);
    let Some(reply) = lock(&shared.net.trackers)[number].answer(now, from, path) else {
        return std::future::pending().await;
    };
    {
        let trace = &mut lock(&shared.watch).trace;
        trace.event(now, host, Kind::Request, [number as u64, digest(path), 0]);
        trace.event(now, host, Kind::Answer, [u64::from(reply.status), reply.body.len() as u64, 0]);
    }
    if reply.after > 0 {
        clock.sleep_until_world(now + reply.after).await;
    }
    Ok(reply::response(reply))
}

/// Segments and waiting connections per socket; beyond it turmoil panics or stalls.
const TCP_CAPACITY: usize = 4096;
/// Jobs of one host under way at once, as in a pool of threads.
const DISK_LANES: usize = 4;
