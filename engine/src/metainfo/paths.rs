//! The one function that maps names in torrents to names on disk.

use std::fmt;

/// A path below a download directory: components joined by `/`, each storable, none of them `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoragePath(String);

impl StoragePath {
    /// Its components joined by `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its components.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

impl fmt::Display for StoragePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the file system of the download directory takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathRules {
    /// Anything but `/` and NUL.
    Unix,
    /// Also no device names, no trailing dots and spaces, no `:*?"<>|\`.
    Windows,
}
