use super::*;
use crate::scenario::Scenario;

const HOST: &str = "93.0.1.1:6881";

fn stage(behaviour: &str) -> (Arc<Materials>, Puppet) {
    let text = format!(
        r#"
        [scenario]
        id = "puppet"
        duration = "1 s"
        [[torrent]]
        name = "a"
        size = "200 KiB"
        piece = "32 KiB"
        [[group]]
        name = "h"
        count = 1
        [[actor]]
        kind = "peer"
        name = "p"
        count = 1
        behaviour = ["{behaviour}"]
        "#
    );
    let materials = Materials::new(Scenario::parse(&text, "puppet.toml").expect("parses"));
    let plan = Plan::new(&materials.scenario, 7);
    let puppet = Puppet::new(&materials, &plan, 1, 0);
    (materials, puppet)
}

/// Everything that it sends until `until`, while it is told `messages` in the middle; and how often it hung up.
fn play(behaviour: &str, messages: &[Message], until: u64) -> (Vec<u8>, usize) {
    let (materials, mut puppet) = stage(behaviour);
    let mut said = Vec::new();
    let mut hung_up = 0;
    let mut peers = vec![HOST.parse().expect("an address")];
    let mut links: Vec<ConnectionId> = Vec::new();
    loop {
        let now = puppet.poll_timeout();
        if now > until {
            return (said, hung_up);
        }
        puppet.handle_timeout(now);
        while let Some(act) = puppet.poll_act() {
            match act {
                Act::Announce { torrent } => puppet.handle_peers(now, torrent, peers.drain(..)),
                Act::Connect { link, .. } => {
                    puppet.handle_connected(now, link);
                    links.push(link);
                    let mut bytes = VecDeque::new();
                    let hello = Message::Handshake(taipei_engine::wire::Handshake {
                        reserved: RESERVED,
                        info_hash: materials.torrents[0].info_hash,
                        peer_id: PeerId([b'h'; 20]),
                    });
                    let all: Vec<&Message> = std::iter::once(&hello).chain(messages).collect();
                    Stream::default().encode(all, &mut bytes);
                    bytes.into_iter().for_each(|bytes| puppet.handle_bytes(now, link, bytes));
                }
                Act::Send { link, bytes } => {
                    puppet.handle_sent(link, bytes.len() as u64);
                    said.extend(bytes);
                }
                Act::Close { .. } => hung_up += 1,
                Act::Deafen { .. } | Act::Shout { .. } => {}
            }
        }
    }
}

/// What the bytes are, as our own decoder reads them; whether it got to the end.
fn read(said: Vec<u8>) -> (Vec<Message>, bool) {
    let mut messages = Vec::new();
    let result = Stream::default().handle_bytes(said.into(), &mut messages);
    (messages, result.is_ok())
}

fn ask(piece: u32) -> Message {
    Message::Request(Request { piece, begin: 0, length: 16_384 })
}

fn blocks(messages: &[Message], piece: u32) -> usize {
    messages
        .iter()
        .filter(|message| matches!(message, Message::Piece { piece: p, .. } if *p == piece))
        .count()
}

#[test]
fn each_behaviour_does_what_its_name_says() {
    let asked = [ask(0), ask(6)];
    let done = |behaviour: &str| read(play(behaviour, &asked, 10 * SECOND).0);
    let served = |behaviour: &str| {
        let (messages, _) = done(behaviour);
        (blocks(&messages, 0), blocks(&messages, 6))
    };
    // The last piece has 8 KiB: what was asked of it is beyond its end.
    assert_eq!(served("poison 1/1"), (1, 0));
    assert_eq!(served("duplicate pieces"), (2, 0));
    assert_eq!(served("bitfield liar"), (0, 0));
    assert_eq!(served("free rider"), (0, 0));
    let (messages, _) = done("have flood");
    assert!(messages.iter().filter(|message| matches!(message, Message::Have(_))).count() > 1000);
    let (messages, _) = done("keep-alive flood");
    assert!(messages.iter().filter(|message| **message == Message::KeepAlive).count() > 1000);
    let (messages, _) = done("request flood");
    assert!(messages.iter().filter(|message| matches!(message, Message::Request(_))).count() > 1000);
    let (messages, _) = done("choke flapper");
    assert!(messages.iter().filter(|message| **message == Message::Choke).count() > 5);
    let (messages, _) = done("have-all then have-none");
    assert!(messages.contains(&Message::HaveAll) && messages.contains(&Message::HaveNone));
    assert!(!done("oversize message").1, "no decoder takes that");
    assert!(play("disconnect after each block", &asked, 4 * SECOND).1 > 0);
    assert!(blocks(&done("unasked pieces").0, 0) + blocks(&done("unasked pieces").0, 1) > 1);
    let (drips, _) = play("slow-loris", &asked, 10 * SECOND);
    assert!(drips.len() < 5000, "{}", drips.len());
}

#[test]
fn a_wrong_block_has_the_length_of_the_right_one() {
    let (materials, _) = stage("poison 1/1");
    let (messages, _) = read(play("poison 1/1", &[ask(0)], 5 * SECOND).0);
    let block = messages.iter().find_map(|message| match message {
        Message::Piece { data, .. } => Some(data),
        _ => None,
    });
    let block = block.expect("served");
    assert_eq!(block.len(), 16_384);
    assert!(!materials.torrents[0].is_right(0, 0, block));
}

#[test]
fn the_same_seed_says_the_same() {
    for behaviour in ["illegal messages", "unasked pieces", "poison 1/2", "slow-loris"] {
        let said = |until| play(behaviour, &[ask(0), ask(1)], until).0;
        assert_eq!(said(10 * SECOND), said(10 * SECOND), "{behaviour}");
        assert!(!said(10 * SECOND).is_empty(), "{behaviour}");
    }
}

#[test]
fn a_flood_dials_dozens_of_times_and_a_puppet_none_of_its_kind() {
    let (_, mut puppet) = stage("connect flood");
    let peers = [HOST.parse().expect("an address"), "95.0.2.1:6881".parse().expect("an address")];
    puppet.handle_peers(0, 0, peers);
    puppet.handle_timeout(3 * SECOND);
    let dials: Vec<Act> = std::iter::from_fn(|| puppet.poll_act()).collect();
    let to_host =
        dials.iter().filter(|act| matches!(act, Act::Connect { remote, .. } if remote.to_string() == HOST));
    assert_eq!(to_host.count(), FLOOD_LINKS);
    assert!(!dials.iter().any(|act| matches!(act, Act::Connect { remote, .. } if is_puppet(remote.ip()))));
}
