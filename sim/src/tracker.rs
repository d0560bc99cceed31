//! A tracker as an actor: the engine's own pure tracker, except where a script says otherwise.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use taipei_engine::limits::TRACKER_BODY_BYTES_MAX;
use taipei_engine::rng::Rng;
use taipei_engine::tracker_server::{TrackerConfig, TrackerServer};
use taipei_engine::wire::tracker_http::{AnnounceAnswer, AnnounceRequest, Announced, PeersForm, TrackerPeer};
use taipei_engine::wire::tracker_udp::{UdpAnswer, UdpRequest};
use taipei_engine::{InfoHash, Instant, PeerId};

use crate::plan::{PEER_PORT, Plan, TrackerPlan};
use crate::scenario::{Answer, Outage, Plain};

/// A tracker of a run.
#[derive(Debug)]
pub struct TrackerActor {
    script: Vec<Answer>,
    /// How many requests the script has had, and to how many of them it had something else to say than a plain answer.
    asked: usize,
    misanswered: u64,
    server: TrackerServer,
    rng: Rng,
    outage: Option<Outage>,
    /// Requests that the outage met.
    unserved: u64,
}

/// What it answers over HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// Nanoseconds that it takes to think.
    pub after: u64,
    /// The status code.
    pub status: u16,
    /// Where it redirects to.
    pub location: Option<String>,
    /// The body.
    pub body: Bytes,
    /// Whether the body is compressed.
    pub gzip: bool,
    /// Whether the connection ends before the body does.
    pub cut: bool,
}

/// What it answers to a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Nanoseconds that it takes to think.
    pub after: u64,
    /// All of it.
    pub payload: Bytes,
    /// Whether it comes from another port than was asked.
    pub from_elsewhere: bool,
}

impl TrackerActor {
    /// All trackers of a plan, without peers.
    pub fn all(plan: &Plan) -> Vec<Self> {
        (0u64..).zip(&plan.trackers).map(|(number, tracker)| Self::new(tracker, plan.seed, number)).collect()
    }

    fn new(plan: &TrackerPlan, seed: u64, number: u64) -> Self {
        let server = TrackerServer::new(TrackerConfig::default(), Rng::stream(seed, "tracker", number));
        let times = |answer: &Answer| if let Answer::Drop(count) = answer { *count } else { 1 };
        let script = plan.script.iter();
        Self {
            script: script
                .flat_map(|answer| std::iter::repeat_n(answer.clone(), times(answer) as usize))
                .collect(),
            asked: 0,
            misanswered: 0,
            server,
            rng: Rng::stream(seed, "tracker-script", number),
            outage: None,
            unserved: 0,
        }
    }

    /// It is away from now on.
    pub fn go_away(&mut self, how: Outage) {
        (self.outage, self.unserved) = (Some(how), 0);
    }

    /// It is back. Gives how many requests it did not serve meanwhile.
    pub fn come_back(&mut self) -> u64 {
        self.outage = None;
        self.unserved
    }

    /// Somebody connects: whether nobody listens.
    pub fn refuses(&mut self) -> bool {
        let refuses = self.outage == Some(Outage::Refuse);
        self.unserved += u64::from(refuses);
        refuses
    }

    /// To how many requests its script had something else to say than a plain answer.
    pub fn misanswered(&self) -> u64 {
        self.misanswered
    }

    /// Puts a puppet on its list, past any script and outage. Gives who is there.
    pub fn enlist(
        &mut self,
        now: u64,
        from: IpAddr,
        peer_id: PeerId,
        info_hash: InfoHash,
        left: u64,
    ) -> Vec<SocketAddr> {
        let announce = AnnounceRequest {
            info_hash,
            peer_id,
            port: PEER_PORT,
            uploaded: 0,
            downloaded: 0,
            left,
            event: None,
            numwant: None,
            key: None,
            compact: Some(true),
            no_peer_id: true,
            tracker_id: None,
            ip: None,
        };
        let path = announce.path_and_query("/announce", None);
        self.server.handle_http(Instant(now), SocketAddr::new(from, PEER_PORT), &path);
        self.server.peers(info_hash).collect()
    }

