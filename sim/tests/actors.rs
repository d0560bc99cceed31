//! Parties that are not our engine, in both worlds: peers that break rules, and trackers that say anything.

use std::sync::Arc;

use taipei_sim::plan::Materials;
use taipei_sim::run::{Outcome, RunOptions, Verdict, run};
use taipei_sim::scenario::{Scenario, World};
use taipei_sim::units::SECOND;

const BOTH: [World; 2] = [World::Events, World::Turmoil];

/// One seed and two leechers with 1 MiB between them, and what else `more` says.
fn small(more: &str) -> Arc<Materials> {
    let text = format!(
        r#"
        [scenario]
        id = "small"
        worlds = ["events", "turmoil"]
        duration = "1 h"
        tick = "2 ms"
        [[torrent]]
        name = "a"
        size = "1 MiB"
        piece = "64 KiB"
        [[group]]
        name = "seed"
        count = 1
        has = "all"
        access = {{ up = "1 Mbit/s", queue = "200 ms" }}
        [[group]]
        name = "leech"
        count = 2
        access = {{ up = "1 Mbit/s", queue = "200 ms" }}
        [net]
        latency = "5 ms .. 30 ms"
        [[expect]]
        complete = "leech"
        {more}
        "#
    );
    Materials::new(Scenario::parse(&text, "small.toml").expect("parses"))
}

fn peers(behaviour: &str) -> String {
    format!(
        "[[actor]]\nkind = \"peer\"\nname = \"crook\"\ncount = 3\nbehaviour = [\"{behaviour}\"]\n\
         access = {{ up = \"1 Mbit/s\", queue = \"200 ms\" }}\n"
    )
}

fn once(materials: &Arc<Materials>, seed: u64, world: World) -> Outcome {
    run(materials, seed, world, &RunOptions::default())
}

fn verdict(outcome: &Outcome) -> (Verdict, Option<&str>) {
    (outcome.verdict, outcome.violation.as_ref().map(|violation| violation.oracle))
}

#[test]
fn every_behaviour_is_stood_in_both_worlds() {
    for behaviour in [
        "poison 1/2",
        "bitfield liar",
        "have flood",
        "slow-loris",
        "withhold last piece",
        "illegal messages",
        "oversize message",
        "duplicate pieces",
        "request flood",
        "free rider",
        "choke flapper",
        "allowed-fast drainer",
        "silent",
        "connect flood",
        "have-all then have-none",
        "unasked pieces",
        "keep-alive flood",
        "disconnect after each block",
        "pex spam 500",
        "metadata bomb",
    ] {
        let materials = small(&peers(behaviour));
        for world in BOTH {
            let outcome = once(&materials, 1, world);
            assert_eq!(
                verdict(&outcome),
                (Verdict::Pass, None),
                "{behaviour} {world:?} {:?}",
                outcome.violation
            );
            // 1 MiB over 1 Mbit/s are 8.4 s; nobody may make it a matter of minutes.
            assert!(outcome.ended_at_ns < 120 * SECOND, "{behaviour} {world:?}: {} ns", outcome.ended_at_ns);
            assert!(outcome.end_state.hosts.keys().all(|name| !name.starts_with("crook")));
        }
    }
}

#[test]
fn a_puppet_repeats_itself_in_both_worlds() {
    let materials = small(&peers("illegal messages"));
    for world in BOTH {
        let (first, again) = (once(&materials, 5, world), once(&materials, 5, world));
        assert_eq!((&first.trace, first.events), (&again.trace, again.events), "{world:?}");
    }
}

#[test]
fn poison_of_a_puppet_is_found_and_banned() {
    let materials = small(&format!("{}[[expect]]\nbanned = {{ bad_pieces = 3 }}\n", peers("poison 1/1")));
    for world in BOTH {
        let outcome = once(&materials, 1, world);
        assert_eq!(verdict(&outcome), (Verdict::Pass, None), "{world:?} {:?}", outcome.violation);
        assert!(!outcome.summary.bad_pieces.is_empty());
    }
}

#[test]
fn more_than_a_share_of_what_is_uploaded_is_found() {
    for (most, oracle) in [("1/1", None), ("1/1000", Some("L11"))] {
        let share = format!("[[expect]]\nupload_share = {{ to = \"crook\", most = \"{most}\" }}\n");
        let materials = small(&format!("{}{share}", peers("free rider")));
        let outcome = once(&materials, 1, World::Events);
        assert_eq!(verdict(&outcome).1, oracle, "{:?}", outcome.violation);
    }
}

#[test]
fn every_answer_of_a_tracker_is_stood_and_asked_again_after() {
    let script = |proto: &str, answer: &str| {
        format!(
            "[[actor]]\nkind = \"tracker\"\nname = \"t\"\nproto = \"{proto}\"\n\
             script = [\"{answer}\", \"{answer}\", \"{answer}\", \"ok interval=60 min=30\"]\n"
        )
    };
    let http = [
        "garbage",
        "truncated",
        "wrong types",
        "deep nesting",
        "huge",
        "close early",
        "gzip bomb",
        "gzip",
        "drop 1",
        "503",
        "302 /announce",
        "302 http://127.0.0.1:6969/announce",
        "302 ftp://t.sim/",
        "error 'no'",
        "warn 'soon'",
        "false peers",
        "crowd 3000",
        "ok interval=-1 min=0",
        "ok interval=99999999999",
        "hang 20 s",
    ];
    let udp = [
        "drop 1",
        "wrong transaction",
        "from elsewhere",
        "garbage",
        "truncated",
        "error 'no'",
        "false peers",
        "crowd 3000",
        "ok interval=-1",
    ];
    let all = http.iter().map(|answer| ("http", answer)).chain(udp.iter().map(|answer| ("udp", answer)));
    for (proto, answer) in all {
        let materials = small(&script(proto, answer));
        let ends = BOTH.map(|world| {
            let outcome = once(&materials, 2, world);
            assert_eq!(
                verdict(&outcome),
                (Verdict::Pass, None),
                "{proto} {answer} {world:?} {:?}",
                outcome.violation
            );
            outcome.end_state
        });
        assert_eq!(ends[0], ends[1], "{proto} {answer}");
    }
}
