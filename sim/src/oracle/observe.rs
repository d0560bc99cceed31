//! What an observer is told of a run, where there is one. Nothing here changes what is watched.

use taipei_engine::disk::{JobResult, Work};
use taipei_engine::limits::{JOBS_MAX, TRACKER_REQUESTS_MAX};
use taipei_engine::wire::Message;
use taipei_engine::{Alert, Command, ConnectionId, Input, Output};

use super::Watch;
use super::host::HostWatch;
use crate::observer::{HostEvent, Near, Observer};

impl Watch {
    /// From here on an observer is told what happens.
    pub fn observe(&mut self) {
        self.observer = Some(Box::new(Observer::new(self.plan.hosts.len(), self.plan.faults.len())));
    }

    /// The observer, at the end of the run.
    pub fn take_observer(&mut self, now: u64) -> Option<Box<Observer>> {
        let mut observer = self.observer.take()?;
        let (have, copies) = self.have_and_copies();
        observer.end(now, &have, &copies);
        for (rule, what, near) in self.nearest_at_end(now) {
            observer.on_near(rule, what, near);
        }
        for (seen, watch) in observer.hosts.iter_mut().zip(&self.hosts) {
            let is_whole = self.has_all(watch);
            seen.completed_at = watch.completed_at.values().copied().max().filter(|_| is_whole);
        }
        Some(observer)
    }

    /// What is known of limits only when a run is over.
    fn nearest_at_end(&self, now: u64) -> Vec<(&'static str, &'static str, Near)> {
        let scenario = &self.materials.scenario;
        let mut nearest = Vec::new();
        for expect in scenario.expects.iter().filter(|expect| expect.complete.is_some()) {
            let group = expect.complete.as_deref().unwrap_or_default();
            let hosts = self.plan.hosts.iter().zip(&self.hosts).filter(|(plan, _)| plan.group == group);
            let last = hosts.flat_map(|(_, watch)| watch.completed_at.values()).max().copied();
            let used = if self.is_complete(group) { last.unwrap_or(0) } else { now };
            nearest.push(("L1", "until all are complete", Near::time(used, self.deadline(expect))));
        }
        nearest
    }

    /// A limit was looked at.
    pub(super) fn near(&mut self, rule: &'static str, what: &'static str, near: Near) {
        if let Some(observer) = &mut self.observer {
            observer.on_near(rule, what, near);
        }
    }

    /// Takes the samples that are due, before anything happens at `now`.
    pub(super) fn observe_time(&mut self, now: u64) {
        if self.observer.as_ref().is_some_and(|observer| observer.is_due(now)) {
            let (have, copies) = self.have_and_copies();
            if let Some(observer) = &mut self.observer {
                observer.sample(now, &have, &copies);
            }
        }
    }

    /// Bytes that each host has verified, and how many hosts with a process have each piece.
    fn have_and_copies(&self) -> (Vec<u64>, Vec<u32>) {
        let mut firsts = Vec::with_capacity(self.materials.torrents.len());
        let mut copies = Vec::new();
        for material in &self.materials.torrents {
            firsts.push(copies.len());
            copies.resize(copies.len() + material.piece_count() as usize, 0);
        }
        let have = self.hosts.iter().map(|watch| {
            for (torrent, have) in watch.have.iter().filter(|_| watch.process.is_some()) {
                have.iter().for_each(|piece| copies[firsts[*torrent] + *piece as usize] += 1);
            }
            self.have_bytes(watch)
        });
        (have.collect(), copies)
    }

    fn have_bytes(&self, watch: &HostWatch) -> u64 {
        let bytes = watch.have.iter().map(|(torrent, have)| {
            let material = &self.materials.torrents[*torrent];
            let short = have.last().map_or(0, |last| material.piece_bytes - material.piece(*last).1);
            have.len() as u64 * material.piece_bytes - short
        });
        bytes.sum()
    }

