//! A node of the DHT among others that say anything in any order: questions, answers to what it asked, silence.
//!
//! It never panics, and sends no more than five bytes for one to whoever never answered it.
#![no_main]

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use taipei_engine::dht::item::{Item, ItemName};
use taipei_engine::dht::{Announce, Dht, Goal};
use taipei_engine::wire::krpc::Packet;
use taipei_engine::{InfoHash, Instant, NodeId};

fuzz_target!(|data: &[u8]| {
    let mut now = Instant::START;
    let mut dht = Dht::new(now, 1, (true, true), false);
    let mut asked: VecDeque<(SocketAddr, Vec<u8>)> = VecDeque::new();
    let mut answered = BTreeSet::new();
    let mut rest = data;
    for _ in 0..200 {
        let Some((&[what, whose, length], more)) = rest.split_first_chunk::<3>() else { break };
        let (payload, after) = more.split_at(more.len().min(4 * usize::from(length)));
        rest = after;
        let from = address(whose);
        match what % 6 {
            0 => {
                let answer = dht.handle_datagram(now, from, payload).map_or(0, |answer| answer.len());
                let max = if answered.contains(&from) { 1200 } else { 5 * payload.len() };
                assert!(answer <= max, "{answer} bytes for {}", payload.len());
            }
            1 => {
                // An answer, whatever it says, to the question that waits longest.
                if let Some((to, transaction)) = asked.pop_front() {
                    answered.insert(to);
                    let id = [whose; 20];
                    let head = [b"d1:rd2:id20:", &id[..]].concat();
                    let tail = [b"e1:t4:", &transaction[..], b"1:y1:re"].concat();
                    dht.handle_datagram(now, to, &[&head[..], payload, &tail[..]].concat());
                }
            }
            2 => {
                now = now + Duration::from_millis(u64::from(length) * u64::from(whose) * 10);
                if dht.poll_timeout().is_some_and(|due| due <= now) {
                    dht.handle_timeout(now);
                }
            }
            3 => dht.add_node(now, from),
            4 => {
                let point = [whose; 20];
                let announce = Some(Announce { port: 1, implied_port: false, seed: false });
                let goal = match length % 5 {
                    0 => Goal::Nodes { target: NodeId(point) },
                    1 => Goal::Peers { info_hash: InfoHash(point), announce },
                    2 => Goal::InfoHashes { target: NodeId(point) },
                    3 => Goal::Item { name: ItemName::Immutable { target: NodeId(point) } },
                    _ => {
                        let Ok(item) = Item::immutable(b"i1e".to_vec()) else { break };
                        Goal::Put { name: ItemName::of(&item), item: Box::new(item), cas: None }
                    }
                };
                dht.search(now, goal);
            }
            _ => dht.renew(now),
        }
        while let Some((to, packet)) = dht.poll_packet() {
            let Ok(packet) = Packet::parse(&packet) else { panic!("it sent what it cannot read") };
            asked.push_back((to, packet.transaction));
        }
        while dht.poll_event().is_some() {}
    }
});

fn address(whose: u8) -> SocketAddr {
    if whose.is_multiple_of(4) {
        ([0x2001, 0xdb8, 0, u16::from(whose), 0, 0, 0, 1], 6881).into()
    } else {
        ([93, whose, 184, whose], 6881).into()
    }
}
