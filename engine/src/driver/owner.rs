//! The owner: the one task that holds the engine, feeds it and does what it asks.

use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, trace};

use super::alerts::AlertQueue;
use super::connection::{self, Channel, Event};
use super::datagram::Datagrams;
use super::doors::{Clock, Connection, Jobs, Transport};
use super::http;
use super::read_buffers::Kept;
use super::recorder::Recorder;
use super::task::Task;
use crate::Engine;
use crate::alert::Alert;
use crate::command::Command;
use crate::disk::JobResult;
use crate::ids::{ConnectionId, HttpId, JobId, ResolveId};
use crate::input::{CloseReason, Input, NetError};
use crate::limits::JOBS_MAX;
use crate::output::Output;
use crate::time::Instant;
use crate::wire::Message;

/// Holds the engine and everything that is under way for it. Spawn [`Self::run`].
pub struct Owner<T: Transport, C: Clock, J: Jobs> {
    world: World<T, C>,
    jobs: J,
    engine: Engine,
    listeners: Vec<(SocketAddr, T::Listener)>,
    datagrams: Datagrams<T>,
    commands: mpsc::Receiver<Command>,
    incoming: mpsc::Receiver<Event<T::Reader, T::Writer>>,
    jobs_done: JobChannel,
    alerts: AlertQueue,
    recorder: Option<Box<dyn Recorder>>,
    peers: BTreeMap<ConnectionId, Peer>,
    read_buffers: Kept,
    requests: BTreeMap<HttpId, Task>,
    resolves: BTreeMap<ResolveId, Task>,
    /// Peers with something to flush, in the order in which they got it.
    touched: Vec<ConnectionId>,
    accepted_count: u64,
    stopped: bool,
}

/// What tasks need of the world.
struct World<T: Transport, C: Clock> {
    transport: T,
    clock: C,
    events: mpsc::Sender<Event<T::Reader, T::Writer>>,
}

impl<T: Transport, C: Clock> Clone for World<T, C> {
    fn clone(&self) -> Self {
        Self { transport: self.transport.clone(), clock: self.clock.clone(), events: self.events.clone() }
    }
}

/// What ended a wait.
enum Woken {
    /// None: nobody is left to command.
    Command(Option<Command>),
    Job(JobId, JobResult),
    Other,
}

/// Both ends of the way back for jobs.
struct JobChannel {
    sender: mpsc::Sender<(JobId, JobResult)>,
    receiver: mpsc::Receiver<(JobId, JobResult)>,
}

/// A connection or a dial, as the owner sees it.
struct Peer {
    channel: Channel,
    /// Collected during a burst, handed over at its end, so that a task wakes once.
    messages: Vec<Message>,
    read_bytes: u64,
    write_bytes: u64,
    touched: bool,
    /// The dial, or the reader and the writer. Dropped with the peer, which closes the connection.
    tasks: Vec<Task>,
}

impl<T: Transport, C: Clock, J: Jobs> Owner<T, C, J> {
    #[allow(clippy::too_many_arguments, reason = "only `start` calls it")]
    pub(super) fn new(
        transport: T,
        clock: C,
        jobs: J,
        engine: Engine,
        listeners: Vec<(SocketAddr, T::Listener)>,
        datagrams: Datagrams<T>,
        commands: mpsc::Receiver<Command>,
        alerts: mpsc::Sender<Alert>,
        recorder: Option<Box<dyn Recorder>>,
    ) -> Self {
        let (events, incoming) = mpsc::channel(EVENTS_WAITING_MAX);
        let (sender, receiver) = mpsc::channel(JOBS_MAX);
        Self {
            world: World { transport, clock, events },
            jobs,
            engine,
            listeners,
            datagrams,
            commands,
            incoming,
            jobs_done: JobChannel { sender, receiver },
            alerts: AlertQueue::new(alerts),
            recorder,
            peers: BTreeMap::new(),
            read_buffers: Kept::default(),
            requests: BTreeMap::new(),
            resolves: BTreeMap::new(),
            touched: Vec::new(),
            accepted_count: 0,
            stopped: false,
        }
    }