    /// An observer is told of an input.
    pub(super) fn observe_input(&mut self, now: u64, host: usize, input: &Input) {
        if self.observer.is_none() {
            return;
        }
        self.observe_time(now);
        let text = self.input_in_words(host, input);
        let peer = |connection| self.peer(host, connection);
        let given = match input {
            Input::Received { connection, messages, .. } => peer(connection).map(|from| {
                let blocks = messages.iter().filter_map(|message| match message {
                    Message::Piece { data, .. } => Some(u64::from(data.len())),
                    _ => None,
                });
                (from, blocks.sum::<u64>())
            }),
            _ => None,
        };
        let near = self.hosts[host].process.as_ref().map(|process| {
            let config = &self.plan.hosts[host].config;
            let count = |used: usize, most: usize| Near::count(used as u64, most as u64);
            [
                ("connections", count(process.connections.len(), config.peers_max as usize)),
                ("jobs under way", count(process.jobs.len(), JOBS_MAX)),
                ("tracker requests under way", count(process.http.len(), TRACKER_REQUESTS_MAX)),
            ]
        });
        let Some(observer) = &mut self.observer else { return };
        for (what, near) in near.into_iter().flatten() {
            observer.on_near("S7", what, near);
        }
        match input {
            Input::Received { read_bytes, .. } => observer.on_moved(host, u64::from(*read_bytes), 0),
            Input::Sent { written_bytes, .. } => observer.on_moved(host, 0, u64::from(*written_bytes)),
            Input::Closed { connection, .. } => observer.on_choked(now, host, *connection),
            Input::Datagram { remote, payload } => observer.on_datagram_in(host, *remote, payload),
            _ => {}
        }
        if let Some((from, bytes)) = given.filter(|(_, bytes)| *bytes > 0) {
            observer.on_given(from, host, bytes);
        }
        if let Some(text) = text {
            observer.on_moment(now, Some(host), text);
        }
    }

    /// An observer is told of an output.
    pub(super) fn observe_output(&mut self, now: u64, host: usize, output: &Output) {
        if self.observer.is_none() {
            return;
        }
        let text = self.output_in_words(host, output);
        let peer = match output {
            Output::Send { connection, .. } => self.peer(host, connection),
            _ => None,
        };
        let is_puppet = peer.is_some_and(|peer| self.plan.hosts[peer].puppet.is_some());
        let all_bytes = self.materials.total_bytes();
        let Some(observer) = &mut self.observer else { return };
        match output {
            Output::Send { connection, messages } => {
                for message in messages {
                    match (message, peer) {
                        (Message::Unchoke, Some(peer)) => observer.on_unchoked(now, host, *connection, peer),
                        (Message::Choke, _) => observer.on_choked(now, host, *connection),
                        (Message::Piece { data, .. }, Some(peer)) if is_puppet => {
                            observer.on_given(host, peer, u64::from(data.len()));
                            if observer.hosts[peer].taken_bytes >= all_bytes {
                                observer.hosts[peer].completed_at.get_or_insert(now);
                            }
                        }
                        _ => {}
                    }
                }
            }
            Output::Close { connection } => observer.on_choked(now, host, *connection),
            Output::SendDatagram { remote, payload } => {
                observer.on_datagram_out(now, host, *remote, payload);
            }
            Output::Alert(Alert::PieceFailed { .. }) => {
                observer.on_event(now, host, HostEvent::PieceFailed);
            }
            Output::Alert(Alert::PeerBanned { .. }) => observer.on_event(now, host, HostEvent::Banned),
            Output::Alert(Alert::Stopped) => observer.on_gone(now, host),
            _ => {}
        }
        if let Some(text) = text {
            observer.on_moment(now, Some(host), text);
        }
    }

    /// An observer is told of a fault.
    pub(super) fn observe_fault(&mut self, now: u64, fault: usize, is_over: bool) {
        self.observe_time(now);
        let action = &self.plan.faults[fault].action;
        let Some(observer) = &mut self.observer else { return };
        if is_over {
            observer.on_fault_over(now, fault);
        } else {
            observer.on_fault_begun(now, fault);
        }
        let word = if is_over { "is over" } else { "strikes" };
        observer.on_moment(
            now,
            action.host(),
            format!("fault {}, {}, {word}", fault + 1, action.kind().name()),
        );
    }

