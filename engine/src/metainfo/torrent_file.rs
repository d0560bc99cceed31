//! Reading a torrent file: which keys count, what is refused, what is passed over.

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::layout::{Layout, LayoutError, ListedFile};
use super::paths::{self, PathRules, is_hidden};
use super::{Metainfo, MetainfoError, v2};
use crate::bencode::{self, Dict, Value};
use crate::ids::{InfoHash, InfoHashV2, InfoHashes};
use crate::limits::{
    BLOCK_BYTES, DHT_NODES_MAX, PIECE_LENGTH_MAX, TORRENT_FILE_BYTES_MAX, TRACKERS_MAX, WEB_SEEDS_MAX,
};

pub(super) fn parse(torrent_file: &[u8], rules: PathRules) -> Result<Metainfo, MetainfoError> {
    if torrent_file.len() > TORRENT_FILE_BYTES_MAX {
        return Err(MetainfoError::TooLarge(torrent_file.len()));
    }
    let root = bencode::parse(torrent_file)?;
    let root = root.as_dict().ok_or(MetainfoError::NotADict)?;
    let info = dict(root, b"info").ok_or(MetainfoError::NoInfo)?;
    let raw_info = bencode::raw_entry(torrent_file, b"info")?.ok_or(MetainfoError::NoInfo)?;

    let version = info.get(b"meta version").and_then(Value::as_int);
    let has_v1 = info.get(b"pieces").is_some();
    let has_v2 = match version {
        Some(2) => true,
        Some(other) if other != 1 && !has_v1 => return Err(MetainfoError::UnknownVersion(other)),
        _ => false,
    };
    let info_hashes = InfoHashes {
        v1: (has_v1 || !has_v2).then(|| InfoHash(Sha1::digest(raw_info).into())),
        v2: has_v2.then(|| InfoHashV2(Sha256::digest(raw_info).into())),
    };
    let piece_length = piece_length(info, has_v2)?;
    let (raw_name, name) = name(info, &info_hashes, rules)?;
    let tree = if has_v2 {
        let tree = dict(info, b"file tree").ok_or(MetainfoError::FileTree)?;
        v2::files(tree, (raw_name, &name), piece_length, rules)?
    } else {
        Vec::new()
    };
    let is_multi = match info_hashes.v1 {
        Some(_) => info.get(b"files").is_some_and(|files| files.as_list().is_some()),
        None => tree.first().is_some_and(|file| file.path.components().count() > 1),
    };
    let files = match (info_hashes.v1, is_multi) {
        (None, _) => v2::listed(&tree, piece_length, &name, rules)?,
        (Some(_), true) => files(info, (raw_name, &name), rules)?,
        (Some(_), false) => vec![single_file(info, (raw_name, &name), rules)?],
    };
    let layout = Layout::new(piece_length, files).map_err(|error| match error {
        LayoutError::PieceLength(_) => MetainfoError::PieceLength,
        LayoutError::TotalBytes => MetainfoError::TotalLength,
        LayoutError::TooManyPieces(pieces) => MetainfoError::TooManyPieces(pieces),
        LayoutError::TooManyFiles(files) => MetainfoError::TooManyFiles(files),
    })?;
    let piece_hashes = if info_hashes.v1.is_some() { piece_hashes(info, &layout)? } else { Vec::new() };
    if has_v2 {
        if has_v1 {
            v2::check_same(layout.files(), &tree, piece_length)?;
        }
        v2::check_layers(root.get(b"piece layers"), &tree, piece_length)?;
    }

    let original_name = String::from_utf8_lossy(raw_name);
    Ok(Metainfo {
        original_name: (original_name != name).then(|| original_name.into()),
        name,
        info_hashes,
        layout,
        piece_hashes,
        file_roots: tree.into_iter().filter_map(|file| Some((file.path, file.root?))).collect(),
        private: info.get(b"private").and_then(Value::as_int).is_some_and(|private| private != 0),
        tracker_tiers: tracker_tiers(root),
        web_seeds: web_seeds(root, is_multi),
        dht_nodes: dht_nodes(root),
        comment: text(root, b"comment.utf-8").or_else(|| text(root, b"comment")),
        created_by: text(root, b"created by.utf-8").or_else(|| text(root, b"created by")),
        creation_date: root.get(b"creation date").and_then(Value::as_int),
        source: text(info, b"source"),
        info_bytes: u32::try_from(raw_info.len()).map_err(|_| MetainfoError::TooLarge(raw_info.len()))?,
    })
}

fn dict<'d, 'a>(of: &'d Dict<'a>, key: &[u8]) -> Option<&'d Dict<'a>> {
    of.get(key).and_then(Value::as_dict)
}

/// An optional text for people; what is no UTF-8 in it is replaced.
fn text(of: &Dict<'_>, key: &[u8]) -> Option<String> {
    let bytes = of.get(key)?.as_bytes()?;
    Some(String::from_utf8_lossy(bytes).into_owned()).filter(|text| !text.is_empty())
}

fn piece_length(info: &Dict<'_>, v2: bool) -> Result<u32, MetainfoError> {
    info.get(b"piece length")
        .and_then(Value::as_int)
        .and_then(|length| u32::try_from(length).ok())
        .filter(|length| (1..=PIECE_LENGTH_MAX).contains(length))
        .filter(|length| !v2 || (length.is_power_of_two() && *length >= BLOCK_BYTES))
        .ok_or(MetainfoError::PieceLength)
}

