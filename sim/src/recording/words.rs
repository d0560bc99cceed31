//! What happens in a recording, in words that name nobody.

use core::net::{IpAddr, SocketAddr};
use std::collections::BTreeMap;
use std::fmt::Write as _;

use taipei_engine::disk::{Job, JobResult, StorageError, Work};
use taipei_engine::output::HttpGet;
use taipei_engine::wire::Message;
use taipei_engine::wire::krpc::{Ask, Body, Packet};
use taipei_engine::{Alert, Command, ConnectionId, Input, Output};

/// What everybody is called instead of their addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    peers: BTreeMap<SocketAddr, usize>,
    connections: BTreeMap<ConnectionId, usize>,
    trackers: BTreeMap<String, usize>,
}

impl Names {
    /// The number of a peer; a new one where this address was never met.
    pub(super) fn peer(&mut self, address: SocketAddr) -> usize {
        let next = self.peers.len();
        *self.peers.entry(address).or_insert(next)
    }

    /// Who is at the other end from now on.
    pub(super) fn connect(&mut self, connection: ConnectionId, peer: usize) {
        self.connections.insert(connection, peer);
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
                format!("a name has {} addresses", addresses.len())
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
            Command::AddPeers { peers, .. } => format!("connect to {} peers", peers.len()),
            Command::SetPriorities { .. } => "want other files".to_owned(),
            Command::SetLimits { .. } => "keep other limits".to_owned(),
            Command::Unban { address } => format!("talk to {} again", self.of_address(*address)),
            Command::Scrape { .. } => "scrape a tracker".to_owned(),
            Command::AddDhtNodes { nodes } => format!("know {} nodes of the DHT", nodes.len()),
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
            Alert::StateChanged { torrent, state } => format!("torrent {} is now {state:?}", torrent.0),
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
                    Ok(peers) => format!("{name} named {peers} peers"),
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
    format!("peer-{}", peer + 1)
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

/// The name of a host. One that is an address, or has a label that could be a passkey, is left out.
fn host_shown(host: &str) -> String {
    let is_name = |label: &str| {
        (1..LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let host = host.trim_end_matches('.');
    let ends_in_letters =
        host.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_alphabetic()));
    let is_address = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    if is_address || !ends_in_letters {
        return "a host by its address".to_owned();
    }
    let labels = host.split('.').map(|label| if is_name(label) { label } else { "***" });
    labels.collect::<Vec<_>>().join(".")
}

fn server(get: &HttpGet) -> String {
    format!("{} over {}", host_shown(&get.host), if get.tls { "https" } else { "http" })
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
        Work::Check { pieces } => format!("check {} pieces", pieces.len()),
        Work::Allocate { files } => format!("make room for {} files", files.len()),
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
        Work::Read { blocks } => format!("read {} blocks", blocks.len()),
        Work::Record { good, .. } => format!("record {} good pieces", good.len()),
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
            ("nonsense", "unknown scheme, nonsense"),
            ("", "unknown scheme, ***"),
        ] {
            assert_eq!(url_shown(url), shown, "{url}");
        }
    }
}