    fn peer(&self, host: usize, connection: &ConnectionId) -> Option<usize> {
        self.hosts[host].process.as_ref()?.connections.get(*connection)?.host
    }

    fn peer_name(&self, host: usize, connection: &ConnectionId) -> String {
        let process = self.hosts[host].process.as_ref();
        let watch = process.and_then(|process| process.connections.get(*connection));
        match watch {
            Some(watch) => self.name_at(watch.remote),
            None => "a peer that is not connected".to_owned(),
        }
    }

    fn name_at(&self, address: core::net::IpAddr) -> String {
        let host = self.plan.host_at(address).map(|host| self.plan.hosts[host].name.clone());
        host.unwrap_or_else(|| address.to_string())
    }

    /// What an input is, for people; none for what says nothing by itself.
    fn input_in_words(&self, host: usize, input: &Input) -> Option<String> {
        Some(match input {
            Input::Timeout | Input::Sent { .. } => return None,
            Input::Received { connection, messages, .. } => {
                format!("hears from {}: {}", self.peer_name(host, connection), in_words(messages)?)
            }
            Input::Command(command) => format!("is told: {}", command_in_words(command)),
            Input::Listening { port, .. } => format!("listens at port {port}"),
            Input::Accepted { remote, .. } => format!("is called by {}", self.name_at(remote.ip())),
            Input::Connected { .. } => "has reached a peer".to_owned(),
            Input::Closed { connection, reason } => {
                format!("loses {}: {reason}", self.peer_name(host, connection))
            }
            Input::JobDone { result, .. } => format!("disk: {}", result_in_words(result)),
            Input::Resolved { result: Ok(addresses), .. } => format!("DNS: {} addresses", addresses.len()),
            Input::Resolved { result: Err(error), .. } => format!("DNS: {error}"),
            Input::HttpDone { result: Ok(answer), .. } => {
                format!("tracker: status {}, {} bytes", answer.status, answer.body.len())
            }
            Input::HttpDone { result: Err(error), .. } => format!("tracker: {error}"),
            Input::Datagram { remote, payload } => {
                format!("datagram from {}, {} bytes", self.name_at(remote.ip()), payload.len())
            }
        })
    }

    /// What an output is, for people.
    fn output_in_words(&self, host: usize, output: &Output) -> Option<String> {
        Some(match output {
            Output::Grant { .. } | Output::Revoke { .. } | Output::HttpCancel { .. } => return None,
            Output::Connect { remote, .. } => format!("calls {}", self.name_at(remote.ip())),
            Output::Send { connection, messages } => {
                format!("says to {}: {}", self.peer_name(host, connection), in_words(messages)?)
            }
            Output::Close { connection } => format!("hangs up on {}", self.peer_name(host, connection)),
            Output::Job { work, .. } => format!("asks the disk: {}", work_in_words(&work.work)),
            Output::Resolve { host, .. } => format!("asks DNS for {host}"),
            Output::HttpGet(get) => format!("asks the tracker {}", get.host),
            Output::SendDatagram { remote, payload } => {
                format!("datagram to {}, {} bytes", self.name_at(remote.ip()), payload.len())
            }
            Output::Alert(alert) => format!("tells its user: {}", alert_in_words(alert)?),
        })
    }
}

/// Messages of a batch, the first of them.
fn in_words(messages: &[Message]) -> Option<String> {
    const SHOWN: usize = 3;
    let mut words: Vec<String> = messages.iter().take(SHOWN).map(message_in_words).collect();
    if messages.len() > SHOWN {
        words.push(format!("{} more", messages.len() - SHOWN));
    }
    (!words.is_empty()).then(|| words.join(", "))
}

