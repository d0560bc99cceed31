//! `taipei-cli download` and `taipei-cli seed`: a session, its display, and when it ends.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{env, io};

use serde_json::json;
use taipei_engine::command::SeedGoal;
use taipei_engine::config::RateLimits;
use taipei_engine::driver::SessionOver;
use taipei_engine::metainfo::Metainfo;
use taipei_engine::{AddTorrent, Alert, Command, ResumeMode, TorrentId, TorrentState};
use taipei_net::{EndSignals, Options, PortMapping, PortStatus, PortWatch, Session, start_values};
use tokio::task::JoinHandle;

use crate::args::{DownloadArgs, LogArgs, SeedArgs, TransferArgs, Words};
use crate::dht;
use crate::looks::Looks;
use crate::on_complete::Running;
use crate::output::{
    Exit, Failure, Shown, bytes, count, escape, fail, host_of, path_rules, print, print_json, tell, took,
};
use crate::progress::TransferProgress;
use crate::record::{self, Recorded};
use crate::resolve;
use crate::said::Said;
use crate::sources::{self, Read, Source, Torrent};
use crate::view::View;

/// Downloads until complete; with `--seed` for ever, with a seeding goal until that is reached.
pub(crate) fn download(args: &DownloadArgs, log: &LogArgs) -> Exit {
    let read = sources::to_download(args);
    if args.list {
        let as_json = args.transfer.display.is_for_programs();
        return match read {
            Err(failure) => fail(&failure, as_json),
            Ok(read) => {
                let mut exit = if read.some_failed { Exit::Failed } else { Exit::Done };
                for torrent in read.torrents {
                    match resolve::known(torrent, &args.transfer, args.stop_timeout) {
                        Ok(torrent) => sources::list(&torrent, as_json),
                        Err(failure) => exit = fail(&failure, as_json),
                    }
                    if exit == Exit::Interrupted {
                        break;
                    }
                }
                exit
            }
        };
    }
    let goal_is_given = args.transfer.seed_ratio.is_some() || args.transfer.seed_time.is_some();
    let (stop_timeout, then_seed) = (args.stop_timeout, args.seed || goal_is_given);
    run(read, &args.transfer, log, Until::Complete { stop_timeout, then_seed })
}

/// Serves what is there.
pub(crate) fn seed(args: &SeedArgs, log: &LogArgs) -> Exit {
    run(sources::to_seed(args), &args.transfer, log, Until::Interrupted)
}

fn run(torrents: Result<Read, Failure>, args: &TransferArgs, log: &LogArgs, until: Until) -> Exit {
    let ended = torrents.and_then(|Read { torrents, some_failed }| {
        let ended = block_on(async {
            let mut signals = EndSignals::new().map_err(Failure::System)?;
            transfer(torrents, args, log.is_on_terminal(), until, &mut signals).await
        });
        ended.map(|ended| match ended.exit {
            Exit::Done if some_failed => Ended { exit: Exit::Failed, ..ended },
            _ => ended,
        })
    });
    match ended {
        Ok(ended) => ended.exit,
        Err(failure) => fail(&failure, args.display.is_for_programs()),
    }
}

/// Runs a session, with its sockets, to its end.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()
        .map_err(Failure::System)?;
    let done = runtime.block_on(work);
    // A name that is looked up cannot be interrupted; nobody waits for it.
    runtime.shutdown_background();
    done
}

/// When a transfer is over.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// Everything is there, or nothing came for so long.
    Complete {
        /// None: never gives up.
        stop_timeout: Option<Duration>,
        /// Goes on until a signal comes, or every seeding goal is reached.
        then_seed: bool,
    },
    /// A signal comes; what is not whole at the start is an error.
    Interrupted,
}

/// How a transfer ended.
pub(crate) struct Ended {
    pub(crate) exit: Exit,
    /// Until everything was complete, or until the end.
    pub(crate) elapsed: Duration,
}

