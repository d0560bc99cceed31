//! What a magnet link names: asked of peers, and nothing else of it is fetched.

use std::time::{Duration, Instant};

use taipei_engine::metainfo::Metainfo;
use taipei_engine::{Alert, Command, ResumeMode, TorrentId};
use taipei_net::EndSignals;

use crate::args::TransferArgs;
use crate::dht;
use crate::output::{Failure, path_rules, tell};
use crate::record;
use crate::sources::Torrent;
use crate::transfer::{add_torrent, block_on, session_options, trackers_of};
use crate::view::View;

/// A torrent with what is in it: as it is where that is known, else when a peer has told.
pub(crate) fn known(
    mut torrent: Torrent,
    args: &TransferArgs,
    stop_timeout: Option<Duration>,
) -> Result<Torrent, Failure> {
    if torrent.metainfo.is_none() {
        let metainfo = block_on(ask(&torrent, args, stop_timeout))?;
        torrent.wanted.priorities = torrent.wanted.choice.priorities(&metainfo)?;
        torrent.metainfo = Some(metainfo);
    }
    Ok(torrent)
}

/// Asks until a peer has told, or for so long, or until a signal comes. What it waits for is said on standard error.
async fn ask(
    torrent: &Torrent,
    args: &TransferArgs,
    stop_timeout: Option<Duration>,
) -> Result<Metainfo, Failure> {
    let mut signals = EndSignals::new().map_err(Failure::System)?;
    let mut options = session_options(args, true)?;
    // Whoever only asks need not be found.
    options.port_mapping = None;
    let mut recorded = record::begin(args, &mut options)?;
    let mut session = taipei_net::start(options).await?;
    dht::begin(&session, args).await;
    let mut add = add_torrent(0, torrent, args)?;
    (add.hold, add.resume) = (true, ResumeMode::NoState);
    let mut view = View::new(&torrent.name(), trackers_of(torrent, args));
    let _ = session.handle.command(Command::AddTorrent(Box::new(add))).await;
    let began = Instant::now();
    let mut said = String::new();
    let resolved = loop {
        tokio::select! {
            biased;
            () = signals.next() => break Err(Failure::Interrupted { torrent: view.name.clone(), words: view.words() }),
            alert = session.alerts.next() => match alert {
                Some(Alert::MetadataReceived { torrent_file, .. }) => {
                    let path = view.name.clone().into();
                    let metainfo = Metainfo::parse(&torrent_file, path_rules());
                    break metainfo.map_err(|error| Failure::Torrent { path, error });
                }
                Some(Alert::AddFailed { error, .. }) => {
                    break Err(Failure::Add { torrent: view.name.clone(), error });
                }
                Some(Alert::StateChanged { state, .. }) => view.state = state,
                Some(Alert::Tracker { url, result, .. }) => view.on_tracker(&url, result.is_ok()),
                Some(Alert::Stats(stats)) => view.stats = Some(*stats),
                Some(Alert::Dht(stats)) => view.dht_nodes = dht::nodes(stats),
                Some(_) => {}
                None => break Err(Failure::Unresolved { torrent: view.name.clone(), words: view.words() }),
            },
            () = tokio::time::sleep(LOOK_EVERY) => {
                let _ = session.handle.command(Command::ReportDht).await;
                let _ = session.handle.command(Command::ReportStats { torrent: TorrentId(0) }).await;
                let words = view.words();
                if stop_timeout.is_some_and(|timeout| began.elapsed() >= timeout) {
                    break Err(Failure::Unresolved { torrent: view.name.clone(), words });
                }
                if view.stats.is_some() && words != said && !args.display.quiet {
                    tell(format_args!("{}: {words}", view.name));
                    said = words;
                }
            }
        }
    };
    // Trackers are told that we leave.
    let _ = session.handle.command(Command::Shutdown).await;
    let _ = tokio::time::timeout(STOP_TIME_MAX, session.owner).await;
    while let Ok(Some(why)) = tokio::time::timeout(STOP_TIME_MAX, record::written(&mut recorded)).await {
        tell(format_args!("warning: {why}"));
    }
    resolved
}

const LOOK_EVERY: Duration = Duration::from_millis(500);
const STOP_TIME_MAX: Duration = Duration::from_secs(5);