fn message_in_words(message: &Message) -> String {
    match message {
        Message::Handshake(_) => "handshake".to_owned(),
        Message::KeepAlive => "keep-alive".to_owned(),
        Message::Choke => "choke".to_owned(),
        Message::Unchoke => "unchoke".to_owned(),
        Message::Interested => "interested".to_owned(),
        Message::NotInterested => "not interested".to_owned(),
        Message::Have(piece) => format!("have piece {piece}"),
        Message::Bitfield(_) => "bitfield".to_owned(),
        Message::Request(request) => format!("request piece {} at {}", request.piece, request.begin),
        Message::Piece { piece, begin, .. } => format!("block of piece {piece} at {begin}"),
        Message::Cancel(request) => format!("cancel piece {} at {}", request.piece, request.begin),
        Message::Port(port) => format!("port {port}"),
        Message::SuggestPiece(piece) => format!("suggest piece {piece}"),
        Message::HaveAll => "have all".to_owned(),
        Message::HaveNone => "have none".to_owned(),
        Message::RejectRequest(request) => format!("reject piece {} at {}", request.piece, request.begin),
        Message::AllowedFast(piece) => format!("allowed fast piece {piece}"),
        Message::ExtendedHandshake(_) => "extended handshake".to_owned(),
        Message::Extended { id, payload } => format!("extension {id}, {} bytes", payload.len()),
        Message::Unknown(id) => format!("unknown message {id}"),
    }
}

fn command_in_words(command: &Command) -> &'static str {
    match command {
        Command::AddTorrent(_) => "add a torrent",
        Command::RemoveTorrent { .. } => "remove a torrent",
        Command::Shutdown => "shut down",
        _ => "another command",
    }
}

fn work_in_words(work: &Work) -> String {
    match work {
        Work::Open { .. } => "open".to_owned(),
        Work::LoadMetadata => "load metadata".to_owned(),
        Work::SaveMetadata { .. } => "save metadata".to_owned(),
        Work::Check { pieces } => format!("check {} pieces", pieces.len()),
        Work::Allocate { files } => format!("allocate {} files", files.len()),
        Work::Write { piece, .. } => format!("write piece {}", piece.get()),
        Work::Hash { pieces } => format!("hash {} pieces", pieces.len()),
        Work::Read { blocks } => format!("read {} blocks", blocks.len()),
        Work::Record { good, .. } => format!("record {} pieces", good.len()),
        Work::Snapshot { .. } => "save what is had".to_owned(),
        _ => "something else".to_owned(),
    }
}

fn result_in_words(result: &JobResult) -> String {
    let done = |word: &str, error: Option<&taipei_engine::disk::StorageError>| match error {
        None => word.to_owned(),
        Some(error) => format!("{word} failed: {error}"),
    };
    match result {
        JobResult::Opened(result) => done("open", result.as_ref().err()),
        JobResult::MetadataLoaded(_) => "metadata loaded".to_owned(),
        JobResult::MetadataSaved(result) => done("save metadata", result.as_ref().err()),
        JobResult::Checked(result) => done("check", result.as_ref().err()),
        JobResult::Allocated(result) => done("allocate", result.as_ref().err()),
        JobResult::Written(result) => done("write", result.as_ref().err()),
        JobResult::Hashed(result) => done("hash", result.as_ref().err()),
        JobResult::Read(result) => done("read", result.as_ref().err()),
        JobResult::Recorded(result) => done("record", result.as_ref().err()),
        JobResult::Saved(result) => done("save what is had", result.as_ref().err()),
        JobResult::Closed => "closed".to_owned(),
        JobResult::Looked(result) => done("look at files", result.as_ref().err()),
    }
}

fn alert_in_words(alert: &Alert) -> Option<String> {
    Some(match alert {
        Alert::PieceFinished { piece, .. } => format!("piece {} is right and on disk", piece.get()),
        Alert::PieceFailed { piece, .. } => format!("piece {} did not fit its hash", piece.get()),
        Alert::Completed { .. } => "complete".to_owned(),
        Alert::StateChanged { state, .. } => format!("state {state:?}"),
        Alert::PeerBanned { .. } => "a peer is banned".to_owned(),
        Alert::DiskFailed { error, .. } => format!("disk: {error}"),
        Alert::AddFailed { error, .. } => format!("a torrent was not added: {error}"),
        Alert::Stopped => "stopped".to_owned(),
        _ => return None,
    })
}
