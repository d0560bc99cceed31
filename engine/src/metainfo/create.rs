//! Making torrent files (BEP 3): a plan of pieces over files, then the text once every piece is hashed.
//!
//! Nothing is read here. Whoever holds the files hashes the pieces of [`CreatePlan::layout`], on as many cores as there
//! are, and hands the hashes to [`CreatePlan::encode`]. The same files and options give the same bytes.

use super::layout::{Layout, LayoutError, ListedFile};
use super::paths::{self, PathRules, StoragePath};
use super::torrent_file::{tracker_url, web_seed_url};
use crate::bencode::{self, Value};
use crate::limits::PIECES_MAX;

/// What to put into a torrent file beside its files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CreateOptions {
    /// Bytes; chosen by size when none.
    pub piece_length: Option<u32>,
    /// Announce URLs by tier (BEP 12).
    pub tracker_tiers: Vec<Vec<String>>,
    /// BEP 19.
    pub web_seeds: Vec<String>,
    /// Free text.
    pub comment: Option<String>,
    /// No DHT, PEX or LSD (BEP 27).
    pub private: bool,
    /// Goes into the info dictionary, so that the same files have another info-hash.
    pub source: Option<String>,
    /// The program that makes it.
    pub created_by: Option<String>,
    /// Seconds since 1970.
    pub creation_date: Option<i64>,
}

/// A file that goes into a torrent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceFile {
    /// Below the torrent's directory, one name a component.
    pub path: Vec<String>,
    /// Bytes.
    pub length: u64,
}

/// What a torrent is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// One file, which has the torrent's name.
    File {
        /// Bytes.
        length: u64,
    },
    /// A directory, which has the torrent's name; files in any order.
    Directory(Vec<SourceFile>),
}

/// A torrent file that lacks its piece hashes only.
#[derive(Clone, Debug)]
pub struct CreatePlan {
    name: String,
    layout: Layout,
    /// None: a single file.
    files: Option<Vec<SourceFile>>,
    options: CreateOptions,
}

/// Why there is no torrent of these files.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// A directory without files.
    #[error("there are no files in it")]
    NoFiles,
    /// Nobody could store it under this name.
    #[error("{0:?} is no name that other systems can store: rename it")]
    Name(String),
    /// On other systems the two would be one file.
    #[error(
        "{0:?} has the same path as another file but for upper and lower case or how accents are written: rename it"
    )]
    Clash(String),
    /// No URL of a tracker.
    #[error("{0:?} is no tracker URL: it should begin with http://, https:// or udp://")]
    Tracker(String),
    /// No URL of a web seed.
    #[error("{0:?} is no web seed URL: it should begin with http:// or https://")]
    WebSeed(String),
    /// A piece length that no torrent has, or too many pieces, or too many bytes.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

impl CreatePlan {
    /// Puts files in order of their paths and cuts them into pieces.
    ///
    /// # Errors
    /// When the result would be a torrent that we would not read back with the same paths.
    pub fn new(name: &str, content: Content, options: CreateOptions) -> Result<Self, CreateError> {
        for url in options.tracker_tiers.iter().flatten() {
            tracker_url(url).ok_or_else(|| CreateError::Tracker(url.clone()))?;
        }
        for url in &options.web_seeds {
            web_seed_url(url).ok_or_else(|| CreateError::WebSeed(url.clone()))?;
        }
        let (listed, files) = match content {
            Content::File { length } => (vec![ListedFile::plain(storable(&[name])?, length)], None),
            Content::Directory(mut files) => {
                files.sort();
                let listed = files.iter().map(|file| {
                    let components: Vec<&str> =
                        std::iter::once(name).chain(file.path.iter().map(String::as_str)).collect();
                    Ok(ListedFile::plain(storable(&components)?, file.length))
                });
                (listed.collect::<Result<_, CreateError>>()?, Some(files))
            }
        };
        if listed.is_empty() {
            return Err(CreateError::NoFiles);
        }
        let mut unique: Vec<StoragePath> = listed.iter().map(|file| file.path.clone()).collect();
        paths::make_unique(&mut unique, |_| false);
        if let Some((file, _)) = listed.iter().zip(&unique).find(|(file, unique)| file.path != **unique) {
            return Err(CreateError::Clash(file.path.to_string()));
        }
        let total = listed.iter().map(|file| file.length).fold(0, u64::saturating_add);
        let piece_length = options.piece_length.unwrap_or_else(|| automatic_piece_length(total));
        let layout = Layout::new(piece_length, listed)?;
        Ok(Self { name: name.to_owned(), layout, files, options })
    }

