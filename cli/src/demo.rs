//! `taipei-cli demo`: a real download that needs nothing from outside.
//!
//! Payload is made up, a tracker and three seeders run on loopback sockets, and the ordinary download fetches from them
//! with its ordinary display. What arrived is then hashed against the torrent and compared with what the seeders have.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use taipei_engine::driver;
use taipei_engine::metainfo::{CreateOptions, Metainfo};
use taipei_engine::rng::Rng;
use taipei_engine::tracker_server::{TrackerConfig, TrackerServer};
use taipei_engine::{AddTorrent, Alert, Command, ResumeMode, TorrentId, TorrentState};
use taipei_net::tracker::{TrackerListener, serve};
use taipei_net::{Bind, BootClock, EndSignals, FileStorage, Session, TcpTransport, ThreadJobs, start_values};

use crate::args::{BindArgs, DemoArgs, DhtUse, DisplayArgs, LogArgs, TransferArgs};
use crate::create::{Made, make_torrent};
use crate::output::{Exit, Failure, bytes, count, fail, print, print_json, tell, took};
use crate::paced::PacedTransport;
use crate::sources::{Torrent, Wanted};
use crate::transfer::{Until, block_on, transfer};
use crate::verify::{check, path_below};

/// Shows it and cleans up.
pub(crate) fn run(args: &DemoArgs, log: &LogArgs) -> Exit {
    let download = download_args(args.display);
    let ended = Place::new(args.keep).and_then(|place| block_on(demo(args, &download, log, &place)));
    ended.unwrap_or_else(|failure| fail(&failure, args.display.is_for_programs()))
}

async fn demo(
    args: &DemoArgs,
    download: &TransferArgs,
    log: &LogArgs,
    place: &Place,
) -> Result<Exit, Failure> {
    let mut signals = EndSignals::new().map_err(Failure::System)?;
    let say = |label: &str, text: &str| {
        if !args.display.is_for_programs() {
            print(format_args!("{label:<10} {text}"));
        }
    };
    say("demo", "a real download, on this machine alone");

    let seed = start_values(None).seed;
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let tracker = TrackerServer::new(
        TrackerConfig::with_interval(Duration::from_secs(60)),
        Rng::stream(seed, "tracker", 0),
    );
    let tracker = serve(&[local], false, tracker)?;
    let announce = format!("http://{}/announce", tracker.local_addr());

    let (size, source, display) = (args.size, place.seeder(0), args.display);
    let made = tokio::task::spawn_blocking(move || {
        make_payload(&source.join(NAME), size, seed)?;
        let options = CreateOptions { tracker_tiers: vec![vec![announce]], ..CreateOptions::default() };
        make_torrent(&source.join(NAME), None, options, quiet(display))
    });
    let Made { torrent_file, metainfo } = tokio::select! {
        biased;
        () = signals.next() => return Ok(Exit::Interrupted),
        made = made => made.map_err(|error| Failure::System(error.into()))??,
    };
    let layout = &metainfo.layout;
    let files = count(layout.files().len() as u64, "file");
    say("payload", &format!("{} in {files}, random bytes made just now", bytes(layout.total_bytes())));
    say(
        "torrent",
        &format!(
            "{} of {}",
            count(layout.piece_count().into(), "piece"),
            bytes(layout.piece_length().into())
        ),
    );
    say("tracker", &format!("http://{}/announce", tracker.local_addr()));

    let torrent_file = Bytes::from(torrent_file);
    let mut seeders = Vec::new();
    for number in 0..SEEDERS {
        if number > 0 {
            copy_payload(&metainfo, &place.seeder(0), &place.seeder(number))?;
        }
        seeders.push(start_seeder(&place.seeder(number), torrent_file.clone(), args.speed).await?);
    }
    tokio::select! {
        biased;
        () = signals.next() => return Ok(Exit::Interrupted),
        ready = all_seed(&mut seeders, &tracker) => ready?,
    }
    let ports: Vec<String> =
        seeders.iter().map(|seeder| format!("127.0.0.1:{}", seeder.handle.listening_port())).collect();
    let speed = match args.speed {
        0 => String::new(),
        speed => format!(", each sends {}/s at most", bytes(speed)),
    };
    say("seeders", &(ports.join(", ") + &speed));

    let root = place.download();
    let torrent = Torrent::of_file(torrent_file, metainfo.clone(), root.clone(), Wanted::default());
    let until = Until::Complete { stop_timeout: Some(GIVE_UP), then_seed: false };
    let ended = transfer(vec![torrent], download, log.is_on_terminal(), until, &mut signals).await?;
    if ended.exit != Exit::Done {
        return Ok(ended.exit);
    }
    let sent = sent_by(&mut seeders).await;
    say("sources", &sent.iter().map(|sent| bytes(*sent)).collect::<Vec<_>>().join(" + "));

    let (source, display) = (place.seeder(0), args.display);
    let compared = tokio::task::spawn_blocking(move || {
        let found = check(&metainfo, &root, quiet(display));
        let is_equal = found.is_whole() && is_equal(&metainfo, &source, &root)?;
        Ok::<_, Failure>((is_equal, metainfo))
    });
    let (is_equal, metainfo) = compared.await.map_err(|error| Failure::System(error.into()))??;
    if !is_equal {
        return Err(Failure::Seed {
            torrent: NAME.to_owned(),
            problem: "what arrived is not what was sent".to_owned(),
        });
    }
    let pieces = metainfo.layout.piece_count();
    say("verified", &format!("all {}, and every file equal by SHA-256", count(pieces.into(), "piece")));
    for seeder in &seeders {
        let _ = seeder.handle.command(Command::Shutdown).await;
    }
    let total = metainfo.layout.total_bytes();
    if args.display.is_for_programs() {
        print_json(&json!({
            "event": "demo", "verified": true, "bytes": total, "pieces": pieces, "seconds": ended.elapsed.as_secs_f64(),
            "sent_by_seeders": sent, "kept": args.keep.then(|| place.root.to_string_lossy()),
        }));
    }
    say("done", &format!("{} in {}; {}", bytes(total), took(ended.elapsed), place.farewell()));
    Ok(Exit::Done)
}

