//! How a stream comes about: SYN, SYN-ACK and ACK, each of which may be lost, and how it is refused or met by silence.

use core::net::SocketAddr;

use taipei_engine::input::{CloseReason, NetError};
use taipei_engine::{ConnectionId, Input};

use super::stream::{End, Mark, Side, State, Stream};
use super::{Event, World};
use crate::capture::Flag;
use crate::network::nat::Protocol;
use crate::plan::PEER_PORT;
use crate::trace::Kind;

impl World {
    pub(super) fn connect(&mut self, host: usize, connection: ConnectionId, remote: SocketAddr) {
        let stream = self.streams.next();
        let to = self.host_towards(remote.ip());
        let trace = [u64::from(stream), to.map_or(0, |to| to as u64 + 1), 0];
        self.watch.trace.event(self.now, host as u32 + 1, Kind::Connect, trace);
        let own = self.plan.hosts[host].address_towards(remote.ip());
        let local = SocketAddr::new(own.unwrap_or(remote.ip()), dialled_port(stream));
        let ends =
            [End::new(host, connection), End::new(to.unwrap_or(usize::MAX), ConnectionId::accepted(0))];
        let this = Stream {
            latency: 0,
            local,
            remote,
            seen_as: local,
            nats: [self.plan.nat_towards(host, remote.ip()), self.plan.nat_at(remote.ip())],
            answered: false,
            asked: None,
            ends,
        };
        self.streams.add(this);
        if let Some(process) = &mut self.hosts[host].process {
            process.connections.insert(connection, (stream, Side::Dialler));
        }
        if own.is_none() {
            let error = Some(NetError::Unreachable);
            self.at(self.now + super::LOOPBACK_TIME, Event::SynAnswer { stream, error });
            return;
        }
        self.dial(stream, 0);
    }

    /// The host that answers at an address, as far as can be known before anything was sent.
    fn host_towards(&self, address: core::net::IpAddr) -> Option<usize> {
        match self.plan.nat_at(address) {
            Some(nat) => self.plan.nats[nat].forwarded_to(&self.plan),
            None => self.plan.host_at(address),
        }
    }

    /// Sends a SYN, and again after a while that doubles, until there is an answer.
    pub(super) fn dial(&mut self, stream: u32, tries: u32) {
        let now = self.now;
        let Some(this) = self.streams.get_mut(stream).filter(|this| !this.answered) else { return };
        let (dialler, to) = (&this.ends[0], this.ends[1].host);
        if dialler.state != State::Dialling {
            // Given up meanwhile.
            self.streams.forget(stream);
            return;
        }
        if tries > SYN_TRIES {
            let error = Some(NetError::TimedOut);
            self.on_syn_answer(stream, error);
            return;
        }
        let (from, local, remote) = (dialler.host, this.local, this.remote);
        let [out, inwards] = this.nats;
        self.at(now + (SYN_TIME << tries), Event::Dial { stream, tries: tries + 1 });
        let seen_as = match out {
            Some(nat) => self.nats[nat].handle_out(now, Protocol::Tcp, local, remote),
            None => local,
        };
        let inner_ip = self.plan.hosts.get(to).map(|host| host.address);
        let latency = match inner_ip {
            Some(ip) if inwards.is_some() => self.latency(local.ip(), ip),
            _ => self.latency(local.ip(), remote.ip()),
        };
        if let Some(this) = self.streams.get_mut(stream) {
            (this.seen_as, this.latency) = (seen_as, latency);
        }
        self.capture_flag(stream, Side::Dialler, Flag::Syn);
        if let Some(nat) = inwards {
            let is_back = out == inwards && !self.nats[nat].hairpins();
            if is_back || self.nats[nat].handle_in(now, Protocol::Tcp, seen_as, remote.port()).is_none() {
                return;
            }
        }
        // Where nobody is, nobody answers.
        if to == usize::MAX || self.is_lost(from, to) {
            return;
        }
        let at = now + latency + self.senders[from].jitter(&self.plan.net);
        self.at(at, Event::Syn { stream });
    }

