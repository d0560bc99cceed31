//! Families of faults that a profile draws from: each adds to a swarm what goes wrong in one way.

use taipei_engine::limits::PEERS_PER_ADDRESS_MAX;
use taipei_engine::rng::Rng;

use crate::profile::{Swarm, between, length, magnitude};
use crate::scenario::Behaviour;
use crate::units::{MILLISECOND, SECOND};

/// What a family does.
pub(crate) type Family = fn(&mut Rng, &mut Swarm);

/// All of them, by name. The name is also that of their random stream.
pub(crate) const FAMILIES: &[(&str, Family)] = &[
    ("loss", loss),
    ("crash", crash),
    ("restart", restart),
    ("disk", disk),
    ("trouble", trouble),
    ("damage", damage),
    ("config", config),
    ("hostile", hostile),
    ("tracker", tracker),
    ("clock", clock),
    ("silence", silence),
    ("path", path),
    ("partition", partition),
    ("link", link),
    ("reset", reset),
    ("dns", dns),
    ("nat", nat),
    ("magnet", magnet),
    ("puppets", puppets),
    ("script", script),
    ("dht", dht),
];

/// Nodes of the DHT, which find each other by those of the seeders; where no other family has brought a tracker, by them
/// alone. Leechers may share a box, and then tell its network of their swarm as well. Those behind a box of the family `nat`
/// have no node.
fn dht(rng: &mut Rng, swarm: &mut Swarm) {
    swarm.seed_config += "dht = \"router\", ";
    swarm.leech_config += "dht = \"node\", ";
    if !swarm.has_trackers && !swarm.families.contains(&"nat") {
        swarm.head += "trackerless = true\n";
    }
    if rng.below(4) == 0 {
        swarm.leech_config += "lsd = true, ";
        swarm.leech_keys += "behind = \"house\"\n";
        swarm.parts += "[[nat]]\nname = \"house\"\n";
    }
}

/// Leechers that have only a magnet link.
fn magnet(_rng: &mut Rng, swarm: &mut Swarm) {
    swarm.leech_keys += "magnet = true\n";
}

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
    if rng.below(4) == 0 {
        swarm.leech_disk += "rename_durable = false, ";
    }
    swarm.expects += "[[expect]]\nresume = { claimed_but_bad = 0, lost = \"<= unsynced\" }\n";
}

/// Users who end it and begin it again, with what is whole and with what is not.
fn restart(rng: &mut Rng, swarm: &mut Swarm) {
    for _ in 0..between(rng, 1, 3) {
        let (at, host, away) =
            (swarm.moment(rng), swarm.host(rng), length(rng, 100 * MILLISECOND, 60 * SECOND));
        swarm.parts += &format!(
            "[[fault]]\nat = \"{at}\"\nkind = \"restart\"\npick = \"{host}\"\nback_after = \"{away}\"\n"
        );
    }
}

/// Disks that are slow, or full for a while.
fn disk(rng: &mut Rng, swarm: &mut Swarm) {
    swarm.leech_disk += &format!("latency = \"100 us .. {}\", ", length(rng, MILLISECOND, 100 * MILLISECOND));
    for _ in 0..between(rng, 0, 2) {
        let (at, host, lasts) = (swarm.moment(rng), swarm.host(rng), length(rng, SECOND, 60 * SECOND));
        let longer = length(rng, 10 * MILLISECOND, 2 * SECOND);
        swarm.parts += &format!(
            "[[fault]]\nat = \"{at}\"\nkind = \"disk-slow\"\npick = \"{host}\"\nlatency = \"1 ms .. {longer}\"\nfor = \"{lasts}\"\n"
        );
    }
    for _ in 0..between(rng, 0, 2) {
        let (at, host, lasts) = (swarm.moment(rng), swarm.leecher(rng), length(rng, SECOND, 60 * SECOND));
        let space = rng.below(swarm.size_bytes);
        swarm.parts += &format!(
            "[[fault]]\nat = \"{at}\"\nkind = \"disk-full\"\npick = \"{host}\"\nspace = \"{space} B\"\nfor = \"{lasts}\"\n"
        );
    }
}

/// Disks on which calls fail, reads end early, syncs lie, nothing can be written: each for a while.
fn trouble(rng: &mut Rng, swarm: &mut Swarm) {
    for _ in 0..between(rng, 1, 4) {
        let (at, host, lasts) = (swarm.moment(rng), swarm.host(rng), length(rng, SECOND, 60 * SECOND));
        let what = match rng.below(5) {
            0 | 1 => {
                let (call, error) = (magnitude(rng, 1, 200), ERRORS[rng.below(ERRORS.len() as u64) as usize]);
                let span = if rng.below(2) == 0 {
                    format!("calls = {}", magnitude(rng, 1, 50))
                } else {
                    format!("for = \"{lasts}\"")
                };
                format!("kind = \"disk-call\"\ncall = {call}\nerror = [\"{error}\"]\n{span}\n")
            }
            number => {
                let kind = ["short-read", "sync-lies", "disk-read-only"][number as usize - 2];
                format!("kind = \"{kind}\"\nfor = \"{lasts}\"\n")
            }
        };
        swarm.parts += &format!("[[fault]]\nat = \"{at}\"\npick = \"{host}\"\n{what}");
    }
}

