//! `taipei-cli info`: what a torrent file or a magnet link says.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Serialize;
use taipei_engine::ids::InfoHashes;
use taipei_engine::metainfo::{FileEntry, Magnet, Metainfo};

use crate::args::{DisplayArgs, Encryption, InfoArgs, Progress, TransferArgs};
use crate::output::{Exit, Failure, bytes, count, escape, fail, magnet, print, print_json, read_any_torrent};
use crate::resolve;
use crate::sources::{Torrent, Wanted};

/// Shows it.
pub(crate) fn run(args: &InfoArgs) -> Exit {
    if let Some(given) = magnet(&args.torrent) {
        return match given {
            Ok(magnet) if args.fetch => fetch(magnet, args),
            Ok(magnet) => show_link(&magnet, args.json),
            Err(failure) => fail(&failure, args.json),
        };
    }
    match read_any_torrent(&args.torrent, &args.bind) {
        Err(failure) => return fail(&failure, args.json),
        Ok((_, metainfo)) => show(&metainfo, args.json),
    }
    Exit::Done
}

fn show(metainfo: &Metainfo, as_json: bool) {
    if as_json {
        print_json(&Info::new(metainfo));
    } else {
        print(text(metainfo).trim_end());
    }
}

/// Shows what a link names, with the trackers and web seeds of the link.
fn fetch(magnet: Magnet, args: &InfoArgs) -> Exit {
    let display = DisplayArgs { json: args.json, progress: Progress::Auto, quiet: false };
    let transfer = TransferArgs {
        port: 0..=0,
        bind: args.bind.clone(),
        peer: args.peer.clone(),
        tracker: args.tracker.clone(),
        dht: args.dht.clone(),
        no_lsd: args.no_lsd,
        ..TransferArgs::plain(display)
    };
    if transfer.encryption == Encryption::Require {
        return fail(&Failure::Encryption, args.json);
    }
    let tiers = magnet.trackers.iter().map(|url| vec![url.clone()]).collect();
    let web_seeds = magnet.web_seeds.clone();
    let metainfo = Torrent::of_link(magnet, PathBuf::from("."), Wanted::default())
        .and_then(|torrent| resolve::known(torrent, &transfer, args.stop_timeout))
        .map(|torrent| torrent.metainfo);
    match metainfo {
        Ok(Some(metainfo)) => {
            show(&Metainfo { tracker_tiers: tiers, web_seeds, ..metainfo }, args.json);
            Exit::Done
        }
        Ok(None) => Exit::Failed,
        Err(failure) => fail(&failure, args.json),
    }
}

/// Shows what a link says, and asks nobody.
pub(crate) fn show_link(magnet: &Magnet, as_json: bool) -> Exit {
    if as_json {
        print_json(&LinkInfo::new(magnet));
    } else {
        print(link_text(magnet).trim_end());
    }
    Exit::Done
}

