//! Vectors of BEP 6 and BEP 40, all of the file.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use data_encoding::HEXLOWER;
use serde::Deserialize;

use super::candidates::priority;
use super::swarm::allowed_fast_set;
use crate::ids::{InfoHash, PieceIndex};
use crate::metainfo::layout::{Layout, ListedFile};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vectors {
    allowed_fast: Vec<AllowedFast>,
    peer_priority: Vec<Priority>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AllowedFast {
    ip: Ipv4Addr,
    info_hash: String,
    num_pieces: u32,
    set: Vec<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Priority {
    a: IpAddr,
    b: IpAddr,
    #[serde(default)]
    port_a: u16,
    #[serde(default)]
    port_b: u16,
    priority: String,
}

fn vectors() -> Vectors {
    let text = include_str!("../../../tests/fixtures/torrents/vectors/bep6-bep40.toml");
    toml::from_str(text).unwrap()
}

#[test]
fn allowed_fast_sets_are_those_of_the_vectors() {
    let all = vectors().allowed_fast;
    assert!(!all.is_empty());
    for AllowedFast { ip, info_hash, num_pieces, set } in all {
        let info_hash = HEXLOWER.decode(info_hash.as_bytes()).unwrap();
        let info_hash = InfoHash(info_hash.try_into().unwrap());
        let path = crate::metainfo::StoragePath::state("x");
        let layout =
            Layout::new(16384, vec![ListedFile::plain(path, u64::from(num_pieces) * 16384)]).unwrap();
        let found = allowed_fast_set(ip.octets(), info_hash, &layout, set.len());
        assert_eq!(found.into_iter().map(PieceIndex::get).collect::<Vec<_>>(), set);
    }
}

#[test]
fn priorities_are_those_of_the_vectors() {
    let all = vectors().peer_priority;
    assert!(all.iter().any(|one| one.port_a != one.port_b), "one is about ports");
    for Priority { a, b, port_a, port_b, priority: expected } in all {
        let (a, b) = (SocketAddr::new(a, port_a), SocketAddr::new(b, port_b));
        let expected = u32::from_str_radix(expected.trim_start_matches("0x"), 16).unwrap();
        assert_eq!((priority(a, b), priority(b, a)), (expected, expected), "{a} {b}");
    }
}
