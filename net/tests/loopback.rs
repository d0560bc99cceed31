//! Two sessions on loopback: everything real but the distance.
#![allow(clippy::unwrap_used, reason = "a test ends where something does not hold")]

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use taipei_engine::metainfo::create::{Content, CreateOptions, CreatePlan, SourceFile};
use taipei_engine::metainfo::{Metainfo, PathRules};
use taipei_engine::{AddTorrent, Alert, Command, Priority, RateLimits, ResumeMode, TorrentId, TorrentState};
use taipei_net::{Options, PortMapping, Session};

const TORRENT: TorrentId = TorrentId(1);

/// A directory of its own, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("taipei-loopback-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Files, and the torrent of them.
struct Payload {
    files: Vec<(PathBuf, Vec<u8>)>,
    torrent_file: Vec<u8>,
}

impl Payload {
    fn new(piece_length: u32, lengths: &[usize]) -> Self {
        let files: Vec<(PathBuf, Vec<u8>)> = lengths
            .iter()
            .enumerate()
            .map(|(at, length)| {
                let content = (0..*length).map(|byte| (byte * 31 + byte / 253 + at) as u8).collect();
                (PathBuf::from(format!("payload/{at:02}")), content)
            })
            .collect();
        let listed = lengths
            .iter()
            .enumerate()
            .map(|(at, length)| SourceFile { path: vec![format!("{at:02}")], length: *length as u64 });
        let options = CreateOptions { piece_length: Some(piece_length), ..CreateOptions::default() };
        let plan = CreatePlan::new("payload", Content::Directory(listed.collect()), options).unwrap();
        let all: Vec<u8> = files.iter().flat_map(|(_, content)| content).copied().collect();
        let hashes: Vec<_> = all.chunks(piece_length as usize).map(hash_of).collect();
        Self { files, torrent_file: plan.encode(&hashes) }
    }

    /// One file, and a pad file after it (BEP 47).
    fn padded(piece_length: u32, length: usize, padding: u64) -> Self {
        let content: Vec<u8> = (0..length).map(|byte| (byte * 31 + byte / 253) as u8).collect();
        let (piece, total) = (u64::from(piece_length), length as u64 + padding);
        let mut bytes = content.clone();
        bytes.resize(length.next_multiple_of(piece_length as usize).min(total as usize), 0);
        let mut hashes: Vec<_> = bytes.chunks(piece_length as usize).map(hash_of).collect();
        let zeros = vec![0; piece_length as usize];
        let mut of_zeros = BTreeMap::new();
        for begin in (bytes.len() as u64..total).step_by(piece_length as usize) {
            let length = (total - begin).min(piece) as usize;
            hashes.push(*of_zeros.entry(length).or_insert_with(|| hash_of(&zeros[..length])));
        }
        let mut torrent_file = format!(
            "d4:infod5:filesld6:lengthi{length}e4:pathl2:00eed4:attr1:p6:lengthi{padding}e4:pathl4:.pad1:1eee\
             4:name7:payload12:piece lengthi{piece}e6:pieces{}:",
            hashes.len() * 20
        )
        .into_bytes();
        torrent_file.extend(hashes.concat());
        torrent_file.extend(b"ee");
        Self { files: vec![(PathBuf::from("payload/00"), content)], torrent_file }
    }

