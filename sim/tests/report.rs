//! Reports: an observer changes nothing, the same run gives the same page, and what a page tells is what happened.

use std::sync::Arc;

use taipei_sim::oracle::RULES;
use taipei_sim::plan::Materials;
use taipei_sim::report::{PAGE_BYTES_MAX, run_page, sweep_page};
use taipei_sim::run::{Outcome, RunOptions, Verdict, run};
use taipei_sim::scenario::{MARKS, Scenario, World};
use taipei_sim::sweep::{Head, SeedLine, Source, Unit};

fn scenario(leeches: u32, expect: &str) -> Arc<Materials> {
    let text = format!(
        r#"
        [scenario]
        id = "drawn"
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
        count = {leeches}
        access = {{ up = "1 Mbit/s", queue = "200 ms" }}
        [net]
        latency = "5 ms .. 30 ms"
        [[fault]]
        at = "4 s"
        kind = "crash"
        pick = "leech-1"
        back_after = "2 s"
        [[actor]]
        kind = "tracker"
        name = "tracker"
        [[fault]]
        at = "3 s"
        for = "5 s"
        kind = "tracker-outage"
        pick = "tracker"
        how = ["refuse"]
        [[expect]]
        complete = "leech"
        {expect}
        "#
    );
    Materials::new(Scenario::parse(&text, "drawn.toml").expect("parses"))
}

/// Without the tags that keep words of a command line together.
fn plain(page: &str) -> String {
    page.replace("<span>", "").replace("</span>", "")
}

fn observed(materials: &Arc<Materials>, world: World, is_observed: bool) -> Outcome {
    run(materials, 3, world, &RunOptions { observe: is_observed, ..RunOptions::default() })
}

#[test]
fn an_observer_changes_nothing_and_a_page_is_the_same_each_time() {
    let materials = scenario(2, "");
    for world in [World::Events, World::Turmoil] {
        let (with, without) = (observed(&materials, world, true), observed(&materials, world, false));
        assert_eq!((&with.trace, with.events), (&without.trace, without.events), "{world:?}");
        assert_eq!(with.summary, without.summary);
        assert_eq!(run_page(&materials, &without, "drawn.toml"), None);
        let page = run_page(&materials, &with, "drawn.toml").expect("observed");
        let again = observed(&materials, world, true);
        assert_eq!(Some(&page), run_page(&materials, &again, "drawn.toml").as_ref());
        let observer = with.observed.as_deref().expect("observed");
        // The crash is two processes, with nothing between them.
        assert_eq!(observer.hosts[1].processes.len(), 2, "{world:?}");
        let last = observer.samples.last().expect("sampled");
        assert!(last.hosts.iter().all(|host| host.have_bytes == 1 << 20), "{last:?}");
        let given: u64 =
            observer.flows.iter().filter(|((_, to), _)| *to == 1).map(|(_, flow)| flow.bytes).sum();
        assert_eq!(given, with.summary.received_bytes["leech-1"]);
    }
}

#[test]
fn a_page_tells_how_it_ended_and_how_to_see_that_again() {
    let passed = scenario(2, "");
    let outcome = observed(&passed, World::Events, true);
    assert_eq!(outcome.verdict, Verdict::Pass, "{:?}", outcome.violation);
    let page = run_page(&passed, &outcome, "drawn.toml").expect("observed");
    assert!(
        page.contains("Passed")
            && plain(&page).contains("taipei-sim replay drawn.toml --seed 3 --world events")
    );
    assert!(!page.contains("The last events"));
    let late = scenario(2, "by = \"5 s\"");
    let outcome = observed(&late, World::Events, true);
    assert_eq!(outcome.verdict, Verdict::Failed);
    let page = run_page(&late, &outcome, "drawn.toml").expect("observed");
    assert!(
        page.contains("Failed: rule L1 at 5.000 s") && page.contains("The last events before the failure")
    );
    for rule in RULES {
        assert!(page.contains(&format!(">{}<", rule.id)), "{} is in no table", rule.id);
    }
}

#[test]
fn a_name_is_text_wherever_it_stands() {
    let materials = scenario(1, "");
    let outcome = observed(&materials, World::Events, true);
    let page = run_page(&materials, &outcome, "<script>alert(1)</script>.toml").expect("observed");
    assert!(!page.contains("<script") && page.contains("&lt;script&gt;alert(1)&lt;/script&gt;.toml"));
}

#[test]
fn a_page_of_many_is_as_large_as_one_of_forty() {
    let materials = scenario(70, "by = \"12 s\"");
    let page =
        run_page(&materials, &observed(&materials, World::Events, true), "drawn.toml").expect("observed");
    assert!(page.len() < PAGE_BYTES_MAX, "{}", page.len());
    assert!(page.contains("of 71 hosts are drawn"));
}

#[test]
fn a_sweep_shows_what_failed_first_and_what_was_never_reached() {
    let source = Source::profile("fuzz-small").expect("built in");
    let head = Head {
        source: "fuzz-small".to_owned(),
        world: World::Events,
        build: "b".to_owned(),
        base_seed: 1,
        seeds: 3000,
        cells: 1,
        shard: (1, 1),
    };
    let mut lines: Vec<SeedLine> = (1..=3000u64)
        .map(|seed| SeedLine {
            verdict: "pass".to_owned(),
            violation: None,
            families: vec!["crash".to_owned(), "loss".to_owned()],
            marks: vec!["choked".to_owned()],
            completed_ns: Some(seed * 1_000_000),
            bound_ns: Some(1_000_000),
            ..SeedLine::crashed(Unit { seed, cell: 1 }, String::new())
        })
        .collect();
    lines[76] = SeedLine::crashed(Unit { seed: 77, cell: 1 }, "<b>it</b> fell".to_owned());
    let page = sweep_page(&source, &head, &lines, "--profile fuzz-small");
    assert!(page.len() < PAGE_BYTES_MAX, "{}", page.len());
    assert!(page.contains("1 of 3000 runs failed"));
    assert!(
        plain(&page).contains("replay --profile fuzz-small --seed 77 --world events")
            && !page.contains("<b>it</b>")
    );
    let at = |words: &str| page.find(words).unwrap_or_else(|| panic!("{words} is not there"));
    assert!(at("What failed") < at("Seeds and rules") && at("Seeds and rules") < at("The slowest runs"));
    // The slowest one is not that which fell.
    let slowest = &page[at("The slowest runs")..at("What was reached")];
    assert!(plain(slowest).contains("--seed 3000 ") && !plain(slowest).contains("--seed 77 "));
    let missing = MARKS.iter().find(|mark| mark.name == "endgame").expect("a mark");
    assert!(at("Never reached") < at(missing.meaning));
    // The order in which workers were done is nobody's business.
    lines.reverse();
    assert_eq!(page, sweep_page(&source, &head, &lines, "--profile fuzz-small"));
}
