//! What lies between hosts, in whole runs: each way in which a network fails strikes, the engine stands it, and what
//! cannot work does not.

use std::sync::Arc;

use taipei_sim::plan::Materials;
use taipei_sim::run::{Outcome, RunOptions, Verdict, run};
use taipei_sim::scenario::{Scenario, World};

const BOTH: &[World] = &[World::Events, World::Turmoil];
const EVENTS: &[World] = &[World::Events];

/// A seed with keys of its group, a leecher with those of its, and the rest of the file.
fn pair(seed: &str, leech: &str, more: &str) -> Arc<Materials> {
    let text = format!(
        "[scenario]\nid = \"pair\"\nduration = \"600 s\"\n\
         [[torrent]]\nname = \"a\"\nsize = \"1 MiB\"\npiece = \"64 KiB\"\n\
         [[group]]\nname = \"seed\"\ncount = 1\nhas = \"all\"\naccess = {{ up = \"1 Mbit/s\", down = \"1 Mbit/s\" }}\n{seed}\n\
         [[group]]\nname = \"leech\"\ncount = 1\n{leech}\n\
         [[expect]]\ncomplete = \"leech\"\n{more}\n"
    );
    Materials::new(Scenario::parse(&text, "pair.toml").unwrap_or_else(|error| panic!("{error}\n{text}")))
}

fn once(materials: &Arc<Materials>, seed: u64, world: World) -> Outcome {
    run(materials, seed, world, &RunOptions::default())
}

/// The verdict, and which rule broke.
fn verdict(outcome: &Outcome) -> (Verdict, Option<&str>) {
    (outcome.verdict, outcome.violation.as_ref().map(|violation| violation.oracle))
}

/// When the leecher has everything, in milliseconds, for some seeds in each world.
fn completed(materials: &Arc<Materials>, worlds: &[World]) -> Vec<u64> {
    let mut all = Vec::new();
    for world in worlds {
        for seed in 1..=3 {
            let outcome = once(materials, seed, *world);
            assert_eq!(verdict(&outcome), (Verdict::Pass, None), "{world:?} {seed} {:?}", outcome.violation);
            all.push(outcome.summary.completed_ms["leech-1 a"]);
        }
    }
    all
}

fn fault(at: &str, keys: &str) -> String {
    format!("[[fault]]\nat = \"{at}\"\n{keys}\n")
}

/// Without a fault 1 MiB at 1 Mbit/s takes 8.5 s; with it, every world stands it and takes about so long.
fn check_fault(worlds: &[World], keys: &str, took_ms: core::ops::Range<u64>) {
    let materials = pair("", "", &fault("3 s", keys));
    for took in completed(&materials, worlds) {
        assert!(took_ms.contains(&took), "{keys}: {took} ms");
    }
}

#[test]
fn a_partition_that_is_shorter_than_patience_costs_its_time() {
    // What was asked for before still comes, held back; what was lost last is sent again after 12.8 s at most.
    let keys = "for = \"10 s\"\nkind = \"partition\"\nfrom_group = \"seed\"\nto_group = \"leech\"";
    check_fault(BOTH, keys, 14_500..33_000);
}

#[test]
fn connections_lost_in_a_partition_come_back_in_bounded_time() {
    // Both ends give up or time out; then a dial waits at most four times as long as the partition lasted.
    let keys = "for = \"90 s\"\nkind = \"partition\"\nfrom_group = \"seed\"\nto_group = \"leech\"";
    check_fault(BOTH, keys, 98_000..300_000);
}

#[test]
fn a_one_way_cut_ends_what_needs_answers() {
    for keys in [
        "for = \"20 s\"\nkind = \"one-way-cut\"\nfrom_group = \"seed\"\nto_group = \"leech\"",
        "for = \"20 s\"\nkind = \"one-way-cut\"\nfrom_group = \"leech\"\nto_group = \"seed\"",
    ] {
        check_fault(BOTH, keys, 8_000..60_000);
    }
}

#[test]
fn a_host_in_a_black_hole_is_back_when_it_ends() {
    check_fault(BOTH, "for = \"30 s\"\nkind = \"black-hole\"\npick = \"leech\"", 34_000..120_000);
}