/// Runs one session with these torrents and shows it.
pub(crate) async fn transfer(
    torrents: Vec<Torrent>,
    args: &TransferArgs,
    log_on_terminal: bool,
    until: Until,
    signals: &mut EndSignals,
) -> Result<Ended, Failure> {
    let read_only = matches!(until, Until::Complete { then_seed: false, .. });
    let mut options = session_options(args, read_only)?;
    let recorded = record::begin(args, &mut options)?;
    let session = taipei_net::start(options).await?;
    let views: Vec<View> =
        torrents.iter().map(|torrent| View::new(&torrent.name(), trackers_of(torrent, args))).collect();
    let progress = TransferProgress::new(views.len(), args.display, log_on_terminal);
    let transfer = Transfer {
        torrents,
        until,
        progress,
        recorded,
        states: vec![Outcome::UnderWay; views.len()],
        views,
        looks: Looks::default(),
        tracker_errors: Said::default(),
        tracker_warnings: Said::default(),
        some_failed: false,
        to_ask: Vec::new(),
        began: Instant::now(),
        complete_after: None,
        last_progress: (Instant::now(), 0),
        stopping: None,
        reasons: Vec::new(),
        on_complete: args.on_complete.clone(),
        running: Running::default(),
    };
    transfer.run(session, args, signals).await
}

pub(crate) fn session_options(args: &TransferArgs, read_only: bool) -> Result<Options, Failure> {
    let mut config = taipei_net::config();
    config.peers_per_torrent_max = args.max_peers;
    config.peers_max = config.peers_max.max(args.max_peers);
    taipei_net::raise_open_files_max();
    taipei_net::fit(&mut config);
    config.limits = RateLimits { download: args.max_download, upload: args.max_upload };
    config.active_max = args.max_active;
    config.pex = !args.no_pex;
    config.lsd = !args.no_lsd;
    if !args.dht.no_dht {
        dht::configure(&mut config, &args.dht.dht_bootstrap, read_only);
    }
    config.state_directory =
        state_directory().and_then(|path| path.into_os_string().into_string().ok()).unwrap_or_default();
    let start_values = start_values(None);
    let mut options = Options::default();
    options.bind.clone_from(&args.bind.bind);
    options.ports = Some(args.port.clone());
    options.port_mapping = (!args.no_upnp).then(PortMapping::default);
    options.config = config;
    options.start_values = start_values;
    Ok(options)
}

/// What becomes of the port at the router, when it is another thing than before.
async fn port_changed(port: &mut Option<PortWatch>) -> PortStatus {
    if let Some(port) = port
        && let Some(status) = port.changed().await
    {
        return status;
    }
    std::future::pending().await
}

/// The user's state directory, for downloads into places where state cannot be written.
pub(crate) fn state_directory() -> Option<PathBuf> {
    let given = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = given("XDG_STATE_HOME")
        .or_else(|| given("HOME").map(|home| home.join(".local").join("state")))
        .or_else(|| given("LOCALAPPDATA"))?;
    Some(base.join("taipei"))
}

/// What became of a torrent.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    UnderWay,
    Complete,
    /// Its seeding goal is reached.
    Finished,
    /// It is not in the session any more, or never was.
    Failed,
}

struct Transfer {
    torrents: Vec<Torrent>,
    until: Until,
    progress: TransferProgress,
    recorded: Option<Recorded>,
    views: Vec<View>,
    looks: Looks,
    states: Vec<Outcome>,
    tracker_errors: Said,
    /// What trackers wanted the user to know.
    tracker_warnings: Said,
    /// Whether one of them is out; why was said.
    some_failed: bool,
    /// What the session is to be asked next.
    to_ask: Vec<Command>,
    began: Instant,
    /// From then until everything was complete.
    complete_after: Option<Duration>,
    /// When figures last grew, and to what.
    last_progress: (Instant, u64),
    /// Since when it stops, and how it ends then.
    stopping: Option<(Instant, Exit)>,
    /// What each torrent was doing when the end came by itself, in words.
    reasons: Vec<String>,
    /// What is run when a torrent is complete, and what of it runs.
    on_complete: Option<Words>,
    running: Running,
}

