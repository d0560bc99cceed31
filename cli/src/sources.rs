//! What was given on the command line as torrents: files, addresses, magnet links, and content to make torrents of.
//!
//! One that cannot be used is said at once and does not keep the others from going on.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use regex_lite::Regex;
use serde_json::json;
use taipei_engine::command::{Allocation, Priority};
use taipei_engine::metainfo::{CreateOptions, Magnet, MagnetError, Metainfo};

use crate::args::{DownloadArgs, Encryption, MakingArgs, Numbers, SeedArgs, TransferArgs};
use crate::create::{Made, make_torrent, may_write, write_file};
use crate::output::{
    Failure, Shown, bytes, count, escape, fail, magnet, print, print_json, read_torrent, tell, web_address,
};
use crate::verify::{data_root, look, path_below};

/// A torrent to transfer.
pub(crate) struct Torrent {
    pub(crate) source: Source,
    /// What is in it; of a link, once a peer has told that.
    pub(crate) metainfo: Option<Metainfo>,
    /// The directory under which its paths lie.
    pub(crate) root: PathBuf,
    pub(crate) wanted: Wanted,
}

/// What was given of a torrent.
pub(crate) enum Source {
    File(Bytes),
    Link(Box<Magnet>),
}

impl Torrent {
    /// Of a torrent file.
    pub(crate) fn of_file(torrent_file: Bytes, metainfo: Metainfo, root: PathBuf, wanted: Wanted) -> Self {
        Self { source: Source::File(torrent_file), metainfo: Some(metainfo), root, wanted }
    }

    /// Of a magnet link.
    pub(crate) fn of_link(magnet: Magnet, root: PathBuf, wanted: Wanted) -> Result<Self, Failure> {
        if magnet.info_hashes.v1.is_none() {
            return Err(Failure::Magnet { link: magnet.to_string(), error: MagnetError::V2Only });
        }
        Ok(Self { source: Source::Link(Box::new(magnet)), metainfo: None, root, wanted })
    }

    /// Its name; of a link what that says, or the info-hash.
    pub(crate) fn name(&self) -> String {
        match (&self.metainfo, &self.source) {
            (Some(metainfo), _) => metainfo.name.clone(),
            (None, Source::Link(magnet)) => magnet.name.clone().unwrap_or_else(|| self.info_hash()),
            (None, Source::File(_)) => String::new(),
        }
    }

    /// Of version 1, in hexadecimal digits.
    pub(crate) fn info_hash(&self) -> String {
        let hashes = match (&self.metainfo, &self.source) {
            (Some(metainfo), _) => Some(metainfo.info_hashes),
            (None, Source::Link(magnet)) => Some(magnet.info_hashes),
            (None, Source::File(_)) => None,
        };
        hashes.and_then(|hashes| hashes.v1).map(|hash| hash.to_string()).unwrap_or_default()
    }

    /// Its own trackers.
    pub(crate) fn trackers(&self) -> Vec<String> {
        match (&self.source, &self.metainfo) {
            (Source::Link(magnet), _) => magnet.trackers.clone(),
            (Source::File(_), Some(metainfo)) => metainfo.tracker_tiers.concat(),
            (Source::File(_), None) => Vec::new(),
        }
    }
}

/// What is wanted of a torrent, and how it is fetched.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// Which files, as it was said.
    pub(crate) choice: Choice,
    /// The same once the files are known; empty: all.
    pub(crate) priorities: Vec<Priority>,
    pub(crate) sequential: bool,
    pub(crate) allocation: Allocation,
}

/// Files that are wanted, by number and by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Choice {
    select: Option<Numbers>,
    filename_re: Option<Regex>,
}

/// The torrents of a command line.
pub(crate) struct Read {
    pub(crate) torrents: Vec<Torrent>,
    /// Whether others could not be read; why was said.
    pub(crate) some_failed: bool,
}

/// What is to be downloaded.
pub(crate) fn to_download(args: &DownloadArgs) -> Result<Read, Failure> {
    // What is missing is made; a file stays what it is.
    if let Some(there) = args.output.ancestors().find(|path| path.exists()).filter(|path| !path.is_dir()) {
        return Err(Failure::NotADirectory(there.to_owned()));
    }
    read_all(&args.torrents, &args.transfer, |path| {
        let mut wanted = Wanted::new(args);
        let root = args.output.clone();
        if let Some(magnet) = magnet(path) {
            return Torrent::of_link(magnet?, root, wanted);
        }
        let (torrent_file, metainfo) = read_torrent(path, &args.transfer.bind)?;
        wanted.priorities = wanted.choice.priorities(&metainfo)?;
        Ok(Torrent::of_file(torrent_file.into(), metainfo, root, wanted))
    })
}

