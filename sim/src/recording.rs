//! Recordings of real sessions, given to a fresh engine, and what is seen meanwhile.
//!
//! A recording holds addresses and passkeys. What is said of one here does not: peers and trackers have names of their own,
//! and every word comes from a typed value, none from a text that somebody else wrote.

mod seen;
mod words;

use std::io;

use taipei_engine::record::{self, Difference, Replayed};
pub use taipei_engine::record::{Damage, Ending, ReadError};

pub use self::seen::{BINS_MAX, Bins, PeerSeen, Seen, TrackerSeen};
pub(crate) use self::words::{peer_name, tracker_name};
use crate::run::catch;

/// A recording that was given to a fresh engine, as far as that went.
#[derive(Debug)]
pub struct Replay {
    /// What happened in it.
    pub seen: Seen,
    /// What came of it.
    pub outcome: Result<Replayed, Failure>,
}

/// Why a recording was not repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The engine asked for something else than it did then: where, and what it asks for now, in words.
    Differs {
        /// Inputs before, whose outputs were the same.
        same: u64,
        /// Inputs among which the difference is.
        among: u64,
        /// What happened, and what the engine asks for now.
        words: Vec<String>,
    },
    /// The engine met what cannot happen to it, which is a bug of it or of the recording.
    Broken {
        /// Where in its source.
        place: String,
        /// All that was said there, which is not masked.
        message: String,
    },
}

/// Repeats a recording. One that lost its end, or is damaged, is repeated as far as it goes.
///
/// # Errors
/// When nothing of it can be read.
pub fn replay(source: impl io::Read) -> Result<Replay, ReadError> {
    let mut seen = Seen::default();
    let outcome = match catch(|| record::replay(source, &mut seen)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(record::ReplayError::Read(error))) => return Err(error),
        Ok(Err(record::ReplayError::Differs(difference))) => Err(seen.difference(&difference)),
        Err(panic) => Err(broken(&panic)),
    };
    seen.end();
    Ok(Replay { seen, outcome })
}

impl Seen {
    fn difference(&self, difference: &Difference) -> Failure {
        let mut words = vec![self.names.input(&difference.input)];
        words.extend(difference.outputs.iter().take(OUTPUTS_SAID).map(|output| self.names.output(output)));
        if difference.outputs.len() > OUTPUTS_SAID {
            words.push(format!("and {} more", difference.outputs.len() - OUTPUTS_SAID));
        }
        Failure::Differs { same: difference.same, among: difference.among, words }
    }
}

fn broken(panic: &str) -> Failure {
    // `panicked at PLACE: MESSAGE`, where the place may be below somebody's home, and have spaces.
    let place = || {
        let (_, rest) = panic.split_once(" at ")?;
        let (file, after) = rest.split_once(".rs:")?;
        let components: Vec<&str> = file.split(['/', '\\']).collect();
        let source = components.iter().rposition(|component| *component == "src");
        let source = source.unwrap_or(components.len() - 1);
        let is_known = source > 0 && CRATES.contains(&components[source - 1]);
        let line = after.split(|c: char| !c.is_ascii_digit() && c != ':').next()?.trim_end_matches(':');
        Some(format!("{}.rs:{line}", components[source - usize::from(is_known)..].join("/")))
    };
    Failure::Broken { place: place().unwrap_or_default(), message: panic.to_owned() }
}

/// Folders above `src` that say which crate it is, and nothing else.
const CRATES: [&str; 5] = ["engine", "sim", "core", "alloc", "std"];
/// Of the outputs of one input.
const OUTPUTS_SAID: usize = 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_it_gave_up_is_said_without_what() {
        let panic = "panicked at /at-alices/taipei/engine/src/torrent/piece.rs:7:9: 203.0.113.7 is not 8";
        let Failure::Broken { place, message } = broken(panic) else { panic!("it is broken") };
        assert_eq!((place.as_str(), message.as_str()), ("engine/src/torrent/piece.rs:7:9", panic));
        for (panic, wanted) in [
            ("panicked", ""),
            ("panicked at engine/src/engine.rs:1:2: at /at-alices/x.rs:3:4", "engine/src/engine.rs:1:2"),
            (r"panicked at C:\Users\Alice Smith\.cargo\bytes-1.9\src\lib.rs:7:9: no", "src/lib.rs:7:9"),
            ("panicked at /at-alices/build.rs:7:9: no", "build.rs:7:9"),
        ] {
            assert!(matches!(broken(panic), Failure::Broken { place, .. } if place == wanted), "{panic}");
        }
    }
}