impl Transfer {
    async fn run(
        mut self,
        mut session: Session,
        args: &TransferArgs,
        signals: &mut EndSignals,
    ) -> Result<Ended, Failure> {
        self.listening(&session);
        dht::begin(&session, args).await;
        for (index, torrent) in self.torrents.iter().enumerate() {
            let add = add_torrent(index, torrent, args)?;
            self.ask(&session, Command::AddTorrent(Box::new(add))).await;
        }
        let mut next_look = tokio::time::Instant::now();
        loop {
            // One torrent that is shown at once, or all; and whether this may be the end.
            let (mut changed, mut all_changed, mut is_look) = (None, false, false);
            tokio::select! {
                biased;
                () = signals.next() => {
                    if self.stopping.is_some() {
                        return Ok(self.end(Exit::InterruptedTwice));
                    }
                    self.interrupted();
                    self.stop(&session).await;
                    all_changed = true;
                }
                alert = session.alerts.next() => match alert {
                    None | Some(Alert::Stopped) => break,
                    // Who begins elsewhere may be in another network, whose nodes are of no use in this one.
                    Some(Alert::DhtNodes { nodes }) if args.dht.dht_bootstrap.is_empty() => dht::save(&nodes),
                    Some(alert) => changed = self.on_alert(alert),
                },
                status = port_changed(&mut session.port) => self.on_port(status),
                why = record::stopped(&mut self.recorded) => self.on_recording_stopped(&why),
                () = tokio::time::sleep_until(next_look) => {
                    next_look = tokio::time::Instant::now() + self.progress.interval();
                    is_look = true;
                    self.running.look(|warning| self.progress.tell(warning));
                    self.ask_for_stats(&session).await;
                    self.progress.show(&mut self.views, false);
                    if self.stopping.is_some_and(|(since, _)| since.elapsed() > STOP_TIME_MAX) {
                        let seconds = STOP_TIME_MAX.as_secs();
                        self.progress.tell(&format!("warning: the session did not stop within {seconds} s"));
                        break;
                    }
                }
            }
            for command in std::mem::take(&mut self.to_ask) {
                self.ask(&session, command).await;
            }
            if all_changed {
                self.progress.show(&mut self.views, true);
            } else if let Some(TorrentId(index)) = changed {
                self.progress.show_one(&self.views, index as usize);
            }
            if self.stopping.is_none()
                && (is_look || changed.is_some())
                && let Some(exit) = self.is_over()
            {
                self.reasons = self.views.iter().map(View::words).collect();
                self.stopping = Some((Instant::now(), exit));
                self.stop(&session).await;
            }
        }
        let exit = match self.stopping {
            Some((_, Exit::Done)) if self.some_failed => Exit::Failed,
            Some((_, exit)) => exit,
            None => Exit::Failed,
        };
        tokio::select! {
            biased;
            () = signals.next() => Ok(self.end(Exit::InterruptedTwice)),
            () = self.finish(session.owner) => Ok(self.end(exit)),
        }
    }

    /// Waits for what outlives the session.
    async fn finish(&mut self, owner: JoinHandle<()>) {
        let _ = tokio::time::timeout(STOP_TIME_MAX, owner).await;
        // The owner has finished it; it may not be written yet.
        while let Ok(Some(why)) =
            tokio::time::timeout(STOP_TIME_MAX, record::written(&mut self.recorded)).await
        {
            self.on_recording_stopped(&why);
        }
        self.running.wait(|warning| self.progress.tell(warning)).await;
    }

    /// How it ends, if it does now.
    fn is_over(&mut self) -> Option<Exit> {
        let over = |outcome: &Outcome| matches!(outcome, Outcome::Finished | Outcome::Failed);
        if self.states.iter().all(over) {
            self.complete_after.get_or_insert_with(|| self.began.elapsed());
            return Some(Exit::Done);
        }
        let Until::Complete { stop_timeout, then_seed } = self.until else { return None };
        let waiting = self.states.contains(&Outcome::UnderWay);
        if !waiting {
            self.complete_after.get_or_insert_with(|| self.began.elapsed());
            return (!then_seed).then_some(Exit::Done);
        }
        let figure = self.views.iter().filter_map(|view| view.stats.as_ref()).fold(0u64, |sum, stats| {
            let useful = stats.downloaded_bytes.saturating_sub(stats.wasted_bytes);
            let metadata = stats.metadata.map_or(0, |metadata| u64::from(metadata.bytes_have));
            let done = useful.wrapping_add(stats.bytes_have).wrapping_add(stats.bytes_checked);
            sum.wrapping_add(done).wrapping_add(metadata)
        });
        if figure != self.last_progress.1 {
            self.last_progress = (Instant::now(), figure);
        }
        stop_timeout.filter(|timeout| self.last_progress.0.elapsed() >= *timeout).map(|_| Exit::GaveUp)
    }

