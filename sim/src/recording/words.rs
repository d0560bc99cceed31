//! What happens in a recording, in words that name nobody.

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

use taipei_engine::disk::{Job, JobResult, StorageError, Work};
use taipei_engine::output::HttpGet;
use taipei_engine::wire::Message;
use taipei_engine::wire::krpc::{Ask, Body, Packet};
use taipei_engine::{Alert, Command, ConnectionId, Input, Output, TorrentState};

/// What everybody is called instead of their addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    peers: BTreeMap<SocketAddr, usize>,
    connections: BTreeMap<ConnectionId, usize>,
    /// Those that are over, of which something may still be said; the oldest first.
    over: VecDeque<ConnectionId>,
    trackers: BTreeMap<String, usize>,
}

impl Names {
    /// The number of a peer; a new one where this address was never met. The last number is that of all who come after
    /// [`PEERS_MAX`] others.
    pub(super) fn peer(&mut self, address: SocketAddr) -> usize {
        match (self.peers.get(&address), self.peers.len()) {
            (Some(known), _) => *known,
            (None, PEERS_MAX..) => PEERS_MAX,
            (None, next) => *self.peers.entry(address).or_insert(next),
        }
    }

    /// Who is at the other end from now on.
    pub(super) fn connect(&mut self, connection: ConnectionId, peer: usize) {
        self.connections.insert(connection, peer);
    }

    /// A connection is over. Who was at its other end is known for a while.
    pub(super) fn disconnect(&mut self, connection: ConnectionId) {
        if !self.connections.contains_key(&connection) {
            return;
        }
        self.over.push_back(connection);
        if self.over.len() > OVER_MAX
            && let Some(oldest) = self.over.pop_front()
        {
            self.connections.remove(&oldest);
        }
    }

    /// Who is at the other end.
    pub(super) fn at_end(&self, connection: ConnectionId) -> Option<usize> {
        self.connections.get(&connection).copied()
    }

    /// The number of a tracker; a new one where this URL was never met.
    pub(super) fn tracker(&mut self, url: &str) -> usize {
        let next = self.trackers.len();
        *self.trackers.entry(url.to_owned()).or_insert(next)
    }

    fn end(&self, connection: ConnectionId) -> String {
        self.at_end(connection).map_or_else(|| "nobody".to_owned(), peer_name)
    }

    fn of_address(&self, address: SocketAddr) -> String {
        self.peers.get(&address).map_or_else(|| "somebody".to_owned(), |peer| peer_name(*peer))
    }

    /// What the engine is told.
    pub(super) fn input(&self, input: &Input) -> String {
        match input {
            Input::Timeout => "the time that it waited for has come".to_owned(),
            Input::Command(command) => format!("is asked to {}", self.command(command)),
            Input::Listening { families: (v4, v6), .. } => {
                format!("can be reached (IPv4: {}, IPv6: {})", yes(*v4), yes(*v6))
            }
            Input::Accepted { connection, .. } => format!("{} connects", self.end(*connection)),
            Input::Connected { connection, .. } => format!("is connected to {}", self.end(*connection)),
            Input::Closed { connection, reason } => format!("{}: {reason}", self.end(*connection)),
            Input::Received { connection, read_bytes, messages } => {
                format!("{} said {} in {read_bytes} bytes", self.end(*connection), said(messages))
            }
            Input::Sent { connection, written_bytes } => {
                format!("{written_bytes} bytes went to {}", self.end(*connection))
            }
            Input::JobDone { job, result } => format!("job {}: {}", job.0, job_result(result)),
            Input::Resolved { result: Ok(addresses), .. } => {
                format!("a name has {}", several(addresses.len(), "address", "es"))
            }
            Input::Resolved { result: Err(error), .. } => format!("a name has no address: {error}"),
            Input::Datagram { payload, .. } => format!("hears {}", datagram(payload)),
            Input::HttpDone { result: Ok(answer), .. } => {
                format!("a server answers {} with {} bytes", answer.status, answer.body.len())
            }
            Input::HttpDone { result: Err(error), .. } => format!("no server answers: {error}"),
        }
    }