/// Where it all happens; gone afterwards.
struct Place {
    root: PathBuf,
    keep: bool,
}

impl Place {
    fn new(keep: bool) -> Result<Self, Failure> {
        let root = std::env::temp_dir().join(format!("taipei-demo-{}", std::process::id()));
        fs::create_dir(&root).map_err(|error| Failure::File { path: root.clone(), error })?;
        Ok(Self { root, keep })
    }

    fn seeder(&self, number: usize) -> PathBuf {
        self.root.join(format!("seeder-{}", number + 1))
    }

    fn download(&self) -> PathBuf {
        self.root.join("download")
    }

    fn farewell(&self) -> String {
        if self.keep {
            format!("kept in {}", self.root.display())
        } else {
            "everything is removed again".to_owned()
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = fs::remove_dir_all(&self.root)
        {
            tell(format_args!("warning: {} is left over: {error}", self.root.display()));
        }
    }
}

/// The display that hashing has on the way: none for programs.
fn quiet(display: DisplayArgs) -> DisplayArgs {
    if display.is_for_programs() { DisplayArgs { quiet: true, ..display } } else { display }
}

/// What `taipei-cli download` would have with these switches.
fn download_args(display: DisplayArgs) -> TransferArgs {
    let bind = BindArgs { bind: Some("127.0.0.1".to_owned()) };
    let dht = DhtUse { no_dht: true, ..DhtUse::default() };
    TransferArgs { port: 0..=0, bind, dht, no_lsd: true, ..TransferArgs::plain(display) }
}

/// Random files below a directory: a large one, a smaller one, a small one, an empty one.
fn make_payload(directory: &Path, size: u64, seed: u64) -> Result<(), Failure> {
    let small = size / 1000;
    let parts = [
        ("large.bin", size - size / 4 - small),
        ("more/smaller.bin", size / 4),
        ("more/small.bin", small),
        ("more/empty.bin", 0),
    ];
    for (number, (name, length)) in parts.into_iter().enumerate() {
        let path = directory.join(name);
        let write = || -> io::Result<()> {
            fs::create_dir_all(path.parent().unwrap_or(directory))?;
            let mut file = File::create(&path)?;
            let mut rng = Rng::stream(seed, "demo", number as u64);
            let mut block = vec![0; COPY_BYTES];
            let mut left = length;
            while left > 0 {
                let part =
                    &mut block[..usize::try_from(left).map_or(COPY_BYTES, |left| left.min(COPY_BYTES))];
                rng.fill(part);
                file.write_all(part)?;
                left -= part.len() as u64;
            }
            Ok(())
        };
        write().map_err(|error| Failure::File { path: path.clone(), error })?;
    }
    Ok(())
}

/// The same files for another seeder: links where the file system has them, copies elsewhere.
fn copy_payload(metainfo: &Metainfo, from: &Path, to: &Path) -> Result<(), Failure> {
    for file in metainfo.layout.files() {
        let (from, to) = (path_below(from, file), path_below(to, file));
        let failed = |error| Failure::File { path: to.clone(), error };
        fs::create_dir_all(to.parent().unwrap_or(&to)).map_err(failed)?;
        if fs::hard_link(&from, &to).is_err() {
            fs::copy(&from, &to).map_err(failed)?;
        }
    }
    Ok(())
}

/// A seeder with sockets of its own, whose uplink is as fast as asked for.
async fn start_seeder(root: &Path, torrent_file: Bytes, speed: u64) -> Result<Session, Failure> {
    let transport = PacedTransport::new(TcpTransport::new(Bind::Address(Ipv4Addr::LOCALHOST.into())), speed);
    let jobs = ThreadJobs::on_files(FileStorage::new(), Some(1));
    let options = driver::Options { ports: Some(0..=0), recorder: None };
    let started =
        driver::start(transport, BootClock::new(), jobs, taipei_net::config(), start_values(None), options)
            .await;
    let (handle, alerts, owner) = started.map_err(taipei_net::StartError::from)?;
    let session = Session { handle, alerts, port: None, owner: tokio::spawn(owner.run()) };
    let mut add = AddTorrent::new(TorrentId(0), torrent_file, root.to_string_lossy().into_owned());
    add.resume = ResumeMode::NoState;
    let _ = session.handle.command(Command::AddTorrent(Box::new(add))).await;
    Ok(session)
}

/// Returns when every seeder has checked its data and the tracker knows it.
async fn all_seed(seeders: &mut [Session], tracker: &TrackerListener) -> Result<(), Failure> {
    let problem = |problem: &str| Failure::Seed { torrent: NAME.to_owned(), problem: problem.to_owned() };
    for seeder in seeders.iter_mut() {
        loop {
            match seeder.alerts.next().await {
                Some(Alert::StateChanged { state: TorrentState::Seeding, .. }) => break,
                Some(Alert::AddFailed { error, .. }) => {
                    return Err(Failure::Add { torrent: NAME.to_owned(), error });
                }
                Some(Alert::DiskFailed { error, .. }) => return Err(problem(&error.to_string())),
                Some(_) => {}
                None => return Err(problem("a seeder ended")),
            }
        }
    }
    for _ in 0..ANNOUNCE_LOOKS {
        if tracker.stats().values().any(|stats| stats.complete as usize >= seeders.len()) {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(problem("the seeders did not reach the tracker"))
}

/// What each seeder sent.
async fn sent_by(seeders: &mut [Session]) -> Vec<u64> {
    let mut sent = Vec::new();
    for seeder in seeders {
        let _ = seeder.handle.command(Command::ReportStats { torrent: TorrentId(0) }).await;
        while let Some(alert) = seeder.alerts.next().await {
            if let Alert::Stats(stats) = alert {
                sent.push(stats.uploaded_bytes);
                break;
            }
        }
    }
    sent
}

fn is_equal(metainfo: &Metainfo, source: &Path, arrived: &Path) -> Result<bool, Failure> {
    for file in metainfo.layout.files() {
        if sha256(&path_below(source, file))? != sha256(&path_below(arrived, file))? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn sha256(path: &Path) -> Result<[u8; 32], Failure> {
    let failed = |error| Failure::File { path: path.to_owned(), error };
    let mut file = File::open(path).map_err(failed)?;
    let mut hash = Sha256::new();
    let mut block = vec![0; COPY_BYTES];
    loop {
        match file.read(&mut block).map_err(failed)? {
            0 => return Ok(hash.finalize().into()),
            length => hash.update(&block[..length]),
        }
    }
}

/// The torrent's name.
const NAME: &str = "taipei-demo";
const SEEDERS: usize = 3;
/// Made, read or compared at once.
const COPY_BYTES: usize = 1 << 20;
/// Without progress for this long something is wrong with the demo itself.
const GIVE_UP: Duration = Duration::from_secs(30);
/// How often the tracker is looked at until it knows all seeders, and how many times.
const LOOK: Duration = Duration::from_millis(50);
const ANNOUNCE_LOOKS: usize = 400;
