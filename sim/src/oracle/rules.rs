//! All rules in one table: what a failure is known by, what failure output says of it, and what `taipei-sim oracles`
//! prints.

/// A rule that every run is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What a failure, a canary and a shrinker know it by.
    pub id: &'static str,
    /// It, in a sentence.
    pub rule: &'static str,
}

/// The rule with this id.
pub fn rule(id: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.id == id)
}

const fn is(id: &'static str, rule: &'static str) -> Rule {
    Rule { id, rule }
}

/// Safety (S), liveness (L), and that a run proved something (V). S11, S17, S18 and L5 are about what is not there
/// yet: uTP, anonymity, encryption.
pub const RULES: &[Rule] = &[
    is("S1", "what is had, or was found good or complete, is right on disk"),
    is("S2", "nothing is announced or served that is not verified and right on disk"),
    is(
        "S3",
        "what one end reads is what the other was given to send, in order and unchanged, and no engine counts other bytes",
    ),
    is(
        "S4",
        "a request is for a block that the peer has, while it serves, once, within its queue, and not while the disk is full",
    ),
    is("S5", "blocks and rejects answer requests that wait for them"),
    is(
        "S6",
        "messages come in their order and have their form: handshake, bitfield first and exact, haves that exist",
    ),
    is(
        "S7",
        "limits hold at every instant: connections, strangers, dials, slots, jobs, bytes waiting for one peer, and rates over any five seconds",
    ),
    is("S8", "who is banned is neither dialled nor answered, and nobody is dialled where no peer can be"),
    is("S9", "trackers are told the right thing, once, in time and in order, with counters that fit"),
    is("S10", "of a private torrent neither the DHT, the local network nor peers of peers ever hear"),
    is(
        "S12",
        "resume data claims nothing that is not on disk, and loses nothing that was saved, nor older than is allowed",
    ),
    is("S13", "files are made and changed only below the root, and only those of the torrent"),
    is("S14", "nothing panics, and every torrent can be added"),
    is("S15", "after a stop nothing is left: no output, connection, job, request, lock or timer"),
    is(
        "S16",
        "blocks in memory stay within the budget and, for each connection, one read window and a block that had begun",
    ),
    is("S19", "nobody is banned who never lied"),
    is("S20", "who lied is banned by all whom it hurt, and soon enough"),
    is("S21", "complete is said once, and only when everything that is wanted is there"),
    is("S22", "the count of who has each piece is the sum over the peers that are connected"),
    is("S23", "each request ends: no engine waits for one that was answered, taken back or cut off"),
    is("S24", "what a process counts goes on where the last one saved it"),
    is("L1", "what is expected comes in time after the last fault has healed"),
    is("L2", "nobody who lacks what a peer offers goes without a new block for long"),
    is("L3", "who is interested has its turn"),
    is("L4", "while no payload moves anywhere, next to nothing happens"),
    is("L6", "peers that a fault cut off from each other are back soon after"),
    is("L7", "a shutdown ends in time"),
    is("L8", "something is left to happen, and something else than waking up"),
    is("L9", "nothing happens that was said to happen never"),
    is("L10", "little is received for nothing"),
    is("L11", "nobody gets more of what is uploaded than it may"),
    is("V1", "every fault has an effect"),
    is("V2", "the marks that are expected are reached"),
    is("V5", "there is a connection, a block and an announce"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_is_there_once() {
        for (at, rule) in RULES.iter().enumerate() {
            assert!(RULES[..at].iter().all(|other| other.id != rule.id), "{}", rule.id);
            assert_eq!(super::rule(rule.id), Some(rule));
        }
        assert_eq!(rule("S99"), None);
    }
}
