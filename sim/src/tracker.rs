//! A tracker as an actor: the engine's own pure tracker, except where a script says otherwise.

use core::net::SocketAddr;

use bytes::Bytes;
use taipei_engine::Instant;
use taipei_engine::rng::Rng;
use taipei_engine::tracker_server::{TrackerConfig, TrackerServer};
use taipei_engine::wire::tracker_udp::{UdpAnswer, UdpRequest};

use crate::plan::{Plan, TrackerPlan};
use crate::scenario::{Answer, Outage};

/// A tracker of a run.
#[derive(Debug)]
pub struct TrackerActor {
    script: Vec<Answer>,
    asked: usize,
    server: TrackerServer,
    outage: Option<Outage>,
    /// Requests that the outage met.
    unserved: u64,
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Nanoseconds that it takes to think.
    pub after: u64,
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

impl TrackerActor {
    /// All trackers of a plan, without peers.
    pub fn all(plan: &Plan) -> Vec<Self> {
        (0u64..).zip(&plan.trackers).map(|(number, tracker)| Self::new(tracker, plan.seed, number)).collect()
    }

    fn new(plan: &TrackerPlan, seed: u64, number: u64) -> Self {
        let server = TrackerServer::new(TrackerConfig::default(), Rng::stream(seed, "tracker", number));
        Self { script: plan.script.clone(), asked: 0, server, outage: None, unserved: 0 }
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

    /// Answers a GET of `path` from `from`, at `now` nanoseconds since the world began; none for never.
    pub fn answer(&mut self, now: u64, from: SocketAddr, path: &str) -> Option<Reply> {
        if self.outage.is_some() {
            self.unserved += 1;
            return None;
        }
        Some(self.reply(now, from, path))
    }

    fn reply(&mut self, now: u64, from: SocketAddr, path: &str) -> Reply {
        let step = self.next_step();
        if let Some(Answer::Status(status)) = step {
            return Reply { after: 0, status, body: Bytes::new() };
        }
        let (status, body) = self.server.handle_http(Instant(now), from, path);
        match step {
            Some(Answer::Hang(after)) => Reply { after, status, body },
            Some(Answer::Ok { interval, min }) => {
                let body = with_integer(&body, b"8:interval", interval);
                Reply { after: 0, status, body: with_integer(&body, b"12:min interval", min) }
            }
            _ => Reply { after: 0, status, body },
        }
    }
}

impl TrackerActor {
    /// Answers a datagram: how long it thinks, and the packet; none where it is silent. The script is about announces.
    pub fn answer_datagram(&mut self, now: u64, from: SocketAddr, packet: &[u8]) -> Option<(u64, Bytes)> {
        if self.outage.is_some() {
            self.unserved += 1;
            return None;
        }
        let is_announce = matches!(UdpRequest::parse(packet), Some(UdpRequest::Announce { .. }));
        let step = if is_announce { self.next_step() } else { None };
        if let Some(Answer::Status(_)) = step {
            return None;
        }
        let mut answer = self.server.handle_udp(Instant(now), from, packet)?;
        match (step, UdpAnswer::parse(&answer, from.is_ipv6())) {
            (Some(Answer::Hang(after)), _) => return Some((after, answer.into())),
            (
                Some(Answer::Ok { interval: Some(interval), .. }),
                Some(UdpAnswer::Announced { transaction, leechers, seeders, peers, .. }),
            ) => {
                let changed = UdpAnswer::Announced { transaction, interval, leechers, seeders, peers };
                answer = changed.encode(from.is_ipv6());
            }
            _ => {}
        }
        Some((0, answer.into()))
    }

    fn next_step(&mut self) -> Option<Answer> {
        let step = self.script.get(self.asked).or(self.script.last()).copied();
        self.asked += 1;
        step
    }
}

/// An answer of our own tracker with the integer after `key` changed, if there is one and it is to be changed.
fn with_integer(body: &Bytes, key: &[u8], value: Option<u32>) -> Bytes {
    let Some(value) = value else { return body.clone() };
    let Some(at) = body.windows(key.len()).position(|window| window == key) else { return body.clone() };
    let (before, after) = body.split_at(at + key.len());
    let Some(end) = after.iter().position(|byte| *byte == b'e') else { return body.clone() };
    [before, format!("i{value}").as_bytes(), &after[end..]].concat().into()
}

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
        assert_eq!(ask(), Reply { after: 0, status: 500, body: Bytes::new() });
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
