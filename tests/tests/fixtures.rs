//! Torrent files of other projects give what their manifest says.
//!
//! `fixtures/torrents/manifest.toml` explains its fields at its head. A wrong expectation is reported, never changed here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;
use taipei_engine::metainfo::{FileEntry, Magnet, Metainfo, PathRules};

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
