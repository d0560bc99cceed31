//! The event world: engines stepped directly from a queue of events, without a runtime.
//!
//! Every host is an [`Engine`], a disk and an access link. What an engine asks for becomes events at booked times; the
//! queue is ordered by time, and what happens at the same nanosecond by a draw from the seed (`order = "fifo"`: by the
//! order of asking), so a run repeats exactly and seeds differ in more than times. Streams keep their order by never
//! having two things arrive at once. Payload is never copied: what
//! one engine serves is a slice of generated content, and that slice is what another's disk recognises.

mod capture;
mod fault;
mod flow;
mod handshake;
mod host;
mod http;
mod packet;
mod puppet;
mod queue;
mod stream;

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use taipei_engine::disk::JobResult;
use taipei_engine::input::{HttpResponse, NetError};
use taipei_engine::output::HttpGet;
use taipei_engine::rng::Rng;
use taipei_engine::{Command, HttpId, Input, JobId, ResolveId};

use self::host::Host;
pub(crate) use self::host::{RESOLVER_PATIENCE, begin_commands, job_cost, start_values, wall_ns};
use self::http::Reply;
use self::queue::{Queue, When};
use self::stream::{Segment, Side, Streams};
use crate::capture::Capture;
use crate::disk::SimDisk;
use crate::network::cuts::Cuts;
use crate::network::nat::Nat;
use crate::network::path::Sender;
use crate::oracle::Watch;
use crate::plan::{Materials, NatPlan, Plan};
use crate::run::{BUDGET, Outcome, Plant, RunOptions, catch};
use crate::scenario::{Order, World as WorldName};
use crate::tracker::TrackerActor;

/// Runs a plan to its end.
pub fn run(materials: &Arc<Materials>, plan: &Arc<Plan>, options: &RunOptions) -> Outcome {
    let mut world = World::new(materials, plan, options);
    if let Err(panic) = catch(|| world.run()) {
        let (now, host) = (world.now, world.stepping);
        world.watch.break_rule("S14", now, host, panic);
    }
    world.watch.on_effects("script", world.trackers.iter().map(TrackerActor::misanswered).sum());
    world.watch.on_effects("path", world.senders.iter().map(Sender::disturbed).sum());
    let disks: Vec<&SimDisk> = world.hosts.iter().map(|host| &host.disk).collect();
    let end_state = world.watch.end_state(&disks);
    let recording = world.recorded.take();
    let capture = world.capture.take().map(|capture| capture.into_file(plan));
    let mut outcome = Outcome::new(materials, plan, WorldName::Events, world.now, world.watch, end_state);
    (outcome.recording, outcome.capture) = (recording, capture);
    outcome
}

struct World {
    materials: Arc<Materials>,
    plan: Arc<Plan>,
    options: RunOptions,
    watch: Watch,
    now: u64,
    sequence: u64,
    /// What decides between things that happen at once; none where the order of asking does.
    order_rng: Option<Rng>,
    queue: Queue<Event>,
    hosts: Vec<Host>,
    streams: Streams,
    trackers: Vec<TrackerActor>,
    latencies: BTreeMap<(IpAddr, IpAddr), u64>,
    /// The paths that begin at each party: hosts, then trackers.
    senders: Vec<Sender>,
    cuts: Cuts,
    nats: Vec<Nat>,
    /// Streams to look at before time goes on.
    todo: VecDeque<Todo>,
    #[cfg(feature = "canaries")]
    canary: crate::canary::Planted,
    /// A recording that is whole.
    recorded: Option<Vec<u8>>,
    capture: Option<Box<Capture>>,
    /// Whose engine is being stepped, for blaming a panic.
    stepping: Option<usize>,
    /// Set once everybody was asked to end.
    stop_by: Option<u64>,
    over: bool,
}

enum Event {
    Start {
        host: usize,
    },
    Fault {
        number: usize,
    },
    FaultOver {
        number: usize,
    },
    /// Who was asked to end is to begin again.
    Again {
        number: usize,
        incarnation: u32,
        effects: u64,
    },
    Plant,
    Deadline,
    Wake {
        host: usize,
        incarnation: u32,
    },
    JobDone {
        host: usize,
        incarnation: u32,
        job: JobId,
        result: Box<JobResult>,
    },
    Dial {
        stream: u32,
        tries: u32,
    },
    Syn {
        stream: u32,
    },
    SynAnswer {
        stream: u32,
        error: Option<NetError>,
    },
    Arrive {
        stream: u32,
        to: Side,
        segment: Segment,
    },
    Deliver {
        stream: u32,
        to: Side,
        segment: Segment,
    },
    Ack {
        stream: u32,
        side: Side,
        bytes: u32,
    },
    AckAgain {
        stream: u32,
        side: Side,
    },
    Resend {
        stream: u32,
        side: Side,
    },
    Reset {
        stream: u32,
        side: Side,
    },
    Uplink {
        host: usize,
    },
    HttpDial {
        host: usize,
        incarnation: u32,
        get: Box<HttpGet>,
        tries: u32,
    },
    Request {
        host: usize,
        incarnation: u32,
        from: SocketAddr,
        get: Box<HttpGet>,
    },
    Reply {
        answer: Box<Reply>,
        tries: u32,
    },
    Answer {
        host: usize,
        incarnation: u32,
        request: HttpId,
        result: Result<HttpResponse, NetError>,
    },
    /// A datagram reaches the access link of whom it is for.
    Packet {
        from: SocketAddr,
        to: SocketAddr,
        payload: Bytes,
    },
    Datagram {
        host: usize,
        incarnation: u32,
        from: SocketAddr,
        payload: Bytes,
    },
    Resolved {
        host: usize,
        incarnation: u32,
        query: ResolveId,
        result: Result<Vec<IpAddr>, NetError>,
    },
}

