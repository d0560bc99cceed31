//! `taipei-cli verify`: whether data on disk are those of a torrent.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;
use taipei_engine::FileIndex;
use taipei_engine::metainfo::{FileEntry, Layout, Metainfo};

use crate::args::{DisplayArgs, VerifyArgs};
use crate::hashing::hash_pieces;
use crate::output::{Exit, bytes, count, escape, fail, io_words, print, print_json, read_torrent};
use crate::progress::HashProgress;

/// Checks and reports.
pub(crate) fn run(args: &VerifyArgs) -> Exit {
    let metainfo = match read_torrent(&args.torrent, &args.bind) {
        Ok((_, metainfo)) => metainfo,
        Err(failure) => return fail(&failure, args.display.is_for_programs()),
    };
    let found = check(&metainfo, &args.path, args.display);
    report(&metainfo, &found, args.display.is_for_programs());
    if found.is_whole() { Exit::Done } else { Exit::NotWhole }
}

/// What is on disk of a torrent.
pub(crate) struct Found {
    good_pieces: u32,
    good_bytes: u64,
    bad_files: Vec<BadFile>,
}

struct BadFile {
    file: FileIndex,
    problem: Problem,
    bad_pieces: u32,
}

/// What is wrong with a file.
pub(crate) enum Problem {
    Missing,
    NotAFile,
    Length(u64),
    Unreadable(io::Error),
    /// Pieces that lie in it have another hash.
    Content,
}

impl Problem {
    /// For people; `length` is what the torrent says.
    pub(crate) fn words(&self, length: u64) -> String {
        match self {
            Self::Missing => "missing".to_owned(),
            Self::NotAFile => "not a plain file".to_owned(),
            Self::Length(found) if *found < length => {
                format!("too short: {} of {}", bytes(*found), bytes(length))
            }
            Self::Length(found) => format!("too long: {found} bytes, the torrent says {length}"),
            Self::Unreadable(error) => format!("cannot be read: {}", io_words(error)),
            Self::Content => "wrong content".to_owned(),
        }
    }
}

impl Found {
    /// Whether everything is there, to the byte.
    pub(crate) fn is_whole(&self) -> bool {
        self.bad_files.is_empty()
    }
}

/// The directory below which the paths of a torrent lie. The torrent's own directory or file is understood as well.
pub(crate) fn data_root(name: &str, given: &Path) -> PathBuf {
    let real = given.canonicalize().unwrap_or_else(|_| given.to_owned());
    let is_itself = real.file_name().is_some_and(|last| last == name) && !given.join(name).exists();
    match real.parent() {
        Some(parent) if is_itself => parent.to_owned(),
        _ => given.to_owned(),
    }
}

/// Where each file of a torrent lies. For a torrent of one file, `given` may be that file under another name.
fn file_paths(layout: &Layout, name: &str, given: &Path) -> Vec<PathBuf> {
    if given.is_file() && layout.files().len() == 1 {
        return vec![given.to_owned()];
    }
    let root = data_root(name, given);
    layout.files().iter().map(|file| path_below(&root, file)).collect()
}

/// Where a file lies below a download directory.
pub(crate) fn path_below(root: &Path, file: &FileEntry) -> PathBuf {
    root.components().map(|part| part.as_os_str()).chain(file.path.components().map(AsRef::as_ref)).collect()
}

/// Hashes what is there.
pub(crate) fn check(metainfo: &Metainfo, given: &Path, display: DisplayArgs) -> Found {
    let layout = &metainfo.layout;
    let paths = file_paths(layout, &metainfo.name, given);
    let mut problems: Vec<Option<Problem>> = layout
        .files()
        .iter()
        .zip(&paths)
        .map(|(file, path)| if file.is_stored() { look(path, file.length) } else { None })
        .collect();
    let progress = HashProgress::new(&metainfo.name, layout.total_bytes(), display);
    let hashes = hash_pieces(layout, &paths, &|bytes| progress.add(bytes));
    progress.finish();

    let mut found = Found { good_pieces: 0, good_bytes: 0, bad_files: Vec::new() };
    let mut bad_pieces = vec![0u32; layout.files().len()];
    for ((piece, hash), expected) in layout.pieces().zip(hashes).zip(&metainfo.piece_hashes) {
        let unread = match hash {
            Ok(hash) if hash == *expected => {
                found.good_pieces += 1;
                found.good_bytes += u64::from(layout.piece_bytes(piece));
                continue;
            }
            Ok(_) => None,
            Err(unread) => Some(unread),
        };
        for file in layout.files_of(piece).filter(|file| layout.file(*file).is_stored()) {
            bad_pieces[file.0 as usize] += 1;
        }
        match unread {
            Some(unread) => {
                problems[unread.file.0 as usize].get_or_insert(Problem::Unreadable(unread.error));
            }
            // A piece over several files is blamed on all of them: the hash does not say which.
            None => {
                for file in layout.files_of(piece).filter(|file| layout.file(*file).is_stored()) {
                    problems[file.0 as usize].get_or_insert(Problem::Content);
                }
            }
        }
    }
    let bad =
        problems.into_iter().enumerate().zip(bad_pieces).filter_map(|((index, problem), bad_pieces)| {
            Some(BadFile { file: FileIndex(index as u32), problem: problem?, bad_pieces })
        });
    found.bad_files = bad.collect();
    found
}

/// What a look at a file says, before its content is read.
pub(crate) fn look(path: &Path, length: u64) -> Option<Problem> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => Some(Problem::NotAFile),
        Ok(metadata) if metadata.len() != length => Some(Problem::Length(metadata.len())),
        Ok(_) => None,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Some(Problem::Missing)
        }
        Err(error) => Some(Problem::Unreadable(error)),
    }
}

fn report(metainfo: &Metainfo, found: &Found, as_json: bool) {
    let layout = &metainfo.layout;
    if as_json {
        let bad: Vec<_> = found
            .bad_files
            .iter()
            .map(|bad| {
                let file = layout.file(bad.file);
                json!({ "path": file.path.as_str(), "problem": bad.problem.words(file.length), "bad_pieces": bad.bad_pieces })
            })
            .collect();
        print_json(&json!({
            "name": metainfo.name, "info_hash_v1": metainfo.info_hashes.v1.map(|hash| hash.to_string()),
            "whole": found.is_whole(), "pieces_good": found.good_pieces, "pieces_total": layout.piece_count(),
            "bytes_good": found.good_bytes, "bytes_total": layout.total_bytes(), "bad_files": bad,
        }));
        return;
    }
    for bad in &found.bad_files {
        let file = layout.file(bad.file);
        print(format_args!("{}: {}", escape(file.path.as_str()), bad.problem.words(file.length)));
    }
    let pieces = format!("{} of {} good", found.good_pieces, count(layout.piece_count().into(), "piece"));
    let name = escape(&metainfo.name);
    if found.is_whole() {
        print(format_args!("{name}: whole, {pieces}, {}", bytes(layout.stored_bytes())));
    } else {
        let files = count(found.bad_files.len() as u64, "file");
        print(format_args!(
            "{name}: NOT whole, {pieces}, {files} missing or wrong: `download` fetches what is missing"
        ));
    }
}