    fn interrupted(&mut self) {
        let is_done = match self.until {
            Until::Complete { .. } => !self.states.contains(&Outcome::UnderWay),
            Until::Interrupted => true,
        };
        self.stopping = Some((Instant::now(), if is_done { Exit::Done } else { Exit::Interrupted }));
        if !self.progress.is_json() {
            self.progress.tell("stopping: telling trackers, saving state (again to end at once)");
        }
    }

    /// Takes in what the session tells; of which torrent something changed that is said at once.
    fn on_alert(&mut self, alert: Alert) -> Option<TorrentId> {
        match alert {
            Alert::AddFailed { torrent, error } => {
                let name = self.name(torrent);
                self.failed(torrent, &Failure::Add { torrent: name, error });
                return Some(torrent);
            }
            Alert::StateChanged { torrent, state } => {
                return self.on_state(torrent, state).then_some(torrent);
            }
            Alert::MetadataReceived { torrent, torrent_file } => {
                self.on_metadata(torrent, &torrent_file);
                return Some(torrent);
            }
            Alert::DiskFailed { torrent, error, needed_bytes } => {
                let words = match (needed_bytes, self.torrents.get(torrent.0 as usize)) {
                    (Some(needed), Some(torrent)) => {
                        format!("waiting for disk: {} more needed on {}", bytes(needed), Shown(&torrent.root))
                    }
                    _ => format!("waiting for disk: {}", escape(&error.to_string())),
                };
                if let Some(view) = self.view(torrent) {
                    view.problem = Some(words.clone());
                }
                self.note(
                    torrent,
                    &format!("{words}; it tries again every 30 s"),
                    "disk-failed",
                    json!({ "path": error.path, "error": error.kind.to_string(), "needed_bytes": needed_bytes }),
                );
            }
            Alert::Completed { torrent } => {
                let torrent = self.torrents.get(torrent.0 as usize);
                if let Some(words) = &self.on_complete
                    && let Some(torrent) = torrent
                    && let Some(metainfo) = &torrent.metainfo
                {
                    let begun = self.running.begin(words, metainfo, &torrent.root);
                    begun.unwrap_or_else(|warning| self.progress.tell(&warning));
                }
            }
            Alert::PieceFailed { torrent, piece } => {
                let words = format!("piece {piece} was wrong and is fetched again");
                self.note(torrent, &words, "piece-failed", json!({ "piece": piece.get() }));
            }
            Alert::PeerBanned { torrent, address } => {
                let words = format!("{address} sent wrong data and is not talked to again");
                self.note(torrent, &words, "peer-banned", json!({ "address": address }));
            }
            Alert::Tracker { torrent, url, result, warning } => {
                self.on_tracker_warning(torrent, &url, warning);
                self.on_tracker(torrent, &url, result);
            }
            Alert::Dht(stats) => {
                let nodes = dht::nodes(stats);
                self.views.iter_mut().for_each(|view| view.dht_nodes = nodes);
            }
            Alert::Stats(stats) => {
                if let Some(view) = self.view(stats.torrent) {
                    view.stats = Some(*stats);
                }
            }
            _ => {}
        }
        None
    }

