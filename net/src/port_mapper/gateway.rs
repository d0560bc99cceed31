//! Which router the system sends everything through, read from its table of routes as Linux writes it.

use core::net::Ipv4Addr;

use crate::Bind;

/// The default gateway for what is sent from `bind`: of its interface, or of the interface in whose network its address
/// is. None where there is none, or where it cannot be known.
pub(super) fn default_gateway(table: &str, bind: &Bind) -> Option<Ipv4Addr> {
    let routes: Vec<Route<'_>> = table.lines().skip(1).take(ROUTES_MAX).filter_map(Route::parse).collect();
    let is_usable = |interface: &str| match bind {
        Bind::Any => true,
        Bind::Interface(name) => interface == name,
        Bind::Address(address) => routes.iter().any(|route| {
            route.gateway.is_unspecified() && route.interface == interface && route.holds(*address)
        }),
    };
    let defaults =
        routes.iter().filter(|route| route.mask.is_unspecified() && !route.gateway.is_unspecified());
    defaults
        .filter(|route| is_usable(route.interface))
        .min_by_key(|route| route.metric)
        .map(|route| route.gateway)
}

struct Route<'a> {
    interface: &'a str,
    destination: Ipv4Addr,
    /// Unspecified: hosts there are reached without one.
    gateway: Ipv4Addr,
    metric: u32,
    mask: Ipv4Addr,
}

impl<'a> Route<'a> {
    /// Interface, destination, gateway, flags, references, uses, metric, mask.
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        // Addresses are as they lie in memory, written as a number of this machine.
        let address =
            |field: Option<&str>| Some(Ipv4Addr::from(u32::from_str_radix(field?, 16).ok()?.to_ne_bytes()));
        let (interface, destination, gateway) =
            (fields.next()?, address(fields.next())?, address(fields.next())?);
        let flags = u32::from_str_radix(fields.next()?, 16).ok()?;
        let metric = fields.nth(2)?.parse().ok()?;
        let mask = address(fields.next())?;
        (flags & UP != 0).then_some(Self { interface, destination, gateway, metric, mask })
    }

    fn holds(&self, address: core::net::IpAddr) -> bool {
        let core::net::IpAddr::V4(address) = address else { return false };
        !self.mask.is_unspecified() && address & self.mask == self.destination
    }
}

/// The route can be used.
const UP: u32 = 1;
/// A machine with more of them has no home router.
const ROUTES_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// Interface, destination, gateway, flags, metric, mask.
    type Row = (&'static str, [u8; 4], [u8; 4], u32, u32, [u8; 4]);

    /// As the kernel writes it, with addresses in the order of this machine.
    fn table(routes: &[Row]) -> String {
        let mut text =
            "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n".to_owned();
        for (interface, destination, gateway, flags, metric, mask) in routes {
            let hex = |bytes: &[u8; 4]| format!("{:08X}", u32::from_ne_bytes(*bytes));
            text.push_str(&format!(
                "{interface}\t{}\t{}\t{flags:04X}\t0\t0\t{metric}\t{}\t0\t0\t0\n",
                hex(destination),
                hex(gateway),
                hex(mask)
            ));
        }
        text
    }

    #[test]
    fn the_gateway_is_that_of_the_default_route_that_is_used() {
        let any = [0; 4];
        let table = table(&[
            ("wlan0", any, [10, 0, 0, 1], 3, 600, any),
            ("eth0", any, [192, 168, 1, 1], 3, 100, any),
            ("down0", any, [192, 168, 9, 1], 2, 1, any),
            ("tun0", any, any, 1, 50, any),
            ("eth0", [192, 168, 1, 0], any, 1, 100, [255, 255, 255, 0]),
            ("wlan0", [10, 0, 0, 0], any, 1, 600, [255, 0, 0, 0]),
        ]);
        let found = |bind: &str| default_gateway(&table, &bind.parse().unwrap());
        assert_eq!(default_gateway(&table, &Bind::Any), Some([192, 168, 1, 1].into()));
        assert_eq!(default_gateway(&table, &Bind::Interface("wlan0".into())), Some([10, 0, 0, 1].into()));
        assert_eq!(default_gateway(&table, &Bind::Interface("tun0".into())), None);
        assert_eq!(found("10.4.5.6"), Some([10, 0, 0, 1].into()));
        assert_eq!(found("192.168.1.77"), Some([192, 168, 1, 1].into()));
        assert_eq!((found("172.16.0.1"), found("fd00::1")), (None, None));
    }

    #[test]
    fn nonsense_is_no_route() {
        for text in ["", "Iface", "x\ny\n", "h\neth0\t0\t0\n", "h\neth0\tZZ\t0101A8C0\t3\t0\t0\t0\t0\n"] {
            assert_eq!(default_gateway(text, &Bind::Any), None, "{text:?}");
        }
    }
}
