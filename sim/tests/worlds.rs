//! Whole runs: both worlds pass and agree, seeds repeat, and what is broken on purpose is found by the rule that it breaks.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use taipei_sim::plan::Materials;
use taipei_sim::recording::{self, Ending, ReadError};
use taipei_sim::run::{Outcome, Plant, RunOptions, Verdict, run};
use taipei_sim::scenario::{Scenario, World};
use taipei_sim::trace::TraceFile;
use taipei_sim::units::SECOND;

const BOTH: [World; 2] = [World::Events, World::Turmoil];

fn scenario_files() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let entries = std::fs::read_dir(directory).expect("scenarios/ is there");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    files
}

/// One seed and one leecher with 1 MiB between them, and what else `more` says.
fn small(more: &str) -> Arc<Materials> {
    let text = format!(
        r#"
        [scenario]
        id = "small"
        worlds = ["events", "turmoil"]
        duration = "60 s"
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
        count = 1
        [net]
        latency = "5 ms .. 30 ms"
        {more}
        "#
    );
    Materials::new(Scenario::parse(&text, "small.toml").expect("parses"))
}

const CRASH: &str = "[[fault]]\nat = \"5 s\"\nkind = \"crash\"\npick = \"leech\"\nback_after = \"1 s\"\n";
const COMPLETE: &str = "[[expect]]\ncomplete = \"leech\"\n";

fn once(materials: &Arc<Materials>, seed: u64, world: World) -> Outcome {
    run(materials, seed, world, &RunOptions::default())
}

fn pretty(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).expect("plain values")
}

/// The verdict, and which rule broke.
fn verdict(outcome: &Outcome) -> (Verdict, Option<&str>) {
    (outcome.verdict, outcome.violation.as_ref().map(|violation| violation.oracle))
}

#[test]
fn every_scenario_passes_in_every_world_it_names_with_equal_ends() {
    let files = Mutex::new(scenario_files().into_iter());
    let next = || files.lock().expect("nobody panics with it").next();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| std::iter::from_fn(next).for_each(|file| passes_with_equal_ends(&file)));
        }
    });
}

fn passes_with_equal_ends(file: &Path) {
    let mut cells = Scenario::load(file).unwrap_or_else(|error| panic!("{error}"));
    // Those of a matrix run by themselves.
    if cells.len() > 1 {
        return;
    }
    let materials = Materials::new(cells.remove(0));
    let id = &materials.scenario.scenario.id;
    let outcomes: Vec<Outcome> =
        materials.scenario.scenario.worlds.iter().map(|world| once(&materials, 1, *world)).collect();
    for outcome in &outcomes {
        assert_eq!(verdict(outcome), (Verdict::Pass, None), "{id}: {:?}", outcome.violation);
        assert_eq!(outcome.end_state, outcomes[0].end_state, "{id}: the worlds end differently");
        let name = format!("{id}-{}", outcome.world.name());
        insta::assert_snapshot!(name, pretty(&outcome.summary));
    }
    insta::assert_snapshot!(format!("{id}-end"), pretty(&outcomes[0].end_state));
}

#[test]
fn a_seed_repeats_and_another_differs() {
    let fault = "[[fault]]\nat = \"3 s\"\nkind = \"crash\"\npick = \"leech\"\nback_after = \"1 s .. 2 s\"\n";
    let materials = small(&format!("{fault}{COMPLETE}"));
    for world in BOTH {
        let (first, second) = (once(&materials, 7, world), once(&materials, 7, world));
        assert_eq!(verdict(&first), (Verdict::Pass, None), "{world:?} {:?}", first.violation);
        assert_eq!((&first.trace, first.events), (&second.trace, second.events), "{world:?}");
        assert_eq!(first.end_state, second.end_state, "{world:?}");
        assert!(first.summary.streams_compared >= 2, "{world:?}: what is sent is what is read");
        assert_ne!(first.trace, once(&materials, 8, world).trace, "{world:?}");
    }
}