    fn on_state(&mut self, torrent: TorrentId, state: TorrentState) -> bool {
        let index = torrent.0 as usize;
        let stays = matches!(self.until, Until::Complete { then_seed: true, .. } | Until::Interrupted);
        let Some(view) = self.views.get_mut(index) else { return false };
        view.is_new = true;
        if state == TorrentState::Stopping && view.is_done || self.states[index] == Outcome::Failed {
            return false;
        }
        view.state = state;
        if state != TorrentState::DiskError {
            view.problem = None;
        }
        match (state, self.until) {
            (TorrentState::Seeding, _) => {
                // Figures come later; that everything is there is known now.
                if let Some(stats) = &mut view.stats {
                    stats.bytes_left = 0;
                }
                view.is_done = !stays;
                view.whole_after.get_or_insert(self.began.elapsed());
                if let Some(outcome @ Outcome::UnderWay) = self.states.get_mut(index) {
                    *outcome = Outcome::Complete;
                }
            }
            (TorrentState::Finished, _) => {
                view.is_done = true;
                if let Some(outcome) = self.states.get_mut(index) {
                    *outcome = Outcome::Finished;
                }
            }
            (TorrentState::Downloading, Until::Interrupted) => {
                let problem =
                    "the data are not whole: `verify` says what is wrong, `download` fetches it".to_owned();
                let name = self.name(torrent);
                self.failed(torrent, &Failure::Seed { torrent: name, problem });
                // It would fetch what is missing, over what the user has.
                self.to_ask.push(Command::RemoveTorrent { torrent });
            }
            _ => {}
        }
        true
    }

    /// What a link names is known: files are chosen, or it is out.
    fn on_metadata(&mut self, torrent: TorrentId, torrent_file: &[u8]) {
        let Ok(metainfo) = Metainfo::parse(torrent_file, path_rules()) else { return };
        let Some(entry) = self.torrents.get_mut(torrent.0 as usize) else { return };
        let choice = entry.wanted.choice.clone();
        let chosen = choice.priorities(&metainfo);
        let (size, files) = (metainfo.layout.stored_bytes(), metainfo.layout.files().len());
        let name = metainfo.name.clone();
        entry.metainfo = Some(metainfo);
        if let Some(view) = self.view(torrent) {
            view.name = escape(&name).into_owned();
        }
        let words = format!("metadata is here: {} in {}", bytes(size), count(files as u64, "file"));
        self.note(torrent, &words, "metadata", json!({ "total_size": size, "num_files": files }));
        match chosen {
            Ok(priorities) if choice.is_given() => {
                self.to_ask.push(Command::SetPriorities { torrent, priorities });
            }
            Ok(_) => {}
            Err(failure) => {
                self.failed(torrent, &failure);
                self.to_ask.push(Command::RemoveTorrent { torrent });
            }
        }
    }

    fn on_tracker(&mut self, torrent: TorrentId, url: &str, result: Result<u32, String>) {
        if let Some(view) = self.view(torrent) {
            view.on_tracker(url, result.is_ok());
        }
        // Of many torrents the first says it for all.
        let (host, once) = (host_of(url), !self.progress.are_few());
        let (words, object) = match result {
            Ok(peers) => {
                let again = self.tracker_errors.is_over(&host, torrent, once);
                (
                    again.then(|| format!("tracker {host} answers again")),
                    json!({ "url": host, "peers": peers }),
                )
            }
            Err(error) => {
                let error = escape(&error);
                let is_new = self.tracker_errors.is_new(&host, torrent, &error, once);
                (is_new.then(|| format!("tracker {host}: {error}")), json!({ "url": host, "error": error }))
            }
        };
        if words.is_some() || self.progress.is_json() {
            self.note(torrent, &words.unwrap_or_default(), "tracker", object);
        }
    }

    /// A word of a tracker to the user, said once until it says another.
    fn on_tracker_warning(&mut self, torrent: TorrentId, url: &str, warning: Option<String>) {
        let Some(warning) = warning else { return };
        let (host, warning) = (host_of(url), escape(&warning));
        if self.tracker_warnings.is_new(&host, torrent, &warning, true) {
            let words = format!("tracker {host} says: {warning}");
            self.note(torrent, &words, "tracker-warning", json!({ "url": host, "warning": warning }));
        }
    }

    fn note(&self, torrent: TorrentId, words: &str, event: &str, details: serde_json::Value) {
        let name = self.name(torrent);
        self.progress.note(&name, words, || json!({ "event": event, "name": name, "details": details }));
    }

    /// One is out; the others go on.
    fn failed(&mut self, torrent: TorrentId, failure: &Failure) {
        if let Some(outcome) = self.states.get_mut(torrent.0 as usize) {
            *outcome = Outcome::Failed;
        }
        if let Some(view) = self.view(torrent) {
            view.has_failed = true;
            view.is_done = true;
        }
        self.some_failed = true;
        self.tracker_errors.forget(torrent);
        self.progress.fail(failure);
    }

