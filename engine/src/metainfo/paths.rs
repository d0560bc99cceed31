//! The one function that maps names in torrents to names on disk.
//!
//! Whatever a torrent says, [`storage_path`] gives a path whose components are each storable, none of them `.` or `..`,
//! and whose first is not the directory of our own files. Nothing is resolved and nothing is looked up: every component
//! stays a component, so the path lies below the download directory by construction. [`make_unique`] then renames so
//! that no two files of a torrent share a path, on file systems that ignore case or how accents are composed either, and
//! no file is where another needs a directory.
//!
//! The rules are a value, so that both sets are tested everywhere, and the result is the same on every run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use icu_normalizer::DecomposingNormalizer;
use serde::{Deserialize, Serialize};

use crate::limits::{PATH_BYTES_MAX, PATH_COMPONENT_BYTES_MAX, PATH_COMPONENTS_MAX};

/// A path below a download directory: components joined by `/`, each storable, none of them `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoragePath(String);

impl StoragePath {
    /// From names that we chose ourselves: in tests, simulated torrents, generated content.
    ///
    /// # Panics
    /// When a name is not storable as it is; names from outside go through [`storage_path`].
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let names: Vec<&str> = names.into_iter().collect();
        assert!(!names.is_empty(), "a path has a component");
        for name in &names {
            assert!(is_storable(name), "not storable: {name:?}");
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

/// Why a path of a torrent has no place on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum PathError {
    /// More components than [`PATH_COMPONENTS_MAX`].
    #[error("a path is {0} directories deep, at most {PATH_COMPONENTS_MAX} are supported")]
    TooDeep(usize),
    /// More bytes than [`PATH_BYTES_MAX`].
    #[error("a path is {0} bytes long, at most {PATH_BYTES_MAX} are supported")]
    TooLong(usize),
    /// No component at all.
    #[error("a path is empty")]
    Empty,
}

/// The directory below a download directory that holds our own files.
pub const STATE_DIRECTORY: &str = ".taipei";

/// Maps the components of a path in a torrent, its name first, to a path on disk.
///
/// # Errors
/// When there is no component, or too many, or too long ones together.
pub fn storage_path<'a>(
    components: impl IntoIterator<Item = &'a [u8]>,
    rules: PathRules,
) -> Result<StoragePath, PathError> {
    let mut path = String::new();
    let mut count = 0;
    for raw in components {
        count += 1;
        if count > PATH_COMPONENTS_MAX {
            return Err(PathError::TooDeep(count));
        }
        let safe = component(raw, rules);
        if count == 1 {
            path = if is_reserved_for_us(&safe, rules) {
                format!("_{}", cut(&safe, PATH_COMPONENT_BYTES_MAX - 1))
            } else {
                safe
            };
        } else {
            path.push('/');
            path.push_str(&safe);
        }
    }
    match path.len() {
        0 => Err(PathError::Empty),
        length if length > PATH_BYTES_MAX => Err(PathError::TooLong(length)),
        _ => Ok(StoragePath(path)),
    }
}

/// The components of a path as they came, joined by `/`, unless `path` says the same. What is no UTF-8 is replaced.
pub(super) fn original<'a>(
    components: impl IntoIterator<Item = &'a [u8], IntoIter: Clone>,
    path: &StoragePath,
) -> Option<Box<str>> {
    let components = components.into_iter();
    if components.clone().eq(path.components().map(str::as_bytes)) {
        return None;
    }
    Some(components.map(String::from_utf8_lossy).collect::<Vec<_>>().join("/").into())
}

/// A file is to lie elsewhere. How the torrent names it is not lost.
pub(super) fn relocate(path: &mut StoragePath, original: &mut Option<Box<str>>, to: StoragePath) {
    if *path != to {
        let before = std::mem::replace(path, to);
        original.get_or_insert_with(|| before.as_str().into());
    }
}

/// Whether a name in a torrent says nothing that a file could be called: empty, `.`, `..`, or slashes.
pub(super) fn is_void(raw: &[u8]) -> bool {
    let trimmed = trim_slashes(raw);
    trimmed.is_empty() || trimmed == b"." || trimmed == b".."
}

