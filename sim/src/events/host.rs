//! Hosts: a machine with its disk and its link, and the process on it that runs an engine.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::rc::Rc;

use taipei_engine::disk::{self, Job, JobResult, Work};
use taipei_engine::input::NetError;
use taipei_engine::record::{Recording, Stop};
use taipei_engine::rng::Rng;
use taipei_engine::{
    AddTorrent, Alert, Command, ConnectionId, Engine, HttpId, Input, Instant, JobId, Output, ResolveId,
    StartValues, TorrentId,
};

use super::stream::Side;
use super::{Event, Todo, World};
use crate::disk::SimDisk;
use crate::lies;
use crate::link::LinkClock;
use crate::plan::{HostPlan, Materials, PEER_PORT, Plan, ROOT, WALL_SECONDS, draw};
use crate::puppet::Puppet;
use crate::scenario::Outage;
use crate::trace::{Kind, mix};
use crate::units::SECOND;

pub(super) struct Host {
    pub(super) disk: SimDisk,
    /// Off: nobody answers for it. Otherwise the kernel is there, with or without our process.
    pub(super) powered: bool,
    pub(super) process: Option<Process>,
    /// Which of its processes this is, so that what was meant for an earlier one is dropped.
    pub(super) incarnation: u32,
    pub(super) boots: u64,
    pub(super) uplink: Uplink,
    pub(super) downlink: LinkClock,
    pub(super) disk_rng: Rng,
    pub(super) dns_rng: Rng,
    /// What more than this would wait for the way down is lost, nanoseconds.
    pub(super) queue_down: u64,
    /// Streams that the kernel keeps until the process takes them.
    pub(super) backlog: BTreeSet<u32>,
    /// Its link is slower than it should be, and how much that met.
    pub(super) is_slow: bool,
    pub(super) slowed: u64,
    /// How its resolver fails, and whom that met.
    pub(super) dns_outage: Option<Outage>,
    pub(super) unresolved: u64,
    /// Nothing that it sends arrives before.
    pub(super) silent_until: u64,
    /// Segments that were held back by that.
    pub(super) silenced: u64,
    /// Nothing happens on it before.
    pub(super) asleep_until: u64,
    /// What that put off.
    pub(super) put_off: u64,
    /// How wrong its wall clock is, and how many jobs looked at it meanwhile.
    pub(super) clock_error_ns: i64,
    pub(super) misdated: u64,
}

pub(super) struct Process {
    pub(super) mind: Mind,
    /// It has said that it stopped: nobody listens any more.
    pub(super) stopped: bool,
    pub(super) began: u64,
    pub(super) wake_at: Option<u64>,
    pub(super) spins: u32,
    pub(super) connections: BTreeMap<ConnectionId, (u32, Side)>,
    pub(super) accepted_count: u64,
    pub(super) jobs_running: usize,
    pub(super) jobs_waiting: VecDeque<(JobId, Job)>,
    pub(super) requests: BTreeMap<HttpId, ()>,
    pub(super) resolves: BTreeMap<ResolveId, ()>,
    pub(super) recording: Option<(Recording<Sink>, Sink)>,
}

/// What a process runs.
pub(super) enum Mind {
    Engine(Box<Engine>),
    Puppet(Box<Puppet>),
}

impl Process {
    /// When it wants to be woken, the world's time.
    fn wants_waking(&self) -> Option<u64> {
        match &self.mind {
            Mind::Engine(engine) => engine.poll_timeout().map(|at| self.began.saturating_add(at.0)),
            Mind::Puppet(puppet) => Some(puppet.poll_timeout()),
        }
    }
}

/// Where a recording goes; kept by the world as well.
#[derive(Clone, Default)]
pub(super) struct Sink(Rc<RefCell<Vec<u8>>>);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) struct Uplink {
    pub(super) clock: LinkClock,
    pub(super) queue: u64,
    pub(super) waiting: VecDeque<(u32, Side)>,
    pub(super) armed: bool,
}

impl World {
    pub(super) fn is_process(&self, host: usize, incarnation: u32) -> bool {
        self.hosts[host].process.is_some() && self.hosts[host].incarnation == incarnation
    }

