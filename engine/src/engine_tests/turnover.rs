//! Connections that are of no use make room for those that may be.

use super::*;

const SLOTS: u8 = 10;

/// A torrent of four pieces with all its connections used, and addresses that wait. The first peer serves us, the second
/// chokes us, the others have nothing and want nothing.
fn full(have: &[u32]) -> (Bench, Vec<ConnectionId>) {
    let config = Config { peers_per_torrent_max: u32::from(SLOTS), ..Config::default() };
    let peers: Vec<u8> = (1..=SLOTS + 20).collect();
    let mut bench = Bench::with(config, 4, have, &peers);
    let half = || Message::Bitfield(Bytes::from_static(&[0b1110_0000]));
    let connections = (0..usize::from(SLOTS)).map(|n| match n {
        0 => bench.answer(n, vec![half(), Message::Unchoke, Message::Interested]),
        1 => bench.answer(n, vec![half()]),
        _ => bench.answer(n, vec![Message::HaveNone]),
    });
    let connections = connections.collect();
    (bench, connections)
}

/// Time passes, and everybody stays alive; the first gives a block now and then.
fn live(bench: &mut Bench, connections: &[ConnectionId], seconds: u64) {
    for _ in 0..seconds / 10 {
        bench.pass(Duration::from_secs(10));
        let requests = bench.take_requests(connections[0]);
        let asked: Vec<_> = requests.into_iter().take(1).collect();
        bench.give(connections[0], &asked);
        for connection in
            connections.iter().filter(|one| !bench.closed.contains(one)).copied().collect::<Vec<_>>()
        {
            bench.say(connection, vec![Message::KeepAlive]);
        }
    }
}

#[test]
fn the_worst_peers_make_room_one_in_five_minutes_and_who_delivers_stays() {
    let (mut bench, connections) = full(&[]);
    assert_eq!(bench.dialled.len(), usize::from(SLOTS));
    live(&mut bench, &connections, 290);
    assert_eq!((bench.closed.len(), bench.dialled.len()), (0, usize::from(SLOTS)));
    live(&mut bench, &connections, 10);
    let (closed, dialled) = (bench.closed.clone(), bench.dialled.len());
    assert_eq!((closed.len(), dialled), (1, usize::from(SLOTS) + 1), "one leaves, another is dialled");
    assert!(connections[2..].contains(&closed[0]), "of those that want nothing");
    let gone = bench.dialled.iter().find(|(connection, _)| *connection == closed[0]).unwrap().1;
    assert_ne!(bench.dialled.last().unwrap().1, gone);
    assert!(!bench.closed.contains(&connections[0]) && !bench.closed.contains(&connections[1]));
}

#[test]
fn who_connects_to_a_full_torrent_takes_the_place_of_the_worst_and_of_nobody_else() {
    let (mut bench, connections) = full(&[]);
    let guest = |bench: &mut Bench, n: u8| {
        let connection = ConnectionId::accepted(u64::from(n));
        bench.input(Input::Accepted { connection, remote: address(100 + n) });
        bench.say(connection, vec![bench.handshake(PeerId([100 + n; 20])), Message::HaveNone]);
        bench.closed.contains(&connection)
    };
    assert!(guest(&mut bench, 0), "all are new");
    live(&mut bench, &connections, 100);
    let refused: Vec<bool> = (1..=SLOTS).map(|n| guest(&mut bench, n)).collect();
    assert_eq!(refused.iter().filter(|refused| !**refused).count(), 8, "{refused:?}");
    assert!(!bench.closed.contains(&connections[0]) && !bench.closed.contains(&connections[1]));
}

#[test]
fn with_all_that_is_wanted_here_nobody_who_fetches_nothing_stays() {
    let (mut bench, connections) = full(&[0, 1, 2, 3]);
    let only = |said| {
        let upload_only = Some(said);
        Message::ExtendedHandshake(Box::new(crate::wire::ExtendedHandshake {
            upload_only,
            ..Default::default()
        }))
    };
    bench.say(connections[2], vec![only(false)]);
    bench.say(connections[3], vec![only(true)]);
    bench.say(connections[4], vec![Message::Have(0), Message::Have(1), Message::Have(2), Message::Have(3)]);
    bench.say(connections[0], vec![only(true)]);
    let closed: Vec<_> = connections.iter().map(|one| bench.closed.contains(one)).collect();
    assert_eq!(closed[..5], [false, false, false, true, true], "who is interested is believed that");
}