#[test]
fn a_slow_link_sets_the_time_in_both_worlds() {
    // 4 MiB over 500 kbit/s are 67.1 s; what comes on top is finding each other, and the slow start.
    let text = r#"
        [scenario]
        id = "slow"
        duration = "90 s"
        [[torrent]]
        name = "a"
        size = "4 MiB"
        [[group]]
        name = "seed"
        count = 1
        has = "all"
        access = { up = "500 kbit/s", down = "10 Mbit/s" }
        [[group]]
        name = "leech"
        count = 1
        [net]
        latency = "10 ms"
        [[expect]]
        complete = "leech"
    "#;
    let materials = Materials::new(Scenario::parse(text, "slow.toml").expect("parses"));
    let ideal_ms = (4u64 << 20) * 8 / 500;
    for world in BOTH {
        let outcome = once(&materials, 1, world);
        let took_ms = outcome.summary.completed_ms["leech-1 a"];
        assert!(
            (ideal_ms..ideal_ms * 101 / 100).contains(&took_ms),
            "{world:?}: {took_ms} ms, ideal {ideal_ms} ms"
        );
    }
}

#[test]
fn lost_segments_come_later_and_nothing_is_missing() {
    let lossy = small(&format!("loss = \"20 %\"\n{COMPLETE}"));
    let (clean, lossy) = (once(&small(COMPLETE), 3, World::Events), once(&lossy, 3, World::Events));
    assert_eq!(verdict(&lossy), (Verdict::Pass, None), "{:?}", lossy.violation);
    assert!(lossy.summary.completed_ms["leech-1 a"] > clean.summary.completed_ms["leech-1 a"]);
}

#[test]
fn rot_behind_the_engine_is_found_by_s1() {
    let materials = small(COMPLETE);
    for world in BOTH {
        let plant = Some(Plant::Rot { host: "leech-1".to_owned(), at: 8 * SECOND });
        let outcome = run(&materials, 1, world, &RunOptions { plant, ..RunOptions::default() });
        assert_eq!(verdict(&outcome), (Verdict::Failed, Some("S1")), "{world:?} {:?}", outcome.violation);
        assert!(!outcome.tail.is_empty());
    }
}

#[test]
fn rot_at_the_seed_is_found_before_anybody_believes_it() {
    let plant = Some(Plant::Rot { host: "seed-1".to_owned(), at: SECOND });
    let options = RunOptions { plant, ..RunOptions::default() };
    let outcome = run(&small(COMPLETE), 1, World::Events, &options);
    assert!(matches!(verdict(&outcome), (Verdict::Failed, Some("S1" | "S2"))), "{:?}", outcome.violation);
}

#[test]
fn rot_while_a_host_is_away_is_found_by_s12_when_it_is_believed() {
    let fault = "[[fault]]\nat = \"4 s\"\nkind = \"crash\"\npick = \"leech\"\nback_after = \"2 s\"\n";
    let materials = small(&format!("{fault}{COMPLETE}"));
    for world in BOTH {
        let plant = Some(Plant::Rot { host: "leech-1".to_owned(), at: 5 * SECOND });
        let outcome = run(&materials, 1, world, &RunOptions { plant, ..RunOptions::default() });
        assert_eq!(verdict(&outcome), (Verdict::Failed, Some("S12")), "{world:?} {:?}", outcome.violation);
    }
}

#[test]
fn a_panic_is_a_verdict_with_its_place() {
    let materials = small(COMPLETE);
    for world in BOTH {
        let plant = Some(Plant::Panic { at: 2 * SECOND });
        let outcome = run(&materials, 1, world, &RunOptions { plant, ..RunOptions::default() });
        assert_eq!(verdict(&outcome), (Verdict::Failed, Some("S14")), "{world:?}");
        let message = &outcome.violation.as_ref().expect("failed").message;
        assert!(message.contains("planted") && message.contains(".rs:"), "{message}");
    }
}

#[test]
fn a_fault_without_effect_is_vacuous() {
    // The second one strikes a host that is down already.
    let fault =
        |at| format!("[[fault]]\nat = \"{at}\"\nkind = \"crash\"\npick = \"leech\"\nback_after = \"3 s\"\n");
    let materials = small(&format!("{}{}{COMPLETE}", fault("2 s"), fault("3 s")));
    for world in BOTH {
        let outcome = once(&materials, 1, world);
        assert_eq!(verdict(&outcome), (Verdict::Vacuous, Some("V1")), "{world:?} {:?}", outcome.violation);
        assert_eq!(outcome.verdict.exit_status(), 5);
    }
}

