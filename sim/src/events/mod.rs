//! The event world: engines stepped directly from a queue of events, without a runtime.
//!
//! Every host is an [`Engine`], a disk and an access link. What an engine asks for becomes events at booked times; the
//! queue is ordered by time and then by the order of asking, so a run repeats exactly. Payload is never copied: what
//! one engine serves is a slice of generated content, and that slice is what another's disk recognises.

mod stream;

use core::net::{IpAddr, SocketAddr};
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use taipei_engine::disk::{self, Job, JobResult, Work, sha1_each};
use taipei_engine::input::{HttpResponse, NetError};
use taipei_engine::output::HttpGet;
use taipei_engine::record::Recording;
use taipei_engine::rng::Rng;
use taipei_engine::{
    AddTorrent, Alert, Command, Config, ConnectionId, Engine, HttpId, Input, Instant, JobId, Output,
    ResolveId, StartValues, TorrentId,
};

use self::stream::{Segment, Side, Streams};
use crate::disk::SimDisk;
use crate::lies;
use crate::link::LinkClock;
use crate::oracle::Watch;
use crate::plan::{FaultPlan, HostPlan, Materials, PEER_PORT, Plan, ROOT, Target, WALL_SECONDS, draw};
use crate::run::{BUDGET, Outcome, Plant, RunOptions, catch};
use crate::scenario::{FaultKind, World as WorldName};
use crate::trace::{Kind, digest, mix};
use crate::tracker::TrackerActor;
use crate::units::SECOND;

/// Runs a plan to its end.
pub fn run(materials: &Arc<Materials>, plan: &Arc<Plan>, options: &RunOptions) -> Outcome {
    let mut world = World::new(materials, plan, options);
    if let Err(panic) = catch(|| world.run()) {
        let (now, host) = (world.now, world.stepping);
        world.watch.break_rule("S14", now, host, panic);
    }
    let disks: Vec<&SimDisk> = world.hosts.iter().map(|host| &host.disk).collect();
    let end_state = world.watch.end_state(&disks);
    let recording = world.recorded.take();
    let mut outcome = Outcome::new(materials, plan, WorldName::Events, world.now, world.watch, end_state);
    outcome.recording = recording;
    outcome
}

struct World {
    materials: Arc<Materials>,
    plan: Arc<Plan>,
    options: RunOptions,
    watch: Watch,
    now: u64,
    sequence: u64,
    queue: BinaryHeap<Reverse<Queued>>,
    hosts: Vec<Host>,
    streams: Streams,
    trackers: Vec<TrackerActor>,
    latencies: BTreeMap<(IpAddr, IpAddr), u64>,
    /// Streams to look at before time goes on.
    todo: VecDeque<Todo>,
    /// A recording that is whole.
    recorded: Option<Vec<u8>>,
    /// Whose engine is being stepped, for blaming a panic.
    stepping: Option<usize>,
    /// Set once everybody was asked to end.
    stop_by: Option<u64>,
    over: bool,
}

struct Host {
    disk: SimDisk,
    /// Off: nobody answers for it. Otherwise the kernel is there, with or without our process.
    powered: bool,
    process: Option<Process>,
    /// Which of its processes this is, so that what was meant for an earlier one is dropped.
    incarnation: u32,
    boots: u64,
    uplink: Uplink,
    downlink: LinkClock,
    disk_rng: Rng,
    loss_rng: Rng,
    /// Nothing that it sends arrives before.
    silent_until: u64,
    /// Segments that were held back by that.
    silenced: u64,
    /// Nothing happens on it before.
    asleep_until: u64,
    /// What that put off.
    put_off: u64,
    /// How wrong its wall clock is, and how many jobs looked at it meanwhile.
    clock_error_ns: i64,
    misdated: u64,
}