    /// Runs the session until it is shut down. Every alert was taken, or nobody listens, when it returns.
    pub async fn run(mut self) {
        let sockets: Vec<_> = self.datagrams.sockets().cloned().collect();
        let mut acceptors = self.listen();
        acceptors.extend(
            sockets.into_iter().map(|socket| Task::spawn(receive_datagrams(self.world.clone(), socket))),
        );
        let groups = self.datagrams.groups();
        acceptors.extend(groups.map(|group| Task::spawn(hear_group(self.world.clone(), group))));
        let mut commands_open = true;
        let mut burst = Vec::with_capacity(BURST_MAX);
        loop {
            self.handle_timeout();
            self.flush();
            if self.stopped {
                break;
            }
            match self.wait(commands_open, &mut burst).await {
                Woken::Command(Some(command)) => self.handle(Input::Command(command)),
                Woken::Command(None) => {
                    commands_open = false;
                    self.handle(Input::Command(Command::Shutdown));
                }
                Woken::Job(job, result) => self.handle(Input::JobDone { job, result }),
                Woken::Other => {}
            }
            for _ in 0..BURST_MAX {
                let Ok((job, result)) = self.jobs_done.receiver.try_recv() else { break };
                self.handle(Input::JobDone { job, result });
            }
            for event in burst.drain(..) {
                self.handle_event(event);
            }
            // While there always is something to do, nothing is waited for.
            self.alerts.give();
        }
        // Who commands is told now. It may wait for room here, and take no alerts until it has it.
        self.commands.close();
        drop(acceptors);
        self.peers.clear();
        if let Some(recorder) = &mut self.recorder {
            recorder.finished();
        }
        while self.alerts.is_waiting() {
            self.alerts.drain_one().await;
        }
    }