#[test]
fn a_fault_that_nobody_meets_is_vacuous() {
    let outage = "[[actor]]\nkind = \"tracker\"\nname = \"t\"\n[[fault]]\nat = \"3 s\"\nkind = \"tracker-outage\"\npick = \"t\"\nhow = [\"hang\"]\nfor = \"1 s\"\n";
    let space =
        "[[fault]]\nat = \"2 s\"\nkind = \"disk-full\"\npick = \"leech\"\nspace = \"8 MiB\"\nfor = \"1 s\"\n";
    let silence = "[[fault]]\nat = \"30 s\"\nkind = \"silence\"\npick = \"leech\"\nfor = \"10 ms\"\n";
    for fault in [outage, space, silence] {
        let materials = small(&format!("{fault}{COMPLETE}"));
        for world in BOTH {
            let outcome = once(&materials, 1, world);
            assert_eq!(
                verdict(&outcome),
                (Verdict::Vacuous, Some("V1")),
                "{world:?} {:?}",
                outcome.violation
            );
        }
    }
}

#[test]
fn a_seed_that_leaves_too_early_leaves_nobody_complete() {
    let materials = small(&format!("[[fault]]\nat = \"4 s\"\nkind = \"leave\"\npick = \"seed\"\n{COMPLETE}"));
    for world in BOTH {
        let outcome = once(&materials, 1, world);
        assert_eq!(verdict(&outcome), (Verdict::Failed, Some("L1")), "{world:?} {:?}", outcome.violation);
        let seed = &outcome.end_state.hosts["seed-1"].announces["tracker"];
        assert_eq!((seed["started"], seed["stopped"]), (1, 1), "{world:?}");
    }
}

#[test]
fn what_is_expected_of_trackers_and_times_is_looked_at() {
    let told = |what: &str| {
        format!(
            "[[actor]]\nkind = \"tracker\"\nname = \"t\"\n{COMPLETE}[[expect]]\nannounces = {{ of = \"leech\", to = \"t\", {what} }}\n"
        )
    };
    for (more, broken) in [
        (told("started = 1, completed = 1, stopped = 1"), None),
        (told("completed = 0"), Some("S9")),
        (told("stopped = 0"), Some("S9")),
        (told("completed = 2"), Some("L1")),
        (told("again = true"), None),
        (format!("{COMPLETE}by = \"20 s\"\n"), None),
        (format!("{COMPLETE}by = \"5 s\"\n"), Some("L1")),
        (format!("{COMPLETE}within = \"5 s\"\n"), Some("L1")),
        (format!("{COMPLETE}wasted = \"0 %\"\n"), None),
        (format!("{CRASH}{COMPLETE}wasted = \"50 %\"\n"), None),
        (format!("{CRASH}{COMPLETE}wasted = \"0 %\"\n"), Some("L10")),
        (format!("{COMPLETE}never = [\"resumed\"]\n"), None),
        (format!("{COMPLETE}never = [\"piece_hash_ok\"]\n"), Some("L9")),
    ] {
        let materials = small(&more);
        for world in BOTH {
            let outcome = once(&materials, 1, world);
            assert_eq!(verdict(&outcome).1, broken, "{world:?} {more} {:?}", outcome.violation);
        }
    }
}

#[test]
fn a_silent_host_is_heard_when_it_is_over_and_stops_nobody_else() {
    // 1 MiB over 1 Mbit/s take 8.4 s, and nothing comes for 20 s of them.
    let fault = "[[fault]]\nat = \"3 s\"\nkind = \"silence\"\npick = \"seed\"\nfor = \"20 s\"\n";
    let other = "[[group]]\nname = \"other\"\ncount = 1\nhas = \"all\"\naccess = { up = \"1 Mbit/s\" }\n";
    for (more, at_ms) in [("", 23_000..33_000), (other, 5_000..15_000)] {
        let materials = small(&format!("{fault}{more}{COMPLETE}"));
        for world in BOTH {
            let outcome = once(&materials, 1, world);
            assert_eq!(verdict(&outcome), (Verdict::Pass, None), "{world:?} {:?}", outcome.violation);
            let took_ms = outcome.summary.completed_ms["leech-1 a"];
            assert!(at_ms.contains(&took_ms), "{world:?}: {took_ms} ms");
        }
    }
}

#[test]
fn a_mark_that_is_never_reached_is_vacuous() {
    let materials = small(&format!("{COMPLETE}[[expect]]\nmark = [\"resumed\"]\n"));
    assert_eq!(verdict(&once(&materials, 1, World::Events)), (Verdict::Vacuous, Some("V2")));
}