enum Todo {
    Write(u32, Side),
    Read(u32, Side),
}

impl World {
    fn new(materials: &Arc<Materials>, plan: &Arc<Plan>, options: &RunOptions) -> Self {
        let hosts = plan.hosts.iter().map(|host| Host::new(materials, plan, host));
        let mut world = Self {
            watch: Watch::new(materials.clone(), plan.clone(), options.keep_trace),
            hosts: hosts.collect(),
            trackers: TrackerActor::all(plan),
            options: options.clone(),
            now: 0,
            sequence: 0,
            order_rng: (plan.order == Order::Seeded).then(|| Rng::stream(plan.seed, "order", 0)),
            queue: Queue::new(),
            streams: Streams::default(),
            latencies: BTreeMap::new(),
            senders: plan.senders(),
            cuts: Cuts::default(),
            nats: plan.nats.iter().map(NatPlan::start).collect(),
            todo: VecDeque::new(),
            #[cfg(feature = "canaries")]
            canary: crate::canary::Planted::new(options.canary),
            recorded: None,
            capture: options.capture.then(Box::default),
            stepping: None,
            stop_by: None,
            over: false,
            materials: materials.clone(),
            plan: plan.clone(),
        };
        if options.observe {
            world.watch.observe();
        }
        if !options.oracles {
            world.watch.look_away();
        }
        for host in 0..plan.hosts.len() {
            world.at(0, Event::Start { host });
        }
        for (number, fault) in plan.faults.iter().enumerate() {
            if let Some(at) = fault.at {
                world.at(at, Event::Fault { number });
            }
        }
        if let Some(Plant::Rot { at, .. } | Plant::Panic { at }) = options.plant {
            world.at(at, Event::Plant);
        }
        world.arm_deadlines();
        world
    }

    fn arm_deadlines(&mut self) {
        for at in self.watch.deadlines() {
            self.at(at.max(self.now), Event::Deadline);
        }
    }

    fn at(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        // Faults strike in the order of the plan, before all else.
        let is_fault = matches!(event, Event::Fault { .. } | Event::FaultOver { .. });
        let draw = match &mut self.order_rng {
            Some(rng) if !is_fault => rng.next_u32() | 1,
            _ => u32::from(!is_fault),
        };
        self.queue.push(When { at, since: at, draw, sequence: self.sequence }, event);
    }

    fn run(&mut self) {
        while !self.over && self.watch.violation().is_none() {
            let Some((when, event)) = self.queue.pop() else {
                self.watch.break_rule("L8", self.now, None, "nothing is left to happen".to_owned());
                break;
            };
            self.now = when.at;
            if let Some(host) = self.host_of(&event).and_then(|host| self.hosts.get_mut(host))
                && host.asleep_until > when.at
            {
                host.put_off += 1;
                let at = host.asleep_until;
                if let (Event::Wake { incarnation, .. }, Some(process)) = (&event, &mut host.process)
                    && *incarnation == host.incarnation
                    && process.wake_at == Some(when.at)
                {
                    process.wake_at = Some(at);
                }
                self.queue.push(When { at, ..when }, event);
                continue;
            }
            self.handle(event);
            self.settle();
            while let Some(number) = self.watch.take_triggered(self.now) {
                self.fault(number);
                self.settle();
                self.arm_deadlines();
            }
            if self.sequence > self.options.events_max {
                self.watch.break_rule(
                    BUDGET,
                    self.now,
                    None,
                    format!("more than {} events", self.options.events_max),
                );
            }
            if self.stop_by.is_none() && self.watch.is_done() {
                self.stop_all();
            }
            if self.stop_by.is_some() && (0..self.hosts.len()).all(|host| self.watch.has_stopped(host)) {
                self.over = true;
            }
        }
        for host in 0..self.hosts.len() {
            self.end_recording(host);
        }
        for number in self.watch.unfinished() {
            self.fault_over(number);
        }
        if self.watch.violation().is_none() {
            let disks: Vec<&SimDisk> = self.hosts.iter().map(|host| &host.disk).collect();
            self.watch.finish(self.now, &disks);
        }
    }