    fn command(&self, command: &Command) -> String {
        match command {
            Command::AddTorrent(add) => format!("begin with torrent {}", add.torrent.0),
            Command::AddPeers { peers, .. } => format!("connect to {}", several(peers.len(), "peer", "s")),
            Command::SetPriorities { .. } => "want other files".to_owned(),
            Command::SetLimits { .. } => "keep other limits".to_owned(),
            Command::Unban { address } => format!("talk to {} again", self.of_address(*address)),
            Command::Scrape { .. } => "scrape a tracker".to_owned(),
            Command::AddDhtNodes { nodes } => {
                format!("know {} of the DHT", several(nodes.len(), "node", "s"))
            }
            Command::DhtPing { .. } => "ping a node of the DHT".to_owned(),
            Command::DhtLookup { .. } => "find peers by the DHT".to_owned(),
            Command::ReportDht => "report the DHT's figures".to_owned(),
            Command::ReportStats { torrent } => format!("report the figures of torrent {}", torrent.0),
            Command::RemoveTorrent { torrent } => format!("remove torrent {}", torrent.0),
            Command::Shutdown => "shut down".to_owned(),
            Command::Mapped { port, .. } => {
                format!("know its port at the router (mapped: {})", yes(port.is_some()))
            }
            Command::DhtGet { .. } => "get an item from the DHT".to_owned(),
            Command::DhtPut { .. } => "put an item into the DHT".to_owned(),
            Command::DhtSample { .. } => "sample the DHT".to_owned(),
            _ => "do something new".to_owned(),
        }
    }

    /// What the engine asks for.
    pub(super) fn output(&self, output: &Output) -> String {
        match output {
            Output::Connect { connection, .. } => format!("dials {}", self.end(*connection)),
            Output::Send { connection, messages } => {
                format!("says {} to {}", said(messages), self.end(*connection))
            }
            Output::Grant { connection, read_bytes, write_bytes } => {
                format!("grants {}: {read_bytes} bytes in, {write_bytes} out", self.end(*connection))
            }
            Output::Revoke { connection, read_bytes, write_bytes } => {
                format!(
                    "takes grants back from {}: {read_bytes} bytes in, {write_bytes} out",
                    self.end(*connection)
                )
            }
            Output::Close { connection } => format!("drops {}", self.end(*connection)),
            Output::Job { job, work } => format!("gives out job {}: {}", job.0, job_words(work)),
            Output::Resolve { host, .. } => format!("looks up {}", host_shown(host)),
            Output::HttpGet(get) => format!("asks {}", server(get)),
            Output::HttpCancel { .. } => "waits no longer for a server".to_owned(),
            Output::SendDatagram { payload, .. } => format!("sends {}", datagram(payload)),
            Output::Alert(alert) => self.alert(alert),
        }
    }

    fn alert(&self, alert: &Alert) -> String {
        match alert {
            Alert::AddFailed { torrent, .. } => format!("refuses torrent {}", torrent.0),
            Alert::StateChanged { torrent, state } => {
                format!("torrent {} {}", torrent.0, state_words(*state))
            }
            Alert::MetadataReceived { torrent, .. } => {
                format!("the metadata of torrent {} is here", torrent.0)
            }
            Alert::PieceFinished { torrent, piece } => format!("has piece {piece} of torrent {}", torrent.0),
            Alert::PieceFailed { torrent, piece } => {
                format!("piece {piece} of torrent {} did not fit its hash", torrent.0)
            }
            Alert::Completed { torrent } => format!("torrent {} is complete", torrent.0),
            Alert::PeerBanned { address, .. } => format!("bans {}", self.of_address(*address)),
            Alert::DiskFailed { error, .. } => format!("waits for the disk: {}", error.kind),
            Alert::Tracker { url, result, .. } => {
                let name = self
                    .trackers
                    .get(url)
                    .map_or_else(|| "a tracker".to_owned(), |tracker| tracker_name(*tracker));
                match result {
                    Ok(peers) => format!("{name} named {}", several(*peers as usize, "peer", "s")),
                    Err(_) => format!("{name} failed"),
                }
            }
            Alert::Stats(stats) => format!("reports the figures of torrent {}", stats.torrent.0),
            Alert::Removed { torrent } => format!("torrent {} is gone", torrent.0),
            Alert::Stopped => "has stopped".to_owned(),
            _ => "reports something of the DHT or of a tracker".to_owned(),
        }
    }
}

