//! `taipei-cli scrape`: how many there are in a swarm, as its trackers count.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use data_encoding::HEXLOWER_PERMISSIVE;
use serde_json::json;
use taipei_engine::{Alert, Command, InfoHash, SwarmCounts};
use taipei_net::Options;

use crate::args::{BindArgs, is_tracker_url};
use crate::output::{Exit, Failure, escape, fail, host_of, print, print_json, read_torrent, tell};
use crate::transfer::block_on;

/// What is asked.
#[derive(Debug, Args)]
pub(crate) struct ScrapeArgs {
    /// Torrent file, whose trackers are asked; or the announce URL of a tracker, with info-hashes after it
    source: String,
    /// Info-hashes, 40 hexadecimal digits each
    #[arg(value_name = "INFOHASH", value_parser = info_hash)]
    info_hashes: Vec<InfoHash>,
    #[command(flatten)]
    bind: BindArgs,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Asks and shows. 0: a tracker answered, 1: none did.
pub(crate) fn run(args: &ScrapeArgs) -> Exit {
    match asked(args).and_then(|(trackers, hashes)| block_on(ask(args, trackers, hashes))) {
        Ok(exit) => exit,
        Err(failure) => fail(&failure, args.json),
    }
}

/// The trackers, and the torrents they are asked about.
fn asked(args: &ScrapeArgs) -> Result<(Vec<String>, Vec<InfoHash>), Failure> {
    if is_tracker_url(&args.source) && !args.info_hashes.is_empty() {
        return Ok((vec![args.source.clone()], args.info_hashes.clone()));
    }
    if is_tracker_url(&args.source) && (args.source.starts_with("udp:") || args.source.ends_with("/announce"))
    {
        return Err(Failure::NothingToScrape(host_of(&args.source).into_owned()));
    }
    let (_, metainfo) = read_torrent(&PathBuf::from(&args.source), &args.bind)?;
    let hashes = metainfo.info_hashes.v1.into_iter().chain(args.info_hashes.iter().copied()).collect();
    let trackers = metainfo.tracker_tiers.concat();
    if trackers.is_empty() {
        return Err(Failure::NoTracker(escape(&metainfo.name).into_owned()));
    }
    Ok((trackers, hashes))
}

async fn ask(args: &ScrapeArgs, trackers: Vec<String>, hashes: Vec<InfoHash>) -> Result<Exit, Failure> {
    let mut options = Options::default();
    options.bind.clone_from(&args.bind.bind);
    options.ports = None;
    let mut session = taipei_net::start(options).await?;
    let mut waiting = trackers.len();
    for tracker in trackers {
        let command = Command::Scrape { tracker, info_hashes: hashes.clone() };
        let _ = session.handle.command(command).await;
    }
    let mut answered = false;
    while waiting > 0
        && let Ok(Some(alert)) = tokio::time::timeout(TIME_MAX, session.alerts.next()).await
    {
        if let Alert::Scraped { tracker, result } = alert {
            waiting -= 1;
            answered |= result.is_ok();
            show(args.json, &tracker, result);
        }
    }
    Ok(if answered { Exit::Done } else { Exit::Failed })
}

fn show(as_json: bool, tracker: &str, result: Result<Vec<SwarmCounts>, String>) {
    let host = host_of(tracker);
    match result {
        Err(error) if as_json => print_json(&json!({ "tracker": host, "error": escape(&error) })),
        Err(error) => tell(format_args!("{host}: {}", escape(&error))),
        Ok(counts) if counts.is_empty() && !as_json => print(format_args!("{host}: knows none of them")),
        Ok(counts) => {
            for SwarmCounts { info_hash, seeds, leechers, completed, .. } in counts {
                if as_json {
                    print_json(&json!({
                        "tracker": host, "info_hash": info_hash.to_string(), "seeds": seeds, "leechers": leechers,
                        "completed": completed,
                    }));
                } else {
                    print(format_args!(
                        "{host}: {info_hash}  seeds {seeds}  leechers {leechers}  completed {completed}"
                    ));
                }
            }
        }
    }
}

fn info_hash(text: &str) -> Result<InfoHash, String> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
    let hash = bytes.and_then(|bytes| bytes.try_into().ok());
    hash.map(InfoHash).ok_or_else(|| "give 40 hexadecimal digits".to_owned())
}

/// For one more answer: two tries over UDP take 45 s.
const TIME_MAX: Duration = Duration::from_secs(60);
