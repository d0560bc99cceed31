//! What parts of the engine cost, each by itself: real code of `taipei-engine` by its public interface, without a world.
//!
//! Each bench does the same thing so many times, the same way in every run, so that its instructions can be counted
//! (`tests/instructions.py`); what comes before that is taken away by a count of fewer times. It looks at what came of
//! it, so that nothing is quick because nothing was done.
//!
//! What it never does: hash, wait, or look at a clock.

mod bitfield;
mod disk;
mod swarm;
mod wire;

/// Something that is done many times.
#[derive(Debug)]
pub struct Bench {
    /// What it is called.
    pub name: &'static str,
    /// What is done, in words.
    pub about: &'static str,
    /// How often, where nobody says.
    pub times: u64,
    run: fn(u64) -> String,
}

impl Bench {
    /// Does it so many times, and says what was done.
    ///
    /// # Panics
    /// When something else came of it than should.
    pub fn run(&self, times: u64) -> String {
        (self.run)(times)
    }
}

/// All of them.
pub const ALL: &[Bench] = &[
    Bench {
        name: "decoder",
        about: "Reads to messages: 16 blocks, 64 haves, 16 requests each time",
        times: 1000,
        run: wire::decode,
    },
    Bench {
        name: "encoder",
        about: "The same messages to what a socket is given",
        times: 1000,
        run: wire::encode,
    },
    Bench {
        name: "bitfield",
        about: "Bitfields of 20,000 pieces: from the wire, walked, each piece set, looked at, cleared",
        times: 100,
        run: bitfield::walk,
    },
    Bench {
        name: "picker",
        about: "A block of 20,000 pieces from one of 200 peers that have half of them, and gain some",
        times: 10_000,
        run: swarm::picker,
    },
    Bench {
        name: "choker",
        about: "A round of ten seconds of a seed with 200 interested peers",
        times: 500,
        run: swarm::choker,
    },
    Bench {
        name: "hash-job",
        about: "Four pieces written and hashed by jobs, but for the hash and the disk",
        times: 1000,
        run: disk::hash,
    },
    Bench {
        name: "owner-1",
        about: "All that the owner does for a block, of one peer",
        times: 10_000,
        run: swarm::owner_1,
    },
    Bench {
        name: "owner-200",
        about: "The same, of 200 peers in turn",
        times: 10_000,
        run: swarm::owner_200,
    },
];

/// The bench of this name.
pub fn find(name: &str) -> Option<&'static Bench> {
    ALL.iter().find(|bench| bench.name == name)
}

/// Pieces of the torrents that are fetched here.
const PIECES: u32 = 20_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// What a bench says of so many times.
    fn check(name: &str, times: u64, want: &str) {
        let bench = find(name).expect("there is such a bench");
        assert_eq!(bench.run(times), want, "{name}");
    }

    #[test]
    fn names_are_unique_and_short() {
        for (at, bench) in ALL.iter().enumerate() {
            assert!(ALL.iter().skip(at + 1).all(|other| other.name != bench.name), "{}", bench.name);
            assert!(bench.times > 0 && !bench.about.ends_with('.'), "{}", bench.name);
        }
    }

    #[test]
    fn each_does_what_it_says() {
        check("decoder", 3, "288 messages, 48 blocks, from 789600 bytes");
        check("encoder", 3, "288 messages, 48 blocks, to 789600 bytes in 99 slices");
        check("bitfield", 2, "20063 pieces there, 19937 missing, 40126 changes");
        check("picker", 400, "400 blocks, 0 pieces, 6800 messages to 200 peers");
        check("choker", 30, "3744 blocks sent, 936 turns of 67 peers");
        check("hash-job", 3, "12 pieces good, 3145728 bytes written in 12 calls");
        check("owner-1", 400, "400 blocks, 25 pieces, 921 messages to 1 peers");
        check("owner-200", 400, "400 blocks, 0 pieces, 6800 messages to 200 peers");
    }
}
