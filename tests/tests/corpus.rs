//! What fuzzing found goes through its target again: inputs that reached something new, and those that once broke something.
//! `tests/fuzz/README.md` says where they come from.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[allow(unused_attributes)]
#[path = "../fuzz/fuzz_targets"]
mod targets {
    pub(crate) mod bencode;
    pub(crate) mod compact;
    pub(crate) mod dht;
    pub(crate) mod extended;
    pub(crate) mod gzip;
    pub(crate) mod journal;
    pub(crate) mod krpc;
    pub(crate) mod lsd;
    pub(crate) mod magnet;
    pub(crate) mod metainfo;
    pub(crate) mod paths;
    pub(crate) mod peer;
    pub(crate) mod recording;
    pub(crate) mod snapshot;
    pub(crate) mod stream;
    pub(crate) mod tracker_http;
    pub(crate) mod tracker_udp;
    pub(crate) mod ut_metadata;
    pub(crate) mod ut_pex;
}

// Here each target is a plain function: nothing of libFuzzer is built. The macro comes after them: they find it by its path.
extern crate self as libfuzzer_sys;

/// A target, as a function.
#[macro_export]
macro_rules! fuzz_target {
    (|$data:ident: &[u8]| $body:block) => {
        pub(crate) fn run($data: &[u8]) $body
    };
}

type Target = fn(&[u8]);

const TARGETS: &[(&str, Target)] = &[
    ("bencode", targets::bencode::run),
    ("compact", targets::compact::run),
    ("dht", targets::dht::run),
    ("extended", targets::extended::run),
    ("gzip", targets::gzip::run),
    ("journal", targets::journal::run),
    ("krpc", targets::krpc::run),
    ("lsd", targets::lsd::run),
    ("magnet", targets::magnet::run),
    ("metainfo", targets::metainfo::run),
    ("paths", targets::paths::run),
    ("peer", targets::peer::run),
    ("recording", targets::recording::run),
    ("snapshot", targets::snapshot::run),
    ("stream", targets::stream::run),
    ("tracker_http", targets::tracker_http::run),
    ("tracker_udp", targets::tracker_udp::run),
    ("ut_metadata", targets::ut_metadata::run),
    ("ut_pex", targets::ut_pex::run),
];

const CORPUS_BYTES_MAX: u64 = 2 << 20;

#[test]
fn every_input_of_the_corpus_passes_its_target() {
    for (name, target) in TARGETS {
        let inputs = files_in(&fuzz().join("seeds").join(name));
        assert!(!inputs.is_empty(), "{name} has no input");
        for input in inputs {
            // Shown when the target panics.
            println!("{}", input.display());
            target(&fs::read(&input).expect("a readable input"));
        }
    }
}

#[test]
fn every_target_is_replayed_and_the_corpus_is_small() {
    let named: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let stem = |path: &PathBuf| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let targets: BTreeSet<String> = files_in(&fuzz().join("fuzz_targets")).iter().map(stem).collect();
    let corpora: Vec<PathBuf> = files_in(&fuzz().join("seeds"));
    assert_eq!(named, targets);
    assert_eq!(named, corpora.iter().map(stem).collect());
    let inputs = corpora.iter().flat_map(|corpus| files_in(corpus));
    let bytes: u64 = inputs.map(|input| input.metadata().expect("a readable input").len()).sum();
    assert!(bytes <= CORPUS_BYTES_MAX, "{bytes} bytes of inputs");
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    files.sort();
    files
}