/// What a peer is called.
pub(crate) fn peer_name(peer: usize) -> String {
    if peer < PEERS_MAX { format!("peer-{}", peer + 1) } else { "other peers".to_owned() }
}

/// What a tracker is called.
pub(crate) fn tracker_name(tracker: usize) -> String {
    format!("tracker-{}", tracker + 1)
}

/// How a URL is reached, and the name of its host: nothing that is a secret or an address.
pub(super) fn url_shown(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let scheme = ["http", "https", "udp"].into_iter().find(|known| scheme.eq_ignore_ascii_case(known));
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.rsplit_once(':') {
        Some((name, _)) if !host.starts_with('[') => name,
        _ => host,
    };
    format!("{}, {}", scheme.unwrap_or("unknown scheme"), host_shown(host))
}

/// The name of a host, without labels that could be a passkey or hold an address, as those have that providers give to their
/// customers. An address, and a name that means something in somebody's own network alone, is left out.
fn host_shown(host: &str) -> String {
    let is_name = |label: &str| {
        (1..LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && label.bytes().any(|byte| byte.is_ascii_alphabetic())
            && label.bytes().filter(u8::is_ascii_digit).count() < LABEL_DIGITS_MAX
    };
    let host = host.trim_end_matches('.');
    let last = host.rsplit('.').next().unwrap_or_default();
    let could_be_a_name =
        last.bytes().next().is_none_or(|byte| byte.is_ascii_alphabetic()) && !host.contains(':');
    let is_address = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    if is_address || !could_be_a_name {
        return "a host by its address".to_owned();
    }
    let is_local = |known: &&str| last.eq_ignore_ascii_case(known);
    if (last == host && !is_local(&"localhost")) || LOCAL_DOMAINS.iter().any(is_local) {
        return "a host of a local network".to_owned();
    }
    let labels = host.split('.').map(|label| if is_name(label) { label } else { "***" });
    labels.collect::<Vec<_>>().join(".")
}

fn server(get: &HttpGet) -> String {
    format!("{} over {}", host_shown(&get.host), if get.tls { "https" } else { "http" })
}

fn state_words(state: TorrentState) -> &'static str {
    match state {
        TorrentState::Queued => "waits for its turn",
        TorrentState::FetchingMetadata => "asks peers for its metadata",
        TorrentState::Opening => "looks for what earlier runs left",
        TorrentState::Checking => "hashes what is on disk",
        TorrentState::Downloading => "downloads",
        TorrentState::Seeding => "seeds",
        TorrentState::Finished => "has seeded enough",
        TorrentState::DiskError => "waits for the disk",
        TorrentState::Stopping => "says goodbye to its trackers and saves its state",
        _ => "is in a state that is new",
    }
}

fn several(count: usize, one: &str, more: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { more })
}

fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

/// Messages, those of one kind after each other as one.
fn said(messages: &[Message]) -> String {
    if messages.is_empty() {
        return "a part of a message".to_owned();
    }
    let mut words = String::new();
    for (number, run) in messages.chunk_by(|a, b| kind(a) == kind(b)).enumerate() {
        let comma = if number == 0 { "" } else { ", " };
        let _ = match (number, run) {
            (RUNS_SAID, _) => write!(words, " and more"),
            (RUNS_SAID.., _) => Ok(()),
            (_, [one]) => write!(words, "{comma}{}", message(one)),
            (_, [first, ..]) => {
                write!(words, "{comma}{} times {}, the first {}", run.len(), kind(first), message(first))
            }
            (_, []) => Ok(()),
        };
    }
    words
}

fn kind(message: &Message) -> &'static str {
    match message {
        Message::Handshake(_) => "handshake",
        Message::KeepAlive => "keep-alive",
        Message::Choke => "choke",
        Message::Unchoke => "unchoke",
        Message::Interested => "interested",
        Message::NotInterested => "not interested",
        Message::Have(_) => "have",
        Message::Bitfield(_) => "bitfield",
        Message::Request(_) => "request",
        Message::Piece { .. } => "block",
        Message::Cancel(_) => "cancel",
        Message::Port(_) => "port",
        Message::SuggestPiece(_) => "suggest piece",
        Message::HaveAll => "have all",
        Message::HaveNone => "have none",
        Message::RejectRequest(_) => "reject request",
        Message::AllowedFast(_) => "allowed fast",
        Message::ExtendedHandshake(_) => "extended handshake",
        Message::Extended { .. } => "extended",
        Message::Unknown(_) => "unknown",
    }
}