    fn view(&mut self, torrent: TorrentId) -> Option<&mut View> {
        let view = self.views.get_mut(torrent.0 as usize)?;
        view.is_new = true;
        Some(view)
    }

    /// Escaped.
    fn name(&self, torrent: TorrentId) -> String {
        self.views.get(torrent.0 as usize).map(|view| view.name.clone()).unwrap_or_default()
    }

    fn listening(&self, session: &Session) {
        let port = session.handle.listening_port();
        self.progress
            .announce(&format!("listening on port {port}"), || json!({ "event": "listening", "port": port }));
    }

    /// In plain words it is in the log: whoever runs this need not know what a router is.
    fn on_port(&self, status: PortStatus) {
        if self.progress.is_json() {
            print_json(&match status {
                PortStatus::Mapped { way, port, external_ip } => json!({
                    "event": "port", "status": "mapped", "by": way.to_string(), "port": port, "external_ip": external_ip,
                }),
                PortStatus::Unmapped => json!({ "event": "port", "status": "unmapped" }),
                _ => json!({ "event": "port", "status": "looking" }),
            });
        }
    }

    fn on_recording_stopped(&self, why: &str) {
        if self.progress.is_json() {
            print_json(&json!({ "event": "recording-stopped", "reason": why }));
        } else {
            self.progress.tell(&format!("warning: {why}"));
        }
    }

    async fn ask_for_stats(&mut self, session: &Session) {
        self.ask(session, Command::ReportDht).await;
        for index in self.looks.next(&self.views) {
            self.ask(session, Command::ReportStats { torrent: TorrentId(index as u32) }).await;
        }
    }

    async fn stop(&self, session: &Session) {
        // What is said at the end is as it was then, of everybody.
        for index in (0..self.views.len()).filter(|index| !self.views[*index].has_failed) {
            self.ask(session, Command::ReportStats { torrent: TorrentId(index as u32) }).await;
        }
        self.ask(session, Command::Shutdown).await;
    }

    async fn ask(&self, session: &Session, command: Command) {
        // A session that is over says so by its alerts ending.
        let (Ok(()) | Err(SessionOver)) = session.handle.command(command).await;
    }

    /// Says how it ended.
    fn end(mut self, exit: Exit) -> Ended {
        self.progress.show(&mut self.views, true);
        self.progress.finish();
        let elapsed = self.complete_after.unwrap_or_else(|| self.began.elapsed());
        for (index, (view, torrent)) in self.views.iter().zip(&self.torrents).enumerate() {
            let reason = self.reasons.get(index).map_or("", String::as_str);
            self.summary(view, torrent, exit, elapsed, reason);
        }
        Ended { exit, elapsed }
    }

