//! Datagrams: one socket a family for the whole session, read by a task of its own, and where the local network is heard one
//! more for its group. What they are is the engine's to tell.

use core::net::SocketAddr;

use super::doors::Transport;
use crate::wire::lsd::{GROUP_V4, GROUP_V6};

/// The session's sockets; none for a family that is not there.
pub(super) struct Datagrams<T: Transport> {
    v4: Option<T::Datagrams>,
    v6: Option<T::Datagrams>,
    /// Whether groups of the local network are heard (BEP 14).
    hears_groups: bool,
}

impl<T: Transport> Datagrams<T> {
    /// Opens both, at the port where we listen if it is free there too.
    pub(super) async fn open(transport: &T, port: u16, hears_groups: bool) -> Self {
        Self {
            v4: transport.open_datagrams(false, port).await,
            v6: transport.open_datagrams(true, port).await,
            hears_groups,
        }
    }

    /// Sends from the socket of the family of `remote`; to a group, on every interface.
    pub(super) fn send(&self, transport: &T, remote: SocketAddr, payload: &[u8]) {
        if remote.ip().is_multicast() {
            return transport.send_to_group(remote, payload);
        }
        let socket = if remote.is_ipv6() { &self.v6 } else { &self.v4 };
        if let Some(socket) = socket {
            transport.send_datagram(socket, remote, payload);
        }
    }

    /// The sockets there are.
    pub(super) fn sockets(&self) -> impl Iterator<Item = &T::Datagrams> {
        self.v4.iter().chain(&self.v6)
    }

    /// The groups to be heard.
    pub(super) fn groups(&self) -> impl Iterator<Item = SocketAddr> + use<T> {
        let hears_groups = self.hears_groups;
        [GROUP_V4, GROUP_V6].into_iter().filter(move |_| hears_groups)
    }
}