/// Renames files so that no two share a path when case and Unicode normalisation are ignored, and none is where another
/// needs a directory. Earlier ones keep their names; `last` marks those that give way to all others (pad files, which are never on disk).
///
/// `FILE.EXT` becomes `FILE.1.EXT`, and so on up. Takes about as long as sorting the paths.
pub fn make_unique(paths: &mut [StoragePath], last: impl Fn(usize) -> bool) {
    let keys: Vec<String> = paths.iter().map(|path| unique_key(path.as_str())).collect();
    let mut directories = BTreeSet::new();
    for key in &keys {
        // From the lowest up; above one that is known, all are.
        let mut above = key.rmatch_indices('\0').map(|(at, _)| &key[..at]);
        while above.next().is_some_and(|directory| directories.insert(directory)) {}
    }
    let mut order: Vec<usize> = (0..paths.len()).collect();
    order.sort_unstable_by(|a, b| keys[*a].cmp(&keys[*b]).then_with(|| (last(*a), a).cmp(&(last(*b), b))));
    let wanted: Vec<&str> = order.iter().map(|index| keys[*index].as_str()).collect();
    let mut keeps = vec![false; paths.len()];
    for (at, index) in order.iter().enumerate() {
        let is_first = at == 0 || wanted[at - 1] != wanted[at];
        keeps[*index] = is_first && !directories.contains(wanted[at]);
    }
    let mut renamed = BTreeSet::new();
    // The number to try next, by the name without it. It only goes up, so no name is tried twice.
    let mut next_number: BTreeMap<String, u32> = BTreeMap::new();
    let (late, early): (Vec<usize>, Vec<usize>) = (0..paths.len()).partition(|index| last(*index));
    for index in early.into_iter().chain(late).filter(|index| !keeps[*index]) {
        let path = &mut paths[index];
        let (directory, name) =
            path.0.rsplit_once('/').map_or(("", path.as_str()), |(dir, name)| (dir, name));
        let (stem, extension) = split_extension(name);
        let stem = cut(stem, PATH_COMPONENT_BYTES_MAX - extension.len() - NUMBER_BYTES_MAX);
        let front = if directory.is_empty() { stem.to_owned() } else { format!("{directory}/{stem}") };
        // Nothing composes with a dot or a digit, so the key of the whole is made of those of its parts.
        let (front_key, extension_key) = (unique_key(&front), unique_key(extension));
        let next = next_number.entry(format!("{front_key}.{extension_key}")).or_insert(1);
        let free = loop {
            let number = *next;
            *next += 1;
            let key = format!("{front_key}.{number}{extension_key}");
            if wanted.binary_search(&key.as_str()).is_err()
                && !directories.contains(key.as_str())
                && renamed.insert(key)
            {
                break number;
            }
        };
        path.0 = format!("{front}.{free}{extension}");
    }
}

/// What two paths have in common that cannot be two files: the case folded, accents apart from their letters. With NUL
/// for the slash (it is in no path), all that lies below a directory follows it directly in order.
fn unique_key(path: &str) -> String {
    if path.is_ascii() {
        return path.to_ascii_lowercase().replace('/', "\0");
    }
    let decomposed = DecomposingNormalizer::new_nfd().normalize(path);
    decomposed.chars().map(|c| if c == '/' { '\0' } else { fold(c) }).collect()
}

/// Makes one component safe; it is never empty.
fn component(raw: &[u8], rules: PathRules) -> String {
    let trimmed = trim_slashes(raw);
    let mut safe = String::with_capacity(trimmed.len());
    for chunk in trimmed.utf8_chunks() {
        safe.extend(chunk.valid().chars().map(|c| if is_storable_char(c, rules) { c } else { '_' }));
        for byte in chunk.invalid() {
            safe.push_str(&format!("%{byte:02X}"));
        }
    }
    if matches!(safe.as_str(), "" | "." | "..") {
        return "_".to_owned();
    }
    if rules == PathRules::Windows {
        trim_end(&mut safe);
        if is_device(&safe) {
            safe.insert(0, '_');
        }
    }
    if safe.len() > PATH_COMPONENT_BYTES_MAX {
        let (stem, extension) = split_extension(&safe);
        let mut stem = cut(stem, PATH_COMPONENT_BYTES_MAX - extension.len()).to_owned();
        if rules == PathRules::Windows && extension.is_empty() {
            trim_end(&mut stem);
        }
        safe = stem + extension;
    }
    assert!(is_storable(&safe), "sanitised");
    safe
}

