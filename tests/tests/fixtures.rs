//! Torrent files of other projects give what their manifest says.
//!
//! `fixtures/torrents/manifest.toml` explains its fields at its head. A wrong expectation is reported, never changed here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde::Deserialize;
use taipei_engine::limits::{PIECES_MAX, TOTAL_BYTES_MAX};
use taipei_engine::metainfo::{FileEntry, Magnet, Metainfo, PathRules, merkle};

const RULES: [PathRules; 2] = [PathRules::Unix, PathRules::Windows];

#[derive(Deserialize)]
struct Manifest {
    torrent: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    file: String,
    bytes: usize,
    expect: Expect,
    kind: Option<String>,
    #[serde(default)]
    error_class: Vec<String>,
    info_hash_v1: Option<String>,
    info_hash_v2: Option<String>,
    name: Option<String>,
    #[serde(default)]
    name_exact: bool,
    piece_length: Option<u32>,
    num_pieces: Option<u32>,
    total_size: Option<u64>,
    total_size_padded: Option<u64>,
    num_files: Option<usize>,
    num_files_listed: Option<usize>,
    #[serde(default)]
    private: bool,
    paths: Option<BTreeSet<String>>,
    #[serde(default)]
    symlinks: BTreeSet<String>, // their targets
    trackers: Option<Vec<String>>,
    web_seeds: Option<Vec<String>>,
    dht_nodes: Option<Vec<String>>,
    content: Option<String>,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Expect {
    Ok,
    Error,
    Either,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/torrents")
}

fn rows() -> Vec<(Row, Vec<u8>)> {
    let text = std::fs::read_to_string(root().join("manifest.toml")).expect("the manifest");
    let manifest: Manifest = toml::from_str(&text).expect("the manifest is TOML");
    let read = |row: Row| {
        let bytes = std::fs::read(root().join(&row.file)).expect("every file of the manifest is here");
        assert_eq!(bytes.len(), row.bytes, "{}", row.file);
        (row, bytes)
    };
    manifest.torrent.into_iter().map(read).collect()
}

#[test]
fn every_torrent_gives_what_the_manifest_says() {
    let rows = rows();
    assert_eq!(rows.len(), 65, "rows of the manifest");
    for (row, bytes) in rows {
        match Metainfo::parse(&bytes, PathRules::Unix) {
            Ok(_) if row.expect == Expect::Either && row.name.is_none() => {}
            Ok(metainfo) if row.expect != Expect::Error => check_values(&row, &metainfo),
            Err(error) if row.expect != Expect::Ok => {
                let listed = row.error_class.iter().any(|class| class == error.class());
                assert!(listed || row.error_class.is_empty(), "{}: {error} ({})", row.file, error.class());
            }
            result => panic!("{}: {:?}", row.file, result.map(|metainfo| metainfo.name)),
        }
    }
}

fn check_values(row: &Row, metainfo: &Metainfo) {
    let file = &row.file;
    let layout = &metainfo.layout;
    let hashes = metainfo.info_hashes;
    assert_eq!(hashes.v1.map(|hash| hash.to_string()), row.info_hash_v1, "{file}");
    assert_eq!(hashes.v2.map(|hash| hash.to_string()), row.info_hash_v2, "{file}");
    assert_eq!(Some(layout.piece_length()), row.piece_length, "{file}");
    assert_eq!(Some(layout.piece_count()), row.num_pieces, "{file}");
    let has_v1 = row.kind.as_deref() != Some("v2");
    let pieces = if has_v1 { layout.piece_count() as usize } else { 0 };
    assert_eq!(metainfo.piece_hashes.len(), pieces, "{file}");
    let with_bytes = layout.files().iter().filter(|entry| entry.is_stored() && entry.length > 0).count();
    let rooted = if metainfo.info_hashes.v2.is_some() { with_bytes } else { 0 };
    assert_eq!(metainfo.file_roots.len(), rooted, "{file}");
    assert_eq!(Some(layout.stored_bytes()), row.total_size, "{file}");
    assert_eq!(Some(layout.total_bytes()), row.total_size_padded, "{file}");
    assert_eq!(metainfo.private, row.private, "{file}");
    // The manifest counts symlinks among the files.
    let not_pad = |entry: &&FileEntry| !entry.pad;
    assert_eq!(Some(layout.files().iter().filter(not_pad).count()), row.num_files, "{file}");
    assert_eq!(Some(layout.files().len()), row.num_files_listed, "{file}");
    if let Some(trackers) = &row.trackers {
        assert_eq!(&metainfo.tracker_tiers.concat(), trackers, "{file}");
    }
    if let Some(seeds) = &row.web_seeds {
        assert_eq!(&metainfo.web_seeds, seeds, "{file}");
    }
    if let Some(nodes) = &row.dht_nodes {
        let found: Vec<String> =
            metainfo.dht_nodes.iter().map(|(host, port)| format!("{host}:{port}")).collect();
        assert_eq!(&found, nodes, "{file}");
    }
    if row.name_exact && row.expect == Expect::Ok {
        assert_eq!(Some(&metainfo.name), row.name.as_ref(), "{file}");
        if let Some(expected) = &row.paths {
            let paths: BTreeSet<String> = layout.files().iter().map(|file| file.path.to_string()).collect();
            assert_eq!(&paths, expected, "{file}");
        }
        let targets = layout.files().iter().filter_map(|file| file.symlink.as_ref());
        assert_eq!(targets.map(ToString::to_string).collect::<BTreeSet<_>>(), row.symlinks, "{file}");
    }
}

#[test]
fn every_path_is_relative_storable_and_unique() {
    for (row, bytes) in rows() {
        for rules in RULES {
            let Ok(metainfo) = Metainfo::parse(&bytes, rules) else { continue };
            let mut lower = BTreeSet::new();
            for entry in metainfo.layout.files() {
                for path in std::iter::once(&entry.path).chain(&entry.symlink) {
                    assert_eq!(path.components().next(), Some(metainfo.name.as_str()), "{}", row.file);
                    for name in path.components() {
                        let safe = !name.is_empty()
                            && name != "."
                            && name != ".."
                            && name.len() <= 255
                            && !name.contains(|c: char| c.is_control() || c == '\\' || c == '/');
                        assert!(safe, "{}: {path}", row.file);
                    }
                }
                assert!(lower.insert(entry.path.as_str().to_lowercase()), "{}: {}", row.file, entry.path);
            }
        }
    }
}

#[test]
fn every_file_is_read_quickly() {
    for (row, bytes) in rows() {
        let start = Instant::now();
        let _ = Metainfo::parse(&bytes, PathRules::Windows);
        assert!(start.elapsed() < Duration::from_secs(1), "{}: {:?}", row.file, start.elapsed());
    }
}

/// The payload that comes with a torrent has its piece hashes, read through the storage map.
#[test]
fn payload_fits_the_piece_hashes() {
    use sha1::{Digest as _, Sha1};
    let mut checked = 0;
    for (row, bytes) in rows() {
        let Some(content) = row.content.as_deref().filter(|content| content.starts_with("content/")) else {
            continue;
        };
        let metainfo = Metainfo::parse(&bytes, PathRules::Unix).expect("it loads");
        let content = root().join(content);
        let below = content.parent().expect("it has a directory");
        let layout = &metainfo.layout;
        let files: Vec<Vec<u8>> = layout
            .files()
            .iter()
            .map(|file| std::fs::read(below.join(file.path.as_str())).expect("the payload is here"))
            .collect();
        for (piece, hash) in layout.pieces().zip(&metainfo.piece_hashes) {
            let mut sha1 = Sha1::new();
            for run in layout.runs(piece, 0, layout.piece_bytes(piece)) {
                let start = run.offset as usize;
                sha1.update(&files[run.file.0 as usize][start..start + run.length as usize]);
            }
            assert_eq!(<[u8; 20]>::from(sha1.finalize()), *hash, "{} piece {piece}", row.file);
        }
        checked += 1;
    }
    assert_eq!(checked, 4);
}

/// Broken copies of real torrents: every byte changed in turn for the small ones, and cut at every length.
#[test]
fn damaged_torrents_are_refused_or_read_never_worse() {
    for (_, bytes) in rows().into_iter().filter(|(row, _)| row.bytes < 300) {
        for at in 0..bytes.len() {
            let _ = Metainfo::parse(&bytes[..at], PathRules::Unix);
            for change in [0x01, 0x10, 0x80] {
                let mut damaged = bytes.clone();
                damaged[at] ^= change;
                let _ = Metainfo::parse(&damaged, PathRules::Windows);
            }
        }
    }
}

/// Reads it both ways. What is accepted has no more in it than its bytes can say, and took no longer than it may.
fn read_bounded(bytes: &[u8], file: &str) {
    for rules in RULES {
        let start = Instant::now();
        let result = Metainfo::parse(bytes, rules);
        assert!(start.elapsed() < Duration::from_secs(5), "{file}: {:?}", start.elapsed());
        let Ok(metainfo) = result else { continue };
        let layout = &metainfo.layout;
        assert!(layout.piece_count() <= PIECES_MAX && layout.total_bytes() <= TOTAL_BYTES_MAX, "{file}");
        assert!(metainfo.piece_hashes.len() * 20 <= bytes.len(), "{file}");
        let not_added = layout.files().iter().filter(|entry| !entry.pad).count();
        assert!(not_added * 4 <= bytes.len() && layout.files().len() <= 2 * bytes.len(), "{file}");
        for entry in layout.files() {
            let names: Vec<&str> = entry.path.components().collect();
            assert!(names.len() <= 100, "{file}: {}", entry.path);
            assert!(names.iter().all(|name| *name != ".." && name.len() <= 255), "{file}: {}", entry.path);
        }
    }
}

/// What is done to a torrent file: where in it (in thousandths), and what.
#[derive(Clone, Debug)]
enum Damage {
    Flip(u8),
    Put(u8),
    Cut(usize),
    Repeat(usize),
    Digits,
    End,
}

fn damage() -> impl Strategy<Value = (usize, Damage)> {
    let kind = prop_oneof![
        4 => (0..8u32).prop_map(|bit| Damage::Flip(1 << bit)),
        4 => prop_oneof![any::<u8>(), proptest::sample::select(b"dlei0123456789:-".as_slice())].prop_map(Damage::Put),
        2 => (1..64usize).prop_map(Damage::Cut),
        2 => (1..64usize).prop_map(Damage::Repeat),
        1 => Just(Damage::Digits),
        1 => Just(Damage::End),
    ];
    // The keys stand at the head and around the long strings; most of the damage goes where they are.
    (prop_oneof![3 => 0..400usize, 1 => 0..1_000_000usize], kind)
}

fn apply(bytes: &mut Vec<u8>, (place, damage): (usize, Damage)) {
    let Some(at) = place.checked_rem(bytes.len()) else { return };
    let end = |length: usize| (at + length).min(bytes.len());
    match damage {
        Damage::Flip(bits) => bytes[at] ^= bits,
        Damage::Put(byte) => bytes[at] = byte,
        Damage::Cut(length) => drop(bytes.drain(at..end(length))),
        Damage::Repeat(length) => {
            let again = bytes[at..end(length)].to_vec();
            bytes.splice(at..at, again);
        }
        Damage::Digits => drop(bytes.splice(at..at, *b"9999999999")),
        Damage::End => bytes.truncate(at),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Every fixture in each case, so that none is left to chance.
    #[test]
    fn any_damage_to_any_torrent_leaves_it_bounded(damages in proptest::collection::vec(damage(), 1..6)) {
        for (row, bytes) in originals() {
            let mut damaged = bytes.clone();
            for damage in &damages {
                apply(&mut damaged, damage.clone());
            }
            read_bounded(&damaged, &row.file);
        }
    }
}

/// Read once; those too large to read thousands of times are left to the others.
fn originals() -> &'static [(Row, Vec<u8>)] {
    static ROWS: std::sync::OnceLock<Vec<(Row, Vec<u8>)>> = std::sync::OnceLock::new();
    ROWS.get_or_init(|| rows().into_iter().filter(|(row, _)| row.bytes < 200_000).collect())
}

#[derive(Deserialize)]
struct Zeros {
    file: Vec<ZeroFile>,
}

#[derive(Deserialize)]
struct ZeroFile {
    length: usize,
    pieces_root: String,
}

#[test]
fn files_of_zeros_have_the_roots_that_the_vectors_say() {
    let zeros: Zeros = vector("bep52-merkle-zeros.toml");
    assert_eq!(zeros.file.len(), 11);
    for file in zeros.file {
        let leaves: Vec<_> = vec![0; file.length].chunks(16384).map(merkle::leaf).collect();
        let root = merkle::root(leaves, 0).expect("it has a byte");
        let root: String = root.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(root, file.pieces_root, "{} bytes", file.length);
    }
}

#[derive(Deserialize)]
struct Links {
    magnet: Vec<Link>,
}

#[derive(Deserialize)]
struct Link {
    uri: String,
    expect: Expect,
    info_hash_v1: Option<String>,
    info_hash_v2: Option<String>,
    name: Option<String>,
    #[serde(default)]
    trackers: Vec<String>,
    #[serde(default)]
    web_seeds: Vec<String>,
    #[serde(default)]
    peers: Vec<String>,
    #[serde(default)]
    select_only: Vec<u32>,
}

fn vector<T: for<'de> Deserialize<'de>>(name: &str) -> T {
    let text = std::fs::read_to_string(root().join("vectors").join(name)).expect("the vectors");
    toml::from_str(&text).expect("the vectors are TOML")
}

#[test]
fn every_magnet_link_gives_what_the_vectors_say() {
    let links: Links = vector("magnets.toml");
    assert!(links.magnet.len() > 25);
    for link in links.magnet {
        let uri = &link.uri;
        let found = Magnet::parse(uri);
        if link.expect == Expect::Error {
            assert!(found.is_err(), "{uri}");
            continue;
        }
        let found = found.unwrap_or_else(|error| panic!("{uri}: {error}"));
        let hashes = found.info_hashes;
        assert_eq!(hashes.v1.map(|hash| hash.to_string()), link.info_hash_v1, "{uri}");
        assert_eq!(hashes.v2.map(|hash| hash.to_string()), link.info_hash_v2, "{uri}");
        assert_eq!(found.name, link.name, "{uri}");
        assert_eq!(found.trackers, link.trackers, "{uri}");
        assert_eq!(found.web_seeds, link.web_seeds, "{uri}");
        let peers: Vec<String> = found.peers.iter().map(ToString::to_string).collect();
        assert_eq!(peers, link.peers, "{uri}");
        assert_eq!(found.select_only, link.select_only, "{uri}");
    }
}
