//! Families of faults that a profile draws from: each adds to a swarm what goes wrong in one way.

use taipei_engine::rng::Rng;

use crate::profile::{Swarm, between, length, magnitude};
use crate::units::{MILLISECOND, SECOND};

/// What a family does.
pub(crate) type Family = fn(&mut Rng, &mut Swarm);

/// All of them, by name. The name is also that of their random stream.
pub(crate) const FAMILIES: &[(&str, Family)] = &[
    ("loss", loss),
    ("crash", crash),
    ("disk", disk),
    ("hostile", hostile),
    ("tracker", tracker),
    ("clock", clock),
    ("silence", silence),
];

/// Segments that come a retransmission later.
fn loss(rng: &mut Rng, swarm: &mut Swarm) {
    swarm.net += &format!("loss = \"1/{}\"\n", magnitude(rng, 10, 2000));
}

/// Processes and machines that die and come back.
fn crash(rng: &mut Rng, swarm: &mut Swarm) {
    for _ in 0..between(rng, 1, 4) {
        let kind = if rng.below(2) == 0 { "crash" } else { "power-cut" };
        let (at, host, away) =
            (swarm.moment(rng), swarm.host(rng), length(rng, 100 * MILLISECOND, 60 * SECOND));
        swarm.parts += &format!(
            "[[fault]]\nat = \"{at}\"\nkind = \"{kind}\"\npick = \"{host}\"\nback_after = \"{away}\"\n"
        );
    }
    swarm.expects += "[[expect]]\nresume = { claimed_but_bad = 0, lost = \"<= unsynced\" }\n";
}

/// Disks that are slow, or full for a while.
fn disk(rng: &mut Rng, swarm: &mut Swarm) {
    swarm.leech_keys +=
        &format!("disk = {{ latency = \"100 us .. {}\" }}\n", length(rng, MILLISECOND, 100 * MILLISECOND));
    for _ in 0..between(rng, 0, 2) {
        let (at, host, lasts) = (swarm.moment(rng), swarm.leecher(rng), length(rng, SECOND, 60 * SECOND));
        let space = rng.below(swarm.size_bytes);
        swarm.parts += &format!(
            "[[fault]]\nat = \"{at}\"\nkind = \"disk-full\"\npick = \"{host}\"\nspace = \"{space} B\"\nfor = \"{lasts}\"\n"
        );
    }
}

/// Seeders that serve wrong blocks.
fn hostile(rng: &mut Rng, swarm: &mut Swarm) {
    let (count, of) = (between(rng, 1, 2), between(rng, 2, 20));
    swarm.parts +=
        &format!("[[group]]\nname = \"liar\"\ncount = {count}\nhas = \"all\"\nlies = \"1/{of}\"\n");
    swarm.expects += "[[expect]]\nbanned = { bad_pieces = 3 }\n";
}

/// Several trackers, of which some are away for a while.
fn tracker(rng: &mut Rng, swarm: &mut Swarm) {
    swarm.has_trackers = true;
    for number in 1..=between(rng, 1, 3) {
        let proto = if rng.below(2) == 0 { "http" } else { "udp" };
        swarm.parts +=
            &format!("[[actor]]\nkind = \"tracker\"\nname = \"tracker-{number}\"\nproto = \"{proto}\"\n");
        if rng.below(2) == 0 {
            let (how, lasts) = (["refuse", "hang"][rng.below(2) as usize], length(rng, SECOND, 120 * SECOND));
            let at = if rng.below(2) == 0 { "0 s".to_owned() } else { swarm.moment(rng) };
            swarm.parts += &format!(
                "[[fault]]\nat = \"{at}\"\nkind = \"tracker-outage\"\npick = \"tracker-{number}\"\nhow = [\"{how}\"]\nfor = \"{lasts}\"\n"
            );
        }
    }
}

/// Machines that sleep, and wall clocks that jump.
fn clock(rng: &mut Rng, swarm: &mut Swarm) {
    for _ in 0..between(rng, 1, 2) {
        let (at, host) = (swarm.moment(rng), swarm.host(rng));
        let what = if rng.below(2) == 0 {
            format!("kind = \"suspend\"\nfor = \"{}\"\n", length(rng, SECOND, 600 * SECOND))
        } else {
            let sign = if rng.below(2) == 0 { "-" } else { "" };
            format!(
                "kind = \"clock-jump\"\nby = [\"{sign}{} s\"]\nfor = \"{}\"\n",
                magnitude(rng, 1, 31_536_000),
                length(rng, SECOND, 60 * SECOND)
            )
        };
        swarm.parts += &format!("[[fault]]\nat = \"{at}\"\npick = \"{host}\"\n{what}");
    }
}

/// Hosts of which nothing is heard for a while.
fn silence(rng: &mut Rng, swarm: &mut Swarm) {
    for _ in 0..between(rng, 1, 3) {
        let (at, host, lasts) =
            (swarm.moment(rng), swarm.host(rng), length(rng, 100 * MILLISECOND, 60 * SECOND));
        swarm.parts +=
            &format!("[[fault]]\nat = \"{at}\"\nkind = \"silence\"\npick = \"{host}\"\nfor = \"{lasts}\"\n");
    }
}