/// What programs read of a link: the keys of a torrent file, of which it says few, and its own.
#[derive(Serialize)]
struct LinkInfo<'a> {
    name: Option<&'a str>,
    kind: &'static str,
    info_hash_v1: Option<String>,
    info_hash_v2: Option<String>,
    piece_length: Option<u32>,
    num_pieces: Option<u32>,
    total_size: Option<u64>,
    num_files: Option<usize>,
    files: Option<Vec<InfoFile<'a>>>,
    private: Option<bool>,
    trackers: &'a [String],
    /// As they are asked: each after those before it.
    tracker_tiers: Vec<[&'a str; 1]>,
    web_seeds: &'a [String],
    dht_nodes: [&'a str; 0],
    comment: Option<&'a str>,
    created_by: Option<&'a str>,
    creation_date: Option<i64>,
    source: Option<&'a str>,
    peers: Vec<String>,
    /// Indices of files, from 0 (BEP 53); none: all are wanted.
    select_only: &'a [u32],
}

impl<'a> LinkInfo<'a> {
    fn new(magnet: &'a Magnet) -> Self {
        Self {
            name: magnet.name.as_deref(),
            kind: kind(&magnet.info_hashes),
            info_hash_v1: magnet.info_hashes.v1.map(|hash| hash.to_string()),
            info_hash_v2: magnet.info_hashes.v2.map(|hash| hash.to_string()),
            piece_length: None,
            num_pieces: None,
            total_size: None,
            num_files: None,
            files: None,
            private: None,
            trackers: &magnet.trackers,
            tracker_tiers: magnet.trackers.iter().map(|url| [url.as_str()]).collect(),
            web_seeds: &magnet.web_seeds,
            dht_nodes: [],
            comment: None,
            created_by: None,
            creation_date: None,
            source: None,
            peers: magnet.peers.iter().map(ToString::to_string).collect(),
            select_only: &magnet.select_only,
        }
    }
}

/// What people read of a link.
fn link_text(magnet: &Magnet) -> String {
    let mut out = String::new();
    let mut line = |label: &str, value: &str| {
        let _ = writeln!(out, "{label:<14}{}", escape(value));
    };
    line("name", magnet.name.as_deref().unwrap_or("(the link does not say)"));
    let hashes = &magnet.info_hashes;
    [("info-hash", hashes.v1.map(|v1| v1.to_string())), ("info-hash v2", hashes.v2.map(|v2| v2.to_string()))]
        .iter()
        .filter_map(|(label, hash)| Some((label, hash.as_ref()?)))
        .for_each(|(label, hash)| line(label, hash));
    match kind(hashes) {
        "hybrid" => line("kind", HYBRID),
        "v2" => {
            line("kind", "v2 only: cannot be downloaded yet; a link with urn:btih: of the same torrent can")
        }
        _ => {}
    }
    let peers: Vec<String> = magnet.peers.iter().map(ToString::to_string).collect();
    for (label, items) in
        [("trackers", &magnet.trackers), ("web seeds", &magnet.web_seeds), ("peers", &peers)]
    {
        items.iter().enumerate().for_each(|(at, item)| line(if at == 0 { label } else { "" }, item));
    }
    if !magnet.select_only.is_empty() {
        let numbers: Vec<String> = magnet.select_only.iter().map(|file| (file + 1).to_string()).collect();
        line("only files", &numbers.join(","));
    }
    line("files", "known when a peer has told them");
    out.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// `v1`, `v2` or `hybrid`.
fn kind(hashes: &InfoHashes) -> &'static str {
    match (hashes.v1, hashes.v2) {
        (Some(_), Some(_)) => "hybrid",
        (None, _) => "v2",
        (Some(_), None) => "v1",
    }
}

const HYBRID: &str = "hybrid: v1 and v2; downloaded as v1";

/// What programs read. Sizes and counts are without pad files and symlinks.
#[derive(Serialize)]
struct Info<'a> {
    name: &'a str,
    /// As the torrent has it, where no disk would take that.
    #[serde(skip_serializing_if = "Option::is_none")]
    original_name: Option<&'a str>,
    /// `v1`, `v2` or `hybrid`.
    kind: &'static str,
    info_hash_v1: Option<String>,
    info_hash_v2: Option<String>,
    piece_length: u32,
    num_pieces: u32,
    total_size: u64,
    num_files: usize,
    files: Vec<InfoFile<'a>>,
    private: bool,
    trackers: Vec<&'a str>,
    tracker_tiers: &'a [Vec<String>],
    web_seeds: &'a [String],
    dht_nodes: Vec<String>,
    comment: Option<&'a str>,
    created_by: Option<&'a str>,
    creation_date: Option<i64>,
    source: Option<&'a str>,
}

#[derive(Serialize)]
struct InfoFile<'a> {
    path: &'a str,
    length: u64,
    pad: bool,
    symlink: Option<&'a str>,
    /// As the torrent has it, where no disk would take that.
    #[serde(skip_serializing_if = "Option::is_none")]
    original: Option<&'a str>,
}

impl<'a> Info<'a> {
    fn new(metainfo: &'a Metainfo) -> Self {
        let layout = &metainfo.layout;
        let file = |file: &'a FileEntry| InfoFile {
            path: file.path.as_str(),
            length: file.length,
            pad: file.pad,
            symlink: file.symlink.as_ref().map(|target| target.as_str()),
            original: file.original.as_deref(),
        };
        Self {
            name: &metainfo.name,
            original_name: metainfo.original_name.as_deref(),
            kind: kind(&metainfo.info_hashes),
            info_hash_v1: metainfo.info_hashes.v1.map(|hash| hash.to_string()),
            info_hash_v2: metainfo.info_hashes.v2.map(|hash| hash.to_string()),
            piece_length: layout.piece_length(),
            num_pieces: layout.piece_count(),
            total_size: layout.stored_bytes(),
            num_files: layout.files().iter().filter(|file| file.is_stored()).count(),
            files: layout.files().iter().map(file).collect(),
            private: metainfo.private,
            trackers: metainfo.tracker_tiers.iter().flatten().map(String::as_str).collect(),
            tracker_tiers: &metainfo.tracker_tiers,
            web_seeds: &metainfo.web_seeds,
            dht_nodes: metainfo.dht_nodes.iter().map(node).collect(),
            comment: metainfo.comment.as_deref(),
            created_by: metainfo.created_by.as_deref(),
            creation_date: metainfo.creation_date,
            source: metainfo.source.as_deref(),
        }
    }
}

