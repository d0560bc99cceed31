//! The DHT of a session: where it begins, what is kept for the next run; and `taipei-cli dht`, which asks it things.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use clap::{Args, Subcommand};
use data_encoding::HEXLOWER_PERMISSIVE;
use serde_json::json;
use taipei_engine::dht::item::ItemName;
use taipei_engine::dht::saved;
use taipei_engine::{Alert, Command, Config, DhtSettings, DhtStats, InfoHash, NodeId};
use taipei_net::{Options, Session};

use crate::args::{TransferArgs, address};
use crate::items::{self, Draft, GetArgs, PutArgs};
use crate::output::{Exit, Failure, count, fail, print, print_json, tell};
use crate::transfer::{block_on, state_directory};

/// What is asked.
#[derive(Debug, Args)]
pub(crate) struct DhtArgs {
    #[command(subcommand)]
    command: DhtCommand,
    /// Begin with this node instead of the usual ones; may be repeated
    #[arg(long, global = true, value_name = "HOST:PORT", value_parser = host_and_port)]
    dht_bootstrap: Vec<(String, u16)>,
    /// Give up after so long
    #[arg(long, global = true, value_name = "SECS", default_value = "30", value_parser = crate::args::seconds)]
    timeout: Duration,
    /// Address or network interface to use for everything; nothing goes another way, but the system looks up names
    #[arg(long, global = true, value_name = "IP|IFACE", env = "TAIPEI_BIND", hide_env_values = true)]
    bind: Option<String>,
    /// One JSON object a line
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum DhtCommand {
    /// Ask a node whether it is there
    Ping {
        /// Its address
        #[arg(value_name = "IP:PORT", value_parser = address)]
        node: SocketAddr,
    },
    /// Find the peers of a swarm
    GetPeers {
        /// 40 hexadecimal digits
        #[arg(value_name = "INFOHASH", value_parser = info_hash)]
        info_hash: InfoHash,
    },
    /// Say that a peer of a swarm is at this machine
    Announce {
        /// 40 hexadecimal digits
        #[arg(value_name = "INFOHASH", value_parser = info_hash)]
        info_hash: InfoHash,
        /// Where the peer listens
        #[arg(long, value_name = "N", env = "TAIPEI_PEER_PORT", hide_env_values = true, value_parser = clap::value_parser!(u16).range(1..))]
        peer_port: u16,
    },
    /// Find what is stored under a name
    Get(GetArgs),
    /// Store a small value for two hours
    Put(PutArgs),
    /// Find swarms that nodes know
    Sample {
        /// Ask the nodes nearest to this point, 40 hexadecimal digits [default: any point]
        #[arg(long, value_name = "ID", value_parser = point)]
        target: Option<NodeId>,
    },
    /// Join, and say how many nodes are known
    Stats,
}

/// Asks and shows. 0: there was an answer, 1: there was none.
pub(crate) fn run(args: &DhtArgs) -> Exit {
    match block_on(ask(args)) {
        Ok(exit) => exit,
        Err(failure) => fail(&failure, args.json),
    }
}

/// What is asked, all that was given judged.
enum Question {
    Ping(SocketAddr),
    Peers(InfoHash, Option<u16>),
    Get(ItemName),
    Put(Draft),
    Sample(Option<NodeId>),
    Stats,
}

impl DhtCommand {
    fn question(&self) -> Result<Question, Failure> {
        Ok(match self {
            Self::Ping { node } => Question::Ping(*node),
            Self::GetPeers { info_hash } => Question::Peers(*info_hash, None),
            Self::Announce { info_hash, peer_port } => Question::Peers(*info_hash, Some(*peer_port)),
            Self::Get(get) => Question::Get(get.name()?),
            Self::Put(put) => Question::Put(put.draft()?),
            Self::Sample { target } => Question::Sample(*target),
            Self::Stats => Question::Stats,
        })
    }
}

async fn ask(args: &DhtArgs) -> Result<Exit, Failure> {
    let question = args.command.question()?;
    let mut options = Options::default();
    options.bind.clone_from(&args.bind);
    options.ports = Some(0..=0);
    // Gone in a moment: nobody should remember us (BEP 43).
    configure(&mut options.config, &args.dht_bootstrap, true);
    let is_ping = matches!(question, Question::Ping(_));
    if let Some(settings) = options.config.dht.as_mut().filter(|_| is_ping) {
        // That node is asked, and no other.
        settings.bootstrap.clear();
    }
    let mut session = taipei_net::start(options).await?;
    if args.dht_bootstrap.is_empty() && !is_ping {
        add_saved(&session).await;
    }
    let asked = async {
        if !is_ping {
            join(&mut session).await;
        }
        Ok(match question {
            Question::Ping(node) => ping(args, &mut session, node).await,
            Question::Peers(info_hash, announce) => look_up(args, &mut session, info_hash, announce).await,
            Question::Get(name) => items::get(args.json, &mut session, name).await,
            Question::Put(draft) => items::put(args.json, &mut session, draft).await?,
            Question::Sample(target) => sample(args, &mut session, target).await,
            Question::Stats => stats(args, &mut session).await,
        })
    };
    let answered = tokio::time::timeout(args.timeout, asked).await;
    answered.unwrap_or_else(|_| {
        if args.json {
            print_json(&json!({ "error": "no answer" }));
        } else {
            tell(format_args!("error: no node of the DHT answered within {} s", args.timeout.as_secs()));
            tell(format_args!(
                "hint: is UDP let out? name a node you know by --dht-bootstrap, or wait longer by --timeout"
            ));
        }
        Ok(Exit::Failed)
    })
}

/// Waits until the table has grown to what it will.
async fn join(session: &mut Session) {
    let mut before = 0;
    loop {
        tokio::time::sleep(JOIN_LOOK).await;
        let nodes = figures(session).await.map_or(0, |stats| stats.nodes.iter().sum());
        if nodes > 0 && nodes == before {
            return;
        }
        before = nodes;
    }
}

async fn figures(session: &mut Session) -> Option<DhtStats> {
    let _ = session.handle.command(Command::ReportDht).await;
    while let Some(alert) = session.alerts.next().await {
        if let Alert::Dht(stats) = alert {
            return stats.map(|stats| *stats);
        }
    }
    None
}

async fn ping(args: &DhtArgs, session: &mut Session, node: SocketAddr) -> Exit {
    let _ = session.handle.command(Command::DhtPing { address: node }).await;
    while let Some(alert) = session.alerts.next().await {
        let Alert::DhtPinged { address, node } = alert else { continue };
        let id = node.map(|id| id.to_string());
        if args.json {
            print_json(&json!({ "node": address, "id": id, "answered": id.is_some() }));
        } else {
            match &id {
                Some(id) => print(format_args!("{address}: {id}")),
                None => tell(format_args!("{address}: no answer")),
            }
        }
        return if id.is_some() { Exit::Done } else { Exit::Failed };
    }
    Exit::Failed
}

async fn look_up(args: &DhtArgs, session: &mut Session, info_hash: InfoHash, announce: Option<u16>) -> Exit {
    let _ = session.handle.command(Command::DhtLookup { info_hash, announce }).await;
    while let Some(alert) = session.alerts.next().await {
        match alert {
            Alert::DhtPeers { peers, .. } => {
                for peer in peers {
                    if args.json {
                        print_json(&json!({ "peer": peer }));
                    } else {
                        print(format_args!("{peer}"));
                    }
                }
            }
            Alert::DhtLookedUp { asked, hops, announced, peers, .. } => {
                if args.json {
                    let lookup =
                        json!({ "asked": asked, "hops": hops, "announced": announced, "peers": peers });
                    print_json(&lookup);
                } else {
                    let told = match announce {
                        Some(_) => format!(", announced to {}", count(announced.into(), "node")),
                        None => String::new(),
                    };
                    let (nodes, peers) = (count(asked.into(), "node"), count(peers.into(), "peer"));
                    tell(format_args!("{nodes} asked, {peers} found{told}"));
                }
                let enough = if announce.is_some() { announced > 0 } else { peers > 0 };
                return if enough { Exit::Done } else { Exit::Failed };
            }
            _ => {}
        }
    }
    Exit::Failed
}

async fn sample(args: &DhtArgs, session: &mut Session, target: Option<NodeId>) -> Exit {
    let _ = session.handle.command(Command::DhtSample { target }).await;
    while let Some(alert) = session.alerts.next().await {
        match alert {
            Alert::DhtSamples { info_hashes } => {
                for info_hash in info_hashes {
                    if args.json {
                        print_json(&json!({ "info_hash": info_hash.to_string() }));
                    } else {
                        print(info_hash);
                    }
                }
            }
            Alert::DhtSampled { target, asked, info_hashes } => {
                if args.json {
                    let target = target.to_string();
                    print_json(&json!({ "target": target, "asked": asked, "info_hashes": info_hashes }));
                } else {
                    let (nodes, swarms) = (count(asked.into(), "node"), count(info_hashes.into(), "swarm"));
                    tell(format_args!("{nodes} near {target} asked, {swarms} found"));
                }
                return if info_hashes > 0 { Exit::Done } else { Exit::Failed };
            }
            _ => {}
        }
    }
    Exit::Failed
}

async fn stats(args: &DhtArgs, session: &mut Session) -> Exit {
    let Some(stats) = figures(session).await else { return Exit::Failed };
    for (family, name) in ["IPv4", "IPv6"].into_iter().enumerate() {
        let Some(id) = stats.ids[family] else { continue };
        let (nodes, depth) = (stats.nodes[family], stats.depth[family]);
        if args.json {
            print_json(&json!({ "family": name, "id": id.to_string(), "nodes": nodes, "depth": depth }));
        } else {
            print(format_args!(
                "{name}: {} in {}, id {id}",
                count(nodes.into(), "node"),
                count(depth.into(), "bucket")
            ));
        }
    }
    if stats.nodes.iter().sum::<u32>() > 0 { Exit::Done } else { Exit::Failed }
}

/// The DHT is used; `bootstrap` is where it begins, the usual nodes if empty.
pub(crate) fn configure(config: &mut Config, bootstrap: &[(String, u16)], read_only: bool) {
    let usual = || ROUTERS.iter().map(|(host, port)| ((*host).to_owned(), *port)).collect();
    let bootstrap = if bootstrap.is_empty() { usual() } else { bootstrap.to_vec() };
    config.dht = Some(DhtSettings { bootstrap, read_only });
}

/// A transfer begins with the nodes of the last run, unless it was told of others.
pub(crate) async fn begin(session: &Session, args: &TransferArgs) {
    if !args.dht.no_dht && args.dht.dht_bootstrap.is_empty() {
        add_saved(session).await;
    }
}

/// How many nodes are known; none where the DHT is not used.
pub(crate) fn nodes(stats: Option<Box<DhtStats>>) -> Option<u32> {
    stats.map(|stats| stats.nodes.iter().sum())
}

async fn add_saved(session: &Session) {
    let file = saved_file().and_then(|path| fs::read(path).ok()).unwrap_or_default();
    let nodes = saved::parse(&file);
    if !nodes.is_empty() {
        let _ = session.handle.command(Command::AddDhtNodes { nodes }).await;
    }
}

/// Keeps nodes for the next run. Without it the next one begins with the usual nodes: no more than a pity.
pub(crate) fn save(nodes: &[SocketAddr]) {
    let Some(path) = saved_file() else { return };
    let before = saved::parse(&fs::read(&path).unwrap_or_default());
    if let Err(error) = replace(&path, &saved::encode(&by_family(nodes, before))) {
        tracing::info!(%error, "the nodes of the DHT are not saved");
    }
}

/// The nodes of this run; of a family that it had none of, those of earlier ones.
fn by_family(nodes: &[SocketAddr], before: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let is_new = |ipv6| nodes.iter().any(|node| node.is_ipv6() == ipv6);
    let has_new = [is_new(false), is_new(true)];
    let kept = before.into_iter().filter(|node| !has_new[usize::from(node.is_ipv6())]);
    nodes.iter().copied().chain(kept).collect()
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    fs::write(&beside, bytes)?;
    fs::rename(&beside, path)
}

fn saved_file() -> Option<PathBuf> {
    state_directory().map(|directory| directory.join("dht-nodes"))
}

/// `HOST:PORT`, an IPv6 address in brackets.
pub(crate) fn host_and_port(text: &str) -> Result<(String, u16), String> {
    let wrong = || "give HOST:PORT, for example dht.libtorrent.org:25401".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() { Err(wrong()) } else { Ok((host.to_owned(), port)) }
}

fn info_hash(text: &str) -> Result<InfoHash, String> {
    point(text).map(|NodeId(hash)| InfoHash(hash))
}

fn point(text: &str) -> Result<NodeId, String> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
    let point = bytes.and_then(|bytes| bytes.try_into().ok());
    point.map(NodeId).ok_or_else(|| "give 40 hexadecimal digits".to_owned())
}