    fn write(&self, directory: &Directory) {
        for (path, content) in &self.files {
            let path = directory.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }

    fn assert_in(&self, directory: &Directory) {
        for (path, content) in &self.files {
            assert!(fs::read(directory.0.join(path)).unwrap() == *content, "{} differs", path.display());
        }
    }

    fn add(&self, directory: &Directory, peers: Vec<SocketAddr>) -> Command {
        let output = directory.0.to_str().unwrap().to_owned();
        let mut add = AddTorrent::new(TORRENT, self.torrent_file.clone().into(), output);
        add.use_trackers = false;
        add.peers = peers;
        Command::AddTorrent(Box::new(add))
    }
}

fn hash_of(piece: &[u8]) -> [u8; 20] {
    let mut hashes = Vec::new();
    taipei_engine::disk::sha1_each(&[vec![piece]], &mut hashes);
    hashes[0]
}

async fn session(seed: u64) -> Session {
    let mut options = Options::default();
    options.bind = Some("127.0.0.1".to_owned());
    options.ports = Some(0..=0);
    options.start_values = taipei_net::start_values(Some(seed));
    taipei_net::start(options).await.unwrap()
}

/// Waits for an alert; gives all until then.
async fn until(session: &mut Session, wanted: impl Fn(&Alert) -> bool) -> Vec<Alert> {
    let mut seen = Vec::new();
    let wait = async {
        loop {
            let alert = session.alerts.next().await.unwrap_or_else(|| panic!("ended after {seen:?}"));
            let found = wanted(&alert);
            seen.push(alert);
            if found {
                return;
            }
        }
    };
    let outcome = tokio::time::timeout(Duration::from_secs(60), wait).await;
    assert!(outcome.is_ok(), "nothing more after {seen:?}");
    seen
}

async fn seeding(payload: &Payload, directory: &Directory) -> (Session, SocketAddr) {
    let mut seeder = session(1).await;
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), seeder.handle.listening_port());
    seeder.handle.command(payload.add(directory, Vec::new())).await.unwrap();
    until(&mut seeder, |alert| {
        *alert == Alert::StateChanged { torrent: TORRENT, state: TorrentState::Seeding }
    })
    .await;
    (seeder, address)
}

async fn stop(mut session: Session) {
    session.handle.command(Command::Shutdown).await.unwrap();
    until(&mut session, |alert| *alert == Alert::Stopped).await;
    assert_eq!(session.alerts.next().await, None);
    session.owner.await.unwrap();
    session.handle.command(Command::Shutdown).await.unwrap_err();
}

/// Gives where it arrived.
async fn transfer(payload: &Payload) -> Directory {
    let (here, there) = (Directory::new(), Directory::new());
    payload.write(&there);
    let (seeder, address) = seeding(payload, &there).await;
    let mut leecher = session(2).await;
    leecher.handle.command(payload.add(&here, vec![address])).await.unwrap();
    let alerts = until(&mut leecher, |alert| *alert == Alert::Completed { torrent: TORRENT }).await;
    assert!(
        !alerts.iter().any(|alert| matches!(alert, Alert::PieceFailed { .. } | Alert::DiskFailed { .. }))
    );
    payload.assert_in(&here);
    stop(leecher).await;
    stop(seeder).await;
    here
}

#[tokio::test]
async fn nobody_is_asked_for_a_port_unless_it_is_wanted_and_of_use() {
    let mut options = Options::default();
    assert_eq!(options.port_mapping, None);
    options.bind = Some("127.0.0.1".to_owned());
    options.ports = Some(0..=0);
    options.port_mapping = Some(PortMapping::default());
    let session = taipei_net::start(options).await.unwrap();
    assert!(session.port.is_none());
    stop(session).await;
}

#[tokio::test]
async fn many_small_files_arrive_whole() {
    transfer(&Payload::new(1 << 15, &[0, 1, 40_000, 0, 16_384, 99_999, 3, 70_000])).await;
}

#[tokio::test]
async fn a_large_file_arrives_whole() {
    transfer(&Payload::new(1 << 18, &[24 << 20])).await;
}

