//! Datagrams: one socket a family for the whole session, read by a task of its own. What they are is the engine's to tell.

use core::net::SocketAddr;

use super::doors::Transport;

/// The session's sockets; none for a family that is not there.
pub(super) struct Datagrams<T: Transport> {
    v4: Option<T::Datagrams>,
    v6: Option<T::Datagrams>,
}

impl<T: Transport> Datagrams<T> {
    /// Opens both, at the port where we listen if it is free there too.
    pub(super) async fn open(transport: &T, port: u16) -> Self {
        Self {
            v4: transport.open_datagrams(false, port).await,
            v6: transport.open_datagrams(true, port).await,
        }
    }

    /// Sends from the socket of the family of `remote`.
    pub(super) fn send(&self, transport: &T, remote: SocketAddr, payload: &[u8]) {
        let socket = if remote.is_ipv6() { &self.v6 } else { &self.v4 };
        if let Some(socket) = socket {
            transport.send_datagram(socket, remote, payload);
        }
    }

    /// The sockets there are.
    pub(super) fn sockets(&self) -> impl Iterator<Item = &T::Datagrams> {
        self.v4.iter().chain(&self.v6)
    }
}
