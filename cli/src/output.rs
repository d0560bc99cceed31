//! What is printed, and how: errors, sizes, text from outside.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use taipei_engine::limits::TORRENT_FILE_BYTES_MAX;
use taipei_engine::metainfo::paths::is_hidden;
use taipei_engine::metainfo::{CreateError, Magnet, MagnetError, Metainfo, MetainfoError, PathRules};

use crate::args::BindArgs;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It did what was asked.
    Done,
    /// It could not.
    Failed,
    /// It was asked for something that does not exist.
    Usage,
    /// It gave up before the end.
    GaveUp,
    /// The data are not whole.
    NotWhole,
    /// A signal ended it, cleanly.
    Interrupted,
    /// A second signal ended it at once.
    InterruptedTwice,
}

impl Exit {
    /// What the shell sees.
    pub(crate) fn status(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::GaveUp => 3,
            Self::NotWhole => 4,
            Self::Interrupted | Self::InterruptedTwice => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.status())
    }
}

/// Why a command did not do what was asked. Each says what to do next where there is something to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{}: {error}", Shown(path))]
    Torrent { path: PathBuf, error: MetainfoError },
    #[error("{}: {}", Shown(path), io_words(error))]
    File { path: PathBuf, error: io::Error },
    #[error("{}: {error}", Shown(path))]
    Create { path: PathBuf, error: CreateError },
    #[error("{}: its name is not UTF-8, so no torrent can hold it: rename it", Shown(.0))]
    NotUtf8(PathBuf),
    #[error("{} is there already: give --force to replace it, or another name with --output", Shown(.0))]
    Exists(PathBuf),
    #[error("{} changed while it was read: wait until nothing writes to it, then try again", Shown(.0))]
    Changed(PathBuf),
    #[error("{}: neither a file nor a directory", Shown(.0))]
    NoFile(PathBuf),
    #[error("{}: there is no such directory: make it first", Shown(.0))]
    NoDirectory(PathBuf),
    #[error("{}: this is a file, not a directory: choose another", Shown(.0))]
    NotADirectory(PathBuf),
    #[error("{}: the file is empty: fetch it again from where it came", Shown(.0))]
    Empty(PathBuf),
    #[error("{}: neither a file here nor an http or https address", Shown(.0))]
    Scheme(PathBuf),
    #[error("{0}: it has no trackers that could be asked: give the announce URL of one, and the info-hash")]
    NoTracker(String),
    #[error("{0}: give the info-hashes of the torrents to ask about after the tracker's address")]
    NothingToScrape(String),
    #[error("{host}: {error}")]
    Fetch { host: String, error: taipei_net::FetchError },
    #[error("{}: this takes a torrent file, or its address; `info` shows what a link says", escape(.0))]
    NeedsFile(String),
    #[error("{torrent}: no peer has told what the torrent is ({words})")]
    Unresolved { torrent: String, words: String },
    #[error("{torrent}: interrupted: no peer has told what the torrent is ({words})")]
    Interrupted { torrent: String, words: String },
    #[error("{}: {error}", escape(link))]
    Magnet { link: String, error: MagnetError },
    #[error(
        "--encryption require: encryption does not exist yet, and nothing is sent plain when it is required"
    )]
    Encryption,
    #[error(transparent)]
    Start(#[from] taipei_net::StartError),
    #[error(transparent)]
    Tracker(#[from] taipei_net::tracker::TrackerListenError),
    #[error("{torrent}: {problem}")]
    Seed { torrent: String, problem: String },
    #[error("{torrent}: --select {number}: it has {}; --list shows them", count(*files as u64, "file"))]
    Select { torrent: String, number: u32, files: usize },
    #[error("{torrent}: --filename-re {pattern}: it has no such file; --list shows what it has")]
    NoMatch { torrent: String, pattern: String },
    #[error("--private: a private torrent has only the peers of its trackers: give one with --tracker")]
    PrivateWithoutTracker,
    #[error("{}: {flag} is for making a torrent, and this is one", Shown(path))]
    NotMade { path: PathBuf, flag: &'static str },
    #[error("{}: --save-torrent has one name for several torrents: give a directory", Shown(.0))]
    SaveMany(PathBuf),
    #[error("{}: --save-torrent does not replace another file: remove it, or give another name", Shown(.0))]
    SavedOther(PathBuf),
    #[error("{torrent}: {error}")]
    Add { torrent: String, error: taipei_engine::alert::AddError },
    #[error("{}: a secret key is 64 hexadecimal digits; `openssl rand -hex 32` makes one", Shown(.0))]
    Key(PathBuf),
    #[error("--salt: only a value that can change has one, and this is the hash of one that cannot")]
    SaltOfHash,
    #[error(transparent)]
    Item(#[from] taipei_engine::dht::item::ItemError),
    #[error("the system does not let us run: {0}")]
    System(io::Error),
}

impl Failure {
    /// For machines.
    fn class(&self) -> &'static str {
        match self {
            Self::Torrent { error, .. } => error.class(),
            Self::File { error, .. } if error.kind() == io::ErrorKind::NotFound => "not-found",
            Self::NoDirectory(_) => "not-found",
            Self::NotADirectory(_) => "exists",
            Self::File { .. } | Self::NoFile(_) => "unreadable",
            Self::Empty(_) => "bad-bencode",
            Self::Create { .. } | Self::NotUtf8(_) => "not-possible",
            Self::Exists(_) | Self::SavedOther(_) => "exists",
            Self::Changed(_) => "changed",
            Self::Magnet { error, .. } => error.class(),
            Self::NeedsFile(_) | Self::Encryption | Self::Scheme(_) => "not-supported",
            Self::Unresolved { .. } | Self::Start(_) | Self::Tracker(_) | Self::Fetch { .. } => "network",
            Self::Interrupted { .. } => "interrupted",
            Self::Seed { .. } => "not-whole",
            Self::Select { .. } | Self::NoMatch { .. } => "selection",
            Self::PrivateWithoutTracker
            | Self::NothingToScrape(_)
            | Self::NoTracker(_)
            | Self::NotMade { .. }
            | Self::SaltOfHash
            | Self::Item(_)
            | Self::SaveMany(_) => "usage",
            Self::Key(_) => "bad-key",
            Self::Add { .. } => "refused",
            Self::System(_) => "system",
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Unresolved { .. } => Exit::GaveUp,
            Self::Interrupted { .. } => Exit::Interrupted,
            Self::Encryption
            | Self::NothingToScrape(_)
            | Self::PrivateWithoutTracker
            | Self::NotMade { .. }
            | Self::SaltOfHash
            | Self::Item(_)
            | Self::SaveMany(_) => Exit::Usage,
            _ => Exit::Failed,
        }
    }
}

/// Prints why, for people or for programs, and gives the status for it.
pub(crate) fn fail(failure: &Failure, as_json: bool) -> Exit {
    if as_json {
        print_json(&json!({ "error": failure.to_string(), "error_class": failure.class() }));
    } else {
        tell(format_args!("error: {failure}"));
    }
    failure.exit()
}

/// Prints to standard output. Whoever reads it may have gone: that is no error.
pub(crate) fn print(text: impl fmt::Display) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Prints to standard error. Whoever reads it may have gone: that is no error either.
pub(crate) fn tell(text: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Prints one JSON value on one line.
pub(crate) fn print_json(value: &impl Serialize) {
    print(json_line(value));
}

/// One JSON value on one line, hidden characters escaped.
pub(crate) fn json_line(value: &impl Serialize) -> String {
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Visible);
    match value.serialize(&mut serializer) {
        Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => json!({ "error": error.to_string() }).to_string(),
    }
}

/// JSON without a character that a terminal could take for a command.
struct Visible;

impl serde_json::ser::Formatter for Visible {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if !fragment.contains(is_hidden) {
            return writer.write_all(fragment.as_bytes());
        }
        for c in fragment.chars() {
            if is_hidden(c) {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            } else {
                write!(writer, "{c}")?;
            }
        }
        Ok(())
    }
}

/// Text from outside, safe for a terminal and a log.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(
        text.chars()
            .map(|c| if is_hidden(c) { c.escape_unicode().to_string() } else { c.to_string() })
            .collect(),
    )
}

