//! Captures: keeping one changes nothing, and what is in it is what the peers said.

use std::collections::BTreeMap;

use etherparse::{SlicedPacket, TransportSlice};
use taipei_sim::plan::Materials;
use taipei_sim::run::{Outcome, RunOptions, run};
use taipei_sim::scenario::{Scenario, World};

const TEXT: &str = r#"
[scenario]
id = "captured"
duration = "1 h"
[[torrent]]
name = "a"
size = "300 KiB"
piece = "64 KiB"
[[group]]
name = "seed"
count = 1
has = "all"
[[group]]
name = "leech"
count = 1
[net]
latency = "5 ms .. 30 ms"
loss = "3 %"
[[expect]]
complete = "leech"
"#;

fn captured(is_captured: bool) -> Outcome {
    let materials = Materials::new(Scenario::parse(TEXT, "captured.toml").expect("parses"));
    run(&materials, 2, World::Events, &RunOptions { capture: is_captured, ..RunOptions::default() })
}

/// The packets of a capture file.
fn packets(mut file: &[u8]) -> Vec<&[u8]> {
    let word = |bytes: &[u8], at: usize| {
        u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize
    };
    let mut packets = Vec::new();
    while !file.is_empty() {
        let (kind, length) = (word(file, 0), word(file, 4));
        assert_eq!((length % 4, word(file, length - 4)), (0, length));
        let block = file.split_off(..length).expect("whole");
        if kind == 6 {
            packets.push(&block[28..28 + word(block, 20)]);
        }
    }
    packets
}

#[test]
fn a_capture_changes_nothing_and_puts_together_what_was_said() {
    let (with, without) = (captured(true), captured(false));
    assert_eq!((&with.trace, &without.capture), (&without.trace, &None));
    assert_eq!(with.capture, captured(true).capture, "the same run has the same capture");
    let (file, is_cut) = with.capture.expect("asked for");
    assert!(!is_cut);
    // By direction: bytes by their place, whatever was sent twice.
    let mut ways: BTreeMap<_, BTreeMap<u32, Vec<u8>>> = BTreeMap::new();
    for packet in packets(&file) {
        let sliced = SlicedPacket::from_ip(packet).expect("IP");
        let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else { continue };
        let header = sliced.net.as_ref().and_then(|net| net.ipv4_ref()).expect("IPv4").header();
        let way = (header.source(), tcp.source_port(), header.destination(), tcp.destination_port());
        let bytes = ways.entry(way).or_default();
        let before = bytes.insert(tcp.sequence_number(), tcp.payload().to_vec()).unwrap_or_default();
        if before.len() > tcp.payload().len() {
            bytes.insert(tcp.sequence_number(), before);
        }
    }
    let (mut handshakes, mut longest) = (0, 0);
    for segments in ways.into_values() {
        let mut stream = Vec::new();
        for (begins, payload) in segments.into_iter().filter(|(_, payload)| !payload.is_empty()) {
            assert_eq!(begins as usize, stream.len() + 1, "without a gap");
            stream.extend(payload);
        }
        handshakes += u32::from(stream.starts_with(b"\x13BitTorrent protocol"));
        longest = longest.max(stream.len());
    }
    assert!(handshakes >= 2, "{handshakes}");
    assert!(longest > 300 << 10, "{longest}");
}