#[test]
fn a_reset_is_followed_by_a_new_connection() {
    check_fault(EVENTS, "kind = \"reset\"\npick = \"seed\"", 9_000..40_000);
}

#[test]
fn a_burst_of_loss_costs_time_and_nothing_else() {
    check_fault(
        BOTH,
        "for = \"5 s\"\nkind = \"loss-burst\"\npick = \"seed\"\nshare = \"30 %\"",
        8_420..60_000,
    );
}

#[test]
fn a_link_that_is_slow_for_a_while_passes_what_it_can() {
    // 3 s and 20 s of a tenth are worth 5 s.
    check_fault(
        BOTH,
        "for = \"20 s\"\nkind = \"slow-link\"\npick = \"seed\"\nrate = \"100 kbit/s\"",
        25_000..32_000,
    );
}

#[test]
fn without_names_nobody_is_found_until_there_are_again() {
    for how in ["nxdomain", "silence"] {
        let keys = format!("for = \"15 s\"\nkind = \"dns-outage\"\npick = \"leech\"\nhow = [\"{how}\"]");
        let materials = pair("", "", &fault("0 s", &keys));
        for took in completed(&materials, BOTH) {
            assert!((23_000..80_000).contains(&took), "{how}: {took} ms");
        }
    }
}

#[test]
fn a_fault_of_the_network_that_nobody_meets_is_vacuous() {
    for (worlds, keys) in [
        (BOTH, "for = \"1 s\"\nkind = \"black-hole\"\npick = \"leech\""),
        (BOTH, "for = \"1 s\"\nkind = \"dns-outage\"\npick = \"leech\"\nhow = [\"silence\"]"),
        (BOTH, "for = \"1 s\"\nkind = \"slow-link\"\npick = \"leech\"\nrate = \"1 kbit/s\""),
        (BOTH, "for = \"1 s\"\nkind = \"loss-burst\"\npick = \"leech\"\nshare = \"100 %\""),
    ] {
        let materials = pair("", "", &fault("25 s", keys));
        for world in worlds {
            let outcome = once(&materials, 1, *world);
            assert_eq!(
                verdict(&outcome),
                (Verdict::Vacuous, Some("V1")),
                "{keys} {world:?} {:?}",
                outcome.violation
            );
        }
    }
}

#[test]
fn addresses_where_nobody_is_are_passed_over() {
    let actor = "[[actor]]\nkind = \"tracker\"\nname = \"t\"\nstale_addresses = 1\n";
    for took in completed(&pair("", "", actor), BOTH) {
        assert!((38_000..60_000).contains(&took), "half a minute of silence goes first: {took} ms");
    }
}

#[test]
fn every_packet_of_a_handshake_may_be_lost() {
    // At 40 % every third dial fails at its first try; 1.4 MiB cross for 1 MiB, in order.
    let materials = pair("", "", "[net]\nlatency = \"5 ms\"\nloss = \"40 %\"\n");
    for took in completed(&materials, EVENTS) {
        assert!((9_000..590_000).contains(&took), "{took} ms");
    }
}

#[test]
fn datagrams_lost_repeated_and_overtaken_still_find_peers() {
    let more = "[[actor]]\nkind = \"tracker\"\nname = \"u\"\nproto = \"udp\"\n\
                [net]\nlatency = \"5 ms\"\njitter = \"pareto 20 ms\"\nloss = \"10 %\"\nduplicate = \"20 %\"\n";
    completed(&pair("", "", more), BOTH);
    completed(&pair("", "", &format!("{more}reorder = {{ share = \"1/4\", by = \"300 ms\" }}\n")), EVENTS);
}

#[test]
fn a_full_queue_on_the_way_down_slows_a_sender_and_loses_nothing() {
    let down = "access = { down = \"500 kbit/s\", queue_down = \"32 KiB\" }";
    for took in completed(&pair("", down, ""), EVENTS) {
        assert!((16_700..40_000).contains(&took), "{took} ms, ideal 16.8 s");
    }
}

