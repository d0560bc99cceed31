//! Recordings of real sessions, given to a fresh engine.

use taipei_engine::record::{self, ReplayError, Replayed};

use crate::run::catch;

/// Why a recording was not repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It is no recording, or was damaged.
    Unreadable(String),
    /// The engine asked for something else than it did then.
    Differs(String),
    /// The engine met what cannot happen to it, which is a bug of it or of the recording.
    Broken(String),
}

/// Repeats a recording.
///
/// # Errors
/// When it cannot be read, or is not repeated.
pub fn replay(bytes: &[u8]) -> Result<Replayed, Failure> {
    match catch(|| record::replay(bytes, &mut ())) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(ReplayError::Differs(at))) => {
            Err(Failure::Differs(format!("outputs differ at input {}", at.same)))
        }
        Ok(Err(error)) => Err(Failure::Unreadable(error.to_string())),
        Err(panic) => Err(Failure::Broken(panic.replace("panicked at", "the engine gave up at"))),
    }
}