/// What is to be seeded, with data that are there.
pub(crate) fn to_seed(args: &SeedArgs) -> Result<Read, Failure> {
    let transfer = &args.transfer;
    if args.making.private && transfer.tracker.is_empty() {
        return Err(Failure::PrivateWithoutTracker);
    }
    read_all(&args.sources, transfer, |path| {
        if is_content(path) {
            return make(path, args);
        }
        if let Some(flag) = args.making.first_given() {
            return Err(Failure::NotMade { path: path.to_owned(), flag });
        }
        let (torrent_file, metainfo) = read_torrent(path, &transfer.bind)?;
        let root = data_root(&metainfo.name, &args.data);
        has_all_files(&metainfo, &root)?;
        Ok(Torrent::of_file(torrent_file.into(), metainfo, root, Wanted::default()))
    })
}

fn read_all(
    paths: &[PathBuf],
    args: &TransferArgs,
    mut read: impl FnMut(&Path) -> Result<Torrent, Failure>,
) -> Result<Read, Failure> {
    if args.encryption == Encryption::Require {
        return Err(Failure::Encryption);
    }
    let mut torrents: Vec<Torrent> = Vec::new();
    let mut known = BTreeSet::new();
    let mut failures = Vec::new();
    for path in paths {
        match read(path) {
            Ok(torrent) => {
                if known.insert(torrent.info_hash()) {
                    torrents.push(torrent);
                } else {
                    tell(format_args!("warning: {}: the same torrent was given before", Shown(path)));
                }
            }
            Err(failure) => failures.push(failure),
        }
    }
    let last = if torrents.is_empty() { failures.pop() } else { None };
    failures.iter().for_each(|failure| _ = fail(failure, args.display.is_for_programs()));
    if let Some(last) = last {
        return Err(last);
    }
    for url in &args.exclude_tracker {
        if !torrents.iter().any(|torrent| torrent.trackers().contains(url)) {
            tell(format_args!(
                "warning: --exclude-tracker {}: none of the torrents has it; `info` shows which they have",
                escape(url)
            ));
        }
    }
    Ok(Read { torrents, some_failed: !failures.is_empty() })
}

impl Wanted {
    fn new(args: &DownloadArgs) -> Self {
        let allocation = if args.preallocate { Allocation::Full } else { Allocation::Sparse };
        let choice = Choice { select: args.select.clone(), filename_re: args.filename_re.clone() };
        Self { choice, priorities: Vec::new(), sequential: args.sequential, allocation }
    }

    /// Whether a file is wanted, by its place in the torrent.
    fn has(&self, file: usize) -> bool {
        self.priorities.get(file) != Some(&Priority::Skip)
    }
}

impl Choice {
    /// Whether files are chosen at all.
    pub(crate) fn is_given(&self) -> bool {
        self.select.is_some() || self.filename_re.is_some()
    }

    /// How much each file of a torrent is wanted; empty when everything is.
    pub(crate) fn priorities(&self, metainfo: &Metainfo) -> Result<Vec<Priority>, Failure> {
        if !self.is_given() {
            return Ok(Vec::new());
        }
        let files = metainfo.layout.files();
        let torrent = || escape(&metainfo.name).into_owned();
        let mut priorities = vec![Priority::Skip; files.len()];
        for range in self.select.iter().flat_map(|select| select.iter()) {
            let (first, last) = (*range.start() as usize, *range.end() as usize);
            if last > files.len() {
                return Err(Failure::Select { torrent: torrent(), number: *range.end(), files: files.len() });
            }
            priorities[first - 1..last].fill(Priority::Normal);
        }
        if let Some(pattern) = &self.filename_re {
            let mut found = false;
            for (priority, file) in priorities.iter_mut().zip(files) {
                if file.is_stored() && pattern.is_match(file.path.as_str()) {
                    (*priority, found) = (Priority::Normal, true);
                }
            }
            if !found {
                return Err(Failure::NoMatch {
                    torrent: torrent(),
                    pattern: escape(pattern.as_str()).into_owned(),
                });
            }
        }
        Ok(priorities)
    }
}

/// Shows the files of a torrent that are wanted, with the numbers that `--select` takes.
pub(crate) fn list(torrent: &Torrent, as_json: bool) {
    let Some(metainfo) = &torrent.metainfo else { return };
    let name = &metainfo.name;
    for (at, file) in metainfo.layout.files().iter().enumerate() {
        if !file.is_stored() || !torrent.wanted.has(at) {
            continue;
        }
        let (number, path, length) = (at + 1, file.path.as_str(), file.length);
        if as_json {
            print_json(
                &json!({ "event": "file", "name": name, "number": number, "path": path, "length": length }),
            );
        } else {
            print(format_args!("{number:>6}  {:>10}  {}", bytes(length), escape(path)));
        }
    }
}