/// Those that are over by themselves. `ENOSPC` is of the family `disk`; `ENOENT` and `EACCES`, where a torrent is added, are
/// told to who adds it.
const ERRORS: &[&str] = &["EIO", "EROFS", "EMFILE"];

/// Files that rot, or that another program cuts, removes or replaces. One copy stays as it is: that of the last seeder.
fn damage(rng: &mut Rng, swarm: &mut Swarm) {
    for _ in 0..between(rng, 1, 3) {
        let number = rng.below(swarm.seeders - 1 + swarm.leechers) + 1;
        let host = match number.checked_sub(swarm.seeders - 1) {
            None | Some(0) => format!("seed-{number}"),
            Some(leecher) => format!("leech-{leecher}"),
        };
        let at = swarm.moment(rng);
        let what = match rng.below(4) {
            0 => format!("kind = \"bit-rot\"\npieces = {}\n", magnitude(rng, 1, 8)),
            number => {
                let kind = ["file-truncated", "file-removed", "file-replaced"][number as usize - 1];
                format!("kind = \"{kind}\"\n")
            }
        };
        swarm.parts += &format!("[[fault]]\nat = \"{at}\"\npick = \"{host}\"\n{what}");
    }
}

/// Engines that are told to keep little in memory, and to dial slowly.
fn config(rng: &mut Rng, swarm: &mut Swarm) {
    swarm.leech_config += &format!("buffer = \"{} KiB\", ", magnitude(rng, 32, 1_024));
    if rng.below(2) == 0 {
        swarm.leech_config += &format!("dials_per_second = {}, ", between(rng, 1, 10));
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

/// Peers that break rules, each in a way of its own. Those that poison are of the family `hostile`.
fn puppets(rng: &mut Rng, swarm: &mut Swarm) {
    let words: Vec<&str> = Behaviour::words().collect();
    let count = between(rng, 1, 4);
    let behaviour: Vec<String> =
        (0..count).map(|_| format!("\"{}\"", words[rng.below(words.len() as u64) as usize])).collect();
    swarm.parts += &format!(
        "[[actor]]\nkind = \"peer\"\nname = \"crook\"\ncount = {count}\nbehaviour = [{}]\n\
         access = {{ up = \"10 Mbit/s\", down = \"10 Mbit/s\" }}\n",
        behaviour.join(", ")
    );
}

/// A tracker that says what is no answer, a few times, before it does its work.
fn script(rng: &mut Rng, swarm: &mut Swarm) {
    swarm.has_trackers = true;
    let (proto, words) = if rng.below(2) == 0 { ("http", HTTP_SCRIPT) } else { ("udp", UDP_SCRIPT) };
    let word = |rng: &mut Rng| format!("\"{}\"", words[rng.below(words.len() as u64) as usize]);
    let script: Vec<String> = (0..between(rng, 1, 6)).map(|_| word(rng)).collect();
    swarm.parts += &format!(
        "[[actor]]\nkind = \"tracker\"\nname = \"speaker\"\nproto = \"{proto}\"\nscript = [{}, \"ok\"]\n",
        script.join(", ")
    );
}

const HTTP_SCRIPT: &[&str] = &[
    "500",
    "302 /announce",
    "302 http://127.0.0.1/",
    "drop 1",
    "hang 10 s",
    "error 'no'",
    "warn 'soon'",
    "crowd 500",
    "ok interval=-1 min=0",
    "ok interval=99999999999",
    "garbage",
    "truncated",
    "wrong types",
    "deep nesting",
    "false peers",
    "huge",
    "close early",
    "gzip",
    "gzip bomb",
];
const UDP_SCRIPT: &[&str] = &[
    "drop 2",
    "hang 10 s",
    "error 'no'",
    "crowd 500",
    "ok interval=-1",
    "garbage",
    "truncated",
    "false peers",
    "wrong transaction",
    "from elsewhere",
];

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

/// Packets that come late, twice, in another order, or not at all in bursts.
fn path(rng: &mut Rng, swarm: &mut Swarm) {
    let shape = ["uniform", "exponential", "pareto"][rng.below(3) as usize];
    let jitter = length(rng, 10_000, 50 * MILLISECOND);
    swarm.net += &format!("jitter = \"{shape} {jitter}\"\n");
    if rng.below(2) == 0 {
        let (enter, leave) = (magnitude(rng, 100, 5_000), between(rng, 2, 20));
        swarm.net += &format!("burst = {{ enter = \"1/{enter}\", leave = \"1/{leave}\", drop = \"1/2\" }}\n");
    }
    if rng.below(2) == 0 {
        let by = length(rng, MILLISECOND, 200 * MILLISECOND);
        swarm.net += &format!("duplicate = \"1/20\"\nreorder = {{ share = \"1/10\", by = \"{by}\" }}\n");
    }
}

/// Groups and hosts that do not reach each other, one way or both.
fn partition(rng: &mut Rng, swarm: &mut Swarm) {
    for _ in 0..between(rng, 1, 3) {
        let (at, lasts) = (swarm.moment(rng), length(rng, SECOND, 120 * SECOND));
        let (one, other) = (swarm.host(rng), swarm.host(rng));
        let (seed, leech) = if rng.below(2) == 0 { ("seed", "leech") } else { ("leech", "seed") };
        let what = match rng.below(3) {
            0 => format!("kind = \"partition\"\nfrom_group = \"{one}\"\nto_group = \"leech\"\n"),
            1 => format!("kind = \"one-way-cut\"\nfrom_group = \"{seed}\"\nto_group = \"{leech}\"\n"),
            _ => format!("kind = \"black-hole\"\npick = \"{other}\"\n"),
        };
        swarm.parts += &format!("[[fault]]\nat = \"{at}\"\nfor = \"{lasts}\"\n{what}");
    }
}

/// Links that lose much, or are slow.
fn link(rng: &mut Rng, swarm: &mut Swarm) {
    for _ in 0..between(rng, 1, 3) {
        let (at, host, lasts) = (swarm.moment(rng), swarm.host(rng), length(rng, SECOND, 60 * SECOND));
        let what = if rng.below(2) == 0 {
            format!("kind = \"loss-burst\"\nshare = \"{} %\"\n", between(rng, 1, 60))
        } else {
            format!("kind = \"slow-link\"\nrate = \"{} kbit/s\"\n", magnitude(rng, 64, 2_000))
        };
        swarm.parts += &format!("[[fault]]\nat = \"{at}\"\npick = \"{host}\"\nfor = \"{lasts}\"\n{what}");
    }
}

/// Hosts whose connections are all reset.
fn reset(rng: &mut Rng, swarm: &mut Swarm) {
    for _ in 0..between(rng, 1, 4) {
        let (at, host) = (swarm.moment(rng), swarm.host(rng));
        swarm.parts += &format!("[[fault]]\nat = \"{at}\"\nkind = \"reset\"\npick = \"{host}\"\n");
    }
}

/// Names that nobody finds for a while.
fn dns(rng: &mut Rng, swarm: &mut Swarm) {
    swarm.net += &format!("dns = \"{}\"\n", length(rng, MILLISECOND, 500 * MILLISECOND));
    for _ in 0..between(rng, 1, 2) {
        let at = if rng.below(2) == 0 { "0 s".to_owned() } else { swarm.moment(rng) };
        let (host, lasts) = (swarm.host(rng), length(rng, SECOND, 120 * SECOND));
        let how = ["nxdomain", "silence"][rng.below(2) as usize];
        swarm.parts += &format!(
            "[[fault]]\nat = \"{at}\"\nkind = \"dns-outage\"\npick = \"{host}\"\nhow = [\"{how}\"]\nfor = \"{lasts}\"\n"
        );
    }
}

/// More leechers, behind a box that translates, and forgets. Whom they dial is the rest; what nobody behind another box
/// could promise, that they all complete, holds because seeders have public addresses. No peer takes more than three of
/// one address, so there are no more.
fn nat(rng: &mut Rng, swarm: &mut Swarm) {
    let mut rule = || ["endpoint", "address", "address-and-port"][rng.below(3) as usize];
    let (mapping, filtering) = (rule(), rule());
    let hairpin = rng.below(2) == 0;
    let forward = if rng.below(2) == 0 { "forward = \"home-1\"\n" } else { "" };
    let (udp_idle, tcp_idle) =
        (length(rng, 10 * SECOND, 300 * SECOND), length(rng, 30 * SECOND, 7_200 * SECOND));
    let count = between(rng, 1, PEERS_PER_ADDRESS_MAX as u64);
    swarm.parts += &format!(
        "[[group]]\nname = \"home\"\ncount = {count}\nbehind = \"box\"\n\
         access = {{ up = \"10 Mbit/s\", down = \"50 Mbit/s\" }}\n[[nat]]\nname = \"box\"\nmapping = \"{mapping}\"\nfiltering = \"{filtering}\"\nhairpin = {hairpin}\n\
         udp_idle = \"{udp_idle}\"\ntcp_idle = \"{tcp_idle}\"\n{forward}"
    );
    for _ in 0..between(rng, 0, 2) {
        let at = swarm.moment(rng);
        swarm.parts += &format!("[[fault]]\nat = \"{at}\"\nkind = \"nat-reboot\"\npick = \"box\"\n");
    }
    swarm.expects += &format!("[[expect]]\ncomplete = \"home\"\nwithin = \"{}\"\n", swarm.within);
}
