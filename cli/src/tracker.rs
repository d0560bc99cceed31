//! `taipei-cli tracker`: a tracker for everybody, or for some torrents.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use data_encoding::HEXLOWER_PERMISSIVE;
use serde_json::json;
use sha1::{Digest as _, Sha1};
use taipei_engine::InfoHash;
use taipei_engine::bencode::{self, BencodeError};
use taipei_engine::limits::TORRENT_FILE_BYTES_MAX;
use taipei_engine::rng::Rng;
use taipei_engine::tracker_server::{SwarmStats, TrackerConfig, TrackerServer};
use taipei_net::tracker::{TrackerListenError, TrackerListener, serve};
use taipei_net::{EndSignals, start_values};

use crate::args::address;
use crate::output::{Exit, Shown, io_words, print_json, tell};

/// What the tracker is told on the command line.
#[derive(Clone, Debug, Args)]
pub(crate) struct TrackerArgs {
    /// Where to listen, over HTTP and UDP; may be repeated [default: 0.0.0.0:6969 and [::]:6969]
    #[arg(
        long,
        value_name = "ADDR:PORT",
        value_parser = address,
        env = "TAIPEI_LISTEN",
        value_delimiter = ',',
        hide_env_values = true
    )]
    listen: Vec<SocketAddr>,
    /// Answer over HTTP only
    #[arg(long, env = "TAIPEI_NO_UDP", hide_env_values = true)]
    no_udp: bool,
    /// How often peers announce, for example 90s, 30m or 1h
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = interval, env = "TAIPEI_INTERVAL", hide_env_values = true)]
    interval: Duration,
    /// Serve only these: torrent files, info-hashes, or text files with an info-hash per line; may be repeated
    #[arg(long, value_name = "TORRENT", num_args = 1.., env = "TAIPEI_ALLOW", hide_env_values = true)]
    allow: Vec<PathBuf>,
    /// One JSON object a line
    #[arg(long, env = "TAIPEI_JSON", hide_env_values = true)]
    json: bool,
}