/// The name as it came, and made safe: `name.utf-8` where that is valid, otherwise `name`. A name that says nothing
/// (`..`) gives way to the info-hash, so that two such torrents do not meet in one directory.
fn name<'d>(
    info: &'d Dict<'_>,
    hashes: &InfoHashes,
    rules: PathRules,
) -> Result<(&'d [u8], String), MetainfoError> {
    let utf8 = info.get(b"name.utf-8").and_then(Value::as_str).map(str::as_bytes);
    let name = utf8
        .filter(|name| !paths::is_void(name))
        .or_else(|| info.get(b"name").and_then(Value::as_bytes))
        .ok_or(MetainfoError::Name)?;
    let fallback = match (hashes.v1, hashes.v2) {
        (Some(v1), _) => v1.to_string(),
        (None, v2) => v2.map(|v2| v2.to_string()).unwrap_or_default(),
    };
    let raw = name;
    let name = if paths::is_void(name) { fallback.as_bytes() } else { name };
    let path = paths::storage_path([name], rules).map_err(|_| MetainfoError::Name)?;
    Ok((raw, path.as_str().to_owned()))
}

/// The torrent's name as it came, and made safe.
type Names<'d> = (&'d [u8], &'d str);

fn single_file(
    info: &Dict<'_>,
    (raw_name, name): Names<'_>,
    rules: PathRules,
) -> Result<ListedFile, MetainfoError> {
    let path = paths::storage_path([name.as_bytes()], rules).map_err(|_| MetainfoError::Name)?;
    let original = paths::original([raw_name], &path);
    Ok(ListedFile { original, ..ListedFile::plain(path, length(info, 0)?) })
}

fn length(entry: &Dict<'_>, file: usize) -> Result<u64, MetainfoError> {
    let length = entry.get(b"length").and_then(Value::as_int);
    length.and_then(|length| u64::try_from(length).ok()).ok_or(MetainfoError::Length(file))
}

fn files(info: &Dict<'_>, names: Names<'_>, rules: PathRules) -> Result<Vec<ListedFile>, MetainfoError> {
    let entries = info.get(b"files").and_then(Value::as_list).unwrap_or_default();
    if entries.is_empty() {
        return Err(MetainfoError::NoFiles);
    }
    let mut files = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let entry = entry.as_dict().ok_or(MetainfoError::FileEntry(index))?;
        files.push(file(entry, index, names, rules)?);
    }
    let pads: Vec<bool> = files.iter().map(|file| file.pad).collect();
    let mut unique: Vec<_> = files.iter().map(|file| file.path.clone()).collect();
    paths::make_unique(&mut unique, |index| pads.get(index).is_some_and(|pad| *pad));
    for (file, path) in files.iter_mut().zip(unique) {
        paths::relocate(&mut file.path, &mut file.original, path);
    }
    Ok(files)
}

fn file(
    entry: &Dict<'_>,
    index: usize,
    (raw_name, name): Names<'_>,
    rules: PathRules,
) -> Result<ListedFile, MetainfoError> {
    let components = strings(entry, b"path.utf-8")
        .filter(|utf8| !utf8.is_empty() && utf8.iter().all(|name| std::str::from_utf8(name).is_ok()))
        .or_else(|| strings(entry, b"path"))
        .ok_or(MetainfoError::Path(index))?;
    let below = |components: &[&[u8]]| {
        if components.is_empty() {
            return Err(MetainfoError::Path(index));
        }
        paths::storage_path(std::iter::once(name.as_bytes()).chain(components.iter().copied()), rules)
            .map_err(|error| MetainfoError::UnstorablePath { file: index, error })
    };
    let path = below(&components)?;
    let original = paths::original(std::iter::once(raw_name).chain(components.iter().copied()), &path);
    // Of the other attributes none changes what is done: a file that somebody else calls executable is not made so.
    let attributes = entry.get(b"attr").and_then(Value::as_bytes).unwrap_or_default();
    // BEP 47, and what BitComet did before it.
    let old_pad = components.last().is_some_and(|last| last.starts_with(b"_____padding_file_"));
    let pad = attributes.contains(&b'p') || old_pad;
    if attributes.contains(&b'l') && !pad {
        let target = strings(entry, b"symlink path").ok_or(MetainfoError::FileEntry(index))?;
        return Ok(ListedFile { symlink: Some(below(&target)?), original, ..ListedFile::plain(path, 0) });
    }
    Ok(ListedFile { pad, original, ..ListedFile::plain(path, length(entry, index)?) })
}

/// A list that consists of strings.
fn strings<'d>(of: &'d Dict<'_>, key: &[u8]) -> Option<Vec<&'d [u8]>> {
    of.get(key)?.as_list()?.iter().map(Value::as_bytes).collect()
}

fn piece_hashes(info: &Dict<'_>, layout: &Layout) -> Result<Vec<[u8; 20]>, MetainfoError> {
    let pieces = info.get(b"pieces").and_then(Value::as_bytes).ok_or(MetainfoError::Pieces)?;
    let (hashes, rest) = pieces.as_chunks::<20>();
    if !rest.is_empty() || u32::try_from(hashes.len()) != Ok(layout.piece_count()) {
        return Err(MetainfoError::PieceCount { got: pieces.len(), pieces: layout.piece_count() });
    }
    Ok(hashes.to_vec())
}

/// `announce-list` where it names a tracker, otherwise `announce` (BEP 12).
fn tracker_tiers(root: &Dict<'_>) -> Vec<Vec<String>> {
    let tiers = root.get(b"announce-list").and_then(Value::as_list).unwrap_or_default();
    let mut left = TRACKERS_MAX;
    let mut listed = Vec::new();
    for tier in tiers {
        // Some write the URLs of a tier without a list around them.
        let urls = tier.as_list().unwrap_or(std::slice::from_ref(tier));
        let tier: Vec<String> = urls.iter().filter_map(tracker).take(left).collect();
        left -= tier.len();
        if !tier.is_empty() {
            listed.push(tier);
        }
        if left == 0 {
            break;
        }
    }
    if listed.is_empty() {
        listed.extend(root.get(b"announce").and_then(tracker).map(|url| vec![url]));
    }
    listed
}