/// It ends in the midst of a piece; begins in one piece and ends in the next; is of 4 GiB.
#[tokio::test]
async fn padding_of_any_shape_is_had_and_never_on_disk() {
    for (piece_length, length, padding) in
        [(1 << 14, 0x4100, 0x10), (1 << 14, 0x3fff, 0x10), (1 << 20, 0x5000, (4 << 30) - 0x5000)]
    {
        let payload = Payload::padded(piece_length, length, padding);
        let here = transfer(&payload).await;
        let names = fs::read_dir(here.0.join("payload")).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["00"]);
        let mut again = session(3).await;
        let Command::AddTorrent(mut add) = payload.add(&here, Vec::new()) else {
            panic!("it adds a torrent")
        };
        add.resume = ResumeMode::Recheck;
        again.handle.command(Command::AddTorrent(add)).await.unwrap();
        let seeds = Alert::StateChanged { torrent: TORRENT, state: TorrentState::Seeding };
        let alerts = until(&mut again, |alert| *alert == seeds).await;
        let fetches = Alert::StateChanged { torrent: TORRENT, state: TorrentState::Downloading };
        assert!(!alerts.contains(&fetches), "{alerts:?}");
        stop(again).await;
    }
}

#[tokio::test]
async fn a_leecher_goes_on_where_it_was_stopped() {
    let payload = Payload::new(1 << 15, &[8 << 20]);
    let (here, there) = (Directory::new(), Directory::new());
    payload.write(&there);
    let (seeder, address) = seeding(&payload, &there).await;
    let mut leecher = session(2).await;
    leecher.handle.command(payload.add(&here, vec![address])).await.unwrap();
    until(&mut leecher, |alert| matches!(alert, Alert::PieceFinished { .. })).await;
    stop(leecher).await;

    let mut leecher = session(3).await;
    leecher.handle.command(payload.add(&here, vec![address])).await.unwrap();
    let alerts = until(&mut leecher, |alert| *alert == Alert::Completed { torrent: TORRENT }).await;
    let finished = alerts.iter().filter(|alert| matches!(alert, Alert::PieceFinished { .. })).count();
    assert!(finished < 256, "fetched all {finished} pieces again");
    payload.assert_in(&here);
    stop(leecher).await;
    stop(seeder).await;
}

/// Of three files that begin with a piece each, the one in the middle is not wanted: nothing of it is written, and a check
/// misses nothing, whatever lies in its place.
#[tokio::test]
async fn a_file_that_is_not_wanted_is_neither_made_nor_missed() {
    let payload = Payload::new(1 << 15, &[1 << 15, 2 << 15, 1 << 15]);
    let (here, there) = (Directory::new(), Directory::new());
    payload.write(&there);
    let (seeder, address) = seeding(&payload, &there).await;
    let add = |resume, peers| {
        let Command::AddTorrent(mut add) = payload.add(&here, peers) else { panic!("it adds a torrent") };
        add.priorities = vec![Priority::Normal, Priority::Skip, Priority::Normal];
        add.resume = resume;
        Command::AddTorrent(add)
    };
    let unwanted = here.0.join("payload/01");
    let mut leecher = session(2).await;
    leecher.handle.command(add(ResumeMode::Resume, vec![address])).await.unwrap();
    until(&mut leecher, |alert| *alert == Alert::Completed { torrent: TORRENT }).await;
    stop(leecher).await;
    for content in [None, Some(vec![7; 2 << 15])] {
        if let Some(content) = &content {
            fs::write(&unwanted, content).unwrap();
        }
        let mut leecher = session(3).await;
        leecher.handle.command(add(ResumeMode::Recheck, Vec::new())).await.unwrap();
        let seeds = Alert::StateChanged { torrent: TORRENT, state: TorrentState::Seeding };
        let alerts = until(&mut leecher, |alert| *alert == seeds).await;
        let fetches = Alert::StateChanged { torrent: TORRENT, state: TorrentState::Downloading };
        assert!(!alerts.contains(&fetches), "{alerts:?}");
        stop(leecher).await;
        assert_eq!(fs::read(&unwanted).ok(), content);
    }
    for wanted in [0, 2] {
        let (path, content) = &payload.files[wanted];
        assert!(fs::read(here.0.join(path)).unwrap() == *content, "{} differs", path.display());
    }
    stop(seeder).await;
}