    /// Waits for the first of: a command, a job, other events (which go to `burst`), room for an alert, the time that the
    /// engine named. Always asks in this order, so a run repeats.
    async fn wait(&mut self, commands_open: bool, burst: &mut Vec<Event<T::Reader, T::Writer>>) -> Woken {
        let mut asleep = pin!(sleep(&self.world.clock, self.engine.poll_timeout()));
        let mut alerts = pin!(self.alerts.drain_one());
        let (commands, jobs, incoming) =
            (&mut self.commands, &mut self.jobs_done.receiver, &mut self.incoming);
        poll_fn(|cx| {
            if commands_open && let Poll::Ready(command) = commands.poll_recv(cx) {
                return Poll::Ready(Woken::Command(command));
            }
            if let Poll::Ready(Some((job, result))) = jobs.poll_recv(cx) {
                return Poll::Ready(Woken::Job(job, result));
            }
            if incoming.poll_recv_many(cx, burst, BURST_MAX).is_ready()
                || alerts.as_mut().poll(cx).is_ready()
                || asleep.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(Woken::Other);
            }
            Poll::Pending
        })
        .await
    }

    /// Says that we listen, and begins to accept.
    fn listen(&mut self) -> Vec<Task> {
        let Some(port) = self.listeners.first().map(|(address, _)| address.port()) else { return Vec::new() };
        let any = |is: fn(&SocketAddr) -> bool| self.listeners.iter().any(|(address, _)| is(address));
        let families = (any(SocketAddr::is_ipv4), any(SocketAddr::is_ipv6));
        self.handle(Input::Listening { port, families });
        let listeners = std::mem::take(&mut self.listeners);
        listeners.into_iter().map(|(_, listener)| Task::spawn(accept(self.world.clone(), listener))).collect()
    }

    fn handle_timeout(&mut self) {
        let Some(deadline) = self.engine.poll_timeout() else { return };
        let now = self.world.clock.now();
        if deadline <= now {
            self.handle_at(now, Input::Timeout);
        }
    }

    /// Lets through what still has somebody waiting for it.
    fn handle_event(&mut self, event: Event<T::Reader, T::Writer>) {
        match event {
            Event::Accepted(stream, _handled) => {
                let connection = ConnectionId::accepted(self.accepted_count);
                self.accepted_count += 1;
                let remote = stream.remote;
                let mut peer = Peer::new();
                peer.open(connection, stream, &self.world.events, &self.read_buffers);
                self.peers.insert(connection, peer);
                self.handle(Input::Accepted { connection, remote });
            }
            Event::Connected(connection, stream) => {
                let Some(peer) = self.peers.get_mut(&connection) else { return };
                let local = stream.local;
                peer.open(connection, stream, &self.world.events, &self.read_buffers);
                self.handle(Input::Connected { connection, local });
            }
            Event::Input(input) => {
                let wanted = match &input {
                    Input::Received { connection, .. } | Input::Sent { connection, .. } => {
                        self.peers.contains_key(connection)
                    }
                    Input::Closed { connection, .. } => self.peers.remove(connection).is_some(),
                    Input::HttpDone { request, .. } => self.requests.remove(request).is_some(),
                    Input::Resolved { query, .. } => self.resolves.remove(query).is_some(),
                    _ => true,
                };
                if wanted {
                    self.handle(input);
                }
            }
        }
    }

    fn handle(&mut self, input: Input) {
        self.handle_at(self.world.clock.now(), input);
    }

    fn handle_at(&mut self, now: Instant, input: Input) {
        if self.stopped {
            return;
        }
        match &input {
            // A torrent file has passkeys in it, and so may the rest.
            Input::Command(_) => trace!(?now, "command"),
            input => trace!(?now, ?input),
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.input(now, &input);
        }
        self.engine.handle_input(now, input);
        while let Some(output) = self.engine.poll_output() {
            if let Some(recorder) = &mut self.recorder {
                recorder.output(&output);
            }
            self.perform(output);
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Connect { connection, remote } => {
                let mut peer = Peer::new();
                peer.tasks.push(Task::spawn(dial(self.world.clone(), connection, remote)));
                let before = self.peers.insert(connection, peer);
                assert!(before.is_none(), "the engine dials under a new name each time");
            }
            Output::Send { connection, messages } => {
                self.touch(connection, |peer| {
                    if peer.messages.is_empty() {
                        peer.messages = messages;
                    } else {
                        peer.messages.extend(messages);
                    }
                });
            }
            Output::Grant { connection, read_bytes, write_bytes } => {
                self.touch(connection, |peer| {
                    peer.read_bytes = peer.read_bytes.saturating_add(read_bytes);
                    peer.write_bytes = peer.write_bytes.saturating_add(write_bytes);
                });
            }
            Output::Revoke { connection, read_bytes, write_bytes } => {
                self.touch(connection, |peer| {
                    // What was not handed over yet goes first.
                    let (read, write) = (read_bytes.min(peer.read_bytes), write_bytes.min(peer.write_bytes));
                    (peer.read_bytes, peer.write_bytes) = (peer.read_bytes - read, peer.write_bytes - write);
                    peer.channel.revoke(read_bytes - read, write_bytes - write);
                });
            }
            Output::Close { connection } => drop(self.peers.remove(&connection)),
            Output::Job { job, work } => self.jobs.submit(job, work, &self.jobs_done.sender),
            Output::Resolve { query, host } => {
                let world = self.world.clone();
                let task = Task::spawn(async move {
                    let result = world.transport.resolve(&host).await;
                    world.tell(Input::Resolved { query, result }).await;
                });
                self.resolves.insert(query, task);
            }
            Output::HttpGet(get) => {
                let world = self.world.clone();
                let request = get.request;
                let task = Task::spawn(async move {
                    let result = http::get(&world.transport, &world.clock, &get).await;
                    world.tell(Input::HttpDone { request: get.request, result }).await;
                });
                self.requests.insert(request, task);
            }
            Output::HttpCancel { request } => drop(self.requests.remove(&request)),
            Output::SendDatagram { remote, payload } => {
                self.datagrams.send(&self.world.transport, remote, &payload);
            }
            Output::Alert(alert) => {
                self.stopped |= alert == Alert::Stopped;
                self.alerts.push(alert);
            }
        }
    }

    /// Changes a peer that is still there, and remembers to flush it.
    fn touch(&mut self, connection: ConnectionId, change: impl FnOnce(&mut Peer)) {
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        change(peer);
        if !peer.touched {
            peer.touched = true;
            self.touched.push(connection);
        }
    }

    /// Hands over what a burst collected.
    fn flush(&mut self) {
        while !self.touched.is_empty() {
            for connection in std::mem::take(&mut self.touched) {
                let Some(peer) = self.peers.get_mut(&connection) else { continue };
                peer.touched = false;
                peer.channel.grant_read(std::mem::take(&mut peer.read_bytes));
                let waiting = peer.channel.send(&mut peer.messages, std::mem::take(&mut peer.write_bytes));
                if waiting > connection::MESSAGES_WAITING_MAX {
                    debug!(?connection, waiting, "takes nothing of what is sent");
                    self.peers.remove(&connection);
                    let reason = CloseReason::Network(NetError::TimedOut);
                    self.handle(Input::Closed { connection, reason });
                }
            }
        }
    }
}

impl<T: Transport, C: Clock, J: Jobs> fmt::Debug for Owner<T, C, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owner")
            .field("engine", &self.engine)
            .field("peers", &self.peers.len())
            .field("requests", &self.requests.len())
            .finish_non_exhaustive()
    }
}

impl Peer {
    fn new() -> Self {
        Self {
            channel: Channel::default(),
            messages: Vec::new(),
            read_bytes: 0,
            write_bytes: 0,
            touched: false,
            tasks: Vec::new(),
        }
    }