    pub(super) fn start(&mut self, host: usize) {
        let plan = self.plan.clone();
        let this = &mut self.hosts[host];
        this.powered = true;
        this.incarnation += 1;
        let wall_ns = wall_ns(self.now).saturating_add(this.clock_error_ns);
        let start = start_values(&plan, host, this.incarnation, this.boots, wall_ns);
        let wanted =
            self.options.record.as_deref() == Some(plan.hosts[host].name.as_str()) && this.incarnation == 1;
        let recording = wanted.then(Sink::default).and_then(|sink| {
            Some((Recording::new(sink.clone(), &plan.hosts[host].config, &start, u64::MAX).ok()?, sink))
        });
        this.process = Some(Process {
            recording,
            mind: if plan.hosts[host].puppet.is_some() {
                Mind::Puppet(Box::new(Puppet::new(&self.materials, &plan, host, self.now)))
            } else {
                let config = plan.hosts[host].config.clone();
                #[cfg(feature = "canaries")]
                let config = self.canary.with_old_bug(config);
                Mind::Engine(Box::new(Engine::new(config, start)))
            },
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
        if plan.hosts[host].puppet.is_some() {
            return self.arm(host);
        }
        self.watch.on_start(self.now, host);
        self.step(host, Input::Listening { port: PEER_PORT, families: plan.hosts[host].families() });
        for command in begin_commands(&self.materials, &plan.hosts[host]) {
            self.step(host, Input::Command(command));
        }
    }

    pub(super) fn is_listening(&self, host: usize) -> bool {
        self.hosts[host].process.as_ref().is_some_and(|process| !process.stopped)
    }

    pub(super) fn end_recording(&mut self, host: usize) {
        let process = self.hosts[host].process.as_mut();
        if let Some((mut recording, sink)) = process.and_then(|process| process.recording.take())
            && matches!(recording.finish(), Stop::Finished)
        {
            self.recorded = Some(sink.0.take());
        }
    }

    pub(super) fn wake(&mut self, host: usize, incarnation: u32) {
        if !self.is_process(host, incarnation) {
            return;
        }
        let Some(process) = &mut self.hosts[host].process else { return };
        if process.wake_at != Some(self.now) {
            return;
        }
        process.wake_at = None;
        let due = process.wants_waking().is_some_and(|at| at <= self.now);
        #[cfg(feature = "canaries")]
        let due = due || self.canary.wakes_early();
        if due {
            self.step(host, Input::Timeout);
        } else {
            self.arm(host);
        }
    }

    /// Gives an engine an input and does what it asks.
    pub(super) fn step(&mut self, host: usize, input: Input) {
        self.stepping = Some(host);
        #[cfg(feature = "canaries")]
        let input = self.canary.arrives(&self.plan.hosts[host], self.hosts[host].incarnation, input);
        let (now, this) = (self.now, &mut self.hosts[host]);
        let Some(process) = this.process.as_mut().filter(|process| !process.stopped) else { return };
        let Mind::Engine(engine) = &mut process.mind else { return self.step_puppet(host, &input) };
        if engine.has_slept(Instant(now - process.began)) {
            self.watch.on_slept(host);
        }
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
        #[cfg(feature = "canaries")]
        let Some(input) = self.canary.hears(&self.plan.hosts[host], input) else {
            return self.arm(host);
        };
        let local = Instant(now - process.began);
        if let Some((recording, _)) = &mut process.recording {
            recording.on_input(local, &input);
        }
        engine.handle_input(local, input);
        loop {
            let this = &mut self.hosts[host];
            let Some(process) = &mut this.process else { break };
            let Mind::Engine(engine) = &mut process.mind else { break };
            let Some(output) = engine.poll_output() else { break };
            if let Some((recording, _)) = &mut process.recording {
                recording.on_output(&output);
            }
            #[cfg(not(feature = "canaries"))]
            let outputs = [output];
            #[cfg(feature = "canaries")]
            let outputs = self.canary.says(&self.plan, host, now, output);
            for output in outputs {
                self.watch.on_output(now, host, &output, &self.hosts[host].disk);
                self.perform(host, output);
            }
        }
        if let Some(process) = &self.hosts[host].process
            && let Mind::Engine(engine) = &process.mind
        {
            self.watch.on_stepped(now, host, engine);
        }
        self.arm(host);
        self.stepping = None;
    }

    /// Books the engine's next wish to be woken.
    pub(super) fn arm(&mut self, host: usize) {
        let this = &mut self.hosts[host];
        let Some(process) = &mut this.process else { return };
        let Some(at) = process.wants_waking().map(|at| at.max(self.now)) else { return };
        #[cfg(feature = "canaries")]
        let at = self.canary.wakes_at(self.now).unwrap_or(at);
        if process.wake_at.is_none_or(|armed| at < armed) {
            process.wake_at = Some(at);
            let incarnation = this.incarnation;
            self.at(at, Event::Wake { host, incarnation });
        }
    }

    pub(super) fn perform(&mut self, host: usize, output: Output) {
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
                let this = &mut self.hosts[host];
                if let Some(process) = &mut this.process {
                    process.resolves.insert(query, ());
                }
                this.unresolved += u64::from(this.dns_outage.is_some());
                let takes = draw(&mut this.dns_rng, self.plan.net.dns);
                let (takes, result) = match this.dns_outage {
                    None => (takes, self.plan.addresses_of(&name).ok_or(NetError::NotFound)),
                    Some(Outage::Silence) => (RESOLVER_PATIENCE, Err(NetError::TimedOut)),
                    Some(_) => (takes, Err(NetError::NotFound)),
                };
                self.at(self.now + takes, Event::Resolved { host, incarnation, query, result });
            }
            Output::HttpGet(get) => {
                if let Some(process) = &mut self.hosts[host].process {
                    process.requests.insert(get.request, ());
                }
                self.dial_http(host, incarnation, get, 0);
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

    pub(super) fn connection(&self, host: usize, connection: ConnectionId) -> Option<(u32, Side)> {
        self.hosts[host].process.as_ref()?.connections.get(&connection).copied()
    }

    /// Begins waiting jobs while there is a lane for them. A job's effect is there when it begins, its result later.
    pub(super) fn start_jobs(&mut self, host: usize) {
        loop {
            let (now, this) = (self.now, &mut self.hosts[host]);
            let Some(process) = &mut this.process else { return };
            if process.jobs_running == DISK_LANES {
                return;
            }
            let Some((job, work)) = process.jobs_waiting.pop_front() else { return };
            process.jobs_running += 1;
            let (cost, result) =
                this.execute(&work, now, &self.materials, self.plan.hosts[host].disk.latency);
            let result = self.materials.share(&work, result);
            let result = lies::tell(&self.plan, host, &work, result);
            self.on_struck(host);
            self.watch.trace.event(now, host as u32 + 1, Kind::Job, [job.0, cost, 0]);
            let incarnation = self.hosts[host].incarnation;
            self.at(now + cost, Event::JobDone { host, incarnation, job, result: Box::new(result) });
        }
    }
}

impl Host {
    pub(super) fn new(materials: &Materials, plan: &Plan, host: &HostPlan) -> Self {
        Self {
            disk: materials.disk(host),
            powered: true,
            process: None,
            incarnation: 0,
            boots: 0,
            uplink: Uplink {
                clock: LinkClock::new(host.access.up.0),
                queue: host.access.queue.lasts_at(host.access.up),
                waiting: VecDeque::new(),
                armed: false,
            },
            downlink: LinkClock::new(host.access.down.0),
            disk_rng: Rng::stream(plan.seed, "disk", host.id),
            dns_rng: Rng::stream(plan.seed, "dns", host.id),
            queue_down: host.access.queue_down_lasts(),
            backlog: BTreeSet::new(),
            is_slow: false,
            slowed: 0,
            dns_outage: None,
            unresolved: 0,
            silent_until: 0,
            silenced: 0,
            asleep_until: 0,
            put_off: 0,
            clock_error_ns: 0,
            misdated: 0,
        }
    }

    fn execute(
        &mut self,
        job: &Job,
        now: u64,
        materials: &Materials,
        latency: crate::units::TimeRange,
    ) -> (u64, JobResult) {
        self.misdated += u64::from(self.clock_error_ns != 0);
        self.disk.set_time(now, wall_ns(now).saturating_add(self.clock_error_ns));
        let result = disk::execute(job, &mut self.disk, &|messages: &[Vec<&[u8]>], digests: &mut Vec<_>| {
            materials.sha1_known(messages, digests)
        });
        let work = self.disk.take_work();
        let latency = draw(&mut self.disk_rng, latency) + self.disk.slowness(&mut self.disk_rng);
        (job_cost(job, work, latency), result)
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
    let id = plan.hosts[host].id;
    let seed = Rng::stream(plan.seed, "engine", (id << 32) | u64::from(incarnation)).next_u64();
    let mut boot_id = [0; 16];
    boot_id[..8].copy_from_slice(&mix(plan.seed ^ mix(id + 1)).to_be_bytes());
    boot_id[8..].copy_from_slice(&boots.to_be_bytes());
    StartValues { seed, boot_id, wall_seconds: wall_ns.div_euclid(SECOND as i64) }
}

/// What an embedder asks of an engine that has begun.
pub(crate) fn begin_commands(materials: &Materials, host: &HostPlan) -> Vec<Command> {
    (0u32..)
        .zip(&materials.torrents)
        .map(|(number, torrent)| {
            let (id, root) = (TorrentId(number), ROOT.to_owned());
            let add = if host.magnet {
                AddTorrent::magnet(id, torrent.link.clone(), root)
            } else {
                AddTorrent::new(id, torrent.torrent_file.clone(), root)
            };
            Command::AddTorrent(Box::new(add))
        })
        .collect()
}

/// Simulated wall time.
pub(crate) fn wall_ns(now: u64) -> i64 {
    (WALL_SECONDS * SECOND as i64).saturating_add_unsigned(now)
}

/// Jobs of one host under way at once, as in a pool of threads.
const DISK_LANES: usize = 4;
const DISK_BYTES_PER_SECOND: u64 = 400_000_000;
const HASH_BYTES_PER_SECOND: u64 = 2_000_000_000;
const SYNC_TIME: u64 = 5_000_000;
/// When a resolver gives up that gets no answer.
pub(crate) const RESOLVER_PATIENCE: u64 = 10_000_000_000;
/// Time-outs in a row, with nothing else between them.
const SPINS_MAX: u32 = 100_000;