/// Runs a tracker until SIGINT or SIGTERM. 1: it cannot start.
pub(crate) fn run(args: &TrackerArgs) -> ExitCode {
    let done = config(args).map_err(Failure::Allow).and_then(|config| {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::System)?;
        runtime.block_on(run_until_signal(args, config))
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if args.json {
                print_json(&json!({ "error": failure.to_string(), "error_class": failure.class() }));
            } else {
                tell(format_args!("error: {failure}"));
            }
            Exit::Failed.into()
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Allow(AllowError),
    #[error("{0}: choose another with --listen")]
    Listen(TrackerListenError),
    #[error("{0}")]
    System(io::Error),
}

impl Failure {
    /// For machines.
    fn class(&self) -> &'static str {
        match self {
            Self::Allow(AllowError::Read { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                "not-found"
            }
            Self::Allow(AllowError::Read { .. }) => "unreadable",
            Self::Allow(_) => "bad-allow-list",
            Self::Listen(_) => "network",
            Self::System(_) => "system",
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum AllowError {
    #[error("{}: {}", Shown(path), io_words(error))]
    Read { path: PathBuf, error: io::Error },
    #[error("{}: larger than a torrent file may be", Shown(path))]
    TooLarge { path: PathBuf },
    #[error("{}: {error}", Shown(path))]
    Bencode { path: PathBuf, error: BencodeError },
    #[error("{}: no version 1 torrent: it has no `info` with `pieces`", Shown(path))]
    NoInfo { path: PathBuf },
    #[error("{}: line {line} is no info-hash of 40 hexadecimal digits", Shown(path))]
    Line { path: PathBuf, line: usize },
}

fn config(args: &TrackerArgs) -> Result<TrackerConfig, AllowError> {
    let mut config = TrackerConfig::with_interval(args.interval);
    if !args.allow.is_empty() {
        let mut hashes = BTreeSet::new();
        for path in &args.allow {
            hashes.extend(allowed(path)?);
        }
        config.allow = Some(hashes);
    }
    Ok(config)
}

/// The info-hashes that one `--allow` names.
fn allowed(path: &Path) -> Result<Vec<InfoHash>, AllowError> {
    if let Some(hash) = path.to_str().and_then(info_hash) {
        return Ok(vec![hash]);
    }
    let path = path.to_owned();
    let bytes = match std::fs::metadata(&path) {
        Ok(metadata) if metadata.len() > TORRENT_FILE_BYTES_MAX as u64 => {
            return Err(AllowError::TooLarge { path });
        }
        _ => match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) => return Err(AllowError::Read { path, error }),
        },
    };
    if bytes.first() == Some(&b'd') {
        return match bencode::raw_entry(&bytes, b"info") {
            Err(error) => Err(AllowError::Bencode { path, error }),
            Ok(Some(info)) if has_pieces(info) => Ok(vec![InfoHash(Sha1::digest(info).into())]),
            Ok(_) => Err(AllowError::NoInfo { path }),
        };
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines = text
        .lines()
        .map(str::trim)
        .enumerate()
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|(at, line)| {
            info_hash(line).ok_or_else(|| AllowError::Line { path: path.clone(), line: at + 1 })
        })
        .collect()
}

fn has_pieces(info: &[u8]) -> bool {
    bencode::parse(info).is_ok_and(|info| info.get(b"pieces").is_some())
}

fn info_hash(text: &str) -> Option<InfoHash> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?;
    bytes.try_into().ok().map(InfoHash)
}

async fn run_until_signal(args: &TrackerArgs, config: TrackerConfig) -> Result<(), Failure> {
    let listener = listen(args, &config)?;
    let mut out = Display { json: args.json, udp: !args.no_udp, shown: BTreeMap::new() };
    let _ = out.listening(&listener);
    let mut signals = EndSignals::new().map_err(Failure::System)?;
    loop {
        match tokio::time::timeout(LOOK, signals.next()).await {
            Ok(()) => break,
            Err(_) => _ = out.changes(&listener.stats()),
        }
    }
    let _ = out.changes(&listener.stats());
    listener.stop().await;
    Ok(())
}

fn listen(args: &TrackerArgs, config: &TrackerConfig) -> Result<TrackerListener, Failure> {
    let server = || TrackerServer::new(config.clone(), Rng::stream(start_values(None).seed, "tracker", 0));
    let udp = !args.no_udp;
    if !args.listen.is_empty() {
        return serve(&args.listen, udp, server()).map_err(Failure::Listen);
    }
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
    let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT));
    match serve(&[v4, v6], udp, server()) {
        // A machine without IPv6.
        Err(error) if error.address == v6 => serve(&[v4], udp, server()).map_err(Failure::Listen),
        done => done.map_err(Failure::Listen),
    }
}

/// Lines for people, or objects for programs; a torrent again only when a figure changed. That nobody reads them, or that
/// the disk they go to is full, is no reason to end.
struct Display {
    json: bool,
    udp: bool,
    shown: BTreeMap<InfoHash, SwarmStats>,
}

impl Display {
    fn listening(&self, listener: &TrackerListener) -> io::Result<()> {
        let addresses: Vec<SocketAddr> =
            listener.local_addrs().iter().filter_map(|address| reachable(*address)).collect();
        let schemes: &[&str] = if self.udp { &["http", "udp"] } else { &["http"] };
        let urls: Vec<String> = schemes
            .iter()
            .flat_map(|scheme| addresses.iter().map(move |address| format!("{scheme}://{address}/announce")))
            .collect();
        let mut out = io::stdout().lock();
        if self.json {
            writeln!(out, "{}", json!({ "event": "listening", "announce_urls": urls }))?;
        } else {
            urls.iter().try_for_each(|url| writeln!(out, "announce URL: {url}"))?;
        }
        out.flush()
    }

