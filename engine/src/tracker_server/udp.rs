//! Answers over UDP (BEP 15).
//!
//! A connection id is a keyed hash of the asker's address and the time, so nothing is kept for those who never come
//! back, and nobody but who is at an address can use its id. Until then an answer is no longer than the request.

use core::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sha1::{Digest as _, Sha1};

use super::{Families, TrackerServer};
use crate::time::Instant;
use crate::wire::tracker_udp::{UdpAnswer, UdpRequest, peers_in_answer};

impl TrackerServer {
    /// Answers a datagram; none where no answer is due. `from` is who sent it, an IPv4 address in IPv4 form.
    pub fn handle_udp(&mut self, now: Instant, from: SocketAddr, packet: &[u8]) -> Option<Vec<u8>> {
        let ipv6 = from.is_ipv6();
        let answer = match UdpRequest::parse(packet)? {
            UdpRequest::Connect { transaction } => {
                let connection_id = self.connection_id(from, period(now));
                UdpAnswer::Connected { transaction, connection_id }
            }
            UdpRequest::Announce { connection_id, transaction, .. }
            | UdpRequest::Scrape { connection_id, transaction, .. }
                if !self.is_connected(now, from, connection_id) =>
            {
                UdpAnswer::Failed { transaction, message: "connect first".to_owned() }
            }
            UdpRequest::Announce { transaction, announce, .. } => {
                self.forget_silent(now);
                let families = if ipv6 { Families::V6 } else { Families::V4 };
                let most = self.config.numwant_max.min(peers_in_answer(ipv6) as u32);
                match self.take(now, from, &announce, families, most) {
                    Err(refusal) => UdpAnswer::Failed { transaction, message: refusal.to_string() },
                    Ok(taken) => UdpAnswer::Announced {
                        transaction,
                        interval: u32::try_from(self.config.interval.as_secs()).unwrap_or(u32::MAX),
                        leechers: figure(taken.incomplete),
                        seeders: figure(taken.complete),
                        peers: taken.peers.into_iter().map(|peer| peer.address).collect(),
                    },
                }
            }
            UdpRequest::Scrape { transaction, info_hashes, .. } => {
                self.forget_silent(now);
                let entries = info_hashes.into_iter().map(|hash| self.scraped(hash).unwrap_or_default());
                UdpAnswer::Scraped { transaction, entries: entries.collect() }
            }
        };
        Some(answer.encode(ipv6))
    }

    /// Good from the begin of a period to the end of the next.
    fn connection_id(&self, to: SocketAddr, period: u64) -> u64 {
        let ip = match to.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let hash = Sha1::new()
            .chain_update(self.secret)
            .chain_update(ip.octets())
            .chain_update(to.port().to_be_bytes())
            .chain_update(period.to_be_bytes())
            .finalize();
        hash.iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte))
    }

    fn is_connected(&self, now: Instant, from: SocketAddr, connection_id: u64) -> bool {
        let period = period(now);
        [period, period.wrapping_sub(1)].iter().any(|one| self.connection_id(from, *one) == connection_id)
    }
}

fn period(now: Instant) -> u64 {
    now.since(Instant::START).as_secs() / PERIOD.as_secs()
}

fn figure(count: Option<i64>) -> u32 {
    count.map_or(0, |count| u32::try_from(count).unwrap_or(u32::MAX))
}

