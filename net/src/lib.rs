//! The real world for `taipei-engine`: sockets, files, threads, TLS, port mapping.
//!
//! [`start`] puts it together: an [`Options`] gives a running [`Session`]. Each door of the engine's driver has one
//! module here: [`TcpTransport`], [`BootClock`], [`FileStorage`], [`ThreadJobs`]. They hold no policy: what to dial, how
//! much to read, which path is safe was decided before it comes here.
//!
//! What it never does: follow a symbolic link below a download directory, skip the check of a certificate, or fall back
//! to another address than the one asked for with `bind`.

mod buffers;
mod clock;
mod fetch;
mod jobs;
mod multicast;
mod platform;
mod port_mapper;
mod session;
mod sha1_many;
mod storage;
mod tls;
pub mod tracker;
mod transport;

pub use clock::{BootClock, boot_id, start_values};
pub use fetch::{FetchError, fetch};
pub use jobs::ThreadJobs;
pub use platform::{EndSignals, create_private, raise_open_files_max};
pub use port_mapper::{PortMapper, PortMapping, PortStatus, PortWatch, Way};
pub use session::{Options, Session, StartError, config, fit, start};
pub use sha1_many::Sha1Lanes;
pub use storage::FileStorage;
pub use transport::{Bind, BindError, TcpTransport};

/// What the README says of using this is compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