/// What it locks and asks of the disk at that moment is let go before it says that it is gone.
#[tokio::test]
async fn a_magnet_that_is_removed_when_its_metadata_comes_can_be_added_again() {
    let payload = Payload::new(1 << 15, &[1 << 20]);
    let (here, there) = (Directory::new(), Directory::new());
    payload.write(&there);
    let (seeder, address) = seeding(&payload, &there).await;
    let hash = Metainfo::parse(&payload.torrent_file, PathRules::Unix).unwrap().info_hashes.v1.unwrap();
    let mut leecher = session(2).await;
    for torrent in (10..20).map(TorrentId) {
        let link = format!("magnet:?xt=urn:btih:{hash}");
        let mut add = AddTorrent::magnet(torrent, link, here.0.to_str().unwrap().to_owned());
        add.peers = vec![address];
        leecher.handle.command(Command::AddTorrent(Box::new(add))).await.unwrap();
        until(&mut leecher, |alert| matches!(alert, Alert::MetadataReceived { .. })).await;
        leecher.handle.command(Command::RemoveTorrent { torrent }).await.unwrap();
        until(&mut leecher, |alert| *alert == Alert::Removed { torrent }).await;
    }
    leecher.handle.command(payload.add(&here, vec![address])).await.unwrap();
    until(&mut leecher, |alert| *alert == Alert::Completed { torrent: TORRENT }).await;
    payload.assert_in(&here);
    stop(leecher).await;
    stop(seeder).await;
}

#[tokio::test]
async fn dropping_the_handle_shuts_down() {
    let session = session(1).await;
    drop(session.handle);
    let mut alerts = session.alerts;
    assert_eq!(alerts.next().await, Some(Alert::Stopped));
    session.owner.await.unwrap();
}

#[tokio::test]
async fn who_commands_and_takes_no_alerts_is_told_that_it_is_over() {
    let session = session(1).await;
    let commands = async {
        // More alerts than fit anywhere but in the session, and after the end more commands than wait for it.
        for _ in 0..2_000 {
            session.handle.command(Command::ReportDht).await.unwrap();
        }
        session.handle.command(Command::Shutdown).await.unwrap();
        while session.handle.command(Command::ReportDht).await.is_ok() {}
    };
    tokio::time::timeout(Duration::from_secs(60), commands).await.expect("it ends");
    drop(session.alerts);
    session.owner.await.unwrap();
}

#[tokio::test]
async fn aborting_the_owner_closes_everything() {
    let session = session(1).await;
    let address = session.handle.listening_addresses()[0];
    session.owner.abort();
    assert!(session.owner.await.unwrap_err().is_cancelled());
    // Its listener went with it.
    tokio::task::yield_now().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_limit_of_a_mebibyte_a_second_is_kept_and_used() {
    let payload = Payload::new(1 << 18, &[24 << 20]);
    let (here, there) = (Directory::new(), Directory::new());
    payload.write(&there);
    let (seeder, address) = seeding(&payload, &there).await;
    let mut leecher = session(2).await;
    let limits = RateLimits { download: Some(1 << 20), upload: None };
    leecher.handle.command(Command::SetLimits { torrent: None, limits }).await.unwrap();
    leecher.handle.command(payload.add(&here, vec![address])).await.unwrap();
    let mut downloaded = Vec::new();
    // From the second second on, so that the start is left out.
    for wait in [2, 8] {
        tokio::time::sleep(Duration::from_secs(wait)).await;
        leecher.handle.command(Command::ReportStats { torrent: TORRENT }).await.unwrap();
        let alerts = until(&mut leecher, |alert| matches!(alert, Alert::Stats(_))).await;
        let Some(Alert::Stats(stats)) = alerts.last() else { panic!("no figures") };
        downloaded.push(stats.downloaded_bytes);
    }
    let bytes = downloaded[1] - downloaded[0];
    let expected = 8 << 20;
    assert!((expected * 9 / 10..=expected * 11 / 10).contains(&bytes), "{bytes} in 8 s");
    stop(leecher).await;
    stop(seeder).await;
}
