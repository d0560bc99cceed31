//! Trackers over UDP (BEP 15).

use super::*;

#[test]
fn a_udp_tracker_has_the_same_life_cycle() {
    let mut world = World::new(&[&["udp://a:6969/announce?pk=1"]], good);
    world.udp_script = Box::new(|_, _, announce| {
        assert_eq!((announce.port, announce.key), (6881, Some(3)));
        udp_answer(600, &["8.8.8.8:6881", "10.0.0.1:6881", "8.8.4.4:0"])
    });
    world.announcer.start(Instant::START);
    world.drain();
    world.run(700);
    world.completed();
    world.run(10);
    world.stop();
    world.run(10);
    assert_eq!(
        world.log,
        [
            "0 9.9.9.9:6969 started",
            "600 9.9.9.9:6969 -",
            "700 9.9.9.9:6969 completed",
            "710 9.9.9.9:6969 stopped",
            "stopped"
        ]
    );
    assert_eq!(world.peers, ["8.8.8.8:6881".parse().unwrap(); 3]);
    assert!(world.url_data.iter().all(|data| data == b"/announce?pk=1"));
    assert!(world.reports.iter().all(|report| report.result == Ok(3)));
}

#[test]
fn intervals_over_udp_are_clamped_too() {
    for (interval, seconds) in [(0, 30), (5, 30), (i32::MAX as u32, 86_400), (u32::MAX, 1800)] {
        let mut world = World::new(&[&["udp://a:1"]], good);
        // With peers: who is alone asks again sooner.
        world.udp_script = Box::new(move |_, _, _| udp_answer(interval, &["8.8.8.8:1", "8.8.4.4:1"]));
        world.announcer.start(Instant::START);
        world.drain();
        world.run(seconds + 10);
        assert_eq!(world.log.len(), 2);
        assert!(world.log[1].starts_with(&format!("{seconds} ")), "{:?}", world.log);
    }
}

#[test]
fn a_udp_tracker_that_fails_leaves_the_turn_to_the_next_tier() {
    let mut world = World::new(&[&["udp://a:1"], &["http://b/announce"]], good);
    let mut asked = 0;
    world.udp_script = Box::new(move |_, _, _| {
        asked += 1;
        Some(if asked == 1 {
            Err(NetError::TimedOut)
        } else {
            Ok(UdpAnswer::Failed { transaction: 0, message: "no".into() })
        })
    });
    world.announcer.start(Instant::START);
    world.drain();
    world.run(700);
    assert_eq!(world.log[..2], ["0 9.9.9.9:1 started", "0 b started"]);
    let errors: Vec<_> = world.reports.iter().filter_map(|report| report.result.clone().err()).collect();
    assert_eq!(errors, [TrackerError::Net(NetError::TimedOut), TrackerError::Refused("no".into())]);
}
