//! A tracker as an actor: it does its work, except where its script says otherwise.

use core::net::{IpAddr, SocketAddr};
use std::collections::BTreeMap;

use crate::plan::TrackerPlan;
use crate::scenario::Answer;

/// A tracker of a run.
#[derive(Debug)]
pub struct TrackerActor {
    script: Vec<Answer>,
    asked: usize,
    swarms: BTreeMap<String, BTreeMap<SocketAddr, bool>>,
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Nanoseconds that it takes to think.
    pub after: u64,
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl TrackerActor {
    /// Without peers.
    pub fn new(plan: &TrackerPlan) -> Self {
        Self { script: plan.script.clone(), asked: 0, swarms: BTreeMap::new() }
    }

    /// Answers a GET of `path` from `from`, at `now` nanoseconds.
    pub fn answer(&mut self, _now: u64, from: IpAddr, path: &str) -> Reply {
        let step = self.script.get(self.asked).or(self.script.last()).copied();
        self.asked += 1;
        match step.unwrap_or(Answer::Ok { interval: None, min: None }) {
            Answer::Ok { interval, min } => Reply { after: 0, status: 200, body: self.announce(from, path, interval, min) },
            Answer::Status(status) => Reply { after: 0, status, body: Vec::new() },
            Answer::Hang(after) => Reply { after, status: 200, body: self.announce(from, path, None, None) },
        }
    }

    fn announce(&mut self, from: IpAddr, path: &str, interval: Option<u32>, min: Option<u32>) -> Vec<u8> {
        let query = path.split_once('?').map_or("", |(_, query)| query);
        let field = |name: &str| {
            query.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name)).map(|(_, value)| value)
        };
        let Some(port) = field("port").and_then(|port| port.parse().ok()) else {
            return b"d14:failure reason7:no porte".to_vec();
        };
        let me = SocketAddr::new(from, port);
        let swarm = self.swarms.entry(field("info_hash").unwrap_or_default().to_owned()).or_default();
        if field("event") == Some("stopped") {
            swarm.remove(&me);
        } else {
            swarm.insert(me, field("left") == Some("0"));
        }
        let peers: Vec<u8> = swarm
            .keys()
            .filter(|peer| **peer != me)
            .filter_map(|peer| match peer.ip() {
                IpAddr::V4(ip) => Some([ip.octets().as_slice(), &peer.port().to_be_bytes()].concat()),
                IpAddr::V6(_) => None,
            })
            .flatten()
            .collect();
        let (interval, min) = (interval.unwrap_or(INTERVAL_SECONDS), min.unwrap_or(MIN_INTERVAL_SECONDS));
        let mut body = format!("d8:intervali{interval}e12:min intervali{min}e5:peers{}:", peers.len()).into_bytes();
        body.extend_from_slice(&peers);
        body.push(b'e');
        body
    }
}

const INTERVAL_SECONDS: u32 = 1800;
const MIN_INTERVAL_SECONDS: u32 = 30;