/// Where a tracker is, without what may be secret in its URL (a passkey).
pub(crate) fn host_of(url: &str) -> Cow<'_, str> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let host = authority.rsplit('@').next().unwrap_or(authority);
    let end = if rest.len() > authority.len() { "/…" } else { "" };
    Cow::Owned(escape(&format!("{scheme}://{host}{end}")).into_owned())
}

/// A path for people.
pub(crate) struct Shown<'a>(pub(crate) &'a Path);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.0.to_string_lossy()))
    }
}

/// What the system said of a file.
pub(crate) fn io_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied to this user".to_owned(),
        io::ErrorKind::IsADirectory => "this is a directory, not a file".to_owned(),
        _ => error.to_string(),
    }
}

/// `12.3 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // What would be shown as 1024.0 is shown as 1.0 of the next.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `1:02:03`, `2:03`, `0:03`; days from four on.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match hours {
        96.. => format!("{} days", hours / 24),
        1.. => format!("{hours}:{:02}:{:02}", minutes % 60, seconds % 60),
        0 => format!("{minutes}:{:02}", seconds % 60),
    }
}

/// A time that has passed: `3.9 s`, from a minute on `1:02`.
pub(crate) fn took(time: Duration) -> String {
    if time.as_secs() < 60 { format!("{:.1} s", time.as_secs_f64()) } else { duration(time) }
}

/// `1 piece`, `2 pieces`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// The path rules of this system.
pub(crate) fn path_rules() -> PathRules {
    if taipei_net::config().windows_paths { PathRules::Windows } else { PathRules::Unix }
}