    fn summary(&self, view: &View, torrent: &Torrent, exit: Exit, elapsed: Duration, reason: &str) {
        let elapsed = match self.until {
            Until::Complete { .. } => view.whole_after.unwrap_or(elapsed),
            Until::Interrupted => elapsed,
        };
        let (have, total, pieces_have, pieces, down, up) =
            view.stats.as_ref().map_or((0, 0, 0, 0, 0, 0), |stats| {
                (
                    stats.bytes_have,
                    stats.bytes_total,
                    stats.pieces_have,
                    stats.pieces_total,
                    stats.downloaded_bytes,
                    stats.uploaded_bytes,
                )
            });
        let is_known = torrent.metainfo.is_some();
        let is_whole = is_known && view.stats.as_ref().is_some_and(|stats| stats.bytes_left == 0);
        let path = match &torrent.metainfo {
            Some(metainfo) => torrent.root.join(&metainfo.name),
            None => torrent.root.clone(),
        };
        if self.progress.is_for_programs() {
            let outcome = match exit {
                _ if view.has_failed => "failed",
                _ if is_whole => "complete",
                Exit::GaveUp => "gave-up",
                Exit::Interrupted | Exit::InterruptedTwice => "interrupted",
                _ => "incomplete",
            };
            print_json(&json!({
                "event": "finished", "name": view.name, "outcome": outcome, "path": path.to_string_lossy(),
                "info_hash": torrent.info_hash(), "bytes_have": have,
                "bytes_total": total, "pieces_have": pieces_have, "pieces_total": pieces, "downloaded_bytes": down,
                "uploaded_bytes": up, "seconds": elapsed.as_secs_f64(), "status": exit.status(),
                "reason": (exit == Exit::GaveUp && !is_whole).then_some(reason),
            }));
            return;
        }
        if view.has_failed {
            return;
        }
        let name = &view.name;
        let useful =
            view.stats.as_ref().map_or(0, |stats| stats.downloaded_bytes.saturating_sub(stats.wasted_bytes));
        let rate = |bytes_moved: u64| {
            format!("{}/s", bytes((bytes_moved as f64 / elapsed.as_secs_f64().max(0.001)) as u64))
        };
        let time = took(elapsed);
        let resume = match &torrent.metainfo {
            Some(_) => {
                format!("{pieces_have} of {pieces} pieces are here; the same command goes on from there")
            }
            None => "no peer has told what the torrent is; the same command tries again".to_owned(),
        };
        match (self.until, exit) {
            (Until::Interrupted, _) => print(format_args!("{name}: sent {} in {time}", bytes(up))),
            _ if is_whole && down == 0 => {
                print(format_args!("{name}: complete already, {}, in {}", bytes(total), Shown(&path)))
            }
            _ if is_whole => {
                print(format_args!(
                    "{name}: complete, {} in {time} ({}), in {}",
                    bytes(useful),
                    rate(useful),
                    Shown(&path)
                ));
            }
            (Until::Complete { stop_timeout: Some(timeout), .. }, Exit::GaveUp) => {
                let timeout = timeout.as_secs();
                tell(format_args!(
                    "error: {name}: gave up after {timeout} s without progress ({reason}): {resume}"
                ));
            }
            _ => tell(format_args!("{name}: stopped: {resume}")),
        }
    }
}

/// How many trackers are asked for a torrent.
pub(crate) fn trackers_of(torrent: &Torrent, args: &TransferArgs) -> usize {
    let own = torrent.trackers();
    let own = own.iter().filter(|url| !args.no_trackers && !args.exclude_tracker.contains(url));
    let given = args.tracker.iter().flat_map(|tier| tier.iter());
    own.chain(given).collect::<BTreeSet<_>>().len()
}

pub(crate) fn add_torrent(
    index: usize,
    torrent: &Torrent,
    args: &TransferArgs,
) -> Result<AddTorrent, Failure> {
    let output = torrent.root.to_str().ok_or_else(|| Failure::File {
        path: torrent.root.clone(),
        error: io::Error::new(io::ErrorKind::InvalidInput, "its name is not UTF-8: choose another directory"),
    })?;
    let resume = match (args.no_resume, args.recheck) {
        (true, _) => ResumeMode::NoState,
        (_, true) => ResumeMode::Recheck,
        _ => ResumeMode::Resume,
    };
    let (id, output) = (TorrentId(index as u32), output.to_owned());
    let mut add = match &torrent.source {
        Source::File(torrent_file) => AddTorrent::new(id, torrent_file.clone(), output),
        Source::Link(magnet) => AddTorrent::magnet(id, magnet.to_string(), output),
    };
    add.hold = torrent.metainfo.is_none() && torrent.wanted.choice.is_given();
    add.resume = resume;
    add.extra_trackers = args.tracker.iter().flat_map(|tier| tier.iter().cloned()).collect();
    add.exclude_trackers.clone_from(&args.exclude_tracker);
    add.use_trackers = !args.no_trackers;
    add.peers = args.peer.clone();
    add.priorities.clone_from(&torrent.wanted.priorities);
    add.sequential = torrent.wanted.sequential;
    add.allocation = torrent.wanted.allocation;
    add.limits = RateLimits { download: args.torrent_max_download, upload: args.torrent_max_upload };
    add.seed_goal = SeedGoal { ratio_permille: args.seed_ratio, time: args.seed_time };
    Ok(add)
}

/// For sockets and the engine: one thread was seen to move 8 Gbit/s, and a second one costs more wake-ups than it saves
/// time. Disk and hashes have threads of their own.
const WORKER_THREADS: usize = 1;
/// For a session to tell its trackers and to save its state.
const STOP_TIME_MAX: Duration = Duration::from_secs(15);