    pub(super) fn on_syn(&mut self, stream: u32) {
        let Some(this) = self.streams.get(stream).filter(|this| !this.answered) else { return };
        let (latency, port) = (this.latency, this.remote.port());
        let (from, to) = (this.ends[1].host, this.ends[0].host);
        let host = &self.hosts[from];
        if !host.powered {
            return;
        }
        let error = if self.is_listening(from) && port == PEER_PORT { None } else { Some(NetError::Refused) };
        if error.is_none() {
            let incarnation = host.incarnation;
            // Nobody takes them in while there are too many, and the dialler asks again.
            if !self.backlog_has_room(from, stream) {
                return;
            }
            if let Some(this) = self.streams.get_mut(stream) {
                this.asked = Some(incarnation);
            }
        }
        let flag = if error.is_none() { Flag::SynAck } else { Flag::Reset };
        self.capture_flag(stream, Side::Acceptor, flag);
        if self.is_lost(from, to) {
            return;
        }
        let at = self.now + latency + self.senders[from].jitter(&self.plan.net);
        self.at(at, Event::SynAnswer { stream, error });
    }

    /// Puts a stream among those that a kernel keeps for a process to take, if there is room.
    fn backlog_has_room(&mut self, host: usize, stream: u32) -> bool {
        let streams = &self.streams;
        let backlog = &mut self.hosts[host].backlog;
        if backlog.len() >= BACKLOG {
            backlog.retain(|waiting| {
                let this = streams.get(*waiting);
                this.is_some_and(|this| this.ends[1].state == State::Dialling)
            });
        }
        let has_room = backlog.len() < BACKLOG || backlog.contains(&stream);
        if has_room {
            backlog.insert(stream);
        }
        has_room
    }

    pub(super) fn on_syn_answer(&mut self, stream: u32, error: Option<NetError>) {
        let Some(this) = self.streams.get_mut(stream).filter(|this| !this.answered) else { return };
        let [dialler, acceptor] = &mut this.ends;
        if dialler.state != State::Dialling {
            // Given up meanwhile: nobody over there ever hears of it.
            self.streams.forget(stream);
            return;
        }
        this.answered = true;
        let (host, connection, local) = (dialler.host, dialler.connection, this.local);
        if let Some(error) = error {
            self.streams.forget(stream);
            self.hang_up(host, connection, CloseReason::ConnectFailed(error));
            return;
        }
        dialler.state = State::Open;
        let to = acceptor.host;
        let segment = dialler.mark(Mark::Open);
        self.watch.trace.event(self.now, host as u32 + 1, Kind::Open, [u64::from(stream), to as u64 + 1, 0]);
        self.launch(stream, Side::Dialler, segment, self.now);
        self.step(host, Input::Connected { connection, local });
    }

    /// The third packet is there: the process is told.
    pub(super) fn on_accept(&mut self, stream: u32) {
        let Some(this) = self.streams.get_mut(stream) else { return };
        let (asked, remote) = (this.asked, this.seen_as);
        let [dialler, acceptor] = &mut this.ends;
        let (host, remote_host) = (acceptor.host, dialler.host);
        let this = &mut self.hosts[host];
        this.backlog.remove(&stream);
        let is_same = asked == Some(this.incarnation);
        let Some(process) = this.process.as_mut().filter(|process| is_same && !process.stopped) else {
            // The process died between the handshake and now.
            acceptor.clear(State::Closed);
            self.answer_with_reset(stream, Side::Acceptor);
            return;
        };
        let connection = ConnectionId::accepted(process.accepted_count);
        process.accepted_count += 1;
        process.connections.insert(connection, (stream, Side::Acceptor));
        (acceptor.connection, acceptor.state) = (connection, State::Open);
        self.watch.trace.event(
            self.now,
            host as u32 + 1,
            Kind::Open,
            [u64::from(stream), remote_host as u64 + 1, 1],
        );
        // Of who is gone by now, another process may have a connection of the same name.
        let is_there = self.streams.is_open(stream, Side::Dialler);
        let dialler = self.streams.end(stream, Side::Dialler).filter(|_| is_there);
        let dialler = dialler.map(|end| (end.host, end.connection));
        self.step(host, Input::Accepted { connection, remote });
        if let Some(dialler) = dialler {
            self.watch.on_paired(dialler, (host, connection));
        }
    }
}

fn dialled_port(stream: u32) -> u16 {
    32_768 + (stream % 28_000) as u16
}

/// How long a system waits for an answer to its first SYN, and how many it sends after that: 127 s in all.
const SYN_TIME: u64 = 1_000_000_000;
const SYN_TRIES: u32 = 6;
/// Streams that a kernel keeps for a process.
const BACKLOG: usize = 128;