    fn changes(&mut self, stats: &BTreeMap<InfoHash, SwarmStats>) -> io::Result<()> {
        let mut out = io::stdout().lock();
        for (hash, now) in stats {
            if self.shown.insert(*hash, *now).is_some_and(|before| before == *now) {
                continue;
            }
            let SwarmStats { complete, incomplete, downloaded, started, completed, stopped, regular, .. } =
                now;
            if self.json {
                let object = json!({
                    "event": "torrent", "info_hash": hash.to_string(), "complete": complete, "incomplete": incomplete,
                    "downloaded": downloaded, "started": started, "completed": completed, "stopped": stopped,
                    "regular": regular,
                });
                writeln!(out, "{object}")?;
            } else {
                let announces = started + completed + stopped + regular;
                writeln!(
                    out,
                    "{hash}  seeds {complete}  leeches {incomplete}  downloaded {downloaded}  announces {announces}"
                )?;
            }
        }
        self.shown.retain(|hash, _| stats.contains_key(hash));
        out.flush()
    }
}

/// Where others reach a listening address. None for IPv6 on a machine that nobody can reach that way.
fn reachable(listening: SocketAddr) -> Option<SocketAddr> {
    let (ip, port) = (listening.ip(), listening.port());
    let ip = if !ip.is_unspecified() {
        ip
    } else if ip.is_ipv4() {
        outward((Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv4Addr::new(192, 0, 2, 1), 9).into())
            .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
    } else {
        outward(
            (Ipv6Addr::UNSPECIFIED, 0).into(),
            (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9).into(),
        )?
    };
    Some(SocketAddr::new(ip, port))
}

/// The address that this machine has towards the world. Nothing is sent: a datagram socket only picks its route.
fn outward(from: SocketAddr, to: SocketAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind(from).ok()?;
    socket.connect(to).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

fn interval(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("give a number and s, m or h".into()),
    };
    let number: u64 = number.parse().map_err(|_| "give a number and s, m or h")?;
    let seconds = number.checked_mul(unit).filter(|seconds| (1..=86_400).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| "from 1s to 1d".into())
}

/// The port that trackers have had from the beginning.
const PORT: u16 = 6969;
/// Between looks at the figures.
const LOOK: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_units() {
        let seconds = |text| interval(text).map(|interval| interval.as_secs()).ok();
        assert_eq!(
            [seconds("90"), seconds("90s"), seconds("5m"), seconds("1h")],
            [90, 90, 300, 3600].map(Some)
        );
        assert_eq!([seconds(""), seconds("0"), seconds("5x"), seconds("2d"), seconds("-1s")], [None; 5]);
    }

    #[test]
    fn what_is_allowed_is_a_hash_a_torrent_or_a_list() {
        let place = std::env::temp_dir().join(format!("taipei-allow-{}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        let file = |name: &str, bytes: &[u8]| {
            std::fs::write(place.join(name), bytes).unwrap();
            allowed(&place.join(name))
        };
        let hash = "0123456789abcdef0123456789ABCDEF01234567";
        assert_eq!(allowed(Path::new(hash)).unwrap(), [info_hash(hash).unwrap()]);
        let info = b"d6:pieces0:e";
        let torrent = [&b"d8:announce1:x4:info"[..], info, b"e"].concat();
        assert_eq!(file("a.torrent", &torrent).unwrap(), [InfoHash(Sha1::digest(info).into())]);
        assert!(matches!(file("b.torrent", b"d4:infodee"), Err(AllowError::NoInfo { .. })));
        assert!(matches!(file("c.torrent", b"d4:info"), Err(AllowError::Bencode { .. })));
        assert_eq!(file("list", format!("# two\n{hash}\n\n{hash}\n").as_bytes()).unwrap().len(), 2);
        assert!(matches!(file("bad", b"\n123"), Err(AllowError::Line { line: 2, .. })));
        assert!(matches!(allowed(&place.join("none")), Err(AllowError::Read { .. })));
        std::fs::remove_dir_all(&place).unwrap();
    }
}
