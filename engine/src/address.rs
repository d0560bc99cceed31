//! How far an address reaches, and so whom to believe about it.

use core::net::{IpAddr, SocketAddr};

/// How far an address reaches. Ordered: a source may name peers of its own scope or of a wider one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// This machine.
    Loopback,
    /// A local network: private (RFC 1918, RFC 4193), link-local, or shared by a carrier (RFC 6598).
    Private,
    /// Anywhere.
    Public,
}

impl Scope {
    /// The scope of an address. An IPv4 address written as IPv6 has the scope of the IPv4 one.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(ip) if ip.is_loopback() => Self::Loopback,
            IpAddr::V4(ip) if ip.is_private() || ip.is_link_local() => Self::Private,
            IpAddr::V4(ip) if matches!(ip.octets(), [100, 64..=127, ..]) => Self::Private,
            IpAddr::V6(ip) if ip.is_loopback() => Self::Loopback,
            IpAddr::V6(ip) if ip.is_unique_local() || ip.is_unicast_link_local() => Self::Private,
            _ => Self::Public,
        }
    }
}

/// Whether a peer can be at this address at all: a port, and an address of one host.
pub fn is_dialable(peer: SocketAddr) -> bool {
    let host = match peer.ip().to_canonical() {
        // 0.0.0.0/8 is this host, 224.0.0.0/4 multicast, 240.0.0.0/4 reserved with broadcast (RFC 6890).
        IpAddr::V4(ip) => !matches!(ip.octets(), [0 | 224..=255, ..]),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
    };
    host && peer.port() != 0
}

/// Whether a peer that a source at `source` named may be dialled: it is dialable and no more local than its source.
pub fn is_acceptable(peer: SocketAddr, source: IpAddr) -> bool {
    is_dialable(peer) && Scope::of(peer.ip()) >= Scope::of(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_those_of_the_registries() {
        let scope = |text: &str| Scope::of(text.parse().unwrap());
        for local in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(scope(local), Scope::Loopback, "{local}");
        }
        for private in
            ["10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.1.1", "100.64.0.1", "fd00::1", "fe80::1"]
        {
            assert_eq!(scope(private), Scope::Private, "{private}");
        }
        for public in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2001:db8::1", "203.0.113.1"] {
            assert_eq!(scope(public), Scope::Public, "{public}");
        }
    }

    #[test]
    fn nobody_is_at_such_addresses() {
        for bad in [
            "1.1.1.1:0",
            "0.0.0.0:1",
            "0.1.2.3:1",
            "224.0.0.1:1",
            "255.255.255.255:1",
            "[::]:1",
            "[ff02::1]:1",
        ] {
            assert!(!is_dialable(bad.parse().unwrap()), "{bad}");
        }
        assert!(is_dialable("1.1.1.1:1".parse().unwrap()));
    }

    #[test]
    fn local_peers_are_believed_from_local_sources_only() {
        let check = |peer: &str, source: &str| is_acceptable(peer.parse().unwrap(), source.parse().unwrap());
        assert!(check("127.0.0.1:1", "127.0.0.1") && check("10.0.0.1:1", "::1") && check("1.1.1.1:1", "::1"));
        assert!(!check("127.0.0.1:1", "10.0.0.1") && check("10.0.0.1:1", "10.9.9.9"));
        assert!(
            !check("10.0.0.1:1", "1.1.1.1") && !check("[::1]:1", "1.1.1.1") && check("2.2.2.2:2", "1.1.1.1")
        );
    }
}