fn trim_slashes(raw: &[u8]) -> &[u8] {
    let is_slash = |byte: &u8| matches!(byte, b'/' | b'\\');
    let start = raw.iter().position(|byte| !is_slash(byte)).unwrap_or(raw.len());
    &raw[start..]
}

/// Windows takes dots and spaces at the end away, silently; `_` takes the place of nothing.
fn trim_end(name: &mut String) {
    name.truncate(name.trim_end_matches(['.', ' ']).len());
    if name.is_empty() {
        name.push('_');
    }
}

fn is_storable(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= PATH_COMPONENT_BYTES_MAX
        && name != "."
        && name != ".."
        && !name.contains(['/', '\0'])
}

/// Neither a separator on any system nor a hidden character.
fn is_storable_char(c: char, rules: PathRules) -> bool {
    let separates = matches!(c, '/' | '\\');
    let windows = rules == PathRules::Windows && matches!(c, ':' | '*' | '?' | '"' | '<' | '>' | '|');
    !(is_hidden(c) || separates || windows)
}

/// Whether a character does something else than being seen: controls, and those that change the direction of text or have
/// no width (but the joiners, which scripts and emoji need). Shown escaped wherever text from outside is shown.
pub fn is_hidden(c: char) -> bool {
    let formats = matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
    );
    formats || c.is_control()
}

/// Names that Windows takes for devices, whatever follows the first dot.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name).trim_end().to_ascii_uppercase();
    match stem.as_str() {
        "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$" => true,
        _ => {
            let number = stem.strip_prefix("COM").or_else(|| stem.strip_prefix("LPT")).unwrap_or_default();
            let mut chars = number.chars();
            chars.next().is_some_and(|c| matches!(c, '0'..='9' | '¹' | '²' | '³')) && chars.next().is_none()
        }
    }
}

/// Whether a file system could take this name for [`STATE_DIRECTORY`]: in another case, with joiners that it ignores, by
/// the short name of Windows.
fn is_reserved_for_us(name: &str, rules: PathRules) -> bool {
    let folded: String = name.chars().filter(|c| !matches!(c, '\u{200c}' | '\u{200d}')).map(fold).collect();
    folded == STATE_DIRECTORY || rules == PathRules::Windows && folded.starts_with("taipei~")
}

/// Simple case folding: characters that differ in case only become the same one. Those that would become several (`ß`)
/// stay, as they do on file systems.
fn fold(c: char) -> char {
    fn single(mut chars: impl Iterator<Item = char>) -> Option<char> {
        chars.next().filter(|_| chars.next().is_none())
    }
    if c.is_ascii() {
        return c.to_ascii_lowercase();
    }
    let upper = single(c.to_uppercase()).unwrap_or(c);
    single(upper.to_lowercase()).unwrap_or(upper)
}

/// Stem, and extension with its dot where the name has one of reasonable length.
fn split_extension(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(dot) if dot > 0 && name.len() - dot <= EXTENSION_BYTES_MAX => name.split_at(dot),
        _ => (name, ""),
    }
}

/// The longest beginning of at most `bytes` bytes that ends between characters.
fn cut(name: &str, bytes: usize) -> &str {
    &name[..name.floor_char_boundary(bytes)]
}