    /// Answers a GET of `path` from `from`, at `now` nanoseconds since the world began; none for never. The script is
    /// about announces.
    pub fn answer(&mut self, now: u64, from: SocketAddr, path: &str) -> Option<Reply> {
        if self.outage.is_some() {
            self.unserved += 1;
            return None;
        }
        let step = if path.starts_with("/announce") { self.next_step() } else { None };
        let empty = |status| Reply { status, ..Reply::default() };
        match &step {
            Some(Answer::Drop(_)) => return None,
            Some(Answer::Status(status)) => return Some(empty(*status)),
            Some(Answer::Redirect(status, location)) => {
                return Some(Reply { location: Some(location.clone()), ..empty(*status) });
            }
            Some(Answer::Error(reason)) => {
                let refused = AnnounceAnswer::Refused { reason: reason.clone(), retry: None };
                let body = refused.encode(PeersForm::Compact).into();
                return Some(Reply { body, ..empty(200) });
            }
            _ => {}
        }
        let (status, body) = self.server.handle_http(Instant(now), from, path);
        let mut reply = Reply { body, ..empty(status) };
        match step {
            Some(Answer::Hang(after)) => reply.after = after,
            Some(Answer::Plain(plain)) => self.spoil(&mut reply, plain, from),
            Some(Answer::Ok { interval, min }) => {
                reply.body = changed(&reply.body, |announced| {
                    announced.interval = interval.or(announced.interval);
                    announced.min_interval = min.or(announced.min_interval);
                });
            }
            Some(Answer::Warn(warning)) => {
                reply.body = changed(&reply.body, |announced| announced.warning = Some(warning));
            }
            Some(Answer::Crowd(count)) => {
                let crowd = self.crowd(count);
                reply.body = changed(&reply.body, |announced| add(announced, crowd));
            }
            _ => {}
        }
        Some(reply)
    }

    /// Makes of a proper answer one that is not.
    fn spoil(&mut self, reply: &mut Reply, plain: Plain, from: SocketAddr) {
        match plain {
            Plain::Garbage => reply.body = self.noise(GARBAGE_BYTES),
            Plain::Truncated => reply.body.truncate(reply.body.len() / 2),
            Plain::WrongTypes => reply.body = Bytes::from_static(WRONG_TYPES),
            Plain::DeepNesting => {
                let nested = [vec![b'l'; DEPTH], vec![b'e'; DEPTH]].concat();
                reply.body = [&b"d5:peers"[..], &nested, b"e"].concat().into();
            }
            Plain::FalsePeers => {
                let false_peers = self.false_peers(from.ip());
                reply.body = changed(&reply.body, |announced| add(announced, false_peers));
            }
            Plain::Huge => reply.body = vec![b'x'; 2 * TRACKER_BODY_BYTES_MAX as usize].into(),
            Plain::CloseEarly => reply.cut = true,
            Plain::Gzip => (reply.body, reply.gzip) = (compressed(&reply.body), true),
            Plain::GzipBomb => {
                let zeroes = vec![0; 16 * TRACKER_BODY_BYTES_MAX as usize];
                (reply.body, reply.gzip) = (compressed(&zeroes), true);
            }
            Plain::WrongTransaction | Plain::FromElsewhere => {}
        }
    }

    /// Answers a datagram; none where it is silent. The script is about announces.
    pub fn answer_datagram(&mut self, now: u64, from: SocketAddr, packet: &[u8]) -> Option<Packet> {
        if self.outage.is_some() {
            self.unserved += 1;
            return None;
        }
        let is_announce = matches!(UdpRequest::parse(packet), Some(UdpRequest::Announce { .. }));
        let step = if is_announce { self.next_step() } else { None };
        if matches!(step, Some(Answer::Status(_) | Answer::Drop(_))) {
            return None;
        }
        let answer = self.server.handle_udp(Instant(now), from, packet)?;
        let mut packet = Packet { after: 0, payload: answer.into(), from_elsewhere: false };
        let parsed = UdpAnswer::parse(&packet.payload, from.is_ipv6());
        let Some(UdpAnswer::Announced { mut transaction, mut interval, leechers, seeders, mut peers }) =
            parsed
        else {
            return Some(packet);
        };
        match step {
            Some(Answer::Hang(after)) => packet.after = after,
            Some(Answer::Ok { interval: Some(seconds), .. }) => interval = seconds as u32,
            Some(Answer::Error(message)) => {
                let failed = UdpAnswer::Failed { transaction, message };
                return Some(Packet { payload: failed.encode(from.is_ipv6()).into(), ..packet });
            }
            Some(Answer::Crowd(count)) => peers.extend(self.crowd(count.min(UDP_CROWD_MAX))),
            Some(Answer::Plain(Plain::FalsePeers)) => peers.extend(self.false_peers(from.ip())),
            Some(Answer::Plain(Plain::WrongTransaction)) => transaction = transaction.wrapping_add(1),
            Some(Answer::Plain(Plain::FromElsewhere)) => packet.from_elsewhere = true,
            Some(Answer::Plain(Plain::Garbage)) => {
                return Some(Packet { payload: self.noise(GARBAGE_BYTES), ..packet });
            }
            Some(Answer::Plain(Plain::Truncated)) => {
                packet.payload.truncate(UDP_TRUNCATED_BYTES);
                return Some(packet);
            }
            _ => {}
        }
        let answer = UdpAnswer::Announced { transaction, interval, leechers, seeders, peers };
        packet.payload = answer.encode(from.is_ipv6()).into();
        Some(packet)
    }