fn tracker(value: &Value<'_>) -> Option<String> {
    tracker_url(value.as_str()?).filter(|url| has_plain_host(url)).map(str::to_owned)
}

/// The URL trimmed, if it could be a tracker's.
pub(super) fn tracker_url(url: &str) -> Option<&str> {
    trim_url(url, &["http", "https", "udp"])
}

/// The URL trimmed, if it could be a web seed's.
pub(super) fn web_seed_url(url: &str) -> Option<&str> {
    trim_url(url, &["http", "https"])
}

/// A trimmed URL with one of these schemes. Others are not for us: `file:`, `javascript:` (`reliability.md` A13).
fn trim_url<'u>(url: &'u str, schemes: &[&str]) -> Option<&'u str> {
    let url = url.trim();
    let (scheme, rest) = url.split_once("://")?;
    (!rest.is_empty() && schemes.iter().any(|known| scheme.eq_ignore_ascii_case(known))).then_some(url)
}

/// Whether the host is written in ASCII and none of its labels stands for other letters (`xn--`): one that another wrote
/// may look like a host that it is not (`reliability.md` A13).
pub(super) fn has_plain_host(url: &str) -> bool {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let authority = rest.split(['/', '\\', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    let stands_for_others =
        |label: &str| label.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("xn--"));
    !host.is_empty()
        && authority.chars().all(|c| !is_hidden(c))
        && host.chars().all(is_plain)
        && !host.split('.').any(stands_for_others)
}

/// BEP 19: a string or a list of strings. The URL of a torrent with several files names a directory.
fn web_seeds(root: &Dict<'_>, is_multi: bool) -> Vec<String> {
    let Some(list) = root.get(b"url-list") else { return Vec::new() };
    let urls = list.as_list().unwrap_or(std::slice::from_ref(list));
    let seeds =
        urls.iter().filter_map(|value| web_seed_url(value.as_str()?)).filter(|url| has_plain_host(url));
    let named =
        seeds.map(|seed| if is_multi && !seed.ends_with('/') { format!("{seed}/") } else { seed.to_owned() });
    named.take(WEB_SEEDS_MAX).collect()
}

/// BEP 5: a list of `[host, port]`.
fn dht_nodes(root: &Dict<'_>) -> Vec<(String, u16)> {
    let nodes = root.get(b"nodes").and_then(Value::as_list).unwrap_or_default();
    let node = |node: &Value<'_>| -> Option<(String, u16)> {
        let [host, port] = node.as_list()? else { return None };
        let port = u16::try_from(port.as_int()?).ok().filter(|port| *port != 0)?;
        Some((host.as_str()?.trim().to_owned(), port)).filter(|(host, _)| !host.is_empty())
    };
    nodes.iter().filter_map(node).take(DHT_NODES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::StoragePath;
    use super::*;

    /// A small torrent: `info` and `root` are entries put in, or over those of the same key.
    fn torrent(info: &[(&'static str, Value<'static>)], root: &[(&'static str, Value<'static>)]) -> Vec<u8> {
        let entries = |given: &[(&'static str, Value<'static>)], base: &[(&'static str, Value<'static>)]| {
            Value::dict(given.iter().chain(base).map(|(key, value)| (key.as_bytes(), value.clone())))
        };
        let base = [
            ("length", Value::Int(40_000)),
            ("name", Value::text("n")),
            ("piece length", Value::Int(16384)),
            ("pieces", Value::bytes(vec![7; 60])),
        ];
        bencode::encode(&entries(&[root, &[("info", entries(info, &base))]].concat(), &[]))
    }

    fn read(info: &[(&'static str, Value<'static>)], root: &[(&'static str, Value<'static>)]) -> Metainfo {
        Metainfo::parse(&torrent(info, root), PathRules::Unix).unwrap()
    }

    fn refused(info: &[(&'static str, Value<'static>)]) -> &'static str {
        Metainfo::parse(&torrent(info, &[]), PathRules::Unix).unwrap_err().class()
    }

    fn list(items: &[&'static str]) -> Value<'static> {
        Value::List(items.iter().map(|item| Value::text(item)).collect())
    }

    fn entry(path: &[&'static str], more: &[(&'static str, Value<'static>)]) -> Value<'static> {
        let more = more.iter().map(|(key, value)| (key.as_bytes(), value.clone()));
        Value::dict(more.chain([(b"path".as_slice(), list(path)), (b"length", Value::Int(10_000))]))
    }

    fn paths_of(metainfo: &Metainfo) -> Vec<&str> {
        metainfo.layout.files().iter().map(|file| file.path.as_str()).collect()
    }

    #[test]
    fn required_fields_are_refused_by_name() {
        let cases = [
            ("piece length", Value::Int(0), "bad-piece-length"),
            ("piece length", Value::Int(-1), "bad-piece-length"),
            ("piece length", Value::Int(i64::from(PIECE_LENGTH_MAX) + 1), "bad-piece-length"),
            ("piece length", Value::text("16384"), "bad-piece-length"),
            ("piece length", Value::Int(1 << 15), "piece-count-mismatch"),
            ("name", Value::Int(1), "bad-name"),
            ("length", Value::Int(-1), "bad-length"),
            ("length", Value::Int(i64::MAX), "bad-length"),
            ("length", Value::Int(1 << 47), "too-many-pieces"),
            ("length", list(&[]), "bad-length"),
            ("pieces", Value::bytes(vec![7; 59]), "piece-count-mismatch"),
            ("pieces", Value::Int(3), "bad-pieces"),
            ("files", list(&[]), "no-files"),
            ("files", list(&["x"]), "bad-file-entry"),
            ("files", Value::List(vec![entry(&[], &[])]), "bad-path"),
            ("files", Value::List(vec![entry(&["a"], &[("attr", Value::text("l"))])]), "bad-file-entry"),
            ("files", Value::List(vec![entry(&["a"], &[("length", Value::Int(-1))])]), "bad-length"),
        ];
        for (key, value, class) in cases {
            assert_eq!(refused(&[(key, value.clone())]), class, "{key} {value:?}");
        }
    }

    #[test]
    fn what_is_no_torrent_is_said_so() {
        let class = |bytes: &[u8]| Metainfo::parse(bytes, PathRules::Unix).unwrap_err().class();
        assert_eq!(class(b""), "bad-bencode");
        assert_eq!(class(b"<html>"), "bad-bencode");
        assert_eq!(class(b"4:spam"), "not-a-dict");
        assert_eq!(class(b"d4:info4:spame"), "no-info");
        assert_eq!(class(b"de"), "no-info");
        assert_eq!(class(&[b'l'; 200]), "too-deep");
        assert_eq!(class(&vec![b'l'; TORRENT_FILE_BYTES_MAX + 1]), "too-large");
    }

    #[test]
    fn malformed_optional_keys_do_not_stop_the_load() {
        let junk = [
            Value::Int(-7),
            Value::text("\u{7f}"),
            list(&["x", "y"]),
            Value::dict([(b"k".as_slice(), Value::Int(1))]),
        ];
        let keys = [
            "announce",
            "announce-list",
            "url-list",
            "nodes",
            "comment",
            "created by",
            "creation date",
            "httpseeds",
            "encoding",
            "comment.utf-8",
        ];
        for value in junk {
            let root: Vec<_> = keys.iter().map(|key| (*key, value.clone())).collect();
            let info = ["source", "private", "name.utf-8", "md5sum", "attr"].map(|key| (key, value.clone()));
            assert_eq!(read(&info, &root).layout.total_bytes(), 40_000);
        }
    }

    #[test]
    fn trackers_come_in_tiers_trimmed_and_with_known_schemes() {
        let tiers = Value::List(vec![
            list(&[" http://a/x\n", "udp://b:1", "javascript://c"]),
            list(&["file:///etc/passwd"]),
            list(&["HTTPS://d/"]),
            Value::text("http://e/"),
        ]);
        let announce = ("announce", Value::text("\thttp://f/"));
        let both = read(&[], &[("announce-list", tiers), announce.clone()]);
        assert_eq!(
            both.tracker_tiers,
            [vec!["http://a/x", "udp://b:1"], vec!["HTTPS://d/"], vec!["http://e/"]]
        );
        let empty = read(&[], &[("announce-list", Value::List(vec![list(&[])])), announce]);
        assert_eq!(empty.tracker_tiers, [["http://f/"]]);
        let many = read(&[], &[("announce-list", Value::List(vec![list(&["http://t/"; 200]); 3]))]);
        assert_eq!(many.tracker_tiers.iter().map(Vec::len).sum::<usize>(), TRACKERS_MAX);
    }

    #[test]
    fn only_http_https_and_udp_are_schemes_of_trackers() {
        let odd = [
            "file:///etc/passwd",
            "javascript:alert(1)",
            "javascript://a/%0aalert(1)",
            "data:text/html,x",
            "ftp://a/",
            "ws://a/",
            "wss://a/",
            "gopher://a:70/",
            "dht://a/",
            "//a/",
            "a:80",
            "http:/a",
            "http://",
            "ht\ttp://a/",
            "",
        ];
        let tiers = Value::List(odd.iter().map(|url| list(&[*url])).collect());
        let seeds = Value::List(odd.iter().chain(&["udp://a:1"]).copied().map(Value::text).collect());
        let read = read(
            &[],
            &[("announce-list", tiers), ("url-list", seeds), ("announce", Value::text("wss://a/"))],
        );
        assert_eq!((read.tracker_tiers, read.web_seeds), (Vec::<Vec<String>>::new(), Vec::new()));
    }

    #[test]
    fn hosts_that_may_look_like_others_are_passed_over() {
        let odd = [
            "http://p\u{430}ypal.example/announce",
            "http://xn--pypal-4ve.example/announce",
            "http://a.XN--pypal-4ve/announce",
            "http://tracker.example\u{202e}/x",
            "http://%D0%B0.example/",
            "http:///xn--pypal-4ve.example/",
            "udp://\u{ff41}.example:80",
        ];
        let plain = [
            "http://u:p@a-b.example:80/announce?k=1",
            "udp://[2001:db8::1]:80",
            "http://192.0.2.1/xn--/\u{e4}",
        ];
        let tier = Value::List(odd.iter().chain(&plain).copied().map(Value::text).collect());
        let read = read(&[], &[("announce-list", Value::List(vec![tier.clone()])), ("url-list", tier)]);
        let owned = |urls: &[&str]| urls.iter().map(|url| (*url).to_owned()).collect::<Vec<_>>();
        assert_eq!(read.tracker_tiers, [owned(&plain)]);
        assert_eq!(read.web_seeds, owned(&[plain[0], plain[2]]));
    }

    #[test]
    fn utf8_names_are_preferred_where_they_are_valid() {
        let files = Value::List(vec![
            entry(&["latin"], &[("path.utf-8", list(&["ütf"]))]),
            entry(&["plain"], &[("path.utf-8", Value::List(vec![Value::bytes(vec![0xff])]))]),
            entry(&["also"], &[("path.utf-8", Value::Int(1))]),
            entry(&["last"], &[("path.utf-8", Value::List(vec![]))]),
        ]);
        let metainfo = read(&[("files", files), ("name.utf-8", Value::text("nämé"))], &[]);
        assert_eq!(paths_of(&metainfo), ["nämé/ütf", "nämé/plain", "nämé/also", "nämé/last"]);
    }

    #[test]
    fn pad_files_and_symlinks_are_told_from_files() {
        let files = Value::List(vec![
            entry(&["a"], &[]),
            entry(&[".pad", "7"], &[("attr", Value::text("p"))]),
            entry(&["_____padding_file_0_"], &[]),
            entry(&["d", "link"], &[("attr", Value::text("l")), ("symlink path", list(&["d", "..", "b"]))]),
            entry(&["d", "b"], &[("attr", Value::text("x"))]),
            entry(&[".pad", "7"], &[("attr", Value::text("p"))]),
        ]);
        let metainfo = read(&[("files", files), ("pieces", Value::bytes(vec![7; 80]))], &[]);
        let kinds: Vec<_> =
            metainfo.layout.files().iter().map(|f| (f.pad, f.symlink.is_some(), f.length)).collect();
        let (plain, pad, link) = ((false, false, 10_000), (true, false, 10_000), (false, true, 0));
        assert_eq!(kinds, [plain, pad, pad, link, plain, pad]);
        assert_eq!(paths_of(&metainfo)[5], "n/.pad/7.1");
        let target = metainfo.layout.files()[3].symlink.as_ref().map(StoragePath::as_str);
        assert_eq!(target, Some("n/d/_/b"));
    }

    /// What a disk does not take is still what the torrent calls it, for whoever shows it (`reliability.md` A2).
    #[test]
    fn original_names_are_kept_where_they_differ_from_those_on_disk() {
        let files = || {
            Value::List(vec![
                entry(&["a.txt"], &[]),
                entry(&["A.txt"], &[]),
                entry(&["..", "con", "b\u{202e}c"], &[]),
                entry(&["also plain"], &[]),
            ])
        };
        let info = [("files", files()), ("name", Value::text("n\0\u{1b}[2J"))];
        let of = |rules| Metainfo::parse(&torrent(&info, &[]), rules).unwrap();
        let unix = of(PathRules::Unix);
        assert_eq!((unix.name.as_str(), unix.original_name.as_deref()), ("n__[2J", Some("n\0\u{1b}[2J")));
        let originals = |metainfo: &Metainfo| {
            let files = metainfo.layout.files().iter();
            files.map(|file| file.original.as_deref().unwrap_or("").to_owned()).collect::<Vec<_>>()
        };
        let name = "n\0\u{1b}[2J";
        let expected =
            ["a.txt", "A.txt", "../con/b\u{202e}c", "also plain"].map(|file| format!("{name}/{file}"));
        assert_eq!(originals(&unix), expected);
        assert_eq!(originals(&of(PathRules::Windows)), expected, "the same under both rules");
        assert_eq!(of(PathRules::Windows), of(PathRules::Windows), "and on every run");
        // Nothing is kept of what is the same; what only had to give way is as it was.
        let plain = read(&[("files", files())], &[]);
        assert_eq!((plain.original_name.as_deref(), originals(&plain)[0].as_str()), (None, ""));
        assert_eq!(paths_of(&plain)[1], "n/A.1.txt");
        assert_eq!(originals(&plain)[1..], ["n/A.txt", "n/../con/b\u{202e}c", ""]);
        let void = read(&[("name", Value::text(".."))], &[]);
        assert_eq!(void.original_name.as_deref(), Some(".."));
        assert_eq!(void.layout.files()[0].original.as_deref(), Some(".."));
        let tree = tree(&[("a:b", &[]), ("A:B", &[])]);
        let v2 = v2(tree, None).unwrap();
        let shown: Vec<_> = v2.layout.files().iter().filter(|file| !file.pad).collect();
        assert_eq!(shown[0].original.as_deref(), None);
        assert_eq!((shown[1].path.as_str(), shown[1].original.as_deref()), ("n/a:b.1", Some("n/a:b")));
    }

    /// BEP 47: executable and hidden are told by others about their disks, and change nothing on ours.
    #[test]
    fn executable_and_hidden_files_are_plain_files() {
        let with = |attr: &'static str| {
            let file = entry(&["a"], &[("attr", Value::text(attr))]);
            let info = [("files", Value::List(vec![file])), ("pieces", Value::bytes(vec![7; 20]))];
            Metainfo::parse(&torrent(&info, &[]), PathRules::Unix).unwrap().layout
        };
        for attr in ["x", "h", "xh", "q", ""] {
            assert_eq!(with(attr), with(""), "{attr}");
        }
        assert!(with("hxp").files()[0].pad);
    }

    /// Links are told to whoever asks and never made: what they point at is below the torrent's directory, and a loop is
    /// two links without a byte.
    #[test]
    fn symlinks_point_inside_the_torrent_and_are_not_stored() {
        let link = |path: &[&'static str], target: &[&'static str]| {
            entry(path, &[("attr", Value::text("l")), ("symlink path", list(target))])
        };
        let files = Value::List(vec![
            link(&["a"], &["b"]),
            link(&["b"], &["a"]),
            link(&["self"], &["self"]),
            link(&["up"], &["..", "..", "etc", "passwd"]),
            link(&["root"], &["/etc/passwd"]),
            link(&["d"], &[".."]),
            entry(&["d", "x"], &[]),
            entry(&["c"], &[]),
        ]);
        for rules in [PathRules::Unix, PathRules::Windows] {
            let info = [("files", files.clone()), ("pieces", Value::bytes(vec![7; 40]))];
            let metainfo = Metainfo::parse(&torrent(&info, &[]), rules).unwrap();
            let targets: Vec<_> = metainfo
                .layout
                .files()
                .iter()
                .filter_map(|file| file.symlink.as_ref()?.as_str().into())
                .collect();
            assert_eq!(targets, ["n/b", "n/a", "n/self", "n/_/_/etc/passwd", "n/etc_passwd", "n/_"]);
            let stored: Vec<_> = metainfo
                .layout
                .files()
                .iter()
                .filter(|file| file.is_stored())
                .map(|file| file.path.as_str())
                .collect();
            assert_eq!((stored, metainfo.layout.total_bytes()), (vec!["n/d/x", "n/c"], 20_000));
            // No file is written through a link: it gives way to the directory.
            assert_eq!(paths_of(&metainfo)[5], "n/d.1");
        }
        assert_eq!(
            refused(&[(
                "files",
                Value::List(vec![entry(&["a"], &[("attr", Value::text("l")), ("symlink path", list(&[]))])])
            )]),
            "bad-path"
        );
    }

    #[test]
    fn sums_of_lengths_do_not_overflow() {
        let files = |lengths: &[i64]| {
            let file = |(index, length): (usize, &i64)| {
                entry(&[["a", "b", "c", "d"][index]], &[("length", Value::Int(*length))])
            };
            refused(&[("files", Value::List(lengths.iter().enumerate().map(file).collect()))])
        };
        assert_eq!(files(&[i64::MAX, i64::MAX]), "bad-length");
        assert_eq!(files(&[i64::MAX, i64::MAX, 2]), "bad-length", "2^64 in all");
        assert_eq!(files(&[1 << 62; 4]), "bad-length");
        assert_eq!(files(&[1 << 47, 1 << 47, 1]), "bad-length", "beyond 2^48");
        assert_eq!(files(&[1 << 47, 1 << 46]), "too-many-pieces");
        assert_eq!(files(&[0, -1]), "bad-length");
        assert_eq!(files(&[i64::MIN]), "bad-length");
    }

    /// Refused by the numbers alone, before there is anything of that size.
    #[test]
    fn millions_of_pieces_in_a_small_file_are_refused() {
        let pieces = |length: i64, piece_length: i64| {
            let info = [
                ("length", Value::Int(length)),
                ("piece length", Value::Int(piece_length)),
                ("pieces", Value::bytes(vec![7; 20])),
            ];
            let text = torrent(&info, &[]);
            assert!(text.len() < 160);
            Metainfo::parse(&text, PathRules::Unix).map(|_| ())
        };
        assert_eq!(pieces(107_000_000, 1), Err(MetainfoError::TooManyPieces(107_000_000)));
        assert_eq!(pieces(1 << 48, 1), Err(MetainfoError::TooManyPieces(1 << 48)));
        let most = i64::from(crate::limits::PIECES_MAX);
        assert_eq!(pieces(most + 1, 1), Err(MetainfoError::TooManyPieces(most as u64 + 1)));
        assert!(matches!(pieces(most, 1), Err(MetainfoError::PieceCount { .. })));
        assert_eq!(pieces(20, 1 << 29), Ok(()));
    }

    #[test]
    fn directories_have_a_depth_with_an_error() {
        let deep = |depth: usize| {
            let path = Value::List(vec![Value::text("d"); depth]);
            let file = Value::dict([(b"path".as_slice(), path), (b"length", Value::Int(40_000))]);
            Metainfo::parse(&torrent(&[("files", Value::List(vec![file]))], &[]), PathRules::Unix).map(|_| ())
        };
        assert_eq!(deep(99), Ok(()));
        let error = deep(200).unwrap_err();
        assert_eq!(error.class(), "bad-path");
        assert!(error.to_string().contains("directories deep, at most 100"), "{error}");
    }

    /// Nothing in it is dropped or trusted: whoever shows it, shows it as text.
    #[test]
    fn markup_in_texts_comes_through_as_text() {
        let markup = "<img src=x onerror=alert(1)>&amp;\"'";
        let value = || Value::text(markup);
        let tracker = Value::text("http://a/<script>");
        let metainfo = read(
            &[("name", value()), ("source", value())],
            &[("comment", value()), ("created by", value()), ("announce", tracker)],
        );
        assert_eq!(metainfo.name, markup);
        for text in [&metainfo.comment, &metainfo.created_by, &metainfo.source] {
            assert_eq!(text.as_deref(), Some(markup));
        }
        assert_eq!(metainfo.tracker_tiers, [["http://a/<script>"]]);
        let windows = Metainfo::parse(&torrent(&[("name", value())], &[]), PathRules::Windows).unwrap();
        assert!(!windows.name.contains(['<', '>', '"']), "{}", windows.name);
    }

    /// What crashed a client from afar (`features.md` 1.4, 4).
    #[test]
    fn a_torrent_without_a_byte_has_no_piece() {
        let none = ("pieces", Value::bytes(Vec::new()));
        let single = read(&[("length", Value::Int(0)), none.clone()], &[]);
        let empty = || entry(&["a"], &[("length", Value::Int(0))]);
        let several = read(&[("files", Value::List(vec![empty(), empty()])), none], &[]);
        for metainfo in [&single, &several] {
            let layout = &metainfo.layout;
            assert_eq!((layout.piece_count(), layout.total_bytes(), layout.piece(0)), (0, 0, None));
            assert_eq!((layout.pieces().count(), metainfo.piece_hashes.len()), (0, 0));
        }
        assert_eq!(paths_of(&several), ["n/a", "n/a.1"]);
        assert_eq!(refused(&[("length", Value::Int(0))]), "piece-count-mismatch");
    }

    /// (`features.md` 1.4, 27)
    #[test]
    fn other_encodings_load_and_the_creation_date_is_a_number() {
        let gbk = Value::bytes(b"\xc4\xe3\xba\xc3".to_vec());
        let root = [
            ("encoding", Value::text("GBK")),
            ("creation date", Value::Int(1_290_000_000)),
            ("comment", gbk.clone()),
        ];
        let metainfo = read(&[("name", gbk.clone())], &root);
        assert_eq!((metainfo.name.as_str(), metainfo.creation_date), ("%C4%E3%BA%C3", Some(1_290_000_000)));
        assert!(metainfo.comment.is_some_and(|comment| comment.contains('\u{fffd}')));
        assert_eq!(
            read(&[("name", gbk), ("name.utf-8", Value::text("\u{4f60}\u{597d}"))], &root).name,
            "\u{4f60}\u{597d}"
        );
        let text = read(&[], &[("creation date", Value::text("1290000000"))]);
        assert_eq!(text.creation_date, None, "malformed, and no reason to refuse");
    }

    /// A third of the names equal, a third equal but for case, a third but for how their accent is composed.
    #[test]
    fn two_hundred_thousand_names_are_read_in_a_second() {
        const COUNT: usize = 200_000;
        let names: Vec<String> = (0..COUNT)
            .map(|n| match n % 3 {
                0 => "same.txt".to_owned(),
                1 => ["Case.txt", "cASE.txt", "CASE.TXT", "case.txt"][n / 3 % 4].to_owned(),
                _ => format!("{}{}.txt", ["\u{e9}", "e\u{301}", "\u{c9}", "E\u{301}"][n / 3 % 4], n / 12),
            })
            .collect();
        let mut text = b"d4:infod5:filesl".to_vec();
        for name in &names {
            text.extend_from_slice(format!("d6:lengthi0e4:pathl3:dir{}:{name}ee", name.len()).as_bytes());
        }
        text.extend_from_slice(b"e4:name1:n12:piece lengthi16384e6:pieces0:ee");
        let results = [PathRules::Unix, PathRules::Windows].map(|rules| {
            // Others may have the machine: one of five goes has to do. A debug build gets room; what is quadratic takes minutes.
            let (most, goes) = if cfg!(debug_assertions) { (60, 1) } else { (1, 5) };
            let go = |_| {
                #[expect(clippy::disallowed_types, reason = "a test may measure")]
                let start = std::time::Instant::now();
                (Metainfo::parse(&text, rules).unwrap(), start.elapsed())
            };
            let mut goes = (0..goes).map(go);
            let in_time = goes.find(|(_, took)| took.as_secs() < most);
            in_time.expect("in time").0
        });
        assert_eq!(paths_of(&results[0]), paths_of(&results[1]), "the rules agree on names that both take");
        let mut seen: Vec<_> = paths_of(&results[0]).into_iter().map(str::to_lowercase).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), COUNT);
        let first = &paths_of(&results[0])[..6];
        assert_eq!(first[..3], ["n/dir/same.txt", "n/dir/Case.txt", "n/dir/\u{e9}0.txt"]);
        assert_eq!(first[3..], ["n/dir/same.1.txt", "n/dir/cASE.1.txt", "n/dir/e\u{301}0.1.txt"]);
    }

    #[test]
    fn a_name_that_says_nothing_gives_way_to_the_info_hash() {
        for name in ["", ".", "..", "/", "\\.."] {
            let metainfo = read(&[("name", Value::text(name))], &[]);
            assert_eq!(Some(metainfo.name), metainfo.info_hashes.v1.map(|hash| hash.to_string()));
        }
        assert_eq!(read(&[("name", Value::text(".taipei"))], &[]).name, "_.taipei");
    }

    #[test]
    fn web_seeds_of_several_files_name_a_directory() {
        let seeds = ("url-list", list(&["http://a/x", "ftp://b", " http://c/ "]));
        assert_eq!(read(&[], std::slice::from_ref(&seeds)).web_seeds, ["http://a/x", "http://c/"]);
        let files = Value::List(vec![entry(&["a"], &[]); 4]);
        assert_eq!(read(&[("files", files)], &[seeds]).web_seeds, ["http://a/x/", "http://c/"]);
        assert_eq!(read(&[], &[("url-list", Value::text("http://a"))]).web_seeds, ["http://a"]);
        assert!(read(&[], &[("url-list", Value::text(""))]).web_seeds.is_empty());
    }

    #[test]
    fn nodes_with_a_host_and_a_port_are_kept() {
        let node = |host: &'static str, port| Value::List(vec![Value::text(host), Value::Int(port)]);
        let nodes =
            vec![node("h", 6881), node("h", 0), node("", 1), node("h", 70_000), list(&["h"]), node("::1", 2)];
        let found = read(&[], &[("nodes", Value::List(nodes))]).dht_nodes;
        assert_eq!(found, [("h".to_owned(), 6881), ("::1".to_owned(), 2)]);
    }

    #[test]
    fn the_info_hash_is_over_the_bytes_as_they_came() {
        let sorted = torrent(&[], &[]);
        let unsorted = b"d4:infod6:pieces60:".to_vec();
        let unsorted =
            [&unsorted[..], &[7; 60], b"4:name1:n12:piece lengthi16384e6:lengthi40000eee\n"].concat();
        let raw = &unsorted[7..unsorted.len() - 2];
        let a = Metainfo::parse(&sorted, PathRules::Unix).unwrap();
        let b = Metainfo::parse(&unsorted, PathRules::Unix).unwrap();
        assert_eq!(a.layout, b.layout);
        assert_eq!(b.info_hashes.v1, Some(InfoHash(Sha1::digest(raw).into())));
        assert_ne!(a.info_hashes, b.info_hashes);
    }

    /// A tree of files, by name; each of 40,000 bytes unless `more` says otherwise.
    fn tree(files: &[(&'static str, &[(&'static str, Value<'static>)])]) -> Value<'static> {
        let file = |more: &[(&'static str, Value<'static>)]| {
            let base = [("length", Value::Int(40_000)), ("pieces root", Value::bytes(vec![5; 32]))];
            let entries = more.iter().chain(&base).map(|(key, value)| (key.as_bytes(), value.clone()));
            Value::dict([(b"".as_slice(), Value::dict(entries))])
        };
        Value::dict(files.iter().map(|(name, more)| (name.as_bytes(), file(more))))
    }

    /// A torrent with the version 2 half alone.
    fn v2(tree: Value<'static>, layers: Option<Value<'static>>) -> Result<Metainfo, MetainfoError> {
        let info = Value::dict([
            (b"file tree".as_slice(), tree),
            (b"meta version", Value::Int(2)),
            (b"name", Value::text("n")),
            (b"piece length", Value::Int(16384)),
        ]);
        let layers = layers.map(|layers| (b"piece layers".as_slice(), layers));
        let root = Value::dict([(b"info".as_slice(), info)].into_iter().chain(layers));
        Metainfo::parse(&bencode::encode(&root), PathRules::Unix)
    }

    #[test]
    fn the_halves_of_a_hybrid_list_the_same_files() {
        let hybrid = |tree: Value<'static>| {
            let info = [("meta version", Value::Int(2)), ("file tree", tree)];
            Metainfo::parse(&torrent(&info, &[]), PathRules::Unix).map(|both| both.info_hashes.v2.is_some())
        };
        assert_eq!(hybrid(tree(&[("n", &[])])), Ok(true));
        for other in [
            tree(&[("m", &[])]),
            tree(&[("n", &[("length", Value::Int(39_999))])]),
            tree(&[("n", &[]), ("o", &[])]),
        ] {
            assert_eq!(hybrid(other), Err(MetainfoError::HalvesDiffer));
        }
        let mut odd = vec![("meta version", Value::Int(2)), ("file tree", tree(&[("n", &[])]))];
        odd.push(("piece length", Value::Int(20_000)));
        assert_eq!(refused(&odd), "bad-piece-length");
        assert_eq!(refused(&odd[..1]), "bad-file-entry");
    }

    #[test]
    fn files_of_version_2_begin_with_a_piece() {
        let metainfo =
            v2(tree(&[("a", &[]), ("b", &[("length", Value::Int(0))]), ("c", &[])]), None).unwrap();
        assert_eq!((metainfo.info_hashes.v1, metainfo.info_hashes.v2.is_some()), (None, true));
        assert_eq!(paths_of(&metainfo), ["n/a", "n/.pad/9152", "n/b", "n/c", "n/.pad/9152.1"]);
        let offsets: Vec<_> = metainfo.layout.files().iter().map(|file| file.offset).collect();
        assert_eq!(offsets, [0, 40_000, 49_152, 49_152, 89_152]);
        assert_eq!((metainfo.file_roots.len(), metainfo.piece_hashes.len()), (2, 0));
        assert_eq!(paths_of(&v2(tree(&[("n", &[])]), None).unwrap()), ["n"]);
        let unknown = b"d4:infod12:meta versioni3e4:name1:n12:piece lengthi16384eee";
        assert_eq!(Metainfo::parse(unknown, PathRules::Unix), Err(MetainfoError::UnknownVersion(3)));
    }

    #[test]
    fn a_file_tree_is_refused_by_what_is_wrong_in_it() {
        let class = |tree| v2(tree, None).unwrap_err().class();
        let one = |more: &[(&'static str, Value<'static>)]| class(tree(&[("n", more)]));
        assert_eq!(one(&[("length", Value::Int(-1))]), "bad-length");
        assert_eq!(one(&[("length", Value::Int(i64::MAX))]), "bad-length");
        assert_eq!(one(&[("pieces root", Value::bytes(vec![0; 32]))]), "missing-pieces-root");
        assert_eq!(one(&[("pieces root", Value::bytes(vec![5; 31]))]), "missing-pieces-root");
        assert_eq!(one(&[("attr", Value::text("p"))]), "bad-pad-file");
        assert_eq!(one(&[("attr", Value::text("l"))]), "bad-file-entry");
        assert_eq!(class(Value::dict::<&[u8]>([])), "no-files");
        assert_eq!(class(Value::dict([(b"d".as_slice(), Value::dict::<&[u8]>([]))])), "bad-file-entry");
        assert_eq!(class(Value::dict([(b"d".as_slice(), Value::Int(1))])), "bad-file-entry");
    }

    #[test]
    fn piece_layers_are_held_against_their_roots() {
        let leaves = [[1; 32], [2; 32], [3; 32]];
        let root = super::super::merkle::root(leaves.to_vec(), 0).unwrap();
        let layers = |key: [u8; 32], layer: Value<'static>| Some(Value::dict([(key.to_vec(), layer)]));
        let check = |layers| {
            let file = tree(&[("n", &[("pieces root", Value::bytes(root.to_vec()))])]);
            v2(file, layers).map(|_| ()).map_err(|error| error.class())
        };
        assert_eq!(check(layers(root, Value::bytes(leaves.concat()))), Ok(()));
        assert_eq!(check(None), Ok(()), "peers have them");
        let wrong = Err("bad-piece-layers");
        assert_eq!(check(layers(root, Value::bytes([[1; 32], [2; 32], [4; 32]].concat()))), wrong);
        assert_eq!(check(layers(root, Value::bytes(leaves[..2].concat()))), wrong);
        assert_eq!(check(layers(root, Value::Int(7))), wrong);
        assert_eq!(check(layers([9; 32], Value::Int(7))), wrong);
        assert_eq!(check(Some(Value::Int(7))), wrong);
    }

    proptest! {
        #[test]
        fn damaged_torrents_do_not_panic(at in 0..400usize, byte: u8, cut in 0..400usize) {
            let files = Value::List(vec![entry(&["a", "b"], &[]), entry(&["c"], &[("attr", Value::text("p"))])]);
            let mut bytes = torrent(&[("files", files)], &[("announce", Value::text("http://x/"))]);
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            bytes.truncate(cut.max(100));
            for rules in [PathRules::Unix, PathRules::Windows] {
                let _ = Metainfo::parse(&bytes, rules);
            }
        }
    }
}