/// Of an extension that survives a cut, its dot included.
const EXTENSION_BYTES_MAX: usize = 33;
/// Of a number put into a name, its dot included.
const NUMBER_BYTES_MAX: usize = 11;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::PathRules::{Unix, Windows};
    use super::*;

    fn check(raw: &str, rules: PathRules) -> String {
        let components = raw.split('|').map(str::as_bytes);
        storage_path(components, rules).unwrap().to_string()
    }

    #[test]
    fn nothing_leaves_the_download_directory() {
        for rules in [Unix, Windows] {
            assert_eq!(check("a|..|..|b", rules), "a/_/_/b");
            assert_eq!(check("..|x", rules), "_/x");
            assert_eq!(check("a|.||x", rules), "a/_/_/x");
            assert_eq!(check("/etc|passwd", rules), "etc/passwd");
            assert_eq!(check("a|../../x", rules), "a/.._.._x");
            assert_eq!(check("a|..\\..\\x", rules), "a/.._.._x");
            assert_eq!(check("a|\\|/|\\x", rules), "a/_/_/x");
            assert_eq!(check("a|C:\\Windows\\x", rules).split('/').count(), 2);
        }
    }

    /// Dots are looked at as a whole component. A client that looked for `..` in the text refused such names.
    #[test]
    fn dots_within_a_name_stay() {
        for rules in [Unix, Windows] {
            for name in ["foo... bar", "a..b", "..a", "...a", "a.b..c", "..{x}"] {
                assert_eq!(check(&format!("{name}|x..y"), rules), format!("{name}/x..y"));
            }
        }
        assert_eq!(check("...|a..|..a", Unix), ".../a../..a");
        assert_eq!(check("...|a..|..a", Windows), "_/a/..a");
    }

    #[test]
    fn absolute_paths_drives_shares_and_streams_become_names() {
        for (raw, unix, windows) in [
            ("/etc/passwd", "etc_passwd", "etc_passwd"),
            ("//server/share", "server_share", "server_share"),
            ("\\\\?\\C:\\x", "?_C:_x", "__C__x"),
            ("\\\\.\\PIPE\\x", "._PIPE_x", "._PIPE_x"),
            ("C:\\x", "C:_x", "C__x"),
            ("C:", "C:", "C_"),
            ("C:x", "C:x", "C_x"),
            ("file:stream", "file:stream", "file_stream"),
            ("file::$DATA", "file::$DATA", "file__$DATA"),
            ("a\0.txt", "a_.txt", "a_.txt"),
            ("~", "~", "~"),
        ] {
            assert_eq!((check(raw, Unix).as_str(), check(raw, Windows).as_str()), (unix, windows), "{raw}");
            let below = format!("t|{raw}");
            assert_eq!(check(&below, Unix), format!("t/{unix}"));
            assert_eq!(check(&below, Windows), format!("t/{windows}"));
        }
    }

    #[test]
    fn a_path_into_the_startup_folder_stays_below() {
        let startup = "Microsoft\\Windows\\Start Menu\\Programs\\Startup\\x.exe";
        for rules in [Unix, Windows] {
            let up = check(&format!("t|..\\..\\AppData\\Roaming\\{startup}"), rules);
            assert_eq!(up, format!("t/.._.._AppData_Roaming_{}", startup.replace('\\', "_")));
            let names = check(&format!("..|..|AppData|{}", startup.replace('\\', "|")), rules);
            assert_eq!(names, format!("_/_/AppData/{}", startup.replace('\\', "/")));
        }
        let absolute = check(&format!("C:\\ProgramData\\{startup}"), Windows);
        assert_eq!(absolute, format!("C__ProgramData_{}", startup.replace('\\', "_")));
    }

    #[test]
    fn our_own_directory_cannot_be_named() {
        for (raw, safe) in [
            (".taipei|x", "_.taipei/x"),
            (".TAIPEI|x", "_.TAIPEI/x"),
            ("/.taipei|x", "_.taipei/x"),
            (".tai\u{200d}pei", "_.tai\u{200d}pei"),
            (".taipei2|x", ".taipei2/x"),
            ("a|.taipei|x", "a/.taipei/x"),
        ] {
            assert_eq!(check(raw, Unix), safe);
            assert_eq!(check(raw, Windows), safe);
        }
        assert_eq!(check(".taipei. .|x", Windows), "_.taipei/x");
        assert_eq!(check("TAIPEI~1|x", Windows), "_TAIPEI~1/x");
        assert_eq!(StoragePath::state("lock").as_str(), ".taipei/lock");
    }

    #[test]
    fn control_characters_and_text_direction_are_taken_out() {
        assert_eq!(check("a\u{1b}[31m\0\n\u{7f}\u{85}", Unix), "a_[31m____");
        assert_eq!(check("photo\u{202e}gpj.exe", Unix), "photo_gpj.exe");
        assert_eq!(check("a\u{200b}\u{feff}b\u{200d}c", Unix), "a__b\u{200d}c");
        for bidi in
            "\u{61c}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}"
                .chars()
        {
            assert_eq!((check(&format!("a{bidi}"), Unix), is_hidden(bidi)), ("a_".to_owned(), true));
        }
        // Longer than it need be: no `/` comes of it.
        let overlong = storage_path([b"..\xc0\xaf..".as_slice()], Unix).map(|path| path.to_string());
        assert_eq!(overlong.as_deref(), Ok("..%C0%AF.."));
    }

    #[test]
    fn invalid_utf8_stays_distinguishable() {
        let latin1 = |byte: u8| storage_path([[b'a', byte].as_slice()], Unix).unwrap().to_string();
        assert_eq!((latin1(0xe4).as_str(), latin1(0xe5).as_str()), ("a%E4", "a%E5"));
        assert_eq!(check("%E4", Unix), "%E4");
    }

    #[test]
    fn windows_names_are_storable_on_windows() {
        for (raw, safe) in [
            ("a:b*?\"<>|c", "a_b_____"),
            ("con", "_con"),
            ("NUL.txt", "_NUL.txt"),
            ("aux .x", "_aux .x"),
            ("COM1", "_COM1"),
            ("lpt²", "_lpt²"),
            ("COM10", "COM10"),
            ("console", "console"),
            ("dots. . .", "dots"),
            (". .", "_"),
            ("CON ", "_CON"),
        ] {
            let first = check(raw, Windows);
            assert_eq!(first.split('/').next().unwrap(), safe, "{raw}");
        }
        assert_eq!(check("a:b", Unix), "a:b");
        assert_eq!(check("dots. ", Unix), "dots. ");
    }

    #[test]
    fn long_names_are_cut_between_characters_and_keep_the_extension() {
        let long = "ä".repeat(200) + ".tar.gz";
        let safe = check(&long, Unix);
        assert_eq!(safe, "ä".repeat(126) + ".gz");
        assert!(safe.len() <= 255);
        for at in 240..260 {
            let safe = check(&("x".repeat(at) + "\u{1f600}\u{1f600}\u{1f600}.mkv"), Windows);
            assert!(safe.len() <= 255 && safe.len() > 250 && safe.ends_with(".mkv"), "{safe}");
        }
        assert_eq!(check(&"y".repeat(255), Unix), "y".repeat(255));
        let no_extension = ".".to_owned() + &"x".repeat(400);
        assert_eq!(check(&no_extension, Unix).len(), 255);
    }

    #[test]
    fn depth_and_length_have_an_end() {
        let deep = vec![b"a".as_slice(); PATH_COMPONENTS_MAX];
        assert!(storage_path(deep.clone(), Unix).is_ok());
        let deeper = [deep, vec![b"a".as_slice()]].concat();
        assert_eq!(storage_path(deeper, Unix), Err(PathError::TooDeep(PATH_COMPONENTS_MAX + 1)));
        let long = vec![[b'a'; 250]; 20];
        assert!(matches!(storage_path(long.iter().map(|c| c.as_slice()), Unix), Err(PathError::TooLong(_))));
        assert_eq!(storage_path([], Unix), Err(PathError::Empty));
    }

    fn unique(names: &str) -> String {
        let mut paths: Vec<_> =
            names.split(' ').map(|name| StoragePath::from_names(name.split('/'))).collect();
        make_unique(&mut paths, |index| names.split(' ').nth(index).is_some_and(|name| name.contains("PAD")));
        paths.iter().map(StoragePath::as_str).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn duplicates_are_renamed_in_order() {
        assert_eq!(unique("t/a.txt t/a.txt t/a.txt"), "t/a.txt t/a.1.txt t/a.2.txt");
        assert_eq!(unique("t/a t/a t/a.1"), "t/a t/a.2 t/a.1");
        assert_eq!(unique("t/A.txt t/a.TXT"), "t/A.txt t/a.1.TXT");
        assert_eq!(unique("t/Σ t/ς t/σ t/ß t/ẞ t/ss"), "t/Σ t/ς.1 t/σ.2 t/ß t/ẞ.1 t/ss");
        assert_eq!(unique("t/.x t/.x"), "t/.x t/.x.1");
        assert_eq!(unique("x x"), "x x.1");
    }

    /// Apple's file systems take both for one name; the text of each stays as it came.
    #[test]
    fn composed_and_decomposed_accents_are_one_name() {
        assert_eq!(unique("t/\u{e9}.txt t/e\u{301}.txt"), "t/\u{e9}.txt t/e\u{301}.1.txt");
        assert_eq!(unique("t/E\u{301} t/\u{e9}"), "t/E\u{301} t/\u{e9}.1");
        assert_eq!(unique("t/\u{e9} t/e\u{301}/x"), "t/\u{e9}.1 t/e\u{301}/x");
        assert_eq!(unique("t/e\u{301}/x t/\u{e9}/x"), "t/e\u{301}/x t/\u{e9}/x.1");
        assert_eq!(unique("t/\u{1100}\u{1161} t/\u{ac00}"), "t/\u{1100}\u{1161} t/\u{ac00}.1");
        assert_eq!(unique("t/q\u{323}\u{307} t/q\u{307}\u{323}"), "t/q\u{323}\u{307} t/q\u{307}\u{323}.1");
        assert_eq!(unique("t/e t/\u{e9} t/\u{e8}"), "t/e t/\u{e9} t/\u{e8}");
        // The compatible forms (NFKC) are names of their own.
        assert_eq!(unique("t/\u{fb01} t/fi"), "t/\u{fb01} t/fi");
    }

    #[test]
    fn a_file_gives_way_to_a_directory() {
        assert_eq!(unique("t/a t/a/b t/A/c"), "t/a.1 t/a/b t/A/c");
        assert_eq!(unique("t/a/b t/a"), "t/a/b t/a.1");
        assert_eq!(unique("t/a t/a t/a.1/b"), "t/a t/a.2 t/a.1/b");
        assert_eq!(unique("t/a t/a-b t/a/b"), "t/a.1 t/a-b t/a/b");
    }

    #[test]
    fn pad_files_give_way() {
        assert_eq!(unique("t/PAD t/pad t/PAD"), "t/PAD.1 t/pad t/PAD.2");
    }

    fn storable(path: &StoragePath) {
        assert!(path.as_str().len() <= PATH_BYTES_MAX);
        for name in path.components() {
            assert!(
                is_storable(name) && !name.contains('\\') && !name.chars().any(char::is_control),
                "{name:?}"
            );
        }
        assert_ne!(path.components().next().unwrap().to_lowercase(), STATE_DIRECTORY);
    }

    fn no_clash(paths: &[StoragePath]) {
        let composed = |path: &StoragePath| {
            icu_normalizer::ComposingNormalizer::new_nfc()
                .normalize(&path.as_str().to_lowercase())
                .into_owned()
        };
        let lower: BTreeSet<String> = paths.iter().map(composed).collect();
        assert_eq!(lower.len(), paths.len(), "no two files share a path");
        for path in &lower {
            for (at, _) in path.match_indices('/') {
                assert!(!lower.contains(&path[..at]), "{path} needs a directory where a file is");
            }
        }
    }

    /// 200,000 names in the ways that make renaming slow: all equal, and long ones that differ where they are cut.
    #[test]
    fn renaming_takes_time_in_proportion() {
        let equal =
            (0..200_000).map(|_| StoragePath::from_names(["t", "foo", "bar.txt"])).collect::<Vec<_>>();
        let long = "x".repeat(244);
        let cut: Vec<_> =
            (0..40_000).map(|n| StoragePath::from_names(["t", &format!("{long}{:011}", n / 2)])).collect();
        for mut paths in [equal, cut] {
            #[expect(clippy::disallowed_types, reason = "a test may measure")]
            let start = std::time::Instant::now();
            make_unique(&mut paths, |_| false);
            // 1 s in release; a debug build on a loaded machine gets room, a quadratic one would take minutes.
            assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
            no_clash(&paths);
        }
    }

    proptest! {
        #[test]
        fn any_names_become_storable_unique_paths(
            names in proptest::collection::vec(
                proptest::collection::vec(
                    prop_oneof![
                        "[abA.]{0,2}".prop_map(String::into_bytes),
                        proptest::sample::select(&[".", "..", "/", "con", "\\x", ".taipei", "a.1", "a.1.b", "ä", "Ä", "A\u{308}"][..])
                            .prop_map(|name| name.as_bytes().to_vec()),
                        proptest::collection::vec(any::<u8>(), 0..300),
                    ],
                    1..4,
                ),
                0..60,
            )
        ) {
            for rules in [Unix, Windows] {
                let mut paths: Vec<_> = names
                    .iter()
                    .map(|names| storage_path(names.iter().map(Vec::as_slice), rules).unwrap())
                    .collect();
                make_unique(&mut paths, |index| index % 5 == 0);
                paths.iter().for_each(storable);
                no_clash(&paths);
            }
        }

        #[test]
        fn a_safe_path_stays_as_it_is(names in proptest::collection::vec("[a-zä][a-z .]{0,20}[a-z]", 1..5)) {
            for rules in [Unix, Windows] {
                let path = storage_path(names.iter().map(String::as_bytes), rules).unwrap();
                if rules == Unix || !names.iter().any(|name| is_device(name)) {
                    prop_assert_eq!(path.as_str(), names.join("/"));
                }
            }
        }
    }
}
