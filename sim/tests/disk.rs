//! Disks that fail, lie and lose: whichever call fails, whenever power is cut, whatever is done to files, the engine
//! stands it, claims nothing that is not there, and heals when the fault ends.

use std::sync::Arc;

use taipei_sim::plan::Materials;
use taipei_sim::run::{Outcome, RunOptions, Verdict, run};
use taipei_sim::scenario::{Scenario, World};
use taipei_sim::units::SECOND;

const BOTH: [World; 2] = [World::Events, World::Turmoil];

/// A 3-file, 40-piece torrent, whose seeder is fast enough that the disk of the leecher decides.
fn forty_pieces(leech: &str, more: &str) -> Arc<Materials> {
    let text = format!(
        r#"
        [scenario]
        id = "forty"
        worlds = ["events", "turmoil"]
        duration = "10 min"
        [[torrent]]
        name = "a"
        size = "1280 KiB"
        piece = "32 KiB"
        files = 3
        [[group]]
        name = "seed"
        count = 1
        has = "all"
        access = {{ up = "4 Mbit/s" }}
        [[group]]
        name = "leech"
        count = 1
        {leech}
        [net]
        latency = "5 ms"
        {more}
        "#
    );
    Materials::new(Scenario::parse(&text, "forty.toml").unwrap_or_else(|error| panic!("{error}")))
}

fn once(materials: &Arc<Materials>, seed: u64, world: World) -> Outcome {
    run(materials, seed, world, &RunOptions::default())
}

fn fault(kind: &str, at: &str, keys: &str) -> String {
    format!("[[fault]]\nat = \"{at}\"\nkind = \"{kind}\"\npick = \"leech\"\n{keys}\n")
}

fn failing_call(at: &str, call: u64, error: &str, span: &str) -> String {
    fault("disk-call", at, &format!("call = {call}\nerror = [\"{error}\"]\n{span}"))
}

/// Until a minute after the fault: no file is hashed again, no process begins again, nobody is blamed.
const HEALS: &str = "[[expect]]\ncomplete = \"leech\"\nwithin = \"60 s\"\nnever = [\"resumed\", \"checked_again\", \"piece_hash_bad\"]\n";
/// The same with a crash of its own.
const HEALS_AFTER_CRASH: &str =
    "[[expect]]\ncomplete = \"leech\"\nwithin = \"60 s\"\nnever = [\"piece_hash_bad\"]\n";
const ERRNOS: [&str; 4] = ["ENOSPC", "EIO", "EROFS", "EMFILE"];
const SPANS: [&str; 2] = ["calls = 1", "for = \"7 s\""];

/// Makes the k-th call fail, for each k until there is no such call. Gives how many there were.
fn every_k(at: &str, error: &str, span: &str, more: &str) -> u64 {
    for call in 1.. {
        let materials = forty_pieces("", &format!("{}{more}", failing_call(at, call, error, span)));
        let outcome = once(&materials, 1, World::Events);
        match (outcome.verdict, outcome.violation) {
            (Verdict::Pass, None) => {}
            (Verdict::Vacuous, Some(violation)) if violation.oracle == "V1" => return call - 1,
            (_, violation) => panic!("call {call} fails with {error}, {span}: {violation:?}"),
        }
    }
    unreachable!("there is no end to it")
}

/// Goal G10, and the first half of what the simulator was to show.
#[test]
#[cfg_attr(debug_assertions, ignore = "thousands of runs: tests/run disk-sim does them in release")]
fn whichever_call_fails_the_download_completes_by_itself() {
    let mut report = Vec::new();
    for error in ERRNOS {
        for span in SPANS {
            let count = every_k("0 s", error, span, HEALS);
            assert!(count > 100, "{error}, {span}: only {count} calls");
            report.push((error, span, count));
        }
    }
    let runs: u64 = report.iter().map(|(.., count)| count + 1).sum();
    let k_max = report.iter().map(|(.., count)| *count).max().unwrap_or(0);
    println!("{runs} runs, k up to {k_max}");
}

#[test]
#[cfg_attr(debug_assertions, ignore = "thousands of runs: tests/run disk-sim does them in release")]
fn whichever_call_fails_while_it_resumes_the_download_completes_by_itself() {
    let crash = fault("crash", "1500 ms", "back_after = \"500 ms\"");
    let (mut runs, mut k_max) = (0, 0);
    for error in ERRNOS {
        for span in SPANS {
            let count = every_k("1900 ms", error, span, &format!("{crash}{HEALS_AFTER_CRASH}"));
            assert!(count > 50, "{error}, {span}: only {count} calls");
            (runs, k_max) = (runs + count + 1, k_max.max(count));
        }
    }
    println!("{runs} runs, k up to {k_max}");
}

/// Goal G4, and the second half.
#[test]
#[cfg_attr(debug_assertions, ignore = "thousands of runs: tests/run disk-sim does them in release")]
fn a_thousand_power_cuts_claim_nothing_false_and_cost_five_seconds_at_most() {
    let cut = |at: &str| fault("power-cut", at, "back_after = \"100 ms .. 2 s\"");
    let cuts = ["200 ms .. 12 s", "13 s .. 26 s", "28 s .. 40 s", "42 s .. 60 s"].map(cut).concat();
    let expect = "[[expect]]\ncomplete = \"leech\"\nresume = { claimed_but_bad = 0, lost = \"<= 5 s\" }\n";
    let slow = "access = { down = \"240 kbit/s\" }\ndisk = { latency = \"1 ms .. 20 ms\" }";
    let materials = forty_pieces(slow, &format!("{cuts}{expect}"));
    let mut worst = 0;
    for seed in 0..250 {
        let outcome = once(&materials, seed, World::Events);
        assert_eq!(outcome.verdict, Verdict::Pass, "seed {seed}: {:?}", outcome.violation);
        assert_eq!(outcome.summary.fault_effects.len(), 4);
        worst = worst.max(outcome.summary.worst_loss_ns);
    }
    assert!(worst > SECOND, "nothing was ever lost: {worst} ns");
    println!("1000 power cuts, the oldest piece lost was verified {} ms before", worst / 1_000_000);
}

#[test]
fn what_is_lost_beyond_the_limit_is_found_by_s12() {
    let cut = fault("power-cut", "5 s", "back_after = \"1 s\"");
    let expect = "[[expect]]\ncomplete = \"leech\"\nresume = { lost = \"<= 100 ms\" }\n";
    let materials = forty_pieces("access = { down = \"1 Mbit/s\" }", &format!("{cut}{expect}"));
    let broken = (0..20).filter(|seed| {
        let outcome = once(&materials, *seed, World::Events);
        outcome.violation.is_some_and(|violation| violation.oracle == "S12")
    });
    assert!(broken.count() > 5);
}

#[test]
fn in_both_worlds_a_call_fails_and_heals_and_one_that_is_never_made_is_vacuous() {
    for world in BOTH {
        for (call, span, want) in [
            (40, "calls = 2", (Verdict::Pass, None)),
            (60, "for = \"3 s\"", (Verdict::Pass, None)),
            (100_000, "calls = 1", (Verdict::Vacuous, Some("V1"))),
        ] {
            let materials = forty_pieces("", &format!("{}{HEALS}", failing_call("0 s", call, "EIO", span)));
            let outcome = once(&materials, 1, world);
            let broken = outcome.violation.as_ref().map(|violation| violation.oracle);
            assert_eq!((outcome.verdict, broken), want, "{world:?} call {call}: {:?}", outcome.violation);
        }
    }
}