struct Process {
    engine: Engine,
    /// It has said that it stopped: nobody listens any more.
    stopped: bool,
    began: u64,
    wake_at: Option<u64>,
    spins: u32,
    connections: BTreeMap<ConnectionId, (u32, Side)>,
    accepted_count: u64,
    jobs_running: usize,
    jobs_waiting: VecDeque<(JobId, Job)>,
    requests: BTreeMap<HttpId, ()>,
    resolves: BTreeMap<ResolveId, ()>,
    recording: Option<(Recording<Sink>, Sink)>,
}

/// Where a recording goes; kept by the world as well.
#[derive(Clone, Default)]
struct Sink(Rc<RefCell<Vec<u8>>>);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Uplink {
    clock: LinkClock,
    queue: u64,
    waiting: VecDeque<(u32, Side)>,
    armed: bool,
}

struct Queued {
    at: u64,
    sequence: u64,
    event: Event,
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
    Syn {
        stream: u32,
    },
    SynAnswer {
        stream: u32,
        error: Option<NetError>,
    },
    Accept {
        stream: u32,
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
    Reset {
        stream: u32,
        side: Side,
    },
    Uplink {
        host: usize,
    },
    Request {
        host: usize,
        incarnation: u32,
        get: Box<HttpGet>,
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
        let hosts =
            plan.hosts.iter().enumerate().map(|(number, host)| Host::new(materials, plan, number, host));
        let mut world = Self {
            watch: Watch::new(materials.clone(), plan.clone(), options.keep_trace),
            hosts: hosts.collect(),
            trackers: TrackerActor::all(plan),
            options: options.clone(),
            now: 0,
            sequence: 0,
            queue: BinaryHeap::new(),
            streams: Streams::default(),
            latencies: BTreeMap::new(),
            todo: VecDeque::new(),
            recorded: None,
            stepping: None,
            stop_by: None,
            over: false,
            materials: materials.clone(),
            plan: plan.clone(),
        };
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
        self.queue.push(Reverse(Queued { at, sequence: self.sequence, event }));
    }

    fn run(&mut self) {
        while !self.over && self.watch.violation().is_none() {
            let Some(Reverse(next)) = self.queue.pop() else {
                self.watch.break_rule("L8", self.now, None, "nothing is left to happen".to_owned());
                break;
            };
            self.now = next.at;
            if let Some(host) = self.host_of(&next.event).and_then(|host| self.hosts.get_mut(host))
                && host.asleep_until > next.at
            {
                host.put_off += 1;
                let at = host.asleep_until;
                if let (Event::Wake { incarnation, .. }, Some(process)) = (&next.event, &mut host.process)
                    && *incarnation == host.incarnation
                    && process.wake_at == Some(next.at)
                {
                    process.wake_at = Some(at);
                }
                self.at(at, next.event);
                continue;
            }
            self.handle(next.event);
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
            Event::Request { host, incarnation, get } => self.request(host, incarnation, &get),
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
            Event::Syn { stream } => self.on_syn(stream),
            Event::SynAnswer { stream, error } => self.on_syn_answer(stream, error),
            Event::Accept { stream } => self.on_accept(stream),
            Event::Arrive { stream, to, segment } => self.on_arrive(stream, to, segment),
            Event::Deliver { stream, to, segment } => self.on_deliver(stream, to, segment),
            Event::Ack { stream, side, bytes } => self.on_ack(stream, side, bytes),
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
            | Event::Plant
            | Event::Deadline
            | Event::Packet { .. }
            | Event::Request { .. } => None,
            Event::Wake { host, .. }
            | Event::JobDone { host, .. }
            | Event::Uplink { host }
            | Event::Answer { host, .. }
            | Event::Datagram { host, .. }
            | Event::Resolved { host, .. } => Some(*host),
            Event::Syn { stream } | Event::Accept { stream } => self.streams.host(*stream, Side::Acceptor),
            Event::SynAnswer { stream, .. } => self.streams.host(*stream, Side::Dialler),
            Event::Arrive { stream, to, .. } | Event::Deliver { stream, to, .. } => {
                self.streams.host(*stream, *to)
            }
            Event::Ack { stream, side, .. } | Event::Reset { stream, side } => {
                self.streams.host(*stream, *side)
            }
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

    fn is_process(&self, host: usize, incarnation: u32) -> bool {
        self.hosts[host].process.is_some() && self.hosts[host].incarnation == incarnation
    }

    fn start(&mut self, host: usize) {
        let plan = self.plan.clone();
        let this = &mut self.hosts[host];
        this.powered = true;
        this.incarnation += 1;
        let wall_ns = wall_ns(self.now).saturating_add(this.clock_error_ns);
        let start = start_values(&plan, host, this.incarnation, this.boots, wall_ns);
        let wanted =
            self.options.record.as_deref() == Some(plan.hosts[host].name.as_str()) && this.incarnation == 1;
        let recording = wanted
            .then(Sink::default)
            .and_then(|sink| Some((Recording::new(sink.clone(), &Config::default(), &start).ok()?, sink)));
        this.process = Some(Process {
            recording,
            engine: Engine::new(Config::default(), start),
            stopped: false,
            began: self.now,
            wake_at: None,
            spins: 0,
            connections: BTreeMap::new(),
            accepted_count: 0,
            jobs_running: 0,
            jobs_waiting: VecDeque::new(),
            requests: BTreeMap::new(),
            resolves: BTreeMap::new(),
        });
        self.watch.on_start(self.now, host);
        self.step(host, Input::Listening { port: PEER_PORT, families: (true, false) });
        for command in begin_commands(&self.materials) {
            self.step(host, Input::Command(command));
        }
    }

    fn fault(&mut self, number: usize) {
        let fault = self.plan.faults[number];
        match (fault.kind, fault.target) {
            (FaultKind::Crash | FaultKind::PowerCut, Target::Host(host)) => return self.kill(number, host),
            (FaultKind::Leave, Target::Host(host)) => {
                let effects = self.watch.connection_count(host);
                self.step(host, Input::Command(Command::Shutdown));
                self.watch.on_left(self.now, number, effects);
                return;
            }
            (FaultKind::DiskFull, Target::Host(host)) => self.hosts[host].disk.fill_up(fault.space_bytes),
            (FaultKind::Silence, Target::Host(host)) => {
                let host = &mut self.hosts[host];
                (host.silent_until, host.silenced) = (self.now + fault.lasts, 0);
            }
            (FaultKind::Suspend, Target::Host(host)) => {
                let host = &mut self.hosts[host];
                (host.asleep_until, host.put_off) = (self.now + fault.lasts, 0);
            }
            (FaultKind::ClockJump, Target::Host(host)) => {
                let host = &mut self.hosts[host];
                (host.clock_error_ns, host.misdated) = (fault.jump_ns, 0);
            }
            (_, Target::Tracker(tracker)) => {
                if let Some(how) = fault.how {
                    self.trackers[tracker].go_away(how);
                }
            }
            (FaultKind::TrackerOutage, Target::Host(_)) => {}
        }
        self.watch.on_fault_begun(self.now, number);
        self.at(self.now + fault.lasts, Event::FaultOver { number });
    }

    fn fault_over(&mut self, number: usize) {
        let FaultPlan { kind, target, .. } = self.plan.faults[number];
        let effects = match (kind, target) {
            (_, Target::Tracker(tracker)) => self.trackers[tracker].come_back(),
            (FaultKind::DiskFull, Target::Host(host)) => self.hosts[host].disk.make_room(),
            (FaultKind::Suspend, Target::Host(host)) => self.hosts[host].put_off,
            (FaultKind::ClockJump, Target::Host(host)) => {
                self.hosts[host].clock_error_ns = 0;
                self.hosts[host].misdated
            }
            (_, Target::Host(host)) => self.hosts[host].silenced,
        };
        self.watch.on_fault_over(self.now, number, effects);
    }

    /// A process or its machine dies.
    fn kill(&mut self, number: usize, host: usize) {
        let fault = self.plan.faults[number];
        self.end_recording(host);
        let Some(process) = self.hosts[host].process.take() else {
            // Down already, and to come back in its own time.
            let effects = self.break_disk(number, host);
            self.watch.on_killed(self.now, number, effects);
            return;
        };
        let connections: Vec<(u32, Side)> = process.connections.into_values().collect();
        let mut effects = 1 + connections.len() as u64;
        effects += self.break_disk(number, host);
        for (stream, side) in connections {
            match fault.kind {
                FaultKind::PowerCut => self.streams.vanish(stream, side),
                _ => self.end_by_system(stream, side),
            }
        }
        self.watch.on_killed(self.now, number, effects);
        self.at(self.now + fault.lasts, Event::Start { host });
    }

    /// What a fault does to a machine that has or has not a process. Gives how much that was.
    fn break_disk(&mut self, number: usize, host: usize) -> u64 {
        let kind = self.plan.faults[number].kind;
        let host = &mut self.hosts[host];
        (if kind == FaultKind::PowerCut {
            host.powered = false;
            host.boots += 1;
            host.uplink.waiting.clear();
            host.disk.power_cut(&mut Rng::stream(self.plan.seed, "power-cut", number as u64))
        } else {
            host.disk.crash()
        }) as u64
    }

    fn is_listening(&self, host: usize) -> bool {
        self.hosts[host].process.as_ref().is_some_and(|process| !process.stopped)
    }

    fn end_recording(&mut self, host: usize) {
        let process = self.hosts[host].process.as_mut();
        if let Some((mut recording, sink)) = process.and_then(|process| process.recording.take())
            && recording.finish().is_ok()
        {
            self.recorded = Some(sink.0.take());
        }
    }

    fn plant(&mut self) {
        match self.options.plant.clone() {
            Some(Plant::Rot { host, .. }) => {
                let hosts = &mut self.hosts;
                Plant::rot(&host, &self.materials, &self.plan, |number, at| hosts[number].disk.rot(0, at));
            }
            Some(Plant::Panic { .. }) => panic!("planted"),
            None => {}
        }
    }

    fn wake(&mut self, host: usize, incarnation: u32) {
        if !self.is_process(host, incarnation) {
            return;
        }
        let Some(process) = &mut self.hosts[host].process else { return };
        if process.wake_at != Some(self.now) {
            return;
        }
        process.wake_at = None;
        let due = process.engine.poll_timeout().is_some_and(|timeout| process.began + timeout.0 <= self.now);
        if due {
            self.step(host, Input::Timeout);
        } else {
            self.arm(host);
        }
    }

    /// Gives an engine an input and does what it asks.
    fn step(&mut self, host: usize, input: Input) {
        self.stepping = Some(host);
        let (now, this) = (self.now, &mut self.hosts[host]);
        let Some(process) = this.process.as_mut().filter(|process| !process.stopped) else { return };
        self.watch.on_input(now, host, &input, &this.disk);
        process.spins = if matches!(input, Input::Timeout) { process.spins + 1 } else { 0 };
        if process.spins > SPINS_MAX {
            self.watch.break_rule(
                "L8",
                now,
                Some(host),
                "time-outs without end and without progress".to_owned(),
            );
            return;
        }
        let local = Instant(now - process.began);
        if let Some((recording, _)) = &mut process.recording {
            recording.on_input(local, &input);
        }
        process.engine.handle_input(local, input);
        loop {
            let this = &mut self.hosts[host];
            let Some(process) = &mut this.process else { break };
            let Some(output) = process.engine.poll_output() else { break };
            if let Some((recording, _)) = &mut process.recording {
                recording.on_output(&output);
            }
            self.watch.on_output(now, host, &output, &this.disk);
            self.perform(host, output);
        }
        self.arm(host);
        self.stepping = None;
    }

    /// Books the engine's next wish to be woken.
    fn arm(&mut self, host: usize) {
        let this = &mut self.hosts[host];
        let Some(process) = &mut this.process else { return };
        let Some(timeout) = process.engine.poll_timeout() else { return };
        let at = process.began.saturating_add(timeout.0).max(self.now);
        if process.wake_at.is_none_or(|armed| at < armed) {
            process.wake_at = Some(at);
            let incarnation = this.incarnation;
            self.at(at, Event::Wake { host, incarnation });
        }
    }

    fn perform(&mut self, host: usize, output: Output) {
        let incarnation = self.hosts[host].incarnation;
        match output {
            Output::Connect { connection, remote } => self.connect(host, connection, remote),
            Output::Send { connection, messages } => {
                if let Some((stream, side)) = self.connection(host, connection)
                    && let Some(end) = self.streams.end(stream, side)
                {
                    end.encode(&messages);
                    self.todo.push_back(Todo::Write(stream, side));
                }
            }
            Output::Grant { connection, read_bytes, write_bytes } => {
                if let Some((stream, side)) = self.connection(host, connection)
                    && let Some(end) = self.streams.end(stream, side)
                {
                    end.grant(read_bytes, write_bytes);
                    if write_bytes > 0 {
                        self.todo.push_back(Todo::Write(stream, side));
                    }
                    if read_bytes > 0 {
                        self.todo.push_back(Todo::Read(stream, side));
                    }
                }
            }
            Output::Revoke { connection, read_bytes, write_bytes } => {
                if let Some((stream, side)) = self.connection(host, connection)
                    && let Some(end) = self.streams.end(stream, side)
                {
                    end.revoke(read_bytes, write_bytes);
                }
            }
            Output::Close { connection } => {
                let process = self.hosts[host].process.as_mut();
                if let Some((stream, side)) =
                    process.and_then(|process| process.connections.remove(&connection))
                {
                    self.end_by_system(stream, side);
                }
            }
            Output::Job { job, work } => {
                if let Some(process) = &mut self.hosts[host].process {
                    process.jobs_waiting.push_back((job, work));
                }
                self.start_jobs(host);
            }
            Output::Resolve { query, host: name } => {
                let found = self.plan.trackers.iter().find(|tracker| tracker.dns_name == name);
                let result = found.map_or(Err(NetError::NotFound), |tracker| Ok(vec![tracker.address.ip()]));
                if let Some(process) = &mut self.hosts[host].process {
                    process.resolves.insert(query, ());
                }
                self.at(self.now + DNS_TIME, Event::Resolved { host, incarnation, query, result });
            }
            Output::HttpGet(get) => {
                if let Some(process) = &mut self.hosts[host].process {
                    process.requests.insert(get.request, ());
                }
                // SYN, SYN-ACK, and the request with the third packet.
                let latency = self.latency(self.plan.hosts[host].address, get.target.ip());
                self.at(self.now + 3 * latency, Event::Request { host, incarnation, get });
            }
            Output::HttpCancel { request } => {
                if let Some(process) = &mut self.hosts[host].process {
                    process.requests.remove(&request);
                }
            }
            Output::Alert(Alert::Stopped) => {
                if let Some(process) = &mut self.hosts[host].process {
                    process.stopped = true;
                }
            }
            Output::SendDatagram { remote, payload } => self.send_datagram(host, remote, payload),
            Output::Alert(_) => {}
        }
    }

    /// A datagram leaves, unless the queue of the link is full or it is lost.
    fn send_datagram(&mut self, host: usize, to: SocketAddr, payload: Bytes) {
        let (now, from) = (self.now, self.plan.hosts[host].address);
        let this = &mut self.hosts[host];
        let lost = self.plan.loss.is_some_and(|(part, of)| this.loss_rng.below(of) < part);
        if lost || this.uplink.clock.backlog(now) > this.uplink.queue {
            return;
        }
        let departure = this.uplink.clock.book(now, payload.len() as u64);
        let at = departure + self.latency(from, to.ip());
        self.at(at, Event::Packet { from: SocketAddr::new(from, PEER_PORT), to, payload });
    }

    fn on_packet(&mut self, from: SocketAddr, to: SocketAddr, payload: Bytes) {
        if let Some(number) = self.plan.trackers.iter().position(|tracker| tracker.address == to) {
            let host = self.plan.host_at(from.ip()).map_or(0, |host| host as u32 + 1);
            let asked = [number as u64, payload.len() as u64, 1];
            self.watch.trace.event(self.now, host, Kind::Request, asked);
            let Some((after, answer)) = self.trackers[number].answer_datagram(self.now, from, &payload)
            else {
                return;
            };
            self.watch.trace.event(self.now, host, Kind::Answer, [0, answer.len() as u64, 1]);
            let at = self.now + after + self.latency(to.ip(), from.ip());
            self.at(at, Event::Packet { from: to, to: from, payload: answer });
        } else if let Some(host) = self.plan.host_at(to.ip()).filter(|_| to.port() == PEER_PORT) {
            let (now, this) = (self.now, &mut self.hosts[host]);
            if this.powered && this.process.is_some() {
                let (at, incarnation) = (this.downlink.book(now, payload.len() as u64), this.incarnation);
                self.at(at, Event::Datagram { host, incarnation, from, payload });
            }
        }
    }

    fn connection(&self, host: usize, connection: ConnectionId) -> Option<(u32, Side)> {
        self.hosts[host].process.as_ref()?.connections.get(&connection).copied()
    }

    fn request(&mut self, host: usize, incarnation: u32, get: &HttpGet) {
        let (from, request) = (self.plan.hosts[host].address, get.request);
        let latency = self.latency(from, get.target.ip());
        let number = self.plan.trackers.iter().position(|tracker| tracker.address == get.target);
        let Some(number) = number.filter(|number| !self.trackers[*number].refuses()) else {
            let result = Err(NetError::Refused);
            self.at(self.now + latency, Event::Answer { host, incarnation, request, result });
            return;
        };
        self.watch.trace.event(
            self.now,
            host as u32 + 1,
            Kind::Request,
            [number as u64, digest(&get.path), 0],
        );
        let from = SocketAddr::new(from, HTTP_PORT);
        let Some(reply) = self.trackers[number].answer(self.now, from, &get.path) else { return };
        self.watch.trace.event(
            self.now,
            host as u32 + 1,
            Kind::Answer,
            [u64::from(reply.status), reply.body.len() as u64, 0],
        );
        let result = if reply.body.len() > get.body_bytes_max as usize {
            Err(NetError::TooLarge)
        } else {
            Ok(HttpResponse { status: reply.status, location: None, body: reply.body, gzip: false })
        };
        self.at(self.now + reply.after + latency, Event::Answer { host, incarnation, request, result });
    }

    /// Begins waiting jobs while there is a lane for them. A job's effect is there when it begins, its result later.
    fn start_jobs(&mut self, host: usize) {
        loop {
            let (now, this) = (self.now, &mut self.hosts[host]);
            let Some(process) = &mut this.process else { return };
            if process.jobs_running == DISK_LANES {
                return;
            }
            let Some((job, work)) = process.jobs_waiting.pop_front() else { return };
            process.jobs_running += 1;
            let (cost, result) = this.execute(&work, now, self.plan.hosts[host].disk.latency);
            let result = lies::tell(&self.plan, host, &work, result);
            self.watch.trace.event(now, host as u32 + 1, Kind::Job, [job.0, cost, 0]);
            let incarnation = self.hosts[host].incarnation;
            self.at(now + cost, Event::JobDone { host, incarnation, job, result: Box::new(result) });
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

impl Host {
    fn new(materials: &Materials, plan: &Plan, number: usize, host: &HostPlan) -> Self {
        Self {
            disk: materials.disk(host),
            powered: true,
            process: None,
            incarnation: 0,
            boots: 0,
            uplink: Uplink {
                clock: LinkClock::new(host.access.up.0),
                queue: host.access.queue.0,
                waiting: VecDeque::new(),
                armed: false,
            },
            downlink: LinkClock::new(host.access.down.0),
            disk_rng: Rng::stream(plan.seed, "disk", number as u64),
            loss_rng: Rng::stream(plan.seed, "loss", number as u64),
            silent_until: 0,
            silenced: 0,
            asleep_until: 0,
            put_off: 0,
            clock_error_ns: 0,
            misdated: 0,
        }
    }

    fn execute(&mut self, job: &Job, now: u64, latency: crate::units::TimeRange) -> (u64, JobResult) {
        self.misdated += u64::from(self.clock_error_ns != 0);
        self.disk.set_wall_ns(wall_ns(now).saturating_add(self.clock_error_ns));
        let result = disk::execute(job, &mut self.disk, sha1_each);
        let work = self.disk.take_work();
        (job_cost(job, work, draw(&mut self.disk_rng, latency)), result)
    }
}

/// What a job takes: its latency, its bytes, its syncs, its hashing.
pub(crate) fn job_cost(job: &Job, work: crate::disk::Work, latency: u64) -> u64 {
    let hashed: u64 = match &job.work {
        Work::Check { pieces } => {
            pieces.iter().map(|piece| u64::from(job.place.layout.piece_bytes(*piece))).sum()
        }
        Work::Hash { pieces } => {
            pieces.iter().map(|piece| u64::from(job.place.layout.piece_bytes(piece.piece))).sum()
        }
        _ => 0,
    };
    latency
        + (work.read_bytes + work.written_bytes) * SECOND / DISK_BYTES_PER_SECOND
        + hashed * SECOND / HASH_BYTES_PER_SECOND
        + work.syncs * SYNC_TIME
}

/// What an engine is told when it begins.
pub(crate) fn start_values(
    plan: &Plan,
    host: usize,
    incarnation: u32,
    boots: u64,
    wall_ns: i64,
) -> StartValues {
    let seed = Rng::stream(plan.seed, "engine", ((host as u64) << 32) | u64::from(incarnation)).next_u64();
    let mut boot_id = [0; 16];
    boot_id[..8].copy_from_slice(&mix(plan.seed ^ mix(host as u64 + 1)).to_be_bytes());
    boot_id[8..].copy_from_slice(&boots.to_be_bytes());
    StartValues { seed, boot_id, wall_seconds: wall_ns.div_euclid(SECOND as i64) }
}

/// What an embedder asks of an engine that has begun.
pub(crate) fn begin_commands(materials: &Materials) -> Vec<Command> {
    (0u32..)
        .zip(&materials.torrents)
        .map(|(number, torrent)| {
            let file = torrent.torrent_file.clone();
            Command::AddTorrent(Box::new(AddTorrent::new(TorrentId(number), file, ROOT.to_owned())))
        })
        .collect()
}

/// Simulated wall time.
pub(crate) fn wall_ns(now: u64) -> i64 {
    (WALL_SECONDS * SECOND as i64).saturating_add_unsigned(now)
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.sequence) == (other.at, other.sequence)
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

/// Jobs of one host under way at once, as in a pool of threads.
const DISK_LANES: usize = 4;
const DISK_BYTES_PER_SECOND: u64 = 400_000_000;
const HASH_BYTES_PER_SECOND: u64 = 2_000_000_000;
const SYNC_TIME: u64 = 5_000_000;
/// Where HTTP requests come from, as the other side sees it.
const HTTP_PORT: u16 = 32_000;
const DNS_TIME: u64 = 10_000_000;
const LOOPBACK_TIME: u64 = 50_000;
/// From the command to `Stopped`, with trackers that take their time.
pub(crate) const STOP_WITHIN: u64 = Duration::from_secs(30).as_nanos() as u64;
/// Time-outs in a row, with nothing else between them.
const SPINS_MAX: u32 = 100_000;
