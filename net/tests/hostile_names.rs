//! What a torrent names, on a real disk: nothing outside the download directory, nothing through a link, no two files in
//! one place (`reliability.md` A1 to A4).
#![allow(clippy::unwrap_used, reason = "a test ends where something does not hold")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use taipei_engine::BlockData;
use taipei_engine::bencode::{self, Value};
use taipei_engine::command::ResumeMode;
use taipei_engine::disk::{Job, JobResult, Place, Run, Work, execute, sha1_each};
use taipei_engine::metainfo::{Metainfo, PathRules};
use taipei_net::FileStorage;

const PIECE_BYTES: usize = 16;

/// A directory of this test's own, gone afterwards.
struct Outer(PathBuf);

impl Outer {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("taipei-names-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("downloads")).unwrap();
        fs::write(path.join("secret"), b"secret").unwrap();
        Self(path)
    }
}

impl Drop for Outer {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Names as a torrent may have them, components apart.
fn names() -> Vec<Vec<Vec<u8>>> {
    let paths: &[&[&[u8]]] = &[
        &[b"..", b"..", b"secret"],
        &[b"..", b"secret"],
        &[b"../../secret"],
        &[b"..\\..\\secret"],
        &[b"/etc/passwd"],
        &[b"/", b"etc", b"passwd"],
        &[b"C:\\Windows\\x"],
        &[b"a", b"..", b"..", b"..", b"secret"],
        &[b"."],
        &[b""],
        &[b"a"],
        &[b"A"],
        &[b"a", b"b"],
        &[b"a", b"b", b"c"],
        &[b"e\xcc\x81"],
        &[b"\xc3\xa9"],
        &[b"\xff\xfe"],
        &[b"nul\0byte"],
        &[b"line\nend"],
        &[b"\x1b[2J"],
        &[b"CON"],
        &[b"dots..."],
        &[b"file:stream"],
        &[b".taipei", b"lock"],
        &[b"foo... bar"],
        &[b"~", b"x"],
        &[b"-rf"],
    ];
    let long = [vec![b'x'; 300]].to_vec();
    let deep = vec![b"d".to_vec(); 60];
    let listed = paths.iter().map(|path| path.iter().map(|name| name.to_vec()).collect());
    listed.chain([long, deep]).collect()
}

/// A torrent of these files, a piece each, and after them links.
fn torrent(name: &[u8], paths: &[Vec<Vec<u8>>]) -> Vec<u8> {
    let list = |names: &[Vec<u8>]| Value::List(names.iter().map(|name| Value::bytes(name.clone())).collect());
    let file = |path: &Vec<Vec<u8>>| {
        Value::dict([(&b"length"[..], Value::Int(PIECE_BYTES as i64)), (b"path", list(path))])
    };
    let link = |(name, target): (&str, &str)| {
        Value::dict([
            (&b"attr"[..], Value::text("l")),
            (b"length", Value::Int(0)),
            (b"path", list(&[name.as_bytes().to_vec()])),
            (b"symlink path", list(&[target.as_bytes().to_vec()])),
        ])
    };
    let links = [("out", "../secret"), ("loop", "loop"), ("root", "/")].into_iter().map(link);
    let pieces: Vec<[u8; 20]> = (0..paths.len()).map(digest).collect();
    let info = Value::dict([
        (&b"files"[..], Value::List(paths.iter().map(file).chain(links).collect())),
        (b"name", Value::bytes(name.to_vec())),
        (b"piece length", Value::Int(PIECE_BYTES as i64)),
        (b"pieces", Value::bytes(pieces.concat())),
    ]);
    bencode::encode(&Value::dict([(&b"info"[..], info)]))
}

fn payload(number: usize) -> Vec<u8> {
    vec![number as u8 + 1; PIECE_BYTES]
}

fn digest(number: usize) -> [u8; 20] {
    let mut digests = Vec::new();
    sha1_each(&[vec![&payload(number)]], &mut digests);
    digests[0]
}

/// Every file below a directory and what is in it; links are an error.
fn files_below(directory: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        assert!(!kind.is_symlink(), "{path:?} is a link");
        if kind.is_dir() {
            files_below(&path, found);
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
}

#[test]
fn whatever_a_torrent_names_lies_below_the_download_directory_each_by_itself() {
    let paths = names();
    let rules = if taipei_net::config().windows_paths { PathRules::Windows } else { PathRules::Unix };
    for (number, name) in
        [&b"t"[..], b"..", b"../..", b"/etc", b".taipei", b"\xff", b"a/../../b"].iter().enumerate()
    {
        let outer = Outer::new(&number.to_string());
        let root = outer.0.join("downloads");
        let metainfo = Metainfo::parse(&torrent(name, &paths), rules).unwrap();
        let stored = metainfo.layout.files().iter().filter(|file| file.is_stored()).count();
        assert_eq!(stored, paths.len());
        let place = Arc::new(Place {
            info_hash: metainfo.info_hashes.v1.unwrap(),
            root: root.to_str().unwrap().to_owned(),
            state_root: String::new(),
            layout: metainfo.layout.clone(),
            piece_hashes: metainfo.piece_hashes,
            boot_id: [1; 16],
        });
        let mut storage = FileStorage::new();
        let mut run = |work| execute(&Job { place: Arc::clone(&place), work }, &mut storage, &sha1_each);
        let opened = run(Work::Open { resume: ResumeMode::Resume });
        assert!(matches!(opened, JobResult::Opened(Ok(_))), "{opened:?}");
        for piece in metainfo.layout.pieces() {
            let block = BlockData::from(bytes::Bytes::from(payload(piece.at())));
            let written = run(Work::Write {
                piece,
                runs: vec![Run { begin: 0, blocks: vec![block] }],
                reaches: vec![],
                forget: vec![],
                digests: false,
            });
            assert!(matches!(written, JobResult::Written(Ok(_))), "{written:?}");
        }
        let pieces: Vec<_> = metainfo.layout.pieces().collect();
        assert_eq!(run(Work::Check { pieces }), JobResult::Checked(Ok(vec![true; paths.len()])));
        // On the disk: beside the root nothing new, below it a file for each, with its own content.
        let mut beside: Vec<_> =
            fs::read_dir(&outer.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        beside.sort();
        assert_eq!(beside, ["downloads", "secret"]);
        assert_eq!(fs::read(outer.0.join("secret")).unwrap(), b"secret");
        let mut found = BTreeMap::new();
        files_below(&root, &mut found);
        found.retain(|path, _| !path.starts_with(root.join(".taipei")));
        assert_eq!(found.len(), paths.len(), "{:?}", found.keys());
        for (number, file) in metainfo.layout.files().iter().filter(|file| file.is_stored()).enumerate() {
            assert_eq!(found.get(&root.join(file.path.as_str())), Some(&payload(number)), "{}", file.path);
        }
    }
}