    /// Pieces and files, files in the torrent's order. Paths begin with the torrent's name.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Writes the torrent file. `piece_hashes` are the SHA-1 of the layout's pieces, in order.
    ///
    /// # Panics
    /// When there is not one hash a piece.
    pub fn encode(&self, piece_hashes: &[[u8; 20]]) -> Vec<u8> {
        assert_eq!(piece_hashes.len(), self.layout.piece_count() as usize, "one hash a piece");
        let options = &self.options;
        let mut info = vec![
            (b"name".as_slice(), Value::text(&self.name)),
            (b"piece length", Value::Int(i64::from(self.layout.piece_length()))),
            (b"pieces", Value::bytes(piece_hashes.as_flattened())),
        ];
        match &self.files {
            None => info.push((b"length", length(self.layout.total_bytes()))),
            Some(files) => info.push((b"files", Value::List(files.iter().map(entry).collect()))),
        }
        if options.private {
            info.push((b"private", Value::Int(1)));
        }
        if let Some(source) = &options.source {
            info.push((b"source", Value::text(source)));
        }
        let mut root = vec![(b"info".as_slice(), Value::dict(info))];
        let mut trackers = options.tracker_tiers.iter().flatten();
        if let Some(first) = trackers.next() {
            root.push((b"announce", Value::text(first)));
            if trackers.next().is_some() {
                let tiers = options.tracker_tiers.iter().map(|tier| texts(tier)).collect();
                root.push((b"announce-list", Value::List(tiers)));
            }
        }
        if !options.web_seeds.is_empty() {
            root.push((b"url-list", texts(&options.web_seeds)));
        }
        root.extend(options.comment.as_deref().map(|text| (b"comment".as_slice(), Value::text(text))));
        root.extend(options.created_by.as_deref().map(|text| (b"created by".as_slice(), Value::text(text))));
        root.extend(options.creation_date.map(|seconds| (b"creation date".as_slice(), Value::Int(seconds))));
        bencode::encode(&Value::dict(root))
    }
}

/// The smallest power of two from 16 KiB to 16 MiB that makes at most 2,000 pieces; larger only where there would be more
/// pieces than a torrent can have.
pub fn automatic_piece_length(total_bytes: u64) -> u32 {
    let fits = |length: u32, pieces: u64| total_bytes.div_ceil(u64::from(length)) <= pieces;
    let mut length = 16 << 10;
    while length < 16 << 20 && !fits(length, 2_000)
        || length < 1 << 29 && !fits(length, u64::from(PIECES_MAX))
    {
        length *= 2;
    }
    length
}

/// The path, if reading the torrent gives the same one.
fn storable(components: &[&str]) -> Result<StoragePath, CreateError> {
    let joined = components.join("/");
    paths::storage_path(components.iter().map(|name| name.as_bytes()), PathRules::Unix)
        .ok()
        .filter(|path| path.as_str() == joined && components.iter().all(|name| !name.is_empty()))
        .ok_or(CreateError::Name(joined))
}

fn length(bytes: u64) -> Value<'static> {
    Value::Int(i64::try_from(bytes).expect("the layout caps the total"))
}

fn texts(items: &[String]) -> Value<'_> {
    Value::List(items.iter().map(|item| Value::text(item)).collect())
}