/// Reads a torrent file that something is to be done with: not one of version 2 alone.
pub(crate) fn read_torrent(path: &Path, bind: &BindArgs) -> Result<(Vec<u8>, Metainfo), Failure> {
    let (torrent_file, metainfo) = read_any_torrent(path, bind)?;
    if metainfo.info_hashes.v1.is_none() {
        return Err(Failure::Torrent { path: path.to_owned(), error: MetainfoError::V2Only });
    }
    Ok((torrent_file, metainfo))
}

/// Reads a torrent file and judges it. Not more is read than a torrent file may be long.
pub(crate) fn read_any_torrent(path: &Path, bind: &BindArgs) -> Result<(Vec<u8>, Metainfo), Failure> {
    let (shown, torrent_file) = match web_address(path) {
        Some(url) => (host_of(&url).into_owned().into(), fetch(&url, bind)?),
        None => (path.to_owned(), read_file(path)?),
    };
    let metainfo = Metainfo::parse(&torrent_file, path_rules())
        .map_err(|error| Failure::Torrent { path: shown, error })?;
    Ok((torrent_file, metainfo))
}

/// The http(s) address that was given instead of a file.
pub(crate) fn web_address(path: &Path) -> Option<Cow<'_, str>> {
    let text = path.to_string_lossy();
    let is_url = text
        .split_once("://")
        .is_some_and(|(scheme, _)| ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)));
    (is_url && !path.exists()).then_some(text)
}

fn fetch(url: &str, bind: &BindArgs) -> Result<Vec<u8>, Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::System)?;
    let fetched = runtime.block_on(taipei_net::fetch(url, bind.bind.as_deref()));
    // A name that is looked up cannot be interrupted; nobody waits for it.
    runtime.shutdown_background();
    fetched
        .map(|torrent_file| torrent_file.to_vec())
        .map_err(|error| Failure::Fetch { host: host_of(url).into_owned(), error })
}

fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    use io::Read as _;
    let failed = |error| Failure::File { path: path.to_owned(), error };
    let text = path.to_string_lossy();
    if !path.exists() {
        if is_magnet(&text) || is_info_hash(&text) {
            return Err(Failure::NeedsFile(text.into_owned()));
        }
        if text.contains("://") {
            return Err(Failure::Scheme(path.to_owned()));
        }
    }
    let mut torrent_file = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(TORRENT_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut torrent_file).map_err(failed)?;
    if torrent_file.is_empty() { Err(Failure::Empty(path.to_owned())) } else { Ok(torrent_file) }
}

/// The magnet link that was given instead of a file: as a link, or as an info-hash alone. None: it is neither, or such a
/// file is here.
pub(crate) fn magnet(path: &Path) -> Option<Result<Magnet, Failure>> {
    let text = path.to_string_lossy();
    let link = if is_magnet(&text) {
        text.into_owned()
    } else if is_info_hash(&text) && !path.exists() {
        let urn = if text.len() == 64 { "btmh:1220" } else { "btih:" };
        format!("magnet:?xt=urn:{urn}{text}")
    } else {
        return None;
    };
    Some(Magnet::parse(&link).map_err(|error| Failure::Magnet { link, error }))
}

fn is_magnet(text: &str) -> bool {
    text.trim_start().get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("magnet:"))
}

/// In hexadecimal digits or base32, of either version.
fn is_info_hash(text: &str) -> bool {
    let is_hex = matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex
        || text.len() == 32
            && text.bytes().all(|byte| matches!(byte.to_ascii_uppercase(), b'A'..=b'Z' | b'2'..=b'7'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_short() {
        let sizes = [0, 1023, 1024, 1536, 1_048_575, 1 << 20, 5_490_455_272, u64::MAX].map(bytes);
        assert_eq!(
            sizes,
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "1.0 MiB", "5.1 GiB", "16.0 EiB"]
        );
        let times = [0, 59, 61, 3723, 400_000].map(|seconds| duration(Duration::from_secs(seconds)));
        assert_eq!(times, ["0:00", "0:59", "1:01", "1:02:03", "4 days"]);
    }

    #[test]
    fn text_from_outside_cannot_command_a_terminal() {
        let hostile = "a\u{1b}[2J\u{202e}b\n";
        assert_eq!(escape(hostile), "a\\u{1b}[2J\\u{202e}b\\u{a}");
        assert_eq!(json_line(&hostile), "\"a\\u001b[2J\\u202eb\\n\"");
        let read: String = serde_json::from_str(&json_line(&hostile)).unwrap();
        assert_eq!(read, hostile);
    }

    #[test]
    fn what_may_be_secret_in_a_url_is_not_shown() {
        assert_eq!(host_of("http://u:p@t.example:80/secret/announce?k=1"), "http://t.example:80/…");
        assert_eq!(host_of("udp://t:1"), "udp://t:1");
    }
}
