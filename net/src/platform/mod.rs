//! Everything that differs between systems, and nothing else. The only place for `cfg(unix)` and `cfg(windows)`.

use std::fs::File;

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub(crate) use unix::*;
#[cfg(unix)]
pub use unix::{EndSignals, create_private, raise_open_files_max};

#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub(crate) use windows::*;
#[cfg(windows)]
pub use windows::{EndSignals, create_private, raise_open_files_max};

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// It must be there.
    Read,
    /// It and its directories are made when missing.
    Write,
}

/// A lock that was taken, or the number of the process that holds it (0 when it did not say).
#[derive(Debug)]
pub(crate) enum LockOutcome {
    /// Ours until the file is closed.
    Taken(File),
    /// Somebody else's.
    HeldBy(u32),
}