/// A connection id holds for two minutes at least (BEP 15), four at most.
const PERIOD: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{InfoHash, PeerId};
    use crate::rng::Rng;
    use crate::tracker_server::TrackerConfig;
    use crate::wire::tracker_http::AnnounceRequest;

    struct World {
        server: TrackerServer,
        now: Instant,
    }

    impl World {
        fn new() -> Self {
            let server = TrackerServer::new(TrackerConfig::default(), Rng::stream(6, "tracker", 0));
            Self { server, now: Instant::START }
        }

        fn ask(&mut self, from: &str, request: &UdpRequest) -> UdpAnswer {
            let from: SocketAddr = from.parse().unwrap();
            let answer = self.server.handle_udp(self.now, from, &request.encode()).unwrap();
            UdpAnswer::parse(&answer, from.is_ipv6()).unwrap()
        }

        fn connect(&mut self, from: &str) -> u64 {
            match self.ask(from, &UdpRequest::Connect { transaction: 1 }) {
                UdpAnswer::Connected { transaction: 1, connection_id } => connection_id,
                other => panic!("{other:?}"),
            }
        }

        /// The peers given to who announces with an id.
        fn announce(
            &mut self,
            from: &str,
            connection_id: u64,
            numwant: Option<u32>,
        ) -> Result<Vec<String>, String> {
            let port = from.parse::<SocketAddr>().unwrap().port();
            let announce = AnnounceRequest {
                info_hash: InfoHash([1; 20]),
                peer_id: PeerId([port as u8; 20]),
                port,
                uploaded: 0,
                downloaded: 0,
                left: 5,
                event: None,
                numwant,
                key: None,
                compact: None,
                no_peer_id: false,
                tracker_id: None,
                ip: None,
            };
            let announce = Box::new(announce);
            let request =
                UdpRequest::Announce { connection_id, transaction: 2, announce, url_data: Vec::new() };
            match self.ask(from, &request) {
                UdpAnswer::Announced { interval: 1800, peers, .. } => {
                    Ok(peers.iter().map(SocketAddr::to_string).collect())
                }
                UdpAnswer::Failed { message, .. } => Err(message),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn who_connected_is_answered_with_peers_of_its_family() {
        let mut world = World::new();
        for (from, want) in [
            ("1.1.1.1:1", vec![]),
            ("2.2.2.2:2", vec!["1.1.1.1:1"]),
            ("[2001:db8::3]:3", vec![]),
            ("[2001:db8::4]:4", vec!["[2001:db8::3]:3"]),
        ] {
            let id = world.connect(from);
            assert_eq!(world.announce(from, id, None).unwrap(), want, "{from}");
        }
        let request = |connection_id| UdpRequest::Scrape {
            connection_id,
            transaction: 3,
            info_hashes: vec![InfoHash([1; 20]), InfoHash([2; 20])],
        };
        let id = world.connect("9.9.9.9:9");
        let UdpAnswer::Scraped { entries, .. } = world.ask("9.9.9.9:9", &request(id)) else { panic!() };
        assert_eq!(entries.iter().map(|one| one.incomplete).collect::<Vec<_>>(), [4, 0]);
    }

    #[test]
    fn an_id_holds_for_its_address_and_for_some_minutes() {
        let mut world = World::new();
        let id = world.connect("1.1.1.1:1");
        assert!(world.announce("1.1.1.1:1", id ^ 1, None).is_err());
        assert!(world.announce("1.1.1.1:2", id, None).is_err());
        assert!(world.announce("1.1.1.2:1", id, None).is_err());
        world.now = world.now + Duration::from_secs(120);
        assert!(world.announce("1.1.1.1:1", id, None).is_ok());
        world.now = world.now + Duration::from_secs(120);
        assert!(world.announce("1.1.1.1:1", id, None).is_err());
    }

    #[test]
    fn who_did_not_prove_its_address_gets_no_more_than_it_sent() {
        let mut world = World::new();
        let from = "1.1.1.1:1".parse().unwrap();
        for request in [
            UdpRequest::Connect { transaction: 1 },
            UdpRequest::Scrape { connection_id: 1, transaction: 2, info_hashes: vec![InfoHash([1; 20])] },
        ] {
            let packet = request.encode();
            let answer = world.server.handle_udp(world.now, from, &packet).unwrap();
            assert!(answer.len() <= packet.len());
        }
        assert_eq!(world.server.handle_udp(world.now, from, b"hello, is anybody there?"), None);
    }

    #[test]
    fn an_answer_fits_one_packet_everywhere() {
        let mut world = World::new();
        for port in 1..=300 {
            let from = format!("[2001:db8::{port:x}]:{port}");
            let id = world.connect(&from);
            world.announce(&from, id, None).unwrap();
        }
        let id = world.connect("[2001:db8:1::1]:999");
        let peers = world.announce("[2001:db8:1::1]:999", id, Some(1000)).unwrap();
        assert_eq!(peers.len(), peers_in_answer(true), "all different, and no more than fit");
        assert_eq!(peers.iter().collect::<std::collections::BTreeSet<_>>().len(), peers.len());
    }
}