#[test]
fn families_that_differ_never_meet_and_a_host_of_both_meets_all() {
    let both = "interfaces = [\"v4\", \"v6\"]";
    let tracker = "[[actor]]\nkind = \"tracker\"\nname = \"t\"\ninterfaces = [\"v4\", \"v6\"]\n";
    let six = "interfaces = [\"v6\"]";
    for (seed, leech, meet) in
        [(six, "", false), ("", six, false), (both, six, true), (both, "", true), (six, both, true)]
    {
        let outcome = once(&pair(seed, leech, tracker), 1, World::Events);
        let want = if meet { (Verdict::Pass, None) } else { (Verdict::Failed, Some("L1")) };
        assert_eq!(verdict(&outcome), want, "{seed} {leech} {:?}", outcome.violation);
    }
}

/// Seed and leecher behind boxes with these keys; whether they meet.
fn check_nat(seed_box: &str, leech_box: Option<&str>, meet: bool) {
    let nat = |name: &str, keys: &str| format!("[[nat]]\nname = \"{name}\"\n{keys}\n");
    let mut more = nat("one", seed_box);
    more += &leech_box.map_or(String::new(), |keys| nat("two", keys));
    let leech = if leech_box.is_some() { "behind = \"two\"" } else { "behind = \"one\"" };
    let outcome = once(&pair("behind = \"one\"", leech, &more), 1, World::Events);
    let want = if meet { (Verdict::Pass, None) } else { (Verdict::Failed, Some("L1")) };
    assert_eq!(verdict(&outcome), want, "{seed_box} {leech_box:?} {:?}", outcome.violation);
}

#[test]
fn boxes_let_in_whom_they_should() {
    check_nat("", Some(""), false);
    check_nat("filtering = \"address-and-port\"", Some("mapping = \"address-and-port\""), false);
    check_nat("forward = \"seed-1\"", Some(""), true);
    check_nat("", Some("forward = \"leech-1\"\nmapping = \"address\""), true);
    check_nat("forward = \"seed-1\"", None, false);
    // Both say to be at the same address and port, and who is where oneself is, is not dialled.
    check_nat("forward = \"seed-1\"\nhairpin = true", None, false);
    check_nat("hairpin = true", None, false);
}

#[test]
fn a_box_that_forgets_costs_a_new_connection() {
    let more = format!(
        "[[nat]]\nname = \"one\"\nforward = \"leech-1\"\n[[nat]]\nname = \"two\"\n{}",
        fault("4 s", "kind = \"nat-reboot\"\npick = \"two\"")
    );
    let materials = pair("behind = \"two\"", "behind = \"one\"", &more);
    for took in completed(&materials, EVENTS) {
        assert!((9_000..100_000).contains(&took), "{took} ms");
    }
}

#[test]
fn a_box_that_forgets_soon_is_met_again_by_whoever_is_quiet() {
    // The leecher's connection says nothing while its disk is full, and its box forgets it meanwhile.
    let more = format!(
        "[[nat]]\nname = \"one\"\ntcp_idle = \"5 s\"\n{}",
        fault("3 s", "kind = \"disk-full\"\npick = \"leech\"\nspace = \"0 B\"\nfor = \"40 s\"")
    );
    let materials = pair("", "behind = \"one\"", &more);
    for took in completed(&materials, EVENTS) {
        assert!((43_000..200_000).contains(&took), "{took} ms");
    }
}

#[test]
fn what_happens_at_once_is_drawn_and_in_the_order_of_asking_it_is_not() {
    let text = pair("", "", "").scenario.to_toml();
    let fifo = text.replace("id = \"pair\"", "id = \"pair\"\norder = \"fifo\"");
    let fifo = Materials::new(Scenario::parse(&fifo, "fifo.toml").expect("parses"));
    let drawn = pair("", "", "");
    assert_ne!(once(&fifo, 1, World::Events).trace, once(&drawn, 1, World::Events).trace);
    for materials in [&fifo, &drawn] {
        assert_eq!(once(materials, 1, World::Events).trace, once(materials, 1, World::Events).trace);
    }
}
