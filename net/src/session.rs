//! A session on the real network and the real disk, in one call.

use core::net::IpAddr;
use core::ops::RangeInclusive;
use std::fmt;

use taipei_engine::driver::{self, Alerts, Handle, ListenError, Recorder, WeakHandle};
use taipei_engine::{Command, Config, StartValues};
use tokio::task::JoinHandle;

use crate::platform;
use crate::{
    Bind, BindError, BootClock, FileStorage, PortMapper, PortMapping, PortStatus, PortWatch, TcpTransport,
    ThreadJobs,
};

/// How a session is to be.
#[non_exhaustive]
pub struct Options {
    /// An address or the name of a network interface to use for everything; nothing goes another way, but the system looks
    /// up names. None: whatever the system chooses.
    pub bind: Option<String>,
    /// Ports to try in turn for listening; 0 lets the system choose. None: nobody can connect to us.
    pub ports: Option<RangeInclusive<u16>>,
    /// Whether and how a router is asked to forward the port to us. None: nobody is asked, which is the default, because it
    /// opens a door to this machine and asks the whole local network for it.
    pub port_mapping: Option<PortMapping>,
    /// The engine's own settings.
    pub config: Config,
    /// Seed, boot id and date.
    pub start_values: StartValues,
    /// Threads for disk and hash jobs. None: one a core, two at least.
    pub threads: Option<usize>,
    /// Sees every input before the engine does, and every output.
    pub recorder: Option<Box<dyn Recorder>>,
}

impl Default for Options {
    /// Any address, ports 6881 to 6999, no port mapping, a random seed.
    fn default() -> Self {
        Self {
            bind: None,
            ports: Some(6881..=6999),
            port_mapping: None,
            config: config(),
            start_values: crate::start_values(None),
            threads: None,
            recorder: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("bind", &self.bind)
            .field("ports", &self.ports)
            .field("port_mapping", &self.port_mapping)
            .field("config", &self.config)
            .field("start_values", &self.start_values)
            .field("threads", &self.threads)
            .field("recorder", &self.recorder.is_some())
            .finish()
    }
}

/// The engine's default settings, for the system that this was built for.
pub fn config() -> Config {
    let mut config = Config::default();
    config.windows_paths = platform::WINDOWS_PATHS;
    config
}

/// Lowers what this process cannot have: a little less than half of the files it may open are left to peers, a quarter
/// to the payload ([`FileStorage::new`]), and the rest is a reserve for state files, trackers and everything else. To be
/// called before the settings are used or recorded.
pub fn fit(config: &mut Config) {
    let open_files_max = u32::try_from(platform::open_files_max()).unwrap_or(u32::MAX);
    config.peers_max = config.peers_max.min((open_files_max / 2).saturating_sub(8).max(1));
}

/// A running session.
#[derive(Debug)]
pub struct Session {
    /// Commands it.
    pub handle: Handle,
    /// What it tells.
    pub alerts: Alerts,
    /// What becomes of the port at the router. None: nobody is asked, because it was not wanted, or because no router can
    /// stand before the address that we listen at.
    pub port: Option<PortWatch>,
    /// Ends after [`taipei_engine::Alert::Stopped`] was taken and the router has its port back, which takes two seconds at
    /// most. Aborting it ends everything at once.
    pub owner: JoinHandle<()>,
}

/// Why a session cannot begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The address or interface to bind to cannot be used.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// There is no port to listen on.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// Begins a session. Its tasks run on the tokio runtime that this is called on, which needs its timers and I/O.
///
/// # Errors
/// When it cannot use the address asked for, or cannot listen.
pub async fn start(options: Options) -> Result<Session, StartError> {
    let bind = options.bind.as_deref().map_or(Ok(Bind::Any), str::parse)?;
    let jobs = ThreadJobs::on_files(FileStorage::new(), options.threads);
    let (handle, alerts, owner) = driver::start(
        TcpTransport::new(bind.clone()),
        BootClock::new(),
        jobs,
        options.config,
        options.start_values,
        driver::Options { ports: options.ports, recorder: options.recorder },
    )
    .await?;
    let mapping = options.port_mapping;
    let mapper = mapping.and_then(|mapping| PortMapper::start(bind, handle.listening_addresses(), &mapping));
    let port = mapper.as_ref().map(PortMapper::watch);
    let weak = handle.downgrade();
    let owner = tokio::spawn(async move {
        let Some(mapper) = mapper else { return owner.run().await };
        tokio::select! {
            biased;
            () = owner.run() => {}
            () = pass_on(mapper.watch(), weak) => {}
        }
        mapper.release().await;
    });
    Ok(Session { handle, alerts, port, owner })
}

/// Tells the engine what routers do.
async fn pass_on(mut port: PortWatch, handle: WeakHandle) {
    let mut before = None;
    while let Some(status) = port.changed().await {
        let (port, external_ip) = match status {
            PortStatus::Mapped { port, external_ip, .. } => (Some(port), external_ip.map(IpAddr::V4)),
            PortStatus::Looking | PortStatus::Unmapped => (None, None),
        };
        if std::mem::replace(&mut before, port) == port && external_ip.is_none() {
            continue;
        }
        let Some(handle) = handle.upgrade() else { break };
        if handle.command(Command::Mapped { port, external_ip }).await.is_err() {
            break;
        }
    }
    std::future::pending().await
}