    /// Has a stream now; what was collected before goes to it.
    fn open<R, W>(
        &mut self,
        id: ConnectionId,
        stream: Connection<R, W>,
        events: &mpsc::Sender<Event<R, W>>,
        read_buffers: &Kept,
    ) where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let reader =
            connection::read(id, stream.reader, self.channel.clone(), events.clone(), read_buffers.clone());
        let writer = connection::write(id, stream.writer, self.channel.clone(), events.clone());
        self.tasks = vec![Task::spawn(reader), Task::spawn(writer)];
    }
}

impl<T: Transport, C: Clock> World<T, C> {
    /// Waits for room; an owner that is gone needs to know nothing.
    async fn tell(&self, input: Input) {
        let _ = self.events.send(Event::Input(input)).await;
    }
}

async fn sleep(clock: &impl Clock, deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => clock.sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn dial<T: Transport, C: Clock>(world: World<T, C>, connection: ConnectionId, remote: SocketAddr) {
    match world.transport.connect(remote).await {
        Ok(stream) => {
            let _ = world.events.send(Event::Connected(connection, stream)).await;
        }
        Err(error) => {
            world.tell(Input::Closed { connection, reason: CloseReason::ConnectFailed(error) }).await;
        }
    }
}

/// Accepts for ever. When that fails (out of descriptors, mostly) it tries again later and later.
async fn accept<T: Transport, C: Clock>(world: World<T, C>, mut listener: T::Listener) {
    let mut pause = ACCEPT_PAUSE_MIN;
    loop {
        match world.transport.accept(&mut listener).await {
            Ok(stream) => {
                pause = ACCEPT_PAUSE_MIN;
                // One at a time: those that the engine sends away never hold descriptors in a queue.
                let (taken, handled) = oneshot::channel();
                if world.events.send(Event::Accepted(stream, taken)).await.is_err() {
                    return;
                }
                let _ = handled.await;
            }
            Err(error) => {
                debug!(%error, ?pause, "cannot accept");
                world.clock.sleep_until(world.clock.now() + pause).await;
                pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
            }
        }
    }
}

/// Receives for ever. The owner's queue is bounded; what does not fit stays with the system, which drops what is too much.
async fn receive_datagrams<T: Transport, C: Clock>(world: World<T, C>, socket: T::Datagrams) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        match world.transport.receive_datagram(&socket, &mut buffer).await {
            Ok((length, remote)) => {
                let payload = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
                world.tell(Input::Datagram { remote, payload }).await;
            }
            Err(error) => {
                debug!(%error, "cannot receive a datagram");
                world.clock.sleep_until(world.clock.now() + ACCEPT_PAUSE_MIN).await;
            }
        }
    }
}

/// Hears a group for ever. It is joined anew now and then: interfaces come and go, and there may be none yet.
async fn hear_group<T: Transport, C: Clock>(world: World<T, C>, group: SocketAddr) {
    loop {
        let until = world.clock.now() + GROUP_JOINED_TIME;
        let socket = world.transport.open_group(group).await;
        let _hearing = socket.map(|socket| Task::spawn(receive_datagrams(world.clone(), socket)));
        world.clock.sleep_until(until).await;
    }
}

/// No datagram is longer.
const DATAGRAM_BYTES_MAX: usize = 1 << 16;
/// Inputs handled before waiting peers are woken and time is looked at again.
const BURST_MAX: usize = 32;
/// Inputs waiting for the owner; readers wait beyond. Their bytes are bounded by the grants.
const EVENTS_WAITING_MAX: usize = 1024;
/// How long a group is heard before it is joined anew: as long as it is spoken to (BEP 14).
const GROUP_JOINED_TIME: Duration = Duration::from_secs(5 * 60);
/// After a failed accept.
const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(20);
/// After many failed accepts in a row.
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::driver::testing::{HandClock, Pipes};

    #[tokio::test]
    async fn accepting_pauses_while_descriptors_are_used_up() {
        let (pipes, _others) = Pipes::new();
        let clock = HandClock::new();
        let (events, mut incoming) = mpsc::channel(EVENTS_WAITING_MAX);
        let world = World { transport: pipes.clone(), clock: clock.clone(), events };
        let _acceptor = Task::spawn(accept(world, ()));
        for _ in 0..600 {
            clock.pass(100).await;
        }
        let tries = pipes.accepts.load(Ordering::Relaxed);
        assert!((12..40).contains(&tries), "{tries} times in a minute");
        assert!(incoming.try_recv().is_err());
        pipes.exhausted.store(false, Ordering::Relaxed);
        clock.pass(5_000).await;
        assert!(matches!(incoming.try_recv(), Ok(Event::Accepted(..))), "goes on by itself");
    }
}