/// Between two looks at how many nodes there are.
const JOIN_LOOK: Duration = Duration::from_millis(700);
/// Nodes that others begin with, too; some come and go.
const ROUTERS: [(&str, u16); 5] = [
    ("dht.libtorrent.org", 25401),
    ("router.bittorrent.com", 6881),
    ("dht.transmissionbt.com", 6881),
    ("router.utorrent.com", 6881),
    ("dht.aelitis.com", 6881),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_over_one_family_keeps_what_is_known_of_the_other() {
        let nodes = |text: &str| -> Vec<SocketAddr> {
            text.split_whitespace().map(|node| node.parse().unwrap()).collect()
        };
        let before = || nodes("203.0.113.1:1 [2001:db8::1]:1");
        assert_eq!(by_family(&nodes("203.0.113.2:1"), before()), nodes("203.0.113.2:1 [2001:db8::1]:1"));
        assert_eq!(by_family(&nodes("[2001:db8::2]:1"), before()), nodes("[2001:db8::2]:1 203.0.113.1:1"));
    }

    #[test]
    fn nodes_are_given_by_name_or_address() {
        let ok = |text: &str, host: &str, port| assert_eq!(host_and_port(text), Ok((host.to_owned(), port)));
        ok("router.example:6881", "router.example", 6881);
        ok("127.0.0.1:1", "127.0.0.1", 1);
        ok("[::1]:6881", "::1", 6881);
        for wrong in ["", "host", "host:", "host:0", "host:65536", ":1"] {
            assert!(host_and_port(wrong).is_err(), "{wrong}");
        }
    }
}