fn entry(file: &SourceFile) -> Value<'_> {
    Value::dict([(b"length".as_slice(), length(file.length)), (b"path", texts(&file.path))])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Metainfo;
    use super::*;

    fn source(path: &str, length: u64) -> SourceFile {
        SourceFile { path: path.split('/').map(str::to_owned).collect(), length }
    }

    fn refused(files: &[&str]) -> CreateError {
        let files = files.iter().map(|path| source(path, 1)).collect();
        CreatePlan::new("t", Content::Directory(files), CreateOptions::default()).unwrap_err()
    }

    #[test]
    fn piece_length_aims_at_one_to_two_thousand_pieces() {
        let kib = |total: u64| automatic_piece_length(total) >> 10;
        assert_eq!([0, 1, 2_000 << 14, (2_000 << 14) + 1].map(kib), [16, 16, 16, 32]);
        assert_eq!([700 << 20, 5 << 30, 40 << 30].map(kib), [512, 4096, 16384]);
        assert_eq!([1 << 44, 1 << 45, (1 << 45) + 1, 1 << 48].map(kib), [16384, 16384, 32768, 131_072]);
    }

    #[test]
    fn what_would_be_read_back_otherwise_is_refused() {
        assert_eq!(refused(&[]), CreateError::NoFiles);
        assert_eq!(refused(&["a", "A"]), CreateError::Clash("t/a".to_owned()));
        assert_eq!(refused(&["a\\b"]), CreateError::Name("t/a\\b".to_owned()));
        assert_eq!(refused(&["a/../b"]), CreateError::Name("t/a/../b".to_owned()));
        let taipei = CreatePlan::new(".taipei", Content::File { length: 1 }, CreateOptions::default());
        assert_eq!(taipei.unwrap_err(), CreateError::Name(".taipei".to_owned()));
        let odd = |urls: &[&str]| CreateOptions {
            tracker_tiers: vec![urls.iter().map(|url| (*url).to_owned()).collect()],
            ..CreateOptions::default()
        };
        let plan = CreatePlan::new("t", Content::File { length: 1 }, odd(&["http://a/", "b"]));
        assert_eq!(plan.unwrap_err(), CreateError::Tracker("b".to_owned()));
    }

    /// What another program got wrong (`features.md` 1.4, 24).
    #[test]
    fn a_directory_has_a_name_and_paths_below_it() {
        let files = vec![source("t/a", 3), source("b", 0), source("sub/c", 4)];
        let options = CreateOptions { creation_date: Some(1_700_000_000), ..CreateOptions::default() };
        let plan = CreatePlan::new("t", Content::Directory(files), options).unwrap();
        let text = plan.encode(&[[b'h'; 20]]);
        let root = bencode::parse(&text).unwrap();
        let info = root.get(b"info").unwrap();
        assert_eq!(info.get(b"name").and_then(Value::as_str), Some("t"));
        let entry = |path: &[&'static str], length| {
            let path = Value::List(path.iter().map(|name| Value::text(name)).collect());
            Value::dict([(b"length".as_slice(), Value::Int(length)), (b"path", path)])
        };
        // The `t` in the first but one is a directory of that name in it.
        let expected = Value::List(vec![entry(&["b"], 0), entry(&["sub", "c"], 4), entry(&["t", "a"], 3)]);
        assert_eq!(info.get(b"files"), Some(&expected), "no md5sum, nor anything else");
        assert_eq!(root.get(b"creation date"), Some(&Value::Int(1_700_000_000)));
        let keys: Vec<_> =
            info.as_dict().unwrap().iter().map(|(key, _)| key.escape_ascii().to_string()).collect();
        assert_eq!(keys, ["files", "name", "piece length", "pieces"]);
    }

    #[test]
    fn a_torrent_without_a_byte_is_made_and_read_back() {
        let empty = vec![source("a", 0), source("d/b", 0)];
        for content in [Content::File { length: 0 }, Content::Directory(empty)] {
            let plan = CreatePlan::new("n", content, CreateOptions::default()).unwrap();
            let metainfo = Metainfo::parse(&plan.encode(&[]), PathRules::Unix).unwrap();
            assert_eq!((&metainfo.layout, metainfo.layout.piece_count()), (plan.layout(), 0));
        }
    }

    #[test]
    fn names_that_differ_in_composition_only_are_refused() {
        assert_eq!(refused(&["e\u{301}", "\u{e9}"]), CreateError::Clash("t/\u{e9}".to_owned()));
    }

    #[test]
    fn optional_keys_are_left_out_unless_given() {
        let plan = CreatePlan::new("n", Content::File { length: 3 }, CreateOptions::default()).unwrap();
        let text = plan.encode(&[[b'h'; 20]]);
        let expected = "d4:infod6:lengthi3e4:name1:n12:piece lengthi16384e6:pieces20:hhhhhhhhhhhhhhhhhhhhee";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn what_is_created_is_read_back(
            name in "[a-z]{1,8}",
            files in proptest::collection::btree_map("[a-m]{1,3}/[n-z]{1,3}", 0..100_000u64, 0..20),
            piece_length in proptest::option::of(100..100_000u32),
            tiers in proptest::collection::vec(proptest::collection::vec("(http|udp|https)://[a-z]{1,5}/", 1..3), 0..3),
            comment in proptest::option::of("[ -~ä]{1,9}"),
            source_mark in proptest::option::of("[A-Z]{3}"),
            creation_date in proptest::option::of(any::<i64>()),
            private: bool,
        ) {
            let options = CreateOptions {
                piece_length,
                tracker_tiers: tiers,
                web_seeds: vec!["http://w/".to_owned()],
                comment,
                private,
                source: source_mark,
                created_by: Some("taipei".to_owned()),
                creation_date,
            };
            let content = match files.len() {
                0 => Content::File { length: 77 },
                _ => Content::Directory(files.iter().rev().map(|(path, length)| source(path, *length)).collect()),
            };
            let plan = CreatePlan::new(&name, content, options.clone()).unwrap();
            let hashes: Vec<[u8; 20]> = plan.layout().pieces().map(|piece| [piece.get() as u8; 20]).collect();
            let metainfo = Metainfo::parse(&plan.encode(&hashes), PathRules::Unix).unwrap();
            prop_assert_eq!(&metainfo.layout, plan.layout());
            let listed: Vec<_> = metainfo.layout.files().iter().map(|file| file.path.as_str().to_owned()).collect();
            if !files.is_empty() {
                let sorted: Vec<_> = files.keys().map(|path| format!("{name}/{path}")).collect();
                prop_assert_eq!(listed, sorted);
            }
            let read = CreateOptions {
                piece_length,
                tracker_tiers: metainfo.tracker_tiers,
                web_seeds: metainfo.web_seeds,
                comment: metainfo.comment,
                private: metainfo.private,
                source: metainfo.source,
                created_by: metainfo.created_by,
                creation_date: metainfo.creation_date,
            };
            prop_assert_eq!((metainfo.name, metainfo.piece_hashes, read), (name, hashes, options));
        }
    }
}