impl MakingArgs {
    /// A flag that only says how a torrent is made.
    fn first_given(&self) -> Option<&'static str> {
        let given = [
            (self.save_torrent.is_some(), "--save-torrent"),
            (self.private, "--private"),
            (self.piece_size.is_some(), "--piece-size"),
            (self.source.is_some(), "--source"),
        ];
        given.into_iter().find_map(|(given, flag)| given.then_some(flag))
    }
}

/// Whether there is something to make a torrent of: a directory, or a file that is no torrent and is not called one.
fn is_content(path: &Path) -> bool {
    if web_address(path).is_some() || !path.exists() {
        return false;
    }
    path.is_dir()
        || !path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("torrent"))
            && !begins_like_a_torrent(path)
}

/// Whether it begins as a dictionary does whose first key is one of a torrent file: `d8:announce`, `d4:info`.
fn begins_like_a_torrent(path: &Path) -> bool {
    let mut begin = [0; 4];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut begin));
    read.is_ok()
        && begin[0] == b'd'
        && begin[1].is_ascii_digit()
        && (begin[2] == b':' || begin[2].is_ascii_digit() && begin[3] == b':')
}

/// Makes a torrent of content, says what it is, writes it where that was asked for.
fn make(path: &Path, args: &SeedArgs) -> Result<Torrent, Failure> {
    let transfer = &args.transfer;
    let real = path.canonicalize().map_err(|error| Failure::File { path: path.to_owned(), error })?;
    let root = real.parent().ok_or_else(|| Failure::NoFile(path.to_owned()))?.to_owned();
    let options = CreateOptions {
        piece_length: args.making.piece_size,
        tracker_tiers: transfer.tracker.iter().map(|tier| tier.to_vec()).collect(),
        private: args.making.private,
        source: args.making.source.clone(),
        created_by: Some(format!("taipei {}", env!("CARGO_PKG_VERSION"))),
        // Without a date the same content and flags are the same file again.
        ..CreateOptions::default()
    };
    let made = make_torrent(&real, None, options, transfer.display)?;
    let saved =
        args.making.save_torrent.as_deref().map(|to| save(to, &made, args.sources.len())).transpose()?;
    say_made(&made, saved.as_deref(), transfer);
    Ok(Torrent::of_file(made.torrent_file.into(), made.metainfo, root, Wanted::default()))
}

/// Where it is now. The same file may be there already: the command was given before.
fn save(to: &Path, made: &Made, sources: usize) -> Result<PathBuf, Failure> {
    let to = match to.is_dir() {
        true => to.join(format!("{}.torrent", made.metainfo.name)),
        false if sources > 1 => return Err(Failure::SaveMany(to.to_owned())),
        false => to.to_owned(),
    };
    if std::fs::read(&to).is_ok_and(|there| there == made.torrent_file) {
        return Ok(to);
    }
    if let Err(failure) = may_write(&to, false) {
        return Err(if matches!(failure, Failure::Exists(_)) { Failure::SavedOther(to) } else { failure });
    }
    write_file(&to, &made.torrent_file, false)?;
    Ok(to)
}

fn say_made(made: &Made, saved: Option<&Path>, args: &TransferArgs) {
    let (layout, name) = (&made.metainfo.layout, escape(&made.metainfo.name));
    let hash = made.metainfo.info_hashes.v1.map(|hash| hash.to_string()).unwrap_or_default();
    if args.display.is_for_programs() {
        print_json(&json!({
            "event": "created", "name": made.metainfo.name, "info_hash": hash,
            "torrent": saved.map(|path| path.to_string_lossy()), "piece_length": layout.piece_length(),
            "num_pieces": layout.piece_count(), "total_size": layout.stored_bytes(),
        }));
    } else {
        let size =
            format!("{} in {}", bytes(layout.stored_bytes()), count(layout.files().len() as u64, "file"));
        let saved = saved.map(|path| format!(", torrent in {}", Shown(path))).unwrap_or_default();
        print(format_args!("{name}: info-hash {hash}, {size}{saved}"));
    }
    if args.tracker.is_empty() && (args.dht.no_dht || made.metainfo.private) {
        let nearby = if args.no_lsd || made.metainfo.private { "" } else { "on the local network, or " };
        tell(format_args!(
            "warning: {name}: no tracker knows of it: give one with --tracker, or others find it only {nearby}with --peer \
             and this machine's address"
        ));
    }
}

/// Whether data to seed are there by name and length, so that a wrong directory is not filled with empty files.
fn has_all_files(metainfo: &Metainfo, root: &Path) -> Result<(), Failure> {
    for file in metainfo.layout.files().iter().filter(|file| file.is_stored()) {
        if let Some(problem) = look(&path_below(root, file), file.length) {
            let (path, problem) = (escape(file.path.as_str()), problem.words(file.length));
            let problem = format!("{path} in {}: {problem}: give the directory with --data", Shown(root));
            return Err(Failure::Seed { torrent: escape(&metainfo.name).into_owned(), problem });
        }
    }
    Ok(())
}
