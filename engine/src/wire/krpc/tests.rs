//! Packets of the DHT: the vectors of BEP 5, what comes back as it went, and what is refused.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

const ID: &[u8; 20] = b"abcdefghij0123456789";
const OTHER: &[u8; 20] = b"mnopqrstuvwxyz123456";

/// What the packet of this kind in the vectors says; encoded again it is the same, where nothing in it was left out.
fn check(kind: &str, exact: bool) -> Packet {
    let vectors = include_str!("../../../../tests/fixtures/torrents/vectors/bep5-packets.toml");
    let table: toml::Table = vectors.parse().unwrap();
    let vector =
        table["packet"].as_array().unwrap().iter().find(|packet| packet["kind"].as_str() == Some(kind));
    let bytes = vector.unwrap_or_else(|| panic!("no {kind}"))["bytes"].as_str().unwrap().as_bytes();
    let packet = Packet::parse(bytes).unwrap();
    if exact {
        assert_eq!(packet.encode(), bytes, "{kind}");
    }
    assert_eq!(packet.transaction, b"aa", "{kind}");
    packet
}

fn query(kind: &str) -> Ask {
    let Body::Query(query) = check(kind, true).body else { panic!("{kind} asks nothing") };
    assert_eq!(query.id, NodeId(*ID));
    query.ask
}

fn response(kind: &str, exact: bool) -> Response {
    let Body::Response(response) = check(kind, exact).body else { panic!("{kind} answers nothing") };
    *response
}

#[test]
fn the_packets_of_bep_5_are_read() {
    assert_eq!(query("ping query"), Ask::Ping);
    assert_eq!(query("find_node query"), Ask::FindNode { target: NodeId(*OTHER) });
    let info_hash = InfoHash(*OTHER);
    assert_eq!(query("get_peers query"), Ask::GetPeers { info_hash, no_seed: false, scrape: false });
    let token = b"aoeusnth".to_vec();
    let announce = Ask::AnnouncePeer { info_hash, port: 6881, implied_port: true, seed: false, token };
    assert_eq!(query("announce_peer query"), announce);
    assert_eq!(check("error", false).body, Body::Error { code: 201 });
    assert_eq!(response("ping response", true), Response::new(NodeId(*OTHER)));
    assert_eq!(response("find_node response", false), Response::new(NodeId(*b"0123456789abcdefghij")));
    let peers = response("get_peers response, peers", true);
    let expected: [SocketAddr; 2] =
        [(Ipv4Addr::new(97, 120, 106, 101), 11893).into(), (Ipv4Addr::new(105, 100, 104, 116), 28269).into()];
    assert_eq!((peers.peers, peers.token), (expected.to_vec(), Some(b"aoeusnth".to_vec())));
    let nodes = response("get_peers response, nodes", false);
    assert_eq!((nodes.nodes, nodes.token), (Vec::new(), Some(b"aoeusnth".to_vec())));
}

#[test]
fn questions_without_sense_are_told_from_noise() {
    let parse = |text: &str| Packet::parse(text.as_bytes());
    let refused = |code| Err(Unread::Question { transaction: b"aa".to_vec(), code });
    for (arguments, method) in [
        ("", "find_node"),
        ("6:target3:abc", "find_node"),
        ("", "get_peers"),
        ("", "get"),
        ("9:info_hash20:mnopqrstuvwxyz1234564:porti6881e", "announce_peer"),
        ("9:info_hash20:mnopqrstuvwxyz1234564:porti65536e5:token1:x", "announce_peer"),
        ("9:info_hash20:mnopqrstuvwxyz1234564:porti-1e5:token1:x", "announce_peer"),
        ("5:token1:x", "put"),
    ] {
        let text =
            format!("d1:ad2:id20:abcdefghij0123456789{arguments}e1:q{}:{method}1:t2:aa1:y1:qe", method.len());
        assert_eq!(parse(&text), refused(PROTOCOL_ERROR), "{text}");
    }
    let put = |value: &str, rest: &str| {
        parse(&format!("d1:ad2:id20:abcdefghij0123456789{rest}5:token1:x1:v{value}e1:q3:put1:t2:aa1:y1:qe"))
    };
    assert!(put(&format!("996:{}", "x".repeat(996)), "").is_ok());
    assert_eq!(put(&format!("997:{}", "x".repeat(997)), ""), refused(ITEM_TOO_LARGE));
    let key = format!("1:k32:{}4:salt65:{}", "k".repeat(32), "s".repeat(65));
    assert_eq!(put("1:x", &key), refused(SALT_TOO_LARGE));
    for noise in [
        "",
        "de",
        "le",
        "d1:y1:qe",
        "d1:t2:aae",
        "d1:ade1:q4:ping1:t2:aa1:y1:qe",
        "d1:ad2:id3:abce1:q4:ping1:t2:aa1:y1:qe",
        "d1:eli201e1:xe1:t33:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa1:y1:ee",
        "d1:rd2:id3:abce1:t2:aa1:y1:re",
        "d1:eli201e1:xe1:t2:aa1:y1:xe",
    ] {
        assert_eq!(parse(noise), Err(Unread::Noise), "{noise}");
    }
    let long =
        format!("d1:ad2:id20:abcdefghij01234567894:junk5000:{}e1:q4:ping1:t2:aa1:y1:qe", "x".repeat(5000));
    assert_eq!(parse(&long), Err(Unread::Noise));
}

