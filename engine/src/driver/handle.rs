//! What an embedder holds of a session: a way to command it, and what it has to tell.

use core::net::SocketAddr;
use core::ops::RangeInclusive;
use std::fmt;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::datagram::Datagrams;
use super::doors::{Clock, Jobs, ListenError, Transport};
use super::owner::Owner;
use super::recorder::Recorder;
use crate::alert::Alert;
use crate::command::Command;
use crate::config::{Config, StartValues};

/// Begins a session: listens, and gives a handle, its alerts, and the owner, whose [`Owner::run`] the caller spawns.
///
/// Nothing happens before the owner runs. Dropping the owner's future ends everything at once: all its tasks are
/// aborted and all its connections closed. The graceful way is [`Command::Shutdown`], which is also what happens when
/// the last [`Handle`] is dropped.
///
/// # Errors
/// When there is no port to listen on.
pub async fn start<T: Transport, C: Clock, J: Jobs>(
    transport: T,
    clock: C,
    jobs: J,
    config: Config,
    start_values: StartValues,
    options: Options,
) -> Result<(Handle, Alerts, Owner<T, C, J>), ListenError> {
    let listeners = match options.ports {
        Some(ports) => transport.listen(ports).await?,
        None => Vec::new(),
    };
    let port = listeners.first().map_or(0, |(address, _)| address.port());
    let datagrams = Datagrams::open(&transport, port, config.lsd).await;
    let listening: Arc<[SocketAddr]> = listeners.iter().map(|(address, _)| *address).collect();
    let (command_sender, commands) = mpsc::channel(COMMANDS_WAITING_MAX);
    let (alert_sender, alerts) = mpsc::channel(ALERTS_WAITING_MAX);
    let owner = Owner::new(
        transport,
        clock,
        jobs,
        crate::Engine::new(config, start_values),
        listeners,
        datagrams,
        commands,
        alert_sender,
        options.recorder,
    );
    Ok((Handle { commands: command_sender, listening }, Alerts { alerts }, owner))
}

/// Settings of the driver itself.
#[derive(Default)]
pub struct Options {
    /// Ports to try in turn for listening; 0 lets the system choose. None: nobody can connect to us.
    pub ports: Option<RangeInclusive<u16>>,
    /// Sees every input before the engine does, and every output.
    pub recorder: Option<Box<dyn Recorder>>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("ports", &self.ports)
            .field("recorder", &self.recorder.is_some())
            .finish()
    }
}

/// Commands a session. Cheap to clone; when the last one is dropped, the session shuts down.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    listening: Arc<[SocketAddr]>,
}

impl Handle {
    /// Asks for something. Waits while many commands are waiting already.
    ///
    /// # Errors
    /// When the session is over.
    pub async fn command(&self, command: Command) -> Result<(), SessionOver> {
        self.commands.send(command).await.map_err(|_| SessionOver)
    }

    /// One that does not keep the session.
    pub fn downgrade(&self) -> WeakHandle {
        WeakHandle { commands: self.commands.downgrade(), listening: Arc::clone(&self.listening) }
    }

    /// The port that we listen at; 0 when nobody can reach us.
    pub fn listening_port(&self) -> u16 {
        self.listening.first().map_or(0, SocketAddr::port)
    }

    /// Every address at which we listen.
    pub fn listening_addresses(&self) -> &[SocketAddr] {
        &self.listening
    }
}

/// A [`Handle`] that does not keep the session: for whatever lives beside it.
#[derive(Clone, Debug)]
pub struct WeakHandle {
    commands: mpsc::WeakSender<Command>,
    listening: Arc<[SocketAddr]>,
}

impl WeakHandle {
    /// The handle, while somebody else still has one.
    pub fn upgrade(&self) -> Option<Handle> {
        Some(Handle { commands: self.commands.upgrade()?, listening: Arc::clone(&self.listening) })
    }
}

/// The session has ended; it takes no more commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session is over")]
pub struct SessionOver;

/// What a session tells, in order.
///
/// Whoever reads slowly delays nobody. Of waiting [`Alert::Stats`] only the newest of each torrent is kept. Nothing
/// else is lost unless a hundred thousand are waiting: then `PieceFinished`, `PieceFailed` and `Tracker` alerts go, oldest
/// first. Dropping it is fine: the session goes on unheard.
#[derive(Debug)]
pub struct Alerts {
    alerts: mpsc::Receiver<Alert>,
}

impl Alerts {
    /// The next alert; none when the session is over. [`Alert::Stopped`] is the last of a session that was shut down.
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Alert> {
        self.alerts.recv().await
    }

    /// The next alert if there is one now.
    pub fn try_next(&mut self) -> Option<Alert> {
        self.alerts.try_recv().ok()
    }
}

/// Commands waiting for the owner.
const COMMANDS_WAITING_MAX: usize = 64;
/// Alerts waiting for the embedder, before the owner keeps them itself.
const ALERTS_WAITING_MAX: usize = 1024;
