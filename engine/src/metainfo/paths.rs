//! The one function that maps names in torrents to names on disk.

use std::fmt;

/// A path below a download directory: components joined by `/`, each storable, none of them `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoragePath(String);

impl StoragePath {
    /// From names that we chose ourselves: in tests, simulated torrents, generated content.
    ///
    /// # Panics
    /// When a name is not storable as it is; names from outside go through the sanitising function.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let names: Vec<&str> = names.into_iter().collect();
        assert!(!names.is_empty(), "a path has a component");
        for name in &names {
            assert!(
                !name.is_empty() && !name.contains(['/', '\0']) && *name != "." && *name != "..",
                "{name:?}"
            );
        }
        Self(names.join("/"))
    }

    /// A state file, `.taipei/NAME`. No path of a torrent begins with that directory.
    ///
    /// # Panics
    /// When the name is not storable as it is; we choose it.
    pub fn state(name: &str) -> Self {
        Self::from_names([STATE_DIRECTORY, name])
    }

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

/// The directory below a download directory that holds our own files.
pub const STATE_DIRECTORY: &str = ".taipei";