#[test]
fn an_item_is_taken_as_it_came() {
    // Keys of the value are not in order: its hash is over the bytes that came.
    let value = "d1:b1:x1:a1:ye";
    let text = format!("d1:rd2:id20:abcdefghij01234567895:token1:t1:v{value}e1:t2:aa1:y1:re");
    let Ok(Packet { body: Body::Response(response), .. }) = Packet::parse(text.as_bytes()) else { panic!() };
    assert_eq!(response.item, Some(Item { value: value.into(), signed: None }));
}

fn address() -> impl Strategy<Value = SocketAddr> {
    let v4 = (any::<u32>(), any::<u16>()).prop_map(|(ip, port)| (Ipv4Addr::from_bits(ip), port).into());
    let v6 = (any::<u128>(), any::<u16>()).prop_map(|(ip, port)| (Ipv6Addr::from_bits(ip), port).into());
    prop_oneof![v4, v6]
}

fn contacts(v6: bool) -> impl Strategy<Value = Vec<Contact>> {
    let contact = (any::<[u8; 20]>(), any::<u128>(), any::<u16>()).prop_map(move |(id, ip, port)| {
        let ip: IpAddr =
            if v6 { Ipv6Addr::from_bits(ip).into() } else { Ipv4Addr::from_bits(ip as u32).into() };
        Contact { id: NodeId(id), address: (ip, port).into() }
    });
    proptest::collection::vec(contact, 0..9)
}

fn item() -> impl Strategy<Value = Item> {
    let signed =
        (any::<[u8; 32]>(), proptest::collection::vec(any::<u8>(), 0..65), any::<i64>(), any::<[u8; 32]>());
    let signed = signed.prop_map(|(public_key, salt, sequence, half)| {
        let mut signature = [7; 64];
        signature[..32].copy_from_slice(&half);
        Signed { public_key, salt, sequence, signature }
    });
    let value =
        proptest::collection::vec(any::<u8>(), 0..90).prop_map(|bytes| bencode::encode(&Value::bytes(bytes)));
    (value, proptest::option::of(signed)).prop_map(|(value, signed)| Item { value, signed })
}

fn ask() -> impl Strategy<Value = Ask> {
    let point = any::<[u8; 20]>().prop_map(NodeId);
    let hash = any::<[u8; 20]>().prop_map(InfoHash);
    let token = proptest::collection::vec(any::<u8>(), 0..20);
    prop_oneof![
        Just(Ask::Ping),
        point.clone().prop_map(|target| Ask::FindNode { target }),
        point.clone().prop_map(|target| Ask::SampleInfohashes { target }),
        proptest::option::of(point.clone()).prop_map(|target| Ask::Other { target }),
        (hash.clone(), any::<bool>(), any::<bool>()).prop_map(|(info_hash, no_seed, scrape)| Ask::GetPeers {
            info_hash,
            no_seed,
            scrape
        }),
        (hash, any::<u16>(), any::<bool>(), any::<bool>(), token.clone()).prop_map(
            |(info_hash, port, implied_port, seed, token)| Ask::AnnouncePeer {
                info_hash,
                port,
                implied_port,
                seed,
                token
            }
        ),
        (point, proptest::option::of(any::<i64>()), 0..200usize)
            .prop_map(|(target, newer_than, fill_bytes)| Ask::Get { target, newer_than, fill_bytes }),
        (item(), proptest::option::of(any::<i64>()), token).prop_map(|(item, cas, token)| Ask::Put {
            item: Box::new(item),
            cas,
            token
        }),
    ]
}

fn body() -> impl Strategy<Value = Body> {
    let query = (any::<[u8; 20]>(), any::<(bool, bool)>(), ask())
        .prop_map(|(id, (v4, v6), ask)| Body::Query(Query { id: NodeId(id), want: Want { v4, v6 }, ask }));
    let samples = (any::<i64>(), any::<i64>(), proptest::collection::vec(any::<[u8; 20]>(), 0..5));
    let samples = samples.prop_map(|(interval, count, hashes)| Samples {
        interval,
        count,
        info_hashes: hashes.into_iter().map(InfoHash).collect(),
    });
    let blooms = any::<(u8, u8)>()
        .prop_map(|(seeds, peers)| Box::new(Blooms { seeds: [seeds; 256], peers: [peers; 256] }));
    let response = (
        any::<[u8; 20]>(),
        contacts(false),
        contacts(true),
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)),
        proptest::collection::vec(address(), 0..9),
        proptest::option::of(item()),
        proptest::option::of(blooms),
        proptest::option::of(samples),
    );
    let response = response.prop_map(|(id, nodes, nodes6, token, peers, item, blooms, samples)| {
        Body::Response(Box::new(Response {
            id: NodeId(id),
            nodes,
            nodes6,
            token,
            peers,
            item,
            sequence: None,
            blooms,
            samples,
        }))
    });
    prop_oneof![query, response, any::<i64>().prop_map(|code| Body::Error { code })]
}

proptest! {
    #[test]
    fn packets_come_back_as_they_went(
        body in body(),
        transaction in proptest::collection::vec(any::<u8>(), 0..33),
        read_only: bool,
        external in proptest::option::of(address()),
    ) {
        let packet = Packet { transaction, body, read_only, external };
        let bytes = packet.encode();
        let value = bencode::parse(&bytes).unwrap();
        prop_assert_eq!(&bencode::encode(&value), &bytes, "keys are in order");
        prop_assert_eq!(Packet::parse(&bytes), Ok(packet));
    }

    #[test]
    fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Packet::parse(&bytes);
    }
}