fn message(message: &Message) -> String {
    let kind = kind(message);
    match message {
        Message::Have(piece) | Message::SuggestPiece(piece) | Message::AllowedFast(piece) => {
            format!("{kind} {piece}")
        }
        Message::Request(of) | Message::Cancel(of) | Message::RejectRequest(of) => {
            format!("{kind} {} at {}, {} bytes", of.piece, of.begin, of.length)
        }
        Message::Piece { piece, begin, data } => {
            format!("{kind} of {piece} at {begin}, {} bytes", data.len())
        }
        Message::Extended { id, payload } => format!("{kind} {id}, {} bytes", payload.len()),
        Message::Unknown(id) => format!("{kind} {id}"),
        _ => kind.to_owned(),
    }
}

fn datagram(payload: &[u8]) -> String {
    let what = match Packet::parse(payload).map(|packet| packet.body) {
        Ok(Body::Query(query)) => match query.ask {
            Ask::Ping => "a ping of the DHT",
            Ask::FindNode { .. } => "find_node of the DHT",
            Ask::GetPeers { .. } => "get_peers of the DHT",
            Ask::AnnouncePeer { .. } => "announce_peer of the DHT",
            _ => "a query of the DHT",
        },
        Ok(Body::Response(_)) => "an answer of the DHT",
        Ok(_) => "an error of the DHT",
        Err(_) => "a datagram",
    };
    format!("{what}, {} bytes", payload.len())
}

fn job_words(job: &Job) -> String {
    match &job.work {
        Work::Open { .. } => "open the torrent".to_owned(),
        Work::LoadMetadata => "look for metadata".to_owned(),
        Work::SaveMetadata { .. } => "keep the metadata".to_owned(),
        Work::Check { pieces } => format!("check {}", several(pieces.len(), "piece", "s")),
        Work::Allocate { files } => format!("make room for {}", several(files.len(), "file", "s")),
        Work::Write { piece, runs, .. } => {
            format!(
                "write {} bytes of piece {piece}",
                runs.iter().map(|run| u64::from(run.bytes())).sum::<u64>()
            )
        }
        Work::Hash { pieces } => match &pieces[..] {
            [one] => format!("hash piece {}", one.piece),
            _ => format!("hash {} pieces", pieces.len()),
        },
        Work::Read { blocks } => format!("read {}", several(blocks.len(), "block", "s")),
        Work::Record { good, .. } => format!("record {}", several(good.len(), "good piece", "s")),
        Work::Snapshot { have, .. } => format!("save that {} pieces are here", have.count()),
        Work::Close => "close the torrent".to_owned(),
        Work::Look => "look whether all files are there".to_owned(),
    }
}

fn job_result(result: &JobResult) -> String {
    fn outcome<T>(what: &str, result: &Result<T, StorageError>) -> String {
        match result {
            Ok(_) => what.to_owned(),
            Err(error) => format!("not {what}: {}", error.kind),
        }
    }
    match result {
        JobResult::Opened(result) => outcome("opened", result),
        JobResult::MetadataLoaded(found) => format!("metadata found: {}", yes(found.is_some())),
        JobResult::MetadataSaved(result) => outcome("metadata kept", result),
        JobResult::Checked(Ok(good)) => {
            format!(
                "checked: {} of {} pieces are good",
                good.iter().filter(|good| **good).count(),
                good.len()
            )
        }
        JobResult::Checked(result) => outcome("checked", result),
        JobResult::Allocated(result) => outcome("allocated", result),
        JobResult::Written(result) => outcome("written", result),
        JobResult::Hashed(Ok(hashes)) => {
            format!(
                "hashed: {} of {} pieces are good",
                hashes.iter().filter(|hash| hash.good).count(),
                hashes.len()
            )
        }
        JobResult::Hashed(result) => outcome("hashed", result),
        JobResult::Read(result) => outcome("read", result),
        JobResult::Recorded(result) => outcome("recorded", result),
        JobResult::Saved(result) => outcome("saved", result),
        JobResult::Closed => "closed".to_owned(),
        JobResult::Looked(Ok(missing)) => format!("looked: {} files are missing or short", missing.len()),
        JobResult::Looked(result) => outcome("looked", result),
    }
}