#[test]
fn what_takes_too_long_is_late_and_what_never_ends_is_over_budget() {
    let late = small(
        "[[fault]]\nat = \"1 s\"\nkind = \"crash\"\npick = \"seed\"\nback_after = \"59 s\"\n[[expect]]\ncomplete = \"leech\"\n",
    );
    for world in BOTH {
        let outcome = once(&late, 1, world);
        assert_eq!(verdict(&outcome), (Verdict::Failed, Some("L1")), "{world:?} {:?}", outcome.violation);
        let options = RunOptions { events_max: 100, ..RunOptions::default() };
        assert_eq!(run(&late, 1, world, &options).verdict, Verdict::BudgetExceeded, "{world:?}");
    }
}

#[test]
fn a_tracker_that_fails_at_first_is_asked_again() {
    let actor = "[[actor]]\nkind = \"tracker\"\nname = \"t1\"\nscript = [\"500\", \"500\", \"ok\"]\n";
    let materials = small(&format!("{actor}{COMPLETE}"));
    let outcome = once(&materials, 1, World::Events);
    assert_eq!(verdict(&outcome), (Verdict::Pass, None), "{:?}", outcome.violation);
    let announces = &outcome.end_state.hosts["leech-1"].announces["t1"];
    assert_eq!((announces["started"], announces["completed"], announces["stopped"]), (1, 1, 1));
}

#[test]
fn a_recording_of_a_simulated_download_replays_with_equal_outputs() {
    let materials = small(COMPLETE);
    let options = RunOptions { record: Some("leech-1".to_owned()), ..RunOptions::default() };
    let outcome = run(&materials, 1, World::Events, &options);
    let recording = outcome.recording.expect("recorded");
    assert!(recording.len() < 200_000, "payload must not be in it: {} bytes", recording.len());
    let done = recording::replay(&recording[..]).expect("reads").outcome.expect("repeats");
    assert!(done.inputs > 100 && done.outputs > 100, "{done:?}");
    let most = &recording[..recording.len() * 3 / 4];
    let cut = recording::replay(most).expect("reads").outcome.expect("is repeated as far as it goes");
    assert!((1..done.inputs).contains(&cut.inputs), "{cut:?}");
    assert!(matches!(cut.ending, Ending::Damaged(damage) if damage.is_cut()));
    assert!(matches!(recording::replay(&b"nothing of the kind"[..]), Err(ReadError::Foreign)));
}

#[test]
fn a_trace_file_tells_what_the_run_hashed() {
    let materials = small(COMPLETE);
    let options = RunOptions { keep_trace: true, ..RunOptions::default() };
    let file = |seed, world| {
        let outcome = run(&materials, seed, world, &options);
        (outcome.events, TraceFile::parse(&outcome.trace_file.expect("kept")).expect("reads back"))
    };
    for world in BOTH {
        let ((events, first), (_, again), (_, other)) = (file(1, world), file(1, world), file(2, world));
        assert_eq!(first.events.len() as u64, events);
        assert_eq!(first.first_difference(&again), None);
        assert!(first.first_difference(&other).is_some());
    }
}

#[test]
fn peers_are_found_through_a_tracker_over_udp() {
    let actor =
        "[[actor]]\nkind = \"tracker\"\nproto = \"udp\"\nname = \"u\"\nscript = [\"ok interval=40\"]\n";
    let materials = small(&format!("{actor}{COMPLETE}"));
    let ends = BOTH.map(|world| {
        let outcome = once(&materials, 4, world);
        assert_eq!(outcome.verdict, Verdict::Pass, "{world:?} {:?}", outcome.violation);
        let again = once(&materials, 4, world);
        assert_eq!(outcome.trace, again.trace, "{world:?} repeats");
        pretty(&outcome.end_state)
    });
    assert_eq!(ends[0], ends[1]);
    assert!(ends[0].contains("completed"), "{}", ends[0]);
}

#[test]
fn a_udp_tracker_that_is_silent_leaves_the_turn_to_the_next() {
    let actors = "[[actor]]\nkind = \"tracker\"\nproto = \"udp\"\nname = \"u\"\nscript = [\"500\"]\n\
                  [[actor]]\nkind = \"tracker\"\nname = \"h\"\n";
    let materials = small(&format!("{actors}[[expect]]\ncomplete = \"leech\"\nwithin_bound = 20.0\n"));
    for world in BOTH {
        let outcome = once(&materials, 4, world);
        assert_eq!(outcome.verdict, Verdict::Pass, "{world:?} {:?}", outcome.violation);
        assert!(outcome.ended_at_ns > 45 * SECOND, "the first tier has its 45 s");
    }
}