fn node((host, port): &(String, u16)) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// What people read.
fn text(metainfo: &Metainfo) -> String {
    let mut out = String::new();
    let mut line = |label: &str, value: &str| {
        let _ = writeln!(out, "{label:<14}{}", escape(value));
    };
    let info = Info::new(metainfo);
    line("name", info.name);
    if let Some(original) = info.original_name {
        line("  as it came", original);
    }
    if let Some(v1) = &info.info_hash_v1 {
        line("info-hash", v1);
    }
    if let Some(v2) = &info.info_hash_v2 {
        line("info-hash v2", v2);
    }
    line("size", &format!("{} in {}", bytes(info.total_size), count(info.num_files as u64, "file")));
    match info.kind {
        "hybrid" => line("kind", HYBRID),
        "v2" => line("kind", "v2 only: cannot be downloaded yet"),
        _ => {}
    }
    line("pieces", &format!("{} of {}", info.num_pieces, bytes(u64::from(info.piece_length))));
    line("private", if info.private { "yes: only peers of its trackers" } else { "no" });
    for (number, tier) in info.tracker_tiers.iter().enumerate() {
        for (at, url) in tier.iter().enumerate() {
            let label = if at > 0 {
                String::new()
            } else if number == 0 {
                "trackers".to_owned()
            } else {
                "  then".to_owned()
            };
            line(&label, url);
        }
    }
    for (label, items) in [("web seeds", info.web_seeds), ("DHT nodes", &info.dht_nodes)] {
        items.iter().enumerate().for_each(|(at, item)| line(if at == 0 { label } else { "" }, item));
    }
    let date = info.creation_date.map(date);
    let more = [
        ("comment", info.comment),
        ("source", info.source),
        ("created by", info.created_by),
        ("created", date.as_deref()),
    ];
    more.iter()
        .filter_map(|(label, value)| Some((label, (*value)?)))
        .for_each(|(label, value)| line(label, value));
    let _ = writeln!(out, "files");
    for file in &info.files {
        let mut kind = match file.symlink {
            Some(target) => format!("link to {}", escape(target)),
            None if file.pad => "padding".to_owned(),
            None => String::new(),
        };
        if let Some(original) = file.original {
            let _ = write!(kind, "  in the torrent: {}", escape(original));
        }
        let _ = writeln!(out, "  {:>10}  {}  {kind}", bytes(file.length), escape(file.path));
    }
    out.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// `2009-02-13 23:31:30 UTC`, by the rules of the Gregorian calendar.
fn date(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Years that begin in March end with the leap day; 400 of them have 146,097 days.
    let days = i128::from(days) + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + era * 400 + i128::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::args::BindArgs;

    fn fixture(name: &str) -> Metainfo {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/torrents").join(name);
        read_any_torrent(&path, &BindArgs::default()).unwrap().1
    }

    #[test]
    fn dates_are_gregorian() {
        let dates = [0, 1_234_567_890, 951_782_400, 4_107_542_399, -1].map(date);
        assert_eq!(
            dates,
            [
                "1970-01-01 00:00:00 UTC",
                "2009-02-13 23:31:30 UTC",
                "2000-02-29 00:00:00 UTC",
                "2100-02-28 23:59:59 UTC",
                "1969-12-31 23:59:59 UTC",
            ]
        );
        assert!(!date(i64::MIN).is_empty() && !date(i64::MAX).is_empty());
    }

    #[test]
    fn names_that_no_disk_takes_are_shown_as_they_came_escaped() {
        let torrent = b"d4:infod5:filesld6:lengthi0e4:pathl2:..6:a\xe2\x80\xaebceee4:name5:n\x1b[2J12:piece lengthi16384e6:pieces0:ee";
        let metainfo = Metainfo::parse(torrent, crate::output::path_rules()).unwrap();
        let shown = text(&metainfo);
        assert!(shown.contains("name          n_[2J\n  as it came  n\\u{1b}[2J\n"), "{shown}");
        assert!(shown.contains("n_[2J/_/a_bc    in the torrent: n\\u{1b}[2J/../a\\u{202e}bc"), "{shown}");
        let json = crate::output::json_line(&Info::new(&metainfo));
        assert!(json.contains(r#""original_name":"n\u001b[2J""#), "{json}");
        assert!(json.contains(r#""original":"n\u001b[2J/../a\u202ebc""#), "{json}");
    }

    #[test]
    fn a_link_for_people_and_for_programs() {
        let v1 = "xt=urn:btih:OIX6MWZKUJWRJ423JLLCPUQCG3SIDWJE";
        let v2 = "xt=urn:btmh:122095e04d0c4bad94ab206efa884666fd89777dbe4f7bd9945af1829037a85c6192";
        let more = "dn=a%1b[2Jb&tr=http://t/a&tr=udp://u:1&ws=http://w/&x.pe=192.0.2.7:6881&x.pe=[2001:db8::7]:1&so=0,2-3";
        let shown = [format!("{v1}&{more}"), format!("{v1}&{v2}"), v2.to_owned()].map(|parameters| {
            let magnet = Magnet::parse(&format!("magnet:?{parameters}")).unwrap();
            format!("{}\n{}\n", link_text(&magnet), crate::output::json_line(&LinkInfo::new(&magnet)))
        });
        insta::assert_snapshot!(shown.join("\n"));
    }

    #[test]
    fn a_torrent_for_people_and_for_programs() {
        for name in [
            "libtorrent/sample",
            "libtorrent/symlink1",
            "libtorrent/v2_hybrid",
            "libtorrent/dht_nodes",
            "webtorrent-fixtures/bunny",
        ] {
            let metainfo = fixture(&format!("{name}.torrent"));
            let json = serde_json::to_string_pretty(&Info::new(&metainfo)).unwrap();
            insta::assert_snapshot!(name.replace('/', "-"), format!("{}\n{json}", text(&metainfo)));
        }
    }
}