    fn next_step(&mut self) -> Option<Answer> {
        let step = self.script.get(self.asked).or(self.script.last()).cloned();
        self.asked += 1;
        let is_plain = matches!(step, None | Some(Answer::Ok { interval: None, min: None }));
        self.misanswered += u64::from(!is_plain);
        step
    }

    fn noise(&mut self, length: usize) -> Bytes {
        let mut bytes = vec![0; length];
        self.rng.fill(&mut bytes);
        bytes.into()
    }

    /// Public addresses where nobody is.
    fn crowd(&mut self, count: u32) -> Vec<SocketAddr> {
        let mut one = |_| {
            let [a, b, c, ..] = self.rng.next_u32().to_be_bytes();
            SocketAddr::new(Ipv4Addr::new(203, a, b, c).into(), PEER_PORT)
        };
        (0..count).map(&mut one).collect()
    }

    /// What no tracker should say of anybody.
    fn false_peers(&mut self, asker: IpAddr) -> Vec<SocketAddr> {
        let nowhere = self.crowd(3);
        let places = [
            "0.0.0.0:6881",
            "127.0.0.1:6881",
            "127.0.0.1:22",
            "10.0.0.1:6881",
            "192.168.1.1:80",
            "169.254.169.254:80",
            "224.0.0.251:5353",
            "255.255.255.255:6881",
            "93.0.1.1:0",
        ];
        let places = places.iter().map(|place| place.parse().expect("an address"));
        places.chain(nowhere).chain([SocketAddr::new(asker, PEER_PORT)]).collect()
    }
}

/// An answer of our own tracker with something about it changed, if it took the announce.
fn changed(body: &Bytes, change: impl FnOnce(&mut Announced)) -> Bytes {
    match AnnounceAnswer::parse(body) {
        Ok(AnnounceAnswer::Taken(mut announced)) => {
            change(&mut announced);
            AnnounceAnswer::Taken(announced).encode(PeersForm::Compact).into()
        }
        _ => body.clone(),
    }
}

fn add(announced: &mut Announced, peers: Vec<SocketAddr>) {
    announced.peers.extend(peers.into_iter().map(|address| TrackerPeer { address, peer_id: None }));
}

fn compressed(body: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let done = encoder.write_all(body).and_then(|()| encoder.finish());
    done.expect("a vector takes all").into()
}

const GARBAGE_BYTES: usize = 500;
const WRONG_TYPES: &[u8] =
    b"d15:failure reasonli1ee8:intervall1:xe12:min interval3:abc5:peersi7e10:tracker iddee";
const DEPTH: usize = 10_000;
/// What fits a datagram.
const UDP_CROWD_MAX: u32 = 10_000;
/// Less than the fixed part of an answer.
const UDP_TRUNCATED_BYTES: usize = 14;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Materials;
    use crate::scenario::Scenario;

    #[test]
    fn a_script_goes_before_the_work_and_its_last_entry_stays() {
        let scenario = Scenario::parse(
            r#"
            [scenario]
            id = "tracker"
            duration = "1 s"
            [[torrent]]
            name = "a"
            size = "1 MiB"
            [[group]]
            name = "h"
            count = 1
            [[actor]]
            kind = "tracker"
            name = "t"
            script = ["500", "hang 40 s", "ok interval=77 min=7"]
            "#,
            "tracker.toml",
        )
        .expect("parses");
        let materials = Materials::new(scenario);
        let plan = Plan::new(&materials.scenario, 1);
        let mut tracker = TrackerActor::all(&plan).pop().expect("one");
        let info_hash: String =
            materials.torrents[0].info_hash.0.iter().map(|byte| format!("%{byte:02x}")).collect();
        let path = format!(
            "/announce?info_hash={info_hash}&peer_id=-TP0000-abcdefghijkl&port=6881&uploaded=0&downloaded=0&left=5&compact=1&event=started"
        );
        let from = SocketAddr::new(plan.hosts[0].address, 40_000);
        let mut ask = || tracker.answer(0, from, &path).expect("it is there");
        assert_eq!(ask(), Reply { status: 500, ..Reply::default() });
        assert_eq!(ask().after, 40_000_000_000);
        for _ in 0..2 {
            let body = ask().body;
            let text = String::from_utf8_lossy(&body);
            assert!(text.contains("8:intervali77e") && text.contains("12:min intervali7e"), "{text}");
        }
        tracker.go_away(Outage::Hang);
        assert_eq!(
            (tracker.refuses(), tracker.answer(0, from, &path), tracker.come_back()),
            (false, None, 1)
        );
        tracker.go_away(Outage::Refuse);
        assert_eq!((tracker.refuses(), tracker.come_back(), tracker.refuses()), (true, 1, false));
    }
}