    /// Everything that was wanted is there: everybody ends as a user would end it.
    fn stop_all(&mut self) {
        let stop_by = self.now + STOP_WITHIN;
        self.stop_by = Some(stop_by);
        for host in 0..self.hosts.len() {
            self.step(host, Input::Command(Command::Shutdown));
        }
        self.settle();
        self.at(stop_by, Event::Deadline);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Start { host } => self.start(host),
            Event::Fault { number } => self.fault(number),
            Event::FaultOver { number } => self.fault_over(number),
            Event::Again { number, incarnation, effects } => self.again(number, incarnation, effects),
            Event::Plant => self.plant(),
            Event::Deadline => self.deadline(),
            Event::Wake { host, incarnation } => self.wake(host, incarnation),
            Event::JobDone { host, incarnation, job, result } => {
                if self.is_process(host, incarnation) {
                    if let Some(process) = &mut self.hosts[host].process {
                        process.jobs_running -= 1;
                    }
                    self.start_jobs(host);
                    self.step(host, Input::JobDone { job, result: *result });
                }
            }
            Event::HttpDial { host, incarnation, get, tries } => {
                self.dial_http(host, incarnation, get, tries)
            }
            Event::Request { host, incarnation, from, get } => self.request(host, incarnation, from, &get),
            Event::Reply { answer, tries } => self.on_reply(answer, tries),
            Event::Answer { host, incarnation, request, result } => {
                if self.is_process(host, incarnation)
                    && self.hosts[host]
                        .process
                        .as_mut()
                        .is_some_and(|process| process.requests.remove(&request).is_some())
                {
                    self.step(host, Input::HttpDone { request, result });
                }
            }
            Event::Resolved { host, incarnation, query, result } => {
                if self.is_process(host, incarnation)
                    && self.hosts[host]
                        .process
                        .as_mut()
                        .is_some_and(|process| process.resolves.remove(&query).is_some())
                {
                    self.step(host, Input::Resolved { query, result });
                }
            }
            Event::Packet { from, to, payload } => self.on_packet(from, to, payload),
            Event::Datagram { host, incarnation, from, payload } => {
                if self.is_process(host, incarnation) {
                    self.step(host, Input::Datagram { remote: from, payload });
                }
            }
            Event::Dial { stream, tries } => self.dial(stream, tries),
            Event::Syn { stream } => self.on_syn(stream),
            Event::SynAnswer { stream, error } => self.on_syn_answer(stream, error),
            Event::Arrive { stream, to, segment } => self.on_arrive(stream, to, segment),
            Event::Deliver { stream, to, segment } => self.on_deliver(stream, to, segment),
            Event::Ack { stream, side, bytes } => self.on_ack(stream, side, bytes),
            Event::AckAgain { stream, side } => self.on_ack_again(stream, side),
            Event::Resend { stream, side } => self.on_resend(stream, side),
            Event::Reset { stream, side } => self.on_reset(stream, side),
            Event::Uplink { host } => self.on_uplink(host),
        }
    }

    /// The machine on which an event happens; none for what happens between them.
    fn host_of(&self, event: &Event) -> Option<usize> {
        match event {
            Event::Start { .. }
            | Event::Fault { .. }
            | Event::FaultOver { .. }
            | Event::Again { .. }
            | Event::Plant
            | Event::Deadline
            | Event::Packet { .. }
            | Event::HttpDial { .. }
            | Event::Request { .. }
            | Event::Reply { .. } => None,
            Event::Wake { host, .. }
            | Event::JobDone { host, .. }
            | Event::Uplink { host }
            | Event::Answer { host, .. }
            | Event::Datagram { host, .. }
            | Event::Resolved { host, .. } => Some(*host),
            Event::Syn { stream } => self.streams.host(*stream, Side::Acceptor),
            Event::Dial { stream, .. } | Event::SynAnswer { stream, .. } => {
                self.streams.host(*stream, Side::Dialler)
            }
            Event::Arrive { stream, to, .. } | Event::Deliver { stream, to, .. } => {
                self.streams.host(*stream, *to)
            }
            Event::Ack { stream, side, .. }
            | Event::AckAgain { stream, side }
            | Event::Resend { stream, side }
            | Event::Reset { stream, side } => self.streams.host(*stream, *side),
        }
    }

    /// Moves bytes until nothing more can move now.
    fn settle(&mut self) {
        while let Some(todo) = self.todo.pop_front() {
            match todo {
                Todo::Write(stream, side) => self.write(stream, side),
                Todo::Read(stream, side) => self.read(stream, side),
            }
        }
    }

    fn deadline(&mut self) {
        match self.stop_by {
            None => self.watch.check_deadlines(self.now),
            Some(stop_by) if self.now >= stop_by => {
                let late = (0..self.hosts.len()).find(|host| !self.watch.has_stopped(*host));
                self.watch.break_rule("L7", self.now, late, "a shutdown takes too long".to_owned());
            }
            Some(_) => {}
        }
    }

    fn latency(&mut self, a: IpAddr, b: IpAddr) -> u64 {
        if a == b {
            return LOOPBACK_TIME;
        }
        let plan = self.plan.clone();
        *self.latencies.entry((a.min(b), a.max(b))).or_insert_with(|| plan.latency(a, b))
    }
}

const LOOPBACK_TIME: u64 = 50_000;
/// From the command to `Stopped`, with trackers that take their time.
pub(crate) const STOP_WITHIN: u64 = Duration::from_secs(30).as_nanos() as u64;