/// Runs of messages of one kind that are said of one read or write.
const RUNS_SAID: usize = 6;
/// A label of a host's name that is longer could be a passkey.
const LABEL_BYTES_MAX: usize = 20;
/// An address has four in a label, or labels of digits alone.
const LABEL_DIGITS_MAX: usize = 4;
/// Last labels of names that only one network knows.
const LOCAL_DOMAINS: [&str; 8] =
    ["arpa", "corp", "home", "internal", "intranet", "lan", "local", "localdomain"];
/// Peers that are told apart.
const PEERS_MAX: usize = 10_000;
/// Connections that are over, and whose ends are known.
const OVER_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use taipei_engine::TorrentId;
    use taipei_engine::disk::StorageErrorKind;

    use super::*;

    #[test]
    fn an_error_of_the_disk_says_nothing_of_its_path() {
        let error = StorageError { path: "at-alices/films".to_owned(), kind: StorageErrorKind::Denied };
        let alert = Alert::DiskFailed { torrent: TorrentId(0), error: error.clone(), needed_bytes: None };
        assert_eq!(Names::default().alert(&alert), "waits for the disk: permission denied");
        assert_eq!(job_result(&JobResult::Saved(Err(error))), "not saved: permission denied");
    }

    #[test]
    fn more_peers_than_are_told_apart_share_a_name_and_connections_are_forgotten() {
        let mut names = Names::default();
        let address = |number: u32| SocketAddr::new(core::net::Ipv4Addr::from(number).into(), 1);
        for number in 0..PEERS_MAX as u32 + 5 {
            let (peer, connection) = (names.peer(address(number)), ConnectionId::accepted(number.into()));
            names.connect(connection, peer);
            names.disconnect(connection);
        }
        assert_eq!((names.peers.len(), names.connections.len()), (PEERS_MAX, OVER_MAX));
        assert_eq!((names.peer(address(3)), names.peer(address(1 << 30))), (3, PEERS_MAX));
        assert_eq!(peer_name(PEERS_MAX), "other peers");
    }

    #[test]
    fn a_url_says_how_and_at_whose_host() {
        for (url, shown) in [
            ("https://tracker.example:443/0123456789abcdef/announce?passkey=x", "https, tracker.example"),
            ("udp://user:secret@tracker.example:80", "udp, tracker.example"),
            ("http://0123456789abcdef0123456789abcdef.tracker.example/announce", "http, ***.tracker.example"),
            ("udp://192.0.2.7:6969/announce", "udp, a host by its address"),
            ("udp://[2001:db8::7]:6969/announce", "udp, a host by its address"),
            ("http://3221225991/announce", "http, a host by its address"),
            ("http://0xc0.0x2.0x0.0x7/announce", "http, a host by its address"),
            ("wss://<b>.example/", "unknown scheme, ***.example"),
            ("http://192-0-2-7.dyn.isp.example/announce", "http, ***.dyn.isp.example"),
            ("http://192.0.2.7.nip.example/announce", "http, ***.***.***.***.nip.example"),
            ("http://c0000207.example/announce", "http, ***.example"),
            ("udp://2.tracker2.example:80", "udp, ***.tracker2.example"),
            ("udp://[fe80::1%25eth0]:6969/announce", "udp, a host by its address"),
            ("udp://[abcd::ef]:6969/announce", "udp, a host by its address"),
            ("http://LOCALHOST:6969/announce", "http, LOCALHOST"),
            ("http://alices-laptop:6969/announce", "http, a host of a local network"),
            ("http://alices-laptop.LAN:6969/announce", "http, a host of a local network"),
            ("nonsense", "unknown scheme, a host of a local network"),
            ("", "unknown scheme, a host of a local network"),
        ] {
            assert_eq!(url_shown(url), shown, "{url}");
        }
    }
}
