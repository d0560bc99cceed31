//! A session on the real network and the real disk, in one call.

use core::ops::RangeInclusive;
use std::fmt;

use taipei_engine::driver::{self, Alerts, Handle, ListenError, Recorder};
use taipei_engine::{Config, StartValues};
use tokio::task::JoinHandle;

use crate::platform;
use crate::{Bind, BindError, BootClock, FileStorage, TcpTransport, ThreadJobs};

/// How a session is to be.
#[non_exhaustive]
pub struct Options {
    /// An address or the name of a network interface to use for everything; nothing goes another way. None: whatever
    /// the system chooses.
    pub bind: Option<String>,
    /// Ports to try in turn for listening; 0 lets the system choose. None: nobody can connect to us.
    pub ports: Option<RangeInclusive<u16>>,
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
    /// Any address, ports 6881 to 6999, a random seed.
    fn default() -> Self {
        Self {
            bind: None,
            ports: Some(6881..=6999),
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
    /// Ends after [`taipei_engine::Alert::Stopped`] was taken. Aborting it ends everything at once.
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
        TcpTransport::new(bind),
        BootClock::new(),
        jobs,
        options.config,
        options.start_values,
        driver::Options { ports: options.ports, recorder: options.recorder },
    )
    .await?;
    Ok(Session { handle, alerts, owner: tokio::spawn(owner.run()) })
}
